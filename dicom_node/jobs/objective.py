"""How soon the model's flags came of late, for an operator to compare with the objective."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.jobs.database import Database
from dicom_node.jobs.study_records import MODEL
from dicom_node.jobs.tables import deliveries
from dicom_node.jobs.worklist_tables import changes


@dataclass(frozen=True)
class FlagsInTime:
    """in_time: flags that were acknowledged soon enough after the last image. due: those that should have been by now,
    and all that were.
    """

    in_time: int
    due: int


class FlagObjective(Database):
    """Flags of a window of time."""

    def flags_in_time(self, since: float, within: float, at: float) -> FlagsInTime:
        """Of the model's flags that destinations were told, those decided since then.

        since, at (now): seconds since the epoch. within: how many seconds are soon enough.
        """
        told = sa.exists().where(deliveries.c.change_id == changes.c.id)
        took = changes.c.acknowledged_at - changes.c.last_image_at
        due = changes.c.acknowledged_at.is_not(None) | (changes.c.last_image_at < at - within)
        numbers = (sa.func.count(sa.case((took <= within, 1))), sa.func.count(sa.case((due, 1))))
        query = sa.select(*numbers).where(changes.c.source == MODEL, changes.c.at >= since, told)
        with self._read() as connection:
            row = connection.execute(query).one()
        return FlagsInTime(int(row[0]), int(row[1]))
