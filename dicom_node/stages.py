"""The worker process: the stages between a claimed study and its report, wired to the models in use."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.base.config import AnyDestination, Archive, Configuration
from dicom_node.base.errors import ImagesGone, Stopped
from dicom_node.base.events import Event, log
from dicom_node.base.orders import Handover
from dicom_node.base.provenance import Provenance
from dicom_node.base.types import Claim, Report, StudyFacts, StudyResult, ToSend
from dicom_node.explaining import Explaining
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.worker import Stages, Worker
from dicom_node.latent_cache import kept_latents
from dicom_node.models_in_use import ModelsInUse
from dicom_node.provenance import Surroundings, configuration_record, provenance_of
from dicom_node.reporting.codes import finding_of
from dicom_node.reporting.document import build_report, variant_uid
from dicom_node.reporting.source import check_source
from dicom_node.reporting.write import discard_unfinished, report_name, write_report
from dicom_node.scope import scope_settings
from dicom_node.sending.routes import destinations_for, hold_reason
from dicom_node.shadow import Progress, Shadow
from dicom_node.surroundings import software
from dicom_node.withdrawn import remembered
from dicom_node.worklist.listeners import listener_of
from dicom_node.worklist.ranking import rank, strongest
from prima_core.base.errors import OutOfScope, PrimaError
from prima_core.base.types import PreparedStudy, StudyPrediction
from prima_core.prepare import prepare_study

DROP_SECONDS = 3600.0
DAY_SECONDS = 86400.0
NOTHING_LEFT = "no image of the study is left: `dicom-node study` counts how the received objects stand"


class StudyStages:
    """prepare → predict → report → hand over with the active model, and the shadow in spare time."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        models: ModelsInUse,
        stop: threading.Event,
        pulse: Pulse,
    ) -> None:
        self._configuration = configuration
        self._registry = registry
        self._models = models
        self._stop = stop
        self._pulse = pulse
        self._scope = scope_settings(configuration)
        self._explaining = Explaining(
            configuration, registry, models, self._prepared, self._result, self._chosen, self._go_on
        )
        self._shadow = Shadow(configuration, registry, models, self._prepared, self._go_on)
        self._dropped_at = -DROP_SECONDS
        self._turn = False
        self._configured = configuration_record(configuration)
        self._software = software()

    def as_stages(self) -> Stages:
        """The functions that the worker is given."""
        return Stages(self.prepare, self.predict, self.report, self.hand_over, self._models.refresh, self.spare)

    def prepare(self, claim: Claim) -> PreparedStudy:
        """Spool files → tokens, after the scope check.

        Raises OutOfScope, also of a study without an image, ReportError when no report could be written of this study,
        ImagesGone when files are missing.
        """
        if not claim.images:
            raise OutOfScope(NOTHING_LEFT)
        if set(self._configuration.scope.exclude.ae_titles) & set(claim.calling_aes):
            raise OutOfScope("the site excludes studies of this calling AE title")
        try:
            study = self._prepared(claim, self._go_on)
            check_source([self._file(claim, series.sop_instance_uids[0]) for series in study.series])
        except FileNotFoundError as error:
            self._note_lost(claim)
            raise ImagesGone("images of the study are missing from the spool") from error
        return study

    def _prepared(self, claim: Claim, progress: Progress) -> PreparedStudy:
        spool = self._configuration.node.spool
        return prepare_study([spool / path for _, path in claim.images], self._scope, progress)

    def _note_lost(self, claim: Claim) -> None:
        """A folder without a single image is no sign that they are lost: it may not be mounted."""
        spool = self._configuration.node.spool
        lost = [path for _, path in claim.images if not (spool / path).exists()]
        if len(lost) < len(claim.images):
            self._registry.mark_lost(lost, time.time())

    def predict(self, studies: Sequence[PreparedStudy]) -> Sequence[StudyPrediction | PrimaError]:
        """The model, all studies at once. Raises Stopped between two chunks of tokens when the node stops."""
        return self._models.active.predictor.predict(studies, self._go_on)

    def report(self, claim: Claim, study: PreparedStudy, prediction: StudyPrediction) -> Report:
        """A durable Structured Report, and a variant of it for each further SOP class that a destination takes.

        Raises ReportError or DiskFull.
        """
        settings = self._configuration.report
        result = self._result(claim, study, logits_of(prediction), prediction.precision)
        files = [self._file(claim, uid) for uid in result.sop_instance_uids]
        created = datetime.now(UTC)
        document = build_report(result, files, settings, created)
        path = write_report(document, self._configuration.node.outgoing)
        for sop_class in {self._configuration.sop_class_for(chosen) for chosen in self._reported_to(claim, study)}:
            if sop_class != settings.sop_class:
                variant = build_report(result, files, settings, created, sop_class)
                write_report(variant, self._configuration.node.outgoing)
        self._shadow.remember(claim, study)
        return Report(
            sop_instance_uid=str(document.SOPInstanceUID),
            series_instance_uid=str(document.SeriesInstanceUID),
            sop_class_uid=str(document.SOPClassUID),
            path=path.name,
            findings=tuple(finding_of(score) for score in result.positive),
            priority=result.priority,
            priority_output=strongest(prediction.priority),
            model=result.model,
            precision=result.precision,
            created_at=created.timestamp(),
            prediction=self._models.active.prediction(
                logits_of(prediction),
                result.priority.level,
                prediction.study_embedding,
                sum(prediction.seconds.values()),
            ),
            provenance=self._provenance(claim, study, prediction, created.timestamp()),
        )

    def _provenance(
        self, claim: Claim, study: PreparedStudy, prediction: StudyPrediction, reported_at: float
    ) -> Provenance:
        active = self._models.active
        surroundings = Surroundings(self._configured, self._software, active.machine())
        received = self._registry.received(claim)
        return provenance_of(claim, received, study, prediction, active.bundle, surroundings, reported_at)

    def spare(self) -> bool:
        """Explain a result or let the shadow run on a study; now and then delete what is too old to keep."""
        if time.monotonic() - self._dropped_at > DROP_SECONDS:
            self._dropped_at = time.monotonic()
            self._drop_old()
        # In turn, so that neither keeps the other from its work.
        self._turn = not self._turn
        first, second = self._explaining.run_one, self._shadow.run_one
        return (first() or second()) if self._turn else (second() or first())

    def _drop_old(self) -> None:
        days = self._configuration.model.keep_embeddings_days
        # Also what was kept before the model went to a Ray cluster.
        cache = self._models.active.cache or kept_latents(self._configuration)
        if days is not None:
            self._registry.drop_embeddings(time.time() - days * DAY_SECONDS)
        if cache is not None:
            cache.tidy()

    def hand_over(self, claim: Claim, study: PreparedStudy, report: Report) -> Handover:
        """What is sent where, and who is told the priority."""
        withdrawn = remembered(self._configuration.node.storage, claim)
        if withdrawn is not None:
            return Handover(withdrawn=withdrawn)
        hold = hold_reason(report.model, self._configuration.model.allow_nonclinical)
        if hold is not None:
            return Handover(hold=hold)
        objects = tuple(self._to_send(report, destination, claim) for destination in self._reported_to(claim, study))
        told = tuple(listener_of(one) for one in self._routed(claim, study) if not isinstance(one, Archive))
        explain = any(set(one.objects) - {"sr"} for one in self._chosen(claim, study))
        return Handover(objects, told, nonclinical=self._configuration.moves_nonclinical, explain=explain)

    def _reported_to(self, claim: Claim, study: PreparedStudy) -> list[Archive]:
        """The destinations that the study's report is routed to."""
        return [one for one in self._chosen(claim, study) if "sr" in one.objects]

    def _chosen(self, claim: Claim, study: PreparedStudy) -> list[Archive]:
        """The destinations that the study's objects are routed to."""
        return [one for one in self._routed(claim, study) if isinstance(one, Archive)]

    def _routed(self, claim: Claim, study: PreparedStudy) -> list[AnyDestination]:
        facts = StudyFacts(study.description, study.age_years, claim.calling_aes)
        return [self._configuration.destination(name) for name in destinations_for(self._configuration, facts)]

    def _to_send(self, report: Report, destination: Archive, claim: Claim) -> ToSend:
        sop_class = self._configuration.sop_class_for(destination)
        if sop_class == self._configuration.report.sop_class:
            return ToSend(destination.name, "sr", report.path)
        uid = variant_uid(report.sop_instance_uid, sop_class)
        return ToSend(destination.name, "sr", report_name(claim.study_instance_uid, uid))

    def _result(
        self, claim: Claim, study: PreparedStudy, logits: Mapping[str, Mapping[str, float]], precision: str
    ) -> StudyResult:
        active = self._models.active
        diagnoses = active.scores("diagnosis", logits["diagnosis"])
        findings = [finding_of(score) for score in diagnoses if score.positive]
        worklist = self._configuration.worklist
        notes = [f"{series.name}: {note}" for series in study.series for note in series.notes]
        notes += [f"series not used: {entry.reason}" for entry in study.set_aside]
        return StudyResult(
            study_instance_uid=claim.study_instance_uid,
            revision=claim.revision,
            diagnoses=diagnoses,
            referrals=active.scores("referral", logits["referral"]),
            priority=rank(logits["priority"], worklist.mapping, findings, worklist.rules),
            model=active.identity,
            precision=precision,
            sop_instance_uids=tuple(uid for series in study.series for uid in series.sop_instance_uids),
            notes=tuple(notes),
            partial_reason=claim.partial_reason,
            corrected=claim.corrected,
            predecessors=self._registry.predecessors(
                claim.study_id,
                claim.revision,
                clinical_only=not self._configuration.model.allow_nonclinical,
            ),
        )

    def _file(self, claim: Claim, sop_instance_uid: str) -> Path:
        return self._configuration.node.spool / dict(claim.images)[sop_instance_uid]

    def _go_on(self, _done: int, _total: int) -> None:
        self._pulse.beat()
        if self._stop.is_set():
            raise Stopped("the node stops")


def logits_of(prediction: StudyPrediction) -> dict[str, dict[str, float]]:
    """Task → output → logit, as the registry keeps it."""
    return {"diagnosis": prediction.diagnosis, "referral": prediction.referral, "priority": prediction.priority}


def load_worker(
    configuration: Configuration, registry: Registry, stop: threading.Event, pulse: Pulse, owner_kind: str
) -> Worker:
    """Load the bundles in use, take back what an earlier worker left; the worker is ready to run until `stop` is set.

    pulse: beaten at every step of the work. owner_kind: begins the owner's name of every worker of this node. Raises
    ConfigurationError when the active bundle is missing, altered or incomplete; the message says which file or tensor.
    """
    discard_unfinished(configuration.node.outgoing)
    model_settings = configuration.model
    models = ModelsInUse(configuration, registry)
    log(Event.MODEL_LOADED, bundle=models.active.identity.bundle_id, precision=models.active.precision)
    for study in registry.reclaim_dead(owner_kind, time.time(), model_settings.max_attempts):
        log(Event.STUDY_RELEASED, "warning", study=study, reason="its worker died")
    return Worker(
        registry,
        StudyStages(configuration, registry, models, stop, pulse).as_stages(),
        owner=owner_kind + uuid.uuid4().hex[:8],
        token_budget=model_settings.token_budget,
        max_attempts=model_settings.max_attempts,
        retry_seconds=model_settings.retry_seconds,
        pulse=pulse,
    )
