"""orders, reading priorities and the messages they come from"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "merges",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("retired_id", sa.String(length=200), nullable=False),
        sa.Column("retired_issuer", sa.Text(), nullable=False),
        sa.Column("survivor_id", sa.String(length=200), nullable=False),
        sa.Column("survivor_issuer", sa.Text(), nullable=False),
        sa.Column("merged_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merges")),
    )
    with op.batch_alter_table("merges", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_merges_retired_id"), ["retired_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_merges_survivor_id"), ["survivor_id"], unique=False)

    op.create_table(
        "messages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("applied_at", sa.Float(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("digest", name=op.f("uq_messages_digest")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient_id", sa.String(length=200), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("birth_date", sa.String(length=8), nullable=False),
        sa.Column("sex", sa.String(length=1), nullable=False),
        sa.Column("accession_number", sa.String(length=200), nullable=False),
        sa.Column("placer_order_number", sa.String(length=200), nullable=False),
        sa.Column("filler_order_number", sa.String(length=200), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=200), nullable=False),
        sa.Column("requested_procedure_id", sa.String(length=200), nullable=False),
        sa.Column("scheduled_step_id", sa.String(length=200), nullable=False),
        sa.Column("code_value", sa.Text(), nullable=False),
        sa.Column("code_meaning", sa.Text(), nullable=False),
        sa.Column("code_scheme", sa.Text(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("station_ae", sa.Text(), nullable=False),
        sa.Column("scheduled_at", sa.String(length=32), nullable=False),
        sa.Column("patient_class", sa.Text(), nullable=False),
        sa.Column("referring_physician", sa.Text(), nullable=False),
        sa.Column("requesting_physician", sa.Text(), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=True),
        sa.Column("priority_text", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_orders_accession_number"), ["accession_number"], unique=False)
        batch_op.create_index(batch_op.f("ix_orders_filler_order_number"), ["filler_order_number"], unique=False)
        batch_op.create_index(batch_op.f("ix_orders_patient_id"), ["patient_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_orders_placer_order_number"), ["placer_order_number"], unique=False)
        batch_op.create_index(batch_op.f("ix_orders_scheduled_at"), ["scheduled_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_orders_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "final_reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.Integer(), nullable=False),
        sa.Column("order_id", sa.Integer(), nullable=True),
        sa.Column("study_id", sa.String(length=32), nullable=True),
        sa.Column("study_instance_uid", sa.String(length=200), nullable=False),
        sa.Column("accession_number", sa.String(length=200), nullable=False),
        sa.Column("patient_id", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("final_at", sa.Float(), nullable=False),
        sa.Column("corrected", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_final_reports_message_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_final_reports_order_id")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_final_reports_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_final_reports")),
    )
    with op.batch_alter_table("final_reports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_final_reports_accession_number"), ["accession_number"], unique=False)
        batch_op.create_index(batch_op.f("ix_final_reports_order_id"), ["order_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_final_reports_study_id"), ["study_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_final_reports_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=20), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=True),
        sa.Column("undoes", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("previous", sa.String(length=16), nullable=True),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("marking", sa.Text(), nullable=False),
        sa.Column("nonclinical", sa.Boolean(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("order", sa.JSON(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("last_image_at", sa.Float(), nullable=False),
        sa.Column("acknowledged_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["result_id"], ["results.id"], name=op.f("fk_changes_result_id")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_changes_study_id")),
        sa.ForeignKeyConstraint(["undoes"], ["changes.id"], name=op.f("fk_changes_undoes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sa.UniqueConstraint("key", name=op.f("uq_changes_key")),
        sa.UniqueConstraint("undoes", name=op.f("uq_changes_undoes")),
    )
    with op.batch_alter_table("changes", schema=None) as batch_op:
        batch_op.create_index("ix_changes_study_id", ["study_id"], unique=False)

    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("change_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("level", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("previous", sa.String(length=16), nullable=True))
        batch_op.alter_column("result_id", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("path", existing_type=sa.VARCHAR(length=200), nullable=True)
        batch_op.create_unique_constraint(
            batch_op.f("uq_deliveries_change_id_destination"), ["change_id", "destination"]
        )
        batch_op.create_foreign_key(batch_op.f("fk_deliveries_change_id"), "changes", ["change_id"], ["id"])

    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.add_column(sa.Column("accession_number", sa.String(length=64), nullable=False, server_default=""))

    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.add_column(sa.Column("priority_output", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("told", sa.JSON(), nullable=False, server_default="[]"))

    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.add_column(sa.Column("accession_number", sa.String(length=64), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("reading_at", sa.Float(), nullable=True))
        batch_op.create_index(batch_op.f("ix_studies_accession_number"), ["accession_number"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_studies_accession_number"))
        batch_op.drop_column("reading_at")
        batch_op.drop_column("accession_number")

    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.drop_column("told")
        batch_op.drop_column("priority_output")

    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.drop_column("accession_number")

    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_deliveries_change_id"), type_="foreignkey")
        batch_op.drop_constraint(batch_op.f("uq_deliveries_change_id_destination"), type_="unique")
        batch_op.alter_column("path", existing_type=sa.VARCHAR(length=200), nullable=False)
        batch_op.alter_column("result_id", existing_type=sa.INTEGER(), nullable=False)
        batch_op.drop_column("previous")
        batch_op.drop_column("level")
        batch_op.drop_column("change_id")

    with op.batch_alter_table("changes", schema=None) as batch_op:
        batch_op.drop_index("ix_changes_study_id")

    op.drop_table("changes")
    with op.batch_alter_table("final_reports", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_final_reports_study_instance_uid"))
        batch_op.drop_index(batch_op.f("ix_final_reports_study_id"))
        batch_op.drop_index(batch_op.f("ix_final_reports_order_id"))
        batch_op.drop_index(batch_op.f("ix_final_reports_accession_number"))

    op.drop_table("final_reports")
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_orders_study_instance_uid"))
        batch_op.drop_index(batch_op.f("ix_orders_scheduled_at"))
        batch_op.drop_index(batch_op.f("ix_orders_placer_order_number"))
        batch_op.drop_index(batch_op.f("ix_orders_patient_id"))
        batch_op.drop_index(batch_op.f("ix_orders_filler_order_number"))
        batch_op.drop_index(batch_op.f("ix_orders_accession_number"))

    op.drop_table("orders")
    op.drop_table("messages")
    with op.batch_alter_table("merges", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_merges_survivor_id"))
        batch_op.drop_index(batch_op.f("ix_merges_retired_id"))

    op.drop_table("merges")
