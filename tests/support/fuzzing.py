"""How long the fuzz tests run, and how they damage what is well formed.

`make test` runs few examples, the same each time; `make fuzz` (PRIMA_FUZZ=N) N times as many, and others each time. An
input that broke something once stays as an `@example`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("PRIMA_FUZZ", "0"))


def examples(few: int) -> settings:
    """So many examples as a rule."""
    return settings(
        max_examples=few * max(TIMES, 1),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: Callable[[st.SearchStrategy[Any]], Any], whole: bytes, most: int = 6) -> bytes:
    """The bytes with a few of them changed, taken out, put in or repeated; sometimes none, sometimes cut short."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[at : at + draw(st.integers(1, 64))]
            case 2:
                data[at:at] = draw(st.binary(max_size=16))
            case 3:
                data[at : at + 4] = draw(st.sampled_from(LENGTHS))
            case _:
                data[at:at] = data[at : at + draw(st.integers(1, 256))] * draw(st.integers(1, 8))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


#: What stands where a length, a tag or a count does, and is taken badly.
LENGTHS = [
    b"\xff\xff\xff\xff",
    b"\xfe\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\0",
    b"\1\0\0\0",
    b"\0\0\0\1",
    b"\xff\xff\0\0",
    b"\0\0\xff\xff",
    b"\xfe\xff\0\xe0",
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\xdd\xe0",
    b"SQ\0\0",
    b"UN\0\0",
]


@contextmanager
def no_thread_dies() -> Iterator[None]:
    """Fails where an error ended a thread: in the node that is a crash of the process (event 1005)."""
    died: list[str] = []
    before, threading.excepthook = (
        threading.excepthook,
        lambda crash: died.append(f"{crash.thread}: {crash.exc_type.__name__}: {crash.exc_value}"),
    )
    try:
        yield
    finally:
        threading.excepthook = before
    assert died == []
