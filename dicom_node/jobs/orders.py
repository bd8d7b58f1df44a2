"""Orders as HL7 messages tell them, and which study each one belongs to.

A study has an order only where exactly one can be meant and the patient is the same: nothing moves the wrong study.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import (
    FinalReport,
    Order,
    OrderAction,
    OrderReceived,
    OrderStatus,
    Patient,
    PatientCorrected,
    PatientsMerged,
    ReadingBegun,
    WorklistEvent,
)
from dicom_node.base.types import Level
from dicom_node.jobs.database import Database, portions
from dicom_node.jobs.tables import studies
from dicom_node.jobs.worklist_tables import final_reports, merges, messages, orders
from prima_core.base.patient import patient_key_of, same_patient, surely_same_patient

PAGE = 500
LONGEST_CHAIN = 20  # of merges into merged records; a longer one is no hospital's
ORDERS_LOCK = 0x6F7264657273  # any number that nobody else uses: "orders"
TWO_ORDERS = "several orders are known for this study; it is not certain which is meant"
TWO_STUDIES = "several studies have this order's accession number; it is not certain which is meant"
OTHER_PATIENT = "the order with this study's identifiers is another patient's"
NO_ORDER = "no order is known for this study"
KEYS = ("filler_order_number", "placer_order_number", "accession_number", "study_instance_uid")
ORDER_FIELDS = tuple(field.name for field in fields(Order) if field.name != "patient")
PATIENT_FIELDS = tuple(field.name for field in fields(Patient))
FORWARD = (OrderStatus.SCHEDULED, OrderStatus.IN_PROGRESS, OrderStatus.COMPLETED, OrderStatus.CANCELLED)


@dataclass(frozen=True)
class Match:
    """A study's order, or why there is none."""

    order: Order | None
    note: str = ""


@dataclass(frozen=True)
class KeptMessage:
    """A message that was stored before it was understood. applied: these very bytes took effect before."""

    id: int
    applied: bool


class OrderBook(Database):
    """Messages, orders, patients, final reports."""

    def keep_message(self, content: bytes, digest: str, address: str, at: float) -> KeptMessage:
        """Make a message durable as it came; the same bytes again are the same message.

        One that was refused waits again, and so is kept until it is applied or refused anew.
        """
        made = self._insert(messages).values(
            digest=digest, address=address, content=content, size=len(content), received_at=at
        )
        again = made.on_conflict_do_update(
            index_elements=["digest"], set_={"outcome": None}, where=messages.c.applied_at.is_(None)
        )
        with self._write() as connection:
            connection.execute(again)
            row = connection.execute(sa.select(messages).where(messages.c.digest == digest)).one()
        return KeptMessage(row.id, row.applied_at is not None)

    def note_refusal(self, message: int, reason: str) -> None:
        """Say beside a kept message why it was not applied."""
        with self._write() as connection:
            connection.execute(messages.update().where(messages.c.id == message).values(outcome=reason))

    def _order_pages(self, equal: dict[str, str], scheduled_from: str, scheduled_to: str) -> Iterator[list[Order]]:
        """Orders that are not over, page by page, in the order in which they came.

        equal: columns and the exact value each must have. scheduled_from, scheduled_to: YYYYMMDD, inclusive.
        """
        alive = orders.c.status.in_([OrderStatus.SCHEDULED, OrderStatus.IN_PROGRESS])
        query = sa.select(orders).where(alive, *(orders.c[name] == value for name, value in equal.items()))
        if scheduled_from:
            query = query.where(orders.c.scheduled_at >= scheduled_from)
        if scheduled_to:
            query = query.where(
                orders.c.scheduled_at != "", sa.func.substr(orders.c.scheduled_at, 1, 8) <= scheduled_to
            )
        # Found by state and day, and sorted here: asked for in their order, all that ever came would be looked at.
        ids_behind = query.with_only_columns(orders.c.id)
        last = 0
        while True:  # once more for what came meanwhile
            with self._read() as connection:
                ids = sorted(connection.scalars(ids_behind.where(orders.c.id + 0 > last)))
            if not ids:
                return
            last = ids[-1]
            for begin in range(0, len(ids), PAGE):
                mine = orders.c.id.in_(ids[begin : begin + PAGE])
                with self._read() as connection:
                    rows = connection.execute(query.where(mine).order_by(orders.c.id)).all()
                if rows:
                    yield [order_of_row(row) for row in rows]

    @staticmethod
    def _match(connection: sa.Connection, study: Any) -> Match:
        """The one order that a study was made for."""
        return matches_of(connection, [study])[study.id]

    @staticmethod
    def _is_final(connection: sa.Connection, study: str) -> bool:
        """Whether a final report of the study came."""
        query = sa.select(final_reports.c.id).where(final_reports.c.study_id == study).limit(1)
        return connection.execute(query).first() is not None

    def _apply(self, connection: sa.Connection, message: int, events: Iterable[WorklistEvent], at: float) -> set[str]:
        """What the events of one message do; returns the ids of the studies they touch. Raises PermanentError."""
        touched: set[int] = set()
        for event in events:
            if isinstance(event, OrderReceived):
                touched.add(self._receive(connection, event, at))
            elif isinstance(event, PatientCorrected):
                touched |= self._correct(connection, event.patient, at)
            elif isinstance(event, PatientsMerged):
                touched |= self._merge(connection, event, at)
            elif isinstance(event, ReadingBegun):
                self._begin_reading(connection, event)
            else:
                self._report(connection, message, event)
        connection.execute(messages.update().where(messages.c.id == message).values(applied_at=at, outcome=None))
        return self._studies_of(connection, touched)

    def _receive(self, connection: sa.Connection, event: OrderReceived, at: float) -> int:
        known = self._known(connection, event.order)
        if known is None and event.action is OrderAction.CANCEL:
            raise PermanentError("no order with these identifiers is known, so none can be cancelled")
        values = _columns(event.order)
        if event.action is OrderAction.CANCEL:
            values["status"] = OrderStatus.CANCELLED
        if known is None:
            created = orders.insert().values(received_at=at, updated_at=at, **values).returning(orders.c.id)
            return int(connection.scalar(created) or 0)
        if not self._same_person(connection, order_of_row(known).patient, event.order.patient):
            raise PermanentError("the order with these identifiers is another patient's")
        said = {name: value for name, value in values.items() if value not in ("", None)}
        if said.get("patient_id") in _retired(connection, order_of_row(known).patient):
            said = {name: value for name, value in said.items() if name not in PATIENT_FIELDS}  # a message of long ago
        if event.order.priority_text:
            said["priority"] = event.order.priority  # None, too: what the order says now is not known to the tables
        said["status"] = _later(OrderStatus(known.status), values["status"], event.action)
        connection.execute(orders.update().where(orders.c.id == known.id).values(updated_at=at, **said))
        return int(known.id)

    @staticmethod
    def _known(connection: sa.Connection, order: Order) -> Any:
        """The order that a message means: by the first identifier that finds any. Raises PermanentError for several."""
        for key in KEYS:
            value = getattr(order, key)
            if not value:
                continue
            found = connection.execute(sa.select(orders).where(orders.c[key] == value).with_for_update()).all()
            others = [row for row in found if _agrees(row, order)]
            if len(others) > 1:
                raise PermanentError(
                    f"several orders have this {key.replace('_', ' ')}; it is not certain which is meant"
                )
            if others:
                return others[0]
        return None

    @staticmethod
    def _same_person(connection: sa.Connection, known: Patient, said: Patient) -> bool:
        if known.issuer and said.issuer and known.issuer != said.issuer:
            return False
        if known.patient_id and said.patient_id:
            merged = _retired(connection, said) | _retired(connection, known)
            return known.patient_id == said.patient_id or known.patient_id in merged or said.patient_id in merged
        keys = [patient_key_of("", patient.name, patient.birth_date) for patient in (known, said)]
        return same_patient(*keys)

    @staticmethod
    def _correct(connection: sa.Connection, patient: Patient, at: float) -> set[int]:
        whose = sa.and_(orders.c.patient_id == patient.patient_id, _issuer_is(orders.c.issuer, patient.issuer))
        said = {name: value for name, value in asdict(patient).items() if value}
        rows = connection.execute(orders.update().where(whose).values(updated_at=at, **said).returning(orders.c.id))
        return {row.id for row in rows}

    @staticmethod
    def _merge(connection: sa.Connection, event: PatientsMerged, at: float) -> set[int]:
        survivor, retired = event.survivor, event.retired
        connection.execute(
            merges.insert().values(
                retired_id=retired.patient_id,
                retired_issuer=retired.issuer,
                survivor_id=survivor.patient_id,
                survivor_issuer=survivor.issuer,
                merged_at=at,
            )
        )
        whose = sa.and_(orders.c.patient_id == retired.patient_id, _issuer_is(orders.c.issuer, retired.issuer))
        said = {name: value for name, value in asdict(survivor).items() if value}
        connection.execute(orders.update().where(whose).values(updated_at=at, **said))
        now = sa.and_(orders.c.patient_id == survivor.patient_id, _issuer_is(orders.c.issuer, survivor.issuer))
        return set(connection.scalars(sa.select(orders.c.id).where(now)))  # orders that were the survivor's before, too

    def _report(self, connection: sa.Connection, message: int, event: FinalReport) -> None:
        known, said = self._completed(connection, event.order)
        connection.execute(messages.update().where(messages.c.id == message).values(of_report=True))
        connection.execute(
            final_reports.insert().values(
                message_id=message,
                order_id=known.id if known is not None else None,
                study_id=self._study_reported(connection, said, event.final_at),
                study_instance_uid=said.study_instance_uid,
                accession_number=said.accession_number,
                patient_id=event.order.patient.patient_id,
                text=event.text,
                final_at=event.final_at,
                corrected=event.corrected,
            )
        )

    def _begin_reading(self, connection: sa.Connection, event: ReadingBegun) -> None:
        _, said = self._completed(connection, event.order)
        study = self._study_reported(connection, said, event.at)
        first = sa.and_(studies.c.id == study, studies.c.reading_at.is_(None))
        connection.execute(studies.update().where(first).values(reading_at=event.at))

    def _completed(self, connection: sa.Connection, order: Order) -> tuple[Any, Order]:
        """The known order that a report is of, if there is one of this patient, and the report's with what it says."""
        known = self._known(connection, order)
        if known is None or not self._same_person(connection, order_of_row(known).patient, order.patient):
            return None, order  # kept all the same, but for nobody
        return known, replace(
            order,
            patient=order_of_row(known).patient,
            study_instance_uid=order.study_instance_uid or known.study_instance_uid,
            accession_number=order.accession_number or known.accession_number,
        )

    @staticmethod
    def _study_reported(connection: sa.Connection, order: Order, final_at: float) -> str | None:
        """The one study of this patient that a report is of; None where that is not certain."""
        uid, accession = order.study_instance_uid, order.accession_number
        same = studies.c.study_instance_uid == uid if uid else studies.c.accession_number == accession
        if not uid and not accession:
            return None
        # What was final before the first image came is the report of something else.
        query = sa.select(studies).where(same, studies.c.received_at <= final_at).limit(2)
        found = connection.execute(query).all()
        if len(found) != 1 or (not uid and _shared_numbers(connection, [accession])):
            return None
        [is_same] = _are_patients(connection, [(order.patient, found[0].patient_key)])
        return str(found[0].id) if is_same else None

    def _take(self, connection: sa.Connection, message: int) -> bool:
        """Whether a kept message waits to be applied; from then on no other message is, until this transaction ends."""
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ORDERS_LOCK)))
        return connection.scalar(sa.select(messages.c.applied_at).where(messages.c.id == message)) is None

    @staticmethod
    def _studies_of(connection: sa.Connection, touched: set[int]) -> set[str]:
        found: set[str] = set()
        some = (sa.select(orders).where(orders.c.id.in_(ids)) for ids in portions(sorted(touched)))
        for row in (row for query in some for row in connection.execute(query).all()):
            same = studies.c.study_instance_uid == row.study_instance_uid
            if row.accession_number and not row.study_instance_uid:
                same = studies.c.accession_number == row.accession_number
            found |= set(connection.scalars(sa.select(studies.c.id).where(same)))
        return found


def matches_of(connection: sa.Connection, rows: Sequence[Any]) -> dict[str, Match]:
    """For each study, by its short id, the one order that it was made for; as many queries for all as for one."""
    by_uid = _orders_by(connection, orders.c.study_instance_uid, {row.study_instance_uid for row in rows})
    without = {row.accession_number for row in rows if row.study_instance_uid not in by_uid} - {""}
    by_number = _orders_by(connection, orders.c.accession_number, without, orders.c.study_instance_uid == "")
    shared = _shared_numbers(connection, by_number)
    matches, likely = {}, []
    for row in rows:
        own = by_uid.get(row.study_instance_uid)
        found = own or by_number.get(row.accession_number, [])
        if len(found) > 1:
            matches[row.id] = Match(None, TWO_ORDERS)
        elif not found:
            matches[row.id] = Match(None, NO_ORDER)
        elif own is None and row.accession_number in shared:
            matches[row.id] = Match(None, TWO_STUDIES)
        else:
            likely.append((row, order_of_row(found[0])))
    same = _are_patients(connection, [(order.patient, row.patient_key) for row, order in likely])
    for (row, order), is_same in zip(likely, same, strict=True):
        matches[row.id] = Match(order) if is_same else Match(None, OTHER_PATIENT)
    return matches


def _orders_by(
    connection: sa.Connection, column: sa.Column[str], values: Collection[str], *also: sa.ColumnElement[bool]
) -> dict[str, list[Any]]:
    """Rows of orders that were not cancelled, by the value of the column."""
    found: dict[str, list[Any]] = defaultdict(list)
    if values:
        alive = orders.c.status != OrderStatus.CANCELLED
        for row in connection.execute(sa.select(orders).where(column.in_(values), alive, *also)):
            found[getattr(row, column.name)].append(row)
    return dict(found)


def _shared_numbers(connection: sa.Connection, accession_numbers: Collection[str]) -> set[str]:
    """Those of the accession numbers that several studies have."""
    if not accession_numbers:
        return set()
    query = sa.select(studies.c.accession_number).where(studies.c.accession_number.in_(accession_numbers))
    query = query.group_by(studies.c.accession_number).having(sa.func.count() > 1)
    return set(connection.scalars(query))


def _are_patients(connection: sa.Connection, pairs: Sequence[tuple[Patient, str]]) -> list[bool]:
    """For each patient and study's key: whether its images can be theirs, under any ID merged into the present one."""
    same = [_is_patient(patient, {patient.patient_id}, key) for patient, key in pairs]
    retired = _all_retired(connection, {patient for (patient, _), sure in zip(pairs, same, strict=True) if not sure})
    return [
        sure or _is_patient(patient, retired[patient], key) for (patient, key), sure in zip(pairs, same, strict=True)
    ]


def _is_patient(patient: Patient, ids: Collection[str], study_key: str) -> bool:
    keys = (patient_key_of(one, patient.name, patient.birth_date) for one in ids)
    return any(surely_same_patient(key, study_key) for key in keys)


def _retired(connection: sa.Connection, patient: Patient) -> set[str]:
    """IDs that were merged into this patient's."""
    return _all_retired(connection, [patient])[patient]


def _all_retired(connection: sa.Connection, patients: Collection[Patient]) -> dict[Patient, set[str]]:
    """For each patient the IDs that were merged into theirs, at most so many steps ago."""
    found: dict[Patient, set[str]] = {patient: set() for patient in patients}
    ask = {patient: {patient.patient_id} for patient in patients}
    for _ in range(LONGEST_CHAIN):
        if not ask:
            break
        into: dict[str, list[Any]] = defaultdict(list)
        for row in connection.execute(sa.select(merges).where(merges.c.survivor_id.in_(set().union(*ask.values())))):
            into[row.survivor_id].append(row)
        for patient, ids in list(ask.items()):
            merged = {row.retired_id for one in ids for row in into[one] if row.survivor_issuer in ("", patient.issuer)}
            ask[patient] = merged - found[patient] - {patient.patient_id}
            found[patient] |= ask[patient]
        ask = {patient: ids for patient, ids in ask.items() if ids}
    return found


def order_of_row(row: Any) -> Order:
    """The value of a row of `orders`."""
    values = {name: getattr(row, name) for name in ORDER_FIELDS}
    values["priority"] = Level(row.priority) if row.priority else None
    values["status"] = OrderStatus(row.status)
    return Order(Patient(**{name: getattr(row, name) for name in PATIENT_FIELDS}), **values)


def order_to_json(order: Order) -> dict[str, Any]:
    """An order as the registry keeps it beside a change."""
    return asdict(order)


def order_from_json(kept: dict[str, Any]) -> Order:
    """The order that `order_to_json` kept."""
    values = dict(kept)
    values["patient"] = Patient(**values["patient"])
    values["priority"] = Level(values["priority"]) if values["priority"] else None
    values["status"] = OrderStatus(values["status"])
    return Order(**values)


def _columns(order: Order) -> dict[str, Any]:
    values = asdict(order)
    patient: dict[str, Any] = values.pop("patient")
    return patient | values


def _agrees(row: Any, order: Order) -> bool:
    """Whether an order that shares one identifier contradicts no other."""
    pairs = [(getattr(row, key), getattr(order, key)) for key in ("filler_order_number", "placer_order_number")]
    return all(not known or not said or known == said for known, said in pairs)


def _issuer_is(column: sa.ColumnElement[str], issuer: str) -> sa.ColumnElement[bool]:
    """Two hospitals may give the same ID: what names no issuer means only those without one."""
    return column.in_(["", issuer])


def _later(known: OrderStatus, said: OrderStatus, action: OrderAction) -> OrderStatus:
    """An order goes forward; only one that is placed anew begins again."""
    if action is OrderAction.NEW:
        return said
    return max(known, said, key=FORWARD.index)
