"""A run's folder: where every stage finds what earlier ones left.

    key            pseudonym key, its owner's alone        split.csv     study → train, validation or test
    store/         tokens of the studies                   patches/      a sample of patches for the tokenizer
    tokenizer/ series_names/ localise/ text/ clip/         weights of each stage, its curve and done.json
    embeddings.safetensors                                 study embeddings of the trained model
    heads/ zero_shot/ transfer/                            task heads, findings by prompts, heads of other tasks
    evaluation/    figures and the page                    bundle/       what the node takes

A run without images (heads from a node's embeddings) has records.jsonl and labels.csv in place of a store.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.base.checkpoint import write_whole
from training.base.cohort import StudyLabels, StudyRecord, read_labels, record_from_json
from training.base.embeddings import Embeddings, read_embeddings
from training.base.errors import BadTrainingData
from training.base.splits import PARTS, Split, split_by_list, split_by_patient
from training.prepare.store import TokenStore

VALIDATION, TEST = 0.15, 0.2  # shares of the patients
TRAINED = ("tokenizer", "series_names", "localise", "clip")  # stages that learn from images, and say from whose
_PSEUDONYM = re.compile(r"[0-9a-f]{16}")


class RunFolder:
    """Reads a run. Nothing is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def records(self) -> tuple[StudyRecord, ...]:
        """Of all studies; as long as there are no tokens, of those with patches. Raises BadTrainingData."""
        path = self.folder / "records.jsonl"
        if not path.exists():
            tokens = (self.folder / "store").exists() or not (self.folder / "patches").exists()
            return (self.store() if tokens else TokenStore(self.folder / "patches")).records
        with path.open(encoding="utf-8") as file:
            return tuple(record_from_json(json.loads(line)) for line in file)

    def store(self) -> TokenStore:
        """The tokens. Raises BadTrainingData."""
        return TokenStore(self.folder / "store")

    def labels(self) -> Mapping[str, StudyLabels]:
        """labels.csv where the run has one, else what the store knows. Raises BadTrainingData."""
        path = self.folder / "labels.csv"
        return read_labels(path) if path.exists() else self.store().labels()

    def start(self) -> Path | None:
        """The stage that the study model starts from: the last of those before it that the run has."""
        folders = (self.folder / stage for stage in ("localise", "series_names"))
        return next((folder for folder in folders if folder.exists()), None)

    def embeddings(self) -> Embeddings:
        """Raises BadTrainingData."""
        return read_embeddings(self.folder / "embeddings.safetensors")

    def split(self) -> Split:
        """Of all studies. Raises BadTrainingData."""
        return self.split_of(self.records())

    def split_of(self, records: Iterable[StudyRecord]) -> Split:
        """By split.csv; without one by patient, which depends on the patients alone: all stages see the same parts.

        Raises BadTrainingData.
        """
        path = self.folder / "split.csv"
        return (
            split_by_list(records, read_split(path)) if path.exists() else split_by_patient(records, VALIDATION, TEST)
        )

    def strangers(self, labels: Mapping[str, StudyLabels]) -> str:
        """What to say of labels whose study is not in the run; empty where there are none.

        Raises BadTrainingData when none of them is, as then the names are of another kind or of another key.
        """
        known = {record.study for record in self.records()}
        unknown = [study for study in labels if study not in known]
        if not unknown:
            return ""
        # A name that is no pseudonym may be a UID, and is not repeated.
        named = next((f"the first is {study}" for study in unknown if _PSEUDONYM.fullmatch(study)), "no pseudonyms")
        said = f"{len(unknown)} of {len(labels)} labelled studies are not in this run: {named}"
        if len(unknown) == len(labels):
            raise BadTrainingData(f"{said}; labels.csv goes by the pseudonyms of the run's key")
        return said

    def training_state(self) -> str:
        """What a bundle of this run must say of itself: `phantom` as soon as one of the studies is simulated."""
        return "phantom" if (self.folder / "store").is_dir() and self.store().truth() else "clinical"


def write_split(path: Path, split: Split) -> None:
    """A CSV file of study and part. Raises NoSpace."""
    rows = [(study, part) for part in PARTS for study in getattr(split, part)]

    def write(scratch: Path) -> None:
        with scratch.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("study", "part"), *rows])

    write_whole(path, write)


def read_split(path: Path) -> dict[str, str]:
    """Study → part. Raises BadTrainingData."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if set(reader.fieldnames or ()) != {"study", "part"}:
            raise BadTrainingData(f"{path}: expected the columns study and part")
        rows = [(row["study"], row["part"]) for row in reader]
    if len({study for study, _ in rows}) != len(rows):
        raise BadTrainingData(f"{path}: a study is named twice")
    return dict(rows)
