"""The report in plain words: what a viewer shows that shows nothing else.

One short text, most important first: that nobody has verified it, the findings, what to do, and only then what made it.
"""

from __future__ import annotations

from collections.abc import Mapping

from dicom_node.base.types import Evidence, ModelIdentity, Score, StudyResult
from dicom_node.reporting import codes
from dicom_node.reporting.library import CitedImage, places
from dicom_node.reporting.wording import Wording

NEW_LINE = "\r\n"  # VR UT, PS3.5 section 6.2


def restriction(model: ModelIdentity, wording: Wording) -> str | None:
    """What must be said of everything a non-clinical bundle makes, in one short line; None for a clinical one."""
    return None if model.clinical else wording.say("restriction", model=wording.state(model.training_state))


def score_in_words(score: Score, wording: Wording) -> str:
    """The number with its kind: a probability only if it is one, never rounded to certainty."""
    if score.probability is None:
        return wording.say("uncalibrated_score", value=wording.number(score.logit, ".3g"))
    percent = score.probability * 100
    if percent < 1:
        return wording.say("probability", percent="< 1")
    if percent > 99:
        return wording.say("probability", percent="> 99")
    return wording.say("probability", percent=f"{percent:.0f}")


def summary(
    result: StudyResult,
    images: int,
    series: int,
    negatives: bool,
    wording: Wording,
    cited: Mapping[str, CitedImage],
) -> str:
    """The whole report as text.

    images, series: how many were used. negatives: whether to count what was not found. cited: the images that
    `result.evidence` names.
    """
    paragraphs = [
        _opening(result, wording),
        _findings(result, negatives, wording, cited),
        _advice(result, wording),
        _origin(result, images, series, wording, bool(cited)),
        [wording.say("purpose")],
    ]
    return (NEW_LINE * 2).join(NEW_LINE.join(lines) for lines in paragraphs)


def _opening(result: StudyResult, wording: Wording) -> list[str]:
    lines = [wording.say("unverified")]
    warning = restriction(result.model, wording)
    if warning:
        lines.append(f"{warning}.")
    if result.partial_reason is not None:
        lines.append(wording.say("partial", reason=wording.told(result.partial_reason)))
    return lines


def _findings(result: StudyResult, negatives: bool, wording: Wording, cited: Mapping[str, CitedImage]) -> list[str]:
    found = result.positive
    spoken_for = {evidence.finding: evidence for evidence in result.evidence}
    lines = [wording.say("found" if found else "nothing_found")]
    for score in found:
        name = wording.name(codes.diagnosis(score.name))
        lines.append(wording.say("found_line", finding=name, score=score_in_words(score, wording)))
        if score.name in spoken_for:
            lines += _images(spoken_for[score.name], wording, cited)
    if cited:
        lines.append(wording.say("images_not_all"))
    if any(score.probability is None for score in found):
        lines.append(wording.say("uncalibrated_means"))
    rest = len(result.diagnoses) - len(found)
    if found and rest and negatives:
        lines.append(wording.count("below", rest))
    return lines


def _images(evidence: Evidence, wording: Wording, cited: Mapping[str, CitedImage]) -> list[str]:
    if evidence.images:
        return [wording.say("found_images", images=places(evidence.images, cited, wording))]
    return [wording.say("found_no_images", note=wording.told(evidence.note))] if evidence.note else []


def _advice(result: StudyResult, wording: Wording) -> list[str]:
    level, rule = wording.level(result.priority.level).upper(), wording.told(result.priority.rule)
    lines = [wording.say("priority", level=level, rule=rule)]
    referrals = [wording.name(codes.referral(score.name)) for score in result.referrals if score.positive]
    if referrals:
        lines.append(wording.say("suggested", referrals=wording.join(referrals)))
    return lines


def _origin(result: StudyResult, images: int, series: int, wording: Wording, cited: bool) -> list[str]:
    model = codes.printable(f"{result.model.name} {result.model.version}")
    bundle, precision = codes.printable(result.model.bundle_id), codes.printable(result.precision)
    lines = [wording.say("model", model=model, bundle=bundle, precision=precision)]
    counted = wording.count("image", images), wording.count("series", series)
    lines.append(wording.say("based_on", images=counted[0], series=counted[1]))
    if result.predecessors:
        lines.append(wording.say("revision", revision=result.revision))
    if result.evidence:
        lines.append(wording.say("explained" if cited else "unexplained"))
    lines += [wording.say("note", note=wording.note(note)) for note in result.notes]
    return lines
