"""`deploy/node.example.toml` names every key of the configuration with its default, and nothing else.

Does not check the words beside a key.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dicom_node.base import config
from dicom_node.base.config import Configuration, load_configuration

EXAMPLE = Path(__file__).parents[2] / "deploy" / "node.example.toml"
COMMENTED = re.compile(r"^# (\w+) = ", re.MULTILINE)


def keys_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def sections(table: dict[str, Any]) -> dict[str, tuple[type[BaseModel], dict[str, Any]]]:
    return {
        "node": (config.NodeSection, table["node"]),
        "intake": (config.IntakeSection, table["intake"]),
        "intake.peers": (config.Peer, table["intake"]["peers"][0]),
        "model": (config.ModelSection, table["model"]),
        "model.ray": (config.RaySettings, table["model"]["ray"]),
        "scope": (config.ScopeSection, table["scope"]),
        "scope.exclude": (config.Exclusion, table["scope"]["exclude"]),
        "destinations": (config.Destination, table["destinations"][0]),
        "destinations, hl7": (config.Hl7Destination, table["destinations"][1]),
        "destinations, ups": (config.UpsDestination, table["destinations"][2]),
        "destinations, stow": (config.StowDestination, table["destinations"][3]),
        "routes": (config.Route, table["routes"][0]),
        "routes.exclude": (config.Exclusion, table["routes"][0]["exclude"]),
        "explanation": (config.ExplanationSection, table["explanation"]),
        "report": (config.ReportSection, table["report"]),
        "worklist": (config.WorklistSection, table["worklist"]),
        "worklist.rules": (config.FindingRule, table["worklist"]["rules"][0]),
        "hl7": (config.Hl7Listener, table["hl7"]),
        "retrain": (config.RetrainSection, table["retrain"]),
        "audit": (config.AuditSection, table["audit"]),
        "retention": (config.RetentionSection, table["retention"]),
    }


def missing_keys(text: str) -> list[str]:
    commented = set(COMMENTED.findall(text))
    return [
        f"{name}.{key}"
        for name, (model, table) in sections(tomllib.loads(text)).items()
        for key in keys_of(model) - table.keys() - commented
    ]


def test_every_section_is_looked_at() -> None:
    table = tomllib.loads(EXAMPLE.read_text())
    looked_at = {re.split("[.,]", name)[0] for name in sections(table)}
    assert looked_at == keys_of(Configuration)


def test_every_key_is_documented() -> None:
    assert missing_keys(EXAMPLE.read_text()) == []


@pytest.mark.parametrize("key", ["stability_seconds", "younger_than_years", "ae_title"])
def test_a_planted_omission_is_found(key: str) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if not re.match(rf"(# )?{key} ", line)]
    assert any(found.endswith(key) for found in missing_keys("\n".join(lines)))


def test_the_example_is_a_correct_configuration_with_the_defaults() -> None:
    loaded = load_configuration(EXAMPLE)
    default = Configuration()
    site_specific = {"peers", "storage", "bundle", "rules"}
    for name in ("node", "intake", "model", "scope", "report", "worklist", "hl7", "retrain", "retention"):
        section = getattr(loaded, name).model_dump(exclude=site_specific)
        assert section == getattr(default, name).model_dump(exclude=site_specific), name
