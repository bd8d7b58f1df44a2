"""Lists of labels: every form a site may have, and that nothing unknown or contradictory is taken in silence."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from training.base.cohort import StudyLabels, write_labels
from training.base.errors import BadTrainingData
from training.labels.lists import finding_named, read_lists
from training.labels.terms import TERMS

DISPLAYED = Path(__file__).parents[4] / "dicom_node" / "reporting" / "diagnoses.csv"
MENINGIOMA, GLIOMA, EDEMA = "tumor_adult_meningioma", "tumor_adult_glioma", "structural_edema"
OURS = {"1.2.3": "p1", "1.2.4": "p2", "A7": "p3"}


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join([*lines, ""]), "utf-8")
    return path


def test_a_table_of_a_site(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "site.csv",
        "AccessionNumber,Reader,Meningioma,cerebral oedema,tumor_adult_glioma",
        "1.2.3,BK,yes,,0",
        "1.2.4,BK,n,X,",
        "A8,BK,1,1,1",
    )
    read = read_lists([path], OURS.get)
    assert read.labels == {
        "p1": StudyLabels({MENINGIOMA: True, GLIOMA: False}),
        "p2": StudyLabels({MENINGIOMA: False, EDEMA: True}),
    }
    assert read.unknown == ("site.csv, line 4",)
    assert read.ignored_columns == ("Reader",)
    assert read.without_positives == (f"diagnosis.{GLIOMA}",)


def test_empty_cells_count_as_absent_where_the_site_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "site.csv", "study,Meningioma,glioma", "1.2.3,x,", "1.2.4,,")
    labels = read_lists([path], OURS.get, unlisted="absent").labels
    assert labels["p1"].diagnosis == {MENINGIOMA: True, GLIOMA: False}
    assert labels["p2"].diagnosis == {MENINGIOMA: False, GLIOMA: False}


def test_text_lists_of_studies(tmp_path: Path) -> None:
    glioma = write(tmp_path, "glioma.txt", "1.2.3", "", "A7  # seen twice", "A7", "A9")
    edema = write(tmp_path, "Cerebral edema.txt", "1.2.3")
    read = read_lists([glioma, edema], OURS.get)
    assert read.labels == {"p1": StudyLabels({GLIOMA: True, EDEMA: True}), "p3": StudyLabels({GLIOMA: True})}
    assert read.unknown == ("glioma.txt, line 5",)
    assert read_lists([glioma, edema], OURS.get, "absent").labels["p3"].diagnosis == {GLIOMA: True, EDEMA: False}


def test_our_own_file_is_read_whole(tmp_path: Path) -> None:
    labels = {
        "1.2.3": StudyLabels({"my finding": True}, {"neurology": False}, "high", {"age_years": 40.5}),
        "1.2.4": StudyLabels(),
    }
    write_labels(tmp_path / "labels.csv", labels)
    assert read_lists([tmp_path / "labels.csv"]).labels == labels


def test_contradictions_name_both_places(tmp_path: Path) -> None:
    table = write(tmp_path, "site.csv", "uid,glioma", "1.2.3,no")
    listed = write(tmp_path, "glioma.txt", "# ours", "1.2.3")
    with pytest.raises(BadTrainingData, match=r"site.csv, line 2, and glioma.txt, line 2: contradict") as raised:
        read_lists([table, listed], OURS.get)
    assert "1.2.3" not in str(raised.value)
    two_names = write(tmp_path, "names.csv", "uid,glioma", "1.2.3,no", "other,yes")
    with pytest.raises(BadTrainingData, match="contradict"):
        read_lists([two_names], {"1.2.3": "p1", "other": "p1"}.get)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.csv", ["Reader,glioma", "1,1"], "no column names the study"),
        ("a.csv", ["uid,colour", "1,1"], "no column is named as a finding"),
        ("a.csv", ["uid,glioma,Glioma", "1,1,0"], "two columns are of the same finding"),
        ("a.csv", ["uid,glioma", "1,maybe"], "line 2: 'glioma' is neither yes nor no"),
        ("a.csv", ["uid,glioma", ",1"], "line 2: no study"),
        ("a.csv", ["uid,glioma"], "no lines"),
        ("colour.txt", ["1"], "named after no finding"),
    ],
)
def test_what_cannot_be_understood_is_refused(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    with pytest.raises(BadTrainingData, match=message):
        read_lists([write(tmp_path, name, *lines)])


def test_findings_go_by_key_term_and_display_name() -> None:
    with DISPLAYED.open(encoding="utf-8") as file:
        displayed = {row["display"]: row["key"] for row in csv.DictReader(file)}
    assert {name: finding_named(name) for name in displayed} == displayed
    assert {key: finding_named(key) for key in TERMS} == {key: key for key in TERMS}
    assert finding_named("GBM") == "tumor_adult_high_grade_glioma"
    assert finding_named("IntracranialHaemorrhage") == "vascular_hemorrhagic_intracranial_hemorrhage"
    for no_finding in ("Age", "Patient's Sex", "tumor", "disease", "shift", "StudyDate", ""):
        assert finding_named(no_finding) is None, no_finding
