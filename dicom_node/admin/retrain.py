"""`retrain heads`, `retrain full`: a site's own labels → an evaluated bundle, which runs in shadow from then on."""

from __future__ import annotations

import hashlib
import json as json_text
import shutil
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.admin.kept_embeddings import active_bundle, export_embeddings, new_run, patient_of
from dicom_node.admin.model import put_in_shadow
from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, notes, print_json, result
from dicom_node.admin.training_runs import Run, begin, finish, made_before, only_one_run, stopped, unfinished
from dicom_node.base.config import Configuration
from dicom_node.base.durable import make_folder
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.base.types import StudyState
from dicom_node.bundles import EVALUATION, encoder_of
from dicom_node.jobs.registry import Registry
from dicom_node.scope import scope_settings
from prima_core.bundle import Bundle, read_manifest

if TYPE_CHECKING:
    from training.prepare.source import Source

BUNDLES = "bundles"  # in the storage folder

app = typer.Typer(help="Train on this site's studies; the result runs in shadow.", no_args_is_help=True)


class Device(StrEnum):
    """Where training computes."""

    CPU = "cpu"
    AUTO = "auto"


class TrainingState(StrEnum):
    """What the new bundle is made for."""

    PHANTOM = "phantom"
    CLINICAL = "clinical"


Labels = Annotated[
    Path, typer.Option(help="CSV: study (UID, short id or accession number), diagnosis.…, referral.…, priority.")
]
LeaveOut = Annotated[bool, typer.Option("--leave-out", help="Leave findings with too few examples out.")]
AllowFewer = Annotated[bool, typer.Option("--allow-fewer", help="Even if findings are no longer reported.")]
IfNew = Annotated[bool, typer.Option("--if-new", help="Do nothing where the same labels and studies gave a bundle.")]
HeadSteps = Annotated[int, typer.Option("--head-steps", min=1, help="Updates of each task's head.")]


@app.command()
def heads(
    labels: Labels,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only studies received since this day (UTC).")
    ] = None,
    leave_out: LeaveOut = False,
    allow_fewer: AllowFewer = False,
    if_new: IfNew = False,
    head_steps: HeadSteps = 3000,
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Train task heads on the study embeddings that the node has kept. Minutes, and no images."""
    _check_installed()
    from training.retrain import RetrainSettings, retrain_heads
    from training.run_folder import RunFolder
    from training.stages.heads import held_heads

    configuration, registry = open_registry(config)
    base = active_bundle(configuration, registry)
    wanted = {
        "what": "heads",
        "labels": _sha256(labels),
        "since": since and since.date().isoformat(),
        "encoder": encoder_of(read_manifest(base)),
        "steps": head_steps,
    }
    with only_one_run(configuration):
        run = unfinished(configuration, wanted)
        if run is None:
            for other in stopped(configuration, "heads"):  # of other labels or another bundle; made again in minutes
                shutil.rmtree(other.folder)
            made = export_embeddings(configuration, registry, labels, since and since.date())
            found = {
                "studies": made.studies,
                "unknown": len(made.unknown),
                "without_positives": list(made.without_positives),
                "embeddings": _sha256(made.folder / "embeddings.safetensors"),
            }
            run = Run(made.folder, wanted, found)
            if if_new and (before := made_before(configuration, run)):
                shutil.rmtree(made.folder)
                _nothing_new(before, json)
                return
            begin(run)
        _tell(run)
        settings = RetrainSettings(_version(base, run), None, held_heads(head_steps, leave_out=leave_out), allow_fewer)
        bundle = retrain_heads(RunFolder(run.folder), _load(base), _out(configuration, run), settings)
        _end(configuration, registry, run, bundle, json)


@app.command()
def full(
    labels: Labels,
    reports: Annotated[Path, typer.Option(help="JSON Lines or CSV: study (UID or accession number) and its report.")],
    studies: Annotated[
        list[Path] | None, typer.Option(help="Folder of DICOM files, several times; the node's own studies if absent.")
    ] = None,
    keep_tokenizer: Annotated[
        bool, typer.Option("--keep-tokenizer", help="Keep the active bundle's, and go on from its study model.")
    ] = False,
    training_state: Annotated[
        TrainingState | None, typer.Option(help="Of the new bundle; the active one's if absent.")
    ] = None,
    leave_out: LeaveOut = False,
    allow_fewer: AllowFewer = False,
    if_new: IfNew = False,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the study model.")] = 20_000,
    tokenizer_steps: Annotated[int, typer.Option(min=1, help="Updates of the tokenizer.")] = 10_000,
    head_steps: HeadSteps = 3000,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read studies; 0: this one alone.")] = 2,
    device: Annotated[Device, typer.Option(help="Where to compute; auto: a GPU if there is one.")] = Device.AUTO,
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Train every stage, in the active bundle's architecture, from images and reports. Hours to days."""
    _check_installed()
    from training.retrain import RetrainSettings, retrain_full, stage_settings
    from training.run_folder import RunFolder
    from training.stages.heads import held_heads

    configuration, registry = open_registry(config)
    base = active_bundle(configuration, registry)
    manifest = read_manifest(base)
    wanted = {
        "what": "full",
        "labels": _sha256(labels),
        "reports": _sha256(reports),
        "studies": [str(path.absolute()) for path in studies or ()],
        "base": manifest.id,
        "options": [keep_tokenizer, training_state, steps, tokenizer_steps],
    }
    with only_one_run(configuration):
        run = unfinished(configuration, wanted)
        if run is None:
            if if_new and (before := made_before(configuration, Run(Path(), wanted, {}))):
                _nothing_new(before, json)
                return
            for other in stopped(configuration, "full"):
                notes.print(f"a run with other inputs was stopped: {other.folder}; delete it if nobody wants it")
            run = begin(Run(new_run(configuration), wanted, {}))
        settings = RetrainSettings(
            _version(base, run),
            training_state and training_state.value,
            held_heads(head_steps, leave_out=leave_out),
            allow_fewer,
        )
        stages = stage_settings(
            manifest.architecture,
            steps=steps,
            tokenizer_steps=tokenizer_steps,
            keep_tokenizer=keep_tokenizer,
            workers=workers,
            device=device.value,
        )
        source = _source(configuration, registry, labels, reports, studies)
        opened = RunFolder(run.folder)
        bundle = retrain_full(opened, source, _load(base), _out(configuration, run), settings, stages)
        _end(configuration, registry, run, bundle, json)


def _check_installed() -> None:
    """Raises ConfigurationError where the node was installed without what training needs."""
    try:
        import training.retrain  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"training needs {error.name}, which is not installed: `make install-training` in the node's folder"
        ) from error


def _source(
    configuration: Configuration, registry: Registry, labels: Path, reports: Path, folders: list[Path] | None
) -> Source:
    """The studies in these folders, or those that the node reported, as far as the site does not exclude them."""
    from training.base.pseudonyms import load_or_create_key
    from training.prepare.dicom_folder import DicomFolder
    from training.prepare.known import read_known
    from training.prepare.listed import ListedStudies

    pseudonyms = load_or_create_key(configuration.node.storage / "training" / "key")
    known, scope = read_known(labels, reports), scope_settings(configuration)
    if folders:
        return DicomFolder(folders, pseudonyms, known, scope)
    files = {}
    excluded = set(configuration.scope.exclude.ae_titles)
    for state in (StudyState.REPORTED, StudyState.DELIVERED):
        for study in registry.studies(state=state):
            images = registry.current_images(study.id)
            if not excluded & {image.calling_ae for image in images}:
                files[study.study_instance_uid] = [configuration.node.spool / image.path for image in images]
    if not files:
        raise PermanentError("the node has reported no study yet; name a folder by --studies")
    # As the export of kept embeddings says it: heads are later judged on patients whom no stage of the bundle has seen.
    keys = registry.patient_keys()
    patients = {uid: pseudonyms.patient(patient_of(*keys[uid])) for uid in files}
    return ListedStudies(files, patients, pseudonyms, known, scope)


def _load(base: Path) -> Bundle:
    from prima_core.bundle import load_bundle

    return load_bundle(base)


def _out(configuration: Configuration, run: Run) -> Path:
    make_folder(configuration.node.storage / BUNDLES)
    return configuration.node.storage / BUNDLES / run.folder.name


def _version(base: Path, run: Run) -> str:
    """The base's own version, then what was retrained and when."""
    return f"{read_manifest(base).version.partition('+')[0]}+{run.wanted['what']}.{run.folder.name.partition('.')[0]}Z"


def _tell(run: Run) -> None:
    found = run.found
    notes.print(f"{found['studies']} labelled studies have an embedding here; {found['unknown']} names mean none")
    for name in found["without_positives"]:
        notes.print(f"no study has {name}")


def _nothing_new(bundle: str, json: bool) -> None:
    if json:
        print_json({"bundle": bundle, "new": False})
    else:
        result.print(f"nothing new since {bundle} was made of the same labels and studies")


def _end(configuration: Configuration, registry: Registry, run: Run, bundle: Bundle, json: bool) -> None:
    """Into the shadow, on record; then the run forgets its patients."""
    manifest = bundle.manifest
    is_active = manifest.id == read_manifest(active_bundle(configuration, registry)).id
    if not is_active:
        put_in_shadow(configuration, registry, str(bundle.directory), f"retrained ({run.wanted['what']})")
    finish(run, manifest.id)
    record = json_text.loads((bundle.directory / EVALUATION).read_text("utf-8"))
    if json:
        print_json(_document(run, bundle, record) | {"role": "active" if is_active else "shadow"})
        return
    mean = record["mean_auroc"]
    figure = "too few test studies for an AUROC" if mean is None else f"mean AUROC {mean:.3f} of diagnoses"
    result.print(f"{manifest.id} ({manifest.training_state}), {figure} on {record['studies']} test studies")
    for words, key in (("left out", "left_out"), ("no longer reported", "no_longer_reported")):
        for name in record[key]:
            result.print(f"  {words}: {name}")
    result.print(f"  {bundle.directory / 'evaluation.html'}")
    result.print(
        "it is the very bundle that is active: these labels teach nothing new"
        if is_active
        else "it runs in shadow as soon as the worker has loaded it; `dicom-node model compare`, then `model activate`"
    )


def _document(run: Run, bundle: Bundle, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bundle": bundle.manifest.id,
        "new": True,
        "path": str(bundle.directory),
        "version": bundle.manifest.version,
        "training_state": bundle.manifest.training_state,
        "run": str(run.folder),
        **{key: value for key, value in run.found.items() if key != "embeddings"},
        "evaluation": {key: record[key] for key in ("studies", "training_studies", "mean_auroc", "auroc")},
        **{key: record[key] for key in ("kept_tasks", "left_out", "no_longer_reported")},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
