"""C-FIND matching of PS3.4 section C.2.2.2, and the answer to one match. Pure; data sets are plain (`dataset.py`).

Single value, list of UIDs, universal, wild card, range, combined date and time, sequence and empty value matching.
Person names compare without regard to case, whole or by component group; everything else exactly. A key with several
values matches when any of them does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from dicom_node.worklist.dicom.dataset import CHARACTER_SET, TIMEZONE, InvalidAttribute, is_empty

EMPTY = '""'  # C.2.2.2.7
WILD_CARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
NOT_KEYS = frozenset({CHARACTER_SET, TIMEZONE})
#: Date and time that are one moment: ranges in both are one range (K.6.1.2.2).
MOMENTS = ((Tag("ScheduledProcedureStepStartDate"), Tag("ScheduledProcedureStepStartTime")),)
DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
TIME = re.compile(r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?")
DATE_TIME = re.compile(r"(\d{4}(?:\d\d){0,5})(\.\d{1,6})?([+-]\d{4})?")
OFFSET_AT_END = re.compile(r"[+-](0\d|1[0-4])[0-5]\d$")
FIRST_MOMENT = "00000101000000"  # completes a DT that stops early

Moment = tuple[datetime, datetime]


def check(query: Dataset) -> None:
    """Raise InvalidAttribute for a key that can match nothing because it is no date, time or sequence of one item."""
    for element in _keys(query):
        if element.VR == "SQ":
            if len(element.value) > 1:
                raise InvalidAttribute(element.tag, "has more than one item")
            for item in element.value:
                check(item)
        elif element.VR in READERS:
            for value in _key_values(element):
                if value not in (EMPTY, "*") and _range_of(value, element.VR) is None:
                    raise InvalidAttribute(element.tag, "is no date, time or range of them")


def matches(query: Dataset, candidate: Dataset, absent_matches: bool = False) -> bool:
    """Whether every key of the query matches the candidate. `check` has passed the query.

    absent_matches: a key that the candidate does not have at all is not supported and is ignored; otherwise it is like
    one without a value, which no value matches (K.2.2.1.1.1).
    """
    together = _moments(query)
    return all(_one_range(query, candidate, pair) for pair in together) and all(
        _matches_key(key, candidate, absent_matches)
        for key in _keys(query)
        if not any(key.tag in pair for pair in together)
    )


def project(query: Dataset, candidate: Dataset, absent_matches: bool = False) -> tuple[Dataset, bool]:
    """The candidate's values for the query's keys, and whether it has an attribute for every key.

    Of a sequence, only the items that match, with the attributes asked for; all of it when the key has no item or an
    empty one.
    """
    answer, complete = Dataset(), True
    for key in _keys(query):
        if key.tag not in candidate:
            complete = False
        elif key.VR != "SQ" or not key.value or not key.value[0]:
            answer.add(candidate[key.tag])
        else:
            pairs = [
                project(key.value[0], item) for item in candidate[key.tag].value if matches(key.value[0], item, True)
            ]
            answer.add(DataElement(key.tag, "SQ", [item for item, _ in pairs]))
            complete = complete and all(has_all for _, has_all in pairs)
    return answer, complete


def range_of_dates(element: DataElement | None) -> tuple[str, str]:
    """First and last day (YYYYMMDD) that a DA key admits; empty where it is open. For a store's coarse filter."""
    values = _key_values(element) if element is not None else []
    if len(values) != 1 or values[0] in (EMPTY, "*"):
        return "", ""
    return tuple(DATE.sub(r"\1\2\3", end.strip()) for end in _ends(values[0], "DA"))  # type: ignore[return-value]


def single_value(element: DataElement | None) -> str:
    """The key's value when it is exactly one without wild cards; else empty. For a store's coarse filter.

    One with a NUL in it is left to `matches`: PostgreSQL takes none.
    """
    values = _key_values(element) if element is not None else []
    single = len(values) == 1 and not set("*?\0") & set(values[0]) and values[0] != EMPTY
    return values[0] if single else ""


def wild_card_matches(pattern: str, text: str) -> bool:
    """`*` is any run of characters, `?` any one (C.2.2.2.4). Takes pattern times text steps at most."""
    at, star, after_star = 0, -1, 0
    position = 0
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, after_star = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[position]):
            at += 1
            position += 1
        elif star >= 0:
            at = star + 1
            after_star += 1
            position = after_star
        else:
            return False
    return not pattern[at:].strip("*")


def _keys(query: Dataset) -> Iterable[DataElement]:
    return (element for element in query if element.tag not in NOT_KEYS)


def _key_values(element: DataElement) -> list[str]:
    return [value for value in _values(element) if value]


def _values(element: DataElement) -> list[str]:
    if is_empty(element):
        return []
    values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    return [str(value).strip(" \0") for value in values]


def _matches_key(key: DataElement, candidate: Dataset, absent_matches: bool) -> bool:
    if key.tag not in candidate and absent_matches:
        return True
    found = candidate.get(key.tag)
    if key.VR == "SQ":
        return _matches_sequence(key, found, absent_matches)
    wanted = _key_values(key)
    if not wanted or wanted == ["*"]:
        return True
    present = [] if found is None else [value for value in _values(found) if value]
    if wanted == [EMPTY]:
        return not present
    equal = _comparison(key.VR)
    return any(equal(one, value) for one in wanted for value in present)


def _matches_sequence(key: DataElement, found: DataElement | None, absent_matches: bool) -> bool:
    if not key.value or not key.value[0]:
        return True
    items = [] if found is None else list(found.value)
    # A key whose attributes are all universal asks for values back, and an empty sequence has none to give.
    return any(matches(key.value[0], item, absent_matches) for item in items) or (
        not items and matches(key.value[0], Dataset())
    )


def _comparison(vr: str) -> Callable[[str, str], bool]:
    if vr == "PN":
        return _same_name
    if vr in READERS:
        return lambda wanted, value: _within(wanted, value, vr)
    if vr in WILD_CARD_VRS:
        return _same_text
    if vr in ("DS", "IS"):
        return lambda wanted, value: _number(wanted) == _number(value)
    return str.__eq__


def _same_text(wanted: str, value: str) -> bool:
    return wild_card_matches(wanted, value) if set("*?") & set(wanted) else wanted == value


def _same_name(wanted: str, value: str) -> bool:
    wanted = _name(wanted)
    groups = [] if "=" in wanted else value.split("=")
    return any(_same_text(wanted, _name(one)) for one in (value, *groups))


def _name(text: str) -> str:
    return "=".join(group.strip().rstrip("^").strip() for group in text.casefold().split("=")).rstrip("=")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _moments(query: Dataset) -> list[tuple[BaseTag, BaseTag]]:
    """Pairs of date and time keys that are both ranges of the same form (C.2.2.2.5.4)."""
    return [
        (day, hour)
        for day, hour in MOMENTS
        if _form(query, day, "DA") and _form(query, day, "DA") == _form(query, hour, "TM")
    ]


def _form(query: Dataset, tag: BaseTag, vr: str) -> tuple[bool, bool] | None:
    values = _key_values(query[tag]) if tag in query else []
    if len(values) != 1 or not _is_range(values[0], vr):
        return None
    first, last = _ends(values[0], vr)
    return bool(first), bool(last)


def _one_range(query: Dataset, candidate: Dataset, pair: tuple[BaseTag, BaseTag]) -> bool:
    (days,), (hours,) = _key_values(query[pair[0]]), _key_values(query[pair[1]])
    present = [_values(candidate[tag]) if tag in candidate else [] for tag in pair]
    if not all(present):
        return False
    ends = [
        day and day.replace(".", "") + hour for day, hour in zip(_ends(days, "DA"), _ends(hours, "TM"), strict=True)
    ]
    return _within("-".join(ends), present[0][0].replace(".", "") + present[1][0], "DT")


def _is_range(value: str, vr: str) -> bool:
    return "-" in (OFFSET_AT_END.sub("", value) if vr == "DT" else value)


def _ends(value: str, vr: str) -> tuple[str, str]:
    """Both ends of a range, the same one twice for a single value; a DT's own offset is no range."""
    value = value.strip()
    if not _is_range(value, vr):
        return value, value
    if vr != "DT":
        first, _, last = value.partition("-")
        return first.strip(), last.strip()
    # Either end may carry a negative offset: the range's own hyphen is the one that leaves two readable ends.
    for hyphen in (index for index, sign in enumerate(value) if sign == "-"):
        first, last = value[:hyphen].strip(), value[hyphen + 1 :].strip()
        if all(not end or DATE_TIME.fullmatch(end) for end in (first, last)):
            return first, last
    return value, value


def _range_of(value: str, vr: str) -> Moment | None:
    """First and last moment that the key admits, both inclusive; an end takes in all of its stated precision."""
    first, last = _ends(value, vr)
    read = READERS[vr]
    if not first and not last:
        return None
    begin, end = (read(first) if first else OPEN), (read(last) if last else OPEN)
    return None if begin is None or end is None else (begin[0], end[1])


def _within(wanted: str, value: str, vr: str) -> bool:
    admitted, moment = _range_of(wanted, vr), READERS[vr](value)
    if admitted is None or moment is None:
        return False
    if not _is_range(wanted, vr):
        return _utc(admitted[0], moment[0]) == _utc(moment[0], admitted[0])
    first, last = admitted
    return _utc(first, moment[0]) <= _utc(moment[0], first) and _utc(moment[0], last) <= _utc(last, moment[0])


def _utc(moment: datetime, other: datetime) -> datetime:
    """A moment that can be compared with the other: one without an offset is in this machine's local time."""
    if moment.tzinfo is not None or other.tzinfo is None:
        return moment
    try:
        return moment.astimezone()
    except (OverflowError, OSError, ValueError):
        return moment.replace(tzinfo=UTC)


def _read_date(text: str) -> Moment | None:
    found = DATE.fullmatch(text)
    return _read_date_time("".join(found.groups())) if found else None


def _read_time(text: str) -> Moment | None:
    text = text.replace(":", "")  # as ACR-NEMA wrote it
    return _read_date_time("20000101" + text) if TIME.fullmatch(text) else None


def _read_date_time(text: str) -> Moment | None:
    found = DATE_TIME.fullmatch(text)
    if not found:
        return None
    digits, fraction, offset = found.groups()
    zone = _zone(offset)
    # A leap second is the last one of its minute.
    digits = digits[:12] + "59" if digits[12:14] == "60" else digits
    try:
        first = datetime.strptime(digits + FIRST_MOMENT[len(digits) :], "%Y%m%d%H%M%S").replace(tzinfo=zone)
        last = _end_of(first, len(digits))
    except (OverflowError, ValueError):
        return None
    if fraction:
        step = timedelta(seconds=10.0 ** (1 - len(fraction)))
        first += timedelta(microseconds=int(fraction[1:].ljust(6, "0")))
        last = first + step - timedelta(microseconds=1)
    return first, last


def _end_of(first: datetime, digits: int) -> datetime:
    """The last microsecond of the year, month, … or second that begins there."""
    if digits == 4:
        return first.replace(month=12, day=31, hour=23, minute=59, second=59, microsecond=999_999)
    if digits == 6:
        following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
        return following - timedelta(microseconds=1)
    spans = {8: timedelta(days=1), 10: timedelta(hours=1), 12: timedelta(minutes=1), 14: timedelta(seconds=1)}
    return first + (spans[digits] - timedelta(microseconds=1))


def _zone(offset: str | None) -> timezone | None:
    if not offset:
        return None
    span = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
    return timezone(span if offset[0] == "+" else -span)


READERS: dict[str, Callable[[str], Moment | None]] = {"DA": _read_date, "TM": _read_time, "DT": _read_date_time}
OPEN: Moment = (datetime.min, datetime.max)  # compares with naive moments; `_utc` gives it a zone
