"""A bundle on disk: round trip, identity, and every way in which it may be broken, refused by name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prima_core import bundle as bundle_module
from prima_core.base.config import Architecture
from prima_core.base.errors import BundleError
from prima_core.bundle import (
    MANIFEST,
    _bundle_id,
    _device_uid,
    _file_sha256,
    _identity,
    build_model,
    load_bundle,
    read_manifest,
    write_bundle,
)
from prima_core.random_weights import DIAGNOSES, demo, write_random_bundle

HEADS = "heads_00.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("sound") / "bundle", demo()).directory


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def document(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_text("utf-8"))


def seal(folder: Path, changed: dict[str, Any]) -> None:
    """Write a manifest whose hashes and identity are right, so that only the fault under test is left."""
    for name in changed.get("files", {}):
        if (folder / name).is_file():
            changed["files"][name] = _file_sha256(folder / name)
    try:
        identity = _identity(changed)
        changed |= {"id": _bundle_id(changed["name"], identity), "device_uid": _device_uid(identity)}
    except KeyError:
        pass
    (folder / MANIFEST).write_text(json.dumps(changed), "utf-8")


def test_round_trip(sound: Path) -> None:
    bundle = load_bundle(sound)
    assert bundle.manifest.architecture == demo()
    assert bundle.manifest.training_state == "untrained"
    assert bundle.manifest.labels["diagnosis"] == DIAGNOSES
    assert bundle.manifest.calibration == {"diagnosis": None, "referral": None, "priority": None}
    model = build_model(bundle, "cpu", "fp32")
    for name, values in load_file(sound / HEADS).items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), values)
    assert document(sound)["text_tower"] == "absent"
    assert bundle.manifest.sha256 == hashlib.sha256((sound / MANIFEST).read_bytes()).hexdigest()


def test_a_manifest_is_read_without_torch(sound: Path) -> None:
    script = "import sys, pathlib; from prima_core.bundle import read_manifest; "
    script += f"read_manifest(pathlib.Path({str(sound)!r})); print('torch' in sys.modules, 'monai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_identity_follows_the_weights_and_the_thresholds(sound: Path, tmp_path: Path) -> None:
    manifest = read_manifest(sound)
    again = write_random_bundle(tmp_path / "again", demo()).manifest
    other = write_random_bundle(tmp_path / "other", demo(), seed=1).manifest
    fewer = write_random_bundle(tmp_path / "fewer", demo(diagnoses=DIAGNOSES[:3])).manifest
    assert (again.id, again.device_uid, again.files) == (manifest.id, manifest.device_uid, manifest.files)
    assert len({one.device_uid for one in (manifest, other, fewer)}) == 3
    root, integer = manifest.device_uid[:5], manifest.device_uid[5:]
    assert root == "2.25."
    assert 0 < int(integer) < 2**128
    assert len(manifest.device_uid) <= 64


def drop(key: str) -> Callable[[Any], None]:
    return lambda manifest: manifest.pop(key)


def put(path: str, value: Any) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        *parents, last = path.split("/")
        for name in parents:
            manifest = manifest[name]
        manifest[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema_version", 2), "schema_version is not 1"),
        (put("surprise", 1), "unknown key 'surprise'"),
        (drop("labels"), "missing key 'labels'"),
        (put("training_state", "excellent"), "training_state"),
        (put("text_tower", "gpt2"), "text_tower"),
        (put("name", ""), "name is not a text"),
        (put("labels/diagnosis", ["glioma"]), "labels.diagnosis differ"),
        (put("labels/prognosis", []), "labels needs exactly"),
        (put("thresholds/diagnosis", {}), "thresholds.diagnosis and its labels differ"),
        (put("thresholds/referral/neurology", True), "thresholds.referral.neurology is not a finite number"),
        (put("calibration/diagnosis", 0), "calibration.diagnosis is not above 0"),
        (put("architecture/study_vit/depth", 9), "architecture.study_vit: unknown key 'depth'"),
        (put("files", {}), "files is not a list"),
        (put("files/..%2fx.safetensors", "0" * 64), "not the plain name"),
        (put("files/tokenizer.safetensors", "abc"), "not a SHA-256"),
    ],
)
def test_a_manifest_that_deviates_is_refused(copy: Path, change: Callable[[Any], None], message: str) -> None:
    changed = document(copy)
    change(changed)
    (copy / MANIFEST).write_text(json.dumps(changed), "utf-8")
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/w.safetensors", "a/b.safetensors", ".safetensors", "w.pt"])
def test_file_names_cannot_leave_the_folder(copy: Path, name: str) -> None:
    changed = document(copy)
    changed["files"][name] = "0" * 64
    seal(copy, changed)
    with pytest.raises(BundleError, match="not the plain name"):
        read_manifest(copy)


def test_a_link_is_no_file_of_the_bundle(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / HEADS, tmp_path / HEADS)
    (copy / HEADS).symlink_to(tmp_path / HEADS)
    with pytest.raises(BundleError, match=f"{HEADS}: missing"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training_state", "clinical"),
        ("device_uid", "2.25.1"),
        ("id", "random-000000000000"),
    ],
)
def test_an_edited_manifest_is_noticed(copy: Path, key: str, value: str) -> None:
    changed = document(copy)
    changed[key] = value
    (copy / MANIFEST).write_text(json.dumps(changed), "utf-8")
    with pytest.raises(BundleError, match="the manifest was altered"):
        read_manifest(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object"),
        ("{", "not a bundle manifest"),
        ('{"name": "a", "name": "b"}', "a key is there twice"),
        ('{"name": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "not a bundle manifest"),
    ],
)
def test_text_that_is_no_manifest_is_refused(copy: Path, text: str, message: str) -> None:
    (copy / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(BundleError, match=message):
        read_manifest(copy)


def test_missing_files_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(tmp_path / "nothing")
    (copy / HEADS).unlink()
    with pytest.raises(BundleError, match=f"{HEADS}: missing"):
        load_bundle(copy)


def test_an_altered_weight_is_named(copy: Path) -> None:
    data = bytearray((copy / HEADS).read_bytes())
    data[-1] ^= 1
    (copy / HEADS).write_bytes(data)
    with pytest.raises(BundleError, match=f"{HEADS}: SHA-256 differs"):
        load_bundle(copy)


def test_a_file_that_cannot_be_read_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("hashlib.file_digest", refuse)
    with pytest.raises(BundleError, match=r"\.safetensors: Permission denied"):
        load_bundle(copy)


def test_a_file_that_nobody_lists_is_refused(copy: Path) -> None:
    shutil.copy(copy / HEADS, copy / "more.safetensors")
    with pytest.raises(BundleError, match=r"more.safetensors: not listed"):
        load_bundle(copy)


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / HEADS)
    change(tensors)
    save_file(tensors, folder / HEADS)
    seal(folder, document(folder))


LAST = "heads.mlps.0.layers.2.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(LAST), f"tensor {LAST} is missing"),
        (lambda tensors: tensors.update(extra=np.zeros(1, np.float32)), "tensor extra is unknown"),
        (lambda tensors: tensors.update({LAST: tensors[LAST][:-1]}), f"tensor {LAST} has shape"),
        (lambda tensors: tensors.update({LAST: tensors[LAST].astype(np.float64)}), f"tensor {LAST} is F64"),
    ],
)
def test_tensors_must_be_those_of_the_architecture(
    copy: Path, change: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    rewrite(copy, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_a_tensor_in_two_files_is_refused(copy: Path) -> None:
    changed = document(copy)
    save_file({LAST: load_file(copy / HEADS)[LAST]}, copy / "twice.safetensors")
    changed["files"]["twice.safetensors"] = ""
    seal(copy, changed)
    with pytest.raises(BundleError, match="there twice"):
        load_bundle(copy)


def test_a_file_that_is_no_safetensors_is_refused(copy: Path) -> None:
    (copy / HEADS).write_bytes(b"\xff" * 64)
    seal(copy, document(copy))
    with pytest.raises(BundleError, match=f"{HEADS}: not a safetensors file"):
        load_bundle(copy)


def test_weights_that_are_not_finite_are_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors[LAST].fill(np.nan))
    with pytest.raises(BundleError, match=f"{LAST}: holds values that are not finite"):
        build_model(load_bundle(copy), "cpu", "fp32")


def write(folder: Path, architecture: Architecture, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "name": "x",
        "version": "1",
        "training_state": "untrained",
        "architecture": architecture,
        "thresholds": {task: dict.fromkeys(architecture.labels(task), 0.0) for task in ("diagnosis", "referral")},
        "calibration": {},
        "weights": lambda name: np.zeros(bundle_module.expected_tensors(architecture)[name], np.float32),
    }
    write_bundle(folder, **(arguments | changes))


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> np.ndarray:
        raise RuntimeError("no weights")

    with pytest.raises(RuntimeError):
        write(tmp_path / "bundle", demo(), weights=fail)
    with pytest.raises(BundleError, match=r"thresholds\.diagnosis"):
        write(tmp_path / "bundle", demo(), thresholds={})
    with pytest.raises(BundleError, match="has shape"):
        write(tmp_path / "bundle", demo(), weights=lambda _: np.zeros(3, np.float32))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write(tmp_path / "bundle", demo())
    assert not os.listdir(tmp_path)


def test_an_existing_bundle_is_never_overwritten(copy: Path) -> None:
    before = (copy / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="exists already"):
        write(copy, demo())
    assert (copy / MANIFEST).read_bytes() == before
