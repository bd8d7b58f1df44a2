"""Reading a scenario: what is refused and why, and that the example names every key.

Does not check the words beside a key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dicom_node.base.errors import ConfigurationError
from dicom_node.worklist.simulation import scenario as description
from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.scenario import Scenario, load_scenario

EXAMPLE = Path(__file__).parents[5] / "deploy" / "simulation.example.toml"


def missing_keys(text: str) -> list[str]:
    """Keys of every part of a scenario that its first example in the file does not name."""
    table = tomllib.loads(text)
    first: list[tuple[type[BaseModel], dict[str, Any]]] = [
        (Scenario, table),
        (description.Run, table.get("run", {})),
        (description.Site, table["sites"][0]),
        (description.AgeBand, table["age_bands"][0]),
        (description.Finding, table["findings"][0]),
        (description.Duration, table["findings"][0].get("reading", {})),
        (description.Orders, table.get("orders", {})),
        (description.Flag, table.get("flag", {})),
        (description.Duration, table.get("flag", {}).get("delay", {})),
        (description.Staff, table.get("readers", {})),
        (description.Duration, table.get("reading", {})),
    ]
    return [f"{model.__name__}.{key}" for model, named in first for key in model.model_fields if key not in named]


def test_the_example_is_the_illustration_and_names_every_key() -> None:
    assert load_scenario(EXAMPLE) == ILLUSTRATION
    assert missing_keys(EXAMPLE.read_text()) == []


@pytest.mark.parametrize("key", ["margin_days", "days", "false_level", "variation", "stat_level"])
def test_a_planted_omission_is_found(key: str) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if not re.match(rf"{key} =", line)]
    assert any(found.endswith(f".{key}") for found in missing_keys("\n".join(lines)))


def wrong() -> Iterator[tuple[str, dict[str, Any]]]:
    table = ILLUSTRATION.model_dump()
    site, band, finding = table["sites"][0], table["age_bands"][0], table["findings"][0]
    nobody = {"weekday": [0] * 24, "weekend": [0] * 24}
    yield "the same name", {"sites": [site, site]}
    yield "the same name", {"findings": [finding, finding]}
    yield "add up to 1", {"age_bands": [band]}
    yield "more than every study", {"findings": [finding | {"prevalence": 0.8}]}
    yield "no study ever arrives", {"sites": [site | nobody]}
    yield "inf times the hours on duty", {"readers": nobody}
    yield "the queue never ends", {"reading": {"mean_minutes": 30.0}}
    yield "variation belongs to lognormal", {"reading": {**table["reading"], "distribution": "constant"}}
    yield "at least 24 items", {"readers": {"weekday": [1], "weekend": [1] * 24}}
    yield "findings.0.level", {"findings": [finding | {"level": "routine"}]}
    yield "greater than or equal to 5", {"run": {"replications": 4}}
    yield "Extra inputs", {"preempt": True}


@pytest.mark.parametrize(("reason", "change"), list(wrong()))
def test_a_scenario_that_contradicts_itself_is_refused(reason: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        Scenario.model_validate(ILLUSTRATION.model_dump(exclude_unset=True) | change)


def test_what_a_site_must_say_has_no_default() -> None:
    required = {name for name, field in Scenario.model_fields.items() if field.is_required()}
    assert required == set(Scenario.model_fields) - {"run"}


def test_the_load_by_hand() -> None:
    """Two studies an hour of 12 minutes, half of the time with a finding of 18, on one reader."""
    alone = Scenario.model_validate(
        {
            "sites": [{"name": "one", "weekday": [2] * 24, "weekend": [2] * 24}],
            "age_bands": [{"name": "all", "share": 1}],
            "findings": [
                {
                    "level": "critical",
                    "prevalence": 0.5,
                    "stat_share": 0,
                    "sensitivity": 1,
                    "flagged_as": "critical",
                    "reading": {"mean_minutes": 18},
                }
            ],
            "orders": {"stat_share": 0, "stat_level": "urgent"},
            "flag": {"specificity": 1, "false_level": "urgent", "delay": {"mean_minutes": 1}},
            "readers": {"weekday": [1] * 24, "weekend": [1] * 24},
            "reading": {"mean_minutes": 12},
        }
    )
    assert alone.load == pytest.approx(0.5)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"copy deploy/simulation\.example\.toml"):
        load_scenario(tmp_path / "absent.toml")


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "room.toml"
    path.write_text(EXAMPLE.read_text().replace("specificity = 0.92", "specificity = 92"))
    with pytest.raises(ConfigurationError, match=r"flag\.specificity: "):
        load_scenario(path)
    path.write_text("[run")
    with pytest.raises(ConfigurationError, match=r"room\.toml"):
        load_scenario(path)
