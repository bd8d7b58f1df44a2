"""The whole Structured Report: validated as every kind of result, and read as its receivers would.

Every document goes through `dciodvfy -new` (no Error line) and DCMTK's `dsrdump`, and is read back by highdicom, which
knows no Basic Text SR.
Not covered: how a particular viewer displays it.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from highdicom.sr import srread
from pydicom import Dataset, dcmread

from dicom_node.base.config import ReportSection, SopClass
from dicom_node.base.errors import ReportError
from dicom_node.base.types import Level, Priority, Score, StudyResult
from dicom_node.reporting import codes
from dicom_node.reporting.document import SOP_CLASSES, build_report, report_uids, variant_uid
from dicom_node.reporting.wording import Wording
from support.reports import MODEL, STUDY, dump, make_result, validate, write_study

NOTHING_FOUND = Wording("en").say("nothing_found")
NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three images of one study."""
    return write_study(tmp_path, {}, {}, {"SeriesInstanceUID": f"{STUDY}.2".encode()})


def report(result: StudyResult, paths: list[Path], folder: Path, **settings: Any) -> tuple[Dataset, str]:
    """The document as read back from its validated file, and as DCMTK renders it."""
    path = validate(build_report(result, paths, ReportSection(**settings), NOW), folder)
    document = dcmread(path)
    assert document.file_meta.MediaStorageSOPClassUID == document.SOPClassUID
    if document.SOPClassUID != SOP_CLASSES["basic_text"]:
        assert srread(str(path)).SOPInstanceUID
    return document, dump(path)


def walk(item: Dataset) -> list[Dataset]:
    """Every content item below this one, in document order."""
    found = []
    for child in item.get("ContentSequence", []):
        found += [child, *walk(child)]
    return found


def coded_values(document: Dataset, name: str) -> list[tuple[str, str]]:
    """Scheme and code of every CODE item with this concept name."""
    values = [item.ConceptCodeSequence[0] for item in named(document, name) if item.ValueType == "CODE"]
    return [(value.CodingSchemeDesignator, value.CodeValue) for value in values]


def named(document: Dataset, name: str) -> list[Dataset]:
    """Every content item with this concept name."""
    return [item for item in walk(document) if item.ConceptNameCodeSequence[0].CodeMeaning == name]


def texts(document: Dataset, name: str) -> list[str]:
    """The text of every TEXT item with this concept name."""
    return [str(item.TextValue) for item in named(document, name) if item.ValueType == "TEXT"]


def with_logits(result: StudyResult, logit: float, **changes: Any) -> StudyResult:
    """The same result with every diagnosis at this logit."""
    diagnoses = tuple(dataclasses.replace(score, logit=logit) for score in result.diagnoses)
    return dataclasses.replace(result, diagnoses=diagnoses, **changes)


@pytest.mark.parametrize("study", ["brainix", "prima_golden/GOLD0001.study"])
@pytest.mark.parametrize("sop_class", SOP_CLASSES)
def test_a_real_and_a_synthetic_study_get_a_valid_report(
    study: str, sop_class: SopClass, shared_data: Path, tmp_path: Path
) -> None:
    paths = sorted((shared_data / study).rglob("*.dcm"))
    header = dcmread(paths[0], stop_before_pixels=True)
    document, _ = report(make_result(paths), paths, tmp_path, sop_class=sop_class)
    assert document.SOPClassUID == SOP_CLASSES[sop_class]
    for keyword in ("StudyInstanceUID", "PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName"):
        assert document[keyword].value == header[keyword].value
    assert document.StudyDescription == header.StudyDescription
    assert document.PatientSex in ("", "M", "F", "O")
    assert document.Modality == "SR"


def test_the_evidence_lists_every_used_image_by_series(paths: list[Path], tmp_path: Path) -> None:
    document, _ = report(make_result(paths), paths, tmp_path)
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    listed = {
        (str(series.SeriesInstanceUID), str(image.ReferencedSOPInstanceUID))
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert listed == {(f"{STUDY}.1", f"{STUDY}.1.1"), (f"{STUDY}.1", f"{STUDY}.1.2"), (f"{STUDY}.2", f"{STUDY}.1.3")}


def test_the_report_is_preliminary_unverified_and_in_a_series_of_its_own(paths: list[Path], tmp_path: Path) -> None:
    document, _ = report(make_result(paths), paths, tmp_path, series_description="AI", series_number=77)
    assert (document.PreliminaryFlag, document.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert document.CompletionFlag == "COMPLETE"
    assert document.SeriesInstanceUID not in (f"{STUDY}.1", f"{STUDY}.2")
    assert (document.SeriesDescription, document.SeriesNumber) == ("AI", 77)


def test_each_positive_finding_has_one_group_strongest_first(paths: list[Path], tmp_path: Path) -> None:
    document, _ = report(make_result(paths), paths, tmp_path)
    assert coded_values(document, "Finding") == [("SCT", "413808003"), ("SCT", "1386000")]
    assert coded_values(document, "Presence of finding") == [("SCT", "52101004")] * 2
    assert texts(document, "Algorithm Name") == ["Prima brain MRI"] * 3
    assert texts(document, "Algorithm Version") == ["1.0"] * 3
    assert "threshold 0.3 on the logit" in texts(document, "Algorithm Parameters")
    assert texts(document, "Algorithm Parameters").count("numeric precision fp32") == 3


def test_an_uncalibrated_score_is_never_shown_as_a_probability(paths: list[Path], tmp_path: Path) -> None:
    document, shown = report(make_result(paths), paths, tmp_path)
    scores = named(document, codes.report_code("uncalibrated_score").meaning)
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in scores] == [1.221, 0.3241]
    assert scores[0].MeasuredValueSequence[0].FloatingPointValue == 1.2211902141571045
    assert not named(document, "Probability")
    assert "122157" not in shown
    assert "%" not in shown


def test_a_calibrated_score_is_a_probability_with_unit_one(paths: list[Path], tmp_path: Path) -> None:
    diagnoses = (Score("tumor_adult_glioma", 2.0, 0.1, probability=0.87),)
    document, shown = report(make_result(paths, diagnoses=diagnoses), paths, tmp_path)
    (item,) = named(document, "Probability")
    assert item.ConceptNameCodeSequence[0].CodeValue == "122157"
    value = item.MeasuredValueSequence[0]
    assert (value.NumericValue, value.MeasurementUnitsCodeSequence[0].CodeValue) == (0.87, "1")
    assert "Glioma: probability 87 %" in shown
    assert "uncalibrated" not in shown.lower()


def test_nothing_above_threshold_is_said_and_nothing_is_called_absent(paths: list[Path], tmp_path: Path) -> None:
    result = with_logits(
        make_result(paths), -1.0, referrals=(), priority=Priority(Level.ROUTINE, "priority head: none")
    )
    document, shown = report(result, paths, tmp_path)
    assert not named(document, "Measurement Group")
    assert texts(document, "Finding") == [NOTHING_FOUND]
    assert NOTHING_FOUND in texts(document, "Summary")[0]
    assert not named(document, "Recommendations")
    assert not named(document, "actionable finding")
    assert "272519000" not in shown


def test_negatives_in_summary_are_one_line(paths: list[Path], tmp_path: Path) -> None:
    document, _ = report(make_result(paths), paths, tmp_path, negatives="summary")
    assert texts(document, "Findings below threshold, not excluded") == ["Glioma"]
    assert len(named(document, "Measurement Group")) == 2


def test_all_negatives_have_a_group_that_does_not_say_absent(paths: list[Path], tmp_path: Path) -> None:
    document, shown = report(with_logits(make_result(paths), -1.0), paths, tmp_path, negatives="all")
    assert len(named(document, "Measurement Group")) == 3
    assert coded_values(document, "Presence of finding") == [("SCT", "373068000")] * 3
    assert len(texts(document, "Comment")) == 3
    assert "272519000" not in shown
    assert not texts(document, "Findings below threshold, not excluded")


def test_no_negatives_means_none(paths: list[Path], tmp_path: Path) -> None:
    _, shown = report(make_result(paths), paths, tmp_path, negatives="none")
    assert "lioma" not in shown
    assert "below threshold" not in shown


def test_every_diagnosis_at_once_is_valid_and_an_inexact_code_has_its_wording_beside_it(
    paths: list[Path], tmp_path: Path
) -> None:
    names = [
        line.split(",")[0] for line in (Path(codes.__file__).parent / "diagnoses.csv").read_text().splitlines()[1:]
    ]
    names += ["a_head_of_the_site", "脳梗塞", "z" * 90]
    result = make_result(paths, diagnoses=tuple(Score(name, 1.0, 0.0) for name in names))
    document, _ = report(result, paths, tmp_path)
    groups = named(document, "Measurement Group")
    assert len(groups) == 55
    for group, name in zip(groups, names, strict=True):
        concept = codes.diagnosis(name)
        assert coded_values(group, "Finding") == [(concept.scheme, concept.code)]
        assert texts(group, "Exact wording") == ([] if concept.exact else [concept.display])
    assert len(texts(document, "Exact wording")) == 11


@pytest.mark.parametrize(
    ("level", "priority", "category"),
    [
        (Level.CRITICAL, ("SCT", "25876001"), [("RADLEX", "RID49480")]),
        (Level.URGENT, ("SCT", "103391001"), [("RADLEX", "RID49481")]),
        (Level.ELEVATED, ("99PRIMA", "PRIORITY_ELEV"), [("RADLEX", "RID49482")]),
        (Level.ROUTINE, ("SCT", "373113001"), []),
    ],
)
def test_the_priority_is_coded_with_its_rule_and_acr_category(
    level: Level, priority: tuple[str, str], category: list[tuple[str, str]], paths: list[Path], tmp_path: Path
) -> None:
    result = make_result(paths, priority=Priority(level, "rule 7"))
    document, _ = report(result, paths, tmp_path)
    assert coded_values(document, "Priority") == [priority]
    assert coded_values(document, "actionable finding") == category
    assert texts(document, "Rule that set the priority") == [f"{level}: rule 7"]


def test_only_positive_referrals_are_recommended(paths: list[Path], tmp_path: Path) -> None:
    referrals = (Score("neurosurgery", 1.0, 0.0), Score("neurology", -1.0, 0.0), Score("haematology", 1.0, 0.0))
    document, _ = report(make_result(paths, referrals=referrals), paths, tmp_path)
    recommended = coded_values(document, "Recommendation")
    assert recommended[0] == ("SCT", "183546007")
    assert recommended[1][0] == "99PRIMA"
    assert len(recommended) == 2
    assert "Suggested: Referral to neurosurgery; Referral to haematology." in texts(document, "Summary")[0]


def test_a_partial_study_is_marked_with_its_reason(paths: list[Path], tmp_path: Path) -> None:
    reason = "closed after 30 minutes while images were still arriving, " * 3
    document, _ = report(make_result(paths, partial_reason=reason), paths, tmp_path)
    assert document.CompletionFlag == "PARTIAL"
    assert document.CompletionFlagDescription == reason[:64].strip()
    assert reason.strip() in texts(document, "Summary")[0]


def test_a_revision_names_its_predecessors(paths: list[Path], tmp_path: Path) -> None:
    first = report_uids(make_result(paths), "comprehensive_3d")
    earlier = (*first, SOP_CLASSES["comprehensive_3d"])
    document, _ = report(make_result(paths, revision=2, predecessors=(earlier,)), paths, tmp_path)
    (study,) = document.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == STUDY
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first[1]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first[0]
    assert "replaces the earlier AI report" in texts(document, "Summary")[0]


def test_a_long_series_description_never_hides_the_mark(paths: list[Path], tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, training_state="phantom")
    document, _ = report(make_result(paths, model=model), paths, tmp_path, series_description="ü" * 64)
    assert document.SeriesDescription.endswith("ü [PHANTOM, NOT FOR CLINICAL USE]")


@pytest.mark.parametrize("state", ["untrained", "phantom"])
def test_what_a_nonclinical_bundle_makes_says_so_in_series_title_and_summary(
    state: str, paths: list[Path], tmp_path: Path
) -> None:
    model = dataclasses.replace(MODEL, training_state=state)
    document, _ = report(make_result(paths, model=model), paths, tmp_path, series_description="x" * 64)
    assert document.SeriesDescription.endswith(f" [{state.upper()}, NOT FOR CLINICAL USE]")
    assert len(document.SeriesDescription) <= 64
    first = document.ContentSequence[0]
    assert first.RelationshipType == "HAS CONCEPT MOD"
    assert first.TextValue == f"NOT FOR CLINICAL USE: {state} model"
    assert f"NOT FOR CLINICAL USE: {state} model" in texts(document, "Summary")[0]


def test_a_clinical_report_carries_no_such_mark(paths: list[Path], tmp_path: Path) -> None:
    _, shown = report(make_result(paths), paths, tmp_path)
    assert "NOT FOR CLINICAL USE" not in shown


def test_the_device_is_named_by_its_uid_as_observer_and_as_contributing_equipment(
    paths: list[Path], tmp_path: Path
) -> None:
    document, _ = report(make_result(paths), paths, tmp_path, manufacturer="ACME", institution="St. Elsewhere")
    assert [item.UID for item in named(document, "Device Observer UID")] == [MODEL.device_uid]
    assert texts(document, "Device Observer Manufacturer") == ["ACME"]
    (equipment,) = document.ContributingEquipmentSequence
    assert (equipment.DeviceUID, equipment.Manufacturer) == (MODEL.device_uid, "ACME")
    assert equipment.SoftwareVersions[0] == "1.0"
    assert document.InstitutionName == "St. Elsewhere"


def test_the_private_scheme_is_declared(paths: list[Path], tmp_path: Path) -> None:
    document, _ = report(make_result(paths), paths, tmp_path)
    assert [item.CodingSchemeDesignator for item in document.CodingSchemeIdentificationSequence] == ["99PRIMA"]


def test_the_summary_opens_with_its_standing_and_ends_with_its_purpose(paths: list[Path], tmp_path: Path) -> None:
    document, _ = report(make_result(paths, notes=("one series set aside",)), paths, tmp_path)
    (summary,) = texts(document, "Summary")
    assert summary.startswith("AI RESULT, NOT VERIFIED BY A PHYSICIAN.")
    assert summary.index("Ventriculomegaly") < summary.index("Intracranial hemorrhage")
    for words in ("Reading priority: URGENT (priority head: high).", "Prima brain MRI 1.0", "precision fp32"):
        assert words in summary
    assert "Based on 3 images in 2 series." in summary
    assert "Note: one series set aside" in summary
    assert "Not for: diagnosis or treatment without a physician's own reading" in summary.split("\r\n\r\n")[-1]


def test_the_same_work_done_again_writes_the_same_document(paths: list[Path], tmp_path: Path) -> None:
    first = build_report(make_result(paths), paths, ReportSection(), NOW)
    again = build_report(make_result(paths), paths, ReportSection(), NOW)
    assert first == again
    assert (first.SOPInstanceUID, first.SeriesInstanceUID) == report_uids(make_result(paths), "comprehensive_3d")


def test_uids_differ_by_study_revision_device_and_evidence_and_stay_the_same_for_good(paths: list[Path]) -> None:
    result = make_result(paths)
    others = [
        dataclasses.replace(result, **changes)
        for changes in (
            {"revision": 2},
            {"revision": 11},
            {"study_instance_uid": f"{STUDY}.1"},
            {"model": dataclasses.replace(MODEL, device_uid="2.25.4")},
            {"sop_instance_uids": result.sop_instance_uids[:-1]},
        )
    ]
    uids = [uid for one in (result, *others) for uid in report_uids(one, "comprehensive_3d")]
    assert len(set(uids)) == len(uids)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert report_uids(result, "comprehensive_3d") == (
        "2.25.200116469385750423316215027768095092552",
        "2.25.211692326013112612134162840653745142363",
    )
    in_another_order = dataclasses.replace(result, sop_instance_uids=result.sop_instance_uids[::-1])
    assert report_uids(in_another_order, "comprehensive_3d") == report_uids(result, "comprehensive_3d")


def test_a_report_of_another_class_is_another_object(paths: list[Path]) -> None:
    uids = [report_uids(make_result(paths), sop_class)[0] for sop_class in SOP_CLASSES]
    assert len(set(uids)) == len(SOP_CLASSES)


def test_what_a_rebuilt_registry_makes_of_more_images_is_not_taken_for_the_first_report(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {}, {})
    first = build_report(make_result(paths[:1]), paths[:1], ReportSection(), NOW)
    rebuilt = build_report(make_result(paths), paths, ReportSection(), NOW)
    assert first.SOPInstanceUID != rebuilt.SOPInstanceUID
    assert first.SeriesInstanceUID != rebuilt.SeriesInstanceUID


def variant(result: StudyResult, paths: list[Path], folder: Path, sop_class: SopClass, **settings: Any) -> Dataset:
    """The variant of a report in another SOP class, as read back from its validated file."""
    return dcmread(validate(build_report(result, paths, ReportSection(**settings), NOW, sop_class), folder))


@pytest.mark.parametrize("sop_class", SOP_CLASSES)
def test_a_variant_is_an_object_of_its_own_in_the_reports_series(
    sop_class: SopClass, paths: list[Path], tmp_path: Path
) -> None:
    document, _ = report(make_result(paths), paths, tmp_path)
    other = variant(make_result(paths), paths, tmp_path, sop_class)
    assert other.SOPClassUID == SOP_CLASSES[sop_class]
    assert other.SeriesInstanceUID == document.SeriesInstanceUID
    assert texts(other, "Summary") == texts(document, "Summary")
    same = sop_class == "comprehensive_3d"
    assert (other.SOPInstanceUID == document.SOPInstanceUID) == same
    assert (other.InstanceNumber == document.InstanceNumber) == same
    assert same or other.SOPInstanceUID == variant_uid(document.SOPInstanceUID, sop_class)


def test_a_variants_predecessor_is_what_its_destination_was_sent(paths: list[Path], tmp_path: Path) -> None:
    first = make_result(paths)
    sent = variant(first, paths, tmp_path, "enhanced")
    recorded = (*report_uids(first, "comprehensive_3d"), SOP_CLASSES["comprehensive_3d"])
    second = variant(make_result(paths, revision=2, predecessors=(recorded,)), paths, tmp_path, "enhanced")
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (item,) = series.ReferencedSOPSequence
    assert series.SeriesInstanceUID == sent.SeriesInstanceUID
    assert (item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID) == (sent.SOPInstanceUID, sent.SOPClassUID)


def test_a_variants_predecessor_of_its_own_class_is_that_report(paths: list[Path], tmp_path: Path) -> None:
    recorded = (*report_uids(make_result(paths), "enhanced"), SOP_CLASSES["enhanced"])
    second = variant(make_result(paths, revision=2, predecessors=(recorded,)), paths, tmp_path, "enhanced")
    (study,) = second.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == recorded[0]


def test_basic_text_has_its_numbers_in_words(paths: list[Path], tmp_path: Path) -> None:
    diagnoses = (Score("tumor_adult_glioma", 2.0, 0.1, probability=0.87), Score("a_head_of_the_site", 1.5, 0.25))
    document, shown = report(make_result(paths, diagnoses=diagnoses), paths, tmp_path, sop_class="basic_text")
    assert {item.ValueType for item in walk(document)} == {"CONTAINER", "TEXT", "CODE", "UIDREF"}
    assert document.ContentSequence[0].RelationshipType == "HAS CONCEPT MOD"
    assert [code for _, code in coded_values(document, "Finding")] == [
        "393564001",
        codes.diagnosis(diagnoses[1].name).code,
    ]
    assert texts(document, "Finding") == [
        "Glioma: probability 87 %, threshold 0.1 on the logit.",
        "a head of the site: uncalibrated score 1.5, threshold 0.25 on the logit.",
    ]
    assert coded_values(document, "Priority") == [("SCT", "103391001")]
    assert coded_values(document, "Recommendation") == [("SCT", "183546007")]
    assert "numeric precision fp32" in shown


def test_basic_text_codes_nothing_that_is_below_its_threshold(paths: list[Path], tmp_path: Path) -> None:
    result = with_logits(make_result(paths), -1.0)
    document, _ = report(result, paths, tmp_path, sop_class="basic_text", negatives="all")
    assert coded_values(document, "Finding") == []
    below = [text for text in texts(document, "Finding") if text != NOTHING_FOUND]
    assert len(below) == 3
    assert all("This does not exclude the finding." in text for text in below)


def test_basic_text_of_a_nonclinical_bundle_says_so_first(paths: list[Path], tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, training_state="phantom")
    document, _ = report(make_result(paths, model=model), paths, tmp_path, sop_class="basic_text")
    assert document.ContentSequence[0].TextValue == "NOT FOR CLINICAL USE: phantom model"


def test_the_tracking_uid_of_a_finding_is_the_same_in_the_next_revision(paths: list[Path], tmp_path: Path) -> None:
    first, _ = report(make_result(paths), paths, tmp_path)
    second, _ = report(make_result(paths, revision=2), paths, tmp_path)
    tracked = [[item.UID for item in named(one, "Tracking Unique Identifier")] for one in (first, second)]
    assert tracked[0] == tracked[1]
    assert len(set(tracked[0])) == 2
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_times_are_in_the_time_zone_of_the_source(tmp_path: Path) -> None:
    paths = write_study(tmp_path, {"TimezoneOffsetFromUTC": b"-0330"})
    document, _ = report(make_result(paths), paths, tmp_path)
    assert (document.ContentDate, document.ContentTime) == ("20260102", "083000")
    assert document.TimezoneOffsetFromUTC == "-0330"


@pytest.mark.parametrize(
    "score",
    [Score("x", float("nan"), 0.0), Score("x", float("inf"), 0.0), Score("x", 1.0, 0.0, probability=1.5)],
)
def test_a_score_that_is_no_number_makes_no_report(score: Score, paths: list[Path]) -> None:
    with pytest.raises(ReportError, match="'x'"):
        build_report(make_result(paths, diagnoses=(score,)), paths, ReportSection(), NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"study_instance_uid": "1.2.3"}, "StudyInstanceUID"),
        ({"sop_instance_uids": (f"{STUDY}.1.1",)}, "SOPInstanceUID"),
        ({"predecessors": (("../x", "1.2", "1.3"),)}, "legal UID"),
        ({"model": dataclasses.replace(MODEL, device_uid="device")}, "legal UID"),
    ],
)
def test_a_result_that_does_not_fit_its_images_makes_no_report(
    changes: dict[str, Any], reason: str, paths: list[Path]
) -> None:
    with pytest.raises(ReportError, match=reason):
        build_report(dataclasses.replace(make_result(paths), **changes), paths, ReportSection(), NOW)


def test_hostile_words_of_a_bundle_and_a_note_stay_valid(paths: list[Path], tmp_path: Path) -> None:
    hostile = "a\\b\x00\x1b[2J\r\n\u202e" + "w" * 200
    model = dataclasses.replace(MODEL, name=hostile, version=hostile, bundle_id=hostile)
    result = make_result(
        paths,
        model=model,
        precision=hostile,
        notes=(hostile,),
        partial_reason=hostile,
        priority=Priority(Level.URGENT, hostile),
        diagnoses=(Score(hostile, 1.0, 0.0),),
        referrals=(Score(hostile, 1.0, 0.0),),
    )
    _, shown = report(result, paths, tmp_path, manufacturer=hostile[:60])
    assert "\x1b" not in shown
