"""Where a study model starts from: name encoder and sequence ViT that an earlier stage has trained on single series."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from training.base.checkpoint import done, write_weights
from training.base.errors import BadTrainingData

START = "start.safetensors"
PARTS = ("series_name", "sequence_vit")


def write_start(folder: Path, module: nn.Module) -> None:
    """module: has both parts by their names in `prima_core.prima.Prima`."""
    parts = {part: getattr(module, part).state_dict() for part in PARTS}
    write_weights(folder / START, {f"{part}.{name}": tensor for part in PARTS for name, tensor in parts[part].items()})


def read_start(folder: Path) -> dict[str, Tensor]:
    """What a stage wrote. Raises BadTrainingData where it has not ended."""
    done(folder)
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
