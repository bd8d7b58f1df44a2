"""The 8-bit convolution against the exact one, and the released tokenizer in it against fp32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prima_core.base import device
from prima_core.base.device import resolve
from prima_core.base.int8 import Int8Conv3d

needs_hardware = pytest.mark.skipif(not device.has_int8(), reason="this CPU has no AVX-512 VNNI and BF16")


def convolution() -> nn.Conv3d:
    torch.manual_seed(0)
    return nn.Conv3d(64, 96, 3, padding=1).requires_grad_(False)


@needs_hardware
@pytest.mark.parametrize("shape", [(4, 16, 16), (16, 4, 16), (16, 16, 4), (2, 8, 8)])
def test_result_is_near_the_direct_convolution(shape: tuple[int, int, int]) -> None:
    conv = convolution()
    x = torch.randn(3, 64, *shape).relu().bfloat16().to(memory_format=torch.channels_last_3d)
    before = x.clone()
    exact = conv(x.float())
    fast = Int8Conv3d(conv)
    for _ in range(2):
        result = fast(x)
        assert result.dtype == torch.bfloat16
        assert float((result.float() - exact).norm() / exact.norm()) < 0.015
    assert torch.equal(x, before), "the input was changed"
    assert list(fast.state_dict()) == list(conv.state_dict())


@needs_hardware
def test_another_scale_of_the_same_shape_is_seen() -> None:
    fast, x = Int8Conv3d(convolution()), torch.randn(2, 64, 4, 16, 16).relu().bfloat16()
    bias = fast.bias[:, None, None, None]  # type: ignore[index]
    ones, tens = (fast(x * factor).float() - bias for factor in (1, 10))
    assert float((tens - 10 * ones).norm() / tens.norm()) < 0.02


@needs_hardware
def test_black_stays_finite() -> None:
    conv = convolution()
    black = Int8Conv3d(conv)(torch.zeros(1, 64, 4, 16, 16, dtype=torch.bfloat16))
    torch.testing.assert_close(black.float(), conv(torch.zeros(1, 64, 4, 16, 16)), rtol=0, atol=1e-2)


@needs_hardware
def test_values_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="ReLU"):
        Int8Conv3d(convolution())(torch.full((1, 64, 4, 16, 16), -1.0).bfloat16())


@pytest.mark.parametrize("missing", ["avx512_vnni", "avx512_bf16"])
def test_a_cpu_without_it_is_refused_and_auto_never_takes_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    capabilities = {"avx512_vnni": True, "avx512_bf16": True}
    monkeypatch.setattr(device, "cpu_capabilities", lambda: capabilities)
    assert resolve("cpu", "int8").precision == "int8"
    assert resolve("cpu", "auto").precision == "bf16"
    monkeypatch.setattr(device, "cpu_capabilities", lambda: capabilities | {missing: False})
    with pytest.raises(ValueError, match="int8"):
        resolve("cpu", "int8")
