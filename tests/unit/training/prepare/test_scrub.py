"""What tells who the patient is goes from texts; what describes the images stays."""

from __future__ import annotations

import pytest

from training.prepare.scrub import identity_of, without_numbers


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("AX_T2_FLAIR_3mm_b0_50_400_800", "AX_T2_FLAIR_3mm_b0_50_400_800"),
        ("UNK-1.2.840.113619.2.55.3.604688", "UNK-"),
        ("1_2_840_113619_2_55_3_Protocol", "_Protocol"),
        ("MRI BRAIN 12.03.2021 follow-up of 2020-11-01", "MRI BRAIN  follow-up of "),
        ("T1_20210312_ax", "T1__ax"),
        ("12345 is no ID, 123456 may be", "12345 is no ID,  may be"),
        ("lesion of 12 x 10 x 8 mm, 3.2.1", "lesion of 12 x 10 x 8 mm, 3.2.1"),
    ],
)
def test_uids_dates_and_long_numbers_go(text: str, left: str) -> None:
    assert without_numbers(text) == left


@pytest.mark.parametrize(
    ("person", "number", "text", "left"),
    [
        ("Müller^Jörg", "", "Mueller Joerg MRI BRAIN", "MRI BRAIN"),
        ("Müller^Jörg", "", "M_ller_Muller_MÜLLER_AX", "___AX"),
        ("Müller^Jörg", "", "xMULLERx", "xx"),
        ("Li^An", "", "LI_axial_line_An_T1", "_axial_line__T1"),
        ("SMITH^JOHN^^Mr", "", "MR BRAIN SMITHS JOHN", "MR BRAIN S"),
        ("O'Neil-Smith^Ann", "", "oneil O'NEIL O_Neil_smith T1", "T1"),
        ("山田^太郎=ヤマダ^タロウ", "", "脳 山田 MR", "脳  MR"),
        ("", "PAT-4711/X", "T1_4711_pat", "T1__"),
        ("", "0042", "b1000_0042_TR10042", "b1000__TR10042"),
        ("", "A", "A plain axial", "A plain axial"),
        ("", "", "MRI BRAIN", "MRI BRAIN"),
    ],
)
def test_words_of_the_patient_go(person: str, number: str, text: str, left: str) -> None:
    assert identity_of([person], [number]).scrubbed(text) == left


def test_the_words_are_not_printed() -> None:
    assert "smith" not in repr(identity_of(["Smith"]))
