"""The models that the worker has loaded: the active bundle's and, where one runs, the shadow's.

What is to be loaded is said in the registry. A bundle is checked file by file, held against the configuration and built
before it takes another's place: one that cannot be loaded leaves in place what ran before, and the registry says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.base.config import Configuration, ModelSection
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.types import Level, ModelIdentity, Prediction, Score
from dicom_node.bundles import check_fits, encoder_of, identity_of
from dicom_node.jobs.models import Chosen, KnownModel
from dicom_node.jobs.registry import Registry
from dicom_node.latent_cache import LatentCache, latent_cache
from dicom_node.ray_engine import RayCluster, RayModel
from dicom_node.surroundings import machine
from prima_core.base.calibration import probability
from prima_core.base.errors import BundleError
from prima_core.bundle import Bundle, BundleManifest, build_model, load_bundle

if TYPE_CHECKING:
    from prima_core.prima import Prima

FAULTS = 3  # in a row, after which a bundle is left alone until a person names it again


@dataclass(frozen=True)
class LoadedModel:
    """A bundle that was found whole, and its model, ready to predict. encoder: see `bundles.encoder_of`.

    built: the model in this process; None while it is on a Ray cluster alone, as `remote`. settings: how to build it.
    """

    bundle: Bundle
    built: Prima | None
    identity: ModelIdentity
    encoder: str
    remote: RayModel | None = None
    settings: ModelSection = field(default_factory=ModelSection, repr=False)
    cache: LatentCache | None = None

    @cached_property
    def model(self) -> Prima:
        """The model in this process, for the shadow and for explanations; on a Ray node built when first asked for."""
        return self.built or build_model(self.bundle, self.settings.device, self.settings.precision)

    @property
    def predictor(self) -> Prima | RayModel:
        """What reports are made with: this process's model, or actors of a Ray cluster."""
        return self.remote or self.model

    @property
    def precision(self) -> str:
        """Of the predictor."""
        return self.remote.precision if self.remote else self.model.runtime.precision

    def machine(self) -> dict[str, Any]:
        """What the predictor computes on."""
        return self.remote.machine if self.remote else machine(self.model.runtime)

    def synchronize(self) -> None:
        """Wait for this process's device, which raises where it became unusable."""
        if self.built is not None:
            self.built.runtime.synchronize()

    def scores(self, task: str, logits: Mapping[str, float]) -> tuple[Score, ...]:
        """A task's logits, see `scores_of`."""
        return scores_of(self.bundle.manifest, task, logits)

    def prediction(
        self,
        logits: dict[str, dict[str, float]],
        level: Level,
        embedding: npt.NDArray[np.float32],
        seconds: float,
    ) -> Prediction:
        """What the registry keeps of what this model said."""
        precision, content = self.precision, embedding.astype("<f4").tobytes()
        return Prediction(self.identity.bundle_id, self.encoder, logits, level, precision, seconds, content)


def scores_of(manifest: BundleManifest, task: str, logits: Mapping[str, float]) -> tuple[Score, ...]:
    """A task's logits with their thresholds, and as probabilities where the bundle is calibrated."""
    temperature = manifest.calibration[task]
    scores = []
    for name, logit in logits.items():
        threshold = manifest.thresholds[task][name]
        calibrated = None if temperature is None else probability(logit + threshold, temperature)
        scores.append(Score(name, logit, threshold, calibrated))
    return tuple(scores)


class ModelsInUse:
    """Loads and exchanges models. `active` and `shadow` change in `refresh` and `give_up_shadow` alone."""

    def __init__(self, configuration: Configuration, registry: Registry) -> None:
        """Load what is to be in use.

        Raises ConfigurationError when no active bundle can be loaded; the message says which file or tensor is wrong.
        """
        self._configuration = configuration
        self._registry = registry
        model = configuration.model
        self._cluster = RayCluster(model.ray, model.device, model.precision) if model.execution == "ray" else None
        configured = configuration.model.bundle
        if configured is None:
            raise ConfigurationError("model.bundle: name a model bundle")
        chosen = registry.chosen_models()
        self.active = self._configured(configured) if chosen.active is None else self._first(chosen.active, chosen.ran)
        self.shadow: LoadedModel | None = None
        self._take_shadow(chosen.shadow)
        self._note(chosen)

    def refresh(self) -> None:
        """Load what was activated or set to run in shadow since the last call, and let go of what is not in use.

        To be called between two batches: each study is run by one bundle from `predict` on. What is prepared does not
        depend on the bundle.
        """
        if self._registry.model_generation() == self._generation:
            return
        chosen = self._registry.chosen_models()
        if chosen.active is not None and self._take_active(chosen.active):
            event = Event.MODEL_ROLLED_BACK if chosen.rolled_back else Event.MODEL_ACTIVATED
            log(event, bundle=self.active.identity.bundle_id, precision=self.active.precision)
        self._take_shadow(chosen.shadow)
        self._note(chosen)

    def give_up_shadow(self, problem: str) -> None:
        """Run the shadow no more until a person names it again."""
        assert self.shadow is not None
        bundle, self.shadow = self.shadow.identity.bundle_id, None
        self._registry.note_model(bundle, faults=FAULTS, problem=problem)
        self._registry.note_loaded(self.active.identity.bundle_id, None)
        log(Event.SHADOW_FAILED, "error", bundle=bundle, reason=f"not run any more: {problem}")

    def _note(self, chosen: Chosen) -> None:
        self._registry.note_loaded(
            self.active.identity.bundle_id, self.shadow.identity.bundle_id if self.shadow else None
        )
        self._generation = chosen.generation
        self.shadow_since = chosen.shadow.since if chosen.shadow and chosen.shadow.since else 0.0

    def _configured(self, path: Path) -> LoadedModel:
        try:
            loaded = self._load(path)
        except (BundleError, ConfigurationError, ValueError) as error:
            log(Event.MODEL_REFUSED, "error", reason=str(error))
            raise ConfigurationError(f"model.bundle: {error}") from error
        self._registry.know_model(loaded.identity, path)
        return loaded

    def _first(self, active: KnownModel, ran: KnownModel | None) -> LoadedModel:
        """The activated bundle; the one that ran before where that one cannot be loaded."""
        if ran is None or ran.bundle_id == active.bundle_id:
            loaded = self._try(replace(active, faults=0), Event.MODEL_REFUSED)  # there is no other to fall back on
        else:
            loaded = self._try(active, Event.MODEL_REFUSED) or self._try(replace(ran, faults=0), Event.MODEL_REFUSED)
        if loaded is None:
            words = "cannot be loaded (the log says why): mend it, or `dicom-node model rollback`"
            raise ConfigurationError(f"the active bundle {active.bundle_id} at {active.path} {words}")
        return loaded

    def _take_active(self, wanted: KnownModel) -> bool:
        """Whether another bundle is active now."""
        if wanted.bundle_id == self.active.identity.bundle_id:
            return False
        is_shadow = self.shadow is not None and self.shadow.identity.bundle_id == wanted.bundle_id
        if is_shadow and self.shadow is not None and self._cluster is None:
            self.active, self.shadow = self.shadow, None
            return True
        loaded = self._try(wanted, Event.MODEL_REFUSED)
        self.active = loaded or self.active
        return loaded is not None

    def _take_shadow(self, wanted: KnownModel | None) -> None:
        loaded, self.shadow = self.shadow, None
        if wanted is None or wanted.bundle_id == self.active.identity.bundle_id:
            return
        if loaded is not None and loaded.identity.bundle_id == wanted.bundle_id:
            self.shadow = loaded
            return
        del loaded  # its memory may be needed
        self.shadow = self._try(wanted, Event.SHADOW_FAILED, here=True)
        if self.shadow is not None:
            log(Event.SHADOW_LOADED, bundle=wanted.bundle_id, precision=self.shadow.model.runtime.precision)

    def _try(self, wanted: KnownModel, refusal: Event, *, here: bool = False) -> LoadedModel | None:
        """Load a bundle; None, and the reason in the registry, when that cannot be done.

        The try is noted first: a bundle that brings the process down while it is loaded is not tried for ever.
        """
        if wanted.faults >= FAULTS:
            self._refuse(wanted, refusal, wanted.problem or "the worker ended while it loaded or ran it")
            return None
        self._registry.note_model(wanted.bundle_id, faults=wanted.faults + 1, problem=wanted.problem)
        try:
            loaded = self._load(wanted.path, wanted.bundle_id, here=here)
        except (BundleError, ConfigurationError, ValueError) as error:
            self._refuse(wanted, refusal, str(error))
            return None
        except Exception as error:  # noqa: BLE001 - no memory, no device: another model's trouble must not end the work
            self._refuse(wanted, refusal, f"cannot be loaded: {type_and_place(error)}")
            return None
        self._registry.note_model(wanted.bundle_id, faults=wanted.faults)
        return loaded

    def _refuse(self, wanted: KnownModel, refusal: Event, problem: str) -> None:
        self._registry.note_model(wanted.bundle_id, faults=wanted.faults, problem=problem)
        log(refusal, "error", bundle=wanted.bundle_id, reason=problem)

    def _load(self, path: Path, expected: str | None = None, *, here: bool = False) -> LoadedModel:
        """expected: the bundle's id, where it is known. here: in this process whatever `model.execution` says."""
        settings = self._configuration.model
        bundle = load_bundle(path)
        if expected not in (None, bundle.manifest.id):
            raise BundleError(f"another bundle, {bundle.manifest.id}, is at {path} now")
        check_fits(self._configuration, bundle.manifest)
        identity, encoder = identity_of(bundle.manifest), encoder_of(bundle.manifest)
        if self._cluster is not None and not here:
            remote = self._cluster.model(path, identity.bundle_id)
            return LoadedModel(bundle, None, identity, encoder, remote=remote, settings=settings)
        model = build_model(bundle, settings.device, settings.precision)
        model.store = cache = latent_cache(self._configuration, bundle.manifest, model.runtime)
        return LoadedModel(bundle, model, identity, encoder, cache=cache)
