"""What the worklist keeps and nothing needs any more: found and deleted, one small chunk a transaction.

Everything that belongs to a study stays with the study: its orders, its final reports and the messages they came in.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.base.workitems import UpsState
from dicom_node.jobs.database import Database
from dicom_node.jobs.orders import ORDERS_LOCK
from dicom_node.jobs.tables import studies
from dicom_node.jobs.worklist_tables import (
    final_reports,
    merges,
    messages,
    orders,
    subscriptions,
    ups_events,
    workitems,
)

CHUNK = 200
FINAL = (UpsState.COMPLETED, UpsState.CANCELED)
NEEDED = sa.exists().where(final_reports.c.message_id == messages.c.id)


@dataclass(frozen=True)
class Retention:
    """What may be deleted. Times are seconds since the epoch: what is older may go.

    messages: handled HL7 messages, and message_bytes: how much is kept at most of all in which no report came. orders:
    orders whose study never came, reports of no study and merges of nobody known, too. steps, locked_steps: work items
    in a final state, the latter with a deletion lock; final_steps: how many of them are kept at most. listed: a study
    with a later image may be on the reading list.
    """

    messages: float
    message_bytes: int
    orders: float
    steps: float
    locked_steps: float
    final_steps: int
    listed: float


class Pruning(Database):
    """Deletes what is outdated."""

    def prune(self, retention: Retention) -> dict[str, int]:
        """Delete one chunk of each kind; how many of each kind, nothing where there was none."""
        # Reports before the orders and messages that they hold.
        gone = {
            "final reports": self._prune_reports(retention.orders),
            "orders": self._prune_orders(retention.orders),
            "merges": self._prune_merges(retention.orders),
            "HL7 messages": self._prune_messages(retention),
            "work items": self._prune_workitems(retention),
        }
        return {kind: count for kind, count in gone.items() if count}

    def _prune_reports(self, before: float) -> int:
        """Of studies that the node never had."""
        came = sa.exists().where(messages.c.id == final_reports.c.message_id, messages.c.received_at < before)
        nobodys = (final_reports.c.study_id.is_(None), *_no_study(final_reports))
        return self._delete(final_reports, final_reports.c.message_id, came, *nobodys)

    def _prune_orders(self, before: float) -> int:
        """Nor while a newer order shares an identifier: which of two is meant must not be guessed once one is gone."""
        twin = orders.alias("twin")
        alike = [
            ~sa.exists().where(twin.c[key] == orders.c[key], orders.c[key] != "", ~_stale(twin, before))
            for key in ("accession_number", "study_instance_uid")
        ]
        reported = sa.exists().where(final_reports.c.order_id == orders.c.id)
        unneeded = (~reported, *_no_study(orders), *alike)
        return self._delete(orders, orders.c.updated_at, _stale(orders, before), *unneeded)

    def _prune_merges(self, before: float) -> int:
        """Of patients without orders, the last of a chain first."""
        known = sa.exists().where(orders.c.patient_id.in_([merges.c.retired_id, merges.c.survivor_id]))
        later = merges.alias("later")
        goes_on = sa.exists().where(later.c.retired_id == merges.c.survivor_id)
        return self._delete(merges, merges.c.merged_at, merges.c.merged_at < before, ~known, ~goes_on)

    def _prune_messages(self, retention: Retention) -> int:
        """By age; then, where there is too much, what was refused before what was applied, oldest first."""
        may_go = (messages.c.applied_at.is_not(None) | messages.c.outcome.is_not(None), ~NEEDED)
        gone = self._delete(messages, messages.c.received_at, messages.c.received_at < retention.messages, *may_go)
        if gone:
            return gone
        with self._read() as connection:
            of_studies = sa.select(sa.func.sum(messages.c.size)).where(NEEDED)
            excess = _sum(connection, sa.select(sa.func.sum(messages.c.size))) - _sum(connection, of_studies)
            excess -= retention.message_bytes
            if excess <= 0:
                return 0
            worst_first = (messages.c.applied_at.is_not(None), messages.c.id)
            query = sa.select(messages.c.id, messages.c.size).where(*may_go).order_by(*worst_first)
            rows = connection.execute(query.limit(CHUNK)).all()
        before = itertools.accumulate((row.size for row in rows), initial=0)
        chosen = [row.id for row, freed in zip(rows, before, strict=False) if freed < excess]
        return self._delete(messages, messages.c.id, messages.c.id.in_(chosen), *may_go)

    def _prune_workitems(self, retention: Retention) -> int:
        """In a final state; with a deletion lock later; never while an event of it waits or its study may be listed."""
        locked = sa.exists().where(subscriptions.c.sop_instance_uid == workitems.c.sop_instance_uid)
        locked = locked.where(subscriptions.c.deletion_lock)
        waits = sa.exists().where(ups_events.c.sop_instance_uid == workitems.c.sop_instance_uid)
        listed = sa.exists().where(
            studies.c.study_instance_uid == workitems.c.study_instance_uid,
            studies.c.last_arrival_at >= retention.listed,
        )
        final, changed = workitems.c.state.in_(FINAL), workitems.c.changed_at
        with self._write() as connection:
            newest = sa.select(changed, workitems.c.id).where(final).order_by(changed.desc(), workitems.c.id.desc())
            over = connection.execute(newest.offset(retention.final_steps).limit(1)).one_or_none()
            old = changed < retention.steps
            if over is not None:
                old |= (changed < over.changed_at) | ((changed == over.changed_at) & (workitems.c.id <= over.id))
            may_go = (final, old, ~locked | (changed < retention.locked_steps), ~waits, ~listed)
            # Locked first, then asked again: who subscribed meanwhile is seen.
            query = sa.select(workitems.c.sop_instance_uid).where(*may_go).order_by(workitems.c.id).limit(CHUNK)
            found = connection.scalars(query.with_for_update(skip_locked=True, of=workitems)).all()
            mine = workitems.c.sop_instance_uid.in_(found)
            sure = connection.scalars(sa.select(workitems.c.sop_instance_uid).where(mine, *may_go)).all()
            connection.execute(subscriptions.delete().where(subscriptions.c.sop_instance_uid.in_(sure)))
            connection.execute(workitems.delete().where(workitems.c.sop_instance_uid.in_(sure)))
            return len(sure)

    def _delete(self, table: sa.Table, age: sa.ColumnElement[Any], *which: sa.ColumnElement[bool]) -> int:
        """Delete the oldest rows that are meant, at most a chunk of them.

        Looked for first, while others may write; then asked again, row by row, while no message is applied.
        """
        with self._read() as connection:
            found = connection.scalars(sa.select(table.c.id).where(*which).order_by(age).limit(CHUNK)).all()
        if not found:
            return 0
        with self._write() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ORDERS_LOCK)))
            return connection.execute(table.delete().where(table.c.id.in_(found), *which)).rowcount


def _sum(connection: sa.Connection, query: sa.Select[tuple[int]]) -> int:
    return connection.scalar(query) or 0


def _stale(table: Any, before: float) -> sa.ColumnElement[bool]:
    """Whether no message has told of an order for long, and its appointment is as long ago."""
    day = time.strftime("%Y%m%d", time.localtime(before))  # scheduled_at is local time; without one it is empty
    return sa.and_(table.c.updated_at < before, sa.func.substr(table.c.scheduled_at, 1, 8) < day)


def _no_study(table: sa.Table) -> Sequence[sa.ColumnElement[bool]]:
    """That the node has no study with this Study Instance UID or accession number."""
    keys = ("study_instance_uid", "accession_number")
    return [~sa.exists().where(studies.c[key] == table.c[key], table.c[key] != "") for key in keys]
