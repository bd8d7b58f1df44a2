"""A registry as years leave it: filled by SQL alone, rows as the node would have written them.

How to use:

    fill(registry, 1_000_000)          # so many studies, each with what belongs to it; a minute on SQLite
    steady_state(registry, folder)     # what the node asks and writes from second to second, by its own code

All studies but the last few are delivered, their orders are over and reported, their flags acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.disk import reserve_of
from dicom_node.base.errors import LostClaim
from dicom_node.base.orders import FinalReport
from dicom_node.base.types import ModelIdentity, study_id
from dicom_node.cleaning import Cleaning
from dicom_node.console.health import health_problems
from dicom_node.console.metrics import NodeMetrics
from dicom_node.corrections import Corrections
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.scheduler import Housekeeping
from support.orders import finish, order, placed, receive, tell
from support.studies import arrival

YEARS_SECONDS = 5 * 365 * 86400.0
NOW = time.time()
HEAD = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
UID = "'1.9.' || n.i"
STUDY = "'s' || n.i"
AT = "(:now - :years + n.i * (:years - 864000.0) / :count)"
PATIENT = "'P' || (n.i % 50000)"

#: Table → columns and their values in SQL, of the n.i-th study.
ROWS: dict[str, dict[str, str]] = {
    "studies": {
        "id": STUDY,
        "study_instance_uid": UID,
        "patient_key": f"{PATIENT} || '::'",
        "state": "CASE WHEN n.i % 10 = 0 THEN 'out_of_scope' WHEN n.i % 997 = 0 THEN 'dead' ELSE 'delivered' END",
        "set_aside": "'[]'",
        "revision": "1",
        "urgent": "FALSE",
        "received_at": AT,
        "opened_at": AT,
        "last_arrival_at": AT,
        "accession_number": "'A' || n.i",
        "completed_at": AT,
        "finished_at": AT,
        "attempts": "1",
        "cleaned_at": f"CASE WHEN n.i < :count / 2 THEN {AT} END",
        "cleaning_due": "FALSE",
        "reading_at": AT,
    },
    "associations": {
        "id": "'a' || n.i",
        "boot_id": "'b' || (n.i / 1000)",
        "calling_ae": "'PACS'",
        "address": "'10.0.0.1'",
        "opened_at": AT,
        "closed_at": AT,
    },
    "instances": {
        "path": f"{STUDY} || '/1.dcm'",
        "study_id": STUDY,
        "sop_instance_uid": f"{UID} || '.1.1'",
        "series_instance_uid": f"{UID} || '.1'",
        "sop_class_uid": "'1.2.840.10008.5.1.4.1.1.4'",
        "transfer_syntax_uid": "'1.2.840.10008.1.2.1'",
        "patient_key": f"{PATIENT} || '::'",
        "accession_number": "'A' || n.i",
        "digest": "'d'",
        "size": "100000",
        "calling_ae": "'PACS'",
        "association_id": "'a' || n.i",
        "image": "TRUE",
        "standing": "CASE WHEN n.i % 50 = 0 THEN 'duplicate' WHEN n.i % 20 = 0 THEN 'other' ELSE 'current' END",
        "received_at": AT,
        "issuer": "''",
    },
    "results": {
        "id": "n.i",
        "study_id": STUDY,
        "revision": "1",
        "sop_instance_uid": "'2.25.1' || n.i",
        "series_instance_uid": "'2.25.2' || n.i",
        "sop_class_uid": "'1.2.840.10008.5.1.4.1.1.88.34'",
        "path": "n.i || '.dcm'",
        "level": "'urgent'",
        "rule": "'rule'",
        "priority_output": "'high'",
        "findings": "'[]'",
        "told": "'[]'",
        "bundle_id": "'bundle'",
        "device_uid": "'2.25.1'",
        "training_state": "'clinical'",
        "precision": "'fp32'",
        "created_at": AT,
        "withdrawal_due": "FALSE",
    },
    "changes": {
        "id": "n.i",
        "key": "'k' || n.i",
        "study_id": STUDY,
        "result_id": "n.i",
        "source": "'model'",
        "level": "'urgent'",
        "rule": "'rule'",
        "marking": "''",
        "nonclinical": "FALSE",
        "findings": "'[]'",
        "at": AT,
        "last_image_at": AT,
        "acknowledged_at": f"{AT} + 30",
    },
    "events": {
        "id": "n.i",
        "study_id": STUDY,
        "at": AT,
        "revision": "1",
        "from_state": "'reported'",
        "to_state": "'delivered'",
    },
    "predictions": {
        "id": "n.i",
        "study_id": STUDY,
        "revision": "1",
        "bundle_id": "'bundle'",
        "shadow": "FALSE",
        "logits": "'{}'",
        "created_at": AT,
    },
    "explanations": {
        "result_id": "n.i",
        "state": "'done'",
        "attempts": "1",
        "document": "'[]'",
        "created_at": AT,
    },
    "messages": {
        "id": "n.i",
        "digest": "'m' || n.i",
        "address": "'10.0.0.2'",
        "content": ":message",
        "size": "10",
        "received_at": AT,
        "applied_at": AT,
        "of_report": "TRUE",
    },
    "orders": {
        "id": "n.i",
        "patient_id": PATIENT,
        "accession_number": "'A' || n.i",
        "placer_order_number": "'PL' || n.i",
        "filler_order_number": "'FI' || n.i",
        "study_instance_uid": UID,
        "scheduled_at": "'20200101'",
        "priority": "'routine'",
        "status": "'completed'",
        "received_at": AT,
        "updated_at": AT,
        **dict.fromkeys(
            (
                "issuer",
                "name",
                "birth_date",
                "sex",
                "requested_procedure_id",
                "scheduled_step_id",
                "code_value",
                "code_meaning",
                "code_scheme",
                "modality",
                "station_ae",
                "patient_class",
                "referring_physician",
                "requesting_physician",
                "priority_text",
            ),
            "''",
        ),
    },
    "final_reports": {
        "id": "n.i",
        "message_id": "n.i",
        "order_id": "n.i",
        "study_id": STUDY,
        "study_instance_uid": UID,
        "accession_number": "'A' || n.i",
        "patient_id": PATIENT,
        "text": "''",
        "final_at": f"{AT} + 3600",
        "corrected": "FALSE",
    },
    "merges": {
        "id": "n.i",
        "retired_id": "'R' || n.i",
        "retired_issuer": "''",
        "survivor_id": PATIENT,
        "survivor_issuer": "''",
        "merged_at": AT,
    },
}
OF_A_DELIVERY = {
    "study_id": STUDY,
    "state": "'delivered'",
    "attempts": "1",
    "next_attempt_at": AT,
    "delivered_at": AT,
    "stores": "1",
    "questions": "1",
    "failed_commitments": "0",
}
#: The report's delivery, and the flag's.
DELIVERIES = (
    {"id": "2 * n.i", "result_id": "n.i", "destination": "'pacs'", "kind": "'sr'", "path": "'p'"} | OF_A_DELIVERY,
    {"id": "2 * n.i + 1", "change_id": "n.i", "destination": "'ris'", "kind": "'hl7'"} | OF_A_DELIVERY,
)
COMMITMENTS = {
    "id": "n.i",
    "transaction_uid": "'2.25.3' || n.i",
    "delivery_id": "2 * n.i",
    "sop_instance_uid": "'2.25.1' || n.i",
    "store": "1",
    "asked_at": AT,
    "taken": "TRUE",
    "answered_at": AT,
}
GROWING = frozenset({*ROWS, "deliveries", "commitments", "provenance", "study_embeddings"})


def fill(registry: Registry, count: int) -> None:
    """So many studies with all that belongs to them."""
    inserts = [*ROWS.items(), *(("deliveries", one) for one in DELIVERIES), ("commitments", COMMITMENTS)]
    with registry._write() as connection:
        for table, columns in inserts:
            values = f"SELECT {', '.join(columns.values())} FROM n"
            names = ", ".join(f'"{name}"' for name in columns)
            head = HEAD if connection.dialect.name == "sqlite" else ""
            source = values if head else values.replace(" FROM n", " FROM generate_series(1, :count) AS n(i)")
            text = f"INSERT INTO {table} ({names}) {head}{source}"
            known = {"count": count, "now": NOW, "years": YEARS_SECONDS, "message": b"MSH"}
            used = {name: value for name, value in known.items() if f":{name}" in text}
            connection.execute(sa.text(text), used)
        if connection.dialect.name == "postgresql":  # what was inserted by hand took no number
            for table in (
                "results",
                "changes",
                "events",
                "predictions",
                "messages",
                "orders",
                "final_reports",
                "merges",
            ):
                connection.execute(sa.text(f"SELECT setval('{table}_id_seq', {count + 1})"))
            for table in ("deliveries", "commitments"):
                connection.execute(sa.text(f"SELECT setval('{table}_id_seq', {2 * count + 2})"))


def configuration_for(folder: Path) -> Configuration:
    """With every job that looks through the registry switched on."""
    (folder / "spool").mkdir(parents=True, exist_ok=True)
    return configuration_from(
        {
            "node": {"storage": str(folder)},
            "retention": {"keep_days": 3650},
            "destinations": [
                {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "storage_commitment": True},
                {"name": "ris", "kind": "hl7", "host": "127.0.0.1", "port": 1},
            ],
        },
        folder,
    )


def steady_state(registry: Registry, folder: Path, number: int = 1) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the node does from second to second, each by the node's own code; to be called in this order.

    number: another one for each round on the same registry.
    """
    configuration = configuration_for(folder)
    uid, accession, at = f"1.8.{number}", f"B{number}", NOW + 1000 * number
    study = study_id(uid)
    jobs = Housekeeping(configuration, registry, lambda pairs: [None] * len(pairs), Pulse())
    corrections = Corrections(configuration, registry, lambda paths: [(True, None)] * len(paths))
    cleaning = Cleaning(configuration, registry)
    metrics = NodeMetrics(registry, folder, configuration.worklist, 0)
    wanted = order(accession_number=accession, placer_order_number=f"PB{number}", filler_order_number=f"FB{number}")
    association = f"x{number}"

    def flow() -> None:
        """From the order to the delivered report and its flag."""
        tell(registry, placed(wanted), at=at)
        registry.open_association(association, "boot", "PACS", "10.0.0.1", at)
        receive(registry, uid, at=at, accession=accession, association_id=association)
        registry.record_arrivals([arrival(int(at * 1000), study=uid, at=at, accession_number=accession)])
        registry.record_arrivals([arrival(int(at * 1000), study=uid, at=at, content="other")])
        registry.close_association(association, at)
        registry.close_quiet(at, at, at)

    def result() -> None:
        for path, first in registry.disputed():
            registry.verdict_without_file(first, path)
        finish(registry, uid, at=at + 700)
        registry.renew("w", [study], at)

    def deliver(name: str) -> None:
        delivery = registry.claim_delivery("o", name, at + 3600, at + 800)
        if delivery is None:
            return
        registry.postpone(delivery, "busy", at + 801)
        again = registry.claim_delivery("o", name, at + 3600, at + 802)
        if again is None or name != "pacs":
            if again is not None:
                registry.delivered(again, at + 803)
            return
        registry.stored(again, at + 803)
        asking = registry.claim_delivery("o", name, at + 3600, at + 804)
        if asking is None:
            raise LostClaim("nothing to ask")
        registry.ask(asking, f"2.25.9{number}", "2.25.1", at + 804)
        registry.taken(f"2.25.9{number}")
        registry.asked(asking, at + 900)
        registry.commitment(f"2.25.9{number}")
        registry.committed(f"2.25.9{number}", at + 805)

    yield "an order, an image, a duplicate and a disputed one", flow
    yield "claim and result", result
    yield "deliveries due", lambda: [deliver(name) for name in ("pacs", "ris")]
    yield "final report", lambda: tell(registry, FinalReport(wanted, "normal", at + 900), at=at + 900)
    yield "close quiet studies", jobs.close_quiet_studies
    yield "settle disputes", jobs.settle_disputes
    yield "reclaim lost studies", jobs.reclaim_lost_studies
    yield "delete outdated", lambda: registry.prune(jobs._retention(at))
    yield "examine rejection notes", corrections.examine_notes
    yield "complete withdrawals", corrections.complete_withdrawals
    yield "delete expired files", corrections.delete_expired
    yield "retention, nothing due", cleaning.clean
    yield "retention, one study", lambda: registry.begin_cleaning(at, at)
    yield "worker looks for work", lambda: [registry.claim("w", at, at, untried=one) for one in (True, False)]
    yield "worker in spare time", lambda: _spare(registry, at)
    yield "health", lambda: health_problems(registry, time.time(), reserve_of(configuration))
    yield "metrics, first", lambda: list(metrics.collect())
    yield "metrics, again", lambda: list(metrics.collect())
    yield "reading list (console's first page)", lambda: registry.worklist(at - 3 * 86400, nonclinical=False)
    yield "modality worklist, one patient", lambda: _consume(registry, {"patient_id": "P1"}, at)
    yield "modality worklist, today", lambda: _consume(registry, {}, at)
    yield (
        "work items",
        lambda: [registry.readings_begun(), registry.own_workitems([uid]), registry.backgrounds([study])],
    )
    yield "work item limits", lambda: registry.open_workitems("AE")
    yield "one study for a person", lambda: [registry.study(uid), registry.history(study), registry.standings(study)]
    yield "the newest studies for a person", lambda: registry.studies(limit=100)
    yield "the queue for a person", registry.queue


def _consume(registry: Registry, equal: dict[str, str], at: float) -> None:
    day = time.strftime("%Y%m%d", time.localtime(at))
    list(registry.orders(equal=equal, scheduled_from=day, scheduled_to=day, nonclinical=False))


def _spare(registry: Registry, at: float) -> None:
    registry.model_generation()
    registry.explanation_waits()
    registry.study_waits(at)
    registry.claim_explanation("e", at, at)
    registry.know_model(ModelIdentity("other", "other", "1", "2.25.2", "clinical"), Path("other"))
    registry.owed_to_shadow("other", at - 100, 0)
    registry.drop_embeddings(0.0)
    registry.chosen_models()
