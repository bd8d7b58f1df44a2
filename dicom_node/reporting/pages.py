"""What a radiologist sees first: a page that sums the result up, and a page for every key slice.

A key slice is shown twice, as it was acquired and with the overlay: patches that speak for the finding, coloured by how
much they add to the model's score. Every page says that nobody has verified it and what model made it. No page names
the patient unless the site asks for it (`explanation.burn_in_name`); nor, then, is free text of the source burned in,
which may name somebody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dicom_node.base.types import Score, StudyResult
from dicom_node.reporting import codes
from dicom_node.reporting.drawing import GREY, MARGIN, SIDE, YELLOW, Page, Picture, drawable
from dicom_node.reporting.sequence_names import sequence_words
from dicom_node.reporting.summary import restriction, score_in_words
from dicom_node.reporting.wording import Wording

if TYPE_CHECKING:
    from prima_core.key_slices import ExplainedSeries, KeySlice

FOOTER = 92  # pixels kept for the model's name
PANEL = MARGIN, 220, SIDE // 2 - 8, 790
FAINT = 0.15  # share of the strongest value from which a patch is coloured at all
DARKEST, BRIGHTEST = 1.0, 99.5  # percentiles of a slice that become black and white
OPAQUE = 0.55
UPRIGHT = 0.9  # cosine of the angle to an axis of the patient from which on a plane is called by it
PLANES = ("sagittal", "coronal", "axial")  # by the axis that stands on them
SIDES = (("L", "R"), ("P", "A"), ("H", "F"))  # towards higher and lower x, y, z of the patient (PS3.3 C.7.6.2.1.1)


@dataclass(frozen=True)
class Reader:
    """How pages are worded. name: the patient's, only where the site asked for it. made: when, in words.

    free_text: whether a series may be named by its Series Description.
    """

    wording: Wording
    name: str = ""
    made: str = ""
    free_text: bool = False


def summary_page(result: StudyResult, explained: Sequence[ExplainedSeries], reader: Reader) -> Picture:
    """The result in words, and which pages follow. (1024, 1024, 3)."""
    page, wording, say = Page(), reader.wording, reader.wording.say
    top = page.banner(say("unverified")) + 20
    top = _marks(page, result, reader, top)
    if result.partial_reason is not None:
        top = page.text(say("partial", reason=wording.told(result.partial_reason)), top, size=24, colour=YELLOW)
    level = wording.level(result.priority.level).upper()
    rule = wording.told(result.priority.rule)
    top = page.text(say("priority", level=level, rule=rule), top + 8, size=26, bold=True)
    top = page.text(say("found" if result.positive else "nothing_found"), top + 16, size=26)
    end = SIDE - FOOTER - 150
    for score in result.positive:
        if top + 34 > end:
            top = page.text("…", top, bottom=end + 34)
            break
        top = page.text(f"•  {_named(score, wording)}", top, size=24, bottom=end, left=MARGIN + 12)
    named = [score for score in result.referrals if score.positive]
    if named:
        referrals = wording.join(wording.name(codes.referral(score.name)) for score in named)
        top = page.text(say("suggested", referrals=referrals), top + 16, size=24, bottom=end + 40)
    shown = sum(len(one.key) for one in explained)
    top = page.text(say("pages_follow" if shown else "no_pages"), top + 16, size=22, bottom=end + 90, colour=GREY)
    page.text(say("purpose"), max(top + 12, end + 20), size=16, bottom=SIDE - FOOTER, colour=GREY)
    _foot(page, result, reader)
    return page.pixels


def key_slice_page(result: StudyResult, explained: ExplainedSeries, key: KeySlice, reader: Reader) -> Picture:
    """One slice without and with its overlay. (1024, 1024, 3)."""
    page, wording, say = Page(), reader.wording, reader.wording.say
    top = page.banner(say("unverified")) + 14
    top = _marks(page, result, reader, top)
    [score] = [one for one in result.diagnoses if one.name == explained.question.output]
    top = page.text(_named(score, wording), top, size=28, bold=True, bottom=top + 74)
    page.text(place(explained, key, reader), top + 6, size=22, bottom=PANEL[1], colour=GREY)
    plain, sides = grey_levels(key.pixels), side_letters(key)
    spacing = key.plane.frame.spacing or (1.0, 1.0)
    right_panel = (SIDE // 2 + 8, PANEL[1], SIDE - MARGIN, PANEL[3])
    for pixels, box in ((plain, PANEL), (overlaid(plain, key.heat, explained.strongest), right_panel)):
        page.sides(page.picture(pixels, box, spacing), sides)
    page.text(say("as_acquired"), PANEL[3] + 8, size=18, left=PANEL[0], right=PANEL[2], colour=GREY)
    page.text(say("overlay"), PANEL[3] + 8, size=18, left=right_panel[0], right=right_panel[2], colour=GREY)
    ramp = heat_colours(np.linspace(0, 1, 64))
    page.scale(ramp, (SIDE // 2 + 60, PANEL[3] + 64, SIDE - 140, PANEL[3] + 84), "0", f"+{explained.strongest:.2g}")
    page.text(say("overlay_note"), PANEL[3] + 40, size=16, right=SIDE // 2 - 8, bottom=SIDE - FOOTER, colour=GREY)
    page.text(method(explained, wording), SIDE - FOOTER - 30, size=16, bottom=SIDE - FOOTER, colour=GREY)
    _foot(page, result, reader)
    return page.pixels


def method(explained: ExplainedSeries, wording: Wording) -> str:
    """How the explanation was made, and how well it fits, in words."""
    fit = "" if explained.fit is None else f" (R² {wording.number(explained.fit, '.2f')})"
    return wording.told(explained.method) + fit


def grey_levels(pixels: npt.NDArray[np.float64]) -> Picture:
    """(rows, columns, 3): the slice's own range, without its extremes, as grey."""
    low, high = np.percentile(pixels, [DARKEST, BRIGHTEST])
    scaled = np.clip((pixels - low) / (high - low), 0, 1) if high > low else np.zeros(pixels.shape)
    return np.repeat((scaled * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def overlaid(picture: Picture, heat: npt.NDArray[np.float64], strongest: float) -> Picture:
    """The picture with what speaks for the finding in colour. heat: (rows, columns); strongest: of the whole series."""
    share = np.nan_to_num(heat / strongest if strongest > 0 else np.zeros(heat.shape), nan=0.0)
    coloured = (share >= FAINT)[:, :, None]
    mixed = (1 - OPAQUE) * picture + OPAQUE * heat_colours(np.clip(share, 0, 1))
    return np.where(coloured, mixed, picture).astype(np.uint8)


def heat_colours(share: npt.NDArray[np.float64]) -> Picture:
    """(…, 3): dark red at 0 to yellow at 1; told apart with any colour vision, as it grows brighter."""
    red, green = 110 + 145 * np.minimum(2 * share, 1), 235 * np.maximum(share - 0.15, 0) / 0.85
    return np.stack([red, green, 20 + 40 * share], axis=-1).astype(np.uint8)


def side_letters(key: KeySlice) -> tuple[str, str, str, str]:
    """What the left, right, upper and lower side of a slice are towards in the patient: L, R, P, A, H or F."""
    row, column = np.reshape(np.array(key.plane.frame.orientation), (2, 3))
    return _towards(-row), _towards(row), _towards(-column), _towards(column)


def _towards(direction: npt.NDArray[np.float64]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return SIDES[axis][0 if direction[axis] > 0 else 1]


def _named(score: Score, wording: Wording) -> str:
    return f"{wording.name(codes.diagnosis(score.name))}: {score_in_words(score, wording)}"


def place(explained: ExplainedSeries, key: KeySlice, reader: Reader) -> str:
    """Where a reader finds the slice: its series, its Instance Number, and its frame where there are several."""
    wording = reader.wording
    name = codes.printable(explained.series.name) if reader.free_text else _series(explained, key, wording)
    image = key.plane.image.instance_number
    number = str(image if image is not None else f"({key.position + 1}/{len(explained.slices)})")
    frame = "" if key.frame_number is None else wording.say("frame_of", number=key.frame_number)
    return wording.say("slice_of", series=name if drawable(name) else "…", number=number) + frame


def _series(explained: ExplainedSeries, key: KeySlice, wording: Wording) -> str:
    """The series in words of the node's own: what it recognises of the sequence, the plane, and the Series Number."""
    orientation = np.reshape(np.array(key.plane.frame.orientation), (2, 3))
    normal = np.abs(np.cross(*orientation))
    plane = PLANES[int(np.argmax(normal))] if normal.max() > UPRIGHT else "oblique"
    known = " ".join(sequence_words(explained.series.name))
    words = f"{known} {wording.say(plane)}".strip()
    number = key.plane.image.series_number
    return words if number is None else wording.say("series_number", series=words, number=number)


def _marks(page: Page, result: StudyResult, reader: Reader, top: int) -> int:
    warning = restriction(result.model, reader.wording)
    if warning:
        top = page.text(warning, top, size=24, bold=True, colour=YELLOW, bottom=top + 62)
    if reader.name and drawable(reader.name):
        top = page.text(reader.name, top, size=22, bottom=top + 29)
    return top


def _foot(page: Page, result: StudyResult, reader: Reader) -> None:
    """Model and version, and which of several revisions this is."""
    model, wording = result.model, reader.wording
    made = wording.say("made", revision=result.revision, at=reader.made)
    page.text(made, SIDE - 30, size=18, bottom=SIDE - 4, colour=GREY)
    name = codes.printable(f"{model.name} {model.version}")
    words = wording.say("model", model=name, bundle=codes.printable(model.bundle_id), precision=result.precision)
    page.text(words, SIDE - FOOTER + 8, size=18, bottom=SIDE - 34, colour=GREY)
