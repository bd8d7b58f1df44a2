"""A model bundle on disk: a folder of `bundle.json` and `*.safetensors`, checked in full before anything runs.

    bundle.json            who the model is, its architecture, labels, thresholds, calibration, SHA-256 of every file
    tokenizer.safetensors  the VQ-VAE encoder       study_model.safetensors  both ViTs and the name encoders
    heads_NN.safetensors   one MLP each

Identity: `id` and `device_uid` are derived from the hashes of the weights and from everything in the manifest that
decides a result, so no two models that answer differently share them and an edited manifest is noticed. The text
tower is not part of a bundle (`text_tower` says so): inference does not need it.

`read_manifest` needs no torch, so that receivers, reports and the command line can say which model they speak of.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prima_core.base.config import TASKS, Architecture, from_json, to_json
from prima_core.base.errors import BundleError

if TYPE_CHECKING:
    from prima_core.prima import Prima

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
TRAINING_STATES = ("untrained", "phantom", "clinical")
THRESHOLD_TASKS = ("diagnosis", "referral")
KEYS = {
    *("schema_version", "name", "version", "id", "device_uid", "training_state", "text_tower"),
    *("architecture", "labels", "thresholds", "calibration", "files"),
}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Weights = npt.NDArray[np.float32]
Thresholds = Mapping[str, Mapping[str, float]]
Calibration = Mapping[str, float | None]


@dataclass(frozen=True)
class BundleManifest:
    """Who the model is and what it answers.

    labels: outputs of each task, in the heads' order. thresholds: of each diagnosis and referral, in logits.
    calibration: per task a temperature that turns logits into probabilities, or None where nobody has fitted one.
    device_uid: 2.25.<integer>, names the model as a device in DICOM (PS3.5 B.2).
    files: SHA-256 of every file. sha256: of the manifest itself, as it was read.
    """

    name: str
    version: str
    id: str
    device_uid: str
    training_state: str
    architecture: Architecture
    labels: Mapping[str, tuple[str, ...]]
    thresholds: Thresholds
    calibration: Calibration
    files: Mapping[str, str]
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were found whole and unaltered."""

    directory: Path
    manifest: BundleManifest


def read_manifest(directory: Path) -> BundleManifest:
    """The manifest of a bundle, checked by itself; the weights are not touched. Raises BundleError."""
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
        document = json.loads(
            content.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant
        )
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a bundle manifest: {error}") from error
    return _parse(document, hashlib.sha256(content).hexdigest())


def load_bundle(directory: Path) -> Bundle:
    """The bundle in `directory`, after checking every file's hash and every tensor's name, shape and dtype.

    Raises BundleError that names what is missing, left over, altered or not to be read.
    """
    manifest = read_manifest(directory)
    if stray := sorted({path.name for path in directory.glob("*.safetensors")} - set(manifest.files)):
        raise BundleError(f"{stray[0]}: not listed in {MANIFEST}")
    for name, digest in manifest.files.items():
        path = directory / name
        try:
            if path.is_symlink() or not path.is_file():
                raise BundleError(f"{name}: missing")
            same = _file_sha256(path) == digest
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}") from error
        if not same:
            raise BundleError(f"{name}: SHA-256 differs from {MANIFEST}: the file was altered or copied incompletely")
    _check_tensors(directory, manifest)
    return Bundle(directory, manifest)


def build_model(bundle: Bundle, device: str = "auto", precision: str = "auto") -> Prima:
    """The bundle's model, ready to predict on `device` in `precision` (names as in `base.device.resolve`).

    Raises BundleError when a weight is not finite, ValueError for an unknown device or precision.
    """
    import torch
    from safetensors.torch import load_file

    from prima_core.base.device import resolve
    from prima_core.prima import Prima

    runtime = resolve(device, precision)
    with torch.device("meta"):
        model = Prima(bundle.manifest.architecture, bundle.manifest.thresholds)
    state: dict[str, torch.Tensor] = {}
    for name in bundle.manifest.files:
        state.update(load_file(bundle.directory / name))
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise BundleError(f"{name}: holds values that are not finite")
    model.load_state_dict(state, assign=True)
    return model.place(runtime)


def write_bundle(
    directory: Path,
    *,
    name: str,
    version: str,
    training_state: str,
    architecture: Architecture,
    thresholds: Thresholds,
    calibration: Calibration,
    weights: Callable[[str], npt.NDArray[Any]],
) -> Bundle:
    """Write a bundle atomically: all of it appears under `directory`, or nothing.

    weights: gives the tensor of a name (the keys of `expected_tensors`); one file's tensors are held at a time.
    Raises BundleError when something does not fit, or when `directory` exists and is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BundleError(f"{directory} exists already: choose a folder that does not")
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        document = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "version": version,
            "training_state": training_state,
            "text_tower": "absent",
            "architecture": to_json(architecture),
            "labels": {task: list(architecture.labels(task)) for task in TASKS},
            "thresholds": {task: dict(thresholds.get(task, {})) for task in THRESHOLD_TASKS},
            "calibration": {task: calibration.get(task) for task in TASKS},
            "files": _write_weights(scratch, architecture, weights),
        }
        identity = _identity(document)
        document |= {"id": _bundle_id(name, identity), "device_uid": _device_uid(identity)}
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (scratch / MANIFEST).write_text(text + "\n", "utf-8")
        _check_tensors(scratch, read_manifest(scratch))
        for path in (*scratch.iterdir(), scratch):
            _fsync(path)
        scratch.chmod(0o755)
        scratch.replace(directory)
        _fsync(directory.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return Bundle(directory, read_manifest(directory))


def expected_tensors(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a model of this architecture."""
    import torch

    from prima_core.prima import Prima

    with torch.device("meta"):
        state = Prima(architecture, {}).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _file_of(tensor: str) -> str:
    part, *rest = tensor.split(".")
    if part == "heads":
        return f"heads_{int(rest[1]):02d}.safetensors"
    return "tokenizer.safetensors" if part == "tokenizer" else "study_model.safetensors"


def _write_weights(
    scratch: Path, architecture: Architecture, weights: Callable[[str], npt.NDArray[Any]]
) -> dict[str, str]:
    tensors_of: dict[str, list[str]] = {}
    for tensor in expected_tensors(architecture):
        tensors_of.setdefault(_file_of(tensor), []).append(tensor)
    for file, tensors in tensors_of.items():
        save_file({name: np.ascontiguousarray(weights(name), np.float32) for name in tensors}, scratch / file)
    return {file: _file_sha256(scratch / file) for file in tensors_of}


def _check_tensors(directory: Path, manifest: BundleManifest) -> None:
    expected = expected_tensors(manifest.architecture)
    for file in manifest.files:
        try:
            with safe_open(directory / file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                    header = opened.get_slice(name)
                    _check_tensor(file, name, tuple(header.get_shape()), header.get_dtype(), expected)
        except SafetensorError as error:
            raise BundleError(f"{file}: not a safetensors file: {error}") from error
    if expected:
        raise BundleError(f"tensor {min(expected)} is missing")


def _check_tensor(
    file: str, name: str, shape: tuple[int, ...], dtype: str, expected: dict[str, tuple[int, ...]]
) -> None:
    """Ticks `name` off the expected tensors."""
    if name not in expected:
        raise BundleError(f"{file}: tensor {name} is unknown to the architecture, or there twice")
    if shape != expected[name]:
        raise BundleError(f"{file}: tensor {name} has shape {shape}, the architecture says {expected[name]}")
    if dtype != "F32":
        raise BundleError(f"{file}: tensor {name} is {dtype}, not F32")
    del expected[name]


def _parse(document: object, sha256: str) -> BundleManifest:
    if not isinstance(document, dict):
        raise BundleError(f"{MANIFEST}: expected an object")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(f"{MANIFEST}: schema_version is not {SCHEMA_VERSION}; this release cannot read it")
    if odd := sorted(KEYS ^ set(document)):
        raise BundleError(f"{MANIFEST}: {'missing' if odd[0] in KEYS else 'unknown'} key {odd[0]!r}")
    for key in ("name", "version", "id", "device_uid"):
        if not isinstance(document[key], str) or not document[key]:
            raise BundleError(f"{MANIFEST}: {key} is not a text")
    if document["training_state"] not in TRAINING_STATES:
        raise BundleError(f"{MANIFEST}: training_state is none of {', '.join(TRAINING_STATES)}")
    if document["text_tower"] != "absent":
        raise BundleError(f"{MANIFEST}: text_tower is not 'absent'; this release cannot read it")
    architecture = from_json(Architecture, document["architecture"], "architecture")
    labels = _by_task(document["labels"], TASKS, "labels")
    for task in TASKS:
        if labels[task] != list(architecture.labels(task)):
            raise BundleError(f"{MANIFEST}: labels.{task} differ from the heads' outputs")
    manifest = BundleManifest(
        name=document["name"],
        version=document["version"],
        id=document["id"],
        device_uid=document["device_uid"],
        training_state=document["training_state"],
        architecture=architecture,
        labels={task: tuple(labels[task]) for task in TASKS},
        thresholds=_parse_thresholds(document["thresholds"], architecture),
        calibration=_parse_calibration(document["calibration"]),
        files=_parse_files(document["files"]),
        sha256=sha256,
    )
    identity = _identity(document)
    if (manifest.id, manifest.device_uid) != (_bundle_id(manifest.name, identity), _device_uid(identity)):
        raise BundleError(f"{MANIFEST}: id and device_uid do not belong to this content: the manifest was altered")
    return manifest


def _by_task(value: object, tasks: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(tasks):
        raise BundleError(f"{MANIFEST}: {where} needs exactly the keys {', '.join(tasks)}")
    return value


def _parse_thresholds(value: object, architecture: Architecture) -> Thresholds:
    thresholds = _by_task(value, THRESHOLD_TASKS, "thresholds")
    for task, by_name in thresholds.items():
        if not isinstance(by_name, dict) or set(by_name) != set(architecture.labels(task)):
            raise BundleError(f"{MANIFEST}: thresholds.{task} and its labels differ")
        for name, threshold in by_name.items():
            _finite(threshold, f"thresholds.{task}.{name}")
    return thresholds


def _parse_calibration(value: object) -> Calibration:
    calibration = _by_task(value, TASKS, "calibration")
    for task, temperature in calibration.items():
        if temperature is not None and _finite(temperature, f"calibration.{task}") <= 0:
            raise BundleError(f"{MANIFEST}: calibration.{task} is not above 0")
    return calibration


def _finite(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BundleError(f"{MANIFEST}: {where} is not a finite number")
    return value


def _parse_files(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise BundleError(f"{MANIFEST}: files is not a list of hashes")
    for name, digest in value.items():
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(f"{MANIFEST}: files: {name!r} is not the plain name of a safetensors file")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise BundleError(f"{MANIFEST}: files.{name} is not a SHA-256")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _identity(document: Mapping[str, Any]) -> bytes:
    """SHA-256 over all that decides a result: the weights' hashes and the manifest but for its names."""
    content = {key: document[key] for key in KEYS - {"id", "device_uid", "name", "version"}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _bundle_id(name: str, identity: bytes) -> str:
    return f"{name}-{identity.hex()[:12]}"


def _device_uid(identity: bytes) -> str:
    """A UUID-derived UID (PS3.5 B.2) from the first 16 bytes, marked as a version 8 UUID (RFC 9562)."""
    uuid = int.from_bytes(identity[:16]) & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return f"2.25.{uuid}"


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
