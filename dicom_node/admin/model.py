"""`model …`: bundles on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.admin.output import Json, notes, print_json, result
from prima_core.bundle import read_manifest

app = typer.Typer(help="Make and check model bundles.")


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

    with notes.status("reading the checkpoint"):
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

    manifest = load_bundle(bundle).manifest
    if json:
        print_json({"id": manifest.id, "training_state": manifest.training_state, "device_uid": manifest.device_uid})
    else:
        result.print(f"{bundle}: bundle {manifest.id} ({manifest.training_state}) is whole")
