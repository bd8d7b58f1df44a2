"""The real Orthanc as a PACS on free loopback ports: it forwards every stable study to the node, by itself.

How to use:

    with Orthanc(tmp_path / "pacs", node_port) as pacs:
        pacs.upload(files)                        # stable after two seconds, then forwarded
        pacs.wait(lambda: pacs.instances(uid, "SR"), "the report")
        pacs.stop(); pacs.start()                 # the same PACS, down for a while

"Permissive" is never set: jobs would then report success with nobody listening.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from support.certificates import Issued
from support.peers import AE_TITLE, free_port, listening

HANG_SECONDS = 300  # only so that a broken test ends
LOOK_AGAIN_SECONDS = 0.1
ORTHANC_AE = "ORTHANC"
# SendToModality() fails here; without Synchronous the script would wait for the whole transfer.
FORWARD = """
function OnStableStudy(study, tags, metadata)
  RestApiPost('/modalities/NODE/store', DumpJson({Resources = {study}, Synchronous = false}))
end
"""

T = TypeVar("T")


class Orthanc:
    """A PACS with a folder; runs while the `with` block lasts, except between `stop` and `start`."""

    def __init__(self, folder: Path, node_port: int, *, dicom_web: bool = False, tls: Issued | None = None) -> None:
        """dicom_web: with the plugin that takes STOW-RS. tls: DICOM over TLS alone, with this certificate."""
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            pytest.skip("Orthanc is not installed (apt install orthanc)")
        folder.mkdir(parents=True)
        self._folder = folder
        self._command = [program, str(folder / "orthanc.json")]
        self._http_port = free_port()
        self.port = free_port()
        (folder / "forward.lua").write_text(FORWARD)
        settings = {
            "Name": "PACS",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": ORTHANC_AE,
            "DicomPort": self.port,
            "DicomCheckCalledAet": True,
            "DicomModalities": {
                "NODE": {"AET": AE_TITLE, "Host": "127.0.0.1", "Port": node_port, "UseDicomTls": tls is not None}
            },
            "HttpPort": self._http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": 2,
            "LuaScripts": [str(folder / "forward.lua")],
            "Plugins": [str(_dicom_web_plugin())] if dicom_web else [],
            "DicomWeb": {"Enable": dicom_web, "Root": "/dicom-web/"},
        }
        if tls is not None:
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(tls.certificate),
                "DicomTlsPrivateKey": str(tls.key),
                "DicomTlsTrustedCertificates": str(tls.ca_file),
            }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    @property
    def dicom_web(self) -> str:
        """The address of its DICOMweb service."""
        return f"http://127.0.0.1:{self._http_port}/dicom-web"

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start and wait until both of its ports answer."""
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        self.wait(lambda: self._answers() and listening(self.port), "Orthanc answers")

    def stop(self) -> None:
        """Stop and wait until its process is gone, and its ports with it."""
        self._process.terminate()
        try:
            self._process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def upload(self, files: Iterable[Path]) -> None:
        """Have it store DICOM files, as if a scanner had sent them."""
        for file in files:
            self._call("/instances", file.read_bytes())

    def instances(self, study_instance_uid: str, modality: str) -> list[str]:
        """Orthanc's names of a study's instances of one modality."""
        return [
            instance
            for study in self._lookup(study_instance_uid)
            for series in self._get(f"/studies/{study}/series")
            if series["MainDicomTags"]["Modality"] == modality
            for instance in series["Instances"]
        ]

    def download(self, instance: str, path: Path) -> Path:
        """The instance as Orthanc stores it."""
        path.write_bytes(self._call(f"/instances/{instance}/file"))
        return path

    def rendered(self, instance: str, frame: int = 0) -> Image.Image:
        """A frame as Orthanc shows it."""
        return Image.open(io.BytesIO(self._call(f"/instances/{instance}/frames/{frame}/preview")))

    def texts(self, instance: str) -> list[str]:
        """The texts of a report's content items, as Orthanc decodes them, but for the long ones."""
        return list(_values(self._get(f"/instances/{instance}/simplified-tags"), "TextValue"))

    def delete(self, instance: str) -> None:
        """Forget an instance, as if its disk had."""
        address = f"http://127.0.0.1:{self._http_port}/instances/{instance}"
        with urllib.request.urlopen(urllib.request.Request(address, method="DELETE")):
            pass

    def forwarded(self, study_instance_uid: str) -> list[int]:
        """How many instances each forwarding of the study that the node took whole had, oldest first."""
        studies = self._lookup(study_instance_uid)
        jobs = [job for job in self._get("/jobs?expand") if job["Type"] == "DicomModalityStore"]
        done = [job for job in jobs if job["State"] == "Success" and job["Content"]["ParentResources"] == studies]
        return [job["Content"]["InstancesCount"] for job in sorted(done, key=lambda job: job["CreationTime"])]

    def last_forwarded(self, study_instance_uid: str) -> list[int]:
        """How many instances the last forwarding had, of each study that it knows under this UID, one a patient."""
        jobs = [job for job in self._get("/jobs?expand") if job["Type"] == "DicomModalityStore"]
        done = sorted((job for job in jobs if job["State"] == "Success"), key=lambda job: job["CreationTime"])
        last = {job["Content"]["ParentResources"][0]: job["Content"]["InstancesCount"] for job in done}
        return [last.get(study, 0) for study in self._lookup(study_instance_uid)]

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until the condition gives something true, and give that."""
        until = time.monotonic() + HANG_SECONDS
        while time.monotonic() < until:
            if value := condition():
                return value
            time.sleep(LOOK_AGAIN_SECONDS)
        raise AssertionError(f"never happened: {what}\n{(self._folder / 'orthanc.log').read_text()[-5000:]}")

    def _answers(self) -> bool:
        try:
            self._get("/system")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def _lookup(self, study_instance_uid: str) -> list[str]:
        found = json.loads(self._call("/tools/lookup", study_instance_uid.encode()))
        return [item["ID"] for item in found if item["Type"] == "Study"]

    def _get(self, path: str) -> Any:
        return json.loads(self._call(path))

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}{path}", data=body) as answer:
            content: bytes = answer.read()
        return content


def _values(tags: Any, name: str) -> Iterator[str]:
    """The values of an attribute on every level of Orthanc's tags."""
    if isinstance(tags, list):
        for item in tags:
            yield from _values(item, name)
    elif isinstance(tags, dict):
        for key, value in tags.items():
            if key == name and isinstance(value, str):
                yield value
            else:
                yield from _values(value, name)


def _dicom_web_plugin() -> Path:
    found = sorted(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*"))
    if not found:
        pytest.skip("Orthanc's DICOMweb plugin is not installed (apt install orthanc-dicomweb)")
    return found[0]
