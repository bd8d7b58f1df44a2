"""`dicom-node worklist`: what people see, and that a person's wish becomes deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.base.hl7_settings import Hl7Destination
from dicom_node.base.types import Level
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.hl7.messages import build
from support.command_line import Cli
from support.orders import RIS, UID, finish, order, placed, receive, tell
from support.studies import new_registry

CONFIG = """
[node]
storage = "."
[worklist]
keep_hours = 1e9
[[worklist.rules]]
name = "glioma"
findings = ["tumor_adult_glioma"]
level = "critical"
[[destinations]]
name = "ris"
kind = "hl7"
host = "127.0.0.1"
port = 2575
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """One study whose result and order agree, so that nobody had to be told."""
    made = new_registry(tmp_path)
    tell(made, placed(order(priority=Level.URGENT)))
    receive(made)
    finish(made, told=(RIS,))
    yield made
    made.close()


@pytest.fixture
def on_node(registry: Registry, cli: Cli, tmp_path: Path) -> Cli:
    """Run `dicom-node worklist …` on this registry."""
    (tmp_path / "node.toml").write_text(CONFIG)
    return lambda *arguments: cli("worklist", *arguments, "--config", tmp_path / "node.toml")


def test_the_list_says_what_to_read_first_and_why_nobody_was_told(on_node: Cli) -> None:
    shown = on_node().out
    assert "urgent" in shown
    assert "Glioma" in shown
    assert "asks for nothing higher" in shown


def test_a_person_raises_looks_and_takes_it_back(on_node: Cli) -> None:
    assert on_node("dry-run", UID).out.startswith("nobody would be told")
    raised = on_node("raise", UID, "--level", "critical", "--json").json
    assert (raised["level"], raised["previous"], raised["destinations"]) == ("critical", "urgent", ["ris"])
    assert on_node("--json").json[0]["priority"]["source"] == "person"
    lower = on_node("raise", UID, "--level", "elevated")
    assert (lower.code, "never lowered" in lower.err) == (1, True)
    undone = on_node("undo", UID, "--json").json
    assert (undone["level"], undone["destinations"]) == ("urgent", []), "nothing had been sent yet"


def test_a_dry_run_prints_the_exact_message(on_node: Cli, registry: Registry) -> None:
    receive(registry, at=300)
    finish(registry, level=Level.CRITICAL, at=400)
    [shown] = on_node("dry-run", UID, "--json").json["messages"]
    delivery = registry.claim_delivery("o", "ris", 560, 500)
    assert delivery is not None
    assert delivery.change is not None
    sent = build(delivery.change, Hl7Destination(name="ris", host="127.0.0.1", port=2575)).decode()
    assert without_time_and_key(shown["message"]) == without_time_and_key(sent.replace("\r", "\n").rstrip())


def without_time_and_key(message: str) -> list[list[str]]:
    """The fields; the message's time and control ID (MSH-7, MSH-10) are drawn when it is written down."""
    segments = [line.split("|") for line in message.split("\n")]
    segments[0][6] = segments[0][9] = ""
    return segments


def test_rules_are_tried_on_a_result_without_changing_it(on_node: Cli) -> None:
    tried = on_node("rules", "test", UID, "--json").json
    assert tried["given"]["level"] == "urgent"
    assert tried["now"] == {"level": "critical", "rule": "rule 'glioma': Glioma → critical"}


def test_an_unknown_study_is_said_to_be_unknown(on_node: Cli) -> None:
    done = on_node("undo", "1.2.99")
    assert (done.code, "no such study" in done.err) == (1, True)
