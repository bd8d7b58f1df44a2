"""The configuration: every mistake is named by its key, and nothing that opens the node to strangers is a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import Configuration, configuration_from, load_configuration
from dicom_node.base.errors import ConfigurationError

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
        ({"worklist": {"rules": ["any"]}}, "worklist.rules"),
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
