"""The ranked list of studies that wait to be read, and how long it took from the last image to the flag."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from dicom_node.base.orders import Order, RankedOrder, WorklistEntry
from dicom_node.base.types import CLINICAL, DeliveryView, Level
from dicom_node.base.workitems import Background
from dicom_node.jobs.database import portions
from dicom_node.jobs.flags import FlagBook, is_of_two_patients, marking_of, news_of, same_word
from dicom_node.jobs.orders import matches_of
from dicom_node.jobs.study_records import MODEL, StudyRecord, highest, newest_results, records_of
from dicom_node.jobs.tables import deliveries, results, studies
from dicom_node.jobs.worklist_tables import changes, final_reports

ORDER = "order"
NEVER = 1e12  # later than any time on record
IS_REPORT_OF_STUDY = final_reports.c.study_id == studies.c.id


@dataclass(frozen=True)
class FlagTimes:
    """How long the model's flags took from the last image to the first acknowledgement.

    at_most: for each bound in seconds, how many took no longer. acknowledged, seconds: how many in all, and their sum.
    waiting: not acknowledged yet. too_late: reading had begun, or the report was final, before.
    """

    at_most: tuple[tuple[float, int], ...]
    acknowledged: int
    seconds: float
    waiting: int
    too_late: int

    def __add__(self, other: FlagTimes) -> FlagTimes:
        """Of both together; their bounds are the same."""
        return FlagTimes(
            tuple((bound, one + two) for (bound, one), (_, two) in zip(self.at_most, other.at_most, strict=True)),
            self.acknowledged + other.acknowledged,
            self.seconds + other.seconds,
            self.waiting + other.waiting,
            self.too_late + other.too_late,
        )


@dataclass(frozen=True)
class _Ranking:
    """The level that a study has now, who gave it, and why; what must stand beside it."""

    level: Level
    source: str
    rule: str
    marking: str = ""


class ReadingList(FlagBook):
    """What people and worklists read of the priorities."""

    def worklist(self, since: float, *, nonclinical: bool) -> list[WorklistEntry]:
        """Studies without a final report whose last image came after `since`, in the order in which to read them.

        Highest level first, then longest waiting. nonclinical: whether a model that is not clinical counts.
        """
        final = sa.exists().where(IS_REPORT_OF_STUDY)
        query = sa.select(studies).where(studies.c.last_arrival_at >= since, ~final)
        with self._read() as connection:
            rows = connection.execute(query).all()
            found = [_entry(record, nonclinical) for record in records_of(connection, rows)]
        found.sort(key=lambda entry: (-entry.level.severity, entry.waiting_since, entry.study_id))
        return [replace(entry, rank=rank) for rank, entry in enumerate(found, start=1)]

    def orders(
        self, *, equal: dict[str, str], scheduled_from: str = "", scheduled_to: str = "", nonclinical: bool
    ) -> Iterator[RankedOrder]:
        """Orders that are not over, in the order in which they came; holds no more than a page of them.

        equal: columns of `orders` and the exact value each must have. scheduled_from, scheduled_to: YYYYMMDD,
        inclusive. nonclinical: whether a model that is not clinical counts.
        """
        for page in self._order_pages(equal, scheduled_from, scheduled_to):
            with self._read() as connection:
                rankings = _rankings(connection, page, nonclinical)
            for order in page:
                ranking = rankings.get(order)
                ours = ranking.level if ranking is not None else None
                yield RankedOrder(order, highest(order.priority, ours), ranking.marking if ranking is not None else "")

    def backgrounds(self, ids: Collection[str]) -> dict[str, Background]:
        """What is known of studies for their work items, by short id."""
        found: dict[str, Background] = {}
        with self._read() as connection:
            for some in portions(sorted(ids)):
                rows = connection.execute(sa.select(studies).where(studies.c.id.in_(some))).all()
                matches, newest = matches_of(connection, rows), newest_results(connection, some)
                has_result = results.c.study_id.in_(some)
                judged = set(connection.scalars(sa.select(results.c.study_id).where(has_result).distinct()))
                for row in rows:
                    result = newest.get(row.id)
                    report = result.path if result is not None else None
                    is_withdrawn = result is None and row.id in judged
                    found[row.id] = Background(matches[row.id].order, report, is_withdrawn)
        return found

    def note_reading(self, study_instance_uid: str, at: float) -> None:
        """A person began to read the study, as a worklist says."""
        mine = sa.and_(studies.c.study_instance_uid == study_instance_uid, studies.c.reading_at.is_(None))
        with self._write() as connection:
            connection.execute(studies.update().where(mine).values(reading_at=at))

    def flag_times(self, bounds: Sequence[float], since: float = 0.0, until: float = NEVER) -> FlagTimes:
        """Of the flags of the model that destinations were told, those decided from `since` on and before `until`."""
        told = sa.exists().where(deliveries.c.change_id == changes.c.id)
        took = changes.c.acknowledged_at - changes.c.last_image_at
        end = sa.func.coalesce(changes.c.acknowledged_at, NEVER)
        final = sa.exists().where(IS_REPORT_OF_STUDY, final_reports.c.final_at < end)
        late = sa.or_(sa.func.coalesce(studies.c.reading_at, NEVER) < end, final)
        numbers = [
            sa.func.count(changes.c.acknowledged_at),
            sa.func.coalesce(sa.func.sum(took), 0.0),
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(sa.case((late, 1), else_=0)), 0),
            *(sa.func.coalesce(sa.func.sum(sa.case((took <= bound, 1), else_=0)), 0) for bound in bounds),
        ]
        query = sa.select(*numbers).join_from(changes, studies, studies.c.id == changes.c.study_id)
        with self._read() as connection:
            row = connection.execute(
                query.where(changes.c.at >= since, changes.c.at < until, changes.c.source == MODEL, told)
            ).one()
        acknowledged, seconds, flags, too_late, *counts = row
        pairs = tuple(zip(bounds, counts, strict=True))
        return FlagTimes(pairs, acknowledged, float(seconds), flags - acknowledged, too_late)


def _entry(record: StudyRecord, nonclinical: bool) -> WorklistEntry:
    study, told = record.study, record.raised
    # The last result on record stands while the study is run again, or when that ends without one.
    result = None if is_of_two_patients(study) else record.newest
    flagged_at = min((row.acknowledged_at for row in told if row.acknowledged_at is not None), default=None)
    ranking = _ranking(record, nonclinical)
    return WorklistEntry(
        rank=0,
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        accession_number=study.accession_number,
        level=ranking.level,
        source=ranking.source,
        rule=ranking.rule,
        findings=tuple(finding["meaning"] for finding in result.findings) if result is not None else (),
        marking=(marking_of(result.training_state) if result is not None else "") or ranking.marking,
        state=study.state,
        waiting_since=study.last_arrival_at,
        flagged_at=flagged_at,
        too_late=bool(told) and _came_late(record, flagged_at),
        level_marking=ranking.marking,
        note="" if told else news_of(record, {}, nonclinical=nonclinical)[1],
        deliveries=tuple(
            DeliveryView(row.destination, row.kind, row.state, row.attempts, row.last_error)
            for row in record.deliveries
        ),
    )


def _rankings(connection: sa.Connection, page: Sequence[Order], nonclinical: bool) -> dict[Order, _Ranking]:
    """The level that each order's study has on the list, for those orders that are certain to have one."""
    uids = {order.study_instance_uid for order in page} - {""}
    numbers = {order.accession_number for order in page if not order.study_instance_uid} - {""}
    mine = studies.c.accession_number.in_(numbers)
    # One of each number is enough: where several studies have it, it is certain of none.
    of_numbers = sa.select(sa.func.min(studies.c.id)).where(mine).group_by(studies.c.accession_number)
    which = studies.c.study_instance_uid.in_(uids) | studies.c.id.in_(of_numbers)
    rows = connection.execute(sa.select(studies).where(which)).all()
    return {
        record.match.order: _ranking(record, nonclinical)
        for record in records_of(connection, rows)
        if record.match.order is not None
    }


def _ranking(record: StudyRecord, nonclinical: bool) -> _Ranking:
    study, result = record.study, record.newest
    if is_of_two_patients(study):
        return _Ranking(Level.ROUTINE, "", study.reason)
    known: list[_Ranking] = []
    ordered, last, undone = record.ordered, record.last_standing, record.undone_level
    if ordered is not None:
        known.append(_Ranking(ordered, ORDER, f"ordered as {ordered}", _echoed_marking(record, ordered)))
    if last is not None:
        known.append(_Ranking(Level(last.level), last.source, last.rule, last.marking))
    counts = result is not None and (result.training_state == CLINICAL or nonclinical)
    if counts and (undone is None or Level(result.level).severity > undone.severity):
        known.append(_Ranking(Level(result.level), MODEL, result.rule, marking_of(result.training_state)))
    if study.urgent:
        known.append(_Ranking(Level.URGENT, ORDER, "sent with high priority"))
    return max(known, key=lambda one: one.level.severity, default=_Ranking(Level.ROUTINE, "", ""))


def _echoed_marking(record: StudyRecord, ordered: Level) -> str:
    """The marking of the change that an order's priority repeats: who is told a priority may order it from then on."""
    sent = {row.change_id for row in record.deliveries if row.attempts > 0}
    told = (row for row in reversed(record.raised) if row.id in sent and same_word(row.level, ordered))
    return next((row.marking for row in told), "")


def _came_late(record: StudyRecord, flagged_at: float | None) -> bool:
    """Whether reading had begun, or the report was final, before the flag was there."""
    ends = [at for at in (record.study.reading_at, record.final_at) if at is not None]
    return bool(ends) and (flagged_at is None or min(ends) < flagged_at)
