"""HL7 time stamps (DTM, chapter 2.A.22: `YYYYMMDDHHMMSS.SSSS+ZZZZ`, any tail left out) and what the node makes of them.

A stamp without a zone is local time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

_STAMP = re.compile(r"([12]\d{3}(?:\d\d){0,5})(?:\.\d{1,4})?(?:([+-])(\d\d)(\d\d))?")
_EARLIEST = "00000101000000"


def write(at: float) -> str:
    """Seconds since the epoch as local time with its zone."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y%m%d%H%M%S%z")


def read(stamp: str) -> datetime | None:
    """The moment, with a zone; None for text that is no time stamp."""
    match = _STAMP.fullmatch(stamp.strip())
    if match is None:
        return None
    digits, sign, hours, minutes = match.groups()
    try:
        moment = datetime.strptime(digits + _EARLIEST[len(digits) :], "%Y%m%d%H%M%S")
        if sign is None:
            return moment.astimezone()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return moment.replace(tzinfo=timezone(offset if sign == "+" else -offset))
    except (ValueError, OverflowError, OSError):
        return None


def dicom_datetime(stamp: str) -> str:
    """The same moment as DICOM DT in local time, no finer than the stamp; empty for text that is no time stamp."""
    moment = read(stamp)
    if moment is None:
        return ""
    digits = re.match(r"\d+", stamp.strip())
    try:
        return moment.astimezone().strftime("%Y%m%d%H%M%S")[: len(digits[0]) if digits else 0]
    except (OverflowError, ValueError, OSError):
        return ""
