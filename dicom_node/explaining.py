"""Explanations: what reported findings rest on, worked out in the time in which no study waits.

The plain report has gone out by then. What follows it, for destinations that are sent more than reports: an explained
report that cites the images, pages, key objects and regions. Where nothing can be explained the plain report stands,
and the registry says why. Whatever goes wrong here ends this explanation alone.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset

from dicom_node.base.config import Archive, Configuration
from dicom_node.base.errors import LostClaim, NodeError, PermanentError, RetriableError, Stopped
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.types import Claim, Evidence, ImageReference, StudyResult, ToSend
from dicom_node.jobs.explanations import OwedExplanation
from dicom_node.jobs.registry import DATABASE_AWAY, Registry
from dicom_node.models_in_use import ModelsInUse
from dicom_node.reporting import codes
from dicom_node.reporting.document import build_report, explained_uid, report_uids
from dicom_node.reporting.key_objects import key_objects
from dicom_node.reporting.pages import Reader, key_slice_page, summary_page
from dicom_node.reporting.regions import regions
from dicom_node.reporting.secondary_capture import Shown, multi_frame, single_frames
from dicom_node.reporting.source import Image, Source, legal_uid, read_source
from dicom_node.reporting.wording import Wording
from dicom_node.reporting.write import write_report
from prima_core.base.errors import PrimaError
from prima_core.base.types import PreparedStudy
from prima_core.explanation import Question
from prima_core.key_slices import ExplainedSeries, ExplanationSettings, explain

LEASE_SECONDS = 120.0
LOOK_SECONDS = 0.5
PATIENCE = 5  # interruptions, after which the gradient has to do
EXCHANGED = "the model that made the result is not in use any more"
ANOTHER_RESULT = "images or settings changed since the result was reported"
GONE = "images of the study are not in the spool any more"
NOTHING = "nothing in the images could be singled out"

Progress = Callable[[int, int], None]
Prepare = Callable[[Claim, Progress], PreparedStudy]
ResultOf = Callable[[Claim, PreparedStudy, Mapping[str, Mapping[str, float]], str], StudyResult]
Chosen = Callable[[Claim, PreparedStudy], list[Archive]]


class StudyWaits(Exception):
    """A study waits for the active model."""


@dataclass(frozen=True)
class Explained:
    """A result and what it rests on. source: of all its images. report_uid: the plain report's."""

    result: StudyResult
    series: Sequence[ExplainedSeries]
    source: Source
    files: Sequence[Path]
    report_uid: str
    created_at: datetime


class Explaining:
    """Explains one result after another."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        models: ModelsInUse,
        prepare: Prepare,
        result_of: ResultOf,
        chosen: Chosen,
        go_on: Progress,
    ) -> None:
        """chosen: the destinations that a study's objects are routed to."""
        self._configuration = configuration
        self._registry = registry
        self._models = models
        self._prepare = prepare
        self._result_of = result_of
        self._chosen = chosen
        self._go_on = go_on
        self._owner = f"explaining-{uuid.uuid4().hex[:8]}"
        self._looked = self._renewed = 0.0
        self._interrupted: Counter[int] = Counter()

    def run_one(self) -> bool:
        """Explain the next result; False when there is none, or a study waits."""
        if not self._registry.explanation_waits() or self._registry.study_waits(time.time()):
            return False
        now = time.time()
        owed = self._registry.claim_explanation(self._owner, now + LEASE_SECONDS, now)
        if owed is None:
            return False
        self._renewed = time.monotonic()
        try:
            self._explain(owed)
        except (Stopped, StudyWaits):
            self._interrupted[owed.result_id] += 1
            self._registry.give_back_explanation(owed)
        except LostClaim as error:
            log(Event.CLAIM_LOST, "warning", study=owed.claim.study_id, reason=str(error))
        except DATABASE_AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - the plain report stands, and the other studies' work goes on
            self._failed(owed, error)
        return True

    def _failed(self, owed: OwedExplanation, error: Exception) -> None:
        known = isinstance(error, NodeError | PrimaError)
        gone = isinstance(error, FileNotFoundError)
        reason = GONE if gone else str(error) if known else f"unexpected {type_and_place(error)}"
        final = gone or isinstance(error, PrimaError | PermanentError)
        counts = not isinstance(error, RetriableError | OSError)  # a full disk is not the result's fault
        log(Event.EXPLANATION_FAILED, "warning", study=owed.claim.study_id, reason=reason)
        self._registry.fail_explanation(owed, reason, time.time(), final=final, counts=counts)
        if not known and not gone:
            # A device that this left unusable must be found before a study is on it: the worker starts afresh.
            self._models.active.model.runtime.synchronize()

    def _explain(self, owed: OwedExplanation) -> None:
        claim = owed.claim
        if self._models.active.identity.bundle_id != owed.bundle_id:
            raise PermanentError(EXCHANGED)
        watch = self._watch(owed)
        study = self._prepare(claim, watch)
        result = self._result_of(claim, study, owed.logits, owed.precision)
        if report_uids(result, self._configuration.report.sop_class)[0] != owed.report_uid:
            raise PermanentError(ANOTHER_RESULT)
        files = {uid: self._configuration.node.spool / path for uid, path in claim.images}
        settings = self._configuration.explanation
        questions = [Question("diagnosis", score.name) for score in result.positive[: settings.findings]]
        # Where studies come faster than LIME takes, something is better than beginning again for ever.
        method = "gradient" if self._interrupted[owed.result_id] >= PATIENCE else settings.method
        how = ExplanationSettings(method, settings.series, settings.slices, settings.samples, settings.seed)
        series = explain(self._models.active.model, study, files, questions, how, watch) if questions else []
        used = [files[uid] for uid in result.sop_instance_uids]
        told = replace(result, evidence=tuple(self._evidence(question, series) for question in questions))
        explained = Explained(told, series, read_source(used), used, owed.report_uid, datetime.now(UTC))
        objects, notes = self._objects(explained, self._chosen(claim, study), watch)
        self._registry.finish_explanation(
            owed,
            objects,
            [described(one) for one in series],
            time.time(),
            report_uid=explained_uid(owed.report_uid) if any(one.kind == "sr" for one in objects) else None,
            note="; ".join(notes) or None,
        )
        log(Event.RESULT_EXPLAINED, study=claim.study_id, revision=claim.revision, count=len(questions))

    def _evidence(self, question: Question, series: Sequence[ExplainedSeries]) -> Evidence:
        of_finding = [one for one in series if one.question == question]
        shown = [key for one in of_finding for key in one.key]
        frames: dict[str, list[int]] = {}
        for key in shown:
            frames.setdefault(key.sop_instance_uid, []).extend([] if key.frame_number is None else [key.frame_number])
        images = tuple(ImageReference(uid, tuple(sorted(numbers))) for uid, numbers in frames.items())
        return Evidence(question.output, images, of_finding[0].method if images else "", "" if images else NOTHING)

    def _objects(
        self, explained: Explained, destinations: Sequence[Archive], watch: Progress
    ) -> tuple[list[ToSend], list[str]]:
        """What is sent, everything durable once this returns, and what could not be made. Raises ReportError, DiskFull.

        Regions rest on what scanners wrote of the geometry: where they cannot be made, the rest goes out without them.
        """
        made: dict[tuple[str, str], list[str]] = {}
        to_send, notes = [], []
        for destination in destinations:
            for kind, form in self._wanted(explained, destination):
                watch(len(made), len(made) + 1)
                if (kind, form) not in made:
                    try:
                        made[kind, form] = [self._write(one) for one in self._made(explained, kind, form)]
                    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                        if kind != "seg":
                            raise
                        made[kind, form] = []
                        notes.append(f"no regions: {type_and_place(error)}")
                to_send += [ToSend(destination.name, kind, path) for path in made[kind, form]]
        return to_send, notes

    def _wanted(self, explained: Explained, destination: Archive) -> list[tuple[str, str]]:
        """Kind and form of what a destination is sent. A result without findings has a summary page alone."""
        kinds = set(destination.objects)
        wanted: list[tuple[str, str]] = []
        if explained.result.evidence and "sr" in kinds and len(kinds) > 1:
            wanted.append(("sr", self._configuration.sop_class_for(destination)))
        wanted += [("sc", destination.secondary_capture)] if "sc" in kinds else []
        if any(one.key for one in explained.series):
            wanted += [(kind, "") for kind in ("kos", "seg") if kind in kinds]
        return wanted

    def _made(self, explained: Explained, kind: str, form: str) -> list[Dataset]:
        settings, result, at = self._configuration.report, explained.result, explained.created_at
        common = result, explained.report_uid, explained.source, settings, at
        if kind == "sr":
            return [build_report(result, explained.files, settings, at, form)]  # type: ignore[arg-type]
        if kind == "kos":
            return [key_objects(_shown(explained), self._words(result), *common)]
        if kind == "seg":
            return [regions(group, number, *common) for number, group in enumerate(_by_series(explained.series), 1)]
        reader = self._reader(explained)
        pages = [summary_page(result, explained.series, reader)]
        pages += [key_slice_page(result, one, key, reader) for one in explained.series for key in one.key]
        by_uid = {image.sop_instance_uid: image for image in explained.source.images}
        shown = [Shown(by_uid[key.sop_instance_uid], key.frame_number) for one in explained.series for key in one.key]
        if form == "multi_frame":
            return [multi_frame(pages, shown, *common)]
        return single_frames(pages, shown, *common)

    def _reader(self, explained: Explained) -> Reader:
        name = (
            str(explained.source.attributes.PatientName).split("=")[0]
            if self._configuration.explanation.burn_in_name
            else ""
        )
        wording, made = Wording(self._configuration.report.language), explained.created_at.astimezone(UTC)
        named = self._configuration.explanation.burn_in_name
        return Reader(wording, name.replace("^", " ").strip(), f"{made:%Y-%m-%d %H:%M} UTC", named)

    def _words(self, result: StudyResult) -> str:
        wording = Wording(self._configuration.report.language)
        names = wording.join(wording.name(codes.diagnosis(one.finding)) for one in result.evidence)
        return f"{wording.say('unverified')} {wording.say('key_images', findings=names)}"

    def _write(self, document: Dataset) -> str:
        return write_report(document, self._configuration.node.outgoing).name

    def _watch(self, owed: OwedExplanation) -> Progress:
        """Ends the work when a study waits or the node stops, and keeps the lease meanwhile."""

        def watch(done: int, total: int) -> None:
            self._go_on(done, total)
            now = time.monotonic()
            if now - self._looked > LOOK_SECONDS:
                self._looked = now
                if self._registry.study_waits(time.time()):
                    raise StudyWaits
            if now - self._renewed > LEASE_SECONDS / 4:
                self._renewed = now
                self._registry.renew_explanation(owed, time.time() + LEASE_SECONDS)

        return watch


def described(explained: ExplainedSeries) -> dict[str, Any]:
    """One finding on one series, for scripts."""
    return {
        "finding": explained.question.output,
        "series_instance_uid": explained.series.series_instance_uid,
        "series": explained.series.name,
        "share": explained.share,
        "method": explained.method,
        "samples": explained.samples,
        "fit": explained.fit,
        "agreement_with_gradient": explained.agreement,
        "strongest": explained.strongest,
        "key_images": [{"sop_instance_uid": key.sop_instance_uid, "frame": key.frame_number} for key in explained.key],
    }


def _shown(explained: Explained) -> list[Image]:
    """The source images of the key slices, each once."""
    by_uid = {image.sop_instance_uid: image for image in explained.source.images}
    return list(dict.fromkeys(by_uid[key.sop_instance_uid] for one in explained.series for key in one.key))


def _by_series(explained: Sequence[ExplainedSeries]) -> list[list[ExplainedSeries]]:
    """Those of one series together: only where something speaks for a finding, and it lies somewhere."""
    groups: dict[str, list[ExplainedSeries]] = {}
    for one in explained:
        if one.key and legal_uid(one.slices[0].frame.frame_of_reference):
            groups.setdefault(one.series.series_instance_uid, []).append(one)
    return list(groups.values())
