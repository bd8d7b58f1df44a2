"""What is given to whoever works on a study: its images as they count now, and why they may not be all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dicom_node.base.types import Claim, Standing
from dicom_node.jobs.database import is_over
from dicom_node.jobs.rejections import is_unexamined
from dicom_node.jobs.tables import instances, studies

DOUBT_SECONDS = 600.0
CLOSED_BY_CAP = "the study was closed by the time limit while images still arrived or were being compared"
IMAGES_LOST = "images of the study were received but are missing from the spool"
IMAGES_ELSEWHERE = "images of the study were received before under another Study Instance UID and are not used here"
IMAGES_UNCORRECTED = (
    "images of the study were not sent again with its corrected patient or accession number and are not used"
)
IMAGES_EXPIRED = "images of the study were deleted here because their retention expired"
IMAGES_CLEANED = "images of the study were deleted here to make room, after an earlier result of it was sent"
IMAGES_QUARANTINED = "other images arrived under SOP Instance UIDs of this study and were set aside"


def certain(at: float) -> sa.ColumnElement[bool]:
    """Whether nothing is in doubt that a study consists of, or has been for too long to wait."""
    in_doubt = sa.exists().where(
        instances.c.study_id == studies.c.id, (instances.c.standing == Standing.DISPUTED) | is_unexamined()
    )
    by_cap = sa.func.coalesce(studies.c.partial_reason, "") == CLOSED_BY_CAP
    return ~in_doubt | by_cap | is_over(studies.c.completed_at, at - DOUBT_SECONDS)


def claim_of(connection: sa.Connection, study: Any, owner: str = "", attempts: int = 0) -> Claim:
    """The claim of a study, a row of `studies`. The same for its report and for whatever is made beside it."""
    columns = ("sop_instance_uid", "path", "calling_ae", "standing", "cleaned_at")
    rows = connection.execute(
        sa.select(*(instances.c[name] for name in columns))
        .where(instances.c.study_id == study.id, instances.c.image)
        .order_by(instances.c.path)
    ).all()
    evidence = [item for item in rows if item.standing == Standing.CURRENT and item.cleaned_at is None]
    return Claim(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        revision=study.revision,
        urgent=study.urgent,
        owner=owner,
        calling_aes=tuple(sorted({item.calling_ae for item in evidence})),
        images=tuple((item.sop_instance_uid, item.path) for item in evidence),
        partial_reason=study.partial_reason or _incomplete(rows),
        attempts=attempts,
        corrected=_corrected(rows),
    )


def _incomplete(images: Sequence[Any]) -> str | None:
    """Why not everything that was received under a study's name can be used; None when it can. images: its rows."""
    uids = {standing: {row.sop_instance_uid for row in images if row.standing == standing} for standing in Standing}
    if uids[Standing.LOST] - uids[Standing.CURRENT]:
        return IMAGES_LOST
    if uids[Standing.UNCORRECTED]:
        return IMAGES_UNCORRECTED
    if uids[Standing.EXPIRED] - uids[Standing.CURRENT]:
        return IMAGES_EXPIRED
    if any(row.standing == Standing.CURRENT and row.cleaned_at is not None for row in images):
        return IMAGES_CLEANED
    if uids[Standing.CORRECTION] - uids[Standing.CURRENT]:
        return IMAGES_ELSEWHERE
    return IMAGES_QUARANTINED if uids[Standing.QUARANTINED] else None


def _corrected(images: Sequence[Any]) -> tuple[str, ...]:
    """Paths of the evidence that took the place of an earlier version. images: a study's rows."""
    earlier = {row.sop_instance_uid for row in images if row.standing == Standing.SUPERSEDED}
    current = (row for row in images if row.standing == Standing.CURRENT)
    return tuple(row.path for row in current if row.sop_instance_uid in earlier)
