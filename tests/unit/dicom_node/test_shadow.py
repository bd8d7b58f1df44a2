"""The shadow runs on what was reported, in spare time, and whatever happens to it stays its own affair.

Bundles are small and real; studies are random patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node import shadow as shadows
from dicom_node.base.config import Configuration, ModelSection, NodeSection
from dicom_node.base.errors import ImagesGone, Stopped
from dicom_node.base.types import Claim, Level, Prediction, Report, study_id
from dicom_node.bundles import identity_of
from dicom_node.jobs.models import Order, Pair
from dicom_node.jobs.registry import Registry
from dicom_node.models_in_use import FAULTS, ModelsInUse
from dicom_node.shadow import Progress, Shadow
from prima_core.base.errors import PrimaError
from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.bundle import read_manifest
from support.bundles import new_bundle, new_heads
from support.studies import arrival, handover, new_registry, report

BY = Order("anna", 0.0)


class Site:
    """A node's registry, its loaded models, and a shadow whose preparation is counted."""

    def __init__(self, folder: Path, configured: Path, other: Path) -> None:
        self.registry: Registry = new_registry(folder)
        settings = ModelSection(bundle=configured, precision="fp32", device="cpu", token_budget=10)
        self.configuration = Configuration(node=NodeSection(storage=folder), model=settings)
        self.models = ModelsInUse(self.configuration, self.registry)
        manifest = read_manifest(other)
        self.registry.know_model(identity_of(manifest), other)
        self.active, self.bundle = read_manifest(configured).id, manifest.id
        self.start()
        self.prepared: list[str] = []
        self.go_on: Progress = lambda done, total: None
        self.shadow = Shadow(self.configuration, self.registry, self.models, self.prepare, self.moved)

    def moved(self, done: int, total: int) -> None:
        self.go_on(done, total)

    def start(self) -> None:
        """A person names the shadow."""
        self.registry.shadow_model(self.bundle, self.active, BY)
        self.models.refresh()

    def prepare(self, claim: Claim, progress: Progress) -> PreparedStudy:
        self.prepared.append(claim.study_instance_uid)
        return prepared(claim.study_instance_uid)

    def report(self, uid: str) -> Claim:
        """Have the active model report a study."""
        self.wait(uid)
        claim = self.registry.claim("w", 1e12, 200)
        assert claim is not None
        said = self.models.active.model.predict_one(prepared(uid))
        logits = {"diagnosis": said.diagnosis, "referral": said.referral, "priority": said.priority}
        kept = self.models.active.prediction(logits, Level.ROUTINE, said.study_embedding, 0.1)
        self.registry.finish_reported(claim, made(uid, kept), handover("pacs"), 300)
        return claim

    def wait(self, uid: str) -> None:
        """A study is complete and waits."""
        self.registry.record_arrivals([arrival(1, study=uid)])
        self.registry.close_quiet(100, 0, 100)

    def pairs(self) -> list[Pair]:
        return self.registry.pairs(self.active, self.bundle)


def prepared(uid: str) -> PreparedStudy:
    stream = np.random.default_rng(int(uid.replace(".", "")))
    ids = np.arange(4)
    patches = stream.random((4, 4, 32, 32), np.float32)
    coordinates = np.zeros((4, 3), np.int64)
    series = PreparedSeries(f"{uid}.1", "T1", patches, ids, coordinates, 0, 4, ())
    return PreparedStudy(uid, "BRAIN", (series,))


def made(uid: str, kept: Prediction) -> Report:
    return replace(report(uid), prediction=kept, sop_instance_uid=f"2.25.{uid.replace('.', '')}")


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=1)


@pytest.fixture
def site(tmp_path: Path, random_bundle: Path, other: Path) -> Site:
    return Site(tmp_path, random_bundle, other)


def test_every_reported_study_is_run_once_and_nothing_else_changes(site: Site) -> None:
    for uid in ("1.1", "1.2"):
        site.report(uid)
    before = site.registry.studies()
    assert [site.shadow.run_one() for _ in range(3)] == [True, True, False]
    assert site.registry.studies() == before
    assert site.prepared == ["1.1", "1.2"]
    shadow = site.models.shadow
    assert shadow is not None
    expected = shadow.model.predict_one(prepared("1.1"))
    [pair] = [pair for pair in site.pairs() if pair.study_id == study_id("1.1")]
    assert pair.second.logits["diagnosis"] == expected.diagnosis
    assert pair.first.logits["diagnosis"] != expected.diagnosis


def test_heads_on_the_active_encoder_need_no_images(tmp_path: Path, random_bundle: Path) -> None:
    site = Site(tmp_path, random_bundle, new_heads(tmp_path / "heads", random_bundle))
    site.report("1.1")
    assert site.shadow.run_one()
    assert site.prepared == []
    [pair] = site.pairs()
    shadow = site.models.shadow
    assert shadow is not None
    assert pair.second.logits["diagnosis"] == pytest.approx(
        shadow.model.predict_one(prepared("1.1")).diagnosis, abs=1e-6
    )


def test_what_was_prepared_for_the_active_model_is_used_again(site: Site) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        site.shadow.remember(site.report(uid), prepared(uid))
    while site.shadow.run_one():
        pass
    assert site.prepared == ["1.1"], "two studies of four tokens are in the budget of ten"
    assert len(site.pairs()) == 3


def test_a_waiting_study_comes_first(site: Site) -> None:
    site.report("1.1")
    site.wait("1.9")
    assert not site.shadow.run_one()
    assert site.prepared == []


def test_a_study_that_comes_meanwhile_does_not_wait_for_the_shadow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "LOOK_SECONDS", 0.0)
    site.report("1.1")

    def go_on(done: int, total: int) -> None:
        site.go_on = lambda *_: None
        site.wait("1.9")

    site.go_on = go_on
    assert site.shadow.run_one()
    assert site.pairs() == []
    assert site.registry.model_faults(site.bundle) == 0
    claim = site.registry.claim("w", 1e12, 200)
    assert claim is not None
    assert not site.registry.study_waits(200)
    assert site.shadow.run_one(), "what was left is taken up again"
    assert len(site.pairs()) == 1


def test_a_stop_leaves_the_study_for_the_next_start(site: Site) -> None:
    site.report("1.1")
    site.go_on = raises(Stopped("the node stops"))
    site.shadow.run_one()
    assert (site.pairs(), site.registry.model_faults(site.bundle), site.registry.shadow_failures(site.bundle)) == (
        [],
        0,
        {},
    )


def test_a_study_on_which_the_shadow_fails_is_noted_and_the_next_one_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.report("1.1")
    site.report("1.2")
    assert site.models.shadow is not None
    model = site.models.shadow.model
    with monkeypatch.context() as broken:
        broken.setattr(model, "predict_one", raises(RuntimeError("out of memory for DOE^JOHN")))
        assert site.shadow.run_one()
    assert site.shadow.run_one()
    assert len(site.pairs()) == 1
    [reason] = site.registry.shadow_failures(site.bundle)
    assert "RuntimeError" in reason
    assert "DOE" not in reason
    assert site.registry.model_faults(site.bundle) == 0, "a success ends the row"


@pytest.mark.parametrize("error", [RuntimeError("bug"), PrimaError("not finite"), MemoryError()])
def test_a_shadow_that_fails_in_a_row_is_given_up_until_it_is_named_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for number in range(FAULTS + 1):
        site.report(f"1.{number + 1}")
    assert site.models.shadow is not None
    with monkeypatch.context() as broken:
        broken.setattr(site.models.shadow.model, "predict_one", raises(error))
        assert [site.shadow.run_one() for _ in range(FAULTS + 1)] == [True] * FAULTS + [False]
    again = ModelsInUse(site.configuration, site.registry)
    assert again.shadow is None
    [known] = [model for model in site.registry.models() if model.bundle_id == site.bundle]
    assert "in a row" in str(known.problem)
    assert known.loaded_as is None
    site.start()
    assert site.shadow.run_one()
    assert len(site.pairs()) == 1


def test_a_shadow_that_ends_the_process_is_given_up_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    site.report("1.1")
    for _ in range(FAULTS):
        site.models = ModelsInUse(site.configuration, site.registry)
        assert site.models.shadow is not None
        shadow = Shadow(site.configuration, site.registry, site.models, raises(Killed()), site.go_on)
        with pytest.raises(Killed):
            shadow.run_one()
    assert ModelsInUse(site.configuration, site.registry).shadow is None


def test_images_that_are_gone_are_not_the_models_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(FAULTS + 1):
        site.report(f"1.{number + 1}")
    errors = iter([ImagesGone("gone"), FileNotFoundError(2, "gone"), ImagesGone("gone"), ImagesGone("gone")])
    monkeypatch.setattr(site.shadow, "_prepare", lambda *_: raises(next(errors))())
    assert [site.shadow.run_one() for _ in range(FAULTS + 2)] == [True] * (FAULTS + 1) + [False]
    assert site.models.shadow is not None
    assert site.registry.model_faults(site.bundle) == 0
