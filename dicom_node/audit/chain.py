"""How one record holds on to the one before it, and what is wrong with a chain that was touched. Pure.

A record is a line: its number, the digest of the record before it, its number and its message, and the message. The
digest is an HMAC-SHA256 where the site has a key, else SHA-256, which finds accidents and clumsy hands only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

RECORD = re.compile(rb"([1-9]\d*) (sha256|hmac):([0-9a-f]{64}) (<[^\n]*>)")
START = "0" * 64  # what the first record holds on to


@dataclass(frozen=True)
class Record:
    """A record as it stands in a file. keyed: its digest is an HMAC."""

    number: int
    keyed: bool
    digest: str
    message: bytes

    @property
    def line(self) -> bytes:
        """What stands in the file."""
        return b"%d %s:%s %s\n" % (
            self.number,
            b"hmac" if self.keyed else b"sha256",
            self.digest.encode(),
            self.message,
        )

    def follows(self, before: str, key: bytes | None) -> bool:
        """Whether it was written after the record with that digest. An HMAC cannot be judged without its key."""
        if self.keyed and key is None:
            return True
        return hmac.compare_digest(
            self.digest, digest_of(before, self.number, self.message, key if self.keyed else None)
        )


@dataclass(frozen=True)
class Fault:
    """Where a chain is broken. number: of the record."""

    number: int
    words: str


def new_record(number: int, before: str, message: bytes, key: bytes | None) -> Record:
    """The record that follows one with this digest. message: XML without line breaks."""
    return Record(number, key is not None, digest_of(before, number, message, key), message)


def digest_of(before: str, number: int, message: bytes, key: bytes | None) -> str:
    """What a record holds on to, as 64 hexadecimal digits."""
    content = b"%s\n%d\n%s" % (before.encode(), number, message)
    return hmac.new(key, content, "sha256").hexdigest() if key is not None else hashlib.sha256(content).hexdigest()


def read_record(line: bytes) -> Record | None:
    """A line without its end; None when it is no record."""
    found = RECORD.fullmatch(line)
    if found is None or len(found[1]) > 18:
        return None
    return Record(int(found[1]), found[2] == b"hmac", found[3].decode(), found[4])


def faults(lines: Iterable[bytes], key: bytes | None, first: int, last: tuple[int, str] | None) -> Iterator[Fault]:
    """Everything that is wrong. first: number of the oldest record that should be there; last: number and digest of the
    newest that was written, None where nobody knows."""
    expected, before, keyed = first, START if first == 1 else None, False
    for line in lines:
        record = read_record(line)
        if record is None:
            yield Fault(expected, "is no record: the line was changed")
            before, expected = None, expected + 1
            continue
        if record.number < expected:
            yield Fault(record.number, "stands in the wrong place, or twice")
            continue
        if record.number > expected:
            yield Fault(expected, f"is missing, up to record {record.number - 1}")
            before = None
        if before is not None and not record.follows(before, key):
            yield Fault(record.number, "was changed, or the record before it")
        elif keyed and not record.keyed:
            yield Fault(record.number, "has no key although the record before it has one")
        before, expected, keyed = record.digest, record.number + 1, keyed or record.keyed
    yield from _faults_at_end(expected, before, last)


def _faults_at_end(expected: int, before: str | None, last: tuple[int, str] | None) -> Iterator[Fault]:
    if last is None:
        yield Fault(expected, "may be missing: what was written last is not known, the file `head` is gone")
        return
    number, digest = last
    if number >= expected:
        yield Fault(expected, f"is missing, up to record {number}: the end was cut off")
    elif number == expected - 1 and before is not None and digest != before:
        yield Fault(number, "was changed: it is not what was written last")
