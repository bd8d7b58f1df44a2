"""A report's text as sentences that speak of this study's images.

Lines that were only wrapped are joined again: half a sentence would lose its "no". Sections that say why the patient
came, how the images were made, and what they were compared with are left out. Such a section ends at the next heading;
in a report that has no heading for its findings it ends with its own line, or the next one where it stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from training.base.statements import LIST_MARK, unwrapped

_ASIDE = (
    "indications?|clinical (?:indication|information|history|details|question|data|background)|history|symptoms"
    "|reason for (?:the )?(?:exam|examination|study|referral)|technique|procedure|protocol|sequences|contrast"
    "|examination|exam|study|comparisons?|compared with|prior studies|recommendations?|request"
)
_FINDINGS = "findings|report|body|description|results?|observations|mri (?:of the )?(?:brain|head)"
_CONCLUSIONS = "impressions?|conclusions?|summary|opinion|interpretation|assessment|addendum"
_HEADING = re.compile(
    rf"(?:\d[.)] )?(?:(?P<aside>{_ASIDE})|(?P<findings>{_FINDINGS})|(?P<conclusion>{_CONCLUSIONS}))\s*(?::|$)", re.I
)
_ABBREVIATION = re.compile(r"\b(vs|approx|e\.g|i\.e|dr|incl|resp|max|min|ca|cf|fig|ser|im)\.", re.I)
_END = re.compile(r"(?<=[.!?;])\s+")


def sentences(text: str) -> tuple[str, ...]:
    """In the report's order, without list marks."""
    lines = unwrapped(text).split("\n")
    lasting = any((found := _heading(line)) and found["findings"] for line in _parts(lines))
    return tuple(_told(lines, lasting))


def _told(lines: list[str], lasting: bool) -> Iterator[str]:
    aside = False
    for line in lines:
        parts = list(_parts([line]))
        alone = False
        for part in parts:
            if heading := _heading(part):
                aside = heading["aside"] is not None
                alone = len(parts) == 1 and heading.end() == len(part)
            if not aside and (heading is None or heading.end() < len(part)):
                yield part
        if aside and not lasting and not alone and parts:
            aside = False


def _parts(lines: list[str]) -> Iterator[str]:
    for line in lines:
        plain = re.sub(rf"^\s*{LIST_MARK}", "", _ABBREVIATION.sub(r"\1", line))
        yield from (part for part in map(str.strip, _END.split(plain)) if any(map(str.isalnum, part)))


def _heading(part: str) -> re.Match[str] | None:
    return _HEADING.match(part)
