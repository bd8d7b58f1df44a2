"""`worklist …`: the reading list, a person's changes to it, what would be told whom, and whether the flag helps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from dicom_node.admin import simulate as simulation
from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, notes, print_json, result
from dicom_node.admin.studies import Uid, find
from dicom_node.admin.wishes import listeners_for
from dicom_node.base.config import Configuration
from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import WorklistEntry
from dicom_node.base.types import Finding, Level, Priority
from dicom_node.console.reading_list import age_seconds, as_json, duration
from dicom_node.jobs.flags import Plan
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.listeners import preview
from dicom_node.worklist.ranking import rank_again

app = typer.Typer(help="Reading priorities: the list, changes by a person, and what they do.")
rules_app = typer.Typer(help="The site's rules.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")
COLOURS = {Level.CRITICAL: "bold white on red", Level.URGENT: "bold red", Level.ELEVATED: "yellow", Level.ROUTINE: ""}
WATCH_SECONDS = 5.0


@app.callback(invoke_without_command=True)
def worklist(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every few seconds until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """The ranked reading list: what to read first, why, and who was told."""
    if context.invoked_subcommand is not None:
        return
    configuration, registry = open_registry(config)
    if json:
        print_json([as_json(entry, time.time()) for entry in _entries(configuration, registry)])
    elif watch:
        _watch(configuration, registry)
    else:
        result.print(_table(_entries(configuration, registry)))


@app.command("raise")
def raise_(
    uid: Uid,
    level: Annotated[Level, typer.Option(help="The level to read it at.")],
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Raise a study's reading priority and tell whom its result is told, or will be; a priority is never lowered."""
    configuration, registry = open_registry(config)
    found = find(registry, uid)
    fallback = listeners_for(configuration, registry, found.id) if found.report_uid is None else ()
    plan = registry.raise_priority(found.id, level, fallback, time.time())
    _show(plan, json, f"raised to {level.value}")


@app.command()
def undo(uid: Uid, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Take the last change of a study's priority back, where it was told and still stands."""
    _, registry = open_registry(config)
    _show(registry.undo_priority(find(registry, uid).id, time.time()), json, "taken back")


@app.command("dry-run")
def dry_run(uid: Uid, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Print the exact message that each destination gets for a study, told before or not; nothing is sent."""
    configuration, registry = open_registry(config)
    nonclinical = configuration.moves_nonclinical
    plan = registry.plan_priority(find(registry, uid).id, time.time(), nonclinical=nonclinical)
    messages = [_message(configuration, plan, listener.name) for listener in plan.listeners]
    if json:
        print_json(_plan_json(plan) | {"messages": messages})
        return
    for message in messages:
        result.print(f"{message['destination']} ({message['kind']}):\n{message['message']}\n")
    if not messages:
        result.print(f"nobody would be told: {plan.note or 'the study is routine'}")


@rules_app.command("test")
def try_rules(uid: Uid, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Say which level today's rules and mapping give a study's newest result, beside the one it was given."""
    configuration, registry = open_registry(config)
    found = find(registry, uid)
    if found.report_uid is None or found.priority_output is None:
        raise PermanentError("the study has no result yet")
    findings = [Finding(**finding) for finding in found.findings]
    now = rank_again(found.priority_output, configuration.worklist.mapping, findings, configuration.worklist.rules)
    if json:
        given = {"level": found.level, "rule": found.rule}
        print_json({"study_instance_uid": found.study_instance_uid, "given": given, "now": _priority(now)})
    else:
        result.print(f"given: {found.level} ({found.rule})\nnow:   {now.level} ({now.rule})")


@app.command()
def simulate(
    scenario: Annotated[Path | None, typer.Option(help="The room, as TOML; an illustration if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots (SVG) and the JSON document.")] = None,
    json: Json = False,
) -> None:
    """Simulate a reading room with the flag and without it: who waits less, who waits longer."""
    simulation.run(scenario, out, json)


def _entries(configuration: Configuration, registry: Registry) -> list[WorklistEntry]:
    since = time.time() - configuration.worklist.keep_hours * 3600
    return registry.worklist(since, nonclinical=configuration.moves_nonclinical)


def _watch(configuration: Configuration, registry: Registry) -> None:
    with Live(console=result, auto_refresh=False, screen=result.is_terminal) as live:
        try:
            while True:
                live.update(_table(_entries(configuration, registry)), refresh=True)
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            notes.print("stopped")


def _table(entries: list[WorklistEntry]) -> Table:
    now = time.time()
    columns = [Column(name, no_wrap=True) for name in ("#", "level", "study", "accession", "waiting", "state")]
    table = Table(*columns, Column("finding, rule or note", min_width=20), "told", box=None)
    if not entries:
        table.caption = "nothing waits to be read"
    for entry in entries:
        told = ", ".join(f"{one.destination} {one.state}" for one in entry.deliveries if one.kind != "sr")
        words = [*entry.findings[:1], entry.marking, entry.rule, entry.note, "too late" if entry.too_late else ""]
        table.add_row(
            str(entry.rank),
            Text(entry.level.value, style=COLOURS[entry.level]),
            entry.study_id,
            entry.accession_number,
            duration(age_seconds(entry, now)),
            entry.state,
            "; ".join(word for word in words if word),
            told or "nobody",
        )
    return table


def _message(configuration: Configuration, plan: Plan, name: str) -> dict[str, str]:
    assert plan.change is not None
    destination = configuration.destination(name)
    try:
        message = preview(plan.change, destination)
    except PermanentError as error:
        message = f"no message can be made: {error}"
    return {"destination": name, "kind": destination.kind, "message": message}


def _show(plan: Plan, json: bool, words: str) -> None:
    if json:
        print_json(_plan_json(plan))
        return
    told = ", ".join(listener.name for listener in plan.listeners)
    result.print(f"{words}; told: {told or 'nobody'}" + (f" ({plan.note})" if plan.note else ""))


def _plan_json(plan: Plan) -> dict[str, Any]:
    change = plan.change
    return {
        "study_instance_uid": change.study_instance_uid if change else None,
        "level": change.level.value if change else None,
        "previous": change.previous.value if change and change.previous else None,
        "rule": change.rule if change else None,
        "destinations": [listener.name for listener in plan.listeners],
        "note": plan.note,
    }


def _priority(priority: Priority) -> dict[str, str]:
    return {"level": priority.level.value, "rule": priority.rule}
