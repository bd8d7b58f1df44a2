"""Reading priorities that destinations are told: never lower than what is known, once each, and undoable.

A change is decided whenever something it rests on changes: a result, an order, a person's wish. It is written down with
its deliveries in the transaction of its cause.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import PermanentError
from dicom_node.base.events import Event, log
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.orders import Listener, Order, PriorityChange, WorklistEvent
from dicom_node.base.types import CLINICAL, DeliveryState, Finding, Level, StudyState
from dicom_node.jobs.orders import Match, OrderBook, order_from_json, order_of_row, order_to_json
from dicom_node.jobs.study_records import MODEL, PERSON, StudyRecord, highest, record_of
from dicom_node.jobs.tables import deliveries, studies
from dicom_node.jobs.transitions import TWO_PATIENTS, lock_study
from dicom_node.jobs.worklist_tables import changes, orders

WITHDRAWAL = "withdraw"  # the source of an undo that a result's withdrawal asks for
KEY_LENGTH = 20
NOT_CLINICAL = "the model is not clinical and worklist.allow_nonclinical is not set"
UNDONE = "a person took the priority back"
NOT_RAISED = "the result asks for nothing higher than what is known"
UNKNOWN = "the order does not say what its priority is, so nothing higher can be told from lower"
FINAL = "the report is final"
OVERTAKEN = "the order has another priority by now"
TOLD_NOW = "a destination is being told just now; what it had before is known once that has ended"
NOBODY = "no destination is told reading priorities"


@dataclass(frozen=True)
class Plan:
    """What would be told whom now. change: None with the reason in `note`."""

    change: PriorityChange | None
    listeners: tuple[Listener, ...] = ()
    note: str = ""


def needing(
    level: Level, ordered: Level | None, told: Mapping[str, Level], listeners: Sequence[Listener], has_order: bool
) -> tuple[Listener, ...]:
    """The listeners whom a level is news to.

    ordered: the order's priority, None where nobody said it. told: what each was told last. A UPS peer is asked for the
    present priority when it is told; an HL7 peer cannot be, so without one it is told the top level alone, if at all.
    """
    return tuple(one for one in listeners if _is_news(level, ordered, told.get(one.name), one, has_order))


def _is_news(level: Level, ordered: Level | None, told: Level | None, listener: Listener, has_order: bool) -> bool:
    known = [one for one in (ordered, told) if one is not None]
    if any(level.severity <= one.severity for one in known) or level is Level.ROUTINE:
        return False
    if listener.kind == "ups" or (has_order and ordered is not None):
        return True
    return has_order and listener.top_level_if_unknown and level is Level.CRITICAL


class FlagBook(OrderBook):
    """Changes of reading priority."""

    def apply_message(self, message: int, events: Sequence[WorklistEvent], at: float, *, nonclinical: bool) -> None:
        """Do what a kept message says, all of it or nothing, and tell what follows from it for the studies it touches.

        nonclinical: whether a model that is not clinical may move the worklist. Raises PermanentError when it would
        have to guess.
        """
        with self._write() as connection:
            if not self._take(connection, message):
                return  # the same bytes, on another connection, were applied meanwhile
            for study in sorted(self._apply(connection, message, events, at)):
                self._flag(connection, study, at, nonclinical=nonclinical)
            passed(FaultPoint.MESSAGE_WRITTEN)

    def plan_priority(self, study: str, at: float, *, nonclinical: bool) -> Plan:
        """What the node would tell now if it had told nobody anything yet. Changes nothing."""
        with self._read() as connection:
            row = connection.execute(sa.select(studies).where(studies.c.id == study)).one()
            return _plan(record_of(connection, row), at, {}, nonclinical=nonclinical)

    def raise_priority(self, study: str, level: Level, fallback: Sequence[Listener], at: float) -> Plan:
        """A person's wish, told to whom the study's result is told. Raises PermanentError.

        fallback: who is told of a study without a result. Who cannot be told now is told once the order says enough.
        """
        with self._write() as connection:
            record = record_of(connection, lock_study(connection, study))
            if ended := _ended(record):
                raise PermanentError(ended)
            standing, result, told = record.standing_level, record.newest, record.told
            if standing is not None and level.severity <= standing.severity:
                raise PermanentError(f"the study's priority is {standing} already; a priority is never lowered")
            listeners = [Listener(**one) for one in result.told] if result is not None else fallback
            news = needing(level, record.ordered, told, listeners, record.match.order is not None)
            rule = f"raised to {level} by a person"
            # A model that is not clinical has no part in a person's wish, and so does not hold it back.
            judge = result if result is not None and result.training_state == CLINICAL else None
            change = _change(record, level, rule, at, result=judge)
            why = _why_not(level, record, listeners)
            later = [_Told(one, waits=why) for one in listeners if one not in news]
            now = _with_previous(news, record.ordered, told)
            self._queue(connection, record.study, change, [*now, *later], PERSON, judge)
            return Plan(change, news, "" if news else why)

    def undo_priority(self, study: str, at: float) -> Plan:
        """Take the last change back where it was told, while it still stands; each gets back what it had before.

        Raises PermanentError when there is nothing to undo, or nobody who was told said what the priority was before or
        can say it yet.
        """
        with self._write() as connection:
            record = record_of(connection, lock_study(connection, study))
            last = record.last_standing
            if last is None:
                raise PermanentError("the node changed no priority of this study, or it was undone already")
            told = self._withdraw(connection, last)
            back = [_Told(one.listener, level=one.previous, previous=Level(last.level)) for one in told if one.previous]
            if told and not back:
                raise PermanentError("what the priority was before is not known; change it where it is kept")
            if not self._still_stands(record.match, last):
                back = []
            before = Level(last.previous) if last.previous else Level.ROUTINE
            change = replace(
                _change(record, before, "undone by a person", at, undo=True),
                findings=tuple(Finding(**finding) for finding in last.findings),
                marking=last.marking,
                judged=last.result_id is not None,
            )
            self._queue(connection, record.study, change, back, PERSON, undoes=last)
            listeners = tuple(one.listener for one in back)
            return Plan(change, listeners, "" if listeners else "nobody has to be told")

    def _take_back(self, connection: sa.Connection, record: StudyRecord, results: Collection[int], at: float) -> bool:
        """Undo every priority that the model gave in these results, the last one first, as they are withdrawn.

        Of a person's wish, which came since, nothing is taken. False, and nothing changed, while a destination is being
        told just now: what it had before is known once that has ended.
        """
        mine = [one for one in record.standing if one.source == MODEL and one.result_id in results]
        wishes = [one.id for one in record.standing if one.source == PERSON]
        if any(
            row.kind == "ups" and row.state == DeliveryState.SENDING and row.change_id in {one.id for one in mine}
            for row in record.deliveries
        ):
            return False
        for last in reversed(mine):
            told = self._withdraw(connection, last)
            back = [_Told(one.listener, level=one.previous, previous=Level(last.level)) for one in told if one.previous]
            order = self._as_told(connection, last).order
            if any(wish > last.id for wish in wishes) or not self._still_stands(Match(order), last):
                back = []
            elif len(back) < len(told):
                log(Event.PRIORITY_STANDS, "warning", study=record.study.id, count=len(told) - len(back))
            change = replace(
                _change(record, Level(last.previous or Level.ROUTINE), "result withdrawn", at, undo=True),
                order=order,
                findings=tuple(Finding(**finding) for finding in last.findings),
                marking=last.marking,
                judged=True,
            )
            self._queue(connection, record.study, change, back, WITHDRAWAL, undoes=last)
        return True

    def _as_told(self, connection: sa.Connection, change: Any) -> Match:
        """The order that a change was told with, as it is now, whatever order the study has since."""
        if change.order is None:
            return Match(None)
        then = order_from_json(change.order)
        numbers = ("placer_order_number", "filler_order_number", "accession_number")
        same = (orders.c[name] == getattr(then, name) for name in numbers)
        found = connection.execute(sa.select(orders).where(*same)).all()
        return Match(order_of_row(found[0]) if len(found) == 1 else then)

    def _still_due(self, connection: sa.Connection, delivery: Any) -> str:
        """Why a change that waited must not be sent any more, as things are now; empty when it may.

        An HL7 peer cannot be asked what it has, so what its messages said meanwhile decides.
        """
        change = connection.execute(sa.select(changes).where(changes.c.id == delivery.change_id)).one()
        if self._is_final(connection, delivery.study_id):
            return FINAL
        if self._is_undone(connection, change):
            return UNDONE
        study = connection.execute(sa.select(studies).where(studies.c.id == delivery.study_id)).one()
        match = self._match(connection, study) if change.source != WITHDRAWAL else self._as_told(connection, change)
        then = order_from_json(change.order) if change.order is not None else match.order
        if then is not None and (match.order is None or not _is_same_order(match.order, then)):
            return match.note or "the study's order is another one now"
        if delivery.kind == "hl7":
            return self._overtaken(connection, match, change)
        # A UPS peer says itself what its step has; one that is created for us must not say less than the order.
        known = match.order.priority if match.order is not None and change.undoes is None else None
        return OVERTAKEN if known is not None and known.severity >= Level(change.level).severity else ""

    def _overtaken(self, connection: sa.Connection, match: Match, change: Any) -> str:
        """Why what the order says now forbids a change; empty when it does not."""
        if change.undoes is not None:
            undone = connection.execute(sa.select(changes).where(changes.c.id == change.undoes)).one()
            return "" if self._still_stands(match, undone) else OVERTAKEN
        known = match.order.priority if match.order is not None else None
        if known is None:
            return UNKNOWN if change.order["priority"] else ""
        return OVERTAKEN if known.severity >= Level(change.level).severity or same_word(known, change.level) else ""

    def _flag(self, connection: sa.Connection, study: str, at: float, *, nonclinical: bool) -> None:
        record = record_of(connection, lock_study(connection, study))
        if self._tell_wish(connection, record, at):
            record = record_of(connection, record.study)
        told = record.told
        plan = _plan(record, at, told, nonclinical=nonclinical)
        if plan.change is None:
            return
        news = _with_previous(plan.listeners, record.ordered, told)
        self._queue(connection, record.study, plan.change, news, MODEL, record.result)
        log(Event.PRIORITY_RAISED, study=study, priority=plan.change.level.value, count=len(plan.listeners))

    @staticmethod
    def _tell_wish(connection: sa.Connection, record: StudyRecord, at: float) -> bool:
        """Tell a person's wish to those who could not be told it without an order, or not without its priority."""
        wish = next((change for change in reversed(record.standing) if change.source == PERSON), None)
        if wish is None or _ended(record):
            return False
        ended = (row for row in record.deliveries if row.change_id == wish.id and row.state == DeliveryState.WITHDRAWN)
        waiting = {row.destination: row for row in ended if not row.attempts or wish.order is None}
        listeners = [Listener(row.destination, row.kind) for row in waiting.values()]
        order, told = record.match.order, record.told
        news = needing(Level(wish.level), record.ordered, told, listeners, order is not None)
        if order is None or not news:
            return False
        now = {"order": order_to_json(order), "previous": wish.previous or order.priority}
        connection.execute(changes.update().where(changes.c.id == wish.id).values(now))
        for one in _with_previous(news, order.priority, told):
            due = {"state": DeliveryState.PENDING, "next_attempt_at": at, "last_error": None}
            if one.listener.kind == "hl7":
                due["previous"] = one.previous
            mine = deliveries.c.id == waiting[one.listener.name].id
            connection.execute(deliveries.update().where(mine).values(due))
        return True

    def _queue(
        self,
        connection: sa.Connection,
        study: Any,
        change: PriorityChange,
        told: Sequence[_Told],
        source: str,
        result: Any = None,
        undoes: Any = None,
    ) -> None:
        row = connection.scalar(
            changes.insert()
            .values(
                key=change.key,
                study_id=study.id,
                result_id=result.id if result is not None else (undoes.result_id if undoes is not None else None),
                undoes=undoes.id if undoes is not None else None,
                source=source,
                level=change.level,
                previous=change.previous,
                rule=change.rule,
                marking=change.marking,
                nonclinical=bool(change.marking),
                findings=[asdict(finding) for finding in change.findings],
                order=order_to_json(change.order) if change.order else None,
                at=change.at,
                last_image_at=study.last_arrival_at,
            )
            .returning(changes.c.id)
        )
        for one in told:
            connection.execute(
                deliveries.insert().values(
                    change_id=row,
                    study_id=study.id,
                    destination=one.listener.name,
                    kind=one.listener.kind,
                    level=one.level,
                    # A UPS peer says itself what it had.
                    previous=one.previous if one.listener.kind == "hl7" else None,
                    state=DeliveryState.PENDING if one.waits is None else DeliveryState.WITHDRAWN,
                    last_error=one.waits,
                    next_attempt_at=change.at,
                )
            )

    @staticmethod
    def _withdraw(connection: sa.Connection, change: Any) -> list[_Told]:
        """Stop what waits; returns who was told, or may have been, and what each had before. Raises PermanentError."""
        mine = deliveries.c.change_id == change.id
        waits = deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.SET_ASIDE])
        # Locked first: whoever claims one at this moment has it now, or never gets it.
        stopped = connection.scalars(sa.select(deliveries.c.id).where(mine, waits).with_for_update()).all()
        rows = connection.execute(sa.select(deliveries).where(mine).order_by(deliveries.c.id)).all()
        if any(row.kind == "ups" and row.state == DeliveryState.SENDING for row in rows):
            raise PermanentError(TOLD_NOW)
        stop = deliveries.update().where(deliveries.c.id.in_(stopped))
        connection.execute(stop.values(state=DeliveryState.WITHDRAWN))
        return [
            _Told(Listener(row.destination, row.kind), previous=Level(row.previous) if row.previous else None)
            for row in rows
            if row.attempts > 0 and not _changed_nothing(row)
        ]

    @staticmethod
    def _is_undone(connection: sa.Connection, change: Any) -> bool:
        return connection.scalar(sa.select(changes.c.id).where(changes.c.undoes == change.id)) is not None

    @staticmethod
    def _still_stands(match: Match, change: Any) -> bool:
        """Whether nobody gave the order another priority since: it has ours, or still the one it had then."""
        if match.order is None or change.order is None:
            return change.order is None  # told without an order: the peer is asked what it has
        now, then = match.order.priority, change.order["priority"]
        if now is None:
            return then is None
        return same_word(now, change.level) or now in (then, change.previous)


@dataclass(frozen=True)
class _Told:
    """One destination of a change: the level it is told, if it is another, and what it had before.

    waits: why it cannot be told yet, else None.
    """

    listener: Listener
    level: Level | None = None
    previous: Level | None = None
    waits: str | None = None


def same_word(one: str, other: str) -> bool:
    """Whether two levels come back from an HL7 peer as one: elevated and urgent are both A."""
    return one == other or {one, other} == {Level.ELEVATED, Level.URGENT}


def is_of_two_patients(study: Any) -> bool:
    """Whether nothing that was made of this study may be shown or told."""
    return bool(study.state == StudyState.DEAD and study.reason == TWO_PATIENTS)


def _changed_nothing(delivery: Any) -> bool:
    """Whether a UPS peer had the level already, or the step was nobody's to change."""
    ended = delivery.state in (DeliveryState.DELIVERED, DeliveryState.WITHDRAWN)
    return bool(delivery.kind == "ups" and ended and delivery.previous is None)


def _is_same_order(one: Order, other: Order) -> bool:
    keys = ("placer_order_number", "filler_order_number")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _with_previous(listeners: Sequence[Listener], ordered: Level | None, told: Mapping[str, Level]) -> list[_Told]:
    """What each listener has before it is told: the order's priority, or what it was told since."""
    return [_Told(one, previous=highest(ordered, told.get(one.name))) for one in listeners]


def marking_of(training_state: str) -> str:
    """What must stand beside a result of a model in this state; empty for a clinical one."""
    return "" if training_state == CLINICAL else f"{training_state} model, not for clinical use"


def change_of_row(row: Any, study_instance_uid: str) -> PriorityChange:
    """The value of a row of `changes`."""
    return PriorityChange(
        key=row.key,
        study_instance_uid=study_instance_uid,
        level=Level(row.level),
        previous=Level(row.previous) if row.previous else None,
        rule=row.rule,
        at=row.at,
        order=order_from_json(row.order) if row.order else None,
        findings=tuple(Finding(**finding) for finding in row.findings),
        undo=row.undoes is not None,
        marking=row.marking,
        judged=row.result_id is not None,
    )


def news_of(record: StudyRecord, told: Mapping[str, Level], *, nonclinical: bool) -> tuple[tuple[Listener, ...], str]:
    """Whom the study's result is news to, and why it is news to nobody.

    told: what each destination was told last. The reason is empty, too, where the result asks for nothing.
    """
    silence = _silence(record, nonclinical)
    if record.result is None or silence:
        return (), silence
    level, listeners = Level(record.result.level), [Listener(**one) for one in record.result.told]
    news = needing(level, record.ordered, told, listeners, record.match.order is not None)
    return news, "" if news else _why_not(level, record, listeners)


def _plan(record: StudyRecord, at: float, told: Mapping[str, Level], *, nonclinical: bool) -> Plan:
    news, note = news_of(record, told, nonclinical=nonclinical)
    if not news:
        return Plan(None, note=note)
    result = record.result
    return Plan(_change(record, Level(result.level), result.rule, at, result=result), news)


def _silence(record: StudyRecord, nonclinical: bool) -> str:
    """Why nothing at all is told of a study now, whatever its order says; empty when something may be."""
    result, undone = record.result, record.undone_level
    if result is None:
        return TWO_PATIENTS if is_of_two_patients(record.study) else ""
    if ended := _ended(record):
        return ended
    if result.training_state != CLINICAL and not nonclinical:
        return NOT_CLINICAL
    return UNDONE if undone is not None and Level(result.level).severity <= undone.severity else ""


def _ended(record: StudyRecord) -> str:
    """Why nobody is told anything more of a study, whoever says it; empty when somebody may be."""
    if is_of_two_patients(record.study):
        return TWO_PATIENTS
    return FINAL if record.final_at is not None else ""


def _why_not(level: Level, record: StudyRecord, listeners: Sequence[Listener]) -> str:
    """Why nobody is told, in words; empty for a study that is routine anyway."""
    if level is Level.ROUTINE:
        return ""
    if not listeners:
        return NOBODY
    if record.match.order is None:
        return record.match.note
    return UNKNOWN if record.ordered is None else NOT_RAISED


def _change(
    record: StudyRecord, level: Level, rule: str, at: float, *, result: Any = None, undo: bool = False
) -> PriorityChange:
    return PriorityChange(
        key=uuid.uuid4().hex[:KEY_LENGTH],
        study_instance_uid=record.study.study_instance_uid,
        level=level,
        previous=record.standing_level,
        rule=rule,
        at=at,
        order=record.match.order,
        findings=tuple(Finding(**finding) for finding in result.findings) if result is not None else (),
        undo=undo,
        marking=marking_of(result.training_state) if result is not None else "",
        judged=result is not None,
    )
