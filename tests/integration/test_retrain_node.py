"""`retrain heads` on a running node: kept embeddings and a file of labels → a bundle that people can activate.

One node. Two studies come by C-STORE; the other patients' embeddings are put into its registry, where the worker would
have put them. How well the heads learn is tested in `tests/unit/training/test_retrain_heads.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

import training.retrain
from dicom_node.bundles import encoder_of
from dicom_node.jobs.tables import predictions, studies, study_embeddings
from prima_core.bundle import build_model, load_bundle, read_manifest
from support.command_line import Cli
from support.dicom_factory import StudyFacts
from support.node import Node, send, small_study

pytestmark = pytest.mark.slow

PATIENTS = 60
FINDING = "tumor_adult_glioma"


@pytest.fixture
def node(tmp_path: Path, random_bundle: Path) -> Iterator[Node]:
    bundle = Path(shutil.copytree(random_bundle, tmp_path / "bundles" / "first"))
    with Node(tmp_path, bundle, stability_seconds=0.5) as running:
        yield running


def receive(node: Node) -> str:
    study = StudyFacts()
    assert set(send(node.port, small_study(study))) == {0}
    node.wait_for_state(study.study_uid, "reported")
    return study.study_uid


def add_patients(node: Node, like: str, width: int, encoder: str) -> dict[str, bool]:
    """Reported studies of other patients, whose embeddings' first value says who has the finding; by UID."""
    [row] = [row for row in node.rows(studies) if row.study_instance_uid == like]
    draw = np.random.default_rng(0)
    found = {}
    engine = sa.create_engine(node.configuration.node.database_url)
    with engine.begin() as connection:
        for number in range(PATIENTS):
            vector = draw.normal(size=width).astype("<f4")
            vector[0] += 3 * np.sign(vector[0])
            uid = f"2.25.{number + 1}"
            own = {"id": f"patient{number}", "study_instance_uid": uid, "patient_key": f"p{number}::"}
            connection.execute(studies.insert().values(**(row._asdict() | own)))
            kept = {"study_id": own["id"], "revision": row.revision, "encoder": encoder, "created_at": 1.0}
            connection.execute(study_embeddings.insert().values(**kept, embedding=vector.tobytes()))
            found[uid] = bool(vector[0] > 0)
    engine.dispose()
    return found


def test_kept_embeddings_become_a_bundle_that_reports(
    node: Node, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.retrain, "RetrainSettings", partial(training.retrain.RetrainSettings, resamples=2))
    assert node.configuration.model.bundle is not None
    base = read_manifest(node.configuration.model.bundle)
    first = receive(node)
    width = base.architecture.study_vit.pooled_width
    has_it = add_patients(node, first, width, encoder_of(base)) | {first: False}
    labels = tmp_path / "labels.csv"
    labels.write_text(f"study,diagnosis.{FINDING}\n" + "".join(f"{uid},{int(has)}\n" for uid, has in has_it.items()))

    def run(*arguments: object, code: int = 0) -> Any:
        done = cli(*arguments, "--config", node.config, "--json")
        assert done.code == code, done.err
        return done.json if code == 0 else done.err

    retrain = ("retrain", "heads", "--labels", labels, "--head-steps", 20)
    assert "--allow-fewer" in run(*retrain, code=1)
    made = run(*retrain, "--allow-fewer")
    assert (made["studies"], made["unknown"], made["role"]) == (PATIENTS + 1, 0, "shadow")
    assert made["training_state"] == base.training_state
    assert made["evaluation"]["studies"] > 0
    assert set(made["kept_tasks"]) == {"priority", "referral"}
    new = made["bundle"]
    [change] = run("model", "history")
    assert (change["action"], change["bundle_id"]) == ("shadow", new)
    assert not list((node.configuration.node.storage / "training").glob("*/embeddings.safetensors"))
    node.wait(lambda: {one.bundle_id: one.loaded_as for one in node.registry.models()}[new] == "shadow", "it is loaded")

    activated = run("model", "activate", new)
    assert (activated["forced"], len(activated["evaluation"])) == (False, 64)
    node.wait(lambda: {one.bundle_id: one.loaded_as for one in node.registry.models()}[new] == "active", "it is active")
    second = node.study(receive(node)).id
    [said] = [row for row in node.rows(predictions) if row.study_id == second and not row.shadow]
    assert said.bundle_id == new
    bundle = load_bundle(Path(made["path"]))
    kept = node.registry.embedding(second, 1, encoder_of(bundle.manifest))
    assert kept is not None
    assert encoder_of(bundle.manifest) == encoder_of(base), "embeddings stay good for the next training"
    study = torch.from_numpy(np.frombuffer(kept, "<f4")[None].copy())
    model = build_model(bundle, "cpu", "fp32")
    with torch.inference_mode():
        [expected] = model.heads(study, model.study_vit.clip_vector(study))
    assert set(said.logits["diagnosis"]) == {FINDING}
    for task, values in expected.items():
        assert said.logits[task] == pytest.approx(values, abs=1e-4)
