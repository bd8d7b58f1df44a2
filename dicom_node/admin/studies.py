"""`studies`, `study`, `queue`, `retry`, `withdraw`: what the node has, another try, and a result taken back."""

from __future__ import annotations

import enum
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from getpass import getuser
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, print_json, result, utc
from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import PersonsWithdrawal
from dicom_node.base.types import Rejection, StudyState
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.views import StudyView
from dicom_node.withdrawn import forget, remember

app = typer.Typer()


class Why(enum.StrEnum):
    """Why a person withdraws a result."""

    QUALITY = "quality"
    SAFETY = "safety"
    WORKLIST = "worklist"


REASONS = {Why.QUALITY: Rejection.QUALITY, Why.SAFETY: Rejection.SAFETY, Why.WORKLIST: Rejection.WORKLIST}
LINES = 1000  # of a table for people, unless they ask for another number

Uid = Annotated[str, typer.Argument(help="Study Instance UID, or the node's short study id.")]


def as_json(study: StudyView) -> dict[str, Any]:
    """A study in the vocabulary of the command line's JSON."""
    return {
        "id": study.id,
        "study_instance_uid": study.study_instance_uid,
        "state": study.state,
        "reason": study.reason,
        "set_aside": list(study.set_aside),
        "revision": study.revision,
        "urgent": study.urgent,
        "instances": study.instances,
        "received_at": utc(study.received_at),
        "completed_at": utc(study.completed_at),
        "finished_at": utc(study.finished_at),
        "attempts": study.attempts,
        "next_attempt_at": utc(study.next_attempt_at),
        "priority": {"level": study.level, "rule": study.rule} if study.level else None,
        "findings": list(study.findings),
        "sr_sop_instance_uid": study.report_uid,
        "training_state": study.training_state,
        "deliveries": [
            {
                "destination": delivery.destination,
                "kind": delivery.kind,
                "state": delivery.state,
                "attempts": delivery.attempts,
                "last_error": delivery.last_error,
            }
            for delivery in study.deliveries
        ],
        "former_results": [
            {
                "revision": former.revision,
                "sr_sop_instance_uid": former.report_uid,
                "withdrawn_at": utc(former.withdrawn_at),
                "reason": former.reason,
                "rejected_by_archive_at": utc(former.rejected_at),
                "rejection": former.as_what,
            }
            for former in study.former
        ],
    }


@app.command()
def studies(
    config: ConfigFile = DEFAULT_CONFIG,
    state: Annotated[StudyState | None, typer.Option(help="Only studies in this state.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"At most this many; when left out, {LINES} in a table and all as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """List the studies the node knows, newest first."""
    _, registry = open_registry(config)
    if json:
        print_json([as_json(study) for study in registry.studies(state=state, limit=limit)])
        return
    found = registry.studies(state=state, limit=limit or LINES)
    result.print(_table(found) if found else "no studies")
    counts = registry.state_counts()
    more = (counts[state] if state else sum(counts.values())) - len(found)
    if more > 0:
        result.print(f"and {more} more; --limit N shows as many as you ask for")


@app.command()
def queue(config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """List what runs, waits or will be tried again, in the order in which it is taken."""
    _, registry = open_registry(config)
    found = registry.queue()
    if json:
        print_json([as_json(study) for study in found])
    else:
        result.print(_table(found) if found else "nothing waits")


@app.command()
def study(uid: Uid, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Show one study: state, findings, deliveries and everything that happened to it."""
    _, registry = open_registry(config)
    found = find(registry, uid)
    history = registry.history(found.id)
    if json:
        events = [
            {"at": utc(e.at), "revision": e.revision, "from": e.from_state, "to": e.to_state, "reason": e.reason}
            for e in history
        ]
        explained = registry.explanation(found.id)
        print_json(
            as_json(found)
            | {"objects": registry.standings(found.id), "events": events}
            | {"explanation": asdict(explained) if explained else None}
        )
        return
    result.print(_table([found]))
    for finding in found.findings:
        kind = "probability" if finding["calibrated"] else "uncalibrated score"
        result.print(f"  {finding['meaning']}  {kind} {finding['score']:.3f}")
    for entry in found.set_aside:
        result.print(f"  set aside, {entry['series']} series: {entry['reason']}")
    for delivery in found.deliveries:
        error = f": {delivery.last_error}" if delivery.last_error else ""
        result.print(f"  → {delivery.destination} ({delivery.kind}) {delivery.state}{error}")
    if (explained := registry.explanation(found.id)) is not None:
        result.print(f"  explanation {explained.state}" + (f": {explained.note}" if explained.note else ""))
    for former in found.former:
        what = "withdrawn" if former.withdrawn_at is not None else "rejected by the archive"
        result.print(f"  result of revision {former.revision} {what}: {former.reason or former.as_what}")
    for event in history:
        result.print(f"  {utc(event.at)}  {event.to_state}  {event.reason or ''}")


@app.command()
def retry(uid: Uid, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Send again what waits or was set aside; run a study again that has no report, or whose report is held."""
    configuration, registry = open_registry(config)
    found = find(registry, uid)
    done = registry.retry(found.id, time.time())
    if done.queued:
        forget(configuration.node.storage, found.id)
    if not done.queued and not done.deliveries and not done.explaining:
        raise PermanentError(f"nothing to retry: the study is {found.state} and no delivery waits")
    if json:
        print_json({"study_instance_uid": found.study_instance_uid} | asdict(done))
    else:
        words = "queued again" if done.queued else f"deliveries due now: {done.deliveries}"
        result.print(words + ("; its findings are explained again" if done.explaining else ""))


@app.command()
def withdraw(
    uid: Uid,
    reason: Annotated[Why, typer.Option(help="Why: what the rejection note in the archives will say.")],
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Take a study's results back: from the outbox, the reading list and, by a rejection note, the archives."""
    configuration, registry = open_registry(config)
    found = find(registry, uid)
    wish, now = PersonsWithdrawal(REASONS[reason], getuser()), time.time()
    standing = registry.standing_images(found.id, now)
    with redirect_stdout(sys.stderr):  # what is logged on the way
        state = registry.withdraw(found.id, wish.rejection, wish.who, now)
    if standing:
        remember(configuration.node.storage, found.id, wish, standing, now)
    former = registry.study(found.id)
    count = len([one for one in former.former if one.withdrawn_at is not None]) if former is not None else 0
    if json:
        print_json({"study_instance_uid": found.study_instance_uid, "state": state, "withdrawn": count})
    elif state is StudyState.WITHDRAWN:
        result.print("withdrawn; `dicom-node retry` runs the study again")
    else:
        result.print(f"withdrawn; the study is {state}, and what comes of other images stands on its own")


def find(registry: Registry, uid: str) -> StudyView:
    """The study that a person means, by its UID or the node's short id. Raises PermanentError."""
    found = registry.study(uid)
    if found is None:
        raise PermanentError("no such study; `dicom-node studies` lists what the node has")
    return found


def _table(found: list[StudyView]) -> Table:
    fixed = [Column(name, no_wrap=True, min_width=width) for name, width in (("study", 16), ("state", 9))]
    received = Column("received (UTC)", no_wrap=True)
    table = Table(*fixed, "rev", "images", "priority", received, Column("finding or reason", min_width=20), box=None)
    for item in found:
        table.add_row(
            item.id,
            f"{item.state}{' !' if item.urgent else ''}",
            str(item.revision),
            str(item.instances),
            item.level or "",
            (utc(item.received_at) or "")[5:16].replace("T", " "),
            item.reason or _strongest(item),
        )
    return table


def _strongest(study: StudyView) -> str:
    if not study.findings:
        return "none" if study.report_uid else ""
    more = f" (+{len(study.findings) - 1})" if len(study.findings) > 1 else ""
    return str(study.findings[0]["meaning"]) + more
