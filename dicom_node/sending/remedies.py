"""Pure rules: what is done about an object that an archive stored and then did not commit to keep."""

from __future__ import annotations

from dicom_node.base.commitments import Remedy

MAX_UNANSWERED = 3  # requests that an archive accepts and does not answer, until the object is stored again
MAX_FAILURES = 3  # commitments that fail in a row, until a person is needed

#: Failure Reason (0008,1197), PS3.3 section C.14.1.1.
WORDS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class-instance conflict",
    0x0122: "referenced SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}
FOR_NOW = (0x0131, 0x0213)  # says nothing about the object
FOR_GOOD = (0x0119, 0x0122)  # storing it again changes nothing


def remedy_for(reason: int | None, failures: int) -> Remedy:
    """What to do. reason: the failure reason, None where there was no answer; failures: earlier ones in a row."""
    if reason in FOR_NOW:
        return Remedy.ASK_AGAIN
    if reason in FOR_GOOD or failures + 1 >= MAX_FAILURES:
        return Remedy.SET_ASIDE
    return Remedy.SEND_AGAIN


def in_words(reason: int) -> str:
    """A failure reason for people."""
    return f"the peer does not commit to keep the object: {WORDS.get(reason, 'failure')} (0x{reason:04X})"
