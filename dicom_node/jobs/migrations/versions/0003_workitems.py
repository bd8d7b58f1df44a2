"""Unified Procedure Steps, subscriptions and the events that wait to be sent"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workitems",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("written", sa.LargeBinary(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitems")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_workitems_sop_instance_uid")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_workitems_study_instance_uid")),
    )
    op.create_index("ix_workitems_state", "workitems", ["state"])
    op.create_table(
        "subscriptions",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"], ["workitems.sop_instance_uid"], name=op.f("fk_subscriptions_sop_instance_uid")
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "ae_title", name=op.f("pk_subscriptions")),
    )
    op.create_index("ix_subscriptions_ae_title", "subscriptions", ["ae_title"])
    op.create_table(
        "global_subscriptions",
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("filter", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("ae_title", name=op.f("pk_global_subscriptions")),
    )
    op.create_table(
        "ups_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("receiver", sa.String(length=16), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("type", sa.Integer(), nullable=False),
        sa.Column("information", sa.LargeBinary(), nullable=False),
        sa.Column("next_attempt_at", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ups_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ups_events_receiver_id", "ups_events", ["receiver", "id"])


def downgrade() -> None:
    for table in ("ups_events", "global_subscriptions", "subscriptions", "workitems"):
        op.drop_table(table)
