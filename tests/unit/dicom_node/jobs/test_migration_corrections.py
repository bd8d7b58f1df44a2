"""What the schema's seventh revision makes of corrections that were only noted before, on every database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command

from dicom_node.jobs.database import _alembic, migrate, open_engine
from dicom_node.jobs.tables import instances, studies


def test_a_correction_that_was_noted_is_judged_again(database_url: str) -> None:
    command.upgrade(_alembic(database_url), "0005")
    since = ("issuer", "cleaned_at")
    old = sa.Table("instances", sa.MetaData(), *(sa.Column(c.name, c.type) for c in instances.c if c.name not in since))
    row = {column.name: "" for column in old.c} | {
        "size": 1, "image": True, "received_at": 1.0, "association_id": None,
    }  # fmt: skip
    rows = [("a", "s1", "1.1", "current"), ("b", "s1", "1.1", "correction"), ("c", "s2", "1.1", "correction")]
    engine = open_engine(database_url)
    with engine.execution_options(writes=True).begin() as connection:
        for study in ("s1", "s2"):
            times = {"received_at": 1.0, "opened_at": 1.0, "last_arrival_at": 1.0}
            connection.execute(studies.insert().values(id=study, study_instance_uid=study, state="delivered", **times))
        for path, study, uid, standing in rows:
            named = {"path": path, "study_id": study, "sop_instance_uid": uid, "standing": standing}
            connection.execute(old.insert().values(row | named))
    migrate(database_url)
    with engine.connect() as connection:
        found = {row.path: (row.standing, row.issuer) for row in connection.execute(sa.select(instances))}
    engine.dispose()
    assert found == {"a": ("current", ""), "b": ("disputed", ""), "c": ("correction", "")}
