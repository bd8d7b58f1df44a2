"""The worker process: the stages between a claimed study and its report, wired to one loaded model."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, Stopped
from dicom_node.base.events import Event, log
from dicom_node.base.types import Claim, ModelIdentity, Report, Score, StudyFacts, StudyResult
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.worker import Stages, Worker
from dicom_node.reporting.codes import finding_of
from dicom_node.reporting.document import build_report
from dicom_node.reporting.write import write_report
from dicom_node.scope import scope_settings
from dicom_node.sending.routes import destinations_for, hold_reason
from dicom_node.worklist.ranking import rank
from prima_core.base.calibration import probability
from prima_core.base.errors import BundleError, OutOfScope
from prima_core.base.types import PreparedStudy, StudyPrediction
from prima_core.bundle import Bundle, build_model, load_bundle
from prima_core.prepare import prepare_study
from prima_core.prima import Prima
from prima_core.volume.headers import read_image_header


def model_identity(bundle: Bundle) -> ModelIdentity:
    """What reports and records say of the model."""
    manifest = bundle.manifest
    return ModelIdentity(manifest.id, manifest.name, manifest.version, manifest.device_uid, manifest.training_state)


class StudyStages:
    """prepare → predict → report → hand over, for one bundle."""

    def __init__(
        self, configuration: Configuration, registry: Registry, bundle: Bundle, model: Prima, stop: threading.Event
    ) -> None:
        self._configuration = configuration
        self._registry = registry
        self._bundle = bundle
        self._model = model
        self._stop = stop
        self._identity = model_identity(bundle)
        self._scope = scope_settings(configuration)

    def as_stages(self) -> Stages:
        """The four functions that the worker is given."""
        return Stages(self.prepare, self.predict, self.report, self.hand_over)

    def prepare(self, claim: Claim) -> PreparedStudy:
        """Spool files → tokens, after the scope check. Raises OutOfScope."""
        if set(self._configuration.scope.exclude.ae_titles) & set(claim.calling_aes):
            raise OutOfScope("the site excludes studies of this calling AE title")
        spool = self._configuration.node.spool
        return prepare_study([spool / path for _, path in claim.images], self._scope, self._go_on)

    def predict(self, studies: Sequence[PreparedStudy]) -> Sequence[StudyPrediction]:
        """The model, all studies at once. Raises Stopped between two chunks of tokens when the node stops."""
        return self._model.predict(studies, self._go_on)

    def report(self, claim: Claim, study: PreparedStudy, prediction: StudyPrediction) -> Report:
        """A durable Structured Report. Raises ReportError or DiskFull."""
        result = self._result(claim, study, prediction)
        created = datetime.now(UTC)
        document = build_report(result, self._used_files(claim, study), self._configuration.report, created)
        path = write_report(document, self._configuration.node.outgoing)
        return Report(
            sop_instance_uid=str(document.SOPInstanceUID),
            series_instance_uid=str(document.SeriesInstanceUID),
            sop_class_uid=str(document.SOPClassUID),
            path=path.name,
            findings=tuple(finding_of(score) for score in result.positive),
            priority=result.priority,
            model=result.model,
            precision=result.precision,
            created_at=created.timestamp(),
        )

    def hand_over(self, claim: Claim, study: PreparedStudy, report: Report) -> tuple[list[tuple[str, str]], str | None]:
        """(destination, kind) of every delivery, and why the result is held, if it is."""
        hold = hold_reason(report.model, self._configuration.model.allow_nonclinical)
        if hold is not None:
            return [], hold
        first = read_image_header(self._used_files(claim, study)[0])
        facts = StudyFacts(study.description, first.age_years, claim.calling_aes)
        names = destinations_for(self._configuration, facts)
        chosen = [self._configuration.destination(name) for name in names]
        return [(destination.name, "sr") for destination in chosen if "sr" in destination.objects], None

    def _result(self, claim: Claim, study: PreparedStudy, prediction: StudyPrediction) -> StudyResult:
        notes = [f"{series.name}: {note}" for series in study.series for note in series.notes]
        notes += [f"series not used: {entry.reason}" for entry in study.set_aside]
        return StudyResult(
            study_instance_uid=claim.study_instance_uid,
            revision=claim.revision,
            diagnoses=self._scores("diagnosis", prediction.diagnosis),
            referrals=self._scores("referral", prediction.referral),
            priority=rank(prediction.priority, self._configuration.worklist.mapping),
            model=self._identity,
            precision=prediction.precision,
            sop_instance_uids=tuple(uid for series in study.series for uid in series.sop_instance_uids),
            notes=tuple(notes),
            partial_reason=claim.partial_reason,
            predecessors=self._registry.predecessors(claim.study_id, claim.revision),
        )

    def _scores(self, task: str, logits: dict[str, float]) -> tuple[Score, ...]:
        manifest = self._bundle.manifest
        temperature = manifest.calibration[task]
        scores = []
        for name, logit in logits.items():
            threshold = manifest.thresholds[task][name]
            calibrated = None if temperature is None else probability(logit + threshold, temperature)
            scores.append(Score(name, logit, threshold, calibrated))
        return tuple(scores)

    def _used_files(self, claim: Claim, study: PreparedStudy) -> list[Path]:
        paths = dict(claim.images)
        spool = self._configuration.node.spool
        return [spool / paths[uid] for series in study.series for uid in series.sop_instance_uids]

    def _go_on(self, _done: int, _total: int) -> None:
        if self._stop.is_set():
            raise Stopped("the node stops")


def load_worker(configuration: Configuration, registry: Registry, stop: threading.Event, owner_kind: str) -> Worker:
    """Load the bundle once and take back what an earlier worker left; the worker is ready to run until `stop` is set.

    owner_kind: begins the owner's name of every worker of this node. Raises ConfigurationError when the bundle is
    missing, altered or incomplete; the message says which file or tensor.
    """
    model_settings = configuration.model
    if model_settings.bundle is None:
        raise ConfigurationError("model.bundle: name a model bundle")
    try:
        bundle = load_bundle(model_settings.bundle)
        model = build_model(bundle, model_settings.device, model_settings.precision)
    except (BundleError, ValueError) as error:
        log(Event.MODEL_REFUSED, "error", reason=str(error))
        raise ConfigurationError(f"model.bundle: {error}") from error
    log(Event.MODEL_LOADED, bundle=bundle.manifest.id, precision=model.runtime.precision)
    for study in registry.reclaim_dead(owner_kind, time.time(), model_settings.max_attempts):
        log(Event.STUDY_RELEASED, "warning", study=study, reason="its worker died")
    return Worker(
        registry,
        StudyStages(configuration, registry, bundle, model, stop).as_stages(),
        owner=owner_kind + uuid.uuid4().hex[:8],
        token_budget=model_settings.token_budget,
        max_attempts=model_settings.max_attempts,
        retry_seconds=model_settings.retry_seconds,
    )
