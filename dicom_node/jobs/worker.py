"""The worker: claim → prepare → predict → report → hand over. It knows stages only as the functions it is given."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from dicom_node.base.errors import LostClaim, NodeError, RetriableError, Stopped
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.orders import Handover
from dicom_node.base.types import Claim, Report
from dicom_node.jobs.batches import Prepared, may_take_more, split
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from prima_core.base.errors import OutOfScope, PrimaError
from prima_core.base.types import PreparedStudy, StudyPrediction

POLL_SECONDS = 0.5
LEASE_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 14400.0
FAULTS = 3  # studies in a row, each run alone, on which the model fails unexpectedly, before the worker starts afresh


@dataclass(frozen=True)
class Stages:
    """The stages between a claim and a result.

    prepare: spool files → tokens, whatever the bundle; raises OutOfScope or another PrimaError. predict: the model,
    several studies at once. report: a durable document. hand_over: what is sent where, and who is told the priority.
    refresh: called while no study is in hand but one that is prepared, to take a new bundle into use. spare: a piece of
    work for the time in which no study waits, which ends early when one does; False when there was none.
    """

    prepare: Callable[[Claim], PreparedStudy]
    predict: Callable[[Sequence[PreparedStudy]], Sequence[StudyPrediction | PrimaError]]
    report: Callable[[Claim, PreparedStudy, StudyPrediction], Report]
    hand_over: Callable[[Claim, PreparedStudy, Report], Handover]
    refresh: Callable[[], None] = lambda: None
    spare: Callable[[], bool] = lambda: False


class Worker:
    """Runs studies until told to stop; owns what it claims and gives back what it cannot finish."""

    def __init__(
        self,
        registry: Registry,
        stages: Stages,
        *,
        owner: str,
        token_budget: int,
        max_attempts: int,
        retry_seconds: float,
        pulse: Pulse,
    ) -> None:
        self._registry = registry
        self._stages = stages
        self._owner = owner
        self._token_budget = token_budget
        self._max_attempts = max_attempts
        self._retry_seconds = retry_seconds
        self._pulse = pulse
        self._held: set[str] = set()
        self._dropped: set[str] = set()
        self._ahead: list[Prepared] = []
        self._faults = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then give back what is not finished.

        An error that nobody thought of, here or in the thread that keeps the leases, sets `stop` and is raised.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="leases") as pool:
            leases = pool.submit(self._keep_leases, stop)
            try:
                while not stop.is_set():
                    if not self._work_if_reachable(stop):
                        stop.wait(POLL_SECONDS)
            finally:
                stop.set()
                self._release()
        leases.result()

    def _release(self) -> None:
        """Give back everything, however the work ended; with the database away it comes back when the leases end."""
        try:
            for study in self._registry.give_back(self._owner, time.time()):
                log(Event.STUDY_RELEASED, study=study, reason="the worker stops")
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="worker", error=type(error).__name__)

    def work_once(self, stop: threading.Event) -> bool:
        """Take what waits now, within the token budget, and finish it; False when nothing waited.

        While the last batch runs one study more is taken and prepared, for the next time. An urgent study that comes
        meanwhile waits for the batch that runs, not for those after it.
        """
        self._pulse.beat()
        if self._dropped:
            self._give_back(sorted(self._dropped), "the database went away while it ran")
            self._dropped.clear()
        self._stages.refresh()
        try:
            held, claimed = self._take(stop)
            batches = split(held, self._token_budget)
            while batches and not stop.is_set():
                batch = batches.pop(0)
                if batches or any(item.claim.attempts > 1 for item in batch):
                    self._run(batch)
                else:
                    self._run_and_prepare(batch, stop)
                if batches and not batches[0][0].claim.urgent and self._registry.urgent_waits():
                    waiting = [item.claim.study_id for batch in batches for item in batch]
                    self._give_back(waiting, "an urgent study goes first")
                    break
        except DATABASE_AWAY:
            self._dropped |= self._held
            raise
        finally:
            self._held.intersection_update(item.claim.study_id for item in self._ahead)
        return claimed

    def _work_if_reachable(self, stop: threading.Event) -> bool:
        try:
            return self.work_once(stop) or self._stages.spare()
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="worker", error=type(error).__name__)
            return False

    def _give_back(self, held: Sequence[str], reason: str) -> None:
        for study in self._registry.give_back(self._owner, time.time(), held):
            log(Event.STUDY_RELEASED, study=study, reason=reason)

    def _take(self, stop: threading.Event) -> tuple[list[Prepared], bool]:
        held, self._ahead = self._ahead, []
        if held and not held[0].claim.urgent and self._registry.urgent_waits():
            self._give_back([held.pop().claim.study_id], "an urgent study goes first")
        claimed = bool(held)
        while not stop.is_set() and may_take_more(held, self._token_budget):
            claim = self._claim(untried=bool(held))
            if claim is None:
                break
            claimed = True
            held += self._prepare(claim)
        return held, claimed

    def _claim(self, *, untried: bool) -> Claim | None:
        now = time.time()
        claim = self._registry.claim(self._owner, now + LEASE_SECONDS, now, untried=untried)
        if claim is not None:
            self._held.add(claim.study_id)
            passed(FaultPoint.STUDY_CLAIMED)
            log(Event.STUDY_CLAIMED, study=claim.study_id, revision=claim.revision, attempts=claim.attempts)
        return claim

    def _prepare(self, claim: Claim) -> list[Prepared]:
        """The study with its tokens; none where it had its end."""
        prepared: list[Prepared] = []
        with self._ending(claim):
            prepared.append(Prepared(claim, self._stages.prepare(claim)))
        return prepared

    def _run_and_prepare(self, batch: Sequence[Prepared], stop: threading.Event) -> None:
        """Run a batch; while the model computes, files are read for the study that comes next."""
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            ahead = pool.submit(self._prepare_next, stop)
            self._run(batch)
        self._ahead = ahead.result()

    def _prepare_next(self, stop: threading.Event) -> list[Prepared]:
        claim = None if stop.is_set() else self._claim(untried=True)
        return [] if claim is None else self._prepare(claim)

    def _run(self, batch: Sequence[Prepared]) -> None:
        try:
            predictions = self._stages.predict([item.study for item in batch])
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - out of memory and every fault of the model ends the batch, not the node
            self._run_alone(batch, error)
            return
        self._faults = 0
        for item, prediction in zip(batch, predictions, strict=True):
            with self._ending(item.claim):
                if isinstance(prediction, PrimaError):
                    raise prediction
                self._finish(item, prediction)

    def _run_alone(self, batch: Sequence[Prepared], error: Exception) -> None:
        """Nobody answers for what a companion brought down, nor for a device that fails every study."""
        if len(batch) == 1:
            self._faults += 1
            if self._faults >= FAULTS:
                raise error  # a fresh process gets a fresh device; what it held comes back to the queue
            self._fail(batch[0].claim, error)
            return
        log(Event.JOB_FAILED, "warning", job="batch", count=len(batch), error=type_and_place(error))
        for item in batch:
            self._run([item])

    def _finish(self, item: Prepared, prediction: StudyPrediction) -> None:
        claim = item.claim
        report = self._stages.report(claim, item.study, prediction)
        handover = self._stages.hand_over(claim, item.study, report)
        set_aside = [entry.reason for entry in item.study.set_aside]
        self._registry.finish_reported(claim, report, handover, time.time(), set_aside)
        log(
            Event.STUDY_REPORTED,
            study=claim.study_id,
            revision=claim.revision,
            priority=report.priority.level.value,
            tokens=item.study.tokens_kept,
            precision=report.precision,
            bundle=report.model.bundle_id,
        )
        if handover.hold:
            log(Event.RESULT_HELD, "warning", study=claim.study_id, reason=handover.hold)

    @contextmanager
    def _ending(self, claim: Claim) -> Iterator[None]:
        """Give a study its stated end when a stage raises."""
        try:
            yield
        except OutOfScope as error:
            set_aside = [entry.reason for entry in error.set_aside]
            finish = partial(self._registry.finish_out_of_scope, set_aside=set_aside)
            self._end(claim, Event.STUDY_OUT_OF_SCOPE, error.reason, finish)
        except LostClaim as error:
            log(Event.CLAIM_LOST, "warning", study=claim.study_id, reason=str(error))
        except Stopped:
            pass  # `run` gives back everything that is still claimed
        except DATABASE_AWAY:
            raise  # the database's trouble is not the study's
        except Exception as error:  # noqa: BLE001 - one study's fault must not stop the others; the study keeps the reason
            self._fail(claim, error)

    def _fail(self, claim: Claim, error: Exception) -> None:
        reason = _reason(error)
        if not isinstance(error, NodeError | PrimaError):
            log(Event.STUDY_FAILED, "error", study=claim.study_id, error=type_and_place(error))
        permanent = isinstance(error, PrimaError) or (isinstance(error, NodeError) and not error.retriable)
        # A full disk says nothing of the study: it is tried until it succeeds.
        counts = not isinstance(error, RetriableError | OSError)
        if permanent or (counts and claim.attempts >= self._max_attempts):
            self._end(claim, Event.STUDY_DEAD, reason, self._registry.finish_dead)
            return
        wait = self._retry_seconds * 2.0 ** (claim.attempts - 1) if counts else self._retry_seconds
        wait = min(wait, LONGEST_RETRY_SECONDS)
        finish = partial(self._registry.finish_failed, retry_at=time.time() + wait, counts=counts)
        self._end(claim, Event.STUDY_FAILED, reason, lambda claim, reason, at: finish(claim, reason, at=at))

    @staticmethod
    def _end(claim: Claim, event: Event, reason: str, finish: Callable[[Claim, str, float], None]) -> None:
        level = {Event.STUDY_DEAD: "error", Event.STUDY_FAILED: "warning"}.get(event, "info")
        try:
            finish(claim, reason, time.time())
            log(event, level, study=claim.study_id, revision=claim.revision, reason=reason)
        except LostClaim as error:
            log(Event.CLAIM_LOST, "warning", study=claim.study_id, reason=str(error))

    def _keep_leases(self, stop: threading.Event) -> None:
        try:
            while not stop.wait(LEASE_SECONDS / 4):
                self._renew()
        except BaseException:
            stop.set()
            raise

    def _renew(self) -> None:
        if not self._pulse.alive():
            return  # the lease runs out, and the study comes back to the queue
        try:
            self._registry.renew(self._owner, sorted(self._held), time.time() + LEASE_SECONDS)
        except DATABASE_AWAY as error:
            log(Event.JOB_FAILED, "warning", job="leases", error=type(error).__name__)


def _reason(error: Exception) -> str:
    if isinstance(error, NodeError | PrimaError):
        return str(error)
    if isinstance(error, OSError):
        return f"a file cannot be read or written now ({errno.errorcode.get(error.errno or 0, 'unknown error')})"
    return f"unexpected {type(error).__name__} (see the log)"
