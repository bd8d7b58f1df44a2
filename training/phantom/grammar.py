"""A small grammar of sentences: pattern + facts + random numbers → text.

    {slot}        the slot's text; {Slot}: with a capital letter
    (a|b|c)       one of them
    [ … ]         left out when one of its slots is empty, and whole otherwise

A pattern with an empty slot outside brackets does not fit, and is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

_OPTION = re.compile(r"\[([^\[\]]*)\]")
_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


def say(patterns: Sequence[str], slots: Mapping[str, str], generator: np.random.Generator) -> str:
    """One of the patterns that fit, filled. Raises KeyError for an unknown slot, ValueError when no pattern fits."""
    fitting = [pattern for pattern in patterns if fits(pattern, slots)]
    if not fitting:
        raise ValueError("no pattern fits what is known")
    pattern = fitting[int(generator.integers(len(fitting)))]
    pattern = _OPTION.sub(lambda match: match[1] if _filled(match[1], slots) else "", pattern)
    pattern = _CHOICE.sub(lambda match: _one(match[1].split("|"), generator), pattern)
    return sentence(_SLOT.sub(lambda match: _text(match[1], slots), pattern))


def fits(pattern: str, slots: Mapping[str, str]) -> bool:
    """Whether all slots outside brackets are filled."""
    return _filled(_OPTION.sub("", pattern), slots)


def sentence(text: str) -> str:
    """With a capital letter and without double spaces."""
    text = re.sub(r"\s+", " ", text).strip()
    return text[:1].upper() + text[1:]


def _filled(pattern: str, slots: Mapping[str, str]) -> bool:
    return all(slots[name.lower()] for name in _SLOT.findall(pattern))


def _text(name: str, slots: Mapping[str, str]) -> str:
    return sentence(slots[name.lower()]) if name[0].isupper() else slots[name]


def _one(choices: Sequence[str], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]
