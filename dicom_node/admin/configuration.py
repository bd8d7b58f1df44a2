"""`config check`, `config show`."""

from __future__ import annotations

import typer

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile
from dicom_node.admin.output import Json, print_json, result
from dicom_node.base.config import load_configuration
from dicom_node.certificates import check_certificates
from dicom_node.service import configured_bundle

app = typer.Typer(help="Check and show the configuration.")


@app.command()
def check(config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Check the file, its certificates and its model bundle; exit code 2 and the key's name when something is wrong."""
    loaded = load_configuration(config)
    check_certificates(loaded)
    manifest = configured_bundle(loaded)
    bundle = {"id": manifest.id, "training_state": manifest.training_state} if manifest else None
    if json:
        print_json({"ok": True, "config": str(config), "digest": loaded.digest, "bundle": bundle})
    else:
        result.print(f"{config}: correct" + ("" if bundle else "; model.bundle is not set: `serve` needs one"))


@app.command()
def show(config: ConfigFile = DEFAULT_CONFIG, json: Json = False) -> None:
    """Print the effective configuration as JSON, defaults included and the database's password hidden."""
    print_json(load_configuration(config).shown())
