"""what stays known of objects that left the node"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sent_objects",
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("noted_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_sent_objects_study_id")),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_sent_objects")),
    )
    op.create_index("ix_sent_objects_study_id", "sent_objects", ["study_id"])
    op.create_index("ix_sent_objects_kept_noted_at", "sent_objects", ["kept", "noted_at"])
    op.create_index("ix_deliveries_path", "deliveries", ["path"])


def downgrade() -> None:
    op.drop_index("ix_deliveries_path", "deliveries")
    op.drop_table("sent_objects")
