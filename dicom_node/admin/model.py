"""`model …`: bundles on disk, which of them are in use, and how they compare."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dicom_node.admin.comparison import compare
from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, OptionalConfigFile, open_registry
from dicom_node.admin.output import Json, print_json, progress, result, utc
from dicom_node.base.config import Configuration, load_configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.base.types import ModelRole
from dicom_node.bundles import check_fits, identity_of, read_evaluation
from dicom_node.jobs.database import check_schema
from dicom_node.jobs.models import KnownModel, Order
from dicom_node.jobs.registry import Registry
from dicom_node.sending.routes import hold_reason
from prima_core.base.errors import BundleError
from prima_core.bundle import MANIFEST, BundleManifest, read_manifest

BUNDLE_HELP = "A bundle's folder, or the id of one that the node was told of."

app = typer.Typer(help="Make, check and compare model bundles, and say which are in use.")

Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept on record with the change.")]


@app.command("import-prima")
def import_prima(
    full_model: Annotated[Path, typer.Option(help="The released primafullmodel*.pt.")],
    tokenizer: Annotated[Path, typer.Option(help="The released vqvae_model_*.pth.")],
    tokenizer_config: Annotated[Path, typer.Option(help="The tokenizer's JSON configuration.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; must not exist or be empty.")],
    training_state: Annotated[str, typer.Option(help="untrained, phantom or clinical.")] = "clinical",
    json: Json = False,
) -> None:
    """Turn the released Prima checkpoint into a bundle. Nothing in the checkpoint is executed."""
    from prima_core.import_prima import import_prima as run

    with _working("reading the checkpoint"):
        summary = run(full_model, tokenizer, tokenizer_config, out, training_state=training_state)
    manifest = read_manifest(out)
    if json:
        print_json(
            {
                "bundle": str(out),
                "id": manifest.id,
                "training_state": manifest.training_state,
                "diagnoses": list(manifest.labels["diagnosis"]),
                "referrals": list(manifest.labels["referral"]),
                "priority_levels": list(manifest.labels["priority"]),
                "parameters": summary.parameters,
            }
        )
        return
    result.print(f"{out}: bundle {manifest.id} ({manifest.training_state}), {summary.parameters:,} parameters")
    result.print(f"  {len(manifest.labels['diagnosis'])} diagnoses, {len(manifest.labels['referral'])} referrals")
    result.print(f"  priority: {', '.join(manifest.labels['priority'])}")


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")], json: Json = False) -> None:
    """Check every file's hash and every tensor of a bundle; exit code 1 and its name when one is wrong."""
    from prima_core.bundle import load_bundle

    with _working("checking every file and tensor"):
        manifest = load_bundle(bundle).manifest
    if json:
        print_json({"id": manifest.id, "training_state": manifest.training_state, "device_uid": manifest.device_uid})
    else:
        result.print(f"{bundle}: bundle {manifest.id} ({manifest.training_state}) is whole")


@app.command("shadow")
def run_shadow(
    bundle: Annotated[str | None, typer.Argument(help=BUNDLE_HELP)] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Run no bundle in shadow from now on.")] = False,
    reason: Reason = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Run a bundle on every study beside the active one: no report, no priority, only `model compare`."""
    if stop == (bundle is not None):
        raise typer.BadParameter("name a bundle, or give --stop")
    configuration, registry = open_registry(config)
    if bundle is None:
        stopped = registry.stop_shadow(_order(reason))
        _say(json, f"no bundle runs in shadow; {stopped} did", bundle=None, previous=stopped)
        return
    model = put_in_shadow(configuration, registry, bundle, reason)
    _say(json, f"{model.id} runs in shadow as soon as the worker has loaded it", bundle=model.id)


@app.command()
def activate(
    bundle: Annotated[str, typer.Argument(help=BUNDLE_HELP)],
    force: Annotated[bool, typer.Option("--force", help="Even without an evaluation record; needs --reason.")] = False,
    reason: Reason = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Make a bundle the one that reports. Refused without the record of an evaluation; the change is kept on record."""
    if force and not reason:
        raise typer.BadParameter("--force needs --reason TEXT: the change is kept on record")
    configuration, registry = open_registry(config)
    manifest = _checked(configuration, registry, bundle)
    digest = _evaluation(_folder(registry, bundle), manifest.id, force)
    order = _order(reason, forced=digest is None, evaluation=digest)
    registry.activate_model(manifest.id, _first(configuration, registry), order)
    held = hold_reason(identity_of(manifest), configuration.model.allow_nonclinical)
    words = f"{manifest.id} is active as soon as the worker has loaded it" + (f"; {held}" if held else "")
    _say(json, words, bundle=manifest.id, forced=digest is None, evaluation=digest)


@app.command()
def rollback(reason: Reason = None, config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Go back to the bundle that was active before."""
    _, registry = open_registry(config)
    before = registry.rollback_model(_order(reason))
    _say(json, f"{before} is active again as soon as the worker has loaded it", bundle=before)


@app.command()
def history(config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Who changed which bundle is in use, when and why; newest first."""
    _, registry = open_registry(config)
    changes = registry.model_changes()
    if json:
        print_json([asdict(change) | {"at": utc(change.at)} for change in changes])
        return
    table = Table("at (UTC)", "change", "bundle", "before", "who", "evaluation", "reason", box=None)
    for change in changes:
        evaluation = "forced" if change.forced else (change.evaluation or "")[:12]
        row = (utc(change.at), change.action, change.bundle_id, change.previous, change.who, evaluation, change.reason)
        table.add_row(*(value or "" for value in row))
    result.print(table if changes else "no changes")


@app.command("compare")
def compare_bundles(config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Hold the shadow against the active bundle on the studies that both ran on."""
    configuration, registry = open_registry(config)
    chosen = registry.chosen_models()
    active = chosen.active.bundle_id if chosen.active else _first(configuration, registry)
    if chosen.shadow is None or active is None:
        raise PermanentError("no bundle runs in shadow; `dicom-node model shadow DIR` begins")
    shadow = chosen.shadow.bundle_id
    compared = {"active": active, "shadow": shadow, "failures": registry.shadow_failures(shadow)}
    compared |= compare(registry.pairs(active, shadow))
    if json:
        print_json(compared)
    else:
        _show_comparison(compared)


@app.command("list")
def list_bundles(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of bundles; the configured bundle's folder when left out.")
    ] = None,
    config: OptionalConfigFile = None,
    json: Json = False,
) -> None:
    """List the bundles beside the configured one and those the node was told of, or those in a folder.

    Reads their manifests; `model verify` checks more.
    """
    configuration = None
    if config is not None or folder is None:
        configuration = load_configuration(config or DEFAULT_CONFIG)
    configured = configuration.model.bundle if configuration else None
    known = {model.path.resolve(): model for model in _known(configuration)} if configuration else {}
    told = [] if folder else [path for path in known if path not in {one.resolve() for one in _beside(configured)}]
    activated = any(model.role is ModelRole.ACTIVE for model in known.values())
    first = None if activated or configured is None else configured.resolve()
    found = [_entry(path, first, known.get(path.resolve())) for path in sorted([*_bundles(folder, configured), *told])]
    if json:
        print_json(found)
    else:
        result.print(_table(found) if found else "no bundles")


def put_in_shadow(configuration: Configuration, registry: Registry, bundle: str, reason: str | None) -> BundleManifest:
    """Check a bundle (its folder or its id) and make it the shadow, on record.

    Raises BundleError, ConfigurationError when it does not fit the site, PermanentError when it is the active one.
    """
    model = _checked(configuration, registry, bundle)
    registry.shadow_model(model.id, _first(configuration, registry), _order(reason))
    return model


def _checked(configuration: Configuration, registry: Registry, bundle: str) -> BundleManifest:
    """The manifest of a bundle that is whole and fits the site; the registry knows it from then on."""
    from prima_core.bundle import load_bundle

    folder = _folder(registry, bundle)
    with _working("checking every file and tensor"):
        manifest = load_bundle(folder).manifest
    check_fits(configuration, manifest)
    registry.know_model(identity_of(manifest), folder)
    return manifest


def _folder(registry: Registry, bundle: str) -> Path:
    """The folder that a person means, by its path or the bundle's id."""
    known = {model.bundle_id: model.path for model in registry.models()}
    return known.get(bundle) or Path(bundle).absolute()


def _first(configuration: Configuration, registry: Registry) -> str | None:
    """What is active while nobody has activated anything: what the worker ran last, else the configured bundle."""
    ran, configured = registry.chosen_models().ran, configuration.model.bundle
    if ran is not None:
        return ran.bundle_id
    try:
        manifest = read_manifest(configured) if configured else None
    except BundleError:
        return None
    if configured is None or manifest is None:
        return None
    registry.know_model(identity_of(manifest), configured)
    return manifest.id


def _evaluation(folder: Path, bundle_id: str, force: bool) -> str | None:
    """The digest of the bundle's evaluation record; None when it is forced without one. Raises PermanentError."""
    try:
        return read_evaluation(folder, bundle_id).digest
    except PermanentError as error:
        if force:
            return None
        raise PermanentError(f"{error}; evaluate the bundle, or give --force --reason TEXT") from error


def _order(reason: str | None, *, forced: bool = False, evaluation: str | None = None) -> Order:
    """By the user of the operating system that runs this command, and the one behind `sudo`."""
    try:
        who = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        who = f"user {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return Order(who + (f" (sudo by {behind})" if behind else ""), time.time(), reason, forced, evaluation)


def _say(json: bool, words: str, **document: Any) -> None:
    if json:
        print_json(document)
    else:
        result.print(words)


def _known(configuration: Configuration) -> list[KnownModel]:
    """What the registry says of bundles; nothing before the node was started for the first time."""
    try:
        check_schema(configuration.node.database_url)
    except ConfigurationError:
        return []
    return Registry(configuration.node.database_url).models()


def _bundles(folder: Path | None, configured: Path | None) -> list[Path]:
    """Sub-folders with a manifest; without a folder of one's own the configured bundle too, whatever is there."""
    if folder is None:
        return _beside(configured)
    if not folder.is_dir():
        raise PermanentError(f"no folder {folder}")
    return sorted(_with_manifest(folder))


def _beside(configured: Path | None) -> list[Path]:
    if configured is None:
        return []
    beside = _with_manifest(configured.parent) if configured.parent.is_dir() else []
    return sorted({configured, *beside})


def _with_manifest(folder: Path) -> list[Path]:
    # A name that begins with a dot is a bundle still being written.
    return [path for path in folder.iterdir() if not path.name.startswith(".") and (path / MANIFEST).exists()]


def _entry(path: Path, first: Path | None, known: KnownModel | None) -> dict[str, Any]:
    """first: the bundle that is active because nobody has activated another."""
    role = ModelRole.ACTIVE if path.resolve() == first else known.role if known else None
    entry = {
        "id": None,
        "training_state": None,
        "device_uid": None,
        "path": str(path),
        "active": role is ModelRole.ACTIVE,
        "role": role,
        "loaded_as": known.loaded_as if known else None,
        "problem": known.problem if known else None,
    }
    try:
        manifest = read_manifest(path)
    except BundleError as error:
        return entry | {"problem": str(error)}
    return entry | {"id": manifest.id, "training_state": manifest.training_state, "device_uid": manifest.device_uid}


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table("role", "loaded as", "bundle", "training", "folder", "problem", box=None)
    for entry in found:
        keys = ("role", "loaded_as", "id", "training_state", "path", "problem")
        table.add_row(*(entry[key] for key in keys))
    return table


def _show_comparison(compared: dict[str, Any]) -> None:
    result.print(f"active {compared['active']}, shadow {compared['shadow']}: {compared['studies']} studies")
    for failure, count in compared["failures"].items():
        result.print(f"  the shadow said nothing of {count}: {failure}")
    if not compared["studies"]:
        return
    table = Table("finding", "both", "only active", "only shadow", "agreement", "kappa", "correlation", box=None)
    for item in compared["diagnosis"] + compared["referral"]:
        counts = (str(item[key]) for key in ("both", "only_active", "only_shadow"))
        table.add_row(item["name"], *counts, *(_number(item[key]) for key in ("agreement", "kappa", "correlation")))
    result.print(table)
    priority = compared["priority"]
    result.print(f"priority: agreement {_number(priority['agreement'])}, kappa {_number(priority['kappa'])}")
    for level, said in priority["confusion"].items():
        if any(said.values()):
            words = ", ".join(f"{count} {other}" for other, count in said.items() if count)
            result.print(f"  active {level}: in shadow {words}")
    for one in compared["disagreements"]:
        result.print(f"  {one['study']}  {one['name']}: active {one['active']:+.3f}, shadow {one['shadow']:+.3f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


@contextmanager
def _working(words: str) -> Iterator[None]:
    """A moving bar and the time gone by, for work whose end is not known."""
    with progress() as bar:
        bar.add_task(words, total=None)
        yield
