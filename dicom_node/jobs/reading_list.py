"""The ranked list of studies that wait to be read, and how long it took from the last image to the flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.base.orders import Order, WorklistEntry
from dicom_node.base.types import CLINICAL, DeliveryView, Level
from dicom_node.jobs.flags import MODEL, FlagBook, is_of_two_patients, marking_of
from dicom_node.jobs.tables import deliveries, studies
from dicom_node.jobs.worklist_tables import changes, final_reports

ORDER = "order"
NEVER = 1e12  # later than any time on record
IS_REPORT_OF_STUDY = final_reports.c.study_id == studies.c.id


@dataclass(frozen=True)
class FlagTimes:
    """How long the model's flags took from the last image to the first acknowledgement.

    at_most: for each bound in seconds, how many took no longer. acknowledged, seconds: how many in all, and their sum.
    waiting: not acknowledged yet; overdue: those of them that should be. too_late: reading had begun, or the report was
    final, before.
    """

    at_most: tuple[tuple[float, int], ...]
    acknowledged: int
    seconds: float
    waiting: int
    overdue: int
    too_late: int


class ReadingList(FlagBook):
    """What people and worklists read of the priorities."""

    def worklist(self, since: float, *, nonclinical: bool) -> list[WorklistEntry]:
        """Studies without a final report whose last image came after `since`, in the order in which to read them.

        Highest level first, then longest waiting. nonclinical: whether a model that is not clinical counts.
        """
        final = sa.exists().where(IS_REPORT_OF_STUDY)
        query = sa.select(studies).where(studies.c.last_arrival_at >= since, ~final).order_by(studies.c.id)
        with self._read() as connection:
            found = [self._entry(connection, row, nonclinical) for row in connection.execute(query).all()]
        found.sort(key=lambda entry: (-entry["level"].severity, entry["waiting_since"], entry["study_id"]))
        return [WorklistEntry(rank=rank, **entry) for rank, entry in enumerate(found, start=1)]

    def level_of_order(self, order: Order, *, nonclinical: bool) -> Level | None:
        """The level that the study of this order has on the list; None where no study is certain to be its."""
        same = studies.c.study_instance_uid == order.study_instance_uid
        if not order.study_instance_uid:
            same = sa.and_(studies.c.accession_number == order.accession_number, studies.c.accession_number != "")
        with self._read() as connection:
            found = connection.execute(sa.select(studies).where(same).limit(2)).all()
            if len(found) != 1 or self._match(connection, found[0]).order != order:
                return None
            result = self._newest_result(connection, found[0])
            return self._level(connection, found[0], result, order, nonclinical)[0]

    def note_reading(self, study_instance_uid: str, at: float) -> None:
        """A person began to read the study, as a worklist says."""
        mine = sa.and_(studies.c.study_instance_uid == study_instance_uid, studies.c.reading_at.is_(None))
        with self._write() as connection:
            connection.execute(studies.update().where(mine).values(reading_at=at))

    def flag_times(self, bounds: Sequence[float], overdue_since: float) -> FlagTimes:
        """Of all flags of the model that destinations were told.

        overdue_since: a flag that still waits counts as overdue when the last image came before.
        """
        told = sa.exists().where(deliveries.c.change_id == changes.c.id)
        took = changes.c.acknowledged_at - changes.c.last_image_at
        end = sa.func.coalesce(changes.c.acknowledged_at, NEVER)
        final = sa.exists().where(IS_REPORT_OF_STUDY, final_reports.c.final_at < end)
        late = sa.or_(sa.func.coalesce(studies.c.reading_at, NEVER) < end, final)
        overdue = sa.and_(changes.c.acknowledged_at.is_(None), changes.c.last_image_at < overdue_since)
        numbers = [
            sa.func.count(changes.c.acknowledged_at),
            sa.func.coalesce(sa.func.sum(took), 0.0),
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(sa.case((late, 1), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((overdue, 1), else_=0)), 0),
            *(sa.func.coalesce(sa.func.sum(sa.case((took <= bound, 1), else_=0)), 0) for bound in bounds),
        ]
        query = sa.select(*numbers).join_from(changes, studies, studies.c.id == changes.c.study_id)
        with self._read() as connection:
            row = connection.execute(query.where(changes.c.source == MODEL, told)).one()
        acknowledged, seconds, flags, too_late, waits_too_long, *counts = row
        pairs = tuple(zip(bounds, counts, strict=True))
        return FlagTimes(pairs, acknowledged, float(seconds), flags - acknowledged, waits_too_long, too_late)

    def _entry(self, connection: sa.Connection, study: Any, nonclinical: bool) -> dict[str, Any]:
        # The last result on record stands while the study is run again, or when that ends without one.
        result = None if is_of_two_patients(study) else self._newest_result(connection, study)
        match = self._match(connection, study)
        told = self._changes(connection, study.id)
        flagged_at = min((row.acknowledged_at for row in told if row.acknowledged_at is not None), default=None)
        level, source, rule = self._level(connection, study, result, match.order, nonclinical)
        note = "" if told else self._plan(connection, study, 0.0, {}, nonclinical=nonclinical).note
        return {
            "study_id": study.id,
            "study_instance_uid": study.study_instance_uid,
            "accession_number": study.accession_number,
            "level": level,
            "source": source,
            "rule": rule,
            "findings": tuple(finding["meaning"] for finding in result.findings) if result is not None else (),
            "marking": marking_of(result.training_state) if result is not None else "",
            "state": study.state,
            "waiting_since": study.last_arrival_at,
            "flagged_at": flagged_at,
            "too_late": bool(told) and self._came_late(connection, study, flagged_at),
            "note": note,
            "deliveries": self._sent(connection, study.id),
        }

    def _level(
        self, connection: sa.Connection, study: Any, result: Any, order: Any, nonclinical: bool
    ) -> tuple[Level, str, str]:
        """The level that the study has now, who gave it, and why."""
        if is_of_two_patients(study):
            return Level.ROUTINE, "", study.reason
        known: list[tuple[Level, str, str]] = []
        if order is not None and order.priority is not None:
            known.append((order.priority, ORDER, f"ordered as {order.priority}"))
        last = self._last_standing(connection, study.id)
        if last is not None:
            known.append((Level(last.level), last.source, last.rule))
        undone = self._undone_level(connection, study.id)
        counts = result is not None and (result.training_state == CLINICAL or nonclinical)
        if counts and (undone is None or Level(result.level).severity > undone.severity):
            known.append((Level(result.level), MODEL, result.rule))
        if study.urgent:
            known.append((Level.URGENT, ORDER, "sent with high priority"))
        return max(known, key=lambda one: one[0].severity, default=(Level.ROUTINE, "", ""))

    @staticmethod
    def _changes(connection: sa.Connection, study: str) -> Sequence[Any]:
        query = sa.select(changes).where(changes.c.study_id == study, changes.c.undoes.is_(None))
        return connection.execute(query.order_by(changes.c.id)).all()

    @staticmethod
    def _sent(connection: sa.Connection, study: str) -> tuple[DeliveryView, ...]:
        query = sa.select(deliveries).where(deliveries.c.study_id == study).order_by(deliveries.c.id)
        return tuple(
            DeliveryView(row.destination, row.kind, row.state, row.attempts, row.last_error)
            for row in connection.execute(query)
        )

    @staticmethod
    def _final_at(connection: sa.Connection, study: Any) -> float | None:
        """When the study's report was final."""
        query = sa.select(sa.func.min(final_reports.c.final_at)).join_from(final_reports, studies, IS_REPORT_OF_STUDY)
        final_at: float | None = connection.scalar(query.where(studies.c.id == study.id))
        return final_at

    def _came_late(self, connection: sa.Connection, study: Any, flagged_at: float | None) -> bool:
        """Whether reading had begun, or the report was final, before the flag was there."""
        ends = [at for at in (study.reading_at, self._final_at(connection, study)) if at is not None]
        return bool(ends) and (flagged_at is None or min(ends) < flagged_at)
