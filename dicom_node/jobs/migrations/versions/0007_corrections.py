"""corrections of patient, order and labels; rejection notes; withdrawn results"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BEFORE = "uq_deliveries_result_id_destination_kind"
AFTER = "uq_deliveries_result_id_destination_kind_path"
# What was only noted as a correction of an image in use is compared once more, and takes its place.
JUDGE_AGAIN = """
UPDATE instances SET standing = 'disputed' WHERE standing = 'correction' AND EXISTS (
    SELECT 1 FROM instances AS first WHERE first.sop_instance_uid = instances.sop_instance_uid
    AND first.study_id = instances.study_id AND first.standing IN ('current', 'other'))
"""


def upgrade() -> None:
    op.add_column("instances", sa.Column("issuer", sa.String(length=32), nullable=False, server_default=""))
    op.add_column("results", sa.Column("withdrawn_at", sa.Float(), nullable=True))
    op.add_column("results", sa.Column("withdrawn_as", sa.String(length=8), nullable=True))
    op.add_column("results", sa.Column("withdrawn_reason", sa.Text(), nullable=True))
    op.add_column("results", sa.Column("withdrawal_due", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("results", sa.Column("rejected_at", sa.Float(), nullable=True))
    op.add_column("results", sa.Column("rejection", sa.String(length=8), nullable=True))
    op.create_index("ix_results_withdrawal_due", "results", ["withdrawal_due"])
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(BEFORE), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(AFTER), ["result_id", "destination", "kind", "path"])
    op.create_table(
        "rejection_notes",
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("patient_key", sa.String(length=200), nullable=False),
        sa.Column("rejection", sa.String(length=8), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("due", sa.Boolean(), nullable=False),
        sa.Column("examined_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["path"], ["instances.path"], name=op.f("fk_rejection_notes_path")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_rejection_notes_study_id")),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_rejection_notes")),
    )
    op.create_index("ix_rejection_notes_study_id", "rejection_notes", ["study_id"])
    op.create_index("ix_rejection_notes_due", "rejection_notes", ["due"])
    op.create_table(
        "rejected_objects",
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["note"], ["rejection_notes.path"], name=op.f("fk_rejected_objects_note")),
        sa.PrimaryKeyConstraint("note", "sop_instance_uid", name=op.f("pk_rejected_objects")),
    )
    op.create_index("ix_rejected_objects_sop_instance_uid", "rejected_objects", ["sop_instance_uid"])
    op.execute(sa.text(JUDGE_AGAIN))


def downgrade() -> None:
    for table in ("rejected_objects", "rejection_notes"):
        op.drop_table(table)
    op.execute(sa.text("DELETE FROM deliveries WHERE kind = 'reject'"))
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(AFTER), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(BEFORE), ["result_id", "destination", "kind"])
    op.drop_index("ix_results_withdrawal_due", "results")
    for column in ("rejection", "rejected_at", "withdrawal_due", "withdrawn_reason", "withdrawn_as", "withdrawn_at"):
        op.drop_column("results", column)
    op.drop_column("instances", "issuer")
