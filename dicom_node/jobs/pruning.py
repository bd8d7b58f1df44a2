"""What the worklist keeps and nothing needs any more: found and deleted, one small chunk a transaction.

Everything that belongs to a study stays with the study: its orders, its final reports and the messages they came in.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from dicom_node.base.workitems import UpsState
from dicom_node.jobs.database import Database, portions
from dicom_node.jobs.orders import ORDERS_LOCK
from dicom_node.jobs.tables import associations, studies
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
WINDOW = 2000  # rows of a table that are looked at in one round, so that it costs the same however much is kept
FINAL = (UpsState.COMPLETED, UpsState.CANCELED)
NEEDED = sa.exists().where(final_reports.c.message_id == messages.c.id)


@dataclass(frozen=True)
class Retention:
    """What may be deleted. Times are seconds since the epoch: what is older may go.

    messages: handled HL7 messages, and message_bytes: how much is kept at most of all in which no report came. orders:
    orders whose study never came, reports of no study and merges of nobody known, too. steps, locked_steps: work items
    in a final state, the latter with a deletion lock; final_steps: how many of them are kept at most. listed: a study
    with a later image may be on the reading list. associations: those that ended; audited: of them only what is in the
    audit trail.
    """

    messages: float
    message_bytes: int
    orders: float
    steps: float
    locked_steps: float
    final_steps: int
    listed: float
    associations: float = 0.0
    audited: bool = False


class Pruning(Database):
    """Deletes what is outdated.

    Of what stays with its study, and so grows for ever, each round looks at one window of rows, and the next at those
    behind it: `_looked_at` says how far it got in each table.
    """

    @cached_property
    def _looked_at(self) -> dict[str, int]:
        return {}

    def prune(self, retention: Retention) -> dict[str, int]:
        """Delete one chunk of each kind; how many of each kind, nothing where there was none."""
        # Reports before the orders and messages that they hold.
        gone = {
            "final reports": self._prune_reports(retention.orders),
            "orders": self._prune_orders(retention.orders),
            "merges": self._prune_merges(retention.orders),
            "HL7 messages": self._prune_messages(retention),
            "work items": self._prune_workitems(retention),
            "associations": self._prune_associations(retention),
        }
        return {kind: count for kind, count in gone.items() if count}

    def _prune_reports(self, before: float) -> int:
        """Of studies that the node never had."""
        came = sa.exists().where(messages.c.id == final_reports.c.message_id, messages.c.received_at < before)
        nobodys = (final_reports.c.study_id.is_(None), *_no_study(final_reports))
        return self._delete_behind(final_reports, final_reports.c.message_id, came, *nobodys)

    def _prune_orders(self, before: float) -> int:
        """Nor while a newer order shares an identifier: which of two is meant must not be guessed once one is gone."""
        twin = orders.alias("twin")
        alike = [
            ~sa.exists().where(twin.c[key] == orders.c[key], orders.c[key] != "", ~_stale(twin, before))
            for key in ("accession_number", "study_instance_uid")
        ]
        reported = sa.exists().where(final_reports.c.order_id == orders.c.id)
        unneeded = (~reported, *_no_study(orders), *alike)
        return self._delete_behind(orders, orders.c.updated_at, _stale(orders, before), *unneeded)

    def _prune_merges(self, before: float) -> int:
        """Of patients without orders, the last of a chain first; a chain that ends in itself goes as a whole."""
        known = sa.exists().where(orders.c.patient_id.in_([merges.c.retired_id, merges.c.survivor_id]))
        later = merges.alias("later")
        goes_on = sa.exists().where(later.c.retired_id == merges.c.survivor_id)
        old = (merges.c.merged_at < before, ~known)
        window, look_on = self._window(merges)
        if gone := self._delete(merges, merges.c.merged_at, *old, ~goes_on, *window):
            return gone
        with self._read() as connection:
            query = sa.select(merges).where(*old, goes_on, *window).order_by(merges.c.id)
            circular = [row.id for row in connection.execute(query) if _leads_nowhere(connection, row, before)]
        if circular:
            return self._delete(merges, merges.c.id, merges.c.id.in_(circular[:CHUNK]), *old)
        look_on()
        return 0

    def _prune_associations(self, retention: Retention) -> int:
        """They only say that studies are still fed; an object keeps the name of the one it came over."""
        may_go = [associations.c.closed_at < retention.associations]
        if retention.audited:
            may_go.append(associations.c.audited)
        return self._delete(associations, associations.c.closed_at, *may_go)

    def _prune_messages(self, retention: Retention) -> int:
        """By age; then, where there is too much, what was refused before what was applied, oldest first."""
        self._free_messages()
        may_go = (messages.c.applied_at.is_not(None) | messages.c.outcome.is_not(None), ~messages.c.of_report, ~NEEDED)
        gone = self._delete(messages, messages.c.received_at, messages.c.received_at < retention.messages, *may_go)
        if gone:
            return gone
        with self._read() as connection:
            excess = connection.scalar(sa.select(sa.func.sum(messages.c.size)).where(~messages.c.of_report)) or 0
            excess -= retention.message_bytes
            if excess <= 0:
                return 0
            worst_first = (messages.c.applied_at.is_not(None), messages.c.id)
            query = sa.select(messages.c.id, messages.c.size).where(*may_go).order_by(*worst_first)
            rows = connection.execute(query.limit(CHUNK)).all()
        before = itertools.accumulate((row.size for row in rows), initial=0)
        chosen = [row.id for row, freed in zip(rows, before, strict=False) if freed < excess]
        return self._delete(messages, messages.c.id, messages.c.id.in_(chosen), *may_go)

    def _free_messages(self) -> None:
        """Messages whose reports went count as any other from then on."""
        window, look_on = self._window(messages)
        of_report = sa.func.coalesce(messages.c.of_report, sa.false())  # by the window, not by the index
        with self._read() as connection:
            free = connection.scalars(sa.select(messages.c.id).where(of_report, ~NEEDED, *window)).all()
        for some in portions(free):
            with self._write() as connection:
                connection.execute(messages.update().where(messages.c.id.in_(some)).values(of_report=False))
        look_on()

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

    def _delete_behind(self, table: sa.Table, age: sa.ColumnElement[Any], *which: sa.ColumnElement[bool]) -> int:
        """The same in the table's window, which moves on when nothing of it went."""
        window, look_on = self._window(table)
        gone = self._delete(table, age, *which, *window)
        if not gone:
            look_on()
        return gone

    def _window(self, table: sa.Table) -> tuple[list[sa.ColumnElement[bool]], Callable[[], None]]:
        """The rows behind those that were looked at last, and how to move on; after the last come the first again."""
        begin = self._looked_at.get(table.name, 0)
        ids = sa.select(table.c.id).where(table.c.id > begin).order_by(table.c.id)
        with self._read() as connection:
            end = connection.scalar(ids.offset(WINDOW - 1).limit(1))
        window = [table.c.id > begin] if end is None else [table.c.id > begin, table.c.id <= end]
        return window, lambda: self._looked_at.update({table.name: end or 0})

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


def _leads_nowhere(connection: sa.Connection, merge: Any, before: float) -> bool:
    """Whether a merge and all that go on from it are old, and of nobody who has an order."""
    seen: set[int] = set()
    ask = [merge]
    while ask:
        seen |= {row.id for row in ask}
        patients = {name for row in ask for name in (row.retired_id, row.survivor_id)}
        if any(row.merged_at >= before for row in ask) or len(seen) > CHUNK:
            return False
        if connection.execute(sa.select(orders.c.id).where(orders.c.patient_id.in_(patients)).limit(1)).first():
            return False
        onward = sa.select(merges).where(merges.c.retired_id.in_({row.survivor_id for row in ask}))
        ask = [row for row in connection.execute(onward) if row.id not in seen]
    return True


def _stale(table: Any, before: float) -> sa.ColumnElement[bool]:
    """Whether no message has told of an order for long, and its appointment is as long ago."""
    day = time.strftime("%Y%m%d", time.localtime(before))  # scheduled_at is local time; without one it is empty
    return sa.and_(table.c.updated_at < before, sa.func.substr(table.c.scheduled_at, 1, 8) < day)


def _no_study(table: sa.Table) -> Sequence[sa.ColumnElement[bool]]:
    """That the node has no study with this Study Instance UID or accession number."""
    keys = ("study_instance_uid", "accession_number")
    return [~sa.exists().where(studies.c[key] == table.c[key], table.c[key] != "") for key in keys]
