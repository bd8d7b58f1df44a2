"""Where results came from: one record a result, written with it and never changed.

The images are kept apart from the rest of the record, packed: two thousand of them take 140 KB instead of 600.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import LostClaim
from dicom_node.base.provenance import InputImage, Provenance, Received, ResultRecord, SentObject
from dicom_node.base.types import Claim, StudyState
from dicom_node.jobs.database import Database
from dicom_node.jobs.tables import deliveries, events, instances, predictions, provenance, results, studies
from dicom_node.jobs.worklist_tables import changes


def keep_provenance(connection: sa.Connection, result: int, record: Provenance, at: float) -> None:
    """Keep where a result came from, in the transaction of the result."""
    connection.execute(
        provenance.insert().values(
            result_id=result,
            document=dict(record.document),
            images=_packed(record.images),
            recorded_at=at,
        )
    )


class ProvenanceBook(Database):
    """What a claimed study was received as, and what is on record of results."""

    def received(self, claim: Claim) -> Received:
        """What is known of a claimed study's way to its claim. Raises LostClaim when its images are others by now."""
        of_study = instances.c.study_id == claim.study_id
        running = (events.c.study_id == claim.study_id) & (events.c.to_state == StudyState.RUNNING)
        with self._read() as connection:
            rows = connection.execute(sa.select(instances).where(of_study)).all()
            complete = connection.scalar(sa.select(studies.c.completed_at).where(studies.c.id == claim.study_id))
            claimed = connection.scalar(sa.select(events.c.at).where(running).order_by(events.c.id.desc()).limit(1))
        by_path = {row.path: row for row in rows}
        if not by_path.keys() >= {path for _, path in claim.images}:
            raise LostClaim("images of the study became another study's while this worker ran it")
        images = [by_path[path] for _, path in claim.images]
        standings = [row.standing for row in rows]
        return Received(
            images=tuple(_image(row) for row in images),
            objects={standing: standings.count(standing) for standing in sorted(set(standings))},
            first_image_at=min((row.received_at for row in images), default=None),
            last_image_at=max((row.received_at for row in images), default=None),
            complete_at=complete,
            claimed_at=claimed,
        )

    def standing_images(self, study: str, until: float) -> list[tuple[str, ...]]:
        """The images' paths of each result that was made of a study until then and stands, by the study's short id."""
        query = sa.select(provenance.c.images).join(results, results.c.id == provenance.c.result_id)
        stands = (results.c.withdrawn_at.is_(None), results.c.created_at <= until)
        with self._read() as connection:
            kept = connection.scalars(query.where(results.c.study_id == study, *stands)).all()
        return [tuple(image.path for image in _unpacked(images)) for images in kept]

    def result_record(self, study: str, revision: int | None = None) -> ResultRecord | None:
        """What is on record of one result, the newest unless a revision is named; None where there is no such result.

        study: the short id.
        """
        which = results.c.study_id == study
        if revision is not None:
            which &= results.c.revision == revision
        query = sa.select(results, studies.c.study_instance_uid).join(studies, studies.c.id == results.c.study_id)
        query = query.where(which).order_by(results.c.revision.desc()).limit(1)
        with self._read() as connection:
            result = connection.execute(query).one_or_none()
            if result is None:
                return None
            kept = connection.execute(sa.select(provenance).where(provenance.c.result_id == result.id)).one_or_none()
            return ResultRecord(
                study_id=result.study_id,
                study_instance_uid=result.study_instance_uid,
                revision=result.revision,
                sop_instance_uid=result.sop_instance_uid,
                series_instance_uid=result.series_instance_uid,
                sop_class_uid=result.sop_class_uid,
                level=result.level,
                rule=result.rule,
                findings=tuple(result.findings),
                bundle_id=result.bundle_id,
                precision=result.precision,
                created_at=result.created_at,
                logits=_logits(connection, result),
                provenance=None if kept is None else Provenance(kept.document, _unpacked(kept.images)),
                recorded_at=None if kept is None else kept.recorded_at,
                deliveries=_sent(connection, result.id),
            )


def _logits(connection: sa.Connection, result: Any) -> dict[str, dict[str, float]] | None:
    said = sa.and_(
        predictions.c.study_id == result.study_id,
        predictions.c.revision == result.revision,
        predictions.c.bundle_id == result.bundle_id,
        ~predictions.c.shadow,
    )
    found: dict[str, dict[str, float]] | None = connection.scalar(sa.select(predictions.c.logits).where(said))
    return found


def _sent(connection: sa.Connection, result: int) -> tuple[SentObject, ...]:
    of_changes = sa.select(changes.c.id).where(changes.c.result_id == result)
    mine = (deliveries.c.result_id == result) | deliveries.c.change_id.in_(of_changes)
    return tuple(
        SentObject(row.destination, row.kind, row.state, row.attempts, row.delivered_at, row.last_error)
        for row in connection.execute(sa.select(deliveries).where(mine).order_by(deliveries.c.id))
    )


def _image(row: Any) -> InputImage:
    return InputImage(
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        sha256=row.digest,
        size=row.size,
        path=row.path,
    )


def _packed(images: Sequence[InputImage]) -> bytes:
    return zlib.compress(json.dumps([astuple(image) for image in images]).encode())


def _unpacked(content: bytes) -> tuple[InputImage, ...]:
    return tuple(InputImage(*values) for values in json.loads(zlib.decompress(content)))
