"""TLS contexts: what is refused at the start, what replacing a file does, and what a certificate is bound by."""

from __future__ import annotations

import os
import shutil
import ssl
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError

from dicom_node.base.errors import ConfigurationError
from dicom_node.base.tls import Certificate, ClientTls, Renewing, ServerTls, client_context, server_context
from support.certificates import Authority, Issued


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def node(site: Authority, tmp_path: Path) -> Issued:
    """A certificate whose files the test may change."""
    issued = site.issue("node")
    copies = [shutil.copy2(path, tmp_path) for path in (issued.certificate, issued.key, issued.ca_file)]
    return Issued(*map(Path, copies))


def test_only_sound_versions_and_suites_are_offered(node: Issued) -> None:
    for context in (server_context(node.server()), client_context(node.client())):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        of_tls_1_2 = [one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"]
        assert of_tls_1_2
        assert all("ECDHE" in name and ("GCM" in name or "CHACHA20" in name) for name in of_tls_1_2)
    assert server_context(node.server()).verify_mode is ssl.CERT_REQUIRED
    assert server_context(node.server(ca_file=False)).verify_mode is ssl.CERT_NONE
    assert client_context(node.client()).check_hostname


@pytest.mark.parametrize("name", ["certificate", "private_key", "ca_file"])
def test_a_file_that_is_of_no_use_is_named_and_nothing_of_it_quoted(node: Issued, name: str) -> None:
    path = Path(node.table()[name])
    content = path.read_text()
    broken = {"missing": None, "no PEM": "rubbish", "cut": content[: len(content) // 2]}
    for damage in broken.values():
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_text(damage)
            path.chmod(0o600)
        for make in (partial(server_context, node.server()), partial(client_context, node.client())):
            with pytest.raises(ConfigurationError) as caught:
                make()
            assert str(path) in str(caught.value)
            assert not any(line in str(caught.value) for line in content.splitlines())


def test_a_key_that_others_can_read_is_refused(node: Issued) -> None:
    for mode, usable in ((0o600, True), (0o640, True), (0o644, False), (0o660, False)):
        node.key.chmod(mode)
        os.utime(node.key, (mode, mode))
        if usable:
            server_context(node.server())
            continue
        with pytest.raises(ConfigurationError, match="others may read"):
            server_context(node.server())


def test_a_key_of_another_certificate_and_an_encrypted_one_are_refused(node: Issued, site: Authority) -> None:
    other = site.issue("other")
    with pytest.raises(ConfigurationError, match="does not belong"):
        server_context(ServerTls(certificate=node.certificate, private_key=other.key))
    encrypted = node.key.with_name("encrypted.key")
    os.system(f"openssl ec -in {node.key} -aes256 -passout pass:secret -out {encrypted} 2>/dev/null")
    encrypted.chmod(0o600)
    with pytest.raises(ConfigurationError, match="encrypted"):
        server_context(ServerTls(certificate=node.certificate, private_key=encrypted))


def test_replaced_files_count_from_the_next_connection_on(node: Issued, site: Authority) -> None:
    context = Renewing(partial(server_context, node.server()))
    before = context()
    assert context() is before
    fresh = site.issue("fresh")
    shutil.copy(fresh.certificate, node.certificate)  # half-way: the key is still the old one's
    assert context() is before
    shutil.copy(fresh.key, node.key)
    after = context()
    assert after is not before
    assert context() is after


def test_a_listener_needs_a_certificate_and_a_key_needs_one_beside_it() -> None:
    with pytest.raises(ValidationError, match="certificate of its own"):
        ServerTls()
    with pytest.raises(ValidationError, match="needs certificate"):
        ClientTls(private_key=Path("key.pem"))


def test_a_binding_is_a_name_or_a_fingerprint() -> None:
    shown = Certificate(frozenset({"pacs.example.org"}), "ab" * 32)
    assert shown.fits("PACS.example.org")
    assert shown.fits("sha256:" + ":".join(["AB"] * 32))
    assert not shown.fits("example.org")
    assert not shown.fits("sha256:" + "ac" * 32)
