"""Many who ask, one question to the registry."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from dicom_node.console.shared import Shared

AGES = 1e9


class Counted:
    """A question that counts how often it is asked; raises what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    def __call__(self) -> int:
        self.asked += 1
        if self.error:
            raise self.error
        return self.asked


def test_an_answer_is_shared_while_it_is_young() -> None:
    shared = Shared(Counted(), AGES)
    assert [shared(), shared()] == [1, 1]


def test_an_old_answer_is_asked_again() -> None:
    shared = Shared(Counted(), 0)
    assert [shared(), shared()] == [1, 2]


def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    asked, go_on = threading.Event(), threading.Event()
    count = Counted()

    def slow() -> int:
        asked.set()
        go_on.wait()
        return count()

    shared = Shared(slow, AGES)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(shared) for _ in range(4)]
        asked.wait()
        go_on.set()
        assert [answer.result() for answer in answers] == [1, 1, 1, 1]


def test_a_database_that_is_away_is_not_asked_by_everyone() -> None:
    question = Counted(sa.exc.OperationalError("", {}, Exception()))
    shared = Shared(question, AGES)
    for _ in range(2):
        with pytest.raises(sa.exc.OperationalError):
            shared()
    assert question.asked == 1


def test_an_unexpected_error_is_not_kept() -> None:
    question = Counted(RuntimeError())
    shared = Shared(question, AGES)
    with pytest.raises(RuntimeError):
        shared()
    question.error = None
    assert shared() == 2
