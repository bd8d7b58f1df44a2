"""Where a study model starts from: name encoder and sequence ViT of an earlier stage, or all of a bundle's."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from prima_core.bundle import Bundle
from training.base.checkpoint import done, finish, write_weights
from training.base.errors import BadTrainingData

START, BODY = "start.safetensors", "study_model.safetensors"
PARTS = ("series_name", "sequence_vit")


def write_start(folder: Path, module: nn.Module) -> None:
    """module: has both parts by their names in `prima_core.prima.Prima`."""
    state = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(PARTS)}
    write_weights(folder / START, state)


def start_of(bundle: Bundle, folder: Path) -> Path:
    """A bundle's whole study model as a stage to start from; returns `folder`. Raises NoSpace."""
    folder.mkdir(exist_ok=True)
    write_weights(folder / START, load_file(bundle.directory / BODY))
    finish(folder, {"bundle": bundle.manifest.id}, (START,), {})
    return folder


def read_start(folder: Path) -> dict[str, Tensor]:
    """What a stage wrote. Raises BadTrainingData where it has not ended."""
    if START not in done(folder)["files"]:
        raise BadTrainingData(f"{folder}: made by an earlier release; delete the folder and train the stage again")
    return load_file(folder / START)


def begin_from(module: nn.Module, folder: Path) -> None:
    """Put what a stage wrote into a module that has both parts. Raises BadTrainingData where it does not fit."""
    state = read_start(folder)
    try:
        strange = module.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:
        raise BadTrainingData(f"{folder}: made for another architecture") from error
    missing = [name for name in module.state_dict() if name.startswith(PARTS) and name not in state]
    if strange or missing:
        raise BadTrainingData(f"{folder}: made for another architecture")
