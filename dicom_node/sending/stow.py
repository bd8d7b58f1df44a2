"""One attempt to hand one object to one archive by STOW-RS (PS3.18 section 10.5), as it lies in the outgoing folder."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.response import BaseHTTPResponse

from dicom_node.base.config import StowDestination, Tls
from dicom_node.base.errors import ConfigurationError, PeerBusy, PeerRefused, PeerUnreachable, RetriableError
from dicom_node.base.implementation import IMPLEMENTATION_VERSION_NAME
from dicom_node.base.orders import Delivery, Outcome
from dicom_node.sending.storescu import read_object

MAX_ANSWER_BYTES = 1 << 20  # the answer about one object has a few hundred
AT_ONCE = 1 << 16
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
# Attributes of the answer (PS3.18 table 10.5.3-2), as DICOM JSON names them.
FAILED, STORED, INSTANCE, REASON = "00081198", "00081199", "00081155", "00081197"
OK, ACCEPTED, CONFLICT = 200, 202, 409
FOR_NOW = (408, 425, 429)  # and every 5xx: says nothing about the object
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
HINTS = {
    400: "it does not take the request",
    401: "it does not take the credentials",
    403: "it does not allow the node to store",
    404: "url is not that of a DICOMweb service",
    409: "it did not store the object",
    413: "the object is too large for it",
    415: "it takes no such objects",
}
REDIRECT = "it answers with another address, which is not followed: put the right one into url"


class StowUser:
    """Takes objects to one archive. Raises ConfigurationError on construction when a certificate cannot be used."""

    def __init__(self, destination: StowDestination, outgoing: Path) -> None:
        self._destination = destination
        self._outgoing = outgoing
        seconds = destination.timeout_seconds
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=seconds, read=seconds),
            retries=False,
            ssl_context=_tls_context(destination.tls or Tls()) if destination.url.startswith("https:") else None,
        )

    def __call__(self, delivery: Delivery) -> Outcome:
        """One attempt. Raises what `store` raises."""
        assert delivery.path is not None
        self.store(self._outgoing / delivery.path)
        return Outcome()

    def store(self, path: Path) -> None:
        """Send the object at `path`. Returns only when the archive said that it has it.

        Raises PeerUnreachable, PeerBusy or RetriableError (try again), PeerRefused or PermanentError (a person).
        """
        instance = str(read_object(path, before_pixels=True).SOPInstanceUID)
        with path.open("rb") as file:
            status, answer = self._post(file)
        _judge(status, answer, instance)

    def reach(self) -> str:
        """See that an HTTP server answers at the address, and takes the credentials; what it said.

        Raises PeerUnreachable, PeerRefused or RetriableError.
        """
        try:
            response = self._pool.request(
                "OPTIONS", f"{self._destination.url}/studies", headers=self._credentials(), redirect=False
            )
        except HTTPError as error:  # its words quote what the peer sent
            raise PeerUnreachable(f"no answer at this address ({type(error).__name__})") from error
        if response.status in (401, 403, 404) or 300 <= response.status < 400:
            raise PeerRefused(f"the peer refuses (status {response.status}): {HINTS.get(response.status, REDIRECT)}")
        return f"answers (status {response.status})"

    def _post(self, file: BinaryIO) -> tuple[int, bytes]:
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + os.fstat(file.fileno()).st_size + len(tail)),
            "Accept": "application/dicom+json",
            "Accept-Encoding": "identity",
            "User-Agent": IMPLEMENTATION_VERSION_NAME,
        }
        try:
            response = self._pool.request(
                "POST",
                f"{self._destination.url}/studies",
                body=_body(head, file, tail),
                headers=headers | self._credentials(),
                redirect=False,
                preload_content=False,
            )
            try:
                return response.status, _bounded(response, self._destination.timeout_seconds)
            finally:
                response.close()
        except SSLError as error:
            raise PeerUnreachable("no TLS connection: the peer's certificate is not one to trust, or ours") from error
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise PeerUnreachable("no connection: nobody answers at this address") from error
        except HTTPError as error:  # its words quote what the peer sent
            raise PeerUnreachable(f"the connection broke before the answer ({type(error).__name__})") from error

    def _credentials(self) -> dict[str, str]:
        settings = self._destination
        if settings.token_file is not None:
            token = _secret(settings.token_file, "token_file")
            if not TOKEN.fullmatch(token):
                raise RetriableError("token_file: holds no token")
            return {"Authorization": f"Bearer {token}"}
        if settings.password_file is not None:
            password = _secret(settings.password_file, "password_file")
            pair = base64.b64encode(f"{settings.user}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}


def _tls_context(settings: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"tls: a certificate or key cannot be used ({type(error).__name__})") from error
    return context


def _secret(path: Path, key: str) -> str:
    """The first line of a file; read each time, so that it may be renewed while the node runs."""
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].strip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise RetriableError(f"{key}: cannot be read ({type(error).__name__})") from error


def _body(head: bytes, file: BinaryIO, tail: bytes) -> Iterator[bytes]:
    yield head
    while part := file.read(AT_ONCE):
        yield part
    yield tail


def _bounded(response: BaseHTTPResponse, seconds: float) -> bytes:
    """The answer's body; nothing of one that is too long. Raises PeerUnreachable when it does not end in time."""
    until = time.monotonic() + seconds
    body = b""
    while part := response.read1(AT_ONCE):
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            return b""
        if time.monotonic() > until:
            raise PeerUnreachable("the answer did not end in time")
    return body


def _judge(status: int, answer: bytes, instance: str) -> None:
    """Whether the archive has the instance (PS3.18 table 10.5.3-1)."""
    if status in (OK, ACCEPTED, CONFLICT):
        said = _datasets(answer)
        failed = [item for one in said for item in _items(one, FAILED)]
        reasons = [_value(item, REASON) for item in failed if _value(item, INSTANCE) in (instance, None)]
        if reasons:
            _judge_reason(reasons[0])
            return
        if status == OK and (said or not answer):
            return
        if status == OK:  # a proxy's page, say: no archive has the object because of it
            raise PeerRefused("the peer's answer is not that of a DICOMweb service (status 200)")
        if status == ACCEPTED:
            if any(_value(item, INSTANCE) == instance for one in said for item in _items(one, STORED)):
                return
            raise PeerRefused("the peer does not say what became of the object (status 202)")
    if status in FOR_NOW or 500 <= status < 600:
        raise PeerBusy(f"the peer could not take the object now (status {status})")
    hint = REDIRECT if 300 <= status < 400 else HINTS.get(status, "nothing that this service is known to answer")
    raise PeerRefused(f"the peer refused the object (status {status}): {hint}")


def _judge_reason(reason: Any) -> None:
    """By the Failure Reason (0008,1197), as the status of a C-STORE."""
    if reason == DUPLICATE_SOP_INSTANCE:
        return
    if not isinstance(reason, int) or not 0 < reason <= 0xFFFF:
        raise PeerRefused("the peer refused the object without a reason")
    if reason & 0xFF00 == 0xA700 or reason == PROCESSING_FAILURE:
        raise PeerBusy(f"the peer could not take the object now (failure reason 0x{reason:04X})")
    raise PeerRefused(f"the peer refused the object (failure reason 0x{reason:04X})")


def _datasets(answer: bytes) -> list[Any]:
    """The data sets of an answer in DICOM JSON (PS3.18 annex F), one as a rule; none where it is something else."""
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return []
    return [one for one in (parsed if isinstance(parsed, list) else [parsed]) if isinstance(one, dict)]


def _items(dataset: Any, tag: str) -> list[Any]:
    values = dataset.get(tag) if isinstance(dataset, dict) else None
    found = values.get("Value") if isinstance(values, dict) else None
    return found if isinstance(found, list) else []


def _value(item: Any, tag: str) -> Any:
    """The first value of an attribute; None where it has none."""
    found = _items(item, tag)
    return found[0] if found else None
