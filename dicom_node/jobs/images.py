"""What is on record of a study's images, for who asks without running it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.base.types import Standing
from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import instances


@dataclass(frozen=True)
class ReceivedImage:
    """path: in the spool. calling_ae: who sent it."""

    path: str
    calling_ae: str


class ImageBook(Database):
    """Received images."""

    def current_images(self, study: str) -> list[ReceivedImage]:
        """The images that count of a study, by its short id, and have a file."""
        query = sa.select(instances.c.path, instances.c.calling_ae).order_by(instances.c.path)
        query = query.where(instances.c.study_id == study, instances.c.image, instances.c.standing == Standing.CURRENT)
        query = query.where(instances.c.cleaned_at.is_(None))
        with self._read() as connection:
            return [ReceivedImage(row.path, row.calling_ae) for row in connection.execute(query)]
