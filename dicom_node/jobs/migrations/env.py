"""Alembic's entry: runs the migrations on the URL that `database.migrate` hands over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from dicom_node.jobs.database import open_engine
from dicom_node.jobs.worklist_tables import metadata

MIGRATION_LOCK = 0x7072696D61  # any number that nobody else uses: "prima"


def run() -> None:
    engine = open_engine(context.config.attributes["url"])
    with engine.execution_options(writes=True).connect() as connection:
        # Begun here, before the revision is read: Alembic would commit each migration by itself on SQLite, and a
        # process that waited in between would go on from a revision that is not the present one any more.
        connection.begin()
        if engine.dialect.name == "postgresql":
            # A migration may take longer than any other statement.
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            # Processes that start at once take turns; on SQLite the transaction's write lock sees to it.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        context.configure(
            connection=connection, target_metadata=metadata, render_as_batch=engine.dialect.name == "sqlite"
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()


run()
