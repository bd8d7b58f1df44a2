"""MR-RATE (Forithmus and University of Zurich): zips of NIfTI volumes, metadata, reports, labels and splits as CSV.

    mri/batchNN/<study_uid>.zip     <study_uid>/img/<study_uid>_<series_id>.nii.gz, …/seg/…_brain-mask.nii.gz
    metadata/batchNN_metadata.csv   one row a series     reports/batchNN_reports.csv        one row a study
    splits.csv                      parts by patient     pathology_labels/mrrate_labels.csv one row a study

A series' name is its id and its modality. A volume counts as one of the head when its brain mask holds a brain: the
collection does not mark spine volumes. Archives are taken as hostile: only members of the names above are read, each
copied under a name of our own and up to a limit.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np

from prima_core.base.errors import UnusableSeries
from prima_core.base.types import SetAside
from prima_core.names import series_name
from prima_core.scope import ScopeSettings
from training.base.cohort import StudyLabels, StudyRecord, StudyReport
from training.base.errors import BadTrainingData
from training.base.pseudonyms import Pseudonyms
from training.base.statements import report_items
from training.prepare.dicom_study import capped_age, sex_of, tesla, vendor_of
from training.prepare.known import read_table
from training.prepare.nifti import MALFORMED, load
from training.prepare.source import SourceStudy
from training.prepare.volumes import VolumeFile, prepare_volumes

LARGEST_MEMBER = 512 << 20
SMALLEST_BRAIN_ML = 300.0
PLANES = {"axi": "axial", "sag": "sagittal", "cor": "coronal"}
PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}

# Their label → ours, where both mean the same.
EQUAL = {
    "arachnoid cyst": "cyst_arachnoid_cyst",
    "cavernous hemangioma": "vascular_malformation_cavernoma",
    "cerebral atrophy": "structural_cerebral_atrophy",
    "cerebral edema": "structural_edema",
    "chiari malformation": "structural_chiari_malformation",
    "encephalomalacia": "structural_encephalomalacia",
    "glioma": "tumor_adult_glioma",
    "intracranial aneurysm": "vascular_malformation_cerebral_aneurysm",
    "intracranial meningioma": "tumor_adult_meningioma",
    "lacunar infarct": "vascular_ischemic_lacunar_stroke",
    "metastatic malignant neoplasm to brain": "tumor_adult_brain_metastasis",
    "pituitary adenoma": "sellar_pituitary_adenoma",
    "rathkes pouch cyst": "sellar_rathkes_cleft_cyst",
    "schwannoma": "tumor_adult_schwannoma",
    "subdural intracranial hemorrhage": "trauma_subdural_hematoma",
    "ventriculomegaly": "ventricular_ventriculomegaly",
}
# Theirs is a kind of ours: where it is present, ours is; where it is absent, nothing is known of ours.
NARROWER = {"cerebral hemorrhage": "vascular_hemorrhagic_intracranial_hemorrhage"}
# Ours is a kind of theirs: where theirs is absent, ours is; where it is present, nothing is known of ours.
BROADER = {
    "cerebral infarction": "vascular_ischemic_large_vessel_stroke",
    "demyelinating disease of central nervous system": "inflammatory_multiple_sclerosis",
}

_BATCH = re.compile(r"batch\d+")
_STUDY_UID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SERIES_ID = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_AGE = re.compile(r"0*(\d{1,3}(?:\.\d+)?)([DWMY]?)")
_AGE_UNITS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
_BAD_ZIP = (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error)


@dataclass(frozen=True)
class MrRate:
    """A source over the collection's folder. Reference: `batchNN/study_uid`."""

    folder: Path
    pseudonyms: Pseudonyms
    settings: ScopeSettings = field(default_factory=ScopeSettings)

    def references(self) -> Sequence[str]:
        """All archives that are there, batch after batch. Raises BadTrainingData when there is none."""
        archives = sorted((self.folder / "mri").glob("batch*/*.zip"))
        found = [f"{path.parent.name}/{path.stem}" for path in archives if _well_named(path)]
        if not found:
            raise BadTrainingData(f"{self.folder}: no mri/batchNN/*.zip")
        return found

    def study(self, reference: str) -> str:
        """The pseudonym."""
        return self.pseudonyms.study(reference.partition("/")[2])

    def fetch(self, reference: str, scratch: Path) -> SourceStudy:
        """Raises OutOfScope, and BadTrainingData for an archive that is none or that the metadata do not name."""
        batch, _, uid = reference.partition("/")
        rows = _metadata(self.folder, batch).get(uid)
        if not rows:
            raise BadTrainingData("the metadata do not name the study")
        record = self._record(uid, rows[0])
        try:
            with zipfile.ZipFile(self.folder / "mri" / batch / f"{uid}.zip") as archive:
                files = _volumes(archive, uid, rows, scratch)
                prepared = prepare_volumes(
                    record.study, "", files, self.settings, _age(rows[0].get("Patient'sAge", ""))
                )
        except _BAD_ZIP as error:
            raise BadTrainingData(f"the archive cannot be read ({type(error).__name__})") from error
        text = _reports(self.folder, batch).get(uid)
        return SourceStudy(record, prepared, _labels(self.folder, batch).get(uid), text)

    def parts(self) -> dict[str, str]:
        """Study → train, validation or test, as the collection splits it. Raises BadTrainingData."""
        parts = {}
        for number, row in enumerate(read_table(self.folder / "splits.csv", "study_uid", "split"), 1):
            part = PARTS.get(row["split"].casefold())
            if part is None:
                raise BadTrainingData(f"{self.folder / 'splits.csv'}, row {number}: the split is not known")
            parts[self.pseudonyms.study(row["study_uid"])] = part
        return parts

    def unmapped(self) -> tuple[str, ...]:
        """Columns of the labels that are kept as `value.…` because no diagnosis of the model means the same."""
        path = self.folder / "pathology_labels" / "mrrate_labels.csv"
        row = next(read_table(path, "study_uid"), {})
        return tuple(column for column in row if column != "study_uid" and _plain(column) not in EQUAL)

    def _record(self, uid: str, row: Mapping[str, str]) -> StudyRecord:
        day = _day(row.get("anon_study_date", ""))
        return StudyRecord(
            study=self.pseudonyms.study(uid),
            patient=self.pseudonyms.patient(row.get("patient_uid") or uid),
            day=day and self.pseudonyms.day(day),
            age_years=capped_age(_age(row.get("Patient'sAge", ""))),
            sex=sex_of(row.get("Patient'sSex", "")),
            vendor=vendor_of(row.get("Manufacturer", "")),
            field_strength=tesla(_number(row.get("FieldStrength_T", ""))),
        )


def labels_of(row: Mapping[str, str]) -> StudyLabels:
    """One row of the collection's labels; what no diagnosis means is kept as a value. Raises BadTrainingData."""
    diagnosis: dict[str, bool] = {}
    value: dict[str, float] = {}
    for column, cell in row.items():
        if column == "study_uid" or not cell:
            continue
        if cell not in ("0", "1", "0.0", "1.0"):
            raise BadTrainingData(f"labels: {column} is not 0 or 1")
        name, present = _plain(column), cell.startswith("1")
        if key := EQUAL.get(name):
            diagnosis[key] = present
            continue
        value[name.replace(" ", "_")] = float(present)
        partly = NARROWER.get(name) if present else BROADER.get(name)
        if partly:
            diagnosis[partly] = present
    return StudyLabels(diagnosis, value=value)


def _plain(column: str) -> str:
    """A SNOMED CT term without its semantic tag: "Glioma (disorder)" → "glioma"."""
    term = re.sub(r"\s*\([^()]*\)\s*$", "", column.casefold()).replace("'", "").replace("’", "")
    return re.sub(r"[^a-z0-9]+", " ", term).strip()


def _volumes(
    archive: zipfile.ZipFile, uid: str, rows: Sequence[Mapping[str, str]], scratch: Path
) -> Iterator[VolumeFile | SetAside]:
    """Each volume, copied out when it is asked for, in place of the one before."""
    members = {info.filename: info for info in archive.infolist()}
    for row in rows:
        series = row["series_id"]
        image = members.get(f"{uid}/img/{uid}_{series}.nii.gz")
        if image is None or not _SERIES_ID.fullmatch(series):
            continue
        mask = members.get(f"{uid}/seg/{uid}_{series}_brain-mask.nii.gz")
        if mask is None or _brain_ml(_copied(archive, mask, scratch / "mask.nii.gz")) < SMALLEST_BRAIN_ML:
            yield SetAside(series, "no brain mask says that it shows the head")
            continue
        description = re.sub(r"-\d+$", "", series)
        plane = (row.get("acquisition_plane") or next(iter(series.split("-")[2:3]), "")).casefold()[:3]
        yield VolumeFile(
            _copied(archive, image, scratch / "volume.nii.gz"),
            series,
            series_name(description, row.get("classified_modality"), series),
            PLANES.get(plane, ""),
        )


def _copied(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Path:
    """Up to the limit, whatever size the archive declares."""
    with archive.open(member) as source, path.open("wb") as target:
        left = LARGEST_MEMBER
        while chunk := source.read(min(1 << 20, left)):
            left -= len(chunk)
            target.write(chunk)
            if not left:
                raise BadTrainingData("a member of the archive is larger than any volume")
    return path


def _brain_ml(mask: Path) -> float:
    """0 for a mask that cannot be read: nothing then says that the volume shows a brain."""
    try:
        image = load(mask)
        voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
        return float(np.count_nonzero(np.asanyarray(image.dataobj))) * voxel_ml
    except (UnusableSeries, *MALFORMED):
        return 0.0


@lru_cache(maxsize=2)
def _metadata(folder: Path, batch: str) -> dict[str, list[dict[str, str]]]:
    """Rows by study, in the order of the file."""
    rows: dict[str, list[dict[str, str]]] = {}
    path = folder / "metadata" / f"{batch}_metadata.csv"
    for row in read_table(path, "patient_uid", "study_uid", "series_id"):
        rows.setdefault(row["study_uid"], []).append(row)
    return rows


@lru_cache(maxsize=2)
def _reports(folder: Path, batch: str) -> dict[str, StudyReport]:
    reports = {}
    path = folder / "reports" / f"{batch}_reports.csv"
    for row in read_table(path, "study_uid") if path.exists() else ():
        items = tuple(item for part in ("findings", "impression") for item in report_items(row.get(part, "")))
        if items := items or report_items(row.get("report", "")):
            reports[row["study_uid"]] = StudyReport(items)
    return reports


@lru_cache(maxsize=2)
def _labels(folder: Path, batch: str) -> dict[str, StudyLabels]:
    """Those of one batch: a process that held all would need hundreds of megabytes."""
    path = folder / "pathology_labels" / "mrrate_labels.csv"
    wanted = _metadata(folder, batch)
    rows = read_table(path, "study_uid") if path.exists() else iter(())
    return {row["study_uid"]: labels_of(row) for row in rows if row["study_uid"] in wanted}


def _well_named(path: Path) -> bool:
    return bool(_BATCH.fullmatch(path.parent.name) and _STUDY_UID.fullmatch(path.stem))


def _age(text: str) -> float | None:
    match = _AGE.fullmatch(text.strip().upper())
    return float(match[1]) * _AGE_UNITS[match[2]] if match else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _day(text: str) -> date | None:
    digits = re.sub(r"\D", "", text)[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None
