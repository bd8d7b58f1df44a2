"""Which studies a stage has learned from, kept beside its weights: nobody of them is judged later."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from training.base.checkpoint import write_json
from training.base.cohort import StudyRecord
from training.base.errors import BadTrainingData

SEEN = "studies.json"


def write_seen(folder: Path, studies: Iterable[str]) -> None:
    """A list of pseudonyms. Raises NoSpace."""
    write_json(folder / SEEN, sorted(studies))


def refuse_seen(folders: Iterable[Path], records: Iterable[StudyRecord], test: Iterable[str]) -> None:
    """Raises BadTrainingData that names the stage which has seen a patient of the studies in `test`.

    folders: of the stages; one that says nothing of its studies was not trained in this run.
    """
    patient_of = {record.study: record.patient for record in records}
    judged = set(test)
    patients = {patient_of[study] for study in judged if study in patient_of}
    for folder in folders:
        seen = json.loads((folder / SEEN).read_text("utf-8")) if (folder / SEEN).exists() else []
        if both := [study for study in seen if study in judged or patient_of.get(study) in patients]:
            raise BadTrainingData(
                f"{folder}: was trained on {len(both)} studies of patients in the test part, the first is {both[0]}; "
                "train it anew with this split, or use another run folder"
            )
