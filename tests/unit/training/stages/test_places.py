"""What tokens show: shares, labels and what nobody knows; and a probe that reads them off."""

from __future__ import annotations

import numpy as np
import torch

from training.stages.places import WHOLE, TokenProbe, shown

NAMES = ("cyst", "shift", "tumour")
LABELS = np.array([1.0, 1.0, 0.0])  # cyst and shift, no tumour


def test_a_share_counts_up_to_the_whole() -> None:
    share = np.array([[0.0], [WHOLE / 2], [WHOLE], [0.9]], np.float16)
    found = shown(share, ("cyst",), LABELS, NAMES)
    np.testing.assert_allclose(found[:, 0], [0, 0.5, 1, 1])


def test_what_is_absent_is_shown_nowhere_and_what_lies_nowhere_is_unknown() -> None:
    found = shown(np.zeros((2, 1), np.float16), ("cyst",), LABELS, NAMES)
    assert np.isnan(found[:, 1]).all()
    assert (found[:, 2] == 0).all()
    assert np.isnan(shown(np.zeros((2, 0), np.float16), (), np.full(3, np.nan), NAMES)).all()


def test_a_diagnosis_that_is_not_asked_for_is_left_out() -> None:
    found = shown(np.ones((1, 2), np.float16), ("abscess", "cyst"), LABELS, NAMES)
    assert found[0, 0] == 1


def test_series_of_which_nobody_knows_cost_nothing() -> None:
    assert shown(None, (), LABELS, NAMES).shape == (0, 3)
    torch.manual_seed(0)
    probe = TokenProbe(8, 3)
    states = [torch.randn(4, 8), torch.randn(6, 8), torch.randn(5, 8)]
    known = np.array([[1, np.nan, 0]] * 6, np.float32)
    nothing = np.empty((0, 3), np.float32)
    losses = probe.losses(states, [nothing, known, nothing])
    assert losses[0] == losses[2] == 0
    assert losses[1] > 1
    losses.sum().backward()
    assert probe.linear.weight.grad is not None
    assert (probe.linear.weight.grad[1] == 0).all(), "nothing is learned of what is unknown"
    assert torch.equal(probe.losses(states, [nothing] * 3), torch.zeros(3))
