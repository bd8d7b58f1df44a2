"""Winograd convolution against the library's: every orientation, both dtypes, sizes it cannot tile, state keys."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prima_core.base.winograd import TILE_BY_DTYPE, WinogradConv3d

SHAPES = [(4, 16, 16), (16, 4, 16), (16, 16, 4), (2, 8, 8), (1, 8, 8)]


def convolution(inputs: int = 64, outputs: int = 96) -> nn.Conv3d:
    torch.manual_seed(0)
    return nn.Conv3d(inputs, outputs, 3, padding=1).requires_grad_(False)


def relative_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-5), (torch.bfloat16, 1.5e-2)])
def test_result_equals_the_direct_convolution(shape: tuple[int, int, int], dtype: torch.dtype, bar: float) -> None:
    conv = convolution()
    x = torch.randn(3, 64, *shape).to(dtype).to(memory_format=torch.channels_last_3d)
    before = x.clone()
    exact = nn.functional.conv3d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)  # type: ignore[union-attr]
    result = WinogradConv3d(conv)(x)
    assert result.dtype == dtype
    assert relative_error(result, exact) < bar
    assert torch.equal(x, before), "the input was changed"


def test_sizes_that_do_not_tile_take_the_direct_way() -> None:
    conv = convolution()
    x = torch.randn(1, 64, 4, 7, 6)
    torch.testing.assert_close(WinogradConv3d(conv)(x), conv(x))


def test_orientation_may_change_from_call_to_call() -> None:
    conv = convolution()
    fast = WinogradConv3d(conv)
    for shape in (SHAPES[0], SHAPES[2], SHAPES[0]):
        x = torch.randn(1, 64, *shape)
        torch.testing.assert_close(fast(x), conv(x), rtol=0, atol=1e-4)


def test_memory_layout_of_the_input_does_not_matter() -> None:
    fast, x = WinogradConv3d(convolution()), torch.randn(2, 64, 4, 8, 8)
    torch.testing.assert_close(fast(x), fast(x.to(memory_format=torch.channels_last_3d)))


def test_parameters_and_keys_stay() -> None:
    conv = convolution()
    fast = WinogradConv3d(conv)
    assert list(fast.state_dict()) == list(conv.state_dict())
    assert fast.weight is conv.weight


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv3d(64, 64, 3, padding=0),
        nn.Conv3d(64, 64, 3, padding=1, stride=2),
        nn.Conv3d(64, 64, 2, padding=1),
        nn.Conv3d(64, 2, 3, padding=1),
        nn.Conv3d(64, 64, 3, padding=1, groups=2),
        nn.Conv3d(64, 64, 3, padding=1, dilation=2),
    ],
)
def test_other_convolutions_are_left_alone(other: nn.Conv3d) -> None:
    assert WinogradConv3d.suits(convolution())
    assert not WinogradConv3d.suits(other)


def test_every_precision_has_a_tile_size() -> None:
    assert set(TILE_BY_DTYPE) == {torch.float32, torch.bfloat16}
