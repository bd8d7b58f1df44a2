"""Answers read and judged, answers written. Not here: waiting for them."""

from __future__ import annotations

from pathlib import Path

import hl7apy.parser  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.base.errors import PeerRefused
from dicom_node.worklist.hl7.acknowledgement import Answer, Meaning, acknowledge, judge, read_answer, replies
from dicom_node.worklist.hl7.header import read_header
from dicom_node.worklist.hl7.refusal import Condition, Refused
from support.hl7_messages import errors_by_second_implementation, lines, msh

MALFORMED = Refused(Condition.REQUIRED_FIELD_MISSING, "PID-3: no patient ID")
FOREIGN = Refused(Condition.UNSUPPORTED_EVENT_CODE, "MSH-9: not taken")


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (lines(msh("ACK"), "MSA|AA|K1"), Answer("AA", "K1", "")),
        (lines(msh("ACK"), "MSA|ae|K1|Muster unknown", "ERR||PID^1^3|204^Unknown key"), Answer("AE", "K1", "204")),
        (lines(msh("ACK"), "MSA|AR|K1", "ERR|PID^1^3^101&Required"), Answer("AR", "K1", "101")),
        (lines(msh("ACK"), "MSA|AA"), Answer("AA", "", "")),
        (b"MSH#@~!%#RIS\rMSA#CA#K1\r", Answer("CA", "K1", "")),
        (lines(msh("ACK")), None),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
        (b"", None),
    ],
)
def test_answers_are_read(raw: bytes, answer: Answer | None) -> None:
    assert read_answer(raw) == answer


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_none(tail: bytes) -> None:
    for raw in (tail, b"MSH|^~\\&|" + tail, b"MSH|^~\\&|\rMSA|" + tail):
        assert isinstance(read_answer(raw), Answer | None)


@pytest.mark.parametrize(
    ("code", "asked", "meaning"),
    [
        ("AA", False, Meaning.DONE),
        ("AA", True, Meaning.DONE),
        ("CA", False, Meaning.DONE),
        ("CA", True, Meaning.COMMITTED),
    ],
)
def test_good_answers(code: str, asked: bool, meaning: Meaning) -> None:
    assert judge(Answer(code, "K1", ""), "K1", asked) is meaning


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR", "", "OK"])
def test_a_refusal_needs_a_person(code: str) -> None:
    with pytest.raises(PeerRefused) as raised:
        judge(Answer(code, "K1", "204"), "K1", False)
    assert not raised.value.retriable


@pytest.mark.parametrize("code", ["AA", "AE", "CA"])
@pytest.mark.parametrize("control_id", ["K0", "", "k1"])
def test_an_answer_to_another_message_means_nothing(code: str, control_id: str) -> None:
    assert judge(Answer(code, control_id, ""), "K1", False) is Meaning.NOT_OURS


@pytest.mark.parametrize(
    ("accept", "application", "refusal", "codes"),
    [
        ("", "", None, ("AA",)),
        ("", "", MALFORMED, ("AE",)),
        ("", "", FOREIGN, ("AR",)),
        ("AL", "NE", None, ("CA",)),
        ("AL", "", MALFORMED, ("CE",)),
        ("AL", "NE", FOREIGN, ("CR",)),
        ("AL", "AL", None, ("CA", "AA")),
        ("AL", "AL", MALFORMED, ("CA", "AE")),
        ("NE", "AL", None, ("AA",)),
        ("NE", "ER", None, ()),
        ("NE", "ER", MALFORMED, ("AE",)),
        ("SU", "NE", None, ("CA",)),
        ("ER", "NE", None, ()),
        ("ER", "NE", MALFORMED, ("CE",)),
        ("NE", "NE", None, ()),
    ],
)
def test_the_sender_gets_the_answers_it_asked_for(
    accept: str, application: str, refusal: Refused | None, codes: tuple[str, ...]
) -> None:
    header = read_header(lines(msh("ORM^O01", f15=accept, f16=application)))
    assert replies(header, refusal) == codes


def test_an_acknowledgement_is_not_acknowledged_unless_it_asks() -> None:
    assert replies(read_header(lines(msh("ACK^O01"))), FOREIGN) == ()
    assert replies(read_header(lines(msh("ACK^O01", f15="AL"))), FOREIGN) == ("CR",)


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
@pytest.mark.parametrize("refusal", [None, MALFORMED, FOREIGN])
def test_an_answer_is_valid_by_a_second_implementation(version: str, refusal: Refused | None, tmp_path: Path) -> None:
    header = read_header(lines(msh("ORM^O01", version, "M77", f18="8859/1")))
    code = refusal.code if refusal else "AA"
    raw = acknowledge(header, code, refusal, "N1", 1_767_225_600.0)
    parsed = hl7apy.parser.parse_message(raw.decode("latin-1"))
    if version == "2.5.1":  # it knows no structure for an ACK of 2.3.1
        assert errors_by_second_implementation(raw.decode("latin-1"), tmp_path) == []
    assert (parsed.msh.msh_5.value, parsed.msh.msh_6.value, parsed.msh.msh_10.value) == ("RIS", "HOSP", "N1")
    assert (parsed.msa.msa_1.value, parsed.msa.msa_2.value) == (code, "M77")
    assert read_answer(raw) == Answer(code, "M77", str(refusal.condition.value) if refusal else "")
    assert (refusal is None) or str(refusal).encode() in raw


def test_bytes_of_the_header_come_back_as_they_came_and_our_words_never_break_the_answer() -> None:
    header = read_header("MSH:^~\\&:Röntgen:::::ORM^O01:M:1:P:2.5.1\r".encode())
    raw = acknowledge(header, "AE", Refused(Condition.DATA_TYPE_ERROR, "ORC-2: a\rb|c^ü"), "N1", 0)
    assert raw.count(b"\r") == 3
    assert "Röntgen".encode() in raw
    assert b"ORC-2  a?b|c ?" in raw


def test_without_a_header_there_is_an_answer_without_a_control_id() -> None:
    refusal = Refused(Condition.SEGMENT_SEQUENCE_ERROR, "no MSH segment at the start")
    assert read_answer(acknowledge(None, "AE", refusal, "N1", 0)) == Answer("AE", "", "100")
