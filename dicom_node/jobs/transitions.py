"""The one way a study changes state: a guarded UPDATE and an event row in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from dicom_node.base.types import StudyState
from dicom_node.jobs import tables

State = StudyState

TWO_PATIENTS = (
    "images of two patients arrived under one Study Instance UID; "
    "correct it at the source and send each patient's images under a Study Instance UID of their own"
)
# Where a study may go from each state. A late image reopens all but the study of two patients, a correction or a
# rejection that leaves one patient's images that one, too.
ALLOWED: dict[State, frozenset[State]] = {
    State.RECEIVING: frozenset({State.COMPLETE, State.DEAD}),
    State.COMPLETE: frozenset({State.RUNNING, State.RECEIVING, State.DEAD}),
    State.RUNNING: frozenset(
        {State.REPORTED, State.OUT_OF_SCOPE, State.FAILED, State.DEAD, State.COMPLETE, State.RECEIVING}
    ),
    State.REPORTED: frozenset({State.DELIVERED, State.RECEIVING, State.DEAD, State.COMPLETE, State.WITHDRAWN}),
    State.DELIVERED: frozenset({State.RECEIVING, State.DEAD, State.WITHDRAWN}),
    State.OUT_OF_SCOPE: frozenset({State.RECEIVING, State.COMPLETE, State.DEAD}),
    State.FAILED: frozenset({State.RUNNING, State.COMPLETE, State.RECEIVING, State.DEAD}),
    State.DEAD: frozenset({State.RECEIVING, State.COMPLETE}),
    State.WITHDRAWN: frozenset({State.RECEIVING, State.COMPLETE, State.DEAD}),
}


def lock_study(connection: sa.Connection, study: str, *conditions: sa.ColumnElement[bool]) -> Any:
    """The study's row, if it fulfils the conditions, for this transaction alone; None otherwise.

    PostgreSQL: FOR NO KEY UPDATE, which lets others insert rows that refer to the study. On SQLite the whole
    transaction is alone.
    """
    query = sa.select(tables.studies).where(tables.studies.c.id == study, *conditions)
    return connection.execute(query.with_for_update(key_share=True)).one_or_none()


def reopen(connection: sa.Connection, study: Any, at: float, reason: str) -> int | None:
    """Have a study receive again, for what it is made of changed; its revision then, None where it receives already.

    study: its row, locked. One that only waited had no answer yet; any other gets a new revision, whose report names
    the one before.
    """
    if study.state == State.RECEIVING:
        return None
    revision: int = study.revision if study.state == State.COMPLETE else study.revision + 1
    move(
        connection,
        study.id,
        [State(study.state)],
        State.RECEIVING,
        at,
        reason=reason,
        revision=revision,
        opened_at=at,
        attempts=0,
        next_attempt_at=None,
        owner=None,
        lease_until=None,
        partial_reason=None,
    )
    return revision


def note_event(connection: sa.Connection, study: Any, at: float, reason: str) -> None:
    """Write down something that happened to a study, whose state it did not change."""
    connection.execute(
        tables.events.insert().values(
            study_id=study.id,
            at=at,
            revision=study.revision,
            from_state=study.state,
            to_state=study.state,
            reason=reason,
        )
    )


def move(
    connection: sa.Connection,
    study: str,
    sources: Iterable[State],
    target: State,
    at: float,
    *,
    reason: str | None = None,
    guard: sa.ColumnElement[bool] | None = None,
    **values: Any,
) -> bool:
    """Move a study from one of `sources` to `target`; False, and nothing changed, when it is elsewhere by now.

    guard: a further condition (owner, revision). values: further columns to set. Raises ValueError on a transition that
    the table above does not know.
    """
    allowed = list(sources)
    for source in allowed:
        if target not in ALLOWED[source]:
            raise ValueError(f"no transition from {source} to {target}")
    row = lock_study(connection, study, tables.studies.c.state.in_(allowed), *([] if guard is None else [guard]))
    if row is None:
        return False
    connection.execute(
        tables.studies.update()
        .where(tables.studies.c.id == study, tables.studies.c.state == row.state)
        .values(state=target, reason=reason, **values)
    )
    connection.execute(
        tables.events.insert().values(
            study_id=study,
            at=at,
            revision=values.get("revision", row.revision),
            from_state=row.state,
            to_state=target,
            reason=reason,
        )
    )
    return True
