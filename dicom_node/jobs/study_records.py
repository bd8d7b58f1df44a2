"""What a study's reading priority rests on, read for many studies with as many queries as for one.

Pure once read: what stands, what was undone and what was told follow from the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from dicom_node.base.types import DeliveryState, Level
from dicom_node.jobs.database import portions
from dicom_node.jobs.orders import Match, matches_of
from dicom_node.jobs.tables import deliveries, results
from dicom_node.jobs.worklist_tables import changes, final_reports

MODEL, PERSON = "model", "person"  # a change's source


@dataclass(frozen=True)
class StudyRecord:
    """A study's rows, each list in the order in which they were written.

    newest: the newest result that was not withdrawn: what stands while the study is run again, or ends without a
    result. final_at: when the study's first final report was.
    """

    study: Any
    match: Match
    newest: Any
    changes: Sequence[Any]
    deliveries: Sequence[Any]
    final_at: float | None

    @property
    def result(self) -> Any:
        """The result of the study as it is now."""
        is_of_now = self.newest is not None and self.newest.revision == self.study.revision
        return self.newest if is_of_now else None

    @property
    def ordered(self) -> Level | None:
        """What the study's order says."""
        return self.match.order.priority if self.match.order is not None else None

    @property
    def raised(self) -> list[Any]:
        """Changes that are no undo."""
        return [change for change in self.changes if change.undoes is None]

    @cached_property
    def undone(self) -> frozenset[int]:
        """Ids of the changes that were undone."""
        return frozenset(change.undoes for change in self.changes if change.undoes is not None)

    @property
    def standing(self) -> list[Any]:
        """Changes that are neither an undo nor undone."""
        return [change for change in self.raised if change.id not in self.undone]

    @property
    def last_standing(self) -> Any:
        """The last of them."""
        return next(reversed(self.standing), None)

    @property
    def standing_level(self) -> Level | None:
        """The highest of what the order says and what the node told last; None where nobody said anything."""
        last = self.last_standing
        return highest(Level(last.level) if last is not None else None, self.ordered)

    @property
    def undone_level(self) -> Level | None:
        """The highest level of the model that a person took back."""
        by_person = {change.undoes for change in self.changes if change.source == PERSON}
        taken_back = (change for change in self.changes if change.id in by_person and change.source == MODEL)
        return highest(*(Level(change.level) for change in taken_back))

    @property
    def told(self) -> dict[str, Level]:
        """What each destination was told last, or will be."""
        levels = {change.id: change.level for change in self.changes}
        of_changes = [
            row for row in self.deliveries if row.change_id in levels and row.state != DeliveryState.WITHDRAWN
        ]
        of_changes.sort(key=lambda row: row.change_id)
        return {row.destination: Level(row.level or levels[row.change_id]) for row in of_changes}


def records_of(connection: sa.Connection, rows: Sequence[Any]) -> Iterator[StudyRecord]:
    """The records of these rows of `studies`, in their order."""
    for some in portions(rows):
        ids = [row.id for row in some]
        matches = matches_of(connection, some)
        newest = newest_results(connection, ids)
        changed = _by_study(connection, changes, ids)
        sent = _by_study(connection, deliveries, ids)
        final = _first_final(connection, ids)
        for row in some:
            yield StudyRecord(
                row, matches[row.id], newest.get(row.id), changed[row.id], sent[row.id], final.get(row.id)
            )


def record_of(connection: sa.Connection, study: Any) -> StudyRecord:
    """The record of one study, a row of `studies`."""
    [record] = records_of(connection, [study])
    return record


def newest_results(connection: sa.Connection, ids: Collection[str]) -> dict[str, Any]:
    """The newest result of each study that has any that was not withdrawn, by the study's short id."""
    newest = sa.select(results.c.study_id, sa.func.max(results.c.revision).label("revision"))
    stands = results.c.withdrawn_at.is_(None)
    last = newest.where(results.c.study_id.in_(ids), stands).group_by(results.c.study_id).subquery()
    is_last = sa.and_(results.c.study_id == last.c.study_id, results.c.revision == last.c.revision)
    return {row.study_id: row for row in connection.execute(sa.select(results).join(last, is_last))}


def highest(*levels: Level | None) -> Level | None:
    """The highest of the levels that are known."""
    known = [level for level in levels if level is not None]
    return max(known, key=lambda level: level.severity, default=None)


def _by_study(connection: sa.Connection, table: sa.Table, ids: Collection[str]) -> defaultdict[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(sa.select(table).where(table.c.study_id.in_(ids)).order_by(table.c.id)):
        found[row.study_id].append(row)
    return found


def _first_final(connection: sa.Connection, ids: Collection[str]) -> dict[str, float]:
    query = sa.select(final_reports.c.study_id, sa.func.min(final_reports.c.final_at))
    query = query.where(final_reports.c.study_id.in_(ids)).group_by(final_reports.c.study_id)
    return {row[0]: row[1] for row in connection.execute(query)}
