"""The stream that stops a parser: what is not there costs nothing, and what is there only so much."""

from __future__ import annotations

from io import BytesIO

import pytest

from prima_core.base.bounded import Allowance, TooMuchToParse, bounded


def test_it_reads_like_the_stream_below() -> None:
    stream = bounded(BytesIO(b"0123456789"), Allowance(1 << 20))
    assert (stream.read(4), stream.tell(), stream.seek(-1, 1), stream.read(2)) == (b"0123", 4, 3, b"34")
    assert (stream.read(), stream.read(1)) == (b"56789", b"")


def test_a_length_beyond_the_end_is_never_asked_of_the_stream_below() -> None:
    class Careful(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size <= 10
            return super().read(size)

    stream = bounded(Careful(b"0123456789"), Allowance(1 << 20))
    assert stream.read(0xFFFFFFFE) == b"0123456789"
    stream.seek(1 << 40)
    assert stream.read(0xFFFFFFFE) == b""


def test_reading_ends_with_the_allowance_and_stays_ended() -> None:
    allowance = Allowance(2000)
    stream = bounded(BytesIO(bytes(1 << 20)), allowance)
    stream.read(1500)
    stream.read(8)  # the header of an element, of which a parser makes more than 8 bytes
    assert not allowance.exhausted
    with pytest.raises(TooMuchToParse):
        stream.read(200)
    assert allowance.exhausted
    with pytest.raises(TooMuchToParse):
        bounded(BytesIO(bytes(8)), allowance).read(1)
