"""Thresholds and temperatures against what they must be by construction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from training.stages.operating_point import best_threshold, fit_level_temperature, fit_odds, fit_temperature


def test_a_clean_gap_is_cut_in_its_middle() -> None:
    logits = np.array([-3.0, -2.0, 1.0, 2.0])
    assert best_threshold(logits, logits > 0) == pytest.approx(-0.5)


def test_the_threshold_has_the_best_balanced_accuracy_of_all_cuts() -> None:
    random = np.random.default_rng(0)
    present = random.random(300) < 0.1
    logits = random.normal(size=300) + 1.3 * present - 2
    threshold = best_threshold(logits, present, specificity=0.0)

    def balanced(cut: float) -> float:
        return float((logits[present] > cut).mean() + (logits[~present] <= cut).mean())

    assert balanced(threshold) == max(balanced(cut) for cut in (*logits, logits.min() - 1))


@pytest.mark.parametrize("specificity", [0.8, 0.95, 1.0])
def test_few_studies_without_the_finding_pass_it(specificity: float) -> None:
    random = np.random.default_rng(3)
    present = random.random(400) < 0.2
    logits = random.normal(size=400) + 0.8 * present
    threshold = best_threshold(logits, present, specificity)
    assert (logits[~present] <= threshold).mean() >= specificity
    assert threshold > best_threshold(logits, present, specificity=0.0)


@pytest.mark.parametrize("positives", [0, 1, 9, 10])
def test_a_class_that_tells_nothing_keeps_zero(positives: int) -> None:
    assert best_threshold(np.arange(10.0), np.arange(10) < positives) == 0.0


def test_the_odds_that_made_the_labels_are_found() -> None:
    random = np.random.default_rng(4)
    made = np.array([-2.0, 0.0, 1.5])
    logits = random.normal(-1, 4, (20_000, 3))
    targets = (random.random(logits.shape) < expit((logits + made) / 3)).astype(float)
    targets[::7] = np.nan
    temperature, shift = fit_odds(logits, targets)
    assert temperature == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(shift, made, atol=0.3)


def test_a_class_of_which_little_is_known_hardly_moves() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(-3, 2, (400, 3))
    targets = (random.random(logits.shape) < expit(logits + 2)).astype(float)  # many more than was thought
    targets[6:, 1] = np.nan  # of six studies only is it known
    targets[:6, 1] = 0
    targets[:, 2] = np.nan  # nobody knows
    _, (often, hardly, never) = fit_odds(logits, targets)
    assert often == pytest.approx(2, abs=0.6)
    assert -1 < hardly < 0
    assert never == 0


@pytest.mark.parametrize("studies", [4, 10, 20])
def test_few_studies_that_a_shift_sets_apart_make_nobody_certain(studies: int) -> None:
    """Three classes whose logits are all too low; the shift would set every study right, and no temperature would be
    too cold for them."""
    targets = (np.arange(studies)[:, None] % np.array([2, 3, 4]) == 0).astype(float)
    temperature, shift = fit_odds(2.0 * targets - 3, targets)
    assert temperature is not None
    assert temperature > 0.1
    assert (shift > 0).all()
    assert (expit((2.0 * targets - 3 + shift) / temperature)[targets == 1] < 0.999).all()


@pytest.mark.parametrize("targets", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((0, 2))])
def test_one_kind_alone_tells_nothing_of_odds(targets: np.ndarray) -> None:
    temperature, shift = fit_odds(np.ones(targets.shape), targets)
    assert temperature is None
    np.testing.assert_array_equal(shift, np.zeros(2))


def test_the_temperature_that_made_the_labels_is_found() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 6, 60_000)
    targets = random.random(60_000) < expit(logits / 3)
    assert fit_temperature(logits, targets) == pytest.approx(3, rel=0.05)


def test_the_temperature_of_levels_is_found() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(0, 4, (40_000, 4))
    level = np.argmax(logits / 2 + random.gumbel(size=logits.shape), axis=1)
    assert fit_level_temperature(logits, level) == pytest.approx(2, rel=0.05)


def test_one_kind_alone_has_no_temperature() -> None:
    assert fit_temperature(np.ones(3), np.ones(3, bool)) is None
    assert fit_level_temperature(np.ones((3, 4)), np.zeros(3, np.int64)) is None
