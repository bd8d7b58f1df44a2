"""A rule on a finding that the bundle does not know could never fire: it is found before the node starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from prima_core.bundle import read_manifest
from support.command_line import Cli


@pytest.mark.parametrize("known", [True, False])
def test_a_rule_names_findings_of_the_bundle(tmp_path: Path, random_bundle: Path, cli: Cli, known: bool) -> None:
    finding = read_manifest(random_bundle).labels["diagnosis"][0] if known else "no_such_finding"
    rule = f'[[worklist.rules]]\nname = "any"\nfindings = ["{finding}"]\nlevel = "critical"\n'
    config = tmp_path / "node.toml"
    config.write_text(f'[model]\nbundle = "{random_bundle}"\n{rule}')
    checked = cli("config", "check", "--config", config, "--json")
    assert checked.code == (0 if known else 2)
    assert ("worklist.rules: the bundle has no finding 'no_such_finding'" in checked.err) != known
