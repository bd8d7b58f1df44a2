"""What is recorded of each result, so that years later it can be said why the model answered what it did.

The document of a record, all of plain JSON values; times are seconds since the epoch, UTC:

    schema_version       of this list
    study_description    as the model read it
    calling_ae_titles, urgent, attempt, partial_reason: of the claim
    bundle               id, name, version, training_state, device_uid, path, manifest (SHA-256 of bundle.json), files
                         (SHA-256 of every other)
    series               each one used: UID, name as encoded, tokens in all and kept, images received and used, notes
    set_aside            each one not used: UID (empty for files that cannot be read), reason, images
    objects              how many received objects of the study stood how (current, duplicate, quarantined …)
    configuration        digest as `config check` prints it; settings: the part that decides results; settings_digest:
                         theirs, which is equal on every machine that has them
    software, machine    see `surroundings`             precision: what the tokenizer computed in
    times                first_image, last_image, complete, claimed, reported
    seconds              prepare: of this study; tokenize, study_model, heads: of the whole batch
    batch                studies and tokens that went through the model together

What the model said is not repeated here: the registry keeps it once, in the same transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dicom_node.base.config import Configuration
from dicom_node.base.provenance import Provenance, Received
from dicom_node.base.types import Claim
from prima_core.base.types import PreparedStudy, StudyPrediction
from prima_core.bundle import Bundle

SCHEMA_VERSION = 1
DECIDING = {
    "scope": True,
    "model": {"precision", "device", "token_budget"},
    "worklist": {"mapping", "rules"},
    "report": True,
    "explanation": True,
}
NOT_DECIDING = {"report": {"keep_sent_days"}}


@dataclass(frozen=True)
class Surroundings:
    """What stays the same while a worker runs: configuration (see `configuration_record`), software and machine."""

    configuration: Mapping[str, Any]
    software: Mapping[str, str | None]
    machine: Mapping[str, Any]


def provenance_of(
    claim: Claim,
    received: Received,
    study: PreparedStudy,
    prediction: StudyPrediction,
    bundle: Bundle,
    surroundings: Surroundings,
    reported_at: float,
) -> Provenance:
    """The record of a result that was just reported."""
    used = {uid for series in study.series for uid in series.sop_instance_uids}
    document = {
        "schema_version": SCHEMA_VERSION,
        "study_description": study.description,
        "calling_ae_titles": list(claim.calling_aes),
        "urgent": claim.urgent,
        "attempt": claim.attempts,
        "partial_reason": claim.partial_reason,
        "bundle": _bundle(bundle),
        **_series(study, Counter(image.series_instance_uid for image in received.images)),
        "objects": dict(received.objects),
        "configuration": dict(surroundings.configuration),
        "software": dict(surroundings.software),
        "machine": dict(surroundings.machine),
        "precision": prediction.precision,
        "times": {
            "first_image": received.first_image_at,
            "last_image": received.last_image_at,
            "complete": received.complete_at,
            "claimed": received.claimed_at,
            "reported": reported_at,
        },
        "seconds": {"prepare": study.seconds, **prediction.seconds},
        "batch": {"studies": prediction.batch_studies, "tokens": prediction.batch_tokens},
    }
    images = tuple(replace(image, used=image.sop_instance_uid in used) for image in received.images)
    return Provenance(document, images)


def configuration_record(configuration: Configuration) -> dict[str, Any]:
    """The digest of a configuration, and of it what decides results: no secrets, no folders, no peers."""
    settings = configuration.model_dump(mode="json", include=DECIDING, exclude=NOT_DECIDING)  # type: ignore[arg-type]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {"digest": configuration.digest, "settings_digest": digest, "settings": settings}


def _bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "training_state": manifest.training_state,
        "device_uid": manifest.device_uid,
        "path": str(bundle.directory),
        "manifest": manifest.sha256,
        "files": dict(manifest.files),
    }


def _series(study: PreparedStudy, images: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """images: how many of each series were received."""
    used = [
        {
            "series_instance_uid": series.series_instance_uid,
            "name": series.name,
            "tokens_total": series.tokens_total,
            "tokens_kept": series.tokens_kept,
            "images": images.get(series.series_instance_uid, 0),
            "images_used": len(series.sop_instance_uids),
            "notes": list(series.notes),
        }
        for series in study.series
    ]
    not_used = [
        {
            "series_instance_uid": entry.series_instance_uid,
            "reason": entry.reason,
            "images": images.get(entry.series_instance_uid),
        }
        for entry in study.set_aside
    ]
    return {"series": used, "set_aside": not_used}
