"""Report text → labels by rules: which findings a sentence names, and whether it says that they are there.

A finding is named by a term or description (`terms.py`), the longest one at its place. What is said of it follows from
the words before and behind it (`cues.py`: "no evidence of", "cannot be excluded", "is not seen"), as far as their scope
goes: to a "but", to the place in which something is not ("in the resection cavity"), or to a comma behind which
something else begins. The idea is NegEx's (Chapman et al., J Biomed Inform 2001;34:301), with lists and places added.

Of what several sentences say, "present" outweighs "uncertain", and that outweighs "absent".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Literal

from training.base.cohort import StudyLabels, StudyReport
from training.labels.cues import CUE, EITHER, NEW_THING, VERB
from training.labels.sentences import sentences
from training.labels.terms import DESCRIPTIONS, IMPLIES, NORMALS, OTHER_THINGS, TERMS

Span = tuple[int, int]


class Said(IntEnum):
    """What a sentence says of a finding. NOTHING: it is named, and whether it is there now is left open."""

    NOTHING = 0
    ABSENT = 1
    UNCERTAIN = 2
    PRESENT = 3


@dataclass(frozen=True)
class RuleSettings:
    """uncertain: what "possible", "suspicious for", "cannot exclude" count as.

    unmentioned: what a finding counts as that the report does not name. Reports list what is there, and deny only what
    was asked for or is feared, so "absent" is the default.
    """

    uncertain: Literal["unknown", "positive", "negative"] = "unknown"
    unmentioned: Literal["absent", "unknown"] = "absent"


def label_reports(
    reports: Mapping[str, StudyReport], settings: RuleSettings = RuleSettings()
) -> dict[str, StudyLabels]:
    """Diagnoses of every study; see `label_report`."""
    return {study: label_report("\n".join(report.items), settings) for study, report in reports.items()}


def label_report(text: str, settings: RuleSettings = RuleSettings()) -> StudyLabels:
    """Diagnoses of one report. A text without a sentence about the images gives none: nothing is known then."""
    told = sentences(text)
    if not told:
        return StudyLabels()
    said = said_in(told)
    labels: dict[str, bool] = {}
    for key in TERMS:
        judged = said.get(key)
        if judged is None:
            present = False if settings.unmentioned == "absent" else None
        elif judged is Said.UNCERTAIN:
            present = {"unknown": None, "positive": True, "negative": False}[settings.uncertain]
        else:
            present = None if judged is Said.NOTHING else judged is Said.PRESENT
        if present is not None:
            labels[key] = present
    return StudyLabels(diagnosis=labels)


def said_in(told: Sequence[str]) -> dict[str, Said]:
    """What sentences say of the findings that they name, with what follows for more general and more exact ones."""
    said: dict[str, Said] = {}
    for sentence in told:
        for key, judged in _said_by(plain(sentence)):
            said[key] = max(judged, said.get(key, judged))
    for exact, general in IMPLIES.items():
        if exact in said and said[exact] is not Said.ABSENT:
            said[general] = max(said[exact], said.get(general, Said.NOTHING))
    for exact, general in IMPLIES.items():
        if said.get(general) is Said.ABSENT:
            said.setdefault(exact, Said.ABSENT)
    return said


_SPELLING = (
    (r"[’`]", "'"),
    (r"'s\b", ""),
    (r"\s[-–—]+\s", " ; "),
    (r"[-‐‑–—]", " "),
    (r"aem", "em"),
    (r"oed", "ed"),
    (r"tumour", "tumor"),
    (r"\bgrey", "gray"),
    (r"leuco", "leuko"),
    (r"centre", "center"),
    (r"generalis", "generaliz"),
    (r"visualis", "visualiz"),
    (r"favour", "favor"),
    (r"\s+", " "),
)


def plain(text: str) -> str:
    """Lower case, American spelling, no hyphens."""
    text = text.lower()
    for pattern, replacement in _SPELLING:
        text = re.sub(pattern, replacement, text)
    return text.strip()


_FORWARD = {
    "not": Said.ABSENT,
    "maybe": Said.UNCERTAIN,
    "differential": Said.UNCERTAIN,
    "versus": Said.UNCERTAIN,
    "asked": Said.UNCERTAIN,
    "nothing": Said.NOTHING,
}
_BACKWARD = {
    "not_before": Said.ABSENT,
    "maybe_before": Said.UNCERTAIN,
    "versus": Said.UNCERTAIN,
    "nothing_before": Said.NOTHING,
}
_MOST_WORDS = 5  # of a list's item
_JOINT = re.compile(r",|\band\b")


@dataclass(frozen=True)
class _Mention:
    key: str
    start: int
    end: int
    denied: bool  # by a word inside it


def _said_by(sentence: str) -> Iterator[tuple[str, Said]]:
    mentions = _mentions(sentence)
    scopes = _scopes(_masked(sentence, mentions)) if mentions else []
    either = _either(sentence, mentions)
    asked = sentence.endswith("?")
    for mention in mentions:
        if not mention.key:
            continue
        over = [said for said, (start, end) in scopes if start <= mention.start and mention.end <= end]
        if mention.denied or Said.ABSENT in over:
            yield mention.key, Said.ABSENT
        elif asked or mention in either:
            yield mention.key, min([Said.UNCERTAIN, *over])
        else:
            yield mention.key, min(over, default=Said.PRESENT)
    for pattern, keys in NORMALS.items():
        if (found := re.search(pattern, sentence)) and not re.search(r"\b(not|than|near)\b", found[0]):
            yield from ((key, Said.ABSENT) for key in keys or TERMS)


def _mentions(sentence: str) -> list[_Mention]:
    """Named findings; where one name lies inside another, the longer one. An empty key: something else is meant."""
    found = [
        _Mention(key, match.start(), match.end(), re.search(r"\bnot\b", match[0]) is not None)
        for key, pattern in _patterns()
        for match in pattern.finditer(sentence)
    ]
    longest = [one for one in found if not any(_inside(one, other) for other in found)]
    return sorted(dict.fromkeys(longest), key=lambda one: one.start)


def _inside(one: _Mention, other: _Mention) -> bool:
    return other.start <= one.start and one.end <= other.end and other.end - other.start > one.end - one.start


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    of_keys = [(key, [*map(_tolerant, words), *DESCRIPTIONS.get(key, ())]) for key, words in TERMS.items()]
    return tuple(
        (key, re.compile(rf"(?<!\w)(?:{'|'.join(sorted(patterns, key=len, reverse=True))})(?!\w)"))
        for key, patterns in [*of_keys, ("", list(OTHER_THINGS))]
    )


def _tolerant(term: str) -> str:
    """A term as a pattern that takes its plural as well."""
    words = re.escape(plain(term)).replace(r"\ ", " ")
    return rf"{words[:-1]}(?:y|ies)" if words.endswith("y") else rf"{words}(?:s|es)?"


def _masked(sentence: str, mentions: Sequence[_Mention]) -> str:
    """The sentence with its mentions blotted out: their own words are no cues."""
    for mention in mentions:
        sentence = sentence[: mention.start] + "_" * (mention.end - mention.start) + sentence[mention.end :]
    return sentence


def _scopes(sentence: str) -> list[tuple[Said, Span]]:
    cues = list(CUE.finditer(sentence))
    scopes: list[tuple[Said, Span]] = []
    for position, cue in enumerate(cues):
        kind = cue.lastgroup or ""
        if kind in _FORWARD:
            spans = _forward(sentence, cue, cues[position + 1 :])
            scopes += [(_FORWARD[kind], span) for span in spans]
        if kind in _BACKWARD:
            scopes.append((_BACKWARD[kind], _backward(sentence, cue, cues[:position])))
    return scopes


def _forward(sentence: str, cue: re.Match[str], following: Sequence[re.Match[str]]) -> Iterator[Span]:
    """The stretches behind a cue that it speaks of. A place ("in the …") is left out up to the list's next item."""
    start: int | None = cue.end()
    for number, other in enumerate(following):
        kind = other.lastgroup
        if kind == "place" and start is not None:
            yield start, other.start()
            start = None
        elif kind in ("comma", "or") and start is None:
            start = other.end()
        if (
            kind == "but"
            or (kind == "with" and cue.lastgroup == "nothing")
            or (kind == "comma" and not _goes_on(sentence, cue, other, following[number + 1 :]))
        ):
            if start is not None:
                yield start, other.start()
            return
    if start is not None:
        yield start, len(sentence)


def _goes_on(sentence: str, cue: re.Match[str], comma: re.Match[str], following: Sequence[re.Match[str]]) -> bool:
    """Whether a list of what the cue speaks of goes on behind a comma."""
    until = next((other.start() for other in following if other.lastgroup == "but"), len(sentence))
    rest = sentence[comma.end() : until]
    if re.match(r"\s*(or|nor|and|versus)\b", rest):
        return True
    item = rest.split(",", maxsplit=1)[0]
    if re.search(r",?\s(or|nor)\s", rest) and not re.match(r"\s*(there|this)\b", rest):
        return True
    listing = cue.lastgroup in ("not", "differential")
    return listing and len(item.split()) <= _MOST_WORDS and not NEW_THING.match(item)


def _backward(sentence: str, cue: re.Match[str], before: Sequence[re.Match[str]]) -> Span:
    """From the beginning of the clause that ends with the cue."""
    start = max((other.end() for other in before if other.lastgroup == "but"), default=0)
    clause = sentence[start : cue.start()]
    if verbs := list(VERB.finditer(clause)):
        behind = clause[verbs[-1].end() :]
        joints = list(_JOINT.finditer(behind))
        return start + verbs[-1].end() + (joints[-1].end() if joints else 0), cue.start()
    if "," in clause and not re.search(r"\b(or|and|nor)\b", clause[clause.rindex(",") :]):
        start += clause.rindex(",") + 1
    return start, cue.start()


def _either(sentence: str, mentions: Sequence[_Mention]) -> set[_Mention]:
    """Findings of which a sentence names one or the other: "a metastasis or an abscess"."""
    pairs = [
        (one, other)
        for one in mentions
        for other in mentions
        if one.key != other.key and one.end <= other.start and EITHER.fullmatch(sentence[one.end : other.start])
    ]
    return {mention for pair in pairs for mention in pair}
