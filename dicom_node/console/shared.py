"""One answer for many who ask at about the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from dicom_node.jobs.registry import DATABASE_AWAY

T = TypeVar("T")


class Shared(Generic[T]):
    """Asks the registry at most once in so many seconds, however many clients there are, also while it is away."""

    def __init__(self, question: Callable[[], T], seconds: float) -> None:
        self._question = question
        self._seconds = seconds
        self._lock = threading.Lock()
        self._answer: Future[T] = Future()
        self._good_until = float("-inf")

    def __call__(self) -> T:
        """The answer, at most that old. Raises one of `DATABASE_AWAY`, and what else the question raises."""
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._answer = self._ask()
                self._good_until = time.monotonic() + self._seconds
        return self._answer.result()

    def _ask(self) -> Future[T]:
        answer: Future[T] = Future()
        try:
            answer.set_result(self._question())
        except DATABASE_AWAY as error:
            answer.set_exception(error)
        return answer
