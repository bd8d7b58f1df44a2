"""What physicians' final reports said, as HL7 messages (ORU^R01) brought them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import studies
from dicom_node.jobs.worklist_tables import final_reports


@dataclass(frozen=True)
class ReportText:
    """A study's final report as it stands. text: lines joined by newlines. final_at: seconds since the epoch, UTC."""

    study_instance_uid: str
    text: str
    final_at: float


class ReportTexts(Database):
    """Reports of studies that the node received."""

    def report_texts(self, since: float = 0.0) -> Iterator[ReportText]:
        """The newest report of each study, final at `since` or later.

        Only reports of which it is certain whose study they are of count, and a newest one without text hides those
        before it: what was corrected is not to be read again.
        """
        query = sa.select(final_reports, studies.c.study_instance_uid.label("uid"))
        query = query.join(studies, final_reports.c.study_id == studies.c.id)
        query = query.order_by(studies.c.study_instance_uid, final_reports.c.final_at, final_reports.c.id)
        with self._read() as connection:
            rows = connection.execution_options(yield_per=1000).execute(query)
            for _, of_study in groupby(rows, key=lambda row: row.uid):
                newest = _newest(list(of_study))
                if newest.text and newest.final_at >= since:
                    yield newest

    def reports_of_no_study(self) -> int:
        """How many final reports are of no study that the node has for certain."""
        query = sa.select(sa.func.count()).where(final_reports.c.study_id.is_(None))
        with self._read() as connection:
            return int(connection.scalar(query) or 0)


def _newest(rows: Sequence[Any]) -> ReportText:
    """What the last message said: a message may hold several parts, or the same text for several orders."""
    last = rows[-1]
    texts = dict.fromkeys(row.text.strip() for row in rows if row.message_id == last.message_id)
    return ReportText(last.uid, "\n".join(text for text in texts if text), last.final_at)
