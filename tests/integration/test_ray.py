"""A node whose model runs on a Ray cluster of two machines' worth of processes on loopback.

Not covered: GPUs, a real network between the machines.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dicom_node.base.events import Event
from dicom_node.base.types import study_id
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.tables import predictions, provenance, results, study_embeddings
from dicom_node.stages import logits_of
from prima_core.bundle import build_model, load_bundle
from prima_core.prepare import prepare_study
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study
from support.ray_cluster import RayMachines, ray_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayMachines]:
    with ray_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def node(cluster: RayMachines, random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("ray")
    ray = {"address": cluster.address, "actors": 1, "gpus": 0.0}
    model = {"bundle": str(random_bundle), "precision": "fp32", "allow_nonclinical": True}
    with (
        Archive(folder / "archive") as archive,
        Node(
            folder,
            random_bundle,
            destinations=[destination("pacs", AE_TITLE, archive.port)],
            environment=cluster.environment,
            model=model | {"execution": "ray", "ray": ray},
        ) as running,
    ):
        yield running


@contextmanager
def one_thread() -> Iterator[None]:
    """As an actor with one CPU computes: the last bits depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def test_a_study_is_reported_with_the_numbers_of_the_local_model(node: Node, random_bundle: Path) -> None:
    study = StudyFacts()
    assert set(send(node.port, small_study(study))) == {0}
    node.wait_for_state(study.study_uid, "delivered")
    spool = node.configuration.node.spool / study_id(study.study_uid)
    with one_thread():
        model = build_model(load_bundle(random_bundle), "cpu", "fp32")
        here = model.predict_one(prepare_study(sorted(spool.iterdir())))
    [kept] = [row for row in node.rows(predictions) if row.study_id == study_id(study.study_uid)]
    assert kept.logits == logits_of(here)
    [embedding] = [row.embedding for row in node.rows(study_embeddings) if row.study_id == kept.study_id]
    assert embedding == here.study_embedding.astype("<f4").tobytes()
    assert [row.document["machine"]["execution"] for row in node.rows(provenance)] == ["ray"]


def test_an_actor_that_is_killed_in_the_middle_of_a_batch_loses_nothing(node: Node, cluster: RayMachines) -> None:
    studies = [StudyFacts() for _ in range(3)]
    for study in studies:
        assert set(send(node.port, small_study(study, slices=40))) == {0}
    os.kill(cluster.actor("predict"), signal.SIGKILL)
    for study in studies:
        node.wait_for_state(study.study_uid, "delivered")
    ids = {study_id(study.study_uid) for study in studies}
    assert sorted(row.study_id for row in node.rows(results) if row.study_id in ids) == sorted(ids)
    assert Event.ACTOR_DIED.number in {line["number"] for line in node.log_lines()}
    assert node.running()["worker"] == node.pid("worker")
