"""The one place for device and precision: names from the configuration → what torch is told.

Only the tokenizer's convolutions ever run in less than fp32: they are 97 % of the arithmetic, and the latents leave
them as float32. `auto` takes bf16 only where the hardware computes it, since emulated bf16 is slower and less exact
than fp32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16", "int8"]
CONVOLUTION_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}
Chunk = TypeVar("Chunk")
M_ARENA_MAX = -8  # malloc.h


@dataclass(frozen=True)
class Runtime:
    """Where the model runs and how the tokenizer computes."""

    device: torch.device
    precision: Precision

    @property
    def convolution_dtype(self) -> torch.dtype:
        """The dtype of the tokenizer's weights and activations."""
        return CONVOLUTION_DTYPE[self.precision]

    def map(self, function: Callable[[Chunk], Tensor], chunks: Iterable[Chunk]) -> Iterator[Tensor]:
        """`function` of every chunk, in order, for inference.

        On a CPU every core takes chunks of its own: sharing each operator instead makes all cores wait for the slowest
        hundreds of times a chunk, which on a busy machine doubles the time.
        """
        if self.device.type != "cpu":
            yield from map(function, chunks)
            return
        cores = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(cores) as pool:
                yield from pool.map(torch.inference_mode()(function), chunks)
        finally:
            torch.set_num_threads(cores)

    def take(self, rows: npt.NDArray[np.float32]) -> Tensor:
        """An array on the device. A GPU copies it from locked memory while it still computes what came before."""
        tensor = torch.from_numpy(rows)
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def within_memory(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """`function`, which treats every row by itself, of all rows: in halves where all at once do not fit.

        Raises torch.OutOfMemoryError where not even one row fits.
        """
        try:
            return function(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        if self.device.type == "cuda":  # not before the error is gone, whose frames hold what was allocated
            torch.cuda.empty_cache()
        halves = torch.tensor_split(rows, 2)
        return torch.cat([self.within_memory(function, half) for half in halves])

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is honest."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def resolve(device: str = "auto", precision: str = "auto") -> Runtime:
    """The runtime for `device` auto|cpu|cuda|cuda:N and `precision` auto|fp32|bf16|fp16|int8.

    fp16 is for GPUs that have no bf16; it ends at 65,504, past which a study gets no result. int8 is bf16 with the wide
    convolutions in 8-bit integers. `auto` takes neither. Raises ValueError for other names, for a GPU that is not
    there, for fp16 on a CPU, and for int8 where the device is no CPU that computes it in hardware.
    """
    place = _device(device)
    if place.type == "cuda":
        # fp32 means fp32: torch would otherwise round convolution inputs to TF32's 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    else:
        _one_heap()
    return Runtime(place, _precision(precision, place))


@cache
def _one_heap() -> None:
    """Have all threads take memory from one heap (mallopt(3)), where the C library is glibc.

    By itself it gives each thread one, cut into 64 MB: of the tokenizer's buffers of up to 30 MB half lies idle there.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in {"cpu", "cuda"} or (index and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return torch.device(name)


def _precision(name: str, device: torch.device) -> Precision:
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "fp32":
        return "fp32"
    if name == "bf16":
        return "bf16"
    if name == "fp16":
        if device.type != "cuda":
            raise ValueError("precision 'fp16' needs a GPU")
        return "fp16"
    if name == "int8":
        if device.type != "cpu" or not has_int8():
            raise ValueError("precision 'int8' needs a CPU with AVX-512 VNNI and BF16")
        return "int8"
    raise ValueError(f"unknown precision {name!r}: use auto, fp32, bf16, fp16 or int8")


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware (not emulated)."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = cpu_capabilities()
    return any(capabilities.get(flag) is True for flag in ("avx512_bf16", "amx_bf16"))


def has_int8() -> bool:
    """Whether this CPU multiplies 8-bit integers and bf16, which go together here, in hardware."""
    return cpu_capabilities().get("avx512_vnni") is True and has_bf16(torch.device("cpu"))


def cpu_capabilities() -> dict[str, Any]:
    """The CPU's instruction sets as torch knows them."""
    return dict(torch.cpu.get_capabilities())
