"""The content of a report of TID 1500 as Basic Text SR has it: containers, texts, codes and images (PS3.3 A.35.1.3).

In the manner of TID 2000, as `content` writes it at once, but from the finished document: a finding's number, threshold
and comments become one text, with the words that they had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy

from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from dicom_node.reporting.codes import Concept, report_code
from dicom_node.reporting.content import coded

STANDARD = {
    "image_library": standard.DCM.ImageLibrary,
    "tracking_identifier": standard.DCM.TrackingIdentifier,
    "algorithm_parameters": standard.DCM.AlgorithmParameters,
}


def make_basic(document: Dataset) -> None:
    """Give a document of TID 1500 the content of Basic Text SR. Its SOP class and UIDs are the caller's."""
    document.ConceptNameCodeSequence = [_code("basic_title")]
    if "ContentTemplateSequence" in document:
        del document.ContentTemplateSequence
    document.ContentSequence = list(_children(document.ContentSequence))


def _children(items: Iterable[Dataset]) -> Iterator[Dataset]:
    for item in items:
        if _is(item, "image_library"):
            continue
        if _is(item, "summary"):
            yield _container("summary_section", [item])
        elif _is(item, "imaging_measurements"):
            yield _container("findings_section", [part for group in item.ContentSequence for part in _finding(group)])
        else:
            yield item


def _finding(group: Dataset) -> Iterator[Dataset]:
    """The finding's code, where it is present, and its text, which its images speak for."""
    parts: Sequence[Dataset] = group.ContentSequence
    [finding] = _named(parts, "finding")
    [presence] = _named(parts, "presence")
    if presence.ConceptCodeSequence[0].CodeValue == report_code("present").code:
        kept = Dataset()
        for keyword in ("RelationshipType", "ValueType", "ConceptNameCodeSequence", "ConceptCodeSequence"):
            kept[keyword] = finding[keyword]
        kept.RelationshipType = "CONTAINS"
        yield kept
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = [_code("finding")]
    text.TextValue = _line(parts)
    images = [deepcopy(part) for part in parts if part.ValueType == "IMAGE"]
    for image in images:
        image.RelationshipType = "INFERRED FROM"
    if images:
        text.ContentSequence = images
    yield text


def _line(parts: Sequence[Dataset]) -> str:
    """The finding's name, its exact wording, its numbers with their kind, parameters and comments."""
    [*exact, name] = [*_named(parts, "exact_wording"), *_named(parts, "tracking_identifier")]
    name = (exact or [name])[0].TextValue
    numbers = [
        f"{part.ConceptNameCodeSequence[0].CodeMeaning.lower()} {part.MeasuredValueSequence[0].NumericValue}"
        for part in parts
        if part.ValueType == "NUM"
    ]
    parameters = [part.TextValue for part in _named(parts, "algorithm_parameters")]
    comments = [part.TextValue for part in _named(parts, "comment")]
    sentences = (f"{name}: {', '.join(numbers)}", *parameters, *comments)
    return " ".join(f"{words[:1].upper()}{words[1:].rstrip('.')}." for words in sentences)


def _named(items: Sequence[Dataset], key: str) -> list[Dataset]:
    return [item for item in items if _is(item, key)]


def _is(item: Dataset, key: str) -> bool:
    name = item.get("ConceptNameCodeSequence")
    if not name:
        return False
    concept = STANDARD.get(key)
    wanted = (concept.value, concept.scheme_designator) if concept else _pair(report_code(key))
    return (name[0].CodeValue, name[0].CodingSchemeDesignator) == wanted


def _pair(concept: Concept) -> tuple[str, str]:
    return concept.code, concept.scheme


def _code(key: str) -> Dataset:
    return coded(report_code(key))


def _container(key: str, items: list[Dataset]) -> Dataset:
    container = Dataset()
    container.RelationshipType, container.ValueType = "CONTAINS", "CONTAINER"
    container.ConceptNameCodeSequence = [_code(key)]
    container.ContinuityOfContent = "SEPARATE"
    container.ContentSequence = items
    return container
