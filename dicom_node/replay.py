"""A result computed again from the spool, to prove that its numbers are those of its images and its bundle.

Nothing is taken on trust: the bundle's every file and the bytes of every image are held against the record first. The
same code then prepares and predicts with the recorded settings and precision, the study alone. Only reads: the node may
run meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dicom_node.base.config import Configuration, ScopeSection
from dicom_node.base.errors import ConfigurationError, NotDicom, PermanentError
from dicom_node.base.provenance import InputImage, Provenance, ResultRecord
from dicom_node.intake.spool import Spool
from dicom_node.provenance import SCHEMA_VERSION
from dicom_node.scope import scope_settings
from prima_core.base.errors import BundleError
from prima_core.base.types import PreparedStudy, StudyPrediction
from prima_core.bundle import Bundle, build_model, load_bundle
from prima_core.prepare import prepare_study
from prima_core.scope import ScopeSettings

TOLERANCE = 1e-5  # of a logit in fp32: company in a batch and threads change the last bits alone, 2e-6 at most so far
SHORT_TOLERANCE = (
    1e-2  # in bf16 and int8: the same on one machine, but another processor may round a convolution otherwise
)

Logits = Mapping[str, Mapping[str, float]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Replayed:
    """What came of it.

    greatest: the greatest absolute difference of a logit, infinite where an output is in one of the two alone; output:
    whose it is, as task.name. differences: what else is not as recorded. notes: what may explain a difference, and is
    none by itself.
    """

    greatest: float
    output: str
    tolerance: float
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the numbers are proven."""
        return self.greatest <= self.tolerance and not self.differences


def recorded(record: ResultRecord) -> Provenance:
    """The record of where a result came from. Raises PermanentError where there is none that can be replayed."""
    if record.provenance is None or record.logits is None:
        raise PermanentError(
            f"revision {record.revision} was reported before the node kept records of where results came from"
        )
    if record.provenance.document.get("schema_version") != SCHEMA_VERSION:
        raise PermanentError("the record is a later version's: use the `dicom-node` of the node that wrote it")
    return record.provenance


def check_bundle(provenance: Provenance, folder: Path) -> Bundle:
    """The bundle in a folder, every file as it was. Raises PermanentError, BundleError."""
    was = provenance.document["bundle"]
    bundle = load_bundle(folder)
    if bundle.manifest.id != was["id"]:
        raise PermanentError(f"{folder} holds {bundle.manifest.id}; the result was made by {was['id']} (see --bundle)")
    if bundle.manifest.sha256 != was["manifest"] or dict(bundle.manifest.files) != was["files"]:
        raise BundleError(f"{folder}: files differ from those that the result was made with")
    return bundle


def check_images(images: Sequence[InputImage], spool: Spool) -> None:
    """See that the spool still holds exactly the bytes that every image had. Raises PermanentError, OSError."""
    problems: dict[str, list[str]] = {"missing": [], "not what was received": []}
    for image in images:
        try:
            same = spool.content(image.path) == (image.transfer_syntax_uid, image.sha256)
        except FileNotFoundError:
            problems["missing"].append(image.path)
            continue
        except NotDicom:
            same = False
        if not same:
            problems["not what was received"].append(image.path)
    found = [
        f"{len(paths)} of {len(images)} images are {what}, the first of them {spool.folder / paths[0]}"
        for what, paths in problems.items()
        if paths
    ]
    if found:
        raise PermanentError("the study cannot be computed again: " + "; ".join(found))


def replay(
    record: ResultRecord, bundle: Bundle, spool: Spool, device: str | None, software: Mapping[str, Any], tell: Progress
) -> Replayed:
    """Compute a result anew from checked images and a checked bundle, and compare.

    device: as in the configuration; the recorded one, or else the CPU, when None. software: today's. Raises PrimaError
    where nothing comes out, PermanentError for settings that this version does not know, ConfigurationError for a
    device that is not there.
    """
    provenance = recorded(record)
    document = provenance.document
    prepared = prepare_study([spool.folder / image.path for image in provenance.images], recorded_scope(document), tell)
    prediction, device_note = _predict(bundle, document, prepared, device, tell)
    assert record.logits is not None
    said = {"diagnosis": prediction.diagnosis, "referral": prediction.referral, "priority": prediction.priority}
    greatest, output = greatest_difference(record.logits, said)
    return Replayed(
        greatest=greatest,
        output=output,
        tolerance=TOLERANCE if document["precision"] == "fp32" else SHORT_TOLERANCE,
        differences=tuple(input_differences(provenance, prepared)),
        notes=(*device_note, *software_changes(document["software"], software)),
    )


def greatest_difference(one: Logits, other: Logits) -> tuple[float, str]:
    """The greatest absolute difference of two answers' logits, and the output (task.name) that has it."""
    flat, others = (
        {f"{task}.{name}": logit for task, logits in said.items() for name, logit in logits.items()}
        for said in (one, other)
    )
    worst = -1.0, ""
    for output in sorted(flat.keys() | others.keys()):
        difference = abs(flat.get(output, math.nan) - others.get(output, math.nan))
        worst = max(worst, (difference if math.isfinite(difference) else math.inf, output))
    return worst if worst[1] else (math.inf, "no output at all")


def input_differences(provenance: Provenance, prepared: PreparedStudy) -> Iterable[str]:
    """What the model was given otherwise than the record says: series, their names and tokens, the images used."""
    was = {one["series_instance_uid"]: one for one in provenance.document["series"]}
    now = {one.series_instance_uid: one for one in prepared.series}
    if list(was) != list(now):
        yield f"series used: {len(was)} then, {len(now)} now, {len(was.keys() & now.keys())} the same"
    for uid in was.keys() & now.keys():
        for what in ("name", "tokens_total", "tokens_kept"):
            if was[uid][what] != getattr(now[uid], what):
                yield f"{what} of a series: {was[uid][what]} then, {getattr(now[uid], what)} now"
    used = {image.sop_instance_uid for image in provenance.images if image.used}
    again = {uid for series in prepared.series for uid in series.sop_instance_uids}
    if used != again:
        yield f"images used: {len(used)} then, {len(again)} now, {len(used & again)} the same"
    if prepared.description != provenance.document["study_description"]:
        yield "the study description is another"


def software_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which versions differ, in words."""
    return [
        f"{name}: {was.get(name)} then, {now.get(name)} now"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]


def recorded_scope(document: Mapping[str, Any]) -> ScopeSettings:
    """The scope check that the result was made under. Raises PermanentError where this version does not know it."""
    try:
        scope = ScopeSection.model_validate(document["configuration"]["settings"]["scope"])
    except ValidationError as error:
        raise PermanentError("the result was made under settings of [scope] that this version does not know") from error
    return scope_settings(Configuration(scope=scope))


def _predict(
    bundle: Bundle, document: Mapping[str, Any], prepared: PreparedStudy, device: str | None, tell: Progress
) -> tuple[StudyPrediction, list[str]]:
    was = document["machine"]
    try:
        model = build_model(bundle, device or was["device"], document["precision"])
    except ValueError as error:
        if device is not None:
            raise ConfigurationError(f"--device: {error}") from error
        model = build_model(bundle, "cpu", document["precision"])
    now = str(model.runtime.device)
    notes = [] if now == was["device"] else [f"device: {was['device']} ({was['name']}) then, {now} now"]
    return model.predict_one(prepared, tell), notes
