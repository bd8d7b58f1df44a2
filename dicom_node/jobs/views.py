"""What people and scripts may read of the registry: studies, their deliveries, counts. Changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.base.types import DeliveryState, DeliveryView, Rejection, Standing, StudyState
from dicom_node.jobs.database import Database, portions
from dicom_node.jobs.study_records import newest_results
from dicom_node.jobs.tables import deliveries, events, instances, results, studies

QUEUED = (StudyState.COMPLETE, StudyState.RUNNING, StudyState.FAILED)


@dataclass(frozen=True)
class FormerResult:
    """A result that does not stand any more, or that the archive rejected. as_what: in the words of the standard."""

    revision: int
    report_uid: str
    withdrawn_at: float | None
    reason: str | None
    rejected_at: float | None
    as_what: str


@dataclass(frozen=True)
class StudyView:
    """A study as `dicom-node studies` shows it; level, rule, findings and report are the newest result's that stands.

    former: results that were withdrawn, by the node or by a person, or rejected by the archive.
    """

    id: str
    study_instance_uid: str
    state: str
    reason: str | None
    set_aside: tuple[dict[str, Any], ...]
    revision: int
    urgent: bool
    instances: int
    received_at: float
    completed_at: float | None
    finished_at: float | None
    attempts: int
    next_attempt_at: float | None
    level: str | None
    rule: str | None
    priority_output: str | None
    findings: tuple[dict[str, Any], ...]
    report_path: str | None
    report_uid: str | None
    training_state: str | None
    deliveries: tuple[DeliveryView, ...]
    former: tuple[FormerResult, ...] = ()


@dataclass(frozen=True)
class EventView:
    """One change of a study's state."""

    at: float
    revision: int
    from_state: str | None
    to_state: str
    reason: str | None


class Views(Database):
    """Read-only questions."""

    def studies(self, *, state: StudyState | None = None, limit: int | None = None) -> list[StudyView]:
        """Studies, newest first."""
        query = sa.select(studies).order_by(studies.c.received_at.desc(), studies.c.id).limit(limit)
        return self._views(query if state is None else query.where(studies.c.state == state))

    def queue(self) -> list[StudyView]:
        """What runs, waits or will be tried again, in the order in which it will be taken."""
        running_first = sa.case((studies.c.state == StudyState.RUNNING, 0), else_=1)
        return self._views(
            sa.select(studies)
            .where(studies.c.state.in_(QUEUED))
            .order_by(running_first, studies.c.urgent.desc(), studies.c.completed_at, studies.c.id)
        )

    def waiting_since(self) -> float | None:
        """When the study was complete that has waited longest for the model; None when none waits."""
        waits = studies.c.state.in_([StudyState.COMPLETE, StudyState.FAILED])
        with self._read() as connection:
            since: float | None = connection.scalar(sa.select(sa.func.min(studies.c.completed_at)).where(waits))
        return since

    def study(self, uid_or_id: str) -> StudyView | None:
        """One study by its Study Instance UID or the node's short id."""
        known_as = (studies.c.study_instance_uid == uid_or_id) | (studies.c.id == uid_or_id)
        found = self._views(sa.select(studies).where(known_as))
        return found[0] if found else None

    def history(self, study: str) -> list[EventView]:
        """All changes of a study's state, oldest first."""
        query = sa.select(events).where(events.c.study_id == study).order_by(events.c.id)
        with self._read() as connection:
            return [
                EventView(row.at, row.revision, row.from_state, row.to_state, row.reason)
                for row in connection.execute(query)
            ]

    def standings(self, study: str) -> dict[str, int]:
        """How many received objects of a study stand how (current, duplicate, quarantined …)."""
        query = (
            sa.select(instances.c.standing, sa.func.count())
            .where(instances.c.study_id == study)
            .group_by(instances.c.standing)
        )
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def state_counts(self, states: Collection[StudyState] = tuple(StudyState)) -> dict[str, int]:
        """How many studies are in each of these states; each is named."""
        query = sa.select(studies.c.state, sa.func.count()).where(studies.c.state.in_(states)).group_by(studies.c.state)
        with self._read() as connection:
            counted = {row[0]: row[1] for row in connection.execute(query)}
        return {state.value: counted.get(state.value, 0) for state in states}

    def delivery_counts(self, states: Collection[DeliveryState] = tuple(DeliveryState)) -> dict[tuple[str, str], int]:
        """(destination, state) → number of deliveries, of these states."""
        query = sa.select(deliveries.c.destination, deliveries.c.state, sa.func.count()).where(
            deliveries.c.state.in_(states)
        )
        query = query.group_by(deliveries.c.state, deliveries.c.destination)
        with self._read() as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(query)}

    def _views(self, query: sa.Select[Any]) -> list[StudyView]:
        with self._read() as connection:
            rows = connection.execute(query).all()
            return [view for some in portions(rows) for view in self._some_views(connection, some)]

    def _some_views(self, connection: sa.Connection, rows: Sequence[Any]) -> Iterator[StudyView]:
        ids = [row.id for row in rows]
        images = self._images(connection, ids)
        newest = newest_results(connection, ids)
        sent = self._deliveries(connection, ids)
        former = self._former(connection, ids)
        return (
            _view(row, images.get(row.id, 0), newest.get(row.id), tuple(sent[row.id]), tuple(former[row.id]))
            for row in rows
        )

    def _former(self, connection: sa.Connection, ids: list[str]) -> dict[str, list[FormerResult]]:
        is_former = results.c.withdrawn_at.is_not(None) | results.c.rejected_at.is_not(None)
        query = sa.select(results).where(results.c.study_id.in_(ids), is_former).order_by(results.c.revision)
        found: dict[str, list[FormerResult]] = defaultdict(list)
        for row in connection.execute(query):
            as_what = Rejection(row.withdrawn_as or row.rejection)
            found[row.study_id].append(
                FormerResult(
                    revision=row.revision,
                    report_uid=row.sop_instance_uid,
                    withdrawn_at=row.withdrawn_at,
                    reason=row.withdrawn_reason,
                    rejected_at=row.rejected_at,
                    as_what=as_what.meaning,
                )
            )
        return found

    def _images(self, connection: sa.Connection, ids: list[str]) -> dict[str, int]:
        query = (
            sa.select(instances.c.study_id, sa.func.count())
            .where(instances.c.study_id.in_(ids), instances.c.standing == Standing.CURRENT)
            .group_by(instances.c.study_id)
        )
        return {row[0]: row[1] for row in connection.execute(query)}

    def _deliveries(self, connection: sa.Connection, ids: list[str]) -> dict[str, list[DeliveryView]]:
        query = sa.select(deliveries).where(deliveries.c.study_id.in_(ids)).order_by(deliveries.c.id)
        found: dict[str, list[DeliveryView]] = defaultdict(list)
        for row in connection.execute(query):
            found[row.study_id].append(DeliveryView(row.destination, row.kind, row.state, row.attempts, row.last_error))
        return found


def _view(
    study: Any, images: int, result: Any, sent: tuple[DeliveryView, ...], former: tuple[FormerResult, ...]
) -> StudyView:
    return StudyView(
        id=study.id,
        study_instance_uid=study.study_instance_uid,
        state=study.state,
        reason=study.reason,
        set_aside=tuple(study.set_aside),
        revision=study.revision,
        urgent=study.urgent,
        instances=images,
        received_at=study.received_at,
        completed_at=study.completed_at,
        finished_at=study.finished_at,
        attempts=study.attempts,
        next_attempt_at=study.next_attempt_at,
        level=result.level if result else None,
        rule=result.rule if result else None,
        priority_output=result.priority_output if result else None,
        findings=tuple(result.findings) if result else (),
        report_path=result.path if result else None,
        report_uid=result.sop_instance_uid if result else None,
        training_state=result.training_state if result else None,
        deliveries=sent,
        former=former,
    )
