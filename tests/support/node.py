"""A whole node as a site starts it: `dicom-node serve` in a process group of its own, on free loopback ports.

How to use:

    with Node(tmp_path, bundle, destinations=[destination("pacs", port)]) as node:   # waits for /healthz
        send(node.port, images)                                    # pynetdicom; DCMTK: support.peers.store
        study = node.wait_for_state(uid, "delivered")
        os.kill(node.pid("worker"), signal.SIGKILL)                # the supervisor starts another
        assert node.cli("studies", "--json").returncode == 0

`start`, `stop` and `kill` may follow each other on one folder. Waiting never sleeps a fixed time for an event: it looks
again and again, gives up only after `HANG_SECONDS`, and then shows the node's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import sqlalchemy as sa
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.base.config import Configuration, load_configuration
from dicom_node.base.events import Event
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.views import StudyView
from support.dicom_factory import SeriesFacts, StudyFacts, mr_slices
from support.peers import AE_TITLE, CLIENT, free_port, read_rows

HANG_SECONDS = 300  # only so that a broken test ends
LOOK_AGAIN_SECONDS = 0.05
SENDER = "SENDER"
ENDS_WITHOUT_REPORT = {"out_of_scope", "dead"}
PLANES_BY_NAME = {"AX": "axial", "SAG": "sagittal", "COR": "coronal"}

T = TypeVar("T")


class Node:
    """A node's folder and, once started, its processes."""

    #: Those whose block is entered, so that a failed test can show their logs.
    entered: ClassVar[list[Node]] = []

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        *,
        destinations: Sequence[dict[str, Any]] = (),
        stability_seconds: float = 1.0,
        environment: Mapping[str, str] | None = None,
        **sections: dict[str, Any],
    ) -> None:
        """environment: of its processes, beside this one's."""
        self._folder = folder
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._registry: Registry | None = None
        self.config = folder / "node.toml"
        table: dict[str, dict[str, Any]] = {
            "node": {"ae_title": AE_TITLE, "port": free_port(), "http_port": free_port(), "storage": "node"},
            # One process receives: another costs each start a second, and few tests are about it.
            "intake": {"stability_seconds": stability_seconds, "processes": 1},
            "model": {"bundle": str(bundle), "precision": "fp32", "allow_nonclinical": True},
        }
        for name, section in sections.items():
            table[name] = table.get(name, {}) | section
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(to_toml(table, destinations), encoding="utf-8")
        self.configuration: Configuration = load_configuration(self.config)

    @property
    def port(self) -> int:
        """Where it receives."""
        return self.configuration.node.port

    @property
    def registry(self) -> Registry:
        """Its registry, read and written from here as the command line does."""
        if self._registry is None:
            self._registry = Registry(self.configuration.node.database_url)
        return self._registry

    def __enter__(self) -> Node:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        Node.entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        Node.entered.remove(self)
        self._end()

    def start(self) -> None:
        """Start `dicom-node serve` and wait until every process is ready."""
        self.launch()
        self.wait(self.healthy, "the node is ready")

    def start_unless_running(self) -> None:
        """Start it where an earlier test left it stopped."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start `dicom-node serve` and do not wait."""
        with (self._folder / "node.log").open("ab") as log:
            command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config)]
            # One thread: torch's threads wait by spinning, which starves everything else on a small machine.
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | self._environment
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        return self._process

    def terminate(self) -> None:
        """SIGTERM, as systemd stops it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM, and wait for the end; the exit status."""
        self.terminate()
        assert self._process is not None
        return self._process.wait(HANG_SECONDS)

    def kill(self) -> None:
        """Kill -9 the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pid(self, role: str) -> int:
        """The process that plays a role now, as soon as there is one."""
        return int(self.wait(lambda: self.running().get(role), f"the {role} runs"))

    def running(self) -> dict[str, int]:
        """Role and process id of everything the present supervisor started and did not see end."""
        running: dict[str, int] = {}
        supervisor = None
        for line in self.log_lines():
            if line["number"] == Event.NODE_STARTED.number:
                running, supervisor = {}, line["pid"]
            elif line["number"] == Event.PROCESS_STARTED.number:
                running[line["process"]] = line["pid"]
            elif line["number"] == Event.PROCESS_ENDED.number:
                running.pop(line["process"], None)
        return running if self._process is not None and self._process.pid == supervisor else {}

    def log(self) -> str:
        """Everything the node wrote to its standard streams."""
        return (self._folder / "node.log").read_text(encoding="utf-8")

    def log_lines(self) -> list[dict[str, Any]]:
        """The structured lines of the log."""
        # A line may still be half-written.
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]

    def kill_all(self) -> None:
        """Kill -9 every process at once, as the machine's end does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def healthy(self) -> bool:
        """Whether `/healthz` says that all is well, and says it of the processes that run now."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.configuration.node.http_port}/healthz") as answer:
                healthy = answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False
        # The receiver speaks for its helper.
        running = {role: pid for role, pid in self.running().items() if not role.endswith("helper")}
        seen = {one.name: one.pid for one in self.registry.processes()}
        node = self.configuration.node
        return healthy and bool(running) and {role: seen.get(node.process(role)) for role in running} == running

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `dicom-node` on this node's configuration."""
        return dicom_node(*arguments, "--config", str(self.config))

    @contextlib.contextmanager
    def frozen(self, role: str) -> Iterator[int]:
        """Hold a process still while the block lasts (SIGSTOP), outside any transaction on an SQLite registry."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGSTOP)
        try:
            while not self._writable():
                os.kill(pid, signal.SIGCONT)
                time.sleep(LOOK_AGAIN_SECONDS)
                os.kill(pid, signal.SIGSTOP)
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def rows(self, table: sa.Table) -> list[Any]:
        """All rows of a table of the registry."""
        return read_rows(self.configuration, table)

    def study(self, uid: str) -> StudyView:
        """A study that must be there."""
        found = self.registry.study(uid)
        assert found is not None
        return found

    def wait_for_state(self, uid: str, *states: str, revision: int = 1) -> StudyView:
        """Wait until a revision of a study is in one of these states; fails at once when it ends in another."""

        def there() -> StudyView | None:
            found = self.registry.study(uid)
            if found is None or found.revision != revision:
                return None
            assert found.state in states or found.state not in ENDS_WITHOUT_REPORT, f"{found.state}: {found.reason}"
            return found if found.state in states else None

        return self.wait(there, f"a study is {' or '.join(states)}")

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until the condition gives something true, and give that."""
        until = time.monotonic() + HANG_SECONDS
        while time.monotonic() < until:
            if value := condition():
                return value
            if self._process is not None and self._process.poll() not in (None, -signal.SIGKILL):
                break
            time.sleep(LOOK_AGAIN_SECONDS)
        raise AssertionError(f"never happened: {what}\n{self.log()[-5000:]}")

    def _writable(self) -> bool:
        """Whether nobody keeps the SQLite registry's write lock."""
        path = self.configuration.node.storage / "registry.sqlite"
        with contextlib.closing(sqlite3.connect(path, timeout=2.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
            return True

    def _end(self) -> None:
        if self._registry is not None:
            self._registry.close()
        if self._process is None:
            return
        try:
            if self._process.poll() is None:
                self.stop()
        finally:
            # Whatever a broken test left (stopped processes, orphans) is in the group that `launch` made.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def destination(name: str, ae_title: str, port: int, **changes: Any) -> dict[str, Any]:
    """A DICOM destination on loopback that is tried again quickly."""
    base = {"name": name, "ae_title": ae_title, "host": "127.0.0.1", "port": port}
    return base | {"first_retry_seconds": 0.2, "max_retry_seconds": 1.0} | changes


def dicom_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, without a terminal."""
    command = [sys.executable, "-m", "dicom_node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)


def small_study(study: StudyFacts, *, slices: int = 8, names: Sequence[str] = ("AX FLAIR", "SAG T1")) -> list[Dataset]:
    """A brain study that is in scope and costs the model almost nothing: one series a name, 64 × 64 pixels."""
    y, x = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    voxels = np.zeros((slices, 64, 64), np.uint16)
    voxels[:, 24:40, 24:40] = 600 + 200 * np.sin(x) * np.cos(y)
    images = []
    for number, name in enumerate(names, start=1):
        plane = PLANES_BY_NAME[name.partition(" ")[0]]
        series = SeriesFacts(number=number, description=name, protocol=name, plane=plane, body_part="BRAIN")
        images += mr_slices(voxels + number, study, series)
    return images


def send(port: int, images: Iterable[Dataset], priority: int = 0, calling: str = SENDER) -> list[int]:
    """C-STORE data sets over one association by pynetdicom; the statuses. priority: 0 medium, 1 high, 2 low."""
    images = list(images)
    entity = AE(calling)
    for pair in {(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images}:
        entity.add_requested_context(*pair)
    association = entity.associate("127.0.0.1", port, ae_title=AE_TITLE, evt_handlers=CLIENT)
    assert association.is_established
    statuses = [_status(association, image, priority) for image in images]
    association.release()
    return statuses


def _status(association: Association, image: Dataset, priority: int) -> int:
    began = time.monotonic()
    answer = association.send_c_store(image, priority=priority)
    if "Status" not in answer:
        how = "aborted" if association.is_aborted else "still open"
        raise AssertionError(f"no answer to a C-STORE after {time.monotonic() - began:.1f} s, association {how}")
    return int(answer.Status)


def evidence(document: Dataset) -> set[str]:
    """SOP Instance UIDs of the images that a report was made from."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def to_toml(table: dict[str, dict[str, Any]], destinations: Sequence[dict[str, Any]] = ()) -> str:
    """Sections of plain values, lists and tables, and the destinations, as a configuration file."""
    parts = [("[" + name + "]", section) for name, section in table.items()]
    parts += [("[[destinations]]", one) for one in destinations]
    return "\n".join(
        "\n".join([head, *(f"{key} = {_toml_value(value)}" for key, value in section.items()), ""])
        for head, section in parts
    )


def _toml_value(value: Any) -> str:
    """JSON's scalars are TOML's; its objects are not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_value(one)}" for key, one in value.items()) + "}"
    return f"[{', '.join(map(_toml_value, value))}]" if isinstance(value, list | tuple) else json.dumps(value)
