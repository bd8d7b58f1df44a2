"""Blocks of the minimal lower layer protocol: 0x0B, the message, 0x1C 0x0D (HL7 v2 Transport Specification: MLLP).

None of the three bytes occurs inside a message in any character set that the node takes, so a start byte inside a
block means that the end of the one before was lost. Nobody can tell then what belongs together: the connection ends.
"""

from __future__ import annotations

from dicom_node.base.errors import PermanentError

START, END = b"\x0b", b"\x1c\x0d"
_END_BYTE = END[:1]
_BETWEEN = b"\r\n"  # what some senders add after a block
HEAD_BYTES = 4096


class WrongFraming(PermanentError):
    """Bytes that are no MLLP block."""


class MessageTooLarge(PermanentError):
    """A block over the limit. head: its first bytes, which may hold the message header."""

    def __init__(self, limit: int, head: bytes) -> None:
        super().__init__(f"message longer than {limit} bytes")
        self.head = head


def block(message: bytes) -> bytes:
    """The message as it goes over the wire. Raises WrongFraming when its bytes would start or end a block."""
    if START in message or _END_BYTE in message:
        raise WrongFraming("the message holds a byte that ends an MLLP block")
    return START + message + END


class BlockReader:
    """Cuts a stream into messages, however it is chunked. After an error the reader is of no more use."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0

    @property
    def within_block(self) -> bool:
        """Whether a block has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if not self._buffer:
            data = data.lstrip(_BETWEEN)
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole message; None: more bytes are needed. Raises WrongFraming, MessageTooLarge."""
        if not self._buffer:
            return None
        if self._buffer[:1] != START:
            raise WrongFraming("bytes outside an MLLP block")
        end = self._buffer.find(_END_BYTE, max(self._searched, 1))
        content_end = len(self._buffer) if end < 0 else end
        if self._buffer.find(START, max(self._searched, 1), content_end) >= 0:
            raise WrongFraming("an MLLP block began inside another")
        if content_end - 1 > self._limit:
            raise MessageTooLarge(self._limit, bytes(self._buffer[1 : 1 + HEAD_BYTES]))
        self._searched = content_end
        if end < 0 or end + 1 == len(self._buffer):
            return None
        if self._buffer[end : end + 2] != END:
            raise WrongFraming("0x1C without 0x0D")
        message = bytes(self._buffer[1:end])
        self._buffer = bytearray(self._buffer[end + 2 :].lstrip(_BETWEEN))
        self._searched = 0
        return message
