"""Intervals: quantiles as in the printed tables of Student's t."""

from __future__ import annotations

import pytest

from dicom_node.worklist.simulation.estimate import estimate, student_t


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.776), (9, 2.262), (29, 2.045), (120, 1.980)])
def test_quantiles_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_t(0.975, freedom) == pytest.approx(quantile, abs=0.001)


def test_the_interval_has_the_mean_in_its_middle() -> None:
    found = estimate([1, 2, 3, 4, 5])
    assert found.low is not None
    assert found.high is not None
    assert found.mean == 3
    assert (found.low + found.high) / 2 == pytest.approx(3)


def test_too_few_values_have_no_interval() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.low, found.high) == (2.5, None, None)
