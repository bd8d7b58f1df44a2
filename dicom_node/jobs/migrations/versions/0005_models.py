"""bundles in use and who changed them, what each said of a study, study embeddings"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("bundle_id", sa.String(length=200), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("device_uid", sa.String(length=64), nullable=False),
        sa.Column("training_state", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("since", sa.Float(), nullable=True),
        sa.Column("loaded_as", sa.String(length=16), nullable=True),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("bundle_id", name=op.f("pk_models")),
    )
    op.create_table(
        "model_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("bundle_id", sa.String(length=200), nullable=False),
        sa.Column("previous", sa.String(length=200), nullable=True),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("evaluation", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["bundle_id"], ["models.bundle_id"], name=op.f("fk_model_changes_bundle_id")),
        sa.ForeignKeyConstraint(["previous"], ["models.bundle_id"], name=op.f("fk_model_changes_previous")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_changes")),
    )
    op.create_table(
        "predictions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("bundle_id", sa.String(length=200), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("logits", sa.JSON(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=True),
        sa.Column("precision", sa.String(length=8), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_predictions_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        sa.UniqueConstraint(
            "study_id", "revision", "bundle_id", name=op.f("uq_predictions_study_id_revision_bundle_id")
        ),
    )
    op.create_index("ix_predictions_bundle_id", "predictions", ["bundle_id"])
    op.create_table(
        "study_embeddings",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_embeddings_study_id")),
        sa.PrimaryKeyConstraint("study_id", "revision", "encoder", name=op.f("pk_study_embeddings")),
    )
    op.create_index("ix_study_embeddings_created_at", "study_embeddings", ["created_at"])


def downgrade() -> None:
    for table in ("study_embeddings", "predictions", "model_changes", "models"):
        op.drop_table(table)
