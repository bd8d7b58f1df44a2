"""The registry's tables; those of the worklist are in `worklist_tables.py`. Only the registry reads or writes them.

A delivery takes one object of a result, or one change of a reading priority, to one destination. level: what this
destination is told, where that is not the change's level; previous: what it had before, as far as that is known.
A result's rejection note is a delivery of kind `reject`.

A result's withdrawal: when, as which `Rejection`, why in words; withdrawal_due: something of it is still to be done.
rejected_at, rejection: when and why the archive rejected the report itself.
cleaned_at: since when a file, or all files of a study, are deleted by retention; cleaning_due: its rows and files may
not agree yet.
stores: C-STOREs that the destination answered with success and has to commit to; questions: how often it was to be
asked since the last; failed_commitments: how often it did not commit, since a person looked last.

Times are seconds since the epoch (UTC). Every change of a study's state is also a row in `events`.
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
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

studies = Table(
    "studies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, unique=True),
    Column("patient_key", String(200), nullable=False, default=""),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("partial_reason", Text),
    Column("set_aside", JSON, nullable=False, default=list),
    Column("revision", Integer, nullable=False, default=1),
    Column("urgent", Boolean, nullable=False, default=False),
    Column("received_at", Float, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("last_arrival_at", Float, nullable=False),
    Column("accession_number", String(64), nullable=False, default="", index=True),
    Column("reading_at", Float),
    Column("completed_at", Float),
    Column("finished_at", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", Float),
    Column("owner", String(64)),
    Column("lease_until", Float),
    Column("cleaned_at", Float),
    Column("cleaning_due", Boolean, nullable=False, server_default=false(), index=True),
    Index("ix_studies_queue", "state", "urgent", "completed_at"),
    Index("ix_studies_received_at", "received_at"),
    Index("ix_studies_last_arrival_at", "last_arrival_at"),
)
# What retention looks through again and again: small however many studies there are.
Index(
    "ix_studies_with_files",
    studies.c.finished_at,
    sqlite_where=studies.c.cleaned_at.is_(None),
    postgresql_where=studies.c.cleaned_at.is_(None),
)

instances = Table(
    "instances",
    metadata,
    Column("path", String(200), primary_key=True),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("patient_key", String(200), nullable=False),
    Column("accession_number", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("association_id", String(64), index=True),
    Column("image", Boolean, nullable=False),
    Column("standing", String(16), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("issuer", String(32), nullable=False, server_default=""),
    Column("cleaned_at", Float),
    Index("ix_instances_study_id_standing", "study_id", "standing"),
    Index("ix_instances_standing_sop_class_uid", "standing", "sop_class_uid"),
)

associations = Table(
    "associations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("boot_id", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Index("ix_associations_closed_at", "closed_at"),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("series_instance_uid", String(64), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("path", String(200), nullable=False),
    Column("level", String(16), nullable=False),
    Column("rule", Text, nullable=False),
    Column("priority_output", Text, nullable=False, default=""),
    Column("findings", JSON, nullable=False),
    Column("told", JSON, nullable=False, default=list),
    Column("bundle_id", String(200), nullable=False),
    Column("device_uid", String(64), nullable=False),
    Column("training_state", String(16), nullable=False),
    Column("precision", String(8), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("withdrawn_at", Float),
    Column("withdrawn_as", String(8)),
    Column("withdrawn_reason", Text),
    Column("withdrawal_due", Boolean, nullable=False, default=False, server_default=false(), index=True),
    Column("rejected_at", Float),
    Column("rejection", String(8)),
    UniqueConstraint("study_id", "revision"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_id", Integer, ForeignKey("results.id")),
    Column("change_id", Integer, ForeignKey("changes.id")),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("path", String(200)),
    Column("level", String(16)),
    Column("previous", String(16)),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", Float, nullable=False),
    Column("last_error", Text),
    Column("owner", String(64)),
    Column("lease_until", Float),
    Column("delivered_at", Float),
    Column("stores", Integer, nullable=False, default=0),
    Column("questions", Integer, nullable=False, default=0),
    Column("failed_commitments", Integer, nullable=False, default=0),
    UniqueConstraint("result_id", "destination", "kind", "path"),
    UniqueConstraint("change_id", "destination"),
    Index("ix_deliveries_due", "state", "destination", "next_attempt_at"),
    Index("ix_deliveries_study_id", "study_id"),
)

# One request for storage commitment (PS3.4 annex J), written before it is sent. store: which of the delivery's stores
# it is about. taken: the peer accepted the request. failure: what the answer said, where that was not success.
commitments = Table(
    "commitments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False, unique=True),
    Column("delivery_id", Integer, ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("store", Integer, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("taken", Boolean, nullable=False, default=False),
    Column("answered_at", Float),
    Column("failure", Text),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("from_state", String(16)),
    Column("to_state", String(16), nullable=False),
    Column("reason", Text),
)

# Every Key Object Selection that was examined. rejection: what it rejects as, empty where it is no rejection. outcome:
# why it, or a part of it, has no effect, else empty. due: files of what it names are still to be deleted.
rejection_notes = Table(
    "rejection_notes",
    metadata,
    Column("path", String(200), ForeignKey("instances.path"), primary_key=True),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False, index=True),
    Column("patient_key", String(200), nullable=False),
    Column("rejection", String(8), nullable=False),
    Column("outcome", Text, nullable=False),
    Column("due", Boolean, nullable=False, default=False, index=True),
    Column("examined_at", Float, nullable=False),
)

# What the notes name in the study that they are of.
rejected_objects = Table(
    "rejected_objects",
    metadata,
    Column("note", String(200), ForeignKey("rejection_notes.path"), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True, index=True),
)

# Every bundle the node was told of. role: what it is to be, where it is one of `ModelRole`; since: from when on.
# loaded_as: what the worker has loaded it as. faults: tries in a row that failed. problem: why it is not in use.
models = Table(
    "models",
    metadata,
    Column("bundle_id", String(200), primary_key=True),
    Column("path", Text, nullable=False),
    Column("device_uid", String(64), nullable=False),
    Column("training_state", String(16), nullable=False),
    Column("role", String(16)),
    Column("since", Float),
    Column("loaded_as", String(16)),
    Column("faults", Integer, nullable=False, default=0),
    Column("problem", Text),
)

# Who changed which bundle is in use, and why. evaluation: SHA-256 of the evaluation record that allowed it.
model_changes = Table(
    "model_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("action", String(16), nullable=False),
    Column("bundle_id", String(200), ForeignKey("models.bundle_id"), nullable=False),
    Column("previous", String(200), ForeignKey("models.bundle_id")),
    Column("who", String(200), nullable=False),
    Column("forced", Boolean, nullable=False, default=False),
    Column("reason", Text),
    Column("evaluation", String(64)),
)

# What a bundle said of a revision of a study: of the active one beside its result, of a shadow alone. failure: why the
# shadow said nothing.
predictions = Table(
    "predictions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", String(32), ForeignKey("studies.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("bundle_id", String(200), nullable=False, index=True),
    Column("shadow", Boolean, nullable=False),
    Column("logits", JSON, nullable=False, default=dict),
    Column("level", String(16)),
    Column("precision", String(8)),
    Column("seconds", Float),
    Column("failure", Text),
    Column("created_at", Float, nullable=False, index=True),
    UniqueConstraint("study_id", "revision", "bundle_id"),
)

# Study embeddings, float32 little-endian. encoder: the part of a bundle that made them; heads may differ.
study_embeddings = Table(
    "study_embeddings",
    metadata,
    Column("study_id", String(32), ForeignKey("studies.id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("encoder", String(64), primary_key=True),
    Column("embedding", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False, index=True),
)

# What is to be explained, or was, of a result. report_uid: of the explained report, where one was made. document: per
# finding and series, what was found. note: why there is nothing, or not all. owner: who works on it until lease_until.
explanations = Table(
    "explanations",
    metadata,
    Column("result_id", Integer, ForeignKey("results.id"), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False, default=0),
    Column("report_uid", String(64)),
    Column("document", JSON, nullable=False, default=list),
    Column("note", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("owner", String(64)),
    Column("lease_until", Float),
)

# Where a result came from. document: all but the images, see `dicom_node.provenance`. images: packed, see
# `jobs.provenance`.
provenance = Table(
    "provenance",
    metadata,
    Column("result_id", Integer, ForeignKey("results.id"), primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
    Column("images", LargeBinary, nullable=False),
    Column("recorded_at", Float, nullable=False),
)

processes = Table(
    "processes",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("beat_at", Float, nullable=False),
    Column("status", String(64), nullable=False),
)

# One row: the storage folder that this database describes.
storage = Table(
    "storage",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("storage_id", String(64), nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("since", Float, nullable=False),
)
