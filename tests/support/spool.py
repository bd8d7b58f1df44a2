"""Objects put into a spool without a network."""

from __future__ import annotations

from dicom_node.base.types import Arrival
from dicom_node.intake.spool import Spool


def put(spool: Spool, arrival: Arrival, data_set: bytes | memoryview) -> None:
    """Make an object durable, its data set as one fragment."""
    incoming = spool.incoming(max_bytes=1 << 30)
    incoming.write(data_set)
    incoming.check()
    spool.keep(arrival, incoming)
