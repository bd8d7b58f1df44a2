"""files that retention deleted"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("cleaned_at", sa.Float(), nullable=True))
    op.add_column("studies", sa.Column("cleaning_due", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("instances", sa.Column("cleaned_at", sa.Float(), nullable=True))
    op.create_index("ix_studies_cleaning_due", "studies", ["cleaning_due"])
    with_files = sa.text("cleaned_at IS NULL")
    op.create_index(
        "ix_studies_with_files", "studies", ["finished_at"], sqlite_where=with_files, postgresql_where=with_files
    )


def downgrade() -> None:
    for name in ("ix_studies_cleaning_due", "ix_studies_with_files"):
        op.drop_index(name, "studies")
    op.drop_column("instances", "cleaned_at")
    for column in ("cleaning_due", "cleaned_at"):
        op.drop_column("studies", column)
