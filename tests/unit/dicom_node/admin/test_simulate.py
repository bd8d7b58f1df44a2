"""`worklist simulate` on a short run: one JSON document, a table, files, and errors that name the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.admin.simulate import sentences
from dicom_node.worklist.simulation.illustration import ILLUSTRATION
from dicom_node.worklist.simulation.replication import replications
from dicom_node.worklist.simulation.scenario import Run
from dicom_node.worklist.simulation.summary import summarise
from support.command_line import Cli

EXAMPLE = Path(__file__).parents[4] / "deploy" / "simulation.example.toml"


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "room.toml"
    text = EXAMPLE.read_text().replace("weeks = 4", "weeks = 1").replace("replications = 30", "replications = 5")
    path.write_text(text)
    return path


def test_json_is_one_document_and_the_same_for_the_same_seed(short: Path, cli: Cli) -> None:
    done = cli("worklist", "simulate", "--scenario", short, "--json")
    assert done.code == 0
    assert done.out == cli("worklist", "simulate", "--scenario", short, "--json").out
    assert done.json["scenario"]["run"]["replications"] == 5
    assert 0 < done.json["utilisation"]["mean"] < 1
    assert {group["subgroup"] for group in done.json["groups"]} == {"all", "site", "day", "age"}
    critical = next(group for group in done.json["groups"] if group["level"] == "critical")
    assert (critical["subgroup"], critical["outcome"]) == ("all", "all")
    change = critical["with_flag"]["mean"]["mean"] - critical["without_flag"]["mean"]["mean"]
    assert change < 0
    assert critical["difference"]["mean"] == pytest.approx(change)


def test_the_table_is_never_cut_short(short: Path, cli: Cli) -> None:
    """Not on the 80 columns of a pipe either."""
    lines = cli("worklist", "simulate", "--scenario", short).out.splitlines()
    assert any(line.rstrip().endswith("difference (95 % CI)  too late") for line in lines)
    for name in ("critical", "missed by the flag", "university hospital: urgent", "weekend: no finding"):
        row = next(line for line in lines if line.strip().startswith(f"{name}  "))
        assert row.count("→") == 3
        assert row.count("…") == 1


def test_without_a_scenario_it_says_that_the_room_is_made_up(short: Path, cli: Cli) -> None:
    assert "no real hospital" in cli("worklist", "simulate").err
    assert "no real hospital" not in cli("worklist", "simulate", "--scenario", short).err


def test_out_holds_plots_and_the_document(short: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = cli("worklist", "simulate", "--scenario", short, "--json", "--out", out)
    names = ["by-subgroup.svg", "mean-waits.svg", "simulation.json", "still-unread.svg"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert json.loads((out / "simulation.json").read_text()) == done.json


def test_a_wrong_scenario_is_wrong_usage_and_names_the_key(short: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("worklist", "simulate", "--scenario", tmp_path / "none.toml").code == 2
    short.write_text(short.read_text().replace("specificity = 0.92", "specificity = 92"))
    done = cli("worklist", "simulate", "--scenario", short)
    assert (done.code, done.out) == (2, "")
    assert "flag.specificity" in done.err


def test_the_price_is_said_beside_the_gain() -> None:
    scenario = ILLUSTRATION.model_copy(update={"run": ILLUSTRATION.run.model_copy(update={"replications": 5})})
    said = sentences(summarise(scenario, list(replications(scenario))))
    assert [sentence.split(":")[0] for sentence in said] == ["critical", "urgent", "no finding", "too late"]
    assert "sooner on average; missed by the flag: " in said[0]
    assert "not flagged: " in said[2]
    assert "later on average, one in ten delayed by more than" in said[2]


def test_a_change_that_chance_may_explain_is_not_called_one() -> None:
    scenario = ILLUSTRATION.model_copy(update={"run": Run(weeks=1, margin_days=0, replications=5), "findings": ()})
    silent = scenario.model_copy(update={"flag": scenario.flag.model_copy(update={"specificity": 1.0})})
    said = sentences(summarise(silent, list(replications(silent))))
    assert said == [
        "no finding: no clear change, +0.0 (+0.0 … +0.0) min; not flagged: no clear change, +0.0 (+0.0 … +0.0) min"
    ]
