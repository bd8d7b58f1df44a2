"""TLS with real peers: DCMTK, Orthanc's DICOM TLS, curl and openssl as clients; DCMTK and Orthanc as servers.

HL7 over TLS: test_hl7_listener.py, test_hl7_sender.py. STOW-RS over https: tests/unit/dicom_node/sending/test_stow.py.
PRIMA_TLS_NODE=1 adds a whole node, a study in and its report out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.errors import ConfigurationError, PeerUnreachable
from dicom_node.base.events import Event
from dicom_node.base.requestor import associated
from dicom_node.base.tls import ClientTls
from dicom_node.base.ups_settings import Subscriber
from dicom_node.certificates import check_certificates
from dicom_node.console.http import SILENT_SECONDS, Console
from dicom_node.intake import secured
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.sending.storescu import store as send
from support.certificates import Authority, Issued
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write
from support.node import Node, destination, small_study
from support.orthanc import ORTHANC_AE, Orthanc
from support.peers import (
    AE_TITLE,
    RunningReceiver,
    associate_request,
    configuration_for,
    dcmtk,
    free_port,
    listening,
    read_pdu,
    receiver,
    run_dcmtk,
    store,
    wait_until,
)

pytestmark = pytest.mark.peers
REJECTED_CALLING_AE = (0x03, b"\x00\x01\x01\x03")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def own(site: Authority) -> Issued:
    return site.issue("node", "node.example.org")


@pytest.fixture(scope="module")
def pacs(site: Authority) -> Issued:
    return site.issue("pacs", "pacs.example.org")


@pytest.fixture(scope="module")
def scanner(site: Authority) -> Issued:
    return site.issue("scanner", "scanner.example.org")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(mr_slices(head_phantom(1), StudyFacts())[0], tmp_path_factory.mktemp("image") / "image.dcm")


@pytest.fixture(scope="module")
def node(own: Issued, pacs: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    """A receiver that speaks TLS; PACS is bound to its certificate's name, FILM to the same, SCANNER to none."""
    peers = [
        {"ae_title": "PACS", "certificate": "pacs.example.org"},
        {"ae_title": "FILM", "certificate": pacs.fingerprint.upper()},
        {"ae_title": "SCANNER"},
    ]
    with receiver(
        configuration_for(tmp_path_factory.mktemp("node"), free_port(), tls=own.table(), peers=peers)
    ) as running:
        yield running


def echo(node: RunningReceiver, calling: str, *options: str) -> int:
    return run_dcmtk(
        "echoscu", "-aet", calling, "-aec", AE_TITLE, *options, "127.0.0.1", node.port
    ).returncode  # fmt: skip


def connect(node: RunningReceiver, shown: Issued) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=shown.ca_file)
    context.load_cert_chain(shown.certificate, shown.key)
    plain = socket.create_connection(("127.0.0.1", node.port))
    return context.wrap_socket(plain, server_hostname="node.example.org")


def test_a_known_peer_sends_images_over_tls(node: RunningReceiver, pacs: Issued, image: Path) -> None:
    sent = store(node.port, [image], "-aet", "PACS", *pacs.dcmtk())
    assert sent.returncode == 0, sent.stdout
    assert node.standings(after=1) == {"current": 1}


def test_half_a_record_and_silence_ends_the_association(own: Issued, pacs: Issued, tmp_path: Path) -> None:
    settings = {"tls": own.table(), "peers": [{"ae_title": "PACS"}], "inline": True, "dimse_timeout_seconds": 1.0}
    with receiver(configuration_for(tmp_path, free_port(), **settings)) as impatient, connect(impatient, pacs) as peer:
        peer.settimeout(60)
        peer.sendall(associate_request("PACS"))
        assert read_pdu(peer) is not None
        os.write(peer.fileno(), b"\x17\x03\x03\x40\x00")  # application data of 16 KB, as far as its header
        assert read_pdu(peer) is None


def test_an_ae_title_goes_with_its_certificate_alone(node: RunningReceiver, pacs: Issued, scanner: Issued) -> None:
    assert echo(node, "PACS", *pacs.dcmtk()) == 0
    assert echo(node, "FILM", *pacs.dcmtk()) == 0
    assert echo(node, "SCANNER", *scanner.dcmtk()) == 0
    for calling, shown in (("PACS", scanner), ("SCANNER", pacs)):
        assert echo(node, calling, *shown.dcmtk()) != 0
        with connect(node, shown) as connection:
            connection.sendall(associate_request(calling))
            assert read_pdu(connection) == REJECTED_CALLING_AE


def test_who_cannot_show_a_good_certificate_stays_out(
    node: RunningReceiver, site: Authority, own: Issued, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "strangers").issue("pacs", "pacs.example.org")
    expired = site.issue("expired", "pacs.example.org", expired=True)
    for shown in (expired, replace(stranger, ca_file=own.ca_file)):
        assert echo(node, "PACS", *shown.dcmtk()) != 0
    assert echo(node, "PACS", "+tla", "-ic") != 0
    assert echo(node, "PACS") != 0  # plain text


def refused(port: int, *options: str) -> bool:
    """Whether openssl's handshake fails."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-brief", *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
    return "CONNECTION ESTABLISHED" not in done.stderr


def test_old_versions_and_weak_suites_are_refused(node: RunningReceiver, pacs: Issued) -> None:
    shown = ["-cert", str(pacs.certificate), "-key", str(pacs.key)]
    weak = ["-cipher", "ALL:@SECLEVEL=0"]
    assert not refused(node.port, "-tls1_2", *shown)
    assert not refused(node.port, "-tls1_3", *shown)
    assert refused(node.port, "-tls1_1", *weak, *shown)
    assert refused(node.port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0", *shown)


def test_connections_that_say_nothing_keep_nobody_out(
    node: RunningReceiver, pacs: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secured, "MAX_HANDSHAKES", 4)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", node.port))) for _ in range(12)]
        assert echo(node, "PACS", *pacs.dcmtk()) == 0
        assert silent[0].recv(1) == b""  # the oldest was given up for a later one


def test_a_silent_handshake_ends_in_time(own: Issued, tmp_path: Path) -> None:
    with (
        receiver(tmp_path, tls=own.table(), acse_timeout_seconds=0.2) as node,
        socket.create_connection(("127.0.0.1", node.port)) as silent,
    ):
        assert silent.recv(1) == b""


def test_the_receiver_says_at_once_which_certificate_is_no_use(own: Issued, tmp_path: Path) -> None:
    configuration = configuration_for(
        tmp_path, free_port(), tls=own.table() | {"ca_file": str(tmp_path / "absent.pem")}
    )
    with pytest.raises(ConfigurationError, match=r"absent\.pem"):
        secured.Secured(configuration.intake.tls, 1.0)  # type: ignore[arg-type]


@contextlib.contextmanager
def storescp(folder: Path, shown: Issued, *options: str) -> Iterator[int]:
    """DCMTK's storescp over TLS; requires a certificate of whoever calls."""
    port = free_port()
    command = [dcmtk("storescp"), "-aet", "ARCHIVE", "-od", str(folder), *shown.dcmtk(), *options, str(port)]
    environment = {"PATH": "/usr/bin", "DCMDICTPATH": "/usr/share/libdcmtk17/dicom.dic"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listening(port), "storescp listens")
        yield port
    finally:
        process.kill()
        process.wait()


def archive(port: int, tls: ClientTls | None, ae_title: str = "ARCHIVE", **changes: Any) -> Any:
    table = {"name": "archive", "ae_title": ae_title, "host": "127.0.0.1", "port": port, "tls": tls} | changes
    return configuration_from({"destinations": [table]}, Path("/")).destinations[0]


def test_results_go_to_an_archive_over_tls(own: Issued, pacs: Issued, image: Path, tmp_path: Path) -> None:
    with storescp(tmp_path, pacs) as port:
        send(image, archive(port, own.client()), "NODE")
        assert len(list(tmp_path.glob("MR*"))) == 1


def test_nothing_is_sent_to_an_archive_that_cannot_prove_itself(
    own: Issued, pacs: Issued, site: Authority, image: Path, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "strangers").issue("stranger")
    expired = site.issue("expired archive", expired=True)
    (tmp_path / "kept").mkdir()
    cases = {
        "IP address mismatch|Hostname mismatch": (pacs, own.client("other.example.org")),
        "unable to get local issuer|self.signed": (pacs, stranger.client()),
        "certificate has expired": (expired, own.client()),
    }
    for reason, (theirs, ours) in cases.items():
        with storescp(tmp_path / "kept", theirs) as port, pytest.raises(PeerUnreachable, match=reason):
            send(image, archive(port, ours), "NODE")
    with storescp(tmp_path / "kept", pacs) as port:
        with pytest.raises(PeerUnreachable, match=r"trust the node's certificate|no TLS connection"):
            send(image, archive(port, ClientTls(ca_file=own.ca_file)), "NODE")
        with pytest.raises(PeerUnreachable):
            send(image, archive(port, None, timeout_seconds=5.0), "NODE")
    with receiver(tmp_path / "plain") as plain, pytest.raises(PeerUnreachable, match="no TLS connection"):
        send(image, archive(plain.port, own.client(), AE_TITLE, timeout_seconds=5.0), "NODE")
    assert list((tmp_path / "kept").iterdir()) == []


def test_worklist_associations_are_secured_as_well(node: RunningReceiver, scanner: Issued) -> None:
    verification = [("1.2.840.10008.1.1", ["1.2.840.10008.1.2"])]
    known = Subscriber(ae_title=AE_TITLE, host="127.0.0.1", port=node.port, tls=scanner.client())
    with associated(known, "SCANNER", verification) as association:
        assert association.send_c_echo().Status == 0
    unknown = known.model_copy(update={"tls": scanner.client("other.example.org")})
    with pytest.raises(PeerUnreachable, match="mismatch"), associated(unknown, "SCANNER", verification):
        pass


def test_orthanc_over_dicom_tls_both_ways(own: Issued, pacs: Issued, image: Path, tmp_path: Path) -> None:
    configuration = configuration_for(
        tmp_path / "node",
        free_port(),
        tls=own.table(),
        peers=[{"ae_title": ORTHANC_AE, "certificate": "pacs.example.org"}],
    )
    with receiver(configuration) as node, Orthanc(tmp_path / "pacs", node.port, tls=pacs) as orthanc:
        orthanc.upload([image])
        orthanc.wait(node.rows, "Orthanc forwarded over TLS")
        assert node.standings(after=1) == {"current": 1}
        send(image, archive(orthanc.port, own.client(), ORTHANC_AE), AE_TITLE)
        with pytest.raises(PeerUnreachable):
            send(image, archive(orthanc.port, None, ORTHANC_AE, timeout_seconds=5.0), AE_TITLE)


@pytest.fixture(scope="module")
def console(own: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    table = {"node": {"storage": "node", "http_port": free_port(), "http_tls": own.table()}}
    configuration: Configuration = configuration_from(table, folder)
    migrate(configuration.node.database_url)
    registry = Registry(configuration.node.database_url)
    running = Console(configuration, registry)
    running.start()
    wait_until(lambda: listening(running.port), "the console listens")
    yield running
    running.stop()
    registry.close()


def curl(url: str, *options: object) -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "--silent", *map(str, options), url], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout


def test_the_http_port_speaks_https_to_clients_with_a_certificate(
    console: Console, own: Issued, pacs: Issued, tmp_path: Path
) -> None:
    url = f"https://localhost:{console.port}/worklist.json"
    trusting = ["--cacert", own.ca_file]
    shown = ["--cert", pacs.certificate, "--key", pacs.key]
    assert curl(url, *trusting, *shown) == (0, "[]")
    assert curl(url, *trusting, *shown, "--tls-max", "1.2") == (0, "[]")
    assert curl(url, *trusting)[0] != 0
    assert curl(url, *shown)[0] != 0  # a client that does not know the authority
    stranger = Authority(tmp_path, "strangers").issue("stranger")
    assert curl(url, *trusting, "--cert", stranger.certificate, "--key", stranger.key)[0] != 0
    assert curl(f"http://localhost:{console.port}/worklist.json")[0] != 0
    assert refused(console.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")


def test_silent_connections_to_the_https_port_are_ended_and_keep_nobody_out(
    console: Console, own: Issued, pacs: Issued
) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", console.port))) for _ in range(80)]
        shown = ["--cacert", own.ca_file, "--cert", pacs.certificate, "--key", pacs.key]
        assert curl(f"https://localhost:{console.port}/worklist.json", *shown) == (0, "[]")
        silent[0].settimeout(SILENT_SECONDS)  # long before its handshake is given up for its time
        with contextlib.suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""


@pytest.mark.skipif(
    "PRIMA_TLS_NODE" not in os.environ, reason="a whole node: PRIMA_TLS_NODE=1; the others show its parts"
)
def test_a_study_goes_in_and_its_report_out_over_tls_alone(
    own: Issued, pacs: Issued, scanner: Issued, random_bundle: Path, tmp_path: Path
) -> None:
    study = StudyFacts()
    files = [write(one, tmp_path / f"{number}.dcm") for number, one in enumerate(small_study(study))]
    (tmp_path / "kept").mkdir()
    known = {"ae_title": "SCANNER", "certificate": scanner.fingerprint}
    with storescp(tmp_path / "kept", pacs) as port:
        goal = destination("archive", "ARCHIVE", port, tls=own.table())
        with Node(tmp_path, random_bundle, destinations=[goal], intake={"tls": own.table(), "peers": [known]}) as node:
            assert store(node.port, files).returncode != 0  # plain text
            assert store(node.port, files, "-aet", "SCANNER", *pacs.dcmtk()).returncode != 0
            sent = store(node.port, files, "-aet", "SCANNER", *scanner.dcmtk())
            assert sent.returncode == 0, sent.stdout
            node.wait_for_state(study.study_uid, "delivered")
            refusals = [line["number"] for line in node.log_lines()]
            assert {Event.TLS_REFUSED.number, Event.ASSOCIATION_REFUSED.number} <= set(refusals)
    [report] = (tmp_path / "kept").iterdir()
    assert dcmread(report).StudyInstanceUID == study.study_uid


@pytest.mark.parametrize("section", ["intake", "node", "hl7", "destinations", "worklist", "audit"])
def test_a_certificate_that_is_no_use_is_named_before_anything_starts(
    own: Issued, tmp_path: Path, section: str
) -> None:
    own_files, absent = own.table(ca_file=False), {"ca_file": str(tmp_path / "absent.pem")}
    tables: dict[str, Any] = {
        "intake": {"tls": own_files | absent},
        "node": {"http_tls": own_files | absent},
        "hl7": {"tls": own_files | absent},
        "destinations": [{"name": "a", "kind": "stow", "url": "https://localhost", "tls": absent}],
        "worklist": {"subscribers": [{"ae_title": "A", "host": "localhost", "port": 104, "tls": absent}]},
        "audit": {"syslog": {"host": "localhost", "tls": absent}},
    }
    configuration = configuration_from({section: tables[section]}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"absent\.pem"):
        check_certificates(configuration)
