"""Labels, reports, splits and pseudonyms: the same back as written, and every fault named with its place."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.base.cohort import (
    StudyLabels,
    StudyRecord,
    StudyReport,
    read_labels,
    read_reports,
    record_from_json,
    write_labels,
    write_reports,
)
from training.base.embeddings import Embeddings, read_embeddings, write_embeddings
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms, load_or_create_key
from training.base.splits import split_by_day, split_by_list, split_by_patient

RECORDS = [StudyRecord(f"s{n}", f"p{n // 2}") for n in range(400)]


def test_labels_come_back_as_written_and_unknown_stays_unknown(tmp_path: Path) -> None:
    labels = {
        "a": StudyLabels({"glioma": True, "abscess": False}, {"neurology": True}, "high", {"age_years": 61.5}),
        "b": StudyLabels({"glioma": False}),
    }
    write_labels(tmp_path / "labels.csv", labels)
    assert read_labels(tmp_path / "labels.csv") == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid,diagnosis.x\na,1\n", "one of them 'study'"),
        ("study,glioma\na,1\n", "column 'glioma'"),
        ("study,diagnosis.x\na,yes\n", "line 2: diagnosis.x must be 1, 0 or empty"),
        ("study,value.x\na,old\n", "line 2: value.x is not a number"),
        ("study,diagnosis.x\na,1\na,0\n", "line 3: the study is missing or named twice"),
        ("study,diagnosis.x\na,1,0\n", "line 2: the number of cells"),
        ("study,diagnosis.x\na\n", "line 2: the number of cells"),
        ("", "first line must name the columns"),
    ],
)
def test_a_faulty_label_file_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(BadTrainingData, match=message):
        read_labels(path)


def test_reports_come_back_as_written(tmp_path: Path) -> None:
    reports = {"a": StudyReport(("No infarct.", "Kein „Infarkt“.")), "b": StudyReport(())}
    write_reports(tmp_path / "reports.jsonl", reports)
    assert read_reports(tmp_path / "reports.jsonl") == reports


@pytest.mark.parametrize("line", ["{", "[]", '{"study": "a"}', '{"study": "a", "items": 3}'])
def test_a_faulty_report_is_refused_by_line_without_its_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "reports.jsonl"
    path.write_text('{"study": "x", "items": []}\n' + line + "\n")
    with pytest.raises(BadTrainingData, match="line 2: not a report"):
        read_reports(path)


def test_a_record_survives_json() -> None:
    record = StudyRecord("s", "p", date(2026, 3, 1), 61.0, "F", "SIEMENS", "a", 3.0)
    assert record_from_json(record.as_json()) == record
    with pytest.raises(BadTrainingData):
        record_from_json({"study": "s", "patient": "p", "name": "x"})


def test_no_patient_is_in_two_parts_and_newcomers_move_nobody() -> None:
    patient_of = {record.study: record.patient for record in RECORDS}
    split = split_by_patient(RECORDS[:200], validation=0.2, test=0.2)
    parts = [{patient_of[study] for study in part} for part in (split.train, split.validation, split.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 100
    later = split_by_patient(RECORDS, validation=0.2, test=0.2)
    assert set(split.train) <= set(later.train)
    assert set(split.test) <= set(later.test)


def test_a_list_that_splits_a_patient_is_refused() -> None:
    with pytest.raises(BadTrainingData, match="patient p0 is in train and in test"):
        split_by_list(RECORDS, {"s0": "train", "s1": "test"})
    with pytest.raises(BadTrainingData, match="unknown part 'dev'"):
        split_by_list(RECORDS, {"s0": "dev"})
    assert split_by_list(RECORDS, {"s0": "train", "s1": "train", "s2": "test"}).train == ("s0", "s1")


def test_a_prospective_split_tests_on_later_studies_of_other_patients() -> None:
    def on(study: str, patient: str, day: int) -> StudyRecord:
        return StudyRecord(study, patient, date(2026, 1, day))

    records = [on("late", "a", 20), on("early", "a", 1), on("mid", "b", 10), on("new", "c", 21), StudyRecord("?", "d")]
    split = split_by_day(records, date(2026, 1, 5), date(2026, 1, 15))
    assert (split.train, split.validation, split.test) == (("early",), ("mid",), ("new",))
    with pytest.raises(BadTrainingData):
        split_by_day(records, date(2026, 1, 15), date(2026, 1, 5))


def test_a_key_is_made_once_for_its_owner_alone_and_never_shown(tmp_path: Path) -> None:
    first = load_or_create_key(tmp_path / "key")
    assert load_or_create_key(tmp_path / "key") == first
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert first.key.hex() not in repr(first)
    assert str(first.key) not in repr(first)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(BadTrainingData):
        load_or_create_key(tmp_path / "key")


@given(days=st.lists(st.dates(date(1990, 1, 1), date(2030, 1, 1)), min_size=2, max_size=2), key=st.binary(min_size=32))
def test_shifted_days_keep_weekday_order_and_distance(days: list[date], key: bytes) -> None:
    shifted = [Pseudonyms(key).day(day) for day in days]
    assert shifted[0] - shifted[1] == days[0] - days[1]
    assert [day.weekday() for day in shifted] == [day.weekday() for day in days]
    assert shifted != days


def test_the_same_embeddings_give_the_same_file(tmp_path: Path) -> None:
    embeddings = Embeddings(("a", "b"), np.ones((2, 3), np.float32), np.zeros((2, 0), np.float32), "model")
    for number in range(8):
        write_embeddings(tmp_path / f"{number}.safetensors", embeddings)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1
    back = read_embeddings(tmp_path / "0.safetensors")
    assert (back.studies, back.model, back.digest()) == (("a", "b"), "model", embeddings.digest())


def test_another_key_gives_other_pseudonyms() -> None:
    one, other = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
    assert one.study("1.2.3") != other.study("1.2.3")
    assert one.patient("a", "b") != one.patient("ab", "")
    assert one.study("1.2.3") != one.patient("1.2.3")
