"""A report's text as single statements, and lines that were only wrapped joined again before."""

from __future__ import annotations

import re

LIST_MARK = r"(?:[-*•]|\d{1,2}[.)])[ \t]+"
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\W\d_a-z])|\s*[\r\n]+\s*")
_BULLET = re.compile(rf"^{LIST_MARK}")
# A full stop behind these ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:dr|mr|mrs|no|approx|vs|e\.g|i\.e|cf|incl|max|min|resp|ca|z\.b|d\.h|bzw)|\b\w)\.$", re.I
)
_UNFINISHED = (
    r"of|or|and|nor|no|not|without|with|the|a|an|in|for|to|by|from|at|on|any|is|are|was|were|be|been|versus|vs\.?"
    r"|evidence|new|acute|cannot|exclude|may|represent|possible|suspicious"
)
_AFTER_UNFINISHED = re.compile(rf"(\b(?:{_UNFINISHED})|,)[ \t]*\n[ \t]*(?=[^\W_])", re.I)
_BEFORE_SMALL = re.compile(r"(?<=[^\s.:;!?])[ \t]*\n[ \t]*(?=[a-z(]|\d(?!\d?[.)]\s))")
_AFTER_LONG = re.compile(rf"(?m)^(.{{50,}}[^\s.:;!?])[ \t]*\n[ \t]*(?!{LIST_MARK})(?=\S)")


def unwrapped(text: str) -> str:
    """Each paragraph, list item or heading on one line.

    Where upper and lower case tell sentences apart, a line is joined to one that goes on in lower case; otherwise to
    any line that was long. Everywhere a line that ends in a word such as "of", or a comma, goes on in the next.
    """
    text = _AFTER_UNFINISHED.sub(r"\1 ", text.replace("\r\n", "\n").replace("\r", "\n"))
    has_case = any(map(str.islower, text)) and any(map(str.isupper, text))
    if has_case:
        return _BEFORE_SMALL.sub(" ", text)
    while (joined := _AFTER_LONG.sub(r"\1 ", text)) != text:
        text = joined
    return text


def statements(text: str) -> tuple[str, ...]:
    """A report's text as single statements: sentences and list items, in order."""
    parts: list[str] = []
    for part in _END_OF_SENTENCE.split(text):
        if parts and _ABBREVIATION.search(parts[-1]):
            parts[-1] += f" {part.strip()}"
        else:
            parts.append(part.strip())
    plain = (_BULLET.sub("", part) for part in parts)
    return tuple(part for part in plain if any(map(str.isalpha, part)))


def report_items(text: str) -> tuple[str, ...]:
    """A whole report, headings and all, as the statements of a `StudyReport`."""
    return statements(unwrapped(text))
