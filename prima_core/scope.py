"""Is this a study the model was made for, and which of its series are brain images? Headers only, no pixels.

The model reads MR studies of the head with at least two usable series. A missing result is better than a made-up one:
what does not say that it shows the head is not used.

Where a series lies is decided in this order (`_where`):
  1. its own description, protocol, body part or region codes name another region (also beside the head): elsewhere;
  2. its description or protocol name the head: head;
  3. its body part or region codes name the head, and the study's texts do not speak of other regions alone: head;
  4. the study's texts name the head alone: head; other regions alone: elsewhere; both or neither: unclear.

What kind of image it is, is decided by `KINDS`: Image Type words, then words of the series description. Trace, ADC, SWI
and vendor-reconstructed primaries stay, although vendors mark them DERIVED.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from prima_core.anatomy import anatomy_of
from prima_core.base.errors import OutOfScope
from prima_core.base.mr_images import MR_IMAGES
from prima_core.base.types import SetAside
from prima_core.exclusion import Exclusion
from prima_core.volume.headers import ImageHeader, StudyFiles, fold


@dataclass(frozen=True)
class Kind:
    """A kind of image that is not used: words of Image Type, and a pattern for the folded series description."""

    name: str
    image_type: frozenset[str]
    description: re.Pattern[str]


def _kind(name: str, image_type: str, description: str) -> Kind:
    return Kind(name, frozenset(image_type.split()), re.compile(rf"\b(?:{description})\b"))


KINDS = (
    _kind(
        "localiser",
        "LOCALIZER LOCALISER SCOUT SURVEY",
        r"locs?|locali[sz]\w*|lokali[sz]\w*|\w*scouts?|\w*survey|pilot|plan ?scan|topogram\w*|reperage|ubersicht\w*",
    ),
    _kind(
        "calibration scan",
        "CALIBRATION",
        r"calib\w*|kalib\w*|asset cal|coil ?survey|(?:coil |sense )ref\w*|ref ?scan|prescan|shim\w*|b1 ?map\w*",
    ),
    _kind(
        "reformat",
        "MPR REFORMATTED REFORMAT CURVED CPR",
        r"mprs?|mpvr|cpr|multiplanar|reformat\w*|rfmt|refmt|reformation\w*",
    ),
    _kind(
        "projection",
        "MIP MINIP MNIP MAXIP PROJECTION PJN VRT RENDER",
        r"(?:thick|thin|sw)?mips?|minips?|mnip|maxips?|mipped|(?:min|max) ip|pjn|proje[ck]t\w*|vrt|render\w*",
    ),
    _kind("screen save", "SCREEN SCREENSAVE SCREENSHOT", r"screen ?(?:sav|shot|cap)\w*|phoenix\w*|protocol page"),
    _kind("raw diffusion tensor", "TENSOR", r"tensor"),
    _kind("spectroscopy", "SPECTROSCOPY SPECTRO", r"spectro\w*|spektro\w*"),
)
_CALCULATIONS = {"MAX_IP": "projection", "MIN_IP": "projection", "VOLUME_RENDER": "projection"}
_CALCULATIONS |= {"SURFACE_RENDER": "projection", "MPR": "reformat", "CURVED_MPR": "reformat"}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_ENHANCED_COLOUR = "1.2.840.10008.5.1.4.1.1.4.3"


@dataclass(frozen=True)
class ScopeSettings:
    """What a site may set. max_kept_tokens: kept patches a series, above which its slices are thinned."""

    min_series: int = 2
    max_kept_tokens: int = 5_000
    exclusion: Exclusion = field(default_factory=Exclusion)


@dataclass(frozen=True)
class SeriesImages:
    """The images of one usable series, in the order of their instance numbers."""

    series_instance_uid: str
    images: tuple[ImageHeader, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudySelection:
    """The usable series by series number, then UID, and what was set aside. age_years: None when unknown."""

    study_instance_uid: str
    study_description: str
    age_years: float | None = field(repr=False)
    series: tuple[SeriesImages, ...]
    set_aside: tuple[SetAside, ...]


def select_series(study: StudyFiles, settings: ScopeSettings | None = None) -> StudySelection:
    """The series of a study that the model reads. Raises OutOfScope with the reason and what was set aside."""
    settings = settings or ScopeSettings()
    by_series = _by_series(study.images)
    conflicts = {conflict.series_instance_uid for conflict in study.conflicts}
    usable: list[SeriesImages] = []
    set_aside = [*study.unreadable, *study.conflicts]
    for images in by_series:
        if images[0].series_instance_uid in conflicts:
            continue
        verdict = _judge(images)
        if isinstance(verdict, SetAside):
            set_aside.append(verdict)
        else:
            usable.append(verdict)
    age = _age(study.images)
    reason = (
        settings.exclusion.reason(study.study_description, age)
        or _no_head(by_series)
        or too_few(len(usable), settings.min_series, "usable series of the head")
    )
    if reason:
        raise OutOfScope(reason, tuple(set_aside), study.study_instance_uid)
    return StudySelection(study.study_instance_uid, study.study_description, age, tuple(usable), tuple(set_aside))


def too_few(count: int, needed: int, what: str) -> str:
    """The reason when fewer than `needed` are left, else an empty string."""
    return f"{count} {what}, at least {needed} needed" if count < needed else ""


def _judge(images: Sequence[ImageHeader]) -> SeriesImages | SetAside:
    """One series: its usable images, or why it is set aside."""
    uid = images[0].series_instance_uid
    reasons = [(image, _not_used(image)) for image in images]
    used = tuple(image for image, reason in reasons if not reason)
    left_out = Counter(reason for _, reason in reasons if reason)
    if not used:
        return SetAside(uid, left_out.most_common(1)[0][0])
    if problem := next((image.problem for image in used if image.problem), ""):
        return SetAside(uid, problem)
    head, where = _where(used)
    if not head:
        return SetAside(
            uid, f"shows another region ({', '.join(where)})" if where else "nothing says that it shows the head"
        )
    return SeriesImages(uid, used, tuple(f"{count} image(s) left out: {reason}" for reason, count in left_out.items()))


def _not_used(image: ImageHeader) -> str:
    """Why an image is of no kind that the model reads, or an empty string."""
    if image.sop_class_uid.startswith(_SECONDARY_CAPTURE):
        return "secondary capture"
    if image.sop_class_uid == _ENHANCED_COLOUR:
        return "colour image"
    if image.sop_class_uid not in MR_IMAGES or image.modality != "MR":
        return "not an MR image"
    if image.pixels is not None and image.colour:
        return "colour image"
    if image.photometric == "MONOCHROME1":
        return "inverted greyscale"
    return kind_of(image.image_type, image.series_description or image.protocol_name) or _CALCULATIONS.get(
        image.calculation, ""
    )


def kind_of(image_type: Sequence[str], description: str) -> str:
    """The name of the kind in `KINDS` that Image Type or description speak of, or an empty string."""
    words = {word for value in image_type for word in re.split(r"[ _\-]+", value)}
    folded = fold(description)
    return next((k.name for k in KINDS if k.image_type & words or k.description.search(folded)), "")


def _where(images: Sequence[ImageHeader]) -> tuple[bool, tuple[str, ...]]:
    """Whether the images show the head, and the other regions they speak of (the order is in the module docstring)."""
    words = anatomy_of({text for image in images for text in (image.series_description, image.protocol_name)})
    region = anatomy_of({text for image in images for text in image.region_texts})
    study = anatomy_of({text for image in images for text in image.study_texts})
    elsewhere = (*words.elsewhere, *(name for name in region.elsewhere if name not in words.elsewhere))
    if elsewhere:
        return False, elsewhere
    only_elsewhere = study.elsewhere and not study.head
    if words.head or (region.head and not only_elsewhere):
        return True, ()
    return study.head and not study.elsewhere, study.elsewhere


def _no_head(by_series: Sequence[Sequence[ImageHeader]]) -> str:
    """Why no MR image of the study shows the head, or an empty string."""
    mr_series = [[image for image in images if image.sop_class_uid in MR_IMAGES] for images in by_series]
    found = [_where(images) for images in mr_series if images]
    if not found:
        return "the study holds no MR images"
    if any(head for head, _ in found):
        return ""
    regions = dict.fromkeys(name for _, where in found for name in where)
    if regions:
        return f"not a study of the head or brain: its descriptions and codes say {', '.join(regions)}"
    return "nothing in the study says that it shows the head or brain"


def _age(images: Sequence[ImageHeader]) -> float | None:
    """Years. Where images disagree, the least: what is excluded is most often the young."""
    return min((image.age_years for image in images if image.age_years is not None), default=None)


def _by_series(images: Sequence[ImageHeader]) -> list[tuple[ImageHeader, ...]]:
    """Images by series; series by number, then UID; images by instance number, then UID."""

    def order(image: ImageHeader) -> tuple[str, float, str]:
        number = float("inf") if image.instance_number is None else image.instance_number
        return image.series_instance_uid, number, image.sop_instance_uid

    ordered = sorted(images, key=order)
    series = [tuple(group) for _, group in groupby(ordered, key=lambda image: image.series_instance_uid)]

    def number(group: tuple[ImageHeader, ...]) -> tuple[float, str]:
        first = group[0].series_number
        return float("inf") if first is None else first, group[0].series_instance_uid

    return sorted(series, key=number)
