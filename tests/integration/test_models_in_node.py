"""Bundles change under a running node while studies come by C-STORE: none is dropped, each result names one bundle.

One node and one archive. What happens to bundles of every kind of damage is tested in `test_models_in_use.py`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.base.events import Event
from dicom_node.bundles import identity_of
from dicom_node.console.health import health_problems
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.models import Order
from dicom_node.jobs.tables import predictions, results
from prima_core.bundle import read_manifest
from support.bundles import damaged, evaluated, new_bundle
from support.command_line import Cli
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study

pytestmark = pytest.mark.slow

STUDIES = 6


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with Archive(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path, archive: Archive) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    bundle = Path(shutil.copytree(random_bundle, folder / "bundles" / "first"))
    goals = [destination("pacs", AE_TITLE, archive.port)]
    with Node(folder, bundle, destinations=goals, stability_seconds=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def other(node: Node) -> Path:
    assert node.configuration.model.bundle is not None
    return evaluated(new_bundle(node.configuration.model.bundle.parent / "other", seed=1))


@pytest.fixture
def model(node: Node, cli: Cli) -> Any:
    """Run `model …` on the node; its JSON."""

    def run(*arguments: object) -> Any:
        done = cli("model", *arguments, "--config", node.config, "--json")
        assert done.code == 0, done.err
        return done.json

    return run


def receive(node: Node) -> str:
    study = StudyFacts()
    assert set(send(node.port, small_study(study))) == {0}
    return study.study_uid


def logged(node: Node, event: Event) -> list[dict[str, Any]]:
    return [line for line in node.log_lines() if line["number"] == event.number]


def bundle_of(node: Node, uid: str) -> str:
    """The one bundle that made the study's one result, by the registry's every word on it."""
    [result] = [row for row in node.rows(results) if row.study_id == node.study(uid).id]
    [said] = [row for row in node.rows(predictions) if row.study_id == result.study_id and not row.shadow]
    assert said.bundle_id == result.bundle_id
    return str(result.bundle_id)


def test_a_shadow_runs_on_every_study_and_leaves_no_other_trace(
    node: Node, archive: Archive, other: Path, model: Any
) -> None:
    first, shadow = read_manifest(node.configuration.model.bundle).id, read_manifest(other).id  # type: ignore[arg-type]
    model("shadow", other)
    uids = [receive(node), receive(node)]
    ids = {node.wait_for_state(uid, "delivered").id for uid in uids}
    node.wait(lambda: len(node.registry.pairs(first, shadow)) == 2, "the shadow ran on both")
    compared = model("compare")
    assert (compared["active"], compared["shadow"], compared["studies"]) == (first, shadow, 2)
    assert {one["study"] for one in compared["disagreements"]} <= ids
    assert compared["failures"] == {}
    reports = [dcmread(path) for path in archive.reports]
    assert Counter(str(document.StudyInstanceUID) for document in reports) == dict.fromkeys(uids, 1)
    assert {document.DeviceSerialNumber for document in reports} == {first}
    assert [bundle_of(node, uid) for uid in uids] == [first, first]
    assert {entry["id"]: (entry["role"], entry["loaded_as"]) for entry in model("list")} == {
        first: ("active", "active"),
        shadow: ("shadow", "shadow"),
    }
    model("shadow", "--stop")


def test_a_bundle_activated_while_studies_come_drops_none(
    node: Node, archive: Archive, other: Path, model: Any
) -> None:
    before, worker = {row.id for row in node.rows(results)}, node.pid("worker")
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(receive, node) for _ in range(STUDIES)]
        uids = [sent[0].result()]
        node.wait_for_state(uids[0], "reported", "delivered")
        bundle = model("activate", other)["bundle"]
        uids += [one.result() for one in sent[1:]]
    node.wait(lambda: logged(node, Event.MODEL_ACTIVATED), "the worker has the new bundle")
    uids.append(receive(node))
    for uid in uids:
        node.wait_for_state(uid, "delivered")
    assert len({row.id for row in node.rows(results)} - before) == len(uids)
    used = [bundle_of(node, uid) for uid in uids]
    assert set(used) <= {bundle, read_manifest(node.configuration.model.bundle).id}  # type: ignore[arg-type]
    assert used[-1] == bundle
    assert node.pid("worker") == worker, "no process was started again for it"
    named = {str(one.StudyInstanceUID): one.DeviceSerialNumber for one in map(dcmread, archive.reports)}
    assert [named[uid] for uid in uids] == used
    assert logged(node, Event.STUDY_FAILED) == []


def test_a_broken_bundle_changes_nothing_but_the_nodes_health(
    node: Node, other: Path, model: Any, tmp_path: Path
) -> None:
    if node.registry.chosen_models().active is None:
        model("activate", other)
        node.wait(lambda: logged(node, Event.MODEL_ACTIVATED), "the worker has the new bundle")
    active = read_manifest(other).id
    broken = damaged(new_bundle(tmp_path / "whole", seed=2), tmp_path / "broken")
    identity = identity_of(read_manifest(broken))
    # As if its file was damaged after `model activate` had checked it.
    node.registry.know_model(identity, broken)
    node.registry.activate_model(identity.bundle_id, active, Order("a test", 1.0))
    node.wait(lambda: logged(node, Event.MODEL_REFUSED), "the worker refuses it")
    uid = receive(node)
    node.wait_for_state(uid, "delivered")
    assert bundle_of(node, uid) == active
    assert not node.healthy()
    [listed] = [entry for entry in model("list") if entry["id"] == identity.bundle_id]
    assert (listed["role"], listed["loaded_as"]) == ("active", None)
    assert "study_model.safetensors" in listed["problem"]
    model("rollback")
    node.wait(node.healthy, "the node is as its people said")
    assert health_problems(node.registry, 0) == []
    assert logged(node, Event.MODEL_ROLLED_BACK) == [], "what ran all the time was not loaded again"
