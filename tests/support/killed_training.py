"""A stage of training that dies at a step, as a process does that is killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from training.base.loop import Stage


class Killed(BaseException):
    """Stands for the kill: nothing may catch it."""


@contextmanager
def killed_at(stage: type[Stage[Any]], step: int) -> Iterator[None]:
    """What is trained within dies before this step; fails where it does not."""
    draw = stage.draw

    def dying(self: Stage[Any], at: int, positions: range) -> Sequence[Any]:
        if at == step:
            raise Killed
        return draw(self, at, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "draw", dying)
        with pytest.raises(Killed):
            yield
