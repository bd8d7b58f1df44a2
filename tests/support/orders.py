"""Orders, results and messages for tests of the worklist, all about one made-up patient unless told otherwise."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from dicom_node.base.orders import (
    Handover,
    Listener,
    Order,
    OrderAction,
    OrderReceived,
    Patient,
    WorklistEvent,
)
from dicom_node.base.types import Level, Priority, study_id
from dicom_node.jobs.registry import Registry
from prima_core.base.patient import patient_key_of
from support.studies import MODEL, arrival, report

UID = "1.2.3"
STUDY = study_id(UID)
ACCESSION = "A1"
PATIENT = Patient("P1", name="Doe^Jane", birth_date="19700101", sex="F")
KEY = patient_key_of(PATIENT.patient_id, PATIENT.name, PATIENT.birth_date)
RIS = Listener("ris", "hl7")
MANAGER = Listener("manager", "ups")
LEASE_SECONDS = 3600.0


def order(**changes: Any) -> Order:
    """A routine order of the study's accession number."""
    known = Order(
        PATIENT,
        accession_number=ACCESSION,
        placer_order_number="PL1",
        filler_order_number="FI1",
        code_value="MRHEAD",
        code_meaning="MR head",
        code_scheme="L",
        priority=Level.ROUTINE,
        priority_text="R",
    )
    return replace(known, **changes)


def placed(one: Order | None = None, action: OrderAction = OrderAction.NEW) -> OrderReceived:
    """The message that brings an order."""
    return OrderReceived(one or order(), action, "NW")


def tell(registry: Registry, *events: WorklistEvent, at: float = 50.0, nonclinical: bool = False) -> None:
    """Apply one message with these events."""
    content = repr((events, at)).encode()
    kept = registry.keep_message(content, hashlib.sha256(content).hexdigest(), "127.0.0.1", at)
    registry.apply_message(kept.id, events, at, nonclinical=nonclinical)


def receive(registry: Registry, uid: str = UID, *, at: float = 100.0, accession: str = ACCESSION, **more: Any) -> None:
    """One image of a study of the patient, and the study closed."""
    number = int(at * 1000)
    registry.record_arrivals(
        [arrival(number, study=uid, at=at, accession_number=accession, **({"patient_key": KEY} | more))]
    )
    registry.close_quiet(at, 0, at)


def finish(
    registry: Registry,
    uid: str = UID,
    *,
    level: Level = Level.URGENT,
    told: tuple[Listener, ...] = (RIS,),
    at: float = 200.0,
    training_state: str = "clinical",
    nonclinical: bool = False,
) -> None:
    """The result of the study that waits."""
    claim = registry.claim("w", at + LEASE_SECONDS, at)
    assert claim is not None
    made = replace(
        report(uid, claim.revision),
        sop_instance_uid=f"2.25.{claim.revision}.{uid}",
        priority=Priority(level, f"priority head: high → {level}"),
        model=replace(MODEL, training_state=training_state),
    )
    registry.finish_reported(claim, made, Handover(told=told, nonclinical=nonclinical), at)
