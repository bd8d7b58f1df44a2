"""The worker's promises when stages succeed, fail, lose their claim or are told to stop. The model is a stand-in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node.base.errors import DiskFull, ReportError, Stopped
from dicom_node.base.types import Claim
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.worker import Stages, Worker
from prima_core.base.errors import OutOfScope, PrimaError
from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from support.studies import arrival, new_registry, report


class Model:
    """Stages that note what they were asked; a test replaces one of them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.stages = Stages(self.prepare, self.predict, self.report, lambda *_: ([("pacs", "sr")], None))

    def prepare(self, claim: Claim) -> PreparedStudy:
        ids = np.zeros(40, np.int64)
        coordinates = np.zeros((40, 3), np.int64)
        series = PreparedSeries("1", "T1", np.zeros((1, 4, 32, 32), np.float32), ids, coordinates, 0, 40, ())
        return PreparedStudy(claim.study_instance_uid, "", (series,))

    def predict(self, studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        self.batches.append([study.study_instance_uid for study in studies])
        empty = np.zeros(1, np.float32)
        return [StudyPrediction(study.study_instance_uid, {}, {}, {}, empty, empty, "fp32") for study in studies]

    def report(self, claim: Claim, *_: object) -> Any:
        made = report(claim.study_instance_uid, claim.revision)
        return replace(made, sop_instance_uid=f"2.25.{abs(hash(claim.study_id))}.{claim.revision}")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


def raises(error: Exception) -> Callable[..., Any]:
    def stage(*_: object) -> Any:
        raise error

    return stage


def queue(registry: Registry, *uids: str, urgent: str = "") -> None:
    for at, uid in enumerate(uids, start=100):
        registry.record_arrivals([arrival(1, study=uid, at=at, urgent=uid == urgent)])
        registry.close_quiet(at, 0, at)


def work(registry: Registry, stages: Stages, *, rounds: int = 1, budget: int = 100) -> None:
    worker = Worker(registry, stages, owner="w", token_budget=budget, max_attempts=2, retry_seconds=0.0)
    for _ in range(rounds):
        worker.work_once(threading.Event())


def state(registry: Registry, uid: str) -> tuple[str, str | None]:
    found = registry.study(uid)
    assert found is not None
    return found.state, found.reason


def test_a_study_goes_from_claim_to_deliveries(registry: Registry) -> None:
    queue(registry, "1.2.3")
    work(registry, Model().stages)
    found = registry.study("1.2.3")
    assert found is not None
    assert found.state == "reported"
    assert [delivery.destination for delivery in found.deliveries] == ["pacs"]
    assert found.findings[0]["meaning"] == "Glioma"


def test_waiting_studies_run_together_within_the_budget(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3", "1.4")
    model = Model()
    work(registry, model.stages, rounds=2)
    assert model.batches == [["1.1", "1.2"], ["1.3"], ["1.4"]]


def test_an_urgent_study_never_waits_for_a_batch(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3", urgent="1.3")
    model = Model()
    work(registry, model.stages)
    assert model.batches == [["1.3"]]


def test_out_of_scope_keeps_its_reason(registry: Registry) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, prepare=raises(OutOfScope("not a brain"))))
    assert state(registry, "1.2.3") == ("out_of_scope", "not a brain")


def test_an_error_that_may_pass_is_tried_again_and_then_needs_a_person(registry: Registry) -> None:
    queue(registry, "1.2.3")
    stages = replace(Model().stages, report=raises(DiskFull("no space")))
    work(registry, stages)
    assert state(registry, "1.2.3") == ("failed", "no space")
    work(registry, stages)
    assert state(registry, "1.2.3") == ("dead", "no space")


@pytest.mark.parametrize("error", [ReportError("AccessionNumber is unusable"), PrimaError("not finite")])
def test_a_permanent_error_needs_a_person_at_once(registry: Registry, error: Exception) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, report=raises(error)))
    assert state(registry, "1.2.3") == ("dead", str(error))


def test_an_unexpected_error_never_quotes_its_message(registry: Registry) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, prepare=raises(KeyError("DOE^JOHN"))))
    found, reason = state(registry, "1.2.3")
    assert found == "dead"
    assert reason is not None
    assert "DOE" not in reason


def test_a_failed_batch_is_tried_again_one_by_one(registry: Registry) -> None:
    queue(registry, "1.1", "1.2")
    model = Model()
    work(registry, replace(model.stages, predict=raises(RuntimeError("out of memory"))))
    work(registry, model.stages, rounds=2)
    assert model.batches == [["1.1"], ["1.2"]]


def test_one_study_that_cannot_be_prepared_does_not_stop_the_others(registry: Registry) -> None:
    queue(registry, "1.1", "1.2")
    model = Model()

    def prepare(claim: Claim) -> PreparedStudy:
        if claim.study_instance_uid == "1.1":
            raise OutOfScope("not a brain")
        return model.prepare(claim)

    work(registry, replace(model.stages, prepare=prepare))
    assert state(registry, "1.1")[0] == "out_of_scope"
    assert state(registry, "1.2")[0] == "reported"


def test_a_result_for_a_study_that_changed_meanwhile_is_thrown_away(registry: Registry) -> None:
    queue(registry, "1.2.3")
    model = Model()

    def predict(studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        registry.record_arrivals([arrival(2, at=200)])
        return model.predict(studies)

    work(registry, replace(model.stages, predict=predict))
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.revision, found.deliveries) == ("receiving", 2, ())


def test_a_stopping_worker_gives_back_what_it_holds(registry: Registry) -> None:
    queue(registry, "1.2.3")
    stop = threading.Event()

    def predict(_: object) -> Any:
        stop.set()
        raise Stopped("the node stops")

    stages = replace(Model().stages, predict=predict)
    Worker(registry, stages, owner="w", token_budget=9, max_attempts=2, retry_seconds=0.0).run(stop)
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.attempts) == ("complete", 0)


def test_a_held_result_is_reported_but_goes_nowhere(registry: Registry) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, hand_over=lambda *_: ([], "result held: the model is untrained")))
    assert state(registry, "1.2.3") == ("reported", "result held: the model is untrained")
