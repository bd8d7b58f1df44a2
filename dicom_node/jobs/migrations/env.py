"""Alembic's entry: runs the migrations on the URL that `database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from dicom_node.jobs.database import open_engine
from dicom_node.jobs.tables import metadata


def run() -> None:
    engine = open_engine(context.config.attributes["url"])
    with engine.execution_options(writes=True).connect() as connection:
        context.configure(
            connection=connection, target_metadata=metadata, render_as_batch=engine.dialect.name == "sqlite"
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()


run()
