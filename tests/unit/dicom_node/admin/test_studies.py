"""What `studies` and `study` print for people: nothing is cut in silence, and no word of a reason is read as markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.admin import studies
from dicom_node.jobs.registry import Registry
from support.command_line import Cli
from support.studies import arrival, handover, new_registry, report

REASON = "[bold]no[/bold] entry for [/] :warning:"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Three studies, the newest of which is dead."""
    made = new_registry(tmp_path)
    for number in (1, 2, 3):
        made.record_arrivals([arrival(1, study=f"1.2.{number}", at=100.0 + number, patient_key=f"p{number}::")])
    made.close_quiet(quiet_since=103.0, opened_before=0, at=140.0)
    while (claim := made.claim("w", 1e9, 300)) is not None:
        if claim.study_instance_uid == "1.2.3":
            made.finish_dead(claim, REASON, 310)
    yield made
    made.close()


@pytest.fixture
def on_node(registry: Registry, cli: Cli, tmp_path: Path) -> Cli:
    """Run `dicom-node` on this registry."""
    assert registry.study("1.2.3")
    (tmp_path / "node.toml").write_text('[node]\nstorage = "."\n')
    return lambda *arguments: cli(*arguments, "--config", tmp_path / "node.toml")


def uids(done: list[dict[str, str]]) -> list[str]:
    return [study["study_instance_uid"] for study in done]


def test_json_has_every_study_unless_a_limit_is_given(on_node: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "LINES", 1)
    assert uids(on_node("studies", "--json").json) == ["1.2.3", "1.2.2", "1.2.1"]
    assert uids(on_node("studies", "--json", "--limit", 2).json) == ["1.2.3", "1.2.2"]


def test_a_table_says_how_many_it_leaves_out(on_node: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "more;" not in on_node("studies").out
    assert on_node("studies", "--limit", 1).out.splitlines()[-1].startswith("and 2 more; --limit N")
    assert "more;" not in on_node("studies", "--state", "dead", "--limit", 1).out
    monkeypatch.setattr(studies, "LINES", 1)
    assert on_node("studies").out.splitlines()[-1].startswith("and 2 more; --limit N")
    assert on_node("studies", "--state", "running").out.splitlines()[-1].startswith("and 1 more; --limit N")


@pytest.mark.parametrize("command", [("studies",), ("study", "1.2.3")])
def test_a_reason_is_printed_as_it_is(on_node: Cli, command: tuple[str, ...]) -> None:
    shown = on_node(*command)
    assert shown.code == 0
    assert REASON in " ".join(shown.out.split())


def test_a_registry_of_another_version_is_left_alone(on_node: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alembic.script.ScriptDirectory.get_current_head", lambda _: "9999")
    refused = on_node("studies", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "dicom-node serve" in refused.err


def test_a_result_is_withdrawn_once_and_shown_as_such(on_node: Cli, registry: Registry) -> None:
    registry.record_arrivals([arrival(1, study="1.2.9", at=200.0)])
    registry.close_quiet(quiet_since=200.0, opened_before=0, at=240.0)
    claim = registry.claim("w", 1e9, 300)
    assert claim is not None
    registry.finish_reported(claim, report("1.2.9"), handover("pacs"), 310)
    done = on_node("withdraw", "1.2.9", "--reason", "safety", "--json")
    assert (done.code, done.json) == (0, {"study_instance_uid": "1.2.9", "state": "withdrawn", "withdrawn": 1})
    shown = on_node("study", "1.2.9", "--json").json
    assert (shown["state"], shown["priority"], shown["findings"], shown["sr_sop_instance_uid"]) == (
        "withdrawn",
        None,
        [],
        None,
    )
    [former] = shown["former_results"]
    assert (former["revision"], former["rejection"]) == (1, "Rejected for Patient Safety Reasons")
    assert [delivery["state"] for delivery in shown["deliveries"]] == ["withdrawn"]
    assert "result of revision 1 withdrawn" in " ".join(on_node("study", "1.2.9").out.split())
    again = on_node("withdraw", "1.2.9", "--reason", "safety")
    assert again.code == 1
    assert "no result that stands" in again.err
    assert on_node("withdraw", "1.2.9", "--reason", "retention").code == 2
