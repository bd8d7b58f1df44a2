"""MLLP blocks under any chunking, and what is no block. Not here: time-outs, which belong to the connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.worklist.hl7.framing import HEAD_BYTES, BlockReader, MessageTooLarge, WrongFraming, block

content = st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\x0b\x1c"))


def messages(reader: BlockReader) -> list[bytes]:
    found = []
    while (message := reader.next()) is not None:
        found.append(message)
    return found


@given(st.lists(content, max_size=5), st.lists(st.integers(1, 40), min_size=1), st.sampled_from([b"", b"\r\n"]))
def test_messages_come_out_whole_however_the_stream_is_chunked(
    sent: list[bytes], sizes: list[int], between: bytes
) -> None:
    stream = between.join(block(message) for message in sent) + between
    reader, got, at, turn = BlockReader(100), [], 0, 0
    while at < len(stream):
        reader.feed(stream[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
        got += messages(reader)
    assert got == sent
    assert not reader.within_block


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_any_bytes_end_in_messages_or_a_stated_error(chunks: list[bytes]) -> None:
    reader = BlockReader(20)
    try:
        for chunk in chunks:
            reader.feed(chunk)
            assert all(len(message) <= 20 for message in messages(reader))
    except (WrongFraming, MessageTooLarge):
        return


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"MSH|^~\\&|", "outside"),
        (b"\x0bMSH|first\x0bMSH|second\x1c\r", "inside another"),
        (b"\x0bMSH|\x1cX", "without 0x0D"),
        (b"\x0bMSH|\x1c\rMSH|", "outside"),
    ],
)
def test_wrong_framing_is_named(stream: bytes, reason: str) -> None:
    reader = BlockReader(100)
    reader.feed(stream)
    with pytest.raises(WrongFraming, match=reason):
        messages(reader)


def test_a_whole_message_before_wrong_bytes_is_still_given() -> None:
    reader = BlockReader(100)
    reader.feed(block(b"one") + b"junk")
    assert reader.next() == b"one"
    with pytest.raises(WrongFraming):
        reader.next()


@pytest.mark.parametrize("ended", [True, False])
def test_the_limit_holds_and_the_head_is_kept(ended: bool) -> None:
    reader = BlockReader(10_000)
    reader.feed(block(b"x" * 10_000))
    assert reader.next() == b"x" * 10_000
    reader.feed(b"\x0b" + b"y" * 10_001 + (b"\x1c\r" if ended else b""))
    with pytest.raises(MessageTooLarge) as raised:
        reader.next()
    assert raised.value.head == b"y" * HEAD_BYTES


@pytest.mark.parametrize("byte", [b"\x0b", b"\x1c"])
def test_a_message_that_would_break_its_block_is_not_sent(byte: bytes) -> None:
    with pytest.raises(WrongFraming):
        block(b"MSH|" + byte)
