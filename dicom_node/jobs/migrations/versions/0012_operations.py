"""files that retention deleted, and indexes that keep a large registry fast"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

OF_REPORTS = "UPDATE messages SET of_report = true WHERE id IN (SELECT message_id FROM final_reports)"
INDEXES = (
    ("ix_deliveries_due", "deliveries", ["state", "destination", "next_attempt_at"]),
    ("ix_messages_outdated", "messages", ["of_report", "received_at", "size"]),
    ("ix_studies_last_arrival_at", "studies", ["last_arrival_at"]),
    ("ix_instances_standing_sop_class_uid", "instances", ["standing", "sop_class_uid"]),
    ("ix_orders_status_scheduled_at", "orders", ["status", "scheduled_at"]),
    ("ix_changes_at", "changes", ["at"]),
    ("ix_predictions_created_at", "predictions", ["created_at"]),
)


def upgrade() -> None:
    op.add_column("studies", sa.Column("cleaned_at", sa.Float(), nullable=True))
    op.add_column("studies", sa.Column("cleaning_due", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("instances", sa.Column("cleaned_at", sa.Float(), nullable=True))
    op.create_index("ix_studies_cleaning_due", "studies", ["cleaning_due"])
    with_files = sa.text("cleaned_at IS NULL")
    op.create_index(
        "ix_studies_with_files", "studies", ["finished_at"], sqlite_where=with_files, postgresql_where=with_files
    )
    op.add_column("messages", sa.Column("of_report", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(sa.text(OF_REPORTS))
    op.drop_index("ix_deliveries_due", "deliveries")
    op.drop_index("ix_messages_size", "messages")
    op.drop_index("ix_instances_standing", "instances")
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, table, _ in INDEXES:
        op.drop_index(name, table)
    op.create_index("ix_instances_standing", "instances", ["standing"])
    op.create_index("ix_messages_size", "messages", ["size"])
    op.create_index("ix_deliveries_due", "deliveries", ["state", "next_attempt_at"])
    op.drop_column("messages", "of_report")
    for name in ("ix_studies_cleaning_due", "ix_studies_with_files"):
        op.drop_index(name, "studies")
    op.drop_column("instances", "cleaned_at")
    for column in ("cleaning_due", "cleaned_at"):
        op.drop_column("studies", column)
