"""The registry's tables of orders and reading priorities. Times are seconds since the epoch (UTC).

A `change` is a reading priority that destinations are told; its deliveries are rows of `tables.deliveries`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
)

from dicom_node.jobs.tables import metadata

__all__ = ["changes", "final_reports", "merges", "messages", "metadata", "orders"]

# Every HL7 message as it came, before it is understood. outcome: empty once applied, else why it was refused.
# of_report: a final report came in it.
messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("address", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("received_at", Float, nullable=False, index=True),
    Column("applied_at", Float),
    Column("outcome", Text),
    Column("of_report", Boolean, nullable=False, server_default=false()),
    Index("ix_messages_outdated", "of_report", "received_at", "size"),
)

# An order as its messages tell it, field by field `base.orders.Order` and its `Patient`.
orders = Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("patient_id", String(200), nullable=False, index=True),
    Column("issuer", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("birth_date", String(8), nullable=False),
    Column("sex", String(1), nullable=False),
    Column("accession_number", String(200), nullable=False, index=True),
    Column("placer_order_number", String(200), nullable=False, index=True),
    Column("filler_order_number", String(200), nullable=False, index=True),
    Column("study_instance_uid", String(200), nullable=False, index=True),
    Column("requested_procedure_id", String(200), nullable=False),
    Column("scheduled_step_id", String(200), nullable=False),
    Column("code_value", Text, nullable=False),
    Column("code_meaning", Text, nullable=False),
    Column("code_scheme", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("station_ae", Text, nullable=False),
    Column("scheduled_at", String(32), nullable=False, index=True),
    Column("patient_class", Text, nullable=False),
    Column("referring_physician", Text, nullable=False),
    Column("requesting_physician", Text, nullable=False),
    Column("priority", String(16)),
    Column("priority_text", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False, index=True),
    Index("ix_orders_status_scheduled_at", "status", "scheduled_at"),
)

# Two patient records that are one person (ADT^A40).
merges = Table(
    "merges",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("retired_id", String(200), nullable=False, index=True),
    Column("retired_issuer", Text, nullable=False),
    Column("survivor_id", String(200), nullable=False, index=True),
    Column("survivor_issuer", Text, nullable=False),
    Column("merged_at", Float, nullable=False, index=True),
)

final_reports = Table(
    "final_reports",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("message_id", Integer, ForeignKey("messages.id"), nullable=False, index=True),
    Column("order_id", Integer, ForeignKey("orders.id"), index=True),
    Column("study_id", String(32), ForeignKey("studies.id"), index=True),
    Column("study_instance_uid", String(200), nullable=False, index=True),
    Column("accession_number", String(200), nullable=False, index=True),
    Column("patient_id", String(200), nullable=False),
    Column("text", Text, nullable=False),
    Column("final_at", Float, nullable=False),
    Column("corrected", Boolean, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(20), nullable=False, unique=True),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False),
    Column("result_id", Integer, ForeignKey("results.id")),
    Column("undoes", Integer, ForeignKey("changes.id"), unique=True),
    Column("source", String(8), nullable=False),
    Column("level", String(16), nullable=False),
    Column("previous", String(16)),
    Column("rule", Text, nullable=False),
    Column("marking", Text, nullable=False),
    Column("nonclinical", Boolean, nullable=False),
    Column("findings", JSON, nullable=False),
    Column("order", JSON),
    Column("at", Float, nullable=False),
    Column("last_image_at", Float, nullable=False),
    Column("acknowledged_at", Float),
    Index("ix_changes_study_id", "study_id"),
    Index("ix_changes_at", "at"),
)

# Unified Procedure Steps, see `base.workitems.Workitem`. started_at: when its performer claimed it. changed_at: when
# anybody changed it last.
workitems = Table(
    "workitems",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("priority", String(16), nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    Column("transaction_uid", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("study_instance_uid", String(64), unique=True),
    Column("written", LargeBinary),
    Column("started_at", Float),
    Column("created_by", String(16), nullable=False, server_default=""),
    Column("changed_at", Float, nullable=False, server_default="0"),
    Index("ix_workitems_created_by_state", "created_by", "state"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("sop_instance_uid", String(64), ForeignKey("workitems.sop_instance_uid"), primary_key=True),
    Column("ae_title", String(16), primary_key=True, index=True),
    Column("deletion_lock", Boolean, nullable=False),
)

global_subscriptions = Table(
    "global_subscriptions",
    metadata,
    Column("ae_title", String(16), primary_key=True),
    Column("deletion_lock", Boolean, nullable=False),
    Column("filter", LargeBinary),
)

# UPS events that wait to be sent, each to one receiver and in the order of their ids. owner: who sends it now, until
# lease_until.
ups_events = Table(
    "ups_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("receiver", String(16), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False, index=True),
    Column("type", Integer, nullable=False),
    Column("information", LargeBinary, nullable=False),
    Column("next_attempt_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", Float),
    Index("ix_ups_events_receiver_id", "receiver", "id"),
    sqlite_autoincrement=True,  # no number ever means another event
)
