"""The shadow: another bundle that runs on every reported study, in the time in which no study waits.

It writes no report, moves no priority and holds up nobody: it stops as soon as a study waits, and takes up again what
it left. Its faults are its own: a study on which it fails is noted, and after some in a row it is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dicom_node.base.config import Configuration
from dicom_node.base.errors import NodeError, Stopped
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.types import Claim, Level
from dicom_node.jobs.models import Owed
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.models_in_use import FAULTS, LoadedModel, ModelsInUse
from dicom_node.reporting.codes import finding_of
from dicom_node.worklist.ranking import rank
from prima_core.base.config import TASKS
from prima_core.base.errors import OutOfScope, PrimaError
from prima_core.base.types import PreparedStudy

LOOK_SECONDS = 0.5

Progress = Callable[[int, int], None]
Prepare = Callable[[Claim, Progress], PreparedStudy]
Said = tuple[dict[str, dict[str, float]], npt.NDArray[np.float32]]  # logits, study embedding


class StudyWaits(Exception):
    """A study waits for the active model."""


class Shadow:
    """Runs the shadow's model on one study after another; keeps the last prepared studies for it meanwhile."""

    def __init__(
        self, configuration: Configuration, registry: Registry, models: ModelsInUse, prepare: Prepare, go_on: Progress
    ) -> None:
        self._configuration = configuration
        self._registry = registry
        self._models = models
        self._prepare = prepare
        self._go_on = go_on
        self._prepared: dict[tuple[str, int], PreparedStudy] = {}
        self._bundle = ""
        self._done = 0
        self._looked = 0.0

    def remember(self, claim: Claim, study: PreparedStudy) -> None:
        """Keep what a study was prepared to, as far as a batch's budget goes, to spare the shadow that work."""
        shadow = self._models.shadow
        if shadow is None or shadow.encoder == self._models.active.encoder:
            return
        self._prepared[claim.study_id, claim.revision] = study
        while sum(kept.tokens_kept for kept in self._prepared.values()) > self._configuration.model.token_budget:
            del self._prepared[next(iter(self._prepared))]

    def run_one(self) -> bool:
        """Run on the next reported study; False when there is none, no shadow, or a study waits."""
        shadow = self._models.shadow
        if shadow is None:
            self._prepared.clear()
            return False
        bundle = shadow.identity.bundle_id
        if bundle != self._bundle:
            self._bundle, self._done = bundle, 0
        owed = self._registry.owed_to_shadow(bundle, self._models.shadow_since, self._done)
        if owed is None or self._registry.study_waits(time.time()):
            return False
        self._run(shadow, owed)
        return True

    def _run(self, shadow: LoadedModel, owed: Owed) -> None:
        """The try is noted first: a shadow that brings the worker down is not loaded again for ever."""
        bundle, claim = shadow.identity.bundle_id, owed.claim
        faults = self._registry.model_faults(bundle)
        self._registry.note_model(bundle, faults=faults + 1)
        started = time.monotonic()
        try:
            logits, embedding = self._ask(shadow, claim)
            level = self._level(shadow, logits)
        except (Stopped, StudyWaits):
            self._registry.note_model(bundle, faults=faults)
            return
        except DATABASE_AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the shadow does, the active model's work goes on
            self._failed(shadow, owed, error, faults)
            return
        prediction = shadow.prediction(logits, level, embedding, time.monotonic() - started)
        self._registry.keep_shadow(claim, prediction, time.time())
        self._registry.note_model(bundle, faults=0)
        self._done = owed.number
        self._prepared.pop((claim.study_id, claim.revision), None)

    def _failed(self, shadow: LoadedModel, owed: Owed, error: Exception, faults: int) -> None:
        known = isinstance(error, NodeError | PrimaError)
        reason = str(error) if known else f"unexpected {type_and_place(error)}"
        bundle, claim = shadow.identity.bundle_id, owed.claim
        log(Event.SHADOW_FAILED, "warning", study=claim.study_id, bundle=bundle, reason=reason)
        self._registry.keep_shadow_failure(claim, bundle, reason, time.time())
        self._done = owed.number
        if not isinstance(error, NodeError | OSError | OutOfScope):  # those are not the model's fault
            faults += 1
        if faults >= FAULTS:
            self._models.give_up_shadow(f"failed on {FAULTS} studies in a row, at last: {reason}")
        else:
            self._registry.note_model(bundle, faults=faults)
        if not known:
            # A device that the shadow left unusable must be found before a study is on it: the worker starts afresh.
            self._models.active.synchronize()

    def _ask(self, shadow: LoadedModel, claim: Claim) -> Said:
        kept = self._registry.embedding(claim.study_id, claim.revision, shadow.encoder)
        if kept is not None:
            embedding = np.frombuffer(kept, "<f4").astype(np.float32)
            return _from_embedding(shadow, embedding), embedding
        study = self._prepared.get((claim.study_id, claim.revision)) or self._prepare(claim, self._make_room)
        said = shadow.model.predict_one(study, self._make_room)
        logits = {"diagnosis": said.diagnosis, "referral": said.referral, "priority": said.priority}
        return logits, said.study_embedding

    def _level(self, shadow: LoadedModel, logits: dict[str, dict[str, float]]) -> Level:
        findings = [finding_of(score) for score in shadow.scores("diagnosis", logits["diagnosis"]) if score.positive]
        worklist = self._configuration.worklist
        return rank(logits["priority"], worklist.mapping, findings, worklist.rules).level

    def _make_room(self, done: int, total: int) -> None:
        self._go_on(done, total)
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            if self._registry.study_waits(time.time()):
                raise StudyWaits


def _from_embedding(shadow: LoadedModel, embedding: npt.NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """The heads alone: (P,) study embedding of the same encoder → logits. Raises PrimaError if they are not finite."""
    import torch

    model = shadow.model
    with torch.inference_mode():
        study_BP = torch.from_numpy(embedding)[None].to(model.runtime.device)
        [said] = model.heads(study_BP, model.study_vit.clip_vector(study_BP))
    if not all(np.isfinite(list(logits.values())).all() for logits in said.values()):
        raise PrimaError("the heads' result is not finite: the weights are unusable")
    return {task: said.get(task, {}) for task in TASKS}
