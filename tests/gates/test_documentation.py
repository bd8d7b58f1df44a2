"""README, runbook and conformance statement name what the code has: commands, events, states, metrics, syntaxes.

Does not judge the words. Each check has a planted omission.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from dicom_node.admin.main import app
from dicom_node.base.events import Event
from dicom_node.base.types import StudyState
from dicom_node.console.metrics import NodeMetrics
from dicom_node.intake.presentation import TRANSFER_SYNTAXES
from dicom_node.intake.storage import PROCESSING_FAILURE, STATUS

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text()
CONFORMANCE = (ROOT / "deploy" / "CONFORMANCE.md").read_text()
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "deploy" / "TRAINING.md").read_text()


def commands() -> set[str]:
    group = typer.main.get_command(app)
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if not command.hidden:
            below = {f"{name} {sub}" for sub in getattr(command, "commands", {})}
            names |= below | ({name} if not below or command.invoke_without_command else set())
    return names


def absent(names: set[str], text: str) -> set[str]:
    return {name for name in names if name not in text}


def test_the_runbook_names_every_command() -> None:
    assert "config check" in commands()
    assert absent({f"dicom-node {name}" for name in commands()}, RUNBOOK) == set()


def test_every_command_that_documents_name_exists() -> None:
    known = commands()
    named = re.findall(r"dicom-node ([a-z]+(?: [a-z]+[a-z-]*)?)", README + RUNBOOK + CONFORMANCE)
    assert {name for name in named if not ({name, name.split()[0]} & known)} == set()


def test_the_runbook_names_every_event_with_its_number() -> None:
    assert absent({f"| {event.number} | {event.words} |" for event in Event}, RUNBOOK) == set()


def test_the_runbook_names_every_state() -> None:
    assert absent({f"| `{state}` |" for state in StudyState}, RUNBOOK) == set()


def test_the_runbook_names_every_metric() -> None:
    source = Path(__file__).parents[2] / "dicom_node" / "console" / "metrics.py"
    metrics = set(re.findall(r'"(dicom_node_\w+)"', source.read_text()))
    assert len(metrics) >= 5
    assert NodeMetrics.__module__ == "dicom_node.console.metrics"
    assert absent(metrics, RUNBOOK) == set()


def test_the_conformance_statement_names_every_transfer_syntax() -> None:
    assert absent({f"| {uid} |" for uid in TRANSFER_SYNTAXES}, CONFORMANCE) == set()


def test_the_conformance_statement_names_every_status() -> None:
    codes = {status for _, status in STATUS} | {PROCESSING_FAILURE}
    assert absent({f"0x{code:04X}" for code in codes}, CONFORMANCE) == set()


def test_linked_files_exist() -> None:
    for document in (ROOT / "README.md", ROOT / "deploy" / "RUNBOOK.md", ROOT / "deploy" / "CONFORMANCE.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} → {target}"


@pytest.mark.parametrize("name", ["| 3003 | study claimed |", "dicom-node retry", "| `dead` |"])
def test_a_planted_omission_is_found(name: str) -> None:
    assert absent({name}, RUNBOOK) == set()
    assert absent({name}, RUNBOOK.replace(name, "")) == {name}


def training_commands() -> set[str]:
    """Modules below `training` that are started with `python -m`."""
    found = set()
    for path in (ROOT / "training").rglob("*.py"):
        if '__name__ == "__main__"' in path.read_text("utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.add(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return found


def named(page: str) -> set[str]:
    return set(re.findall(r"python -m (training[a-z_.]*[a-z])", page))


def test_the_training_page_names_every_command_and_no_other() -> None:
    assert named(TRAINING) == training_commands()


def test_a_training_command_that_is_not_named_is_found() -> None:
    assert training_commands() - named(TRAINING.replace("training.stages.heads", "")) == {"training.stages.heads"}
