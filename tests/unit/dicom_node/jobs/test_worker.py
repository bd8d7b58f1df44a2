"""The worker's promises when stages succeed, fail, lose their claim or are told to stop. The model is a stand-in."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from dicom_node.base.errors import DiskFull, ReportError, Stopped
from dicom_node.base.orders import Handover
from dicom_node.base.types import Claim
from dicom_node.jobs import queue as queueing
from dicom_node.jobs import worker as working
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.worker import Stages, Worker
from prima_core.base.errors import OutOfScope, PrimaError
from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from support.studies import arrival, handover, new_registry, report


class Model:
    """Stages that note what they were asked; a test replaces one of them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.stages = Stages(self.prepare, self.predict, self.report, lambda *_: handover("pacs"))

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


def new_worker(registry: Registry, stages: Stages, budget: int = 100, retry_seconds: float = 0.0) -> Worker:
    return Worker(
        registry, stages, owner="w", token_budget=budget, max_attempts=2, retry_seconds=retry_seconds, pulse=Pulse()
    )


def work(registry: Registry, stages: Stages, *, rounds: int = 1, budget: int = 100) -> None:
    worker = new_worker(registry, stages, budget)
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


class Overlapping(Model):
    """A model that computes until the next study is prepared, or until nobody prepares one."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.prepared: list[str] = []
        self.another = threading.Event()
        self._meanwhile = meanwhile

    def prepare(self, claim: Claim) -> PreparedStudy:
        self.prepared.append(claim.study_instance_uid)
        if len(self.prepared) > 1:
            self.another.set()
        return super().prepare(claim)

    def predict(self, studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        if not self.batches:
            assert self.another.wait(60), "nothing is prepared while the model runs"
            self._meanwhile()
        return super().predict(studies)


def test_the_next_study_is_prepared_while_the_model_runs(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3")
    model = Overlapping()
    worker = new_worker(registry, model.stages, budget=40)
    worker.work_once(threading.Event())
    assert (model.batches, model.prepared) == ([["1.1"]], ["1.1", "1.2"])
    assert [state(registry, uid)[0] for uid in ("1.1", "1.2", "1.3")] == ["reported", "running", "complete"]
    worker.work_once(threading.Event())
    worker.work_once(threading.Event())
    assert not worker.work_once(threading.Event())
    assert (model.batches, model.prepared) == ([["1.1"], ["1.2"], ["1.3"]], ["1.1", "1.2", "1.3"])


def test_a_study_prepared_ahead_keeps_its_lease(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    queue(registry, "1.1", "1.2")
    worker = new_worker(registry, Overlapping().stages, budget=40)
    worker.work_once(threading.Event())
    later = time.time() + 10 * working.LEASE_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    worker._renew()
    assert registry.reclaim_expired(later, 2) == []
    worker.work_once(threading.Event())
    assert state(registry, "1.2")[0] == "reported"


def test_a_study_prepared_ahead_makes_way_for_an_urgent_one(registry: Registry) -> None:
    queue(registry, "1.1", "1.2")
    model = Overlapping(lambda: queue(registry, "1.9", urgent="1.9"))
    worker = new_worker(registry, model.stages, budget=40)
    worker.work_once(threading.Event())
    worker.work_once(threading.Event())
    assert model.batches == [["1.1"], ["1.9"]]
    worker.work_once(threading.Event())
    assert model.batches[2:] == [["1.2"]]
    found = registry.study("1.2")
    assert found is not None
    assert (found.state, found.attempts) == ("reported", 1)


def test_a_stopping_worker_gives_back_what_it_prepared_ahead(registry: Registry) -> None:
    queue(registry, "1.1", "1.2")
    stop = threading.Event()
    new_worker(registry, Overlapping(stop.set).stages, budget=40).run(stop)
    assert [state(registry, uid)[0] for uid in ("1.1", "1.2")] == ["reported", "complete"]


def test_a_study_to_be_tried_again_is_not_passed_by_for_ever(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3", "1.4")
    model = Model()

    def predict(studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        if not model.batches:
            model.batches.append(["none"])
            raise RuntimeError("device")
        return model.predict(studies)

    work(registry, replace(model.stages, predict=predict), rounds=5, budget=40)
    assert model.batches == [["none"], ["1.2"], ["1.1"], ["1.3"], ["1.4"]]


def test_nothing_is_prepared_beside_a_study_that_may_have_brought_a_worker_down(registry: Registry) -> None:
    queue(registry, "1.1")
    work(registry, replace(Model().stages, predict=raises(RuntimeError("device"))))
    registry.record_arrivals([arrival(1, study="1.2", at=900)])
    registry.close_quiet(900, 0, 900)
    model = Model()

    def predict(studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        assert state(registry, "1.2")[0] == "complete"
        return model.predict(studies)

    work(registry, replace(model.stages, predict=predict))
    assert model.batches == [["1.1"]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DiskFull("no space"), "no space"),
        (OSError(errno.EIO, "I/O error", "/spool/x"), "a file cannot be read or written now (EIO)"),
    ],
)
def test_an_error_that_may_pass_is_tried_until_it_has_passed(registry: Registry, error: Exception, reason: str) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, report=raises(error)), rounds=5)
    assert state(registry, "1.2.3") == ("failed", reason)
    work(registry, Model().stages)
    assert state(registry, "1.2.3")[0] == "reported"


def test_an_unexpected_error_is_tried_again_and_then_needs_a_person(registry: Registry) -> None:
    queue(registry, "1.2.3")
    stages = replace(Model().stages, report=raises(RuntimeError("bug")))
    work(registry, stages)
    assert state(registry, "1.2.3")[0] == "failed"
    work(registry, stages)
    assert state(registry, "1.2.3")[0] == "dead"


@pytest.mark.parametrize("error", [ReportError("AccessionNumber is unusable"), PrimaError("not finite")])
def test_a_permanent_error_needs_a_person_at_once(registry: Registry, error: Exception) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, report=raises(error)))
    assert state(registry, "1.2.3") == ("dead", str(error))


def test_an_unexpected_error_never_quotes_its_message(registry: Registry) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, prepare=raises(KeyError("DOE^JOHN"))), rounds=2)
    found, reason = state(registry, "1.2.3")
    assert found == "dead"
    assert reason is not None
    assert "DOE" not in reason


def test_a_study_that_brings_its_batch_down_costs_its_companions_nothing(registry: Registry) -> None:
    queue(registry, "1.1", "1.2")
    model = Model()

    def predict(studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        if any(study.study_instance_uid == "1.1" for study in studies):
            raise RuntimeError("out of memory")
        return model.predict(studies)

    work(registry, replace(model.stages, predict=predict))
    assert model.batches == [["1.2"]]
    assert (state(registry, "1.1")[0], state(registry, "1.2")[0]) == ("failed", "reported")


def test_a_study_of_which_the_model_can_say_nothing_takes_none_from_its_companions(registry: Registry) -> None:
    queue(registry, "1.1", "1.2")
    model = Model()

    def predict(studies: Sequence[PreparedStudy]) -> list[StudyPrediction | PrimaError]:
        assert len(studies) == 2
        return [PrimaError("not finite"), *model.predict(studies)[1:]]

    work(registry, replace(model.stages, predict=predict))
    assert state(registry, "1.1") == ("dead", "not finite")
    assert state(registry, "1.2")[0] == "reported"


def test_an_urgent_study_that_comes_meanwhile_waits_for_one_batch_only(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3")
    model = Model()

    def predict(studies: Sequence[PreparedStudy]) -> list[StudyPrediction]:
        if not model.batches:
            registry.record_arrivals([arrival(1, study="1.9", at=500, urgent=True)])
            registry.close_quiet(500, 0, 500)
        return model.predict(studies)

    # Each study alone exceeds the budget of a batch, but not what the worker may hold together.
    work(registry, replace(model.stages, predict=predict), rounds=3, budget=60)
    assert model.batches[:3] == [["1.1"], ["1.9"], ["1.2"]]
    found = registry.study("1.2")
    assert found is not None
    assert (found.state, found.attempts) == ("reported", 1), "making way cost it no attempt"


def test_a_database_that_goes_away_costs_the_study_no_attempt(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(registry, "1.2.3")
    worker = new_worker(registry, Model().stages)
    with monkeypatch.context() as away:
        away.setattr(registry, "finish_reported", raises(OperationalError("UPDATE", {}, Exception("away"))))
        with pytest.raises(OperationalError):
            worker.work_once(threading.Event())
    assert state(registry, "1.2.3")[0] == "running"
    worker.work_once(threading.Event())
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.attempts) == ("reported", 1)


def test_a_device_that_fails_every_study_ends_the_worker_and_not_the_studies(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3", "1.4")
    worker = new_worker(registry, replace(Model().stages, predict=raises(RuntimeError("CUDA error"))), 10, 60.0)
    stop = threading.Event()
    with pytest.raises(RuntimeError, match="CUDA"):
        worker.run(stop)
    states = [registry.study(f"1.{number}") for number in (1, 2, 3, 4)]
    assert [(found.state, found.attempts) for found in states if found] == [
        ("failed", 1),
        ("failed", 1),
        ("complete", 0),
        ("complete", 0),
    ]


def test_the_thread_that_keeps_the_leases_takes_the_worker_down_with_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "LEASE_SECONDS", 0.04)
    monkeypatch.setattr(registry, "renew", raises(KeyError("a bug")))
    stop = threading.Event()
    worker = Worker(registry, Model().stages, owner="w", token_budget=9, max_attempts=2, retry_seconds=0, pulse=Pulse())
    with pytest.raises(KeyError):
        worker.run(stop)
    assert stop.is_set()


def test_work_that_stands_still_keeps_no_lease(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "LEASE_SECONDS", 0.04)
    monkeypatch.setattr(queueing, "GRACE_SECONDS", 0.2)
    queue(registry, "1.2.3")
    stop = threading.Event()

    def predict(_: object) -> Any:
        while not registry.reclaim_expired(time.time(), 3):
            time.sleep(0.01)
        stop.set()
        raise Stopped("the node stops")

    stages = replace(Model().stages, predict=predict)
    worker = Worker(
        registry, stages, owner="w", token_budget=9, max_attempts=2, retry_seconds=0, pulse=Pulse(patience_seconds=0)
    )
    worker.run(stop)
    assert state(registry, "1.2.3")[0] == "complete"


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
    Worker(registry, stages, owner="w", token_budget=9, max_attempts=2, retry_seconds=0.0, pulse=Pulse()).run(stop)
    found = registry.study("1.2.3")
    assert found is not None
    assert (found.state, found.attempts) == ("complete", 0)


def test_a_held_result_is_reported_but_goes_nowhere(registry: Registry) -> None:
    queue(registry, "1.2.3")
    work(registry, replace(Model().stages, hand_over=lambda *_: Handover(hold="result held: the model is untrained")))
    assert state(registry, "1.2.3") == ("reported", "result held: the model is untrained")


def test_a_new_bundle_is_taken_while_no_study_is_in_hand(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3")
    model = Model()
    seen: list[int] = []

    def refresh() -> None:
        running = registry.state_counts()["running"]
        seen.append(running)

    work(registry, replace(model.stages, refresh=refresh), rounds=3)
    assert seen == [0, 0, 0]
    assert len(model.batches) == 2


def test_spare_work_is_done_when_nothing_waits(registry: Registry) -> None:
    queue(registry, "1.1", "1.2", "1.3")
    stop = threading.Event()
    left: list[str] = []

    def spare() -> bool:
        left.append(state(registry, "1.3")[0])
        stop.set()
        return False

    new_worker(registry, replace(Model().stages, spare=spare)).run(stop)
    assert left == ["reported"], "not before the last study that waited"
