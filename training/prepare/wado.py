"""DICOMweb: a study's images by WADO-RS, its UID by QIDO-RS (PS3.18 sections 10.4 and 10.6).

The answer is one long multipart/related body (RFC 2387). It is written to files as it arrives, so memory does not grow
with the study. A body that ends before its closing delimiter is no study.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO

from training.base.errors import BadTrainingData

IMAGES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
JSON = "application/dicom+json"
LARGEST_STUDY = 16 << 30
_LARGEST_JSON = 4 << 20
_LARGEST_PART_HEADER = 16 << 10
_CHUNK = 1 << 20
_HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True)
class WebArchive:
    """url: of the DICOMweb service, such as https://pacs/dicom-web. headers: such as Authorization; never printed."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 300.0

    def find(self, accession_number: str) -> Sequence[str]:
        """Study Instance UIDs under an accession number. Raises BadTrainingData when the archive gives no answer."""
        query = urllib.parse.urlencode({"AccessionNumber": accession_number})
        with self._answer(f"/studies?{query}", JSON) as (_, body):
            text = body.read(_LARGEST_JSON)
        try:
            return [str(study["0020000D"]["Value"][0]) for study in json.loads(text or b"[]")]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BadTrainingData("the archive's answer to a query is not DICOM JSON") from error

    def retrieve(self, study_instance_uid: str, scratch: Path) -> Sequence[Path]:
        """One file an instance. Raises BadTrainingData with the reason."""
        with self._answer(f"/studies/{study_instance_uid}", IMAGES) as (headers, body):
            boundary = headers.get_param("boundary")
            if headers.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
                raise BadTrainingData("the archive's answer is not multipart/related")
            return list(write_parts(body, boundary.encode("latin-1"), scratch))

    @contextmanager
    def _answer(self, path: str, accept: str) -> Iterator[tuple[Message, IO[bytes]]]:
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise BadTrainingData("the archive's address is not an http or https URL")
        request = urllib.request.Request(f"{self.url.rstrip('/')}{path}", headers={**self.headers, "Accept": accept})  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:  # noqa: S310  # nosec B310
                yield answer.headers, answer
        except urllib.error.HTTPError as error:
            what = "does not have the study" if error.code in (404, 410) else f"answered {error.code}"
            raise BadTrainingData(f"the archive {what}") from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise BadTrainingData(f"the archive cannot be reached ({type(error).__name__})") from error


def write_parts(body: IO[bytes], boundary: bytes, folder: Path, most: int = LARGEST_STUDY) -> Iterator[Path]:
    """The parts of a multipart body as files. Raises BadTrainingData when it is cut, malformed or has `most` bytes."""
    parts = _Parts(body, b"\r\n--" + boundary, most)
    parts.copy(None)  # what stands in front of the first delimiter
    number = 0
    while parts.another():
        path = folder / f"{number:06d}.dcm"
        with path.open("wb") as file:
            parts.copy(file)
        yield path
        number += 1


class _Parts:
    """A window on the body that is never longer than a chunk and a delimiter."""

    def __init__(self, body: IO[bytes], delimiter: bytes, most: int) -> None:
        self._body = body
        self._delimiter = delimiter
        self._left = most
        self._held = b"\r\n"  # the first delimiter may stand at the very start

    def copy(self, target: IO[bytes] | None) -> None:
        """Copy up to the next delimiter, and stand behind it."""
        while (end := self._held.find(self._delimiter)) < 0:
            safe = max(len(self._held) - len(self._delimiter) + 1, 0)
            if target is not None:
                target.write(self._held[:safe])
            self._held = self._held[safe:] + self._read()
        if target is not None:
            target.write(self._held[:end])
        self._held = self._held[end + len(self._delimiter) :]

    def another(self) -> bool:
        """Whether a part follows; then stands behind its header."""
        while len(self._held) < 2:
            self._held += self._read()
        if self._held.startswith(b"--"):
            return False
        while (end := self._held.find(_HEADER_END)) < 0:
            if len(self._held) > _LARGEST_PART_HEADER:
                raise BadTrainingData("the archive's answer has a part without end of header")
            self._held += self._read()
        self._held = self._held[end + len(_HEADER_END) :]
        return True

    def _read(self) -> bytes:
        chunk = self._body.read(_CHUNK)
        self._left -= len(chunk)
        if not chunk:
            raise BadTrainingData("the archive's answer ended before the study did")
        if self._left < 0:
            raise BadTrainingData("the archive's answer is larger than any study")
        return chunk
