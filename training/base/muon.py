"""Muon for the matrices inside a network beside another optimizer for everything else, as one optimizer.

Muon turns the averaged gradient of a matrix into the nearest matrix with all directions equally strong (Jordan et al.
2024, https://kellerjordan.github.io/posts/muon/), so that rare directions are learned as fast as common ones. It
is meant for matrices between layers; tables, class tokens, norms and the layers that give the final answers stay with
the other optimizer. The algorithm is torch's (`torch.optim.Muon`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

OTHERS = ("letters.weight", "class_tokens", "clip.weight")  # tables, tokens and answers


def inner_matrices(*modules: nn.Module) -> list[nn.Parameter]:
    """The matrices of name encoders and ViTs that lie between layers."""
    return [
        parameter
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.ndim == 2 and not name.endswith(OTHERS)
    ]


def parameters_but(module: nn.Module, others: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """All parameters of a module that are not among `others`."""
    known = {id(parameter) for parameter in others}
    return [parameter for parameter in module.parameters() if id(parameter) not in known]


class WithMuon(torch.optim.Optimizer):
    """Steps `rest` and, for `matrices`, Muon. Its state is that of both, parameters of `rest` first.

    learning_rate: on Adam's scale; torch fits it to each matrix' shape. decay: of the matrices' weights, times the
    learning rate every step. Clipping of the gradient's norm means nothing to them.
    """

    def __init__(
        self, rest: torch.optim.Optimizer, matrices: Iterable[nn.Parameter], learning_rate: float, decay: float = 0.0
    ) -> None:
        self._rest = rest
        self._muon = torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        super().__init__([*rest.param_groups, *self._muon.param_groups], {})
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of both. A closure is not taken."""
        if closure is not None:
            raise ValueError("gradients must be there already")
        self._rest.step()
        self._muon.step()  # type: ignore[no-untyped-call]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Both keep their state and groups here, where whoever saves or changes them looks."""
        self._rest.state = self._muon.state = self.state
        self._rest.param_groups, self._muon.param_groups = self.param_groups[:-1], self.param_groups[-1:]
