"""The inert reader of `torch.save` archives: honest files in every dtype, and hostile ones, none of which may run.

Hostile pickles here would create a marker file; every test asserts that it does not exist.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prima_core.base.checkpoint import Record, StoredTensor, TorchArchive
from prima_core.base.errors import CheckpointRefused
from support.torch_archives import write_archive


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: float) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def name(dotted: str) -> bytes:
    module, _, last = dotted.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def storage_id(kind: str = "torch.FloatStorage", key: str = "0", count: bytes = b"K\x01") -> bytes:
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + count + b"tQ"


HEAD, END = b"\x80\x02", b"."
RECORD = name("model_parts.ViT") + b")\x81"
SYSTEM = name("posix.system") + b"(" + text("touch marker") + b"tR"
TENSOR = name("torch._utils._rebuild_tensor_v2") + b"(" + storage_id() + b"K\x00(K\x01t(K\x01t\x89}tR"


def load(path: Path) -> Any:
    with TorchArchive(path) as archive:
        return archive.load()


def refused(tmp_path: Path, pickled: bytes, message: str, members: dict[str, bytes] | None = None) -> None:
    path = write_archive(tmp_path / "evil.pt", pickled, members)
    with pytest.raises(CheckpointRefused, match=message):
        load(path)
    assert not (tmp_path / "marker").exists()


@pytest.fixture(autouse=True)
def _in_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_tensors_of_every_dtype_are_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(-3, 9).reshape(3, 4).to(dtype)
    torch.save(OrderedDict(whole=tensor, turned=tensor.T, part=tensor[1:, 2:]), tmp_path / "t.pt")
    with TorchArchive(tmp_path / "t.pt") as archive:
        state = archive.load()
        for key, expected in (("whole", tensor), ("turned", tensor.T), ("part", tensor[1:, 2:])):
            read = state[key].read()
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, expected.float().numpy())


def test_modules_parameters_and_plain_values_become_records(tmp_path: Path) -> None:
    model = torch.nn.Sequential(OrderedDict(first=torch.nn.Linear(3, 2), norm=torch.nn.BatchNorm1d(2)))
    model.names = {"a": [1, 2.5, None, True, "x"], 3: {"set"}, "where": torch.device("cpu")}  # type: ignore[assignment]
    torch.save(model, tmp_path / "m.pt")
    with TorchArchive(tmp_path / "m.pt") as archive:
        record = archive.load()
        assert str(record.of) == "torch.nn.modules.container.Sequential"
        assert record.get("names") == {"a": [1, 2.5, None, True, "x"], 3: {"set"}, "where": "cpu"}
        np.testing.assert_array_equal(record.module("first").get("weight").read(), model[0].weight.detach().numpy())
        assert set(record.tensors()) == set(model.state_dict())


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Calls(os.system, "touch marker"), "posix.system"),
        (Calls(builtins.eval, "open('marker', 'w')"), "eval"),
        (Calls(builtins.exec, "open('marker', 'w')"), "exec"),
        (Calls(builtins.getattr, "", "join"), "getattr"),
        (Calls(builtins.open, "marker", "w"), "open"),
        (Calls(functools.partial, print), "functools.partial"),
        (Calls(importlib.import_module, "this"), "importlib.import_module"),
        (Calls(torch.load, "x"), "torch.*load"),
        (Calls(torch.hub.load, "x"), "torch.hub.load"),
        (Calls(torch.nn.functional.relu, 1), "torch.nn.functional.relu"),
        (Path("marker"), "athlib"),
        (np.float64(1.0), "numpy"),
    ],
)
def test_any_other_name_is_refused_and_nothing_runs(tmp_path: Path, evil: Any, named: str, protocol: int) -> None:
    for hidden in (evil, [{"deep": (evil,)}]):
        # Below protocol 2 an object's own reduction cannot always be written; the refusal is then the opcode's.
        expected = named if protocol > 1 else f"{named}|not allowed"
        refused(tmp_path, pickle.dumps(hidden, protocol), expected)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (RECORD + b"}" + text("a") + SYSTEM + b"sb", "posix.system"),
        (name("model_parts.os.system") + b"(tR", "model_parts.os.system"),
        (name("torch.nn.modules.os.system") + b"(tR", "calls torch.nn.modules.os.system"),
        (b"\x8c\x05posix\x8c\x06system\x93", "posix.system"),
        (name("model_parts.ViT") + b"(tR", "calls model_parts.ViT"),
        (name("model_parts.ViT") + b"(K\x01t\x81", "makes model_parts.ViT"),
        (name("torch._utils._rebuild_tensor_v2") + b")\x81", "makes torch._utils._rebuild_tensor_v2"),
        (name("torch._utils._rebuild_tensor_v2") + b"(K\x01tR", "calls torch._utils._rebuild_tensor_v2"),
        (name("torch._utils._rebuild_parameter") + b"(K\x01tR", "calls torch._utils._rebuild_parameter"),
        (name("torch._utils._rebuild_device_tensor_from_numpy") + b"(tR", "_rebuild_device_tensor_from_numpy"),
        (name("torch._utils._rebuild_tensor_v2") + b"}b", "sets the state of torch._utils._rebuild_tensor_v2"),
        (name("model_parts.ViT") + b"}b", "sets the state of model_parts.ViT"),
        (RECORD + b"(N}tb", "sets the state of an object of model_parts.ViT"),
        (RECORD + b"}K\x01K\x02sb", "attribute without a name"),
        (RECORD + b"}" + text("a") + b"Nsb}" + text("a") + b"K\x01sb", "sets the state"),
        (TENSOR + b"}b", "sets the state of a StoredTensor"),
        (b"}))s", "a tuple as a dictionary key"),
        (b"\x8f(" + RECORD + b"\x90", "a Record as a dictionary key or set member"),
        (name("__builtin__.set") + b"(](" + b")e" + b"tR", "a tuple as a dictionary key or set member"),
        (name("collections.OrderedDict") + b"(K\x05tR", "calls collections.OrderedDict"),
        (b"(iposix\nsystem\n", "INST is not allowed"),
        (b"(" + name("model_parts.ViT") + b"o", "OBJ is not allowed"),
        (b"\x82\x01", "EXT1 is not allowed"),
        (b"Pstorage\n", "PERSID is not allowed"),
        (b"C\x01x", "SHORT_BINBYTES is not allowed"),
        (b"N" + b"a", "damaged pickle"),
        (b"h\x09", "damaged pickle"),
        (b"t", "damaged pickle"),
        (b"]N}a" + b"u", "damaged pickle"),
    ],
)
def test_unexpected_operations_are_refused(tmp_path: Path, pickled: bytes, message: str) -> None:
    refused(tmp_path, HEAD + pickled + END, message, {"data/0": bytes(4)})


@pytest.mark.parametrize(
    ("pid", "message"),
    [
        (storage_id("torch.device"), "not a storage id"),
        (storage_id("model_parts.ViT"), "not a storage id"),
        (storage_id(key="../../../etc/passwd"), "missing or not of the size"),
        (storage_id(key="1"), "missing or not of the size"),
        (storage_id(count=b"K\x02"), "missing or not of the size"),
        (storage_id(count=b"J\xff\xff\xff\xff"), "missing or not of the size"),
        (storage_id("torch.DoubleStorage"), "missing or not of the size"),
        (text("storage") + b"Q", "not a storage id"),
        (b"NQ", "not a storage id"),
    ],
)
def test_hostile_storages_are_refused(tmp_path: Path, pid: bytes, message: str) -> None:
    refused(tmp_path, HEAD + pid + END, message, {"data/0": bytes(4)})


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "message"),
    [
        (0, (5,), (1,), "does not fit"),
        (2, (3,), (1,), "does not fit"),
        (9, (1,), (1,), "does not fit"),
        (0, (1_000_000, 30), (0, 0), "does not fit"),
        (0, (2, 2), (3, 1), "does not fit"),
        (0, (2, 2), (1,), "damaged"),
        (0, (-1,), (1,), "damaged"),
        (3, (2,), (-1,), "damaged"),
        (-1, (2,), (1,), "damaged"),
        (0, (0,), (1,), "does not fit"),
        (0, (2.0,), (1,), "not made of integers"),
    ],
)
def test_views_that_leave_their_storage_are_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], message: str
) -> None:
    numbers = number(offset) + b"".join(b"(" + b"".join(map(number, part)) + b"t" for part in (shape, stride))
    pickled = name("torch._utils._rebuild_tensor_v2") + b"(" + storage_id(count=b"K\x04") + numbers + b"\x89}tR"
    path = write_archive(tmp_path / "t.pt", HEAD + pickled + END, {"data/0": bytes(16)})
    with TorchArchive(path) as archive, pytest.raises(CheckpointRefused, match=message):
        archive.load().read()


def test_legacy_and_foreign_files_are_refused_clearly(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointRefused, match=r"before 1\.6"):
        load(tmp_path / "legacy.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Calls(os.system, "touch marker")))
    with pytest.raises(CheckpointRefused, match="not a torch"):
        load(tmp_path / "plain.pt")
    assert not (tmp_path / "marker").exists()


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "bomb.pt", HEAD + b"N" + END, {"data/0": bytes(10_000_000)}, compress=True)
    with pytest.raises(CheckpointRefused, match="compressed"):
        load(path)


def test_damaged_and_big_endian_archives_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "big.pt", HEAD + b"N" + END, {"byteorder": b"big"})
    with pytest.raises(CheckpointRefused, match="little-endian"):
        load(path)
    path = write_archive(tmp_path / "flipped.pt", HEAD + TENSOR + END, {"data/0": b"abcd"})
    path.write_bytes(path.read_bytes().replace(b"abcd", b"abce"))
    with TorchArchive(path) as archive, pytest.raises(CheckpointRefused, match="damaged"):
        archive.load().read()
    with pytest.raises(CheckpointRefused, match="exhausted before seeing STOP"):
        load(write_archive(tmp_path / "open.pt", HEAD + b"N"))


def test_modules_inside_themselves_end(tmp_path: Path) -> None:
    inner = RECORD + b"q\x01}" + text("_modules") + b"}(" + text("a") + b"h\x01" + text("b") + b"h\x01usb"
    record = load(write_archive(tmp_path / "loop.pt", HEAD + inner + END))
    assert isinstance(record, Record)
    with pytest.raises(CheckpointRefused, match="inside itself"):
        record.tensors()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pickletools, for odd escapes
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), replacement=st.binary(min_size=0, max_size=6))
def test_any_damage_is_refused_or_harmless(tmp_path: Path, position: int, replacement: bytes) -> None:
    sound = (
        HEAD + RECORD + b"}" + text("weight") + TENSOR + text("other") + b"](K\x01G" + bytes(8) + b"es" + b"sb" + END
    )
    where = position % len(sound)
    path = write_archive(tmp_path / "fuzz.pt", sound[:where] + replacement + sound[where + 1 :], {"data/0": bytes(4)})
    with TorchArchive(path) as archive:
        try:
            found = archive.load()
            if isinstance(found, Record):
                [tensor.read() for tensor in found.tensors().values() if isinstance(tensor, StoredTensor)]
        except CheckpointRefused:
            pass
