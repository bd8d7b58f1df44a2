"""Texts that stay with a study, without what tells who the patient is.

Series names and the study description are inputs of the model, and people type into them. From every text are removed:
  1. UIDs, dates, and every run of six digits or more (`without_numbers`; the store does this to whatever it is given);
  2. words of the names of the patient and of other people in the headers, and the parts of the patient's IDs and
     numbers (`Identity`): as whole words, and from four letters on also inside words; without regard to case and
     accents, and in the forms that `prima_core.names` turns them into.
What is removed leaves nothing behind, not even a mark that would tell its length. A name that is also an ordinary word
("Head") takes that word from this one patient's texts: a lost word is better than a kept name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prima_core.names import series_name

_LONGEST_PLAIN_NUMBER = 5
_ALSO_INSIDE_WORDS = 4  # letters
_UID = re.compile(r"\d+(?:[._]\d+){4,}")
_UID_LENGTH = 16  # a shorter chain of numbers is a list of b-values
_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-._/ ]\d{1,2}[-._/ ]\d{1,2}|\d{1,2}[-._/ ]\d{1,2}[-._/ ](?:19|20)\d\d)(?!\d)"
)
_LONG_NUMBER = re.compile(rf"\d{{{_LONGEST_PLAIN_NUMBER + 1},}}")
_TITLES = frozenset({"mr", "mrs", "ms", "dr", "md"})  # of which the first is also what the images are
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


def without_numbers(text: str) -> str:
    """The text without UIDs, dates and long numbers."""
    text = _UID.sub(lambda found: "" if len(found[0]) >= _UID_LENGTH else found[0], text)
    return _LONG_NUMBER.sub("", _DATE.sub("", text))


@dataclass(frozen=True)
class Identity:
    """What must not occur in a patient's texts. The words are never printed."""

    words: frozenset[str] = field(default=frozenset(), repr=False)

    def scrubbed(self, text: str) -> str:
        """The text without those words, UIDs, dates and long numbers; inner spaces stay as they were."""
        folded = "".join(map(_folded_letter, text))
        for word in sorted(self.words, key=len, reverse=True):
            for start, end in reversed(list(_found(word, folded))):
                text, folded = text[:start] + text[end:], folded[:start] + folded[end:]
        return without_numbers(text).strip()


def identity_of(people: Iterable[str], numbers: Iterable[str] = ()) -> Identity:
    """people: names in DICOM's form (`Family^Given^Middle^Prefix^Suffix=…`). numbers: IDs, addresses and the like."""
    names = [part for name in people for group in name.split("=") for part in group.split("^")[:3]]
    words: set[str] = set()
    for value in (*names, *numbers):
        for word in re.split(r"[\s^=,;/\\\0]+", value):
            for part in (word, *word.split("-"), *re.split(r"[^\w]+|_", word)):
                words |= {form for form in _forms(part) if len(form) > 1}
    for value in numbers:
        words |= set(re.findall(rf"\d{{{_ALSO_INSIDE_WORDS},}}", value))
    return Identity(frozenset(words) - _TITLES)


def _forms(word: str) -> Iterator[str]:
    """As it is, without accents, with them spelled out, without signs, and as series names show it; in lower case."""
    small = word.casefold()
    yield "".join(map(_folded_letter, small))
    yield "".join(c for c in unicodedata.normalize("NFKD", small) if not unicodedata.combining(c))
    yield "".join(map(_folded_letter, small.translate(_GERMAN)))
    yield re.sub(r"[\W_]", "", "".join(map(_folded_letter, small)))
    plain = series_name(word, None, "").casefold() if word else ""
    if any(letter != "_" for letter in plain):
        yield plain


def _folded_letter(letter: str) -> str:
    """One letter for one letter, so that places in the folded text are places in the text."""
    base = unicodedata.normalize("NFKD", letter.lower())[:1]
    return base or letter


def _found(word: str, folded: str) -> Iterator[tuple[int, int]]:
    pattern = re.escape(word)
    if len(word) < _ALSO_INSIDE_WORDS:
        pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
    elif word.isdecimal():
        pattern = rf"(?<!\d){pattern}(?!\d)"
    for found in re.finditer(pattern, folded):
        yield found.span()
