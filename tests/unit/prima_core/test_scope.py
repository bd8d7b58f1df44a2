"""The scope check: which studies and series are read, which are set aside, and for which reason. Headers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from prima_core.base.errors import OutOfScope
from prima_core.exclusion import Exclusion
from prima_core.scope import ScopeSettings, StudySelection, kind_of, select_series
from prima_core.volume.headers import read_headers
from support.dicom_factory import SeriesFacts, StudyFacts, head_phantom, mr_slices, write, write_series, write_study

ONE = ScopeSettings(min_series=1)


def selected(paths: list[Path], settings: ScopeSettings | None = None) -> StudySelection:
    return select_series(read_headers(paths), settings)


def one_series(
    folder: Path, study: str = "MRI BRAIN", edit: Callable[[Dataset, int], None] | None = None, **facts: Any
) -> list[Path]:
    return write_series(folder, head_phantom(4, 16, 16), StudyFacts(description=study), SeriesFacts(**facts), edit=edit)


def test_a_brain_study_is_in_scope(tmp_path: Path) -> None:
    selection = selected(write_study(tmp_path))
    assert [series.images[0].series_description for series in selection.series] == ["AX FLAIR", "SAG T1", "COR T2"]
    assert selection.set_aside == ()


def test_the_real_brain_studies_are_in_scope(shared_data: Path) -> None:
    assert len(selected(sorted((shared_data / "brainix").rglob("*.dcm"))).series) == 2
    assert len(selected(sorted((shared_data / "prima_golden").rglob("*.dcm"))).series) == 3


def test_the_real_knee_is_out_of_scope_for_its_anatomy(shared_data: Path) -> None:
    with pytest.raises(OutOfScope, match=r"not a study of the head or brain.*knee") as error:
        selected(sorted((shared_data / "knee").rglob("*.dcm")))
    assert [entry.reason for entry in error.value.set_aside] == ["shows another region (knee)"]


@pytest.mark.parametrize(
    ("study", "description", "body_part", "used"),
    [
        ("MRI BRAIN", "AX T2", "", True),
        ("", "AX T2", "HEAD", True),
        ("", "BRAIN AX T2", "", True),
        ("", "AX T2", "", False),
        ("IRM DU GENOU", "AX T2", "", False),
        ("IRM DU GENOU", "AX T2", "HEAD", False),  # the body part alone does not outweigh the study's name
        ("MRI C-SPINE", "BRAIN FLAIR", "", True),
        ("MRI BRAIN", "SAG T2 C-SPINE", "HEAD", False),
        ("MRI BRAIN", "AX T2", "CSPINE", False),
        ("MRI BRAIN AND C-SPINE", "AX FLAIR", "BRAIN", True),
        ("MRI BRAIN AND C-SPINE", "AX FLAIR", "", False),
        ("MRI BRAIN", "MRA HEAD AND NECK", "HEAD", False),
    ],
)
def test_where_a_series_lies(tmp_path: Path, study: str, description: str, body_part: str, used: bool) -> None:
    paths = one_series(tmp_path, study, description=description, body_part=body_part)
    if used:
        assert len(selected(paths, ONE).series) == 1
    else:
        with pytest.raises(OutOfScope, match="head or brain"):
            selected(paths, ONE)


def test_a_head_coil_is_no_evidence(tmp_path: Path) -> None:
    paths = one_series(tmp_path, "", extra={"ReceiveCoilName": "SENSE-Head"})
    with pytest.raises(OutOfScope, match="nothing in the study says that it shows the head"):
        selected(paths, ONE)


def test_procedure_codes_and_requests_speak_for_the_study(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeMeaning = "MRT des Schädels"
    paths = one_series(tmp_path, "", extra={"ProcedureCodeSequence": [code]})
    assert len(selected(paths, ONE).series) == 1


def test_an_anatomic_region_code_speaks_for_the_series(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeMeaning = "Brain"
    assert len(selected(one_series(tmp_path, "", extra={"AnatomicRegionSequence": [code]}), ONE).series) == 1


KINDS = {
    "localiser": [
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), "x"),
        (("ORIGINAL", "PRIMARY"), "AAHead_Scout_64ch"),
        (("ORIGINAL", "PRIMARY"), "3-Plane Loc"),
        (("ORIGINAL", "PRIMARY"), "Survey"),
        (("ORIGINAL", "PRIMARY"), "Lokalisator"),
    ],
    "reformat": [
        (("DERIVED", "SECONDARY", "MPR", "CSA MPR"), "x"),
        (("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), "x"),
        (("DERIVED", "SECONDARY"), "t1_mprage_sag_MPR_Cor"),
    ],
    "projection": [
        (("DERIVED", "SECONDARY", "PROJECTION IMAGE"), "x"),
        (("DERIVED", "PRIMARY", "MNIP"), "x"),
        (("DERIVED", "PRIMARY", "M", "SWI"), "mIP_Images(SW)"),
        (("DERIVED", "PRIMARY"), "TOF_3D_MIP_SAG"),
        (("DERIVED", "PRIMARY"), "SWI minIP"),
    ],
    "screen save": [(("DERIVED", "SECONDARY", "SCREEN SAVE"), "x"), (("DERIVED", "SECONDARY"), "Screen Save")],
    "calibration scan": [(("ORIGINAL", "PRIMARY"), "ASSET Cal"), (("ORIGINAL", "PRIMARY"), "Calibration Scan")],
    "raw diffusion tensor": [(("DERIVED", "PRIMARY", "DIFFUSION", "TENSOR"), "x")],
    "spectroscopy": [(("ORIGINAL", "PRIMARY", "SPECTROSCOPY"), "x")],
    "": [
        (("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND"), "ep2d_diff_TRACEW"),
        (("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"), "ep2d_diff_ADC"),
        (("DERIVED", "SECONDARY", "COMBINED"), "Apparent Diffusion Coefficient (mm2/s)"),
        (("ORIGINAL", "PRIMARY", "M", "SWI", "NORM"), "SWI_Images"),
        (("DERIVED", "PRIMARY", "M", "ND", "DIS2D"), "t1_mprage_sag"),
        (("ORIGINAL", "PRIMARY", "M_IR", "M", "IR"), "MPRAGE SAG"),
        (("DERIVED", "SECONDARY", "M"), "AX T2"),
        (("DERIVED", "PRIMARY"), "Global location block"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "image_type", "description"), [(kind, *case) for kind, cases in KINDS.items() for case in cases]
)
def test_kinds_of_images(kind: str, image_type: tuple[str, ...], description: str) -> None:
    assert kind_of(image_type, description) == kind


def test_set_aside_series_are_listed_beside_the_used_ones(tmp_path: Path) -> None:
    study = StudyFacts()
    paths = []
    for number, name in enumerate(("AX T2", "Localizer", "AX T1", "SWI mIP"), 1):
        facts = SeriesFacts(number=number, description=name)
        paths += write_series(tmp_path, head_phantom(4, 16, 16), study, facts)
    selection = selected(paths)
    assert len(selection.series) == 2
    assert [entry.reason for entry in selection.set_aside] == ["localiser", "projection"]


def test_maps_inside_a_series_are_left_out_and_the_rest_is_used(tmp_path: Path) -> None:
    def last_is_projection(ds: Dataset, index: int) -> None:
        if index == 3:
            ds.ImageType = ["DERIVED", "SECONDARY", "MIP"]

    series = selected(one_series(tmp_path, edit=last_is_projection), ONE).series[0]
    assert len(series.images) == 3
    assert series.notes == ("1 image(s) left out: projection",)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour image"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted greyscale"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "not an MR image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "not an MR image"),
        ({"Modality": "OT"}, "not an MR image"),
        ({"VolumeBasedCalculationTechnique": "MAX_IP"}, "projection"),
        ({"Rows": 0}, "image size or number of frames missing or beyond all reason"),
    ],
)
def test_what_is_no_greyscale_mr_image_is_set_aside(tmp_path: Path, attributes: dict[str, Any], reason: str) -> None:
    def edit(ds: Dataset, index: int) -> None:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    good = write_series(tmp_path / "good", head_phantom(4, 16, 16), study := StudyFacts())
    bad = write_series(tmp_path / "bad", head_phantom(4, 16, 16), study, SeriesFacts(number=2), edit=edit)
    assert [entry.reason for entry in selected(good + bad, ONE).set_aside] == [reason]


def test_a_study_without_mr_is_out_of_scope(tmp_path: Path) -> None:
    def make_ct(ds: Dataset, index: int) -> None:
        ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"

    with pytest.raises(OutOfScope, match="no MR images"):
        selected(one_series(tmp_path, edit=make_ct))


def test_one_usable_series_is_too_few_by_default(tmp_path: Path) -> None:
    with pytest.raises(OutOfScope, match="1 usable series of the head, at least 2 needed"):
        selected(one_series(tmp_path))


def test_a_series_with_a_conflict_is_not_used(tmp_path: Path) -> None:
    paths = one_series(tmp_path)
    twin = mr_slices(head_phantom(4, 16, 16), StudyFacts())[0]
    image = read_headers(paths).images[0]
    twin.StudyInstanceUID, twin.SOPInstanceUID = image.study_instance_uid, image.sop_instance_uid
    twin.SeriesDescription = "other content"
    with pytest.raises(OutOfScope) as error:
        selected([*paths, write(twin, tmp_path / "twin.dcm")], ONE)
    assert {entry.reason for entry in error.value.set_aside} == {"two different images carry the same SOP Instance UID"}


@pytest.mark.parametrize(
    ("exclusion", "reason"),
    [
        (Exclusion(descriptions=("^mri brain$",)), "list of descriptions"),
        (Exclusion(younger_than_years=60), "age limits"),
        (Exclusion(older_than_years=50), "age limits"),
        (Exclusion(younger_than_years=18, older_than_years=90), None),
        (Exclusion(descriptions=("stealth",)), None),
    ],
)
def test_site_exclusions(tmp_path: Path, exclusion: Exclusion, reason: str | None) -> None:
    study = StudyFacts(description="MRI Brain", birth_date="19700101", study_date="20240102")  # 54 years
    paths = write_study(tmp_path, study)
    if reason is None:
        assert len(selected(paths, ScopeSettings(exclusion=exclusion)).series) == 3
    else:
        with pytest.raises(OutOfScope, match=reason):
            selected(paths, ScopeSettings(exclusion=exclusion))


def test_an_unknown_age_is_excluded_where_age_matters(tmp_path: Path) -> None:
    paths = write_study(tmp_path, StudyFacts(birth_date=""))
    with pytest.raises(OutOfScope, match="age is not known"):
        selected(paths, ScopeSettings(exclusion=Exclusion(younger_than_years=18)))
    assert len(selected(paths).series) == 3


def test_the_sites_list_is_of_study_descriptions(tmp_path: Path) -> None:
    selection = selected(write_study(tmp_path), ScopeSettings(exclusion=Exclusion(descriptions=("^sag",))))
    assert len(selection.series) == 3


def test_where_images_disagree_the_youngest_age_counts(tmp_path: Path) -> None:
    study = StudyFacts(birth_date="", age="018Y")
    younger = replace(study, age="017Y")
    paths = write_series(tmp_path / "a", head_phantom(4, 16, 16), study) + write_series(
        tmp_path / "b", head_phantom(4, 16, 16), younger
    )
    for ordered in (paths, paths[::-1]):
        assert selected(ordered, ONE).age_years == 17
        with pytest.raises(OutOfScope, match="age limits"):
            selected(ordered, ScopeSettings(exclusion=Exclusion(younger_than_years=18)))
