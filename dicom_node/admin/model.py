"""`model …`: bundles on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dicom_node.admin.options import DEFAULT_CONFIG, OptionalConfigFile
from dicom_node.admin.output import Json, print_json, progress, result
from dicom_node.base.config import load_configuration
from dicom_node.base.errors import PermanentError
from prima_core.base.errors import BundleError
from prima_core.bundle import MANIFEST, read_manifest

app = typer.Typer(help="Make, list and check model bundles.")


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


@app.command("list")
def list_bundles(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of bundles; the configured bundle's folder when left out.")
    ] = None,
    config: OptionalConfigFile = None,
    json: Json = False,
) -> None:
    """List the bundles beside the configured one, or in a folder. Reads their manifests; `model verify` checks more."""
    configured = None
    if config is not None or folder is None:
        configured = load_configuration(config or DEFAULT_CONFIG).model.bundle
    found = [_entry(path, configured) for path in _bundles(folder, configured)]
    if json:
        print_json(found)
    else:
        result.print(_table(found) if found else "no bundles")


def _bundles(folder: Path | None, configured: Path | None) -> list[Path]:
    """Sub-folders with a manifest; without a folder of one's own the configured bundle too, whatever is there."""
    if folder is None:
        if configured is None:
            return []
        beside = _with_manifest(configured.parent) if configured.parent.is_dir() else []
        return sorted({configured, *beside})
    if not folder.is_dir():
        raise PermanentError(f"no folder {folder}")
    return sorted(_with_manifest(folder))


def _with_manifest(folder: Path) -> list[Path]:
    # A name that begins with a dot is a bundle still being written.
    return [path for path in folder.iterdir() if not path.name.startswith(".") and (path / MANIFEST).exists()]


def _entry(path: Path, configured: Path | None) -> dict[str, Any]:
    entry = {
        "id": None,
        "training_state": None,
        "device_uid": None,
        "path": str(path),
        "active": configured is not None and path.resolve() == configured.resolve(),
        "problem": None,
    }
    try:
        manifest = read_manifest(path)
    except BundleError as error:
        return entry | {"problem": str(error)}
    return entry | {"id": manifest.id, "training_state": manifest.training_state, "device_uid": manifest.device_uid}


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table("active", "bundle", "training", "folder", "problem", box=None)
    for entry in found:
        active = "*" if entry["active"] else ""
        table.add_row(active, entry["id"], entry["training_state"], entry["path"], entry["problem"])
    return table


@contextmanager
def _working(words: str) -> Iterator[None]:
    """A moving bar and the time gone by, for work whose end is not known."""
    with progress() as bar:
        bar.add_task(words, total=None)
        yield
