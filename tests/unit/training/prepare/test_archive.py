"""Studies over the web from a server in this process: whole or not at all, whatever the answer looks like.

C-MOVE is tested with the real Orthanc (tests/integration/test_training_archive.py).
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.dicom_factory import StudyFacts, write_study
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare import wado
from training.prepare.archive import Archive
from training.prepare.run import fill_store
from training.prepare.store import TokenStore
from training.prepare.wado import WebArchive, write_parts

KEY = Pseudonyms(b"a" * 32)
BOUNDARY = b"=_b"


def multipart(parts: Sequence[bytes], *, closed: bool = True) -> bytes:
    head = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
    body = b"\r\n".join(head + part for part in parts)
    return body + (b"\r\n--" + BOUNDARY + b"--\r\n" if closed else b"")


class Answers(BaseHTTPRequestHandler):
    """Gives what the test put under a path."""

    found: dict[str, tuple[int, str, bytes]]
    asked: list[tuple[str, str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Accept"], self.headers["Authorization"] or ""))
        code, kind, body = self.found.get(self.path, (404, "text/plain", b"nothing"))
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(found: dict[str, tuple[int, str, bytes]]) -> Iterator[tuple[str, type[Answers]]]:
    handler = type("Handler", (Answers,), {"found": found, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web", handler
    finally:
        server.shutdown()
        server.server_close()


RELATED = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY.decode()}"'


def test_studies_come_over_the_web_by_uid_and_by_accession_number(tmp_path: Path) -> None:
    one, other = StudyFacts(), StudyFacts()
    bodies = {
        study.study_uid: multipart([path.read_bytes() for path in write_study(tmp_path / study.study_uid, study)])
        for study in (one, other)
    }
    answers = {f"/dicom-web/studies/{uid}": (200, RELATED, body) for uid, body in bodies.items()}
    found = json.dumps([{"0020000D": {"vr": "UI", "Value": [other.study_uid]}}]).encode()
    answers["/dicom-web/studies?AccessionNumber=A%2617"] = (200, "application/dicom+json", found)
    with serving(answers) as (url, handler):
        web = WebArchive(url, {"Authorization": "Bearer secret"})
        source = Archive(web, KEY, [one.study_uid, "1.2.3.4"], ["A&17"])
        result = fill_store(source, tmp_path / "store", workers=0, quiet=True)
    assert result.stored == 2
    assert result.refused == {"the archive does not have the study": 1}
    assert {record.study for record in TokenStore(tmp_path / "store").records} == {
        KEY.study(one.study_uid),
        KEY.study(other.study_uid),
    }
    assert {authorization for _, _, authorization in handler.asked} == {"Bearer secret"}
    assert "secret" not in repr(web)
    assert not list(tmp_path.glob(".store*"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, RELATED, multipart([b"x" * 5000], closed=False)), "ended before the study did"),
        ((200, RELATED, b""), "ended before the study did"),
        ((200, RELATED, b"--" + BOUNDARY + b"\r\n" + b"x" * 40_000), "without end of header"),
        ((200, "application/json", b"{}"), "not multipart/related"),
        ((200, "multipart/related", b"{}"), "not multipart/related"),
        ((503, "text/plain", b""), "answered 503"),
    ],
)
def test_an_answer_that_is_no_whole_study_is_refused(
    tmp_path: Path, answer: tuple[int, str, bytes], reason: str
) -> None:
    with serving({"/dicom-web/studies/1.2.3": answer}) as (url, _), pytest.raises(BadTrainingData, match=reason):
        WebArchive(url).retrieve("1.2.3", tmp_path)


def test_another_study_than_asked_for_is_refused(tmp_path: Path) -> None:
    body = multipart([path.read_bytes() for path in write_study(tmp_path / "other")])
    with serving({"/dicom-web/studies/1.2.3": (200, RELATED, body)}) as (url, _):
        result = fill_store(Archive(WebArchive(url), KEY, ["1.2.3"]), tmp_path / "store", workers=0, quiet=True)
    assert result.refused == {"the archive gave another study than it was asked for": 1}


def test_an_archive_that_is_not_there_is_no_end_of_the_run(tmp_path: Path) -> None:
    with serving({}) as (url, _):
        pass
    result = fill_store(Archive(WebArchive(url), KEY, ["1.2.3"]), tmp_path / "store", workers=0, quiet=True)
    assert result.refused == {"the archive cannot be reached (URLError)": 1}


@pytest.mark.parametrize("body", [b"[{}]", b"{", b'{"a": 1}', b"[1]"])
def test_a_query_that_is_not_answered_in_dicom_json_is_an_error(body: bytes) -> None:
    with serving({"/dicom-web/studies?AccessionNumber=1": (200, "application/dicom+json", body)}) as (url, _):
        archive = Archive(WebArchive(url), KEY, [], ["1"])
        with pytest.raises(BadTrainingData, match="not DICOM JSON"):
            archive.references()


@pytest.mark.parametrize("uid", ["MUELLER", "1.2/../x", "", "1." * 40 + "1"])
def test_what_is_no_uid_is_named_by_its_place(uid: str) -> None:
    with pytest.raises(BadTrainingData, match="study 2 of the list is not"):
        Archive(WebArchive("http://127.0.0.1:1"), KEY, ["1.2.3", uid]).references()


def test_only_the_web_is_asked(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="not an http or https URL"):
        WebArchive("file:///etc").retrieve("1.2.3", tmp_path)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_parts_are_found_wherever_the_chunks_end(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wado, "_CHUNK", chunk)
    parts = [b"", b"\r\n--=_", b"a\r\n--=_a\r\n\r\n", b"\r\n\r\n", b"--=_b", b"x" * 50]
    body = b"preamble\r\n" + multipart(parts)
    assert [path.read_bytes() for path in write_parts(io.BytesIO(body), BOUNDARY, tmp_path)] == parts


def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    body = io.BytesIO(multipart([b"x" * (3 << 20)]))
    with pytest.raises(BadTrainingData, match="larger than any study"):
        list(write_parts(body, BOUNDARY, tmp_path, most=2 << 20))
