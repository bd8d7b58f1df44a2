"""how large a message is, who made a work item and when it changed last, who is sending a UPS event"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLDEST_FIRST = (
    ("messages", "size"),
    ("messages", "received_at"),
    ("orders", "updated_at"),
    ("merges", "merged_at"),
    ("final_reports", "message_id"),
)


def upgrade() -> None:
    op.add_column("workitems", sa.Column("created_by", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("workitems", sa.Column("changed_at", sa.Float(), nullable=False, server_default="0"))
    # When those that are there changed last is not known: their time begins now.
    op.execute(sa.text("UPDATE workitems SET changed_at = :now").bindparams(now=time.time()))
    op.create_index("ix_workitems_created_by_state", "workitems", ["created_by", "state"])
    op.add_column("ups_events", sa.Column("owner", sa.String(length=64), nullable=True))
    op.add_column("ups_events", sa.Column("lease_until", sa.Float(), nullable=True))
    op.create_index("ix_ups_events_sop_instance_uid", "ups_events", ["sop_instance_uid"])
    op.add_column("messages", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(sa.text("UPDATE messages SET size = length(content)"))
    for table, column in OLDEST_FIRST:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    for table, column in OLDEST_FIRST:
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_column("messages", "size")
    op.drop_index("ix_ups_events_sop_instance_uid", "ups_events")
    op.drop_column("ups_events", "lease_until")
    op.drop_column("ups_events", "owner")
    op.drop_index("ix_workitems_created_by_state", "workitems")
    op.drop_column("workitems", "changed_at")
    op.drop_column("workitems", "created_by")
