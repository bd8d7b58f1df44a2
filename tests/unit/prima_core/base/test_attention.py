"""The packed transformer against a plain one: one sequence at a time, attention written out. Also with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prima_core.base.attention import ClassTokenPooling, SelfAttention, Transformer, rows_by_length
from prima_core.base.config import TransformerShape, VitShape

SHAPE = TransformerShape(width=24, depth=3, heads=3, head_width=8, mlp_width=40)
LENGTHS = [5, 1, 7, 5, 5, 2]


def plain_block(x_LD: Tensor, block: torch.nn.Module, heads: int) -> Tensor:
    """Section by section, no library attention, one head after the other."""
    attention, mlp = block.attention, block.feed_forward
    qkv = attention.qkv(attention.norm(x_LD))
    width = qkv.shape[1] // 3 // heads
    outputs = []
    for head in range(heads):
        q, k, v = (qkv[:, (part * heads + head) * width :][:, :width] for part in range(3))
        outputs.append(torch.softmax(q @ k.T / math.sqrt(width), dim=1) @ v)
    x_LD = x_LD + attention.out(torch.cat(outputs, dim=1))
    hidden = mlp.up(mlp.norm(x_LD))
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x_LD + mlp.down(hidden)


@pytest.mark.parametrize("shape", [SHAPE, TransformerShape(width=16, depth=2, heads=1, head_width=16, mlp_width=8)])
@pytest.mark.parametrize("lengths", [LENGTHS, [6] * 4, [3]])
def test_packed_transformer_equals_the_plain_one(shape: TransformerShape, lengths: list[int]) -> None:
    torch.manual_seed(0)
    model = Transformer(shape).double()
    x_ND = torch.randn(sum(lengths), shape.width, dtype=torch.float64)
    expected = []
    for sequence in x_ND.split(lengths):
        x_LD = sequence
        for block in model.blocks:
            x_LD = plain_block(x_LD, block, shape.heads)
        expected.append(x_LD)
    before = x_ND.clone()
    torch.testing.assert_close(model(x_ND, lengths), torch.cat(expected), rtol=0, atol=1e-12)
    assert torch.equal(x_ND, before), "the input was changed"


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("lengths", [LENGTHS, [6] * 4])
@pytest.mark.parametrize(("heads", "head_width"), [(3, 8), (1, 24)])
def test_pooling_that_reads_class_tokens_alone_equals_the_whole_block(
    depth: int, lengths: list[int], heads: int, head_width: int
) -> None:
    torch.manual_seed(0)
    pooling = ClassTokenPooling(VitShape(2, TransformerShape(24, depth, heads, head_width, 40), 8)).double()
    torch.nn.init.normal_(pooling.class_tokens)
    name_BD, tokens_ND = torch.randn(len(lengths), 24).double(), torch.randn(sum(lengths), 24).double()
    expected = []
    for name_D, x_LD in zip(name_BD, tokens_ND.split(lengths), strict=True):
        whole = torch.cat((pooling.class_tokens, name_D[None], x_LD))
        for block in pooling.transformer.blocks:
            whole = plain_block(whole, block, heads)
        expected.append(pooling.norm(whole[:2]).flatten())
    found = pooling(name_BD, tokens_ND, lengths)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in pooling.parameters())


def test_one_head_of_the_models_own_width_has_no_output_projection() -> None:
    assert not list(SelfAttention(TransformerShape(16, 1, 1, 16, 8)).out.parameters())
    assert list(SelfAttention(TransformerShape(16, 1, 1, 8, 8)).out.parameters())


def test_gradients_flow_through_the_packed_attention() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerShape(4, 1, 2, 2, 4)).double()
    x_ND = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model(x, [2, 1, 2]), (x_ND,))


def test_equal_lengths_share_one_index() -> None:
    rows = rows_by_length([2, 3, 2], torch.device("cpu"))
    assert [index.tolist() for index in rows] == [[[0, 1], [5, 6]], [[2, 3, 4]]]
