"""Which studies run together."""

from __future__ import annotations

import numpy as np

from dicom_node.base.types import Claim
from dicom_node.jobs.batches import Prepared, may_take_more, split
from prima_core.base.types import PreparedSeries, PreparedStudy
from support.studies import arrival


def prepared(name: str, tokens: int, *, urgent: bool = False, attempts: int = 1) -> Prepared:
    ids = np.zeros(tokens, dtype=np.int64)
    series = PreparedSeries(
        "1.2", "T1", np.zeros((1, 4, 32, 32), np.float32), ids, np.zeros((tokens, 3), np.int64), 0, 1, ()
    )
    claim = Claim(name, arrival(1).study_instance_uid, 1, urgent, "w", (), (), None, attempts)
    return Prepared(claim, PreparedStudy("1.2", "", (series,)))


def names(batches: list[list[Prepared]]) -> list[list[str]]:
    return [[item.claim.study_id for item in batch] for batch in batches]


def test_studies_within_the_budget_run_together() -> None:
    held = [prepared("a", 40), prepared("b", 40)]
    assert may_take_more(held, 100)
    assert names(split(held, 100)) == [["a", "b"]]


def test_a_full_budget_takes_no_more_and_splits_what_is_over() -> None:
    held = [prepared("a", 60), prepared("b", 60)]
    assert not may_take_more(held, 100)
    assert names(split(held, 100)) == [["a"], ["b"]]


def test_an_urgent_study_stops_the_gathering_and_goes_first_alone() -> None:
    held = [prepared("a", 10), prepared("b", 10, urgent=True)]
    assert not may_take_more(held, 100)
    assert names(split(held, 100)) == [["b"], ["a"]]


def test_a_study_that_failed_before_runs_alone() -> None:
    held = [prepared("a", 10), prepared("b", 10, attempts=2)]
    assert not may_take_more(held, 100)
    assert names(split(held, 100)) == [["a"], ["b"]]


def test_a_study_larger_than_the_budget_still_runs() -> None:
    assert names(split([prepared("a", 500)], 100)) == [["a"]]
