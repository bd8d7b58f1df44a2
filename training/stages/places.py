"""What is known of where findings lie, token by token, and what it costs not to see it.

Legend of the suffixes: T tokens, k located labels of one study, n labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from training.stages.targets import known_bce

WHOLE = 1 / 256  # of a patch: what covers this share of it is all there; one of the points that are looked at
RARE_TOKEN = -5.5  # the logit that the probe starts from

Shown = npt.NDArray[np.float32]


def shown(
    share_Tk: npt.NDArray[np.float16] | None,
    located: Sequence[str],
    label_n: npt.NDArray[np.float64],
    names: Sequence[str],
) -> Shown:
    """(T, n) whether each token shows each label of `names`, 0…1; NaN where only the study's label is known.

    label_n: of the study, 1, 0 or NaN. share_Tk: how much of each token the findings of the located labels cover; where
    nobody knows it is None, and the result has no rows.
    """
    if share_Tk is None:
        return np.empty((0, len(names)), np.float32)
    shown_Tn = np.tile(np.where(label_n == 0, 0.0, np.nan).astype(np.float32), (len(share_Tk), 1))
    for column, name in enumerate(located):
        if name in names:
            shown_Tn[:, names.index(name)] = np.minimum(share_Tk[:, column].astype(np.float32) / WHOLE, 1)
    return shown_Tn


class TokenProbe(nn.Module):
    """A linear look at what the last block of the sequence ViT reads."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, labels)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.constant_(self.linear.bias, RARE_TOKEN)

    def losses(self, states: Sequence[Tensor], targets: Sequence[Shown]) -> Tensor:
        """(len(states),) the mean loss of each sequence of tokens; 0 where nothing is known of it.

        states: (T, width) each. targets: (T, n) each, or (0, n).
        """
        known = [number for number, target in enumerate(targets) if len(target)]
        losses = states[0].new_zeros(len(states))
        if not known:
            return losses
        state_ND = torch.cat([states[number] for number in known])
        target_Nn = torch.from_numpy(np.concatenate([targets[number] for number in known])).to(state_ND.device)
        loss_N = known_bce(self.linear(layer_norm(state_ND, state_ND.shape[1:])), target_Nn)
        pieces = torch.split(loss_N, [len(targets[number]) for number in known])
        return losses.index_put((torch.tensor(known, device=losses.device),), torch.stack([p.mean() for p in pieces]))
