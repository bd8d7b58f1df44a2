"""Pages: everything fits and is legible, nothing names the patient unasked, and the overlay is where the model looked.

How the pages look was looked at; this tests what must stay true of them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.base.config import ReportSection
from dicom_node.base.types import Level, ModelIdentity, Priority, Score, StudyResult
from dicom_node.reporting import drawing
from dicom_node.reporting.document import report_uids
from dicom_node.reporting.drawing import BLACK, MORE, RED, SIDE, Page, drawable
from dicom_node.reporting.fallback import simpler
from dicom_node.reporting.header import description
from dicom_node.reporting.key_objects import key_objects
from dicom_node.reporting.pages import Reader, heat_colours, key_slice_page, overlaid, place, side_letters, summary_page
from dicom_node.reporting.regions import regions
from dicom_node.reporting.secondary_capture import Shown, multi_frame, single_frames
from dicom_node.reporting.source import read_source
from dicom_node.reporting.wording import Wording
from dicom_node.reporting.write import write_report
from prima_core.explanation import Question
from prima_core.key_slices import ExplainedSeries, key_slices
from prima_core.prepare import prepare_series
from prima_core.scope import SeriesImages
from prima_core.volume.headers import read_image_header
from prima_core.volume.heat_map import heat_map
from prima_core.volume.series import choose_volume
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, write_enhanced, write_series
from support.reports import errors_of

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
FINDING = "tumor_adult_meningioma"
LANGUAGES = ("en", "de", "fr")


def result(**changes: Any) -> StudyResult:
    values: dict[str, Any] = {
        "study_instance_uid": "1.2.3",
        "revision": 1,
        "diagnoses": (Score(FINDING, 1.5, 0.0, 0.8), Score("tumor_adult_glioma", -1.0, 0.0, 0.1)),
        "referrals": (Score("neurosurgery", 0.5, 0.0, 0.6),),
        "priority": Priority(Level.URGENT, "priority head: high → urgent"),
        "model": ModelIdentity("bundle-1", "prima", "1", "2.25.1", "phantom"),
        "precision": "fp32",
        "sop_instance_uids": (),
    }
    return StudyResult(**(values | changes))


def explained(
    folder: Path, *, write: Any = write_series, plane: str = "axial", hot: int = 3, number: int = 1, slices: int = 0
) -> ExplainedSeries:
    """A series in which one patch speaks for the finding, or so many others at other heights do as well."""
    write(folder, head_phantom(), StudyFacts(), SeriesFacts(plane=plane, number=number))
    images = tuple(read_image_header(path) for path in sorted(folder.iterdir()))
    series = prepare_series(SeriesImages("1.2", images), 5000)
    heat = heat_map(
        series, np.linspace(1, 2, len(series.patches)) if slices else np.eye(len(series.patches))[hot] - 0.01
    )
    stack = choose_volume(images).slices
    return ExplainedSeries(
        question=Question("diagnosis", FINDING),
        series=series,
        share=1.0,
        method="LIME, 256 samples, seed 0",
        samples=256,
        fit=0.9,
        agreement=0.5,
        heat=heat,
        slices=stack,
        key=key_slices(heat, stack, slices or 2),
    )


def pages(given: StudyResult, one: ExplainedSeries, language: Any = "en", name: str = "") -> list[np.ndarray]:
    reader = Reader(Wording(language), name)
    return [summary_page(given, [one], reader), *(key_slice_page(given, one, key, reader) for key in one.key)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_whole_and_marked(tmp_path: Path, language: str) -> None:
    one = explained(tmp_path)
    for page in pages(result(), one, language):
        assert page.shape == (SIDE, SIDE, 3)
        assert page.dtype == np.uint8
        assert (page[2, 2] == RED).all(), "the banner that says that nobody has verified it"
        assert not page[60:, :8].any(), "nothing touches the left edge"
        assert not page[60:, -8:].any(), "nothing touches the right edge"
        assert not page[-6:].any(), "nothing touches the lower edge"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_longest_result_still_fits(tmp_path: Path, language: str) -> None:
    names = [f"a_head_that_a_site_named_at_length_and_numbered_{number}" for number in range(60)]
    given = result(
        diagnoses=tuple(Score(name, 1.0, 0.0) for name in names) + result().diagnoses,
        referrals=tuple(Score(f"clinic {number} for long words", 1.0, 0.0) for number in range(20)),
        priority=Priority(Level.CRITICAL, "rule 'x': " + "very long words " * 40),
        partial_reason="something went wrong " * 20,
        model=ModelIdentity("b" * 200, "m" * 200, "1", "2.25.1", "untrained"),
    )
    for page in pages(given, explained(tmp_path), language, name="Name " * 60):
        assert not page[60:, :8].any()
        assert not page[60:, -8:].any()
        assert not page[-6:].any()


def test_the_patient_is_named_only_where_the_site_asks(tmp_path: Path) -> None:
    one = explained(tmp_path)
    plain, again, named = (pages(result(), one, name=name) for name in ("", "", "Anna Müller"))
    for first, second, third in zip(plain, again, named, strict=True):
        np.testing.assert_array_equal(first, second)
        assert (first != third).any()


@pytest.mark.parametrize("series", ["Müller Anna 1970 T1 POST", "T1_MPRAGE_SAG+C for Dr. Roe"])
def test_free_text_of_the_source_is_burned_in_only_where_the_site_asks_for_the_patients_name(
    tmp_path: Path, series: str
) -> None:
    one = explained(tmp_path)
    one = replace(one, series=replace(one.series, name=series))
    [plain, asked] = [place(one, one.key[0], Reader(Wording("en"), free_text=asked)) for asked in (False, True)]
    assert series in asked
    words = plain.partition(" axial, series ")[0]
    assert words, "the sequence is recognised"
    assert set(words.split()) <= {"T1", "MPRAGE", "POST", "CONTRAST"}
    like = replace(one, series=replace(one.series, name=words.replace("POST CONTRAST", "POST")))
    for first, second in zip(pages(result(), one), pages(result(), like), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("plane", "language", "words"),
    [
        ("axial", "en", "axial, series 4: image"),
        ("coronal", "de", "koronar, Serie 4: Bild"),
        ("sagittal", "fr", "sagittal, série 4 : image"),
    ],
)
def test_a_slice_is_placed_by_plane_and_series_number(tmp_path: Path, plane: str, language: Any, words: str) -> None:
    one = explained(tmp_path, plane=plane, number=4)
    nameless = replace(one, series=replace(one.series, name="Doe"))
    assert place(nameless, nameless.key[0], Reader(Wording(language))).startswith(words)


@pytest.mark.parametrize("write", [write_series, write_enhanced])
def test_each_page_names_the_image_and_frame_that_it_shows(tmp_path: Path, write: Any) -> None:
    one = explained(tmp_path / "images", write=write, slices=3)
    assert len(one.key) == 3
    files = sorted((tmp_path / "images").iterdir())
    source = read_source(files)
    uids = tuple(image.sop_instance_uid for image in source.images)
    given = result(study_instance_uid=source.study_instance_uid, sop_instance_uids=uids)
    by_uid = {image.sop_instance_uid: image for image in source.images}
    shown = [Shown(by_uid[key.sop_instance_uid], key.frame_number) for key in one.key]
    common = given, report_uids(given, "comprehensive_3d")[0], source, ReportSection(), NOW
    whole = multi_frame(pages(given, one), shown, *common)
    path = write_report(whole, tmp_path)
    fallen = [dcmread(page) for page in simpler(path)]
    for made in (single_frames(pages(given, one), shown, *common), fallen):
        named = [
            [
                (item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber"))
                for item in page.get("SourceImageSequence", [])
            ]
            for page in made
        ]
        assert named == [[], *([(key.sop_instance_uid, key.frame_number)] for key in one.key)]
        for number, page in enumerate(made):
            page.save_as(tmp_path / f"page{number}", enforce_file_format=True)
            assert errors_of(tmp_path / f"page{number}") == []
    assert errors_of(path) == []


def test_a_name_without_glyphs_is_left_out_rather_than_shown_as_boxes(tmp_path: Path) -> None:
    assert drawable("Änne Œuvre-Łódź")
    assert not drawable("山田^太郎")
    one = explained(tmp_path)
    for first, second in zip(pages(result(), one), pages(result(), one, name="山田"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_text_is_cut_where_it_does_not_fit_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    page = Page()
    monkeypatch.setattr(page._draw, "text", lambda _at, line, *_rest, **_more: drawn.append(line))
    end = page.text("word " * 500, 100, size=20, bottom=180)
    assert end <= 180
    assert len(drawn) == 3
    assert drawn[-1].endswith(MORE)
    font = drawing._font(20, False)
    assert max(font.getlength(line) for line in drawn) <= SIDE - 2 * drawing.MARGIN


def test_only_what_speaks_for_the_finding_is_coloured() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    heat = np.array([[1.0, 0.5, 0.1, 0.0], [np.nan, -1.0, -0.2, 0.2]] * 2)
    mixed = overlaid(grey, heat, strongest=1.0)
    coloured = (mixed != grey).any(axis=2)
    np.testing.assert_array_equal(coloured[:2], [[True, True, False, False], [False, False, False, True]])
    np.testing.assert_array_equal(overlaid(grey, heat, strongest=0.0), grey)


def test_colours_grow_brighter_with_the_value() -> None:
    luminance = heat_colours(np.linspace(0, 1, 50)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luminance) > 0).all()
    assert tuple(BLACK) == (0, 0, 0)


@pytest.mark.parametrize(("plane", "letters"), [("axial", "RLAP"), ("coronal", "RLHF"), ("sagittal", "APHF")])
def test_the_sides_of_a_slice_are_named(tmp_path: Path, plane: str, letters: str) -> None:
    one = explained(tmp_path, plane=plane)
    assert "".join(side_letters(one.key[0])) == letters


def test_the_key_slice_goes_through_the_patch_that_speaks_for_the_finding(tmp_path: Path) -> None:
    one = explained(tmp_path, hot=5)
    [cell] = np.argwhere(one.heat.value_ZYX > 0)
    assert len(one.key) == 1, "nothing else speaks for it"
    assert one.key[0].plane.frame.position is not None
    assert abs(one.key[0].plane.frame.position[2] - one.heat.centre(cell)[2]) <= 2.01
    assert (one.key[0].heat > 0).any()


@pytest.mark.parametrize("write", [write_series, write_enhanced])
def test_regions_name_the_images_and_frames_they_lie_on(tmp_path: Path, write: Any) -> None:
    one = explained(tmp_path / "images", write=write)
    files = sorted((tmp_path / "images").iterdir())
    headers = {str(dcmread(path).SOPInstanceUID): path for path in files}
    given = result(study_instance_uid=str(dcmread(files[0]).StudyInstanceUID), sop_instance_uids=tuple(headers))
    uid = report_uids(given, "comprehensive_3d")[0]
    document = regions([one], 1, given, uid, read_source(files), ReportSection(), NOW)
    path = tmp_path / "regions.dcm"
    document.save_as(path, enforce_file_format=True)
    assert errors_of(path) == []
    [series] = document.ReferencedSeriesSequence
    shown = {plane.image.sop_instance_uid for plane in one.slices if one.region(plane).any()}
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == shown <= set(headers)
    for frame, mask in zip(document.PerFrameFunctionalGroupsSequence, document.pixel_array, strict=True):
        [reference] = frame.DerivationImageSequence[0].SourceImageSequence
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        number = int(reference.get("ReferencedFrameNumber", 1)) - 1
        [plane] = (
            plane
            for plane in one.slices
            if (plane.image.sop_instance_uid, plane.frame.index) == (reference.ReferencedSOPInstanceUID, number)
        )
        np.testing.assert_allclose(position, plane.frame.position)
        np.testing.assert_array_equal(mask.astype(bool), one.region(plane))
        assert mask.any()


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["ISO_IR 192"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO_IR 100"], "Müller^Änne"),
        (["ISO_IR 144"], "Иванов^Иван"),
    ],
)
def test_every_object_keeps_the_patients_name_as_it_was_written(
    tmp_path: Path, character_set: list[str], name: str
) -> None:
    def named(dataset: Dataset, _: int) -> None:
        dataset.SpecificCharacterSet = character_set
        dataset.PatientName = name

    one = explained(tmp_path / "images", write=partial(write_series, edit=named))
    files = sorted((tmp_path / "images").iterdir())
    uids = tuple(str(dcmread(path).SOPInstanceUID) for path in files)
    given = result(study_instance_uid=str(dcmread(files[0]).StudyInstanceUID), sop_instance_uids=uids)
    source, settings = read_source(files), ReportSection(language="de")
    common = given, report_uids(given, "comprehensive_3d")[0], source, settings, NOW
    shown = [Shown(source.images[number]) for number, _ in enumerate(one.key)]
    made = [
        multi_frame(pages(given, one, "de"), shown, *common),
        *single_frames(pages(given, one, "de"), shown, *common),
        key_objects(source.images[:2], Wording("de").say("unverified"), *common),
        regions([one], 1, *common),
    ]
    for number, document in enumerate(made):
        path = tmp_path / f"{number}.dcm"
        document.save_as(path, enforce_file_format=True)
        assert errors_of(path) == []
        assert dcmread(path).PatientName == name
        if document.Modality == "KO":
            texts = [element.value for element in dcmread(path).iterall() if element.keyword == "TextValue"]
            assert any("ÄRZTLICH" in text for text in texts)
            kinds = [item.ValueType for item in document.ContentSequence if "ReferencedSOPSequence" in item]
            assert kinds == ["IMAGE", "IMAGE"]


@pytest.mark.parametrize(
    "words", ["AI", "Überprüfte KI-Ergebnisse der Neuroradiologie für ärztliche Augen", "人工知能" * 16]
)
def test_no_configured_words_push_the_mark_out(words: str) -> None:
    told = description(ReportSection(series_description=words), result(revision=12), "key images")
    assert told.endswith("[PHANTOM, NOT FOR CLINICAL USE]")
    assert len(told.encode()) <= 64


def test_a_result_without_an_explained_slice_says_so(tmp_path: Path) -> None:
    one = replace(explained(tmp_path), key=())
    with_page, without = (
        summary_page(result(), [explained(tmp_path)], Reader(Wording("en"))),
        summary_page(result(), [one], Reader(Wording("en"))),
    )
    assert (with_page != without).any()
