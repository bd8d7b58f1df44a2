"""The configuration: every mistake is named by its key, and nothing that opens the node to strangers is a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import Configuration, StowDestination, configuration_from, load_configuration
from dicom_node.base.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[4] / "deploy" / "node.example.toml"
STOW = {"name": "web", "kind": "stow", "url": "https://pacs.example.org/dicom-web"}
DESTINATION = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"node": {"ae_titel": "X"}}, "node.ae_titel"),
        ({"nod": {}}, "nod"),
        ({"node": {"port": 0}}, "node.port"),
        ({"node": {"ae_title": "seventeen letters"}}, "node.ae_title"),
        ({"node": {"ae_title": "   "}}, "node.ae_title"),
        ({"intake": {"stability_seconds": -1}}, "intake.stability_seconds"),
        ({"intake": {"stability_seconds": "soon"}}, "intake.stability_seconds"),
        ({"model": {"precision": "fp8"}}, "model.precision"),
        ({"scope": {"exclude": {"descriptions": ["("]}}}, "scope.exclude.descriptions"),
        ({"destinations": [DESTINATION, DESTINATION]}, "destinations"),
        ({"destinations": [DESTINATION | {"kind": "fax"}]}, "destinations.0.kind"),
        ({"destinations": [DESTINATION], "routes": [{"to": ["elsewhere"]}]}, "routes"),
        ({"worklist": {"mapping": {"high": "sometime"}}}, "worklist.mapping.high"),
        ({"node": {"database": "nonsense"}}, "node.database"),
        ({"intake": {"peers": [{"ae_title": "PACS", "address": "pacs.example.org"}]}}, "intake.peers.0.address"),
        ({"intake": {"peers": [{"ae_title": "PACS", "address": "192.0.2.300"}]}}, "intake.peers.0.address"),
        ({"destinations": [DESTINATION | {"sop_class": "keyobject"}]}, "destinations.0.sop_class"),
        ({"destinations": [DESTINATION], "routes": [{"from": ["  "], "to": ["pacs"]}]}, "routes.0.from.0"),
        ({"worklist": {"rules": ["any"]}}, "worklist.rules"),
        ({"destinations": [DESTINATION | {"commitment_seconds": 86401}]}, "destinations.0.commitment_seconds"),
        ({"destinations": [STOW | {"url": "pacs.example.org"}]}, "destinations.0.url"),
        ({"destinations": [STOW | {"url": "https://a:b@pacs.example.org"}]}, "destinations.0.url"),
        ({"destinations": [STOW | {"url": "https://pacs.example.org/?a=b"}]}, "destinations.0.url"),
        ({"destinations": [STOW | {"url": "https://pacs.example.org/a b"}]}, "destinations.0.url"),
        ({"destinations": [STOW | {"user": "node"}]}, "user"),
        ({"destinations": [STOW | {"user": "no:de", "password_file": "p"}]}, "destinations.0.user"),
        ({"destinations": [STOW | {"user": "n", "password_file": "p", "token_file": "t"}]}, "token_file"),
        ({"destinations": [STOW | {"url": "http://pacs.example.org", "token_file": "t"}]}, "https alone"),
        ({"destinations": [STOW | {"url": "http://pacs.example.org", "tls": {}}]}, "tls"),
        ({"destinations": [STOW | {"tls": {"private_key": "k"}}]}, "destinations.0.tls"),
        ({"destinations": [STOW | {"ae_title": "PACS"}]}, "destinations.0.ae_title"),
        ({"destinations": [DESTINATION | {"tls": {"private_key": "k"}}]}, "destinations.0.tls"),
        ({"intake": {"tls": {"ca_file": "ca.pem"}}}, "intake.tls"),
        ({"intake": {"peers": [{"ae_title": "PACS", "certificate": "sha256:12"}]}}, "intake.peers.0.certificate"),
        ({"node": {"http_peers": ["pacs.example.org"]}}, "node.http_peers"),
    ],
)
def test_a_mistake_is_named_by_its_key(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named.replace(".", r"\.")):
        configuration_from(table, Path("/"))


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::"])
def test_without_an_allow_list_only_loopback_can_be_bound(bind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"intake\.peers"):
        configuration_from({"node": {"bind": bind}}, Path("/"))
    peers = {"peers": [{"ae_title": "PACS", "address": "192.0.2.7"}]}
    assert configuration_from({"node": {"bind": bind}, "intake": peers}, Path("/")).node.bind == bind


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::"])
def test_the_http_port_is_bound_to_loopback_unless_it_is_said_who_may_connect(bind: str) -> None:
    own = {"certificate": "node.pem", "private_key": "node.key"}
    for node in ({}, {"http_tls": own}):
        with pytest.raises(ConfigurationError, match=r"node\.http_peers"):
            configuration_from({"node": {"http_bind": bind} | node}, Path("/"))
    for node in ({"http_peers": ["192.0.2.7"]}, {"http_tls": own | {"ca_file": "ca.pem"}}):
        assert configuration_from({"node": {"http_bind": bind} | node}, Path("/")).node.http_bind == bind


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::"])
def test_the_hl7_port_is_bound_to_loopback_unless_it_is_said_who_may_connect(bind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"hl7\.peers"):
        configuration_from({"hl7": {"bind": bind, "port": 2575}}, Path("/"))
    assert configuration_from({"hl7": {"bind": bind, "port": 2575, "peers": ["192.0.2.7"]}}, Path("/")).hl7.peers


def test_everything_that_listens_stays_on_loopback_by_default() -> None:
    default = Configuration()
    assert {default.node.bind, default.node.http_bind, default.hl7.bind} == {"127.0.0.1"}


def test_certificates_start_at_the_files_folder_wherever_they_are_named() -> None:
    own = {"certificate": "n.pem", "private_key": "n.key", "ca_file": "ca.pem"}
    subscriber = {"ae_title": "VIEWER", "host": "viewer", "port": 104, "tls": {"ca_file": "ca.pem"}}
    loaded = configuration_from(
        {
            "node": {"http_tls": own},
            "intake": {"tls": own},
            "hl7": {"tls": own},
            "worklist": {"subscribers": [subscriber]},
            "destinations": [DESTINATION | {"tls": own}],
            "audit": {"key_file": "audit.key", "syslog": {"host": "log", "tls": own}},
        },
        Path("/etc/node"),
    )
    assert loaded.audit.key_file == Path("/etc/node/audit.key")
    assert loaded.audit.syslog is not None
    assert loaded.audit.syslog.tls is not None
    assert loaded.audit.syslog.tls.certificate == Path("/etc/node/n.pem")
    assert loaded.intake.tls is not None
    assert loaded.intake.tls == loaded.node.http_tls == loaded.hl7.tls
    assert loaded.intake.tls.private_key == Path("/etc/node/n.key")
    [archive], [viewer] = loaded.destinations, loaded.worklist.subscribers
    assert archive.tls is not None  # type: ignore[union-attr]
    assert viewer.tls is not None
    assert {archive.tls.ca_file, viewer.tls.ca_file} == {Path("/etc/node/ca.pem")}  # type: ignore[union-attr]


def test_a_peer_bound_to_a_certificate_needs_somebody_to_ask_for_it() -> None:
    peers = [{"ae_title": "PACS", "certificate": "pacs.example.org"}]
    own = {"certificate": "n.pem"}
    for tls in (None, own):
        with pytest.raises(ConfigurationError, match=r"intake\.tls\.ca_file"):
            configuration_from({"intake": {"peers": peers, "tls": tls}}, Path("/"))
    assert configuration_from({"intake": {"peers": peers, "tls": own | {"ca_file": "ca.pem"}}}, Path("/"))


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nstorage = "data"\n[model]\nbundle = "model"\n')
    loaded = load_configuration(file)
    assert loaded.node.storage == tmp_path / "data"
    assert loaded.model.bundle == tmp_path / "model"
    assert loaded.node.database_url == f"sqlite:///{tmp_path / 'data' / 'registry.sqlite'}"


@pytest.mark.parametrize("content", [None, "not = [toml", b"\xff\xfe"])
def test_an_unreadable_file_is_a_configuration_error(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "node.toml"
    if isinstance(content, str):
        file.write_text(content)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_configuration(file)


def test_the_digest_follows_the_content() -> None:
    one = configuration_from({}, Path("/a"))
    assert one.digest == configuration_from({}, Path("/a")).digest
    assert one.digest != configuration_from({"node": {"ae_title": "OTHER"}}, Path("/a")).digest


def test_an_unknown_destination_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        Configuration().destination("nowhere")


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "localhost", None])
def test_a_peer_is_known_by_its_ip_address_if_by_any(address: str | None) -> None:
    peers = [{"ae_title": "PACS", "address": address}]
    assert configuration_from({"intake": {"peers": peers}}, Path("/")).intake.peers[0].address == address


def test_spaces_around_an_ae_title_mean_nothing() -> None:
    exclude = {"ae_titles": [" TEST "]}
    table = {
        "node": {"ae_title": " PRIMA "},
        "intake": {"peers": [{"ae_title": "MR 1 "}]},
        "scope": {"exclude": exclude},
        "destinations": [DESTINATION | {"ae_title": "PACS  ", "calling_ae_title": " AI"}],
        "routes": [{"from": [" MR 1", "*"], "to": ["pacs"], "exclude": exclude}],
    }
    loaded = configuration_from(table, Path("/"))
    assert loaded.node.ae_title == "PRIMA"
    assert loaded.intake.peers[0].ae_title == "MR 1"
    assert loaded.scope.exclude.ae_titles == loaded.routes[0].exclude.ae_titles == ("TEST",)
    assert (loaded.destinations[0].ae_title, loaded.destinations[0].calling_ae_title) == ("PACS", "AI")
    assert loaded.routes[0].from_ == ("MR 1", "*")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///registry.sqlite", "sqlite:////etc/prima/registry.sqlite"),
        ("sqlite:///data/a.sqlite?timeout=5", "sqlite:////etc/prima/data/a.sqlite?timeout=5"),
        ("sqlite:////var/registry.sqlite", "sqlite:////var/registry.sqlite"),
        ("postgresql://user:p%40ss@host/prima", "postgresql://user:p%40ss@host/prima"),
    ],
)
def test_an_sqlite_file_is_relative_to_the_files_folder_too(given: str, used: str) -> None:
    assert configuration_from({"node": {"database": given}}, Path("/etc/prima")).node.database_url == used


def test_a_destination_takes_the_sites_sop_class_unless_it_has_its_own() -> None:
    destinations = [DESTINATION, DESTINATION | {"name": "old", "sop_class": "basic_text"}]
    loaded = configuration_from({"destinations": destinations, "report": {"sop_class": "enhanced"}}, Path("/"))
    assert [loaded.sop_class_for(destination) for destination in loaded.destinations] == ["enhanced", "basic_text"]


def test_a_frozen_configuration_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    loaded = load_configuration(EXAMPLE)
    frozen = tmp_path / "elsewhere" / "frozen.json"
    frozen.parent.mkdir()
    frozen.write_text(loaded.to_json())
    again = load_configuration(frozen)
    assert again == loaded
    assert again.digest == loaded.digest


def test_a_frozen_configuration_keeps_its_password(tmp_path: Path) -> None:
    loaded = configuration_from({"node": {"database": "postgresql://user:secret@host/prima"}}, tmp_path)
    (tmp_path / "frozen.json").write_text(loaded.to_json())
    assert load_configuration(tmp_path / "frozen.json").node.database_url == loaded.node.database_url


@pytest.mark.parametrize("content", ["{", "[]", '{"nod": {}}'])
def test_a_damaged_frozen_configuration_is_a_configuration_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "frozen.json").write_text(content)
    with pytest.raises(ConfigurationError):
        load_configuration(tmp_path / "frozen.json")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"enabled": True}, "name the file of labels"),
        ({"enabled": True, "labels": "l.csv", "what": "full"}, "name the file of reports"),
        ({"window": "22:00-22:00"}, "begins when it ends"),
        ({"window": "22-5"}, "retrain.window"),
    ],
)
def test_retraining_at_night_needs_its_files_and_a_window(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        configuration_from({"retrain": settings}, tmp_path)


def test_files_of_retraining_lie_beside_the_configuration(tmp_path: Path) -> None:
    settings = {"enabled": True, "what": "full", "labels": "l.csv", "reports": "/r.jsonl"}
    loaded = configuration_from({"retrain": settings}, tmp_path).retrain
    assert (loaded.labels, loaded.reports) == (tmp_path / "l.csv", Path("/r.jsonl"))


def test_an_archive_that_answers_commitment_must_be_let_in() -> None:
    committing = {"destinations": [DESTINATION | {"storage_commitment": True}]}
    assert configuration_from(committing, Path("/")).destinations, "on loopback everybody is"
    others = committing | {"intake": {"peers": [{"ae_title": "OTHER"}]}}
    with pytest.raises(ConfigurationError, match=r"intake\.peers: 'pacs' answers storage commitment"):
        configuration_from(others, Path("/"))
    both = committing | {"intake": {"peers": [{"ae_title": "OTHER"}, {"ae_title": "PACS"}]}}
    assert configuration_from(both, Path("/")).intake.peers[1].ae_title == "PACS"


def test_credentials_and_certificates_lie_beside_the_configuration() -> None:
    table = {
        "destinations": [STOW | {"token_file": "token", "tls": {"ca_file": "/etc/ca.pem", "certificate": "n.pem"}}]
    }
    [web] = configuration_from(table, Path("/etc/prima")).destinations
    assert isinstance(web, StowDestination)
    assert web.tls is not None
    files = (web.token_file, web.tls.ca_file, web.tls.certificate, web.tls.private_key)
    assert files == (Path("/etc/prima/token"), Path("/etc/ca.pem"), Path("/etc/prima/n.pem"), None)
