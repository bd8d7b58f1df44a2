"""Names → codes: the alphabet, composed series names, cutting. Golden codes are in the acceptance tests too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prima_core.names import END, LONGEST, UNKNOWN, name_codes, series_name
from support.golden import GoldenStudy


@pytest.mark.parametrize(
    ("series", "protocol", "expected"),
    [
        ("COR T2 FSE+C", None, "COR_T2_FSE_plus_C"),
        ("T2* ax", "", "T2_star__ax"),
        ("AX FLAIR", "AX FLAIR", "AX_FLAIR"),
        ("AX-FLAIR", "AX FLAIR", "AX_FLAIR"),
        ("T2W/FE-EPI", "T2W/FE-EPI SENSE", "T2W_FE_EPI-T2W_FE_EPI_SENSE-Protocol"),
        (None, "Hirn", "Hirn-Protocol"),
        (None, None, "UNK-1.2.3"),
        ("", "", "UNK-1.2.3"),
        ("céré", None, "c_r_"),
    ],
)
def test_series_name_is_composed_as_the_model_learned_it(
    series: str | None, protocol: str | None, expected: str
) -> None:
    assert series_name(series, protocol, "1.2.3") == expected


def test_letters_become_codes_of_the_alphabet() -> None:
    assert name_codes("Az_+-09.*(), é/").tolist() == [
        *(1, 26, 27, 28, 29, 30, 39, 40, 41, 42, 43, 44),
        *(UNKNOWN, UNKNOWN, UNKNOWN, END),
    ]


@pytest.mark.parametrize("missing", [None, ""])
def test_missing_text_is_the_end_mark_alone(missing: str | None) -> None:
    assert name_codes(missing).tolist() == [END]


@given(st.text(max_size=300))
def test_codes_end_with_the_only_end_mark_and_are_never_longer_than_the_positions(text: str) -> None:
    codes = name_codes(text)
    assert len(codes) <= LONGEST + 1
    assert (codes == END).sum() == 1
    assert codes[-1] == END
    assert codes.min() >= 1


def test_golden_codes(golden: GoldenStudy) -> None:
    for number, series in enumerate(golden.study.series):
        codes = name_codes(series.name)
        expected = golden.tensors[f"series{number}.name_codes"]
        np.testing.assert_array_equal(codes, expected[: len(codes)])
        assert not expected[len(codes) :].any()
    expected = golden.tensors["study_description_codes"]
    np.testing.assert_array_equal(name_codes(golden.study.description), expected)
