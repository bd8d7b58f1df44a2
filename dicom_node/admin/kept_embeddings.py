"""What retraining of heads starts from: the study embeddings that the node has kept, under labels from a file.

The folder that `export_embeddings` makes is a run without images as `training.run_folder` describes it. Studies go by
the node's short ids, patients by a pseudonym under a key that stays in the storage folder.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicom_node.base.config import Configuration
from dicom_node.base.durable import make_folder
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.bundles import encoder_of
from dicom_node.jobs.models import KeptStudy
from dicom_node.jobs.registry import Registry
from prima_core.bundle import read_manifest

if TYPE_CHECKING:
    from training.base.cohort import StudyLabels

FOLDER = "training"  # in the storage folder
NAME = "%Y%m%dT%H%M%S.%fZ"  # of a run's folder in it: when it began (UTC)


@dataclass(frozen=True)
class Exported:
    """A folder ready for training. bundle: the active one's folder, whose encoder made the embeddings.

    studies: how many it holds. unknown: what the labels name and no study here with such an embedding is called.
    without_positives: labels that no study in the folder has.
    """

    folder: Path
    bundle: Path
    studies: int
    unknown: tuple[str, ...]
    without_positives: tuple[str, ...]


def export_embeddings(
    configuration: Configuration, registry: Registry, labels: Path, since: date | None = None
) -> Exported:
    """Write embeddings, records and labels of the labelled studies, received `since` (UTC), into a new folder.

    labels: CSV; column `study` holds the Study Instance UID, the node's short id or the accession number, further
    columns are `diagnosis.<name>`, `referral.<name>` (1, 0 or empty) and `priority`. Raises PermanentError when the
    labels fit no study, or name one twice or by an accession number that several studies have; OSError.
    """
    bundle = active_bundle(configuration, registry)
    encoder = encoder_of(read_manifest(bundle))
    begin = datetime.combine(since, time(), UTC).timestamp() if since else 0.0
    read = _read(labels)
    found = _find(registry.kept_studies(encoder, begin), read)
    if not found:
        raise PermanentError("no study of the labels has an embedding of the active bundle here; nothing to train on")
    embeddings = registry.embeddings(encoder, list(found.values()))
    folder = new_run(configuration)
    of_study = {study.study_id: read[name] for name, study in found.items()}
    _write(folder, list(found.values()), embeddings, of_study)
    unknown = tuple(name for name in read if name not in found)
    return Exported(folder, bundle, len(found), unknown, _without_positives(of_study))


def active_bundle(configuration: Configuration, registry: Registry) -> Path:
    """The folder of the bundle that reports. Raises ConfigurationError."""
    chosen = registry.chosen_models().active
    bundle = chosen.path if chosen else configuration.model.bundle
    if bundle is None:
        raise ConfigurationError("model.bundle: name a model bundle")
    return bundle


def new_run(configuration: Configuration) -> Path:
    """A new folder for a run, for this user alone. Raises OSError."""
    above = configuration.node.storage / FOLDER
    make_folder(above)
    folder = above / datetime.now(UTC).strftime(NAME)
    folder.mkdir(mode=0o700)
    return folder


def _read(labels: Path) -> dict[str, StudyLabels]:
    from training.base.cohort import read_labels
    from training.base.errors import TrainingError

    try:
        return read_labels(labels)
    except TrainingError as error:
        raise PermanentError(str(error)) from error


def _find(kept: Sequence[KeptStudy], names: Mapping[str, object]) -> dict[str, KeptStudy]:
    """Which study each name means; names that mean none are left out. Raises PermanentError."""
    called: dict[str, set[KeptStudy]] = defaultdict(set)
    for study in kept:
        for name in {study.study_instance_uid, study.study_id, study.accession_number} - {""}:
            called[name].add(study)
    if several := sum(len(called.get(name, ())) > 1 for name in names):
        raise PermanentError(
            f"labels: {several} accession numbers are of several studies; use Study Instance UIDs there"
        )
    found = {name: next(iter(called[name])) for name in names if name in called}
    if twice := len(found) - len(set(found.values())):
        raise PermanentError(f"labels: {twice} lines name a study that another line names as well")
    return found


def _write(
    folder: Path, studies: Sequence[KeptStudy], embeddings: Sequence[bytes], labels: Mapping[str, StudyLabels]
) -> None:
    from training.base.cohort import StudyRecord, write_labels
    from training.base.embeddings import Embeddings, write_embeddings
    from training.base.pseudonyms import load_or_create_key

    ids = tuple(study.study_id for study in studies)
    vectors = np.stack([np.frombuffer(content, "<f4") for content in embeddings]).astype(np.float32)
    write_embeddings(folder / "embeddings.safetensors", Embeddings(ids, vectors, np.zeros((len(ids), 0), np.float32)))
    pseudonyms = load_or_create_key(folder.parent / "key")
    records = [
        StudyRecord(
            study=study.study_id,
            patient=pseudonyms.patient(patient_of(study.study_id, study.patient_key)),
            day=pseudonyms.day(datetime.fromtimestamp(study.received_at, UTC).date()),
        )
        for study in studies
    ]
    lines = [json.dumps(record.as_json()) + "\n" for record in records]
    (folder / "records.jsonl").write_text("".join(lines), "utf-8")
    write_labels(folder / "labels.csv", labels)


def patient_of(study_id: str, patient_key: str) -> str:
    """The same for all studies of a patient, and as long as the patient has studies: what splits go by.

    The ID's part of the patient key, else the rest of it; a study of nobody stands for itself.
    """
    number, _, rest = patient_key.partition(":")
    return number or rest.strip(":") or study_id


def _without_positives(labels: Mapping[str, StudyLabels]) -> tuple[str, ...]:
    """Findings that the labels name and no study has."""
    present: dict[str, bool] = {}
    for one in labels.values():
        for task, said in (("diagnosis", one.diagnosis), ("referral", one.referral)):
            for name, positive in said.items():
                present[f"{task}.{name}"] = present.get(f"{task}.{name}", False) or positive
    return tuple(name for name, positive in present.items() if not positive)
