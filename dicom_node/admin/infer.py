"""`infer`: the whole model on a folder of DICOM files, offline, with the same scope check as the node's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.admin.options import OptionalConfigFile
from dicom_node.admin.output import Json, print_json, progress, result
from dicom_node.base.config import Configuration, ModelSection, load_configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.scope import scope_settings
from prima_core.base.errors import OutOfScope
from prima_core.base.types import PreparedStudy, SetAside, StudyPrediction
from prima_core.bundle import BundleManifest, read_manifest
from prima_core.prepare import prepare_study

OUT_OF_SCOPE = 3

app = typer.Typer()


@app.command()
def infer(
    study_dir: Annotated[Path, typer.Argument(help="Folder with one study's DICOM files, at any depth.")],
    bundle: Annotated[Path | None, typer.Option(help="Model bundle; the configuration's when left out.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, fp16 (GPU), int8 (CPU) or auto.")] = None,
    embedding: Annotated[bool, typer.Option("--embedding", help="Add the study embedding to the JSON.")] = False,
    config: OptionalConfigFile = None,
    json: Json = False,
) -> None:
    """Run the model on one study in a folder and print what it says. Exit code 3: out of scope, with the reason."""
    configuration = load_configuration(config) if config else Configuration()
    model = _model_settings(configuration, bundle, precision)
    assert model.bundle is not None
    manifest = read_manifest(model.bundle)
    started = time.perf_counter()
    try:
        prepared = _prepare(study_dir, configuration)
    except OutOfScope as error:
        document = _out_of_scope(error, manifest, time.perf_counter() - started)
        if embedding:
            document["study_embedding"] = None
        _show_out_of_scope(document, json)
        raise typer.Exit(OUT_OF_SCOPE) from error
    prepare_seconds = time.perf_counter() - started
    prediction = _predict(model, prepared)
    document = _document(prepared, prediction, manifest)
    document["seconds"] = _seconds(prepare_seconds, prediction)
    if embedding:
        document["study_embedding"] = prediction.study_embedding.tolist()
    if json:
        print_json(document)
    else:
        _show(document)


def _model_settings(configuration: Configuration, bundle: Path | None, precision: str | None) -> ModelSection:
    chosen = {"bundle": bundle, "precision": precision}
    merged = configuration.model.model_dump() | {key: value for key, value in chosen.items() if value is not None}
    if merged["precision"] not in ("auto", "fp32", "bf16", "fp16", "int8"):
        raise ConfigurationError("--precision: use fp32, bf16, fp16, int8 or auto")
    if merged["bundle"] is None:
        raise ConfigurationError("no model: give --bundle DIR, or --config FILE with model.bundle")
    return ModelSection.model_validate(merged)


def _prepare(folder: Path, configuration: Configuration) -> PreparedStudy:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise PermanentError(f"no files in {folder}")
    with progress() as bar:
        task = bar.add_task("reading series", total=None)
        return prepare_study(files, scope_settings(configuration), lambda n, m: bar.update(task, completed=n, total=m))


def _predict(model: ModelSection, prepared: PreparedStudy) -> StudyPrediction:
    from prima_core.bundle import build_model, load_bundle

    assert model.bundle is not None
    try:
        prima = build_model(load_bundle(model.bundle), model.device, model.precision)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    with progress() as bar:
        task = bar.add_task("encoding tokens", total=None)
        return prima.predict_one(prepared, lambda n, m: bar.update(task, completed=n, total=m))


def _document(prepared: PreparedStudy, prediction: StudyPrediction, manifest: BundleManifest) -> dict[str, Any]:
    return {
        "study_instance_uid": prepared.study_instance_uid,
        "state": "done",
        "reason": None,
        "bundle": {"id": manifest.id, "training_state": manifest.training_state},
        "series": [
            {
                "series_instance_uid": series.series_instance_uid,
                "name": series.name,
                "tokens_total": series.tokens_total,
                "tokens_kept": series.tokens_kept,
                "notes": list(series.notes),
            }
            for series in prepared.series
        ],
        "set_aside": _set_aside(prepared.set_aside),
        "diagnosis": prediction.diagnosis,
        "referral": prediction.referral,
        "priority": prediction.priority,
        "precision": prediction.precision,
    }


def _set_aside(items: tuple[SetAside, ...]) -> list[dict[str, str]]:
    return [{"series_instance_uid": item.series_instance_uid, "reason": item.reason} for item in items]


def _seconds(prepare: float, prediction: StudyPrediction) -> dict[str, float]:
    parts = {"prepare": prepare, **prediction.seconds}
    return {name: round(value, 4) for name, value in (parts | {"total": sum(parts.values())}).items()}


def _out_of_scope(error: OutOfScope, manifest: BundleManifest, prepare: float) -> dict[str, Any]:
    """Every key of a result; what was not computed is empty or None."""
    seconds = round(prepare, 4)
    return {
        "study_instance_uid": error.study_instance_uid,
        "state": "out_of_scope",
        "reason": error.reason,
        "bundle": {"id": manifest.id, "training_state": manifest.training_state},
        "series": [],
        "set_aside": _set_aside(error.set_aside),
        "diagnosis": {},
        "referral": {},
        "priority": {},
        "precision": None,
        "seconds": {"prepare": seconds, "tokenize": None, "study_model": None, "heads": None, "total": seconds},
    }


def _show_out_of_scope(document: dict[str, Any], json: bool) -> None:
    if json:
        print_json(document)
        return
    result.print(f"out of scope: {document['reason']}")
    for item in document["set_aside"]:
        result.print(f"  {item['series_instance_uid']}: {item['reason']}")


def _show(document: dict[str, Any]) -> None:
    bundle = document["bundle"]
    result.print(f"model {bundle['id']} ({bundle['training_state']}), {document['precision']}")
    for series in document["series"]:
        result.print(f"  {series['name']}: {series['tokens_kept']} of {series['tokens_total']} tokens")
    for item in document["set_aside"]:
        result.print(f"  set aside {item['series_instance_uid']}: {item['reason']}")
    for task in ("diagnosis", "referral"):
        positive = {name: logit for name, logit in document[task].items() if logit > 0}
        words = ", ".join(f"{name} {logit:+.3f}" for name, logit in sorted(positive.items(), key=lambda x: -x[1]))
        result.print(f"{task}: {words or 'none above its threshold'}")
    logits = document["priority"]
    result.print(f"priority: {max(logits, key=logits.get)}")
    result.print(f"{document['seconds']['total']:.1f} s")
