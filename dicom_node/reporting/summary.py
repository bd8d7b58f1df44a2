"""The report in plain words: what a viewer shows that shows nothing else.

One short text, most important first: that nobody has verified it, the findings, what to do, and only then what made it.
ASCII and English, so that any Specific Character Set of the source can hold it.
"""

from __future__ import annotations

from dicom_node.base.types import ModelIdentity, Score, StudyResult
from dicom_node.reporting import codes

NEW_LINE = "\r\n"  # VR UT, PS3.5 section 6.2
UNVERIFIED = "AI RESULT, NOT VERIFIED BY A PHYSICIAN."
NOTHING_FOUND = "None of the assessed findings is above its threshold. This does not exclude them."
PURPOSE = (
    "For: ordering the reading list and drawing the radiologist's attention to findings on brain MRI. "
    "Not for: diagnosis or treatment without a physician's own reading of the images, other body regions, "
    "or ruling anything out. Only the findings in the model's list are assessed."
)


def restriction(model: ModelIdentity) -> str | None:
    """What must be said of everything a non-clinical bundle makes, in one short line; None for a clinical one."""
    if model.clinical:
        return None
    return f"NOT FOR CLINICAL USE: {codes.printable(model.training_state)} model"


def score_in_words(score: Score) -> str:
    """The number with its kind: a probability only if it is one, never rounded to certainty."""
    if score.probability is None:
        return f"uncalibrated score {score.logit:.3g}"
    percent = score.probability * 100
    if percent < 1:
        return "probability < 1 %"
    if percent > 99:
        return "probability > 99 %"
    return f"probability {percent:.0f} %"


def summary(result: StudyResult, images: int, series: int, negatives: bool) -> str:
    """The whole report as text. images, series: how many were used; negatives: whether to count what was not found."""
    paragraphs = [
        _opening(result),
        _findings(result, negatives),
        _advice(result),
        _origin(result, images, series),
        [PURPOSE],
    ]
    return (NEW_LINE * 2).join(NEW_LINE.join(lines) for lines in paragraphs)


def _opening(result: StudyResult) -> list[str]:
    lines = [UNVERIFIED]
    warning = restriction(result.model)
    if warning:
        lines.append(f"{warning}.")
    if result.partial_reason is not None:
        lines.append(f"PARTIAL: {codes.printable(result.partial_reason)}.")
    return lines


def _findings(result: StudyResult, negatives: bool) -> list[str]:
    found = result.positive
    if not found:
        lines = [NOTHING_FOUND]
    else:
        lines = ["Findings above threshold, strongest first:"]
        lines += [f"- {codes.diagnosis(score.name).display}: {score_in_words(score)}" for score in found]
    if any(score.probability is None for score in found):
        lines.append("(An uncalibrated score is positive above 0; it is not a probability.)")
    rest = len(result.diagnoses) - len(found)
    if found and rest and negatives:
        lines.append(f"{rest} other finding{'s' * (rest > 1)} assessed, below threshold (not excluded).")
    return lines


def _advice(result: StudyResult) -> list[str]:
    lines = [f"Reading priority: {result.priority.level.upper()} ({codes.printable(result.priority.rule)})."]
    referrals = [codes.referral(score.name).display for score in result.referrals if score.positive]
    if referrals:
        lines.append(f"Suggested: {'; '.join(referrals)}.")
    return lines


def _origin(result: StudyResult, images: int, series: int) -> list[str]:
    model = result.model
    name = codes.printable(f"{model.name} {model.version} (bundle {model.bundle_id})")
    lines = [f"Model: {name}, numeric precision {codes.printable(result.precision)}."]
    lines.append(f"Based on {images} image{'s' * (images > 1)} in {series} series.")
    if result.predecessors:
        lines.append(f"Revision {result.revision}: replaces the earlier AI report of this study.")
    lines += [f"Note: {codes.printable(note)}" for note in result.notes]
    return lines
