"""What a Key Object Selection says, and that none, however it is made, stops the reading of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from dicom_node.base.types import KeyObjects, Rejection
from dicom_node.intake import key_objects
from dicom_node.intake.key_objects import read_apart, read_key_objects
from support.dicom_factory import StudyFacts, head_phantom, mr_slices, write
from support.rejections import rejection_note

IMAGES = mr_slices(head_phantom(3, 16, 16), StudyFacts())


def places(images: list[Dataset]) -> tuple[tuple[str, str, str], ...]:
    return tuple((str(i.StudyInstanceUID), str(i.SeriesInstanceUID), str(i.SOPInstanceUID)) for i in images)


@pytest.mark.parametrize("rejection", list(Rejection))
def test_a_rejection_says_why_and_what(tmp_path: Path, rejection: Rejection) -> None:
    path = write(rejection_note(IMAGES[:2], rejection), tmp_path / "note.dcm")
    assert read_key_objects(path) == KeyObjects(rejection, places(IMAGES[:2]))


def test_another_title_rejects_nothing(tmp_path: Path) -> None:
    note = rejection_note(IMAGES, None)
    assert read_key_objects(write(note, tmp_path / "note.dcm")) == KeyObjects(None)
    note = rejection_note(IMAGES, Rejection.QUALITY)
    note.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99SITE"
    assert read_key_objects(write(note, tmp_path / "private.dcm")) == KeyObjects(None)


def test_only_what_the_content_names_and_the_evidence_places_counts(tmp_path: Path) -> None:
    note = rejection_note(IMAGES, Rejection.QUALITY)
    kept = [item for item in note.ContentSequence if not same(item, IMAGES[0])]
    note.ContentSequence = Sequence(kept)
    assert read_key_objects(write(note, tmp_path / "note.dcm")) == KeyObjects(Rejection.QUALITY, places(IMAGES[1:]))


def same(item: Dataset, image: Dataset) -> bool:
    return any(one.ReferencedSOPInstanceUID == image.SOPInstanceUID for one in item.get("ReferencedSOPSequence", ()))


def without_title(note: Dataset) -> None:
    del note.ConceptNameCodeSequence


def with_bad_uid(note: Dataset) -> None:
    series = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "../../etc/passwd"


@pytest.mark.parametrize("damage", [without_title, with_bad_uid])
def test_a_note_with_something_missing_or_illegal_is_not_half_believed(tmp_path: Path, damage: object) -> None:
    note = rejection_note(IMAGES, Rejection.QUALITY)
    damage(note)  # type: ignore[operator]
    assert read_key_objects(write(note, tmp_path / "note.dcm")) is None


def test_no_dicom_and_too_much_of_it_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.dcm").write_bytes(b"no DICOM at all" * 100)
    assert read_key_objects(tmp_path / "text.dcm") is None
    path = write(rejection_note(IMAGES, Rejection.QUALITY), tmp_path / "note.dcm")
    for name in ("MAX_BYTES", "MAX_PARSED_BYTES", "MAX_REFERENCES"):
        with monkeypatch.context() as smaller:
            smaller.setattr(key_objects, name, 2)
            assert read_key_objects(path) is None


def test_each_is_answered_beside_unreadable_and_missing_ones(tmp_path: Path) -> None:
    good = write(rejection_note(IMAGES, Rejection.SAFETY), tmp_path / "good.dcm")
    (tmp_path / "bad.dcm").write_bytes(bytes(1000))
    answers = read_apart([tmp_path / "bad.dcm", tmp_path / "missing.dcm", good])
    assert answers == [(True, None), (False, None), (True, KeyObjects(Rejection.SAFETY, places(IMAGES)))]


def test_a_document_that_ends_the_reader_counts_as_unreadable_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_objects.sys, "executable", "/bin/false")
    assert read_apart([tmp_path / "one.dcm", tmp_path / "two.dcm"]) == [(True, None)]


def test_deep_nesting_is_unreadable(tmp_path: Path) -> None:
    note = rejection_note(IMAGES, Rejection.QUALITY)
    del note.ContentSequence
    path = write(note, tmp_path / "deep.dcm")
    begin = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    with path.open("ab") as file:
        file.write(begin * 20000 + end * 20000)
    assert read_apart([path]) == [(True, None)]
