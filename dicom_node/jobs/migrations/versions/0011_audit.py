"""what the audit trail has; what happened before there was one stays out of it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

RECORDED = {"associations": sa.true(), "results": sa.true(), "model_changes": sa.true(), "deliveries": sa.literal(2)}


def upgrade() -> None:
    for name, done in RECORDED.items():
        kind: sa.Integer | sa.Boolean = sa.Integer() if name == "deliveries" else sa.Boolean()
        default = sa.text("0") if name == "deliveries" else sa.false()
        op.add_column(name, sa.Column("audited", kind, nullable=False, server_default=default))
        op.create_index(f"ix_{name}_audited", name, ["audited"])
        op.execute(sa.table(name, sa.column("audited", kind)).update().values(audited=done))


def downgrade() -> None:
    for name in RECORDED:
        op.drop_index(f"ix_{name}_audited", name)
        op.drop_column(name, "audited")
