"""Acknowledgements both ways (HL7 v2.5.1 chapter 2.9): what an answer to us means, and what we answer."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from dicom_node.base.errors import PeerRefused, PermanentError
from dicom_node.worklist.hl7 import timestamp
from dicom_node.worklist.hl7.encoding import Delimiters
from dicom_node.worklist.hl7.header import Header, read_header
from dicom_node.worklist.hl7.refusal import Condition, Refused

_REFUSED = {
    "AE": "application error",
    "AR": "application reject",
    "CE": "commit error",
    "CR": "commit reject",
}
_CONDITION = re.compile(r"(?<!\d)(10[0-3]|20[0-7])(?!\d)")
_COMMIT = {"AA": "CA", "AE": "CE", "AR": "CR"}


class CommittedOnly(PermanentError):
    """The peer stored the message safely (CA) but never said what became of it, though asked to (MSH-16).

    A person must look there. Sending it again could apply it twice.
    """


@dataclass(frozen=True)
class Answer:
    """MSA of a message that came back. condition: code of table 0357 from ERR, or empty."""

    code: str
    control_id: str
    condition: str


class Meaning(enum.Enum):
    """What an answer that refuses nothing says."""

    DONE = enum.auto()
    COMMITTED = enum.auto()  # stored; an application answer was asked for and follows
    NOT_OURS = enum.auto()


def read_answer(raw: bytes) -> Answer | None:
    """The acknowledgement in these bytes; None when they hold none."""
    try:
        header = read_header(raw)
    except Refused:
        return None
    lines = raw.replace(b"\n", b"\r").decode("latin-1").split("\r")
    mark = header.delimiters.field
    msa = next((line.split(mark) for line in lines if line.startswith("MSA" + mark)), None)
    if msa is None:
        return None
    code, control_id = [*msa[1:3], "", ""][:2]
    return Answer(code.strip().upper(), control_id.strip(), _condition(lines))


def judge(answer: Answer, control_id: str, application_answer_asked: bool) -> Meaning:
    """What the answer means for the message of this control ID. Raises PeerRefused: a person is needed."""
    if answer.control_id != control_id:
        return Meaning.NOT_OURS
    if answer.code == "AA":
        return Meaning.DONE
    if answer.code == "CA":
        return Meaning.COMMITTED if application_answer_asked else Meaning.DONE
    # The peer's own words may name the patient: they stay out of our logs.
    condition = f", condition {answer.condition}" if answer.condition else ""
    if answer.code in _REFUSED:
        raise PeerRefused(f"the peer answered {answer.code} ({_REFUSED[answer.code]}{condition})")
    raise PeerRefused("the peer answered with an acknowledgement code that is not in table 0008")


def replies(header: Header | None, refusal: Refused | None) -> tuple[str, ...]:
    """The acknowledgement codes to answer a stored message with, in order.

    Original mode, both MSH-15 and MSH-16 empty: AA, AE or AR. Enhanced mode: what the sender asked for. A commit answer
    comes after all the work here, so it tells a refusal too when the sender wants no application answer. An
    acknowledgement that strays in is not acknowledged unless it asks: two nodes would go on for ever.
    """
    code = refusal.code if refusal else "AA"
    accept, application = (header.component(15), header.component(16)) if header else ("", "")
    if not accept and not application:
        return () if header and header.component(9) == "ACK" else (code,)
    application_wanted = _asked(application, refusal is None)
    commit = "CA" if application_wanted else _COMMIT[code]
    commit_wanted = _asked(accept, commit == "CA")
    return (*((commit,) if commit_wanted else ()), *((code,) if application_wanted else ()))


def acknowledge(header: Header | None, code: str, refusal: Refused | None, control_id: str, at: float) -> bytes:
    """One acknowledgement as the general ACK message (chapter 2.13.1).

    header: of the message answered; None when it has none, and MSA-2 stays empty. control_id: MSH-10 of the answer.
    refusal: the reason, for AE, AR, CE and CR.
    """
    marks = header.delimiters if header else Delimiters()
    came = header.field if header else (lambda _number: "")
    version = came(12) or "2.5.1"
    trigger = header.component(9, 2) if header else ""
    kind = marks.component.join(("ACK", trigger, "ACK")) if trigger and version >= "2.4" else "ACK"
    # Sender and receiver change places.
    msh = ["MSH", marks.encoding_characters, came(5), came(6), came(3), came(4), timestamp.write(at), "", kind]
    msh += [control_id, came(11) or "P", version, "", "", "", "", "", came(18)]
    msa = ["MSA", code, came(10), _words(refusal, marks) if refusal else ""]
    segments = [msh, msa, *([_err(refusal, marks, version)] if refusal else [])]
    return "".join(marks.field.join(fields).rstrip(marks.field) + "\r" for fields in segments).encode("latin-1")


def _asked(condition: str, good: bool) -> bool:
    """Table 0155: AL always, NE never, ER on errors, SU on success."""
    return condition == "AL" or (condition == "ER" and not good) or (condition == "SU" and good)


def _words(refusal: Refused, marks: Delimiters) -> str:
    """The reason in ASCII, free of delimiters and control characters."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in str(refusal))
    return plain.translate({ord(mark): " " for mark in marks.field + marks.encoding_characters})


def _err(refusal: Refused, marks: Delimiters, version: str) -> list[str]:
    coded = [str(refusal.condition.value), refusal.condition.words, "HL70357"]
    if version >= "2.5":
        return ["ERR", "", "", marks.component.join(coded), "E", "", "", "", _words(refusal, marks)]
    return ["ERR", marks.component * 3 + marks.subcomponent.join(coded)]


def _condition(lines: list[str]) -> str:
    """The condition code in ERR, wherever the version puts it; nothing else of ERR, which may quote the message."""
    for line in lines:
        found = _CONDITION.search(line) if line.startswith("ERR") else None
        if found and int(found[0]) in {condition.value for condition in Condition} | {205, 206}:
            return found[0]
    return ""
