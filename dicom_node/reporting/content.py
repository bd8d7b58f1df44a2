"""The coded content tree of a report: TID 1500 "Imaging Measurement Report" with one TID 1501 group a finding.

Or the same in containers, texts, codes and image references alone, in the manner of TID 2000 "Basic Diagnostic Imaging
Report", for Basic Text SR, whose IOD knows no numbers and no groups (PS3.3 A.35.1.3).

Numbers come with their kind: (122157, DCM, "Probability") only from a calibrated bundle, else the private concept
"Uncalibrated score". What is below threshold is never written as absent. An image is cited beside a finding only where
the result has evidence: the model's answer is for the study, and which slices speak for it is not known without an
explanation. The evidence sequence (see `document`) lists every image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes as standard
from pydicom.valuerep import DS

from dicom_node.base.config import ReportSection
from dicom_node.base.errors import ReportError
from dicom_node.base.types import Evidence, ImageReference, Score, StudyResult
from dicom_node.reporting import codes
from dicom_node.reporting.codes import Concept, report_code
from dicom_node.reporting.library import CitedImage, image_library
from dicom_node.reporting.summary import restriction, score_in_words, summary
from dicom_node.reporting.wording import Wording

CONTAINS = RelationshipTypeValues.CONTAINS
MODIFIES = RelationshipTypeValues.HAS_CONCEPT_MOD
SPEAKS_FOR = RelationshipTypeValues.INFERRED_FROM


def derived_uid(*parts: str) -> str:
    """A UID that follows from its parts, so that repeated work writes the same one (2.25, PS3.5 section B.2)."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"


def content_tree(
    result: StudyResult,
    settings: ReportSection,
    images: int,
    series: int,
    *,
    basic: bool = False,
    cited: Mapping[str, CitedImage] | None = None,
) -> ContainerContentItem:
    """The root container.

    images, series: how many were used. basic: containers, texts, codes and images alone. cited: the images that
    `result.evidence` names, by SOP Instance UID. Raises ReportError when a score is not a finite number or a
    probability lies outside 0 to 1.
    """
    for score in (*result.diagnoses, *result.referrals):
        _check(score)
    return _Tree(result, settings, basic=basic, cited=cited or {}).root(images, series)


def coded(concept: Concept) -> CodedConcept:
    """The concept as a code item."""
    return CodedConcept(concept.code, concept.scheme, concept.meaning)


def _check(score: Score) -> None:
    probability = score.probability
    if not math.isfinite(score.logit) or not math.isfinite(score.threshold):
        raise ReportError(f"the score of '{codes.printable(score.name)}' is not a number: check the bundle")
    if probability is not None and not 0 <= probability <= 1:
        raise ReportError(
            f"the probability of '{codes.printable(score.name)}' is not between 0 and 1: check the bundle"
        )


class _Tree:
    """What all parts of one report's tree are made from."""

    def __init__(
        self, result: StudyResult, settings: ReportSection, *, basic: bool, cited: Mapping[str, CitedImage]
    ) -> None:
        self._result = result
        self._settings = settings
        self._basic = basic
        self._cited = cited
        self._evidence = {evidence.finding: evidence for evidence in result.evidence}
        self._wording = Wording(settings.language)

    def root(self, images: int, series: int) -> ContainerContentItem:
        """The whole tree, what people read first. images, series: how many were used."""
        root = ContainerContentItem(
            coded(report_code("basic_title" if self._basic else "doc_title")),
            is_content_continuous=False,
            template_id=None if self._basic else "1500",
        )
        children = ContentSequence([*self._heading()])
        told = summary(self._result, images, series, self._settings.negatives != "none", self._wording, self._cited)
        words = _text("summary", told)
        children.append(_container("summary_section", [words]) if self._basic else words)
        library = None if self._basic else image_library(self._cited)
        children.extend(library or [])
        children.extend(self._findings())
        children.append(_container("qualitative_evaluations", self._study_level()))
        referrals = [score for score in self._result.referrals if score.positive]
        recommended = [item for score in referrals for item in self._recommendation(score)]
        if recommended:
            children.append(_container("recommendations", recommended))
        root.ContentSequence = children
        return root

    def _heading(self) -> Iterable[ContentItem]:
        warning = restriction(self._result.model, self._wording)
        if warning:
            yield _text("restriction", warning, MODIFIES)
        yield from LanguageOfContentItemAndDescendants(coded(report_code(f"language_{self._settings.language}")))
        yield from ObservationContext(observer_device_context=device_observer(self._result, self._settings))
        yield CodeContentItem(standard.DCM.ProcedureReported, coded(report_code("procedure_mri_brain")), MODIFIES)

    def _findings(self) -> Iterable[ContentItem]:
        reported = self._result.diagnoses if self._settings.negatives == "all" else self._result.positive
        if not reported:
            return
        ordered = sorted(reported, key=lambda score: -score.logit)
        written = self._sentence if self._basic else self._group
        groups = [item for score in ordered for item in written(score)]
        yield _container("findings_section" if self._basic else "imaging_measurements", groups)

    def _algorithm(self, *parameters: str) -> AlgorithmIdentification:
        precision = self._wording.say("precision", precision=codes.printable(self._result.precision))
        return AlgorithmIdentification(
            name=codes.long_string(self._result.model.name),
            version=codes.long_string(self._result.model.version),
            parameters=[*parameters, precision],
            family=coded(report_code("algorithm_family_ai")),
        )

    def _group(self, score: Score) -> list[ContentItem]:
        """TID 1501 of one finding."""
        result, concept = self._result, codes.diagnosis(score.name)
        evidence = self._evidence.get(score.name, Evidence(score.name))
        uid = derived_uid("tracking", result.study_instance_uid, result.model.device_uid, score.name)
        presence = report_code("present" if score.positive else "undetermined")
        images = [SourceImageForMeasurementGroup(*self._reference(reference)) for reference in evidence.images]
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid=uid, identifier=self._wording.name(concept)),
            finding_type=coded(concept),
            algorithm_id=self._algorithm(self._threshold(score), *self._explanation(evidence)),
            measurements=[_measurement(score)],
            qualitative_evaluations=[QualitativeEvaluation(coded(report_code("presence")), coded(presence))],
            source_images=images or None,
        )
        group[0].ContinuityOfContent = "SEPARATE"  # continuous text drops the names: a bare number says nothing
        if not concept.exact:
            group[0].ContentSequence.append(_text("exact_wording", self._wording.exact(concept)))
        group[0].ContentSequence.extend(_text("comment", words) for words in self._comments(score, evidence))
        return [*group]

    def _sentence(self, score: Score) -> Iterable[ContentItem]:
        """The finding's code, then its exact wording, its number, its threshold and what speaks for it in one text.

        Below the threshold there is only the text: nothing here could stand beside the code and say that it is not
        found.
        """
        concept, wording = codes.diagnosis(score.name), self._wording
        evidence = self._evidence.get(score.name, Evidence(score.name))
        if score.positive:
            yield CodeContentItem(coded(report_code("finding")), coded(concept), CONTAINS)
        line = wording.say(
            "basic_line",
            finding=wording.name(concept) if concept.exact else wording.exact(concept),
            score=score_in_words(score, wording),
            threshold=self._threshold(score),
        )
        explained = [f"{words[:1].upper()}{words[1:]}." for words in self._explanation(evidence)]
        text = _text("finding", " ".join([line, *explained, *self._comments(score, evidence)]))
        if evidence.images:
            name = standard.DCM.SourceOfMeasurement
            text.ContentSequence = ContentSequence(
                [
                    ImageContentItem(name, *self._reference(reference), relationship_type=SPEAKS_FOR)
                    for reference in evidence.images
                ]
            )
        yield text

    def _study_level(self) -> Iterable[ContentItem]:
        """Reading priority, its rule and ACR category, and what was not found (TID 1500 rows 12 to 14)."""
        result, wording, priority = self._result, self._wording, self._result.priority
        items: list[ContentItem] = [*self._algorithm()]
        items.append(
            CodeContentItem(coded(report_code("priority_concept")), coded(codes.priority(priority.level)), CONTAINS)
        )
        rule = wording.say("priority_rule", level=wording.level(priority.level), rule=wording.told(priority.rule))
        items.append(_text("priority_rule", rule))
        category = codes.actionable_category(priority.level)
        if category:
            name = coded(report_code("actionable_concept_name"))
            items.append(CodeContentItem(name, coded(category), CONTAINS))
        if not result.positive:
            items.append(_text("finding", wording.say("nothing_found")))
        below = [wording.name(codes.diagnosis(score.name)) for score in result.diagnoses if not score.positive]
        if below and self._settings.negatives == "summary":
            items.append(_text("below_threshold", wording.join(below)))
        return items

    def _recommendation(self, score: Score) -> Iterable[ContentItem]:
        concept = codes.referral(score.name)
        yield CodeContentItem(coded(report_code("recommendation")), coded(concept), CONTAINS)
        if not concept.exact:
            yield _text("exact_wording", self._wording.exact(concept))

    def _threshold(self, score: Score) -> str:
        return self._wording.say("threshold", value=self._wording.number(score.threshold, ".6g"))

    def _explanation(self, evidence: Evidence) -> list[str]:
        method = self._wording.told(evidence.method)
        return [self._wording.say("explanation", method=method)] if method else []

    def _comments(self, score: Score, evidence: Evidence) -> list[str]:
        comments = [] if score.positive else [self._wording.say("below_threshold")]
        note = self._wording.told(evidence.note)
        if note:
            comments.append(note if evidence.images else self._wording.say("no_images", note=note))
        return comments

    def _reference(self, reference: ImageReference) -> tuple[str, str, list[int] | None]:
        """SOP class, SOP instance and frames, as highdicom takes them."""
        cited = self._cited[reference.sop_instance_uid]
        return cited.image.sop_class_uid, cited.image.sop_instance_uid, cited.frames(reference)


def device_observer(result: StudyResult, settings: ReportSection) -> ObserverContext:
    """The bundle as the observer (TID 1002, 1004)."""
    model = result.model
    device = DeviceObserverIdentifyingAttributes(
        uid=model.device_uid,
        name=codes.long_string(f"{model.name} {model.version}"),
        manufacturer_name=codes.long_string(settings.manufacturer),
        model_name=codes.long_string(model.name),
        serial_number=codes.long_string(model.bundle_id),
    )
    return ObserverContext(standard.DCM.Device, device)


def _measurement(score: Score) -> Measurement:
    """The number, readable in Numeric Value and exact in Floating Point Value (PS3.3 C.18.1)."""
    key, value = ("uncalibrated_score", score.logit)
    if score.probability is not None:
        key, value = ("probability", score.probability)
    measurement = Measurement(coded(report_code(key)), float(value), coded(report_code("unit_no_units")))
    measurement[0].MeasuredValueSequence[0].NumericValue = DS(f"{value:.4g}")
    return measurement


def _container(key: str, items: Iterable[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(coded(report_code(key)), is_content_continuous=False, relationship_type=CONTAINS)
    container.ContentSequence = ContentSequence(list(items))
    return container


def _text(key: str, value: str, relationship: RelationshipTypeValues = CONTAINS) -> TextContentItem:
    return TextContentItem(coded(report_code(key)), value, relationship)
