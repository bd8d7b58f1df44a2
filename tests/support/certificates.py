"""A small authority for tests, by the openssl command: certificates that are good, expired, or somebody else's.

How to use:

    site = Authority(tmp_path)                        # a folder of its own
    pacs = site.issue("PACS", "pacs.example.org")     # .certificate, .key; .server() and .client() give sections
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dicom_node.base.tls import ClientTls, ServerTls

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    ca_file: Path

    @property
    def fingerprint(self) -> str:
        """As `intake.peers` takes it."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        return "sha256:" + hashlib.sha256(der).hexdigest()

    def table(self, *, ca_file: bool = True) -> dict[str, str]:
        """A section of a configuration file. ca_file: who is trusted is said too."""
        files = {"certificate": str(self.certificate), "private_key": str(self.key)}
        return files | ({"ca_file": str(self.ca_file)} if ca_file else {})

    def server(self, *, ca_file: bool = True) -> ServerTls:
        """For a listener. ca_file: clients must show a certificate of the same authority."""
        return ServerTls.model_validate(self.table(ca_file=ca_file))

    def client(self, server_name: str | None = None) -> ClientTls:
        """For a caller that shows this certificate."""
        return ClientTls.model_validate(self.table() | ({"server_name": server_name} if server_name else {}))

    def dcmtk(self) -> list[str]:
        """DCMTK's options to show this certificate and trust its authority."""
        return ["+tls", str(self.key), str(self.certificate), "+cf", str(self.ca_file)]


class Authority:
    """Signs certificates; its own is `certificate`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder / name
        (self._folder / "issued").mkdir(parents=True)
        self.certificate, self._key = self._folder / "ca.pem", self._folder / "ca.key"
        own = ["-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}", "-days", "2"]
        _openssl("req", "-x509", *CURVE, *own, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        (self._folder / "index").touch()

    def issue(self, name: str, *names: str, expired: bool = False) -> Issued:
        """A certificate for loopback and these DNS names."""
        certificate, key, request = (self._folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        _openssl("req", "-new", *CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self._folder / f"{name}.ext"
        dns = "".join(f"DNS:{one}," for one in names)
        extensions.write_text(f"subjectAltName={dns}DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        if expired:
            self._sign_in_the_past(request, certificate, extensions)
        else:
            authority = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2"]
            _openssl("x509", "-req", "-in", request, *authority, "-extfile", extensions, "-out", certificate)
        return Issued(certificate, key, self.certificate)

    def _sign_in_the_past(self, request: Path, certificate: Path, extensions: Path) -> None:
        """By `openssl ca`: `openssl x509` only lets a certificate begin now."""
        settings = self._folder / "ca.conf"
        settings.write_text(
            f"[ca]\ndefault_ca=here\n[here]\ndatabase={self._folder}/index\nnew_certs_dir={self._folder}/issued\n"
            f"certificate={self.certificate}\nprivate_key={self._key}\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n"
            "[any]\ncommonName=supplied\n"
        )
        dates = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
        _openssl(
            "ca", "-batch", "-notext", "-config", settings, *dates, "-extfile", extensions, "-in", request,
            "-out", certificate,
        )  # fmt: skip


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
