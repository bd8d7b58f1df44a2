"""`python -m training.evaluate`: a run's heads on its labelled test studies, as a record and a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from training.base.cohort import StudyLabels, StudyRecord, write_labels
from training.base.embeddings import Embeddings, write_embeddings
from training.base.loop import LoopSettings
from training.evaluate.__main__ import app
from training.evaluate.held_out import TEST_PART, held_out
from training.run_folder import RunFolder
from training.stages.fit import FitSettings
from training.stages.heads import HeadsSettings, train_heads

STUDIES = 80


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run without images, with linear heads of one finding; every fourth study has no label."""
    vectors = np.random.default_rng(0).normal(size=(STUDIES, 4)).astype(np.float32)
    studies = tuple(f"{n:016x}" for n in range(STUDIES))
    write_embeddings(
        tmp_path / "embeddings.safetensors", Embeddings(studies, vectors, np.zeros((STUDIES, 0), np.float32))
    )
    labelled = {one: StudyLabels({"glioma": bool(vectors[n, 0] > 0)}) for n, one in enumerate(studies) if n % 4}
    write_labels(tmp_path / "labels.csv", labelled)
    lines = [json.dumps(StudyRecord(study, f"p{study}").as_json()) + "\n" for study in studies]
    (tmp_path / "records.jsonl").write_text("".join(lines))
    opened = RunFolder(tmp_path)
    settings = HeadsSettings(FitSettings(LoopSettings(40, 32, device="cpu"), hidden=(), learning_rate=5e-2))
    train_heads(opened.embeddings(), opened.labels(), opened.split(), tmp_path / "heads", settings)
    return opened


def test_the_labelled_studies_of_the_test_part_are_judged(run: RunFolder) -> None:
    chosen = held_out(run)
    studies = {record.study for record in chosen.records}
    assert studies == {study for study in run.split().test if study in run.labels()}
    assert 0 < len(studies) < len(run.split().test)
    done = CliRunner().invoke(app, ["--run", str(run.folder), "--resamples", "4"])
    assert done.exit_code == 0, done.output
    record = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert record["studies"] == record["sets"][TEST_PART]["studies"] == len(studies)
    assert record["auroc"]["glioma"] > 0.9
    page = (run / "evaluation" / "report.html").read_text()
    assert "glioma" in page
    assert "simulated" not in page


def test_a_run_without_labelled_test_studies_is_refused_in_one_line(run: RunFolder) -> None:
    labels = run.labels()
    write_labels(run / "labels.csv", {study: labels[study] for study in run.split().train if study in labels})
    done = CliRunner().invoke(app, ["--run", str(run.folder)])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "no study of the test part has a label" in done.output
