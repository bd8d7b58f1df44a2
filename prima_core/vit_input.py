"""Latents of a series → the tokens that the sequence ViT takes: latents, grid position, orientation.

Positions are computed, not tabulated: the reference's table holds a million rows and ends at 100 grid steps an axis.

Legend of the suffixes: T tokens of one series, C latent channels, ZYX latent grid, D token width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from prima_core.base.config import POSITION_VALUES

PATCH_EDGE, THIN_EDGE = 32, 4


def sinusoids(position: Tensor, values: int) -> Tensor:
    """Sinusoidal position values: (…,) integers → (…, values) float32, sin and cos interleaved.

    Frequencies are 10000^(−k/values) for k = 0, 2, 4 …; float64 inside, so that large positions stay exact.
    """
    k = torch.arange(0, values, 2, dtype=torch.float64, device=position.device)
    angle = position[..., None].double() * 10000.0 ** (-k / values)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2).float()


def vit_input(latents_TCZYX: Tensor, coordinates_T3: Tensor, thin_axis: int) -> Tensor:
    """The tokens of one series: (T, latents + 30 + 3) float32.

    coordinates_T3: first voxel (z, y, x) of each token in the padded volume, int64.
    The thin axis comes first by changing places with the first axis (a transpose, not a roll).
    """
    tokens = len(latents_TCZYX)
    content = latents_TCZYX.transpose(2, 2 + thin_axis).reshape(tokens, -1)
    edge = [THIN_EDGE if axis == thin_axis else PATCH_EDGE for axis in range(3)]
    grid_T3 = coordinates_T3 // torch.tensor(edge, device=coordinates_T3.device)
    position = sinusoids(grid_T3, POSITION_VALUES).flatten(1)
    orientation = one_hot(torch.tensor(thin_axis, device=content.device), 3).float().expand(tokens, 3)
    return torch.cat((content, position, orientation), dim=1)
