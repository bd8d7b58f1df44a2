"""`provenance`, `replay`: where a result came from, and the proof that its numbers are those of its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, notes, print_json, progress, result
from dicom_node.admin.studies import Uid, find
from dicom_node.base.errors import PermanentError
from dicom_node.base.provenance import Provenance, ResultRecord
from dicom_node.intake.spool import Spool
from dicom_node.jobs.registry import Registry
from dicom_node.replay import Replayed, check_bundle, check_images, recorded
from dicom_node.replay import replay as compute_again
from dicom_node.surroundings import software

DIFFERS = 1

app = typer.Typer()

Revision = Annotated[int | None, typer.Option(min=1, help="Which report of the study; the newest when left out.")]


@app.command()
def provenance(uid: Uid, revision: Revision = None, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Show where a result came from: bundle, every image, configuration, software, machine, times, deliveries."""
    _, registry = open_registry(config)
    record = result_record(registry, uid, revision)
    kept = recorded(record)
    if json:
        print_json(as_json(record, kept))
    else:
        _show(record, kept)


@app.command()
def replay(
    uid: Uid,
    revision: Revision = None,
    bundle: Annotated[Path | None, typer.Option(help="Where the bundle lies now, if it was moved.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the recorded one when left out.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Compute a result again from the spool and compare every number; exit code 1 when one differs."""
    configuration, registry = open_registry(config)
    record = result_record(registry, uid, revision)
    kept = recorded(record)
    spool = Spool(configuration.node.spool)
    found = check_bundle(kept, bundle or bundle_folder(registry, kept))
    check_images(kept.images, spool)
    with progress() as bar:
        task = bar.add_task("computing again", total=None)
        done = compute_again(
            record, found, spool, device, software(), lambda n, m: bar.update(task, completed=n, total=m)
        )
    if json:
        print_json(_replayed_json(record, kept, done))
    else:
        _show_replayed(record, kept, done)
    if not done.same:
        notes.print("dicom-node: the numbers are not those on record", soft_wrap=True)
        raise typer.Exit(DIFFERS)


def as_json(record: ResultRecord, kept: Provenance) -> dict[str, Any]:
    """All that is on record of a result, in the vocabulary of the command line's JSON."""
    document = dict(kept.document)
    times = document.pop("times") | {"recorded": record.recorded_at}
    return {
        "id": record.study_id,
        "study_instance_uid": record.study_instance_uid,
        "revision": record.revision,
        "sr_sop_instance_uid": record.sop_instance_uid,
        "sr_series_instance_uid": record.series_instance_uid,
        "sr_sop_class_uid": record.sop_class_uid,
        "priority": {"level": record.level, "rule": record.rule},
        "findings": [dict(finding) for finding in record.findings],
        "logits": record.logits,
        **document,
        "times": {name: _utc(at) for name, at in times.items()},
        "deliveries": [asdict(one) | {"delivered_at": _utc(one.delivered_at)} for one in record.deliveries],
        "images": [asdict(image) for image in kept.images],
    }


def result_record(registry: Registry, uid: str, revision: int | None) -> ResultRecord:
    """The result that is meant. Raises PermanentError."""
    study = find(registry, uid)
    record = registry.result_record(study.id, revision)
    if record is None:
        which = f"has no report of revision {revision}" if revision else "was never reported"
        raise PermanentError(f"the study {which}; `dicom-node study` shows what happened to it")
    return record


def bundle_folder(registry: Registry, kept: Provenance) -> Path:
    """Where the node last saw the bundle."""
    was = kept.document["bundle"]
    known = {model.bundle_id: model.path for model in registry.models()}
    return known.get(was["id"], Path(was["path"]))


def _show(record: ResultRecord, kept: Provenance) -> None:
    document = kept.document
    bundle, software_then, machine = document["bundle"], document["software"], document["machine"]
    configuration, batch = document["configuration"], document["batch"]
    result.print(f"study {record.study_id}, revision {record.revision}, report {record.sop_instance_uid}")
    result.print(f"  {record.level}: {record.rule}")
    for finding in record.findings:
        kind = "probability" if finding["calibrated"] else "uncalibrated score"
        result.print(f"  {finding['meaning']}  {kind} {finding['score']:.3f}")
    if document["partial_reason"]:
        result.print(f"  partial: {document['partial_reason']}")
    result.print(f"bundle {bundle['id']} ({bundle['name']} {bundle['version']}, {bundle['training_state']})")
    result.print(f"  device UID {bundle['device_uid']}, at {bundle['path']}")
    for name, digest in {"bundle.json": bundle["manifest"], **bundle["files"]}.items():
        result.print(f"  {digest}  {name}")
    used = sum(image.used for image in kept.images)
    result.print(f"images: {len(kept.images)} given to the model, {used} used; --json names each with its SHA-256")
    for series in document["series"]:
        tokens = f"{series['tokens_kept']} of {series['tokens_total']} tokens"
        result.print(f"  {series['name']}: {series['images_used']} of {series['images']} images, {tokens}")
        for note in series["notes"]:
            result.print(f"    {note}")
    for (reason, images), count in Counter((one["reason"], one["images"]) for one in document["set_aside"]).items():
        of_images = f" of {images} images" if images else ""
        result.print(f"  set aside, {count} series{of_images}: {reason}")
    result.print(
        "  received objects: " + ", ".join(f"{count} {standing}" for standing, count in document["objects"].items())
    )
    result.print(f"configuration {configuration['digest']}")
    result.print(f"  what decides results: {configuration['settings_digest']}")
    result.print("software: " + ", ".join(f"{name} {number}" for name, number in software_then.items() if number))
    result.print(f"machine: {machine['device']}, {machine['name']}, {machine['threads']} threads")
    result.print(f"precision: {document['precision']}")
    for name, at in {**document["times"], "recorded": record.recorded_at}.items():
        result.print(f"  {_utc(at) or 'not known':<29}  {name.replace('_', ' ')}")
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.2f} s" for name, value in document["seconds"].items())
    result.print(f"  {seconds}")
    if batch["studies"] > 1:
        alone = sum(series["tokens_kept"] for series in document["series"])
        shared = f"{batch['studies']} studies at once, {alone} of {batch['tokens']} tokens were this one's"
        result.print(f"  all but prepare are of {shared}")
    for one in record.deliveries:
        error = f": {one.last_error}" if one.last_error else ""
        result.print(f"  → {one.destination} ({one.kind}) {one.state} {_utc(one.delivered_at) or ''}{error}")


def _replayed_json(record: ResultRecord, kept: Provenance, done: Replayed) -> dict[str, Any]:
    return {
        "study_instance_uid": record.study_instance_uid,
        "revision": record.revision,
        "sr_sop_instance_uid": record.sop_instance_uid,
        "same": done.same,
        "greatest_difference": done.greatest if done.greatest < float("inf") else None,
        "output": done.output,
        "tolerance": done.tolerance,
        "precision": kept.document["precision"],
        "images": len(kept.images),
        "tokens_kept": sum(series["tokens_kept"] for series in kept.document["series"]),
        "differences": list(done.differences),
        "notes": list(done.notes),
    }


def _show_replayed(record: ResultRecord, kept: Provenance, done: Replayed) -> None:
    result.print(f"{kept.document['bundle']['id']}: every file as it was")
    result.print(f"{len(kept.images)} images: every byte as it was received")
    words = "the same" if done.same else "DIFFERENT"
    within = f"tolerance {done.tolerance:g} in {kept.document['precision']}"
    result.print(
        f"revision {record.revision}: {words}; greatest difference {done.greatest:.3g}, {done.output} ({within})"
    )
    for text in done.differences:
        result.print(f"  differs: {text}")
    for text in done.notes:
        result.print(f"  note: {text}")


def _utc(seconds: float | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond: stages take less than a second."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
