"""The model on a Ray cluster that the site runs: one actor a device, wherever the cluster has room.

The worker stays where it was: it claims, prepares, reports and hands over, and its leases say whose a study is. Only
the model's computation goes to the actors, as arrays without identifiers. The registry is the one truth about what is
done: an actor that dies in the middle takes nothing with it, its studies are computed again by another one. Ray itself
is imported by the worker alone, and late.

    cluster = RayCluster(settings, device="auto", precision="auto")
    model = cluster.model(folder, bundle_id)           # loaded by at least one actor
    model.predict(studies, progress)                   # as `Prima.predict`, shared out among the actors
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.base.config import RaySettings
from dicom_node.base.errors import ConfigurationError, NodeError, RetriableError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.surroundings import machine, software
from prima_core.base.errors import BundleError, PrimaError
from prima_core.base.types import PreparedStudy, StudyPrediction
from prima_core.bundle import build_model, load_bundle

if TYPE_CHECKING:
    from prima_core.prima import Prima
    from prima_core.volume_tokenizer import Progress

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 0.5
ANSWER_SECONDS = 10.0  # for an actor to say how far it is
CONTROL = "control"  # the actor's second thread, which answers while the first computes
DEATHS = 2  # of actors on the same studies, after which it counts as their fault

Outcome = StudyPrediction | PrimaError


class ActorsDied(NodeError):
    """Actors died of, or during, the same studies. Counted as an attempt, as the death of a worker is."""

    retriable = True


class NoActor(RetriableError):
    """The cluster gives no actor now."""


@dataclass(frozen=True)
class Loaded:
    """What an actor says of itself once it has loaded a bundle. source: of the node's own modules there."""

    bundle_id: str
    precision: str
    machine: dict[str, Any]
    source: str


class ModelActor:
    """Lives in a process of its own on one of the cluster's machines; holds one bundle's model."""

    def __init__(self) -> None:
        self._model: Prima | None = None
        self._done = 0
        self._stopped = 0

    def load(self, folder: str, device: str, precision: str) -> Loaded:
        """Load a bundle in place of the one before. Raises BundleError, ValueError."""
        bundle = load_bundle(Path(folder))
        self._model = build_model(bundle, device, precision)  # the one before stays where this fails
        runtime, source = self._model.runtime, software()["source"]
        return Loaded(bundle.manifest.id, runtime.precision, machine(runtime), source or "")

    def predict(self, number: int, studies: Sequence[PreparedStudy]) -> Sequence[Outcome]:
        """number: of the request, for `stop`."""
        assert self._model is not None

        def progress(_done: int, _total: int) -> None:
            self._done += 1
            if self._stopped >= number:
                raise InterruptedError

        return self._model.predict(studies, progress)

    def done(self) -> int:
        """Grows as the work goes on."""
        return self._done

    def stop(self, number: int) -> None:
        """End the work on this request and those before it."""
        self._stopped = number


@dataclass
class Slot:
    """One actor, or where one is to be. bundle: what it has loaded, or is loading as `loading`."""

    actor: Any = None
    bundle: str | None = None
    loading: Any = None
    loaded: Loaded | None = None


@dataclass
class Part:
    """Some of the studies, by their places, at work on an actor. done: how far it was last heard to be."""

    slot: Slot
    places: list[int]
    answer: Any
    deaths: int
    done: int = -1


class RayCluster:
    """The connection to a cluster, and the actors there, which end with this process."""

    def __init__(self, settings: RaySettings, device: str, precision: str) -> None:
        """Connect. Raises ConfigurationError where Ray is not installed or no cluster answers."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigurationError(
                "model.execution: Ray is not installed here (pip install 'prima-node[ray]')"
            ) from error
        try:
            _check_answers(settings.address)
            ray.init(address=settings.address, log_to_driver=False, configure_logging=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigurationError(f"model.ray.address: no Ray cluster at '{settings.address}'") from error
        self._ray = ray
        self._settings = settings
        self._load = device, precision
        self._source = software()["source"]
        self._slots = [Slot() for _ in range(settings.actors)]
        self._number = 0

    def model(self, folder: Path, bundle_id: str) -> RayModel:
        """A bundle's model, loaded by one actor at least; the folder must be there on every machine of the cluster.

        Raises BundleError where it cannot be loaded, ConfigurationError where no actor is to be had in time, or where
        one runs another version of the node or on another kind of device than the others.
        """
        try:
            [first, *_] = self._ready(folder, bundle_id)
        except NoActor as error:
            raise ConfigurationError(f"model.ray: {error}") from error
        assert first.loaded is not None
        return RayModel(self, folder, first.loaded)

    def predict(
        self, folder: Path, bundle_id: str, studies: Sequence[PreparedStudy], progress: Progress | None
    ) -> list[Outcome]:
        """As `RayModel.predict`."""
        outcomes: dict[int, Outcome] = {}
        left = [(list(range(len(studies))), 0)]  # places of studies, and how many actors died of them
        running: list[Part] = []
        bare = [without_identifiers(study, place) for place, study in enumerate(studies)]
        try:
            while left or running:
                if left:
                    running += self._begin(folder, bundle_id, bare, left, running)
                    left = []
                for part in self._look(running, progress, len(outcomes), len(studies)):
                    running.remove(part)
                    answer = self._answer(part)
                    if answer is not None:
                        outcomes |= zip(part.places, answer, strict=True)
                    else:
                        left.append((part.places, _counted(part.deaths + 1)))
        except BaseException:
            self._stop(running)
            raise
        return [_named(outcomes[place], study) for place, study in enumerate(studies)]

    def _begin(
        self,
        folder: Path,
        bundle_id: str,
        studies: Sequence[PreparedStudy],
        left: Sequence[tuple[list[int], int]],
        running: Sequence[Part],
    ) -> list[Part]:
        try:
            ready = self._ready(folder, bundle_id)
        except (BundleError, ConfigurationError, ValueError) as error:
            raise NoActor(str(error)) from error  # no study's fault
        busy = [part.slot for part in running]
        free = [slot for slot in ready if slot not in busy] or busy
        begun = []
        for places, deaths in left:
            for slot, share in zip(free, shares(studies, places, len(free)), strict=True):
                if share:
                    self._number += 1
                    work = self._ray.put([studies[place] for place in share])
                    answer = slot.actor.predict.remote(self._number, work)
                    begun.append(Part(slot, share, answer, deaths))
        return begun

    def _look(self, running: Sequence[Part], progress: Progress | None, done: int, total: int) -> list[Part]:
        """The parts that ended. Only while the others move on `progress` is told, which keeps the worker's pulse."""
        by_answer = {part.answer: part for part in running}
        ended, _ = self._ray.wait(list(by_answer), num_returns=len(by_answer), timeout=LOOK_SECONDS)
        moved = bool(ended)
        for part in running:
            if part.answer not in ended:
                how_far = self._how_far(part)
                moved |= how_far != part.done
                part.done = how_far
        if moved and progress is not None:
            progress(done, total)
        return [by_answer[answer] for answer in ended]

    def _how_far(self, part: Part) -> int:
        asked = part.slot.actor.done.options(concurrency_group=CONTROL).remote()
        try:
            return int(self._ray.get(asked, timeout=ANSWER_SECONDS))
        except (self._ray.exceptions.GetTimeoutError, self._ray.exceptions.RayActorError):
            return part.done

    def _answer(self, part: Part) -> Sequence[Outcome] | None:
        """None where the actor died."""
        exceptions = self._ray.exceptions
        try:
            answer: Sequence[Outcome] = self._ray.get(part.answer)
        except exceptions.RayTaskError as error:
            raise error.cause from None  # its text quotes more than the cause's
        except (exceptions.RayActorError, exceptions.RaySystemError, exceptions.ObjectLostError) as error:
            log(Event.ACTOR_DIED, "warning", error=type_and_place(error), count=len(part.places))
            self._drop(part.slot)
            return None
        return answer

    def _ready(self, folder: Path, bundle_id: str) -> list[Slot]:
        """The actors that have this bundle loaded; waits for the first one. Raises NoActor, BundleError."""
        until = time.monotonic() + self._settings.start_seconds
        while True:
            for slot in self._slots:
                if slot.bundle != bundle_id:
                    self._start_loading(slot, folder, bundle_id)
            loading = {slot.loading: slot for slot in self._slots if slot.loading is not None}
            ready = [slot for slot in self._slots if slot.loaded is not None]
            wait = 0.0 if ready else LOOK_SECONDS
            ended = self._ray.wait(list(loading), num_returns=len(loading), timeout=wait)[0] if loading else []
            for answer in ended:
                self._finish_loading(loading[answer])
            if ready and not ended:
                return ready
            if not ready and time.monotonic() > until:
                wanted = self._settings
                raise NoActor(
                    f"the cluster gave no actor with {wanted.gpus:g} GPUs and {wanted.cpus:g} CPUs in "
                    f"{wanted.start_seconds:.0f} s, or it did not load the bundle in that time"
                )

    def _start_loading(self, slot: Slot, folder: Path, bundle_id: str) -> None:
        if slot.actor is None:
            wanted = self._settings
            options: dict[str, Any] = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "max_restarts": 0}
            if wanted.accelerator is not None:
                options["accelerator_type"] = wanted.accelerator
            slot.actor = self._ray.remote(concurrency_groups={CONTROL: 1}, **options)(ModelActor).remote()
        slot.bundle, slot.loaded = bundle_id, None
        slot.loading = slot.actor.load.remote(str(folder), *self._load)

    def _finish_loading(self, slot: Slot) -> None:
        answer, slot.loading = slot.loading, None
        exceptions = self._ray.exceptions
        try:
            loaded: Loaded = self._ray.get(answer)
        except exceptions.RayTaskError as error:
            slot.bundle = None
            raise error.cause from None
        except (exceptions.RayActorError, exceptions.RaySystemError) as error:
            log(Event.ACTOR_DIED, "warning", error=type_and_place(error), count=0)
            self._drop(slot)
            return
        try:
            self._check(slot, loaded)
        except (BundleError, ConfigurationError):
            self._drop(slot)  # another start may find another machine, or this one mended
            raise
        slot.loaded = loaded

    def _check(self, slot: Slot, loaded: Loaded) -> None:
        if loaded.bundle_id != slot.bundle:
            raise BundleError(f"another bundle, {loaded.bundle_id}, is in that folder on a machine of the Ray cluster")
        if loaded.source != self._source:
            raise ConfigurationError("model.ray: a machine of the cluster has another version of the node installed")
        others = [other.loaded for other in self._slots if other.loaded is not None]
        if any((one.machine, one.precision) != (loaded.machine, loaded.precision) for one in others):
            raise ConfigurationError(
                "model.ray: actors run on unlike devices, and no result could say on which; see model.ray.accelerator"
            )

    def _drop(self, slot: Slot) -> None:
        if slot.actor is not None:
            self._ray.kill(slot.actor)
        slot.actor = slot.bundle = slot.loading = slot.loaded = None

    def _stop(self, running: Sequence[Part]) -> None:
        for part in running:
            if part.slot.actor is not None:
                part.slot.actor.stop.options(concurrency_group=CONTROL).remote(self._number)

    def close(self) -> None:
        """End the actors and leave the cluster."""
        self._ray.shutdown()


class RayModel:
    """One bundle's model on a cluster: the part of `Prima` that reports are made with."""

    def __init__(self, cluster: RayCluster, folder: Path, loaded: Loaded) -> None:
        self._cluster = cluster
        self._folder = folder
        self._bundle_id = loaded.bundle_id
        self.precision = loaded.precision
        self.machine = loaded.machine | {"execution": "ray"}

    def predict(self, studies: Sequence[PreparedStudy], progress: Progress | None = None) -> list[Outcome]:
        """As `Prima.predict`; the studies are shared out among the actors.

        Raises NoActor where the cluster gives none, ActorsDied where one after another ended on the same studies.
        """
        return self._cluster.predict(self._folder, self._bundle_id, studies, progress)


def _counted(deaths: int) -> int:
    """Of actors on the same studies. Raises ActorsDied when these are too many."""
    if deaths >= DEATHS:
        raise ActorsDied(f"{DEATHS} Ray actors in a row ended while they ran this study")
    return deaths


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes. Raises OSError."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def without_identifiers(study: PreparedStudy, place: int) -> PreparedStudy:
    """What the model reads of a study: patches, their places, the series' names and the study's description."""
    series = tuple(
        replace(one, series_instance_uid=str(number), sop_instance_uids=(), notes=(), affine=None)
        for number, one in enumerate(study.series)
    )
    return PreparedStudy(str(place), study.description, series)


def shares(studies: Sequence[PreparedStudy], places: Sequence[int], count: int) -> list[list[int]]:
    """The places in so many parts of about as many tokens each; each part's in order."""
    parts: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for place in sorted(places, key=lambda one: -studies[one].tokens_kept):
        least = tokens.index(min(tokens))
        parts[least].append(place)
        tokens[least] += studies[place].tokens_kept
    return [sorted(part) for part in parts]


def _named(outcome: Outcome, study: PreparedStudy) -> Outcome:
    if isinstance(outcome, PrimaError):
        return outcome
    return replace(outcome, study_instance_uid=study.study_instance_uid)
