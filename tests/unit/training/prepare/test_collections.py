"""The layouts of MR-RATE and BIDS, on small trees of the same layout; archives and tables that lie are refused."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from prima_core.base.errors import OutOfScope
from prima_core.exclusion import Exclusion
from prima_core.random_weights import DIAGNOSES
from prima_core.scope import ScopeSettings
from support.dicom_factory import head_phantom
from training.base.cohort import StudyLabels, StudyReport
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.prepare import mr_rate
from training.prepare.bids import Bids
from training.prepare.known import read_known
from training.prepare.mr_rate import BROADER, EQUAL, NARROWER, MrRate, labels_of
from training.prepare.run import fill_store
from training.prepare.store import TokenStore

KEY = Pseudonyms(b"c" * 32)
AFFINE = np.diag([-1.0, -1.0, 4.0, 1.0])
HEAD = head_phantom(16, 128, 128).T
SERIES = {"t1w-raw-axi": "T1w", "t2w-raw-axi-2": "T2w"}


def nifti(path: Path, values: Any = HEAD) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return path.read_bytes()


def table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two batches, three studies; U3 has no brain in its masks."""
    root = tmp_path / "mr-rate"
    image, brain = nifti(tmp_path / "i.nii.gz"), nifti(tmp_path / "b.nii.gz", (HEAD > 50).astype(np.uint8))
    nothing = nifti(tmp_path / "n.nii.gz", np.zeros_like(HEAD, np.uint8))
    for batch, studies in {"batch00": ["U1", "U2"], "batch01": ["U3"]}.items():
        for uid in studies:
            path = root / "mri" / batch / f"{uid}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w") as archive:
                for series in SERIES:
                    archive.writestr(f"{uid}/img/{uid}_{series}.nii.gz", image)
                    mask = nothing if uid == "U3" else brain
                    archive.writestr(f"{uid}/seg/{uid}_{series}_brain-mask.nii.gz", mask)
                    archive.writestr(f"{uid}/seg/{uid}_{series}_defacing-mask.nii.gz", b"not read")
        rows = [
            {
                "patient_uid": f"P{uid}",
                "study_uid": uid,
                "series_id": series,
                "classified_modality": modality,
                "acquisition_plane": "axial",
                "anon_study_date": "2021-03-04",
                "Patient'sAge": "093Y",
                "Patient'sSex": "F",
                "FieldStrength_T": "3.0",
                "Manufacturer": "Siemens Healthineers",
            }
            for uid in studies
            for series, modality in SERIES.items()
        ]
        table(root / "metadata" / f"{batch}_metadata.csv", rows)
    reports = [
        {"study_uid": "U1", "report": "x", "findings": "Mass of [patient_1]. No bleed.", "impression": "Glioma."},
        {"study_uid": "U2", "report": "All normal.", "findings": "", "impression": ""},
    ]
    table(root / "reports" / "batch00_reports.csv", reports)
    labels = {"Glioma (disorder)": "1", "Cerebral hemorrhage": "0", "Cerebral infarction": "0", "Gliosis": "1"}
    table(root / "pathology_labels" / "mrrate_labels.csv", [{"study_uid": "U1", **labels}])
    splits = [("U1", "train"), ("U2", "val"), ("U3", "test")]
    rows = [{"batch_id": "0", "patient_uid": f"P{u}", "study_uid": u, "split": s} for u, s in splits]
    table(root / "splits.csv", rows)
    return root


def test_mr_rate_becomes_a_store(collection: Path, tmp_path: Path) -> None:
    source = MrRate(collection, KEY)
    assert source.references() == ["batch00/U1", "batch00/U2", "batch01/U3"]
    result = fill_store(source, tmp_path / "store", workers=0, quiet=True)
    assert (result.stored, sum(result.refused.values())) == (2, 1)
    store = TokenStore(tmp_path / "store")
    [record] = [record for record in store.records if record.study == KEY.study("U1")]
    assert (record.patient, record.day) == (KEY.patient("PU1"), KEY.day(date(2021, 3, 4)))
    assert (record.age_years, record.sex, record.vendor, record.field_strength) == (89.0, "F", "SIEMENS", 3.0)
    assert store.reports() == {
        KEY.study("U1"): StudyReport(("Mass of [patient_1].", "No bleed.", "Glioma.")),
        KEY.study("U2"): StudyReport(("All normal.",)),
    }
    assert store.labels() == {
        KEY.study("U1"): StudyLabels(
            {"tumor_adult_glioma": True, "vascular_ischemic_large_vessel_stroke": False},
            value={"cerebral_hemorrhage": 0.0, "cerebral_infarction": 0.0, "gliosis": 1.0},
        )
    }
    assert source.parts() == {KEY.study("U1"): "train", KEY.study("U2"): "validation", KEY.study("U3"): "test"}
    assert source.unmapped() == ("Cerebral hemorrhage", "Cerebral infarction", "Gliosis")


def test_a_series_goes_by_its_id_and_modality(collection: Path, tmp_path: Path) -> None:
    found = MrRate(collection, KEY).fetch("batch00/U1", tmp_path)
    assert [series.name for series in found.prepared.series] == ["t1w_raw_axi-T1w-Protocol", "t2w_raw_axi-T2w-Protocol"]
    assert [series.thin_axis for series in found.prepared.series] == [0, 0]


def test_volumes_without_a_brain_are_set_aside(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfScope, match="0 series of the head") as caught:
        MrRate(collection, KEY).fetch("batch01/U3", tmp_path)
    assert {one.reason for one in caught.value.set_aside} == {"no brain mask says that it shows the head"}


def test_the_site_exclusions_hold(collection: Path, tmp_path: Path) -> None:
    settings = ScopeSettings(exclusion=Exclusion(older_than_years=90))
    with pytest.raises(OutOfScope):
        MrRate(collection, KEY, settings).fetch("batch00/U1", tmp_path)


def test_labels_mean_what_they_say() -> None:
    everything = dict.fromkeys([*EQUAL, *NARROWER, *BROADER], "1")
    present = labels_of(everything)
    assert set(present.diagnosis) == {*EQUAL.values(), *NARROWER.values()}
    absent = labels_of(dict.fromkeys(everything, "0"))
    assert set(absent.diagnosis) == {*EQUAL.values(), *BROADER.values()}
    assert {*EQUAL.values(), *NARROWER.values(), *BROADER.values()} <= set(DIAGNOSES)
    assert labels_of({"study_uid": "x", "Rathke's pouch cyst": "1"}).diagnosis == {"sellar_rathkes_cleft_cyst": True}
    with pytest.raises(BadTrainingData, match="Glioma is not 0 or 1"):
        labels_of({"Glioma": "yes"})


def test_hostile_archives_write_nothing_outside_and_nothing_large(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    image = (tmp_path / "i.nii.gz").read_bytes()
    archive_path = collection / "mri" / "batch00" / "U1.zip"
    with zipfile.ZipFile(archive_path, "w") as archive:
        for name in ("../../evil.nii.gz", "/evil.nii.gz", "U1/img/../../evil.nii.gz", "U1/img/U1_evil.nii.gz"):
            archive.writestr(name, image)
    with pytest.raises(OutOfScope):
        MrRate(collection, KEY).fetch("batch00/U1", scratch)
    assert not list(tmp_path.rglob("*evil*"))
    monkeypatch.setattr(mr_rate, "LARGEST_MEMBER", 1000)
    with pytest.raises(BadTrainingData, match="larger than any volume"):
        MrRate(collection, KEY).fetch("batch00/U2", scratch)
    archive_path.write_bytes(b"PK no zip")
    with pytest.raises(BadTrainingData, match="the archive cannot be read"):
        MrRate(collection, KEY).fetch("batch00/U1", scratch)


def test_a_study_without_metadata_is_refused(collection: Path, tmp_path: Path) -> None:
    (collection / "mri" / "batch00" / "U9.zip").write_bytes(b"")
    with pytest.raises(BadTrainingData, match="metadata do not name"):
        MrRate(collection, KEY).fetch("batch00/U9", tmp_path)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Two subjects, one of them with two sessions, one of which holds one volume."""
    root = tmp_path / "bids"
    side_car = {
        "SeriesDescription": "AX T2 ANNA",
        "ProtocolName": "t2",
        "Manufacturer": "Philips",
        "MagneticFieldStrength": 1.5,
        "InstitutionName": "General",
        "PatientName": "Doe^Anna",
    }
    for session, suffixes in {"sub-01/ses-1": "T1w T2w", "sub-01/ses-2": "T1w", "sub-02": "T1w FLAIR"}.items():
        stem = session.replace("/", "_")
        for suffix in suffixes.split():
            nifti(root / session / "anat" / f"{stem}_{suffix}.nii.gz")
            if suffix == "T2w":
                (root / session / "anat" / f"{stem}_{suffix}.json").write_text(json.dumps(side_car))
    (root / "participants.tsv").write_text("participant_id\tsex\tage\nsub-01\tF\t54\nsub-02\tM\tn/a\n")
    nifti(root / "derivatives" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    return root


def test_bids_becomes_a_store(bids: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("study,diagnosis.glioma\nsub-01_ses-1,1\nsub-02,0\n")
    source = Bids(bids, KEY, read_known(tmp_path / "labels.csv"))
    assert source.references() == ["sub-01/ses-1", "sub-01/ses-2", "sub-02"]
    result = fill_store(source, tmp_path / "store", workers=0, quiet=True)
    assert (result.stored, sum(result.refused.values())) == (2, 1)
    store = TokenStore(tmp_path / "store")
    by_study = {record.study: record for record in store.records}
    one, other = by_study[KEY.study("sub-01/ses-1")], by_study[KEY.study("sub-02")]
    assert (one.age_years, one.sex, one.vendor, one.field_strength) == (54.0, "F", "Philips", 1.5)
    assert (other.age_years, other.sex, other.vendor, other.site) == (None, "M", "", "")
    assert one.patient == KEY.patient("sub-01")
    assert one.site not in ("", "General")
    assert store.labels()[KEY.study("sub-01/ses-1")] == StudyLabels({"glioma": True})


def test_series_go_by_their_side_cars_without_the_patient(bids: Path, tmp_path: Path) -> None:
    found = Bids(bids, KEY).fetch("sub-01/ses-1", tmp_path)
    assert [series.name for series in found.prepared.series] == ["T1w", "AX_T2_-t2-Protocol"]


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_a_side_car_that_is_no_object_is_named(bids: Path, tmp_path: Path, text: str) -> None:
    (bids / "sub-02" / "anat" / "sub-02_T1w.json").write_text(text)
    with pytest.raises(BadTrainingData, match="side-car"):
        Bids(bids, KEY).fetch("sub-02", tmp_path)


@pytest.mark.parametrize("source", [MrRate, Bids])
def test_a_folder_of_another_layout_is_named(tmp_path: Path, source: type[MrRate] | type[Bids]) -> None:
    with pytest.raises(BadTrainingData, match=str(tmp_path)):
        source(tmp_path, KEY).references()
