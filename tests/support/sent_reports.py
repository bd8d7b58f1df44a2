"""A report in an outgoing folder, as it was sent."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.base.config import ReportSection
from dicom_node.reporting.document import build_report
from dicom_node.reporting.write import write_report
from support.reports import make_result, write_study

NOW = datetime(2026, 1, 2, 10, 15, tzinfo=UTC)


def sent_report(outgoing: Path, **source: object) -> Path:
    """Of two small images with these header bytes."""
    with tempfile.TemporaryDirectory() as folder:
        images = write_study(Path(folder), {**source}, {**source})
        return write_report(build_report(make_result(images), images, ReportSection(), NOW), outgoing)
