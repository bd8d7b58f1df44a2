"""What a stage keeps on disk: checkpoints to resume from, weights, and done.json, which is written last.

Everything is safetensors and JSON, nothing is ever unpickled. Every file appears whole under its name or not at all
(temporary file, fsync, rename), so a kill at any moment leaves what was there before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.base.errors import BadTrainingData, NoSpace, NotConverging

CHECKPOINT, BEST, DONE = "checkpoint.safetensors", "best.safetensors", "done.json"
FULL = {errno.ENOSPC, errno.EDQUOT}

State = Mapping[str, Tensor]


def is_writer() -> bool:
    """Whether this process writes files: of several that train together (torchrun's RANK) the first one does."""
    return os.environ.get("RANK", "0") == "0"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a temporary file beside `path`, fsync it, then give it the name. Raises NoSpace."""
    if not is_writer():
        return
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        _fsync(scratch)
        scratch.replace(path)
        _fsync(path.parent)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        raise no_space(error, path) or error from error


def no_space(error: Exception, path: Path) -> NoSpace | None:
    """NoSpace if this is what `error` means. safetensors reports it as text only."""
    if getattr(error, "errno", None) in FULL or any(f"os error {number}" in str(error) for number in FULL):
        return NoSpace(f"{path}: the disk is full; make room and start the command again, it resumes")
    return None


def write_json(path: Path, document: Any) -> None:
    """Raises NoSpace."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda scratch: scratch.write_text(text, "utf-8"))


def write_weights(path: Path, state: State, facts: Mapping[str, str] | None = None) -> None:
    """A safetensors file of `state`. Raises NotConverging when a weight is not finite, NoSpace."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotConverging(f"{name}: holds values that are not finite; train again with a lower learning rate")
    # Copies: tied weights share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    write_whole(path, lambda scratch: save_file(tensors, scratch, metadata=dict(facts or {})))


def save_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
    """All that a run needs to go on; the previous one stays until this one is whole. Raises NoSpace, NotConverging."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    write_weights(path, tensors, {"facts": json.dumps(facts)})


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Put module and optimizer back to where `path` left them and return its facts; None where there is no file."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as opened:
            facts: dict[str, Any] = json.loads(opened.metadata()["facts"])
        tensors = load_file(path)
        module.load_state_dict({name.removeprefix("module."): tensors[name] for name in _under(tensors, "module.")})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise BadTrainingData(f"{path}: not a checkpoint of this stage; delete it to start again ({error})") from error
    values: dict[int, dict[str, Tensor]] = {}
    for name in _under(tensors, "optimizer."):
        _, index, key = name.split(".", 2)
        values.setdefault(int(index), {})[key] = tensors[name]
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    return facts


def must_agree(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises BadTrainingData that names the first setting in which `path` differs from what is asked for."""
    here = json.loads(json.dumps(here))
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key):
            raise BadTrainingData(
                f"{path}: made with {key} = {there.get(key)!r}, now {here.get(key)!r}; "
                "delete the stage's folder or use another run folder"
            )


def finish(folder: Path, settings: Mapping[str, Any], files: Iterable[str], figures: Mapping[str, Any]) -> None:
    """Write done.json, the last file of a stage: settings, SHA-256 of its files, and what it reports of itself."""
    if is_writer():
        hashes = {name: sha256(folder / name) for name in files}
        write_json(folder / DONE, {"settings": dict(settings), "files": hashes, "figures": dict(figures)})
        for name in (CHECKPOINT, BEST):
            (folder / name).unlink(missing_ok=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def finished(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of a stage that is done, None where it is not.

    Raises BadTrainingData when it was done with other settings, or a file is no longer what was written.
    """
    if not (folder / DONE).exists():
        return None
    document = done(folder)
    must_agree(folder / DONE, document["settings"], settings)
    return dict(document["figures"])


def done(folder: Path) -> dict[str, Any]:
    """The done.json of a stage: its settings, files and figures.

    Raises BadTrainingData when the stage has not ended, or a file is no longer what was written.
    """
    path = folder / DONE
    try:
        document = json.loads(path.read_text("utf-8"))
        files = dict(document["files"])
        _ = document["settings"], document["figures"]
    except FileNotFoundError as error:
        raise BadTrainingData(f"{folder}: this stage has not ended; start its command again, it resumes") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadTrainingData(f"{path}: not a stage's done.json") from error
    for name, digest in files.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise BadTrainingData(f"{folder / name}: missing or altered since the stage ended; delete {folder}")
    return document  # type: ignore[no-any-return]


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _under(tensors: State, prefix: str) -> list[str]:
    return [name for name in tensors if name.startswith(prefix)]


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
