"""What a series' name says of its MR sequence, in words of a list: free text may name people, these words do not."""

from __future__ import annotations

import re

#: As they are written → how they are often spelt. The order is that in which they are named.
SEQUENCES = {
    "T1": "T1W?",
    "T2*": r"T2W?\*|T2[_ -]?STAR",
    "T2": r"T2W?(?!\*|[_ -]?STAR)",
    "PD": "PDW?",
    "FLAIR": "FLAIR",
    "STIR": "STIR",
    "DWI": "DWI|DIFF(?:USION)?",
    "DTI": "DTI",
    "ADC": "ADC",
    "SWI": "SWI|SWAN",
    "GRE": "GRE|FFE",
    "MPRAGE": r"MP[_ -]?RAGE",
    "SPGR": "F?SPGR|BRAVO",
    "TSE": "[TF]SE",
    "TOF": "TOF",
    "MRA": "MRA|ANGIO",
    "ASL": "ASL",
    "PERFUSION": "PERF(?:USION)?|DSC|DCE",
    "3D": "3D",
    "POST CONTRAST": r"POST|GD|GAD|\+C|CE",
}
# No letter and no digit on either side.
_PATTERNS = {
    word: re.compile(rf"(?<![A-Z0-9])(?:{spelt})(?![A-Z0-9])", re.IGNORECASE) for word, spelt in SEQUENCES.items()
}


def sequence_words(name: str) -> list[str]:
    """The words of the list that a name holds."""
    return [word for word, pattern in _PATTERNS.items() if pattern.search(name)]
