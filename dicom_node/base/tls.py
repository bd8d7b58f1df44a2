"""TLS for everything that listens or calls: one place that makes the contexts (PS3.15 B.9 to B.12, BCP 195).

TLS 1.2 or 1.3, forward secrecy and authenticated encryption alone; no compression, renegotiation or resumption, so
that every connection proves itself anew. Contexts are made again when a file has changed: certificates are replaced
without a restart. Only the files' paths are ever named, never what is in them.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, model_validator

from dicom_node.base.errors import ConfigurationError
from dicom_node.base.events import Event, log

#: Of TLS 1.2 what RFC 9325 section 4.2 recommends, and ChaCha20; those of TLS 1.3 are all sound.
SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
READABLE_BY_ANYONE = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
FINGERPRINT = "sha256:"
Stamp = tuple[int, int, int]


class _Files(BaseModel):
    """Paths of PEM files. private_key: left out where the certificate's file holds the key too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path | None = None
    private_key: Path | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> _Files:
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key: needs certificate beside it")
        return self

    @property
    def key(self) -> Path | None:
        """The file that holds the private key, if there is one."""
        return self.private_key or self.certificate


class ClientTls(_Files):
    """TLS to a peer that the node calls: its certificate and the name in it are checked.

    ca_file: authorities that may have signed the peer's certificate; without it the system's own. certificate: the
    node's own, where the peer asks for one. server_name: what the peer's certificate must name, if not the host.
    """

    server_name: str | None = None


class ServerTls(_Files):
    """TLS on a port of the node; a port speaks TLS or plain text, never both.

    certificate: the node's own. ca_file: who connects must show a certificate that one of these authorities signed;
    without it nobody is asked for one.
    """

    @model_validator(mode="after")
    def _check_own(self) -> ServerTls:
        if self.certificate is None:
            raise ValueError("certificate: a listener needs a certificate of its own")
        return self


@dataclass(frozen=True)
class Certificate:
    """A certificate that a peer showed and an authority vouched for.

    names: of Subject Alternative Name, or without any the subject's common name, lower case. digest: SHA-256, hex.
    """

    names: frozenset[str]
    digest: str

    def fits(self, binding: str) -> bool:
        """Whether it is the one that is meant: `sha256:` and its fingerprint, or one of its names."""
        if binding.lower().startswith(FINGERPRINT):
            return fingerprint(binding) == self.digest
        return binding.lower() in self.names


def fingerprint(text: str) -> str:
    """The hexadecimal digits of a fingerprint as tools print it. Raises ValueError when it is none."""
    digits = text.lower().removeprefix(FINGERPRINT).replace(":", "").replace(" ", "")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError("not the SHA-256 fingerprint of a certificate, 64 hexadecimal digits")
    return digits


def shown_certificate(connection: Any) -> Certificate | None:
    """What the peer of a connection showed; None without TLS, or where nobody asked for it."""
    encoded = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    if encoded is None:
        return None
    fields: dict[str, Any] = connection.getpeercert() or {}
    names = [value for _, value in fields.get("subjectAltName", ()) if isinstance(value, str)]
    if not names:
        names = [value for part in fields.get("subject", ()) for key, value in part if key == "commonName"]
    return Certificate(frozenset(name.lower() for name in names), hashlib.sha256(encoded).hexdigest())


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """The context for calling a peer, as the files are now. Raises ConfigurationError naming a file that is no use."""
    return _client(settings, _stamps(settings))


def server_context(settings: ServerTls, socket_class: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
    """The context for a listener, as the files are now. Raises ConfigurationError naming a file that is no use."""
    return _server(settings, socket_class, _stamps(settings))  # type: ignore[arg-type]  # types are hashable


class Renewing:
    """A listener's context: made again when its files changed, and kept as it was while the new ones are of no use.

    Raises ConfigurationError on construction.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        self._make = make
        self._last = make()
        self._failed = False

    def __call__(self) -> ssl.SSLContext:
        """The context for the next connection."""
        try:
            context = self._make()
        except ConfigurationError as error:
            if not self._failed:  # said once: every connection comes by here
                log(Event.CERTIFICATE_UNUSABLE, "error", reason=str(error))
            self._failed = True
            return self._last
        if context is not self._last:
            log(Event.CERTIFICATE_RENEWED)
        self._last, self._failed = context, False
        return context


@lru_cache(maxsize=64)
def _client(settings: ClientTls, _as_of: tuple[Stamp | None, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    if settings.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return _with_files(context, settings)


@lru_cache(maxsize=64)
def _server(settings: ServerTls, socket_class: type[ssl.SSLSocket], _as_of: tuple[Stamp | None, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = socket_class
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    if settings.ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _with_files(context, settings)


def _with_files(context: ssl.SSLContext, settings: _Files) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_ciphers(SUITES)
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except (OSError, ValueError) as error:
            raise _unusable("ca_file", settings.ca_file, error, "holds no certificates in PEM form") from error
    if settings.certificate is not None:
        _load_own(context, settings.certificate, settings.key or settings.certificate)
    return context


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for name, path in (("certificate", certificate), ("private_key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise _unusable(name, path, error, "cannot be read") from error
    check_private(key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        words = "is no certificate in PEM form, or the key does not belong to it"
        raise _unusable("certificate", certificate, error, f"{words} (key: {key})") from error


def check_private(key: Path) -> None:
    """Refuse a key that every user of this machine may read or change. Raises ConfigurationError."""
    if key.stat().st_mode & (READABLE_BY_ANYONE | stat.S_IWGRP):
        raise ConfigurationError(f"{key}: others may read or change this key; `chmod o-rwx,g-w` takes that away")


def _no_password() -> NoReturn:
    # Without this OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted; only its permissions can protect it here")


def _unusable(name: str, path: Path, error: Exception, words: str) -> ConfigurationError:
    """Names the file; OpenSSL's own words are left out."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        words = error.strerror
    elif isinstance(error, ValueError) and not isinstance(error, OSError):
        words = str(error)
    return ConfigurationError(f"tls: {name} {path}: {words}")


def _stamps(settings: _Files) -> tuple[Stamp | None, ...]:
    return tuple(_stamp(path) for path in (settings.certificate, settings.private_key, settings.ca_file))


def _stamp(path: Path | None) -> Stamp | None:
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None


def tls_words(error: OSError) -> str:
    """Why a handshake failed, for the log: OpenSSL's reason, which quotes nothing of the peer's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return "it took too long" if isinstance(error, TimeoutError) else "the connection ended"
