"""A tiny speedrun: every stage feeds the next, and the node answers over C-STORE what the evaluation was made of.

Nothing is learned from so few phantoms; what a real run reaches is in the shipped bundle's evaluation record.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.jobs.tables import predictions
from prima_core.bundle import build_model, load_bundle
from prima_core.prepare import prepare_study
from support.node import Node, send
from training.base.embeddings import Embeddings
from training.phantom.source import PhantomSource
from training.phantom.study import make_study
from training.prepare.encode import Encoder
from training.prepare.run import fill_store
from training.prepare.store import TokenStore
from training.run_folder import RunFolder
from training.speedrun.profiles import tiny
from training.speedrun.steps import FIRST_HOME, FIRST_TAUGHT, NOBODY, UNSEEN, Speedrun
from training.speedrun.table import figures, table
from training.stages.clip import read_study_model
from training.stages.embed import embed_studies, load_study_model
from training.stages.heads import head_logits, read_heads
from training.stages.tokenizer import ENCODER

pytestmark = pytest.mark.slow

SEED = 3_000_000  # a patient of no part of the run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("speedrun"))
    Speedrun(run, tiny(), workers=0).all()
    return run


def test_it_ends_in_an_evaluated_bundle_and_a_page(run: RunFolder) -> None:
    bundle = load_bundle(run / "bundle")
    record = json.loads((run / "bundle" / "evaluation.json").read_text())
    assert bundle.manifest.training_state == record["training_state"] == "phantom"
    assert record["bundle_id"] == bundle.manifest.id
    assert record["sets"][UNSEEN]["studies"] == record["studies"] > 0
    assert "simulated" in (run / "evaluation" / "report.html").read_text()
    assert set(figures(record))
    assert table(record, {"CLIP": 60.0}).row_count > len(figures(record))


def test_no_patient_is_on_two_sides(run: RunFolder) -> None:
    patient = {record.study: record.patient for record in run.records()}
    split = run.split()
    sides = [{patient[study] for study in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == len(set().union(*sides))
    others = {record.patient for store in ("patches", "store-away") for record in TokenStore(run / store).records}
    assert not others & set(patient.values())


def test_the_teaching_collection_trains_and_patients_as_they_come_judge(run: RunFolder) -> None:
    profile, split = tiny(), run.split()
    taught = PhantomSource(range(FIRST_TAUGHT, FIRST_TAUGHT + profile.studies), "teaching", NOBODY)
    home = PhantomSource(range(FIRST_HOME, FIRST_HOME + profile.home), "home", NOBODY)
    assert set(split.train) == {taught.study(reference) for reference in taught.references()}
    assert {*split.validation, *split.test} == {home.study(reference) for reference in home.references()}


def test_a_second_call_makes_nothing_anew(run: RunFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.safetensors")}
    bundle, _ = Speedrun(run, tiny(), workers=0).all()
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.safetensors")} == before
    assert bundle.manifest.id == load_bundle(run / "bundle").manifest.id


def evaluated_logits(run: RunFolder, folder: Path) -> dict[str, dict[str, float]]:
    """As the evaluation has them: tokens into a store, embeddings, heads."""
    source = PhantomSource([SEED], "home", NOBODY)
    encoder = Encoder(tiny().tokenizer.shape, run / "tokenizer" / ENCODER)
    fill_store(source, folder, encoder, workers=0)
    store = TokenStore(folder)
    model = load_study_model(*read_study_model(run / "clip"), "cpu")
    embeddings: Embeddings = embed_studies(model, store, [record.study for record in store.records])
    heads = read_heads(run / "heads")
    logits = head_logits(heads, embeddings)
    return {shape.task: dict(zip(shape.outputs, logits[shape.task][0].tolist(), strict=True)) for shape in heads.shapes}


def flat(answers: dict[str, dict[str, float]]) -> np.ndarray:
    return np.array([answers[task][name] for task in sorted(answers) for name in sorted(answers[task])])


def test_the_node_answers_over_c_store_what_was_evaluated(run: RunFolder, tmp_path: Path) -> None:
    truth = make_study(SEED, "home", tmp_path / "study")
    files = sorted((tmp_path / "study").iterdir())
    with Node(tmp_path / "node", run / "bundle", stability_seconds=0.5) as node:
        assert set(send(node.port, [dcmread(path) for path in files])) == {0}
        node.wait_for_state(truth.study_instance_uid, "reported", "delivered")
        [row] = node.rows(predictions)
    said = {task: answers for task, answers in row.logits.items() if answers}
    offline = build_model(load_bundle(run / "bundle"), "cpu", "fp32").predict_one(prepare_study(files))
    expected = {"diagnosis": offline.diagnosis, "referral": offline.referral, "priority": offline.priority}
    assert flat(said) == pytest.approx(flat({task: expected[task] for task in said}), abs=1e-5)
    # The store keeps latents as float16, which moves a logit by far less than anything is decided on.
    assert flat(said) == pytest.approx(flat(evaluated_logits(run, tmp_path / "store")), abs=0.02)
