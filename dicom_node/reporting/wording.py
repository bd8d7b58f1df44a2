"""What a report says in words, in the language that the site set (`report.language`).

Three packaged tables, with a column for each language: `wordings.csv` holds the report's own words by key, `names.csv`
what readers call the diagnoses and referrals, `sentences.csv` the English sentences that come from elsewhere in the
node (rules, notes, reasons), in which `{…}` stands for a number or
any text. What no table knows, such as a head that a site
trained itself, stays in its own words. Codes and their meanings are never translated.

All words fit ISO_IR 100 (Latin 1): reports on studies in that character set stay in it.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources

from dicom_node.base.config import Language
from dicom_node.base.types import Level
from dicom_node.reporting.codes import Concept, diagnosis, printable, referral

FIELD = re.compile(r"\{(\w+)\}")
NUMBERS = {"count", "step", "slices", "patches", "least", "side", "limit", "samples", "seed"}
NUMBER, ANY = r"\d+", ".+"
REFERRAL = "referral_"


@dataclass(frozen=True)
class Wording:
    """The words of one language."""

    language: Language

    def say(self, key: str, **values: object) -> str:
        """The words of this key, with the values in their places. Raises KeyError on an unknown key."""
        return _words(self.language)[key].format(**values)

    def count(self, key: str, count: int, **values: object) -> str:
        """The words for one or for many."""
        return self.say(f"{key}_{'one' if count == 1 else 'many'}", count=count, **values)

    def level(self, level: Level) -> str:
        """A reading priority as people say it."""
        return self.say(f"level_{level.value}")

    def state(self, training_state: str) -> str:
        """What kind of model one in this training state is."""
        key = f"state_{training_state}"
        return self.say(key if key in _words(self.language) else "state_other", state=printable(training_state))

    def join(self, texts: Iterable[str]) -> str:
        """Several texts as one list."""
        return self.say("joint").join(texts)

    def name(self, concept: Concept) -> str:
        """What readers call the concept."""
        return _names(self.language).get(concept.display, concept.display)

    def exact(self, concept: Concept) -> str:
        """The precise English words for what a code does not say exactly, and what readers call it."""
        name = self.name(concept)
        return concept.display if name == concept.display else f"{concept.display} ({name})"

    def number(self, value: float, form: str) -> str:
        """The number with the language's decimal sign. form: a format specification, e.g. `.3g`."""
        text = format(value, form)
        return text if self.language == "en" else text.replace(".", ",")

    def told(self, text: str) -> str:
        """A sentence from elsewhere in the node, on one line; unchanged where the table does not know it."""
        line = printable(text).replace(" → ", " -> ")
        return self._known(line) or line

    def note(self, text: str) -> str:
        """A note: a sentence, or one behind a series' name and a colon."""
        line = self.told(text)
        if line == printable(text):
            for colon in re.finditer(": ", line):
                known = self._known(line[colon.end() :])
                if known:
                    return line[: colon.end()] + known
        return line

    def _known(self, line: str) -> str | None:
        for pattern, words in _sentences(self.language):
            match = pattern.fullmatch(line)
            if match:
                return words.format(**{name: self._field(name, text) for name, text in match.groupdict().items()})
        return None

    def _field(self, name: str, text: str) -> str:
        """A text within a sentence, by the name of its place."""
        if name == "level" and text in set(Level):
            return self.level(Level(text))
        if name == "finding":
            return _meanings(self.language).get(text, text)
        if name == "regions":
            return ", ".join(self.told(region) for region in text.split(", "))
        return self.told(text) if name in ("reason", "method") else text


@functools.cache
def _words(language: Language) -> dict[str, str]:
    return {row["key"]: row[language] for row in _rows("wordings.csv")}


@functools.cache
def _names(language: Language) -> dict[str, str]:
    """The English words for a head → what readers call it."""
    return {concept.display: name for concept, name in _named(language)}


@functools.cache
def _meanings(language: Language) -> dict[str, str]:
    """The meaning of a code → what readers call the head, where the code means just that."""
    return {concept.meaning: name for concept, name in _named(language) if concept.exact}


def _named(language: Language) -> Iterator[tuple[Concept, str]]:
    if language == "en":
        return
    for row in _rows("names.csv"):
        key = row["key"]
        concept = referral(key.removeprefix(REFERRAL)) if key.startswith(REFERRAL) else diagnosis(key)
        yield concept, row[language]


@functools.cache
def _sentences(language: Language) -> list[tuple[re.Pattern[str], str]]:
    """Patterns of English sentences and their translations; those without a place for any text come first."""
    if language == "en":
        return []
    rows = sorted(_rows("sentences.csv"), key=lambda row: len(FIELD.findall(row["en"])))
    return [(re.compile(_pattern(row["en"])), row[language]) for row in rows]


def _pattern(sentence: str) -> str:
    parts = FIELD.split(sentence)  # text, name, text, name, …, text
    return "".join(
        f"(?P<{part}>{NUMBER if part in NUMBERS else ANY})" if at % 2 else re.escape(part)
        for at, part in enumerate(parts)
    )


def _rows(filename: str) -> list[dict[str, str]]:
    text = resources.files(__package__).joinpath(filename).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
