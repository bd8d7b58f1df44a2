"""`config check` finds what only the bundle and the configuration together show."""

from __future__ import annotations

from pathlib import Path

import pytest

from prima_core.bundle import read_manifest
from support.command_line import Cli


@pytest.mark.parametrize(("mapping", "missing"), [("none, low, medium, high", None), ("none, low, high", "medium")])
def test_every_priority_output_of_the_bundle_needs_a_level(
    tmp_path: Path, random_bundle: Path, cli: Cli, mapping: str, missing: str | None
) -> None:
    assert set(read_manifest(random_bundle).labels["priority"]) == {"none", "low", "medium", "high"}
    levels = "\n".join(f'{name.strip()} = "routine"' for name in mapping.split(","))
    config = tmp_path / "node.toml"
    config.write_text(f'[model]\nbundle = "{random_bundle}"\n[worklist.mapping]\n{levels}\n')
    checked = cli("config", "check", "--config", config, "--json")
    assert checked.code == (0 if missing is None else 2)
    if missing is not None:
        assert f"worklist.mapping: no entry for {missing}" in checked.err


def test_a_host_name_for_a_peer_is_found_before_the_receiver_starts(tmp_path: Path, cli: Cli) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[[intake.peers]]\nae_title = "PACS"\naddress = "pacs.example.org"\n')
    checked = cli("config", "check", "--config", config, "--json")
    assert (checked.code, checked.out) == (2, "")
    assert "intake.peers.0.address" in checked.err
