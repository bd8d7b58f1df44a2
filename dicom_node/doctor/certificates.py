"""Certificates that the configuration names, wherever it does: readable, and not about to expire; keys private."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from dicom_node.base.config import Configuration
from dicom_node.doctor.finding import Finding, failed, ok, warning

CERTIFICATES = ("certificate", "ca_file")
KEYS = ("private_key",)
SOON_SECONDS = 30 * 86400.0
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
CONSTRUCTED_CONTEXT_0 = 0xA0  # [0] EXPLICIT Version
UTC_TIME = 0x17
RENEW = "renew it and put it in this file's place: the next connection uses it"


def check_certificates(configuration: Configuration) -> Iterator[Finding]:
    """Every certificate and key of the configuration."""
    certificates, keys = named(configuration, CERTIFICATES), named(configuration, KEYS)
    yield from check_files(certificates)
    for where, path in keys:
        yield _key(where, path)
    if not certificates:
        yield ok("certificates", "the configuration names none")


def check_files(files: Iterable[tuple[str, Path]]) -> Iterator[Finding]:
    """One finding a file. files: the key of the configuration, and the file of certificates (PEM)."""
    for where, path in files:
        try:
            ends = [not_after(ssl.PEM_cert_to_DER_cert(one)) for one in PEM.findall(path.read_text(encoding="ascii"))]
        except OSError as error:
            yield failed(where, f"{path} cannot be read ({error.strerror})", "mend the path or the file's rights")
            continue
        except (ValueError, IndexError):
            ends = []
        yield _expiry(where, path, ends)


def named(section: BaseModel, keys: tuple[str, ...], prefix: str = "") -> list[tuple[str, Path]]:
    """Where the configuration names files under these keys: the whole key, and the file."""
    found: list[tuple[str, Path]] = []
    for key in type(section).model_fields:
        value, where = getattr(section, key), f"{prefix}{key}"
        if isinstance(value, Path) and key in keys:
            found.append((where, value))
        elif isinstance(value, BaseModel):
            found += named(value, keys, f"{where}.")
        elif isinstance(value, tuple):
            for number, one in enumerate(value, start=1):
                if isinstance(one, BaseModel):
                    found += named(one, keys, f"{where}.{getattr(one, 'name', number)}.")
    return found


def not_after(der: bytes) -> float:
    """When a certificate expires, seconds since the epoch (RFC 5280 section 4.1.2.5). Raises ValueError, IndexError."""
    _, certificate, _ = _element(der)
    _, to_be_signed, _ = _element(certificate)
    tag, _, rest = _element(to_be_signed)
    for _ in range(3 if tag == CONSTRUCTED_CONTEXT_0 else 2):  # serial number, signature, issuer
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    kind, end, _ = _element(rest)
    text = end.decode("ascii").removesuffix("Z")
    if kind == UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of DER, and what follows it (X.690 section 8.1)."""
    length, begin = der[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[2:begin], "big")
    if begin + length > len(der):
        raise ValueError("cut off")
    return der[0], der[begin : begin + length], der[begin + length :]


def _expiry(where: str, path: Path, ends: list[float]) -> Finding:
    if not ends:
        return failed(where, f"{path} holds no certificate (PEM)", "put one there")
    left = min(ends) - time.time()
    day = datetime.fromtimestamp(min(ends), UTC).date().isoformat()
    if left <= 0:
        return failed(where, f"{path} expired on {day}", RENEW)
    if left < SOON_SECONDS:
        return warning(where, f"{path} expires on {day}", RENEW)
    return ok(where, f"good until {day}")


def _key(where: str, path: Path) -> Finding:
    try:
        mode = path.stat().st_mode
        path.read_bytes()
    except OSError as error:
        return failed(where, f"{path} cannot be read ({error.strerror})", "mend the path or the file's rights")
    if mode & 0o077:
        return warning(where, f"other users may read {path}", f"chmod 600 {path}")
    return ok(where, "private")
