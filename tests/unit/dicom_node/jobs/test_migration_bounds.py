"""What the schema's fourth revision makes of rows that were there before, on every database."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import command

from dicom_node.base.workitems import UpsState, Workitem
from dicom_node.jobs.database import _alembic, migrate, open_engine
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.worklist_tables import messages, workitems


def test_messages_get_their_size_and_work_items_begin_their_time_now(database_url: str) -> None:
    command.upgrade(_alembic(database_url), "0003")
    engine = open_engine(database_url)
    with engine.execution_options(writes=True).begin() as connection:
        old = {"digest": "d", "address": "a", "content": b"\x0bthree\xff", "received_at": 1.0}
        item = {"sop_instance_uid": "1.2", "state": "COMPLETED", "priority": "LOW", "encoded": b"e", "version": 1}
        connection.execute(messages.insert().values(old))
        connection.execute(workitems.insert().values(item | {"transaction_uid": ""}))
    before = time.time()
    migrate(database_url)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(messages.c.size)) == 7
        row = connection.execute(sa.select(workitems)).one()
    engine.dispose()
    assert before <= row.changed_at <= time.time()
    registry = Registry(database_url)
    assert registry.workitem("1.2") == Workitem("1.2", UpsState.COMPLETED, "LOW", b"e")
    registry.close()


def columns(database_url: str) -> dict[str, set[str]]:
    engine = sa.create_engine(database_url)
    found = sa.inspect(engine)
    names = {table: {column["name"] for column in found.get_columns(table)} for table in found.get_table_names()}
    engine.dispose()
    return names


def test_the_way_back(database_url: str) -> None:
    migrate(database_url)
    newest = columns(database_url)
    command.downgrade(_alembic(database_url), "0003")
    assert columns(database_url) != newest
    migrate(database_url)
    assert columns(database_url) == newest
