"""Where a result came from: what is kept with each one, so that it can be explained and computed again years later.

Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InputImage:
    """One image that a study was run on.

    sha256: of the data set's bytes as received; size: how many. path: in the spool. used: whether tokens were made of
    it; why others were not is said of their series.
    """

    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size: int
    path: str
    used: bool = False


@dataclass(frozen=True)
class Received:
    """What the registry knows of a claimed study's way to its claim.

    images: those of the claim, in its order. objects: how many received objects of the study stand how.
    """

    images: tuple[InputImage, ...]
    objects: Mapping[str, int]
    first_image_at: float | None
    last_image_at: float | None
    complete_at: float | None
    claimed_at: float | None


@dataclass(frozen=True)
class Provenance:
    """What is recorded with a result, in its transaction.

    document: plain JSON values, see `dicom_node.provenance`. images: all that the study was run on, used or not.
    """

    document: Mapping[str, Any]
    images: tuple[InputImage, ...]


@dataclass(frozen=True)
class SentObject:
    """One object of a result, or one message of the priority that it gave, on its way to one destination."""

    destination: str
    kind: str
    state: str
    attempts: int
    delivered_at: float | None
    last_error: str | None


@dataclass(frozen=True)
class ResultRecord:
    """One result with all that is on record of it.

    logits: task → output → logit as kept with the result, None for results from before that was done. provenance,
    recorded_at: None likewise. deliveries: as they are now.
    """

    study_id: str
    study_instance_uid: str
    revision: int
    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    level: str
    rule: str
    findings: tuple[Mapping[str, Any], ...]
    bundle_id: str
    precision: str
    created_at: float
    logits: Mapping[str, Mapping[str, float]] | None
    provenance: Provenance | None
    recorded_at: float | None
    deliveries: tuple[SentObject, ...]
