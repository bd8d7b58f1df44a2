"""An entry of the reading list in the words that pages, scripts and commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dicom_node.base.orders import WorklistEntry

MINUTE, HOUR, DAY = 60, 3600, 86400


def as_json(entry: WorklistEntry, now: float) -> dict[str, Any]:
    """An entry in the vocabulary of the command line's JSON. now: seconds since the epoch, UTC."""
    return {
        "rank": entry.rank,
        "study": entry.study_id,
        "study_instance_uid": entry.study_instance_uid,
        "accession_number": entry.accession_number,
        "priority": {"level": entry.level.value, "source": entry.source, "rule": entry.rule},
        "findings": list(entry.findings),
        "marking": entry.marking,
        "state": entry.state,
        "waiting_since": utc(entry.waiting_since),
        "age_seconds": age_seconds(entry, now),
        "flagged_at": None if entry.flagged_at is None else utc(entry.flagged_at),
        "too_late": entry.too_late,
        "note": entry.note,
        "deliveries": [
            {
                "destination": delivery.destination,
                "kind": delivery.kind,
                "state": delivery.state,
                "attempts": delivery.attempts,
                "last_error": delivery.last_error,
            }
            for delivery in entry.deliveries
        ],
    }


def age_seconds(entry: WorklistEntry, now: float) -> int:
    """Whole seconds since the last image arrived; 0 where a clock was put back."""
    return max(0, int(now - entry.waiting_since))


def utc(seconds: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def duration(seconds: float) -> str:
    """A duration as people say it, rounded down, in at most two units: `40 s`, `5 min`, `1 h 05 min`, `2 d 3 h`."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"
