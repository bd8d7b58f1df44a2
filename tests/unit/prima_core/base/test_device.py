"""Names of devices and precisions → what torch is told; `auto` takes bf16 only where the hardware has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prima_core.base import device
from prima_core.base.device import resolve


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"cpu_name": "avx512_bf16"}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_on_a_cpu_follows_the_instruction_set(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(device, "cpu_capabilities", lambda: capabilities)
    assert resolve("cpu", "auto").precision == expected


@pytest.mark.parametrize(("hardware", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu_asks_without_emulation(monkeypatch: pytest.MonkeyPatch, hardware: bool, expected: str) -> None:
    asked = []

    class Current:
        def __init__(self, _: torch.device) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return hardware

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    runtime = resolve("auto", "auto")
    assert (runtime.device.type, runtime.precision, asked) == ("cuda", expected, [False])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_named_precision_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(device, "cpu_capabilities", dict)
    assert resolve("cpu", precision).precision == precision


def test_half_precision_is_a_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    runtime = resolve("cuda", "fp16")
    assert (runtime.precision, runtime.convolution_dtype) == ("fp16", torch.float16)
    with pytest.raises(ValueError, match="needs a GPU"):
        resolve("cpu", "fp16")


@pytest.mark.parametrize(
    ("name", "precision"),
    [("gpu", "fp32"), ("cuda:x", "fp32"), ("cpu:1", "fp32"), ("cpu", "fp16"), ("cuda:99", "fp32")],
)
def test_unknown_names_are_refused(name: str, precision: str) -> None:
    with pytest.raises(ValueError, match=r"device|precision"):
        resolve(name, precision)


def test_the_capability_query_answers_on_this_machine() -> None:
    assert "avx512_bf16" in device.cpu_capabilities() or device.cpu_capabilities().get("architecture") != "x86_64"


def test_chunks_keep_their_order_and_torch_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runtime = resolve("cpu", "fp32")
        inside = list(runtime.map(lambda chunk: chunk * torch.get_num_threads(), torch.arange(20).split(3)))
        assert torch.get_num_threads() == 2
        assert torch.cat(inside).tolist() == list(range(20)), "every chunk runs on one thread, in order"
        assert all(chunk.is_inference() for chunk in inside)
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_chunk_is_raised_and_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        list(resolve("cpu", "fp32").map(fail, torch.arange(9).split(3)))
    assert torch.get_num_threads() == before


class SmallDevice:
    """Doubles its input; has room for so many rows at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * rows


def test_what_does_not_fit_at_once_is_computed_in_halves() -> None:
    small, rows = SmallDevice(room=3), torch.arange(11.0)
    assert torch.equal(resolve("cpu", "fp32").within_memory(small, rows), 2 * rows)
    assert small.tried == [11, 6, 3, 3, 5, 3, 2]


def test_a_device_without_room_for_one_row_says_so() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        resolve("cpu", "fp32").within_memory(SmallDevice(room=0), torch.arange(4.0))


def test_an_array_on_the_cpu_is_taken_as_it_is() -> None:
    array = np.ones((2, 3), np.float32)
    assert resolve("cpu", "fp32").take(array).data_ptr() == array.ctypes.data
