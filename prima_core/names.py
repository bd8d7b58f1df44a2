"""Series names and study descriptions as the model reads them: text → name → letter codes. Needs no torch.

The rules are those of the published model (Lyu et al. 2025, arXiv 2509.18638): a small alphabet, lower case, and a name
composed of SeriesDescription and ProtocolName. A model reads a name that another rule made as another name, so nothing
here may be "improved".
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

ALPHABET = "abcdefghijklmnopqrstuvwxyz_+-0123456789.*(),"
PADDING, UNKNOWN, END = 0, len(ALPHABET) + 1, len(ALPHABET) + 2
CODES = END + 1  # size of the embedding table
LONGEST = 199  # characters; the end mark makes 200, the positions the released model was trained with

_CODE_OF = {letter: code for code, letter in enumerate(ALPHABET, start=1)}


def series_name(series_description: str | None, protocol_name: str | None, series_instance_uid: str) -> str:
    """The name a series is known by: its description, joined with its protocol where the two differ.

    An absent or empty attribute counts as missing; a series with neither is named after its UID.
    """
    series, protocol = _plain(series_description), _plain(protocol_name)
    if not protocol:
        return series or f"UNK-{series_instance_uid}"
    if not series:
        return f"{protocol}-Protocol"
    return series if series == protocol else f"{series}-{protocol}-Protocol"


def _plain(text: str | None) -> str:
    spelled = (text or "").replace("+", "_plus_").replace("*", "_star_")
    return re.sub(r"[^0-9A-Za-z]", "_", spelled)


def name_codes(name: str | None) -> npt.NDArray[np.int64]:
    """Letter codes of a series name or a StudyDescription, ending with the end mark: (letters + 1,) int64.

    A missing text is the end mark alone. Longer texts than `LONGEST` are cut; the end mark stays.
    """
    letters = (name or "").lower()[:LONGEST]
    return np.array([_CODE_OF.get(letter, UNKNOWN) for letter in letters] + [END], dtype=np.int64)
