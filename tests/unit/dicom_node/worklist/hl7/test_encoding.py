"""Character sets and escape sequences. Not here: what is done with the texts."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.base.errors import PermanentError
from dicom_node.base.hl7_settings import CharacterSet
from dicom_node.worklist.hl7 import encoding
from dicom_node.worklist.hl7.encoding import STANDARD, Delimiters
from dicom_node.worklist.hl7.refusal import Refused

text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(text)
def test_an_escaped_text_holds_no_delimiter_and_comes_back(original: str) -> None:
    escaped = encoding.escape(original)
    assert not set("|^~&\r\n\x0b\x1c") & set(escaped)
    assert encoding.unescape(escaped, STANDARD, "utf-8") == original


@given(text)
def test_a_structured_text_never_ends_its_field(original: str) -> None:
    assert not set("|\r\n\x0b\x1c") & set(encoding.escape_structured(original))


@given(text)
def test_unescaping_any_text_is_text(original: str) -> None:
    assert isinstance(encoding.unescape(original, STANDARD, "utf-8"), str)


@pytest.mark.parametrize(
    ("encoded", "meant"),
    [
        ("a\\F\\b\\S\\c\\R\\d\\E\\e\\T\\f", "a|b^c~d\\e&f"),
        ("\\XC3A4\\", "ä"),
        ("\\XC3\\", "\\XC3\\"),
        ("\\X00\\", "\\X00\\"),
        ("\\Zfoo\\", "\\Zfoo\\"),
        ("one\\.br\\two", "one\ntwo"),
        ("\\H\\bold\\N\\", "bold"),
        ("C:\\", "C:\\"),
    ],
)
def test_escape_sequences(encoded: str, meant: str) -> None:
    assert encoding.unescape(encoded, STANDARD, "utf-8") == meant


def test_other_delimiters_are_rewritten_in_the_standard_ones() -> None:
    theirs = Delimiters("|", "@", "~", "!", "#")
    assert encoding.restandardise("12@A!S!B#C^", theirs, "ascii") == "12^A@B&C\\S\\"
    assert encoding.restandardise("12^A\\S\\B", STANDARD, "ascii") == "12^A\\S\\B"


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("8859/1", "Müller"),
        ("8859/2", "Dvořák"),
        ("8859/5", "Иванов"),
        ("8859/7", "Παπαδόπουλος"),
        ("8859/9", "Yılmaz"),
        ("8859/15", "Œuvre €"),
        ("UNICODE UTF-8", "王小東"),
        ("GB 18030-2000", "王小东"),
        ("BIG-5", "王小東"),
        ("KS X 1001", "홍길동"),
        ("ISO IR87", "山田"),
        ("ISO IR159", "丂山"),
    ],
)
def test_a_name_in_its_character_set_survives(name: str, sample: str) -> None:
    assert encoding.decode(encoding.encode(sample, name), encoding.codec(name)) == sample


def test_every_configurable_character_set_has_a_codec() -> None:
    assert set(get_args(CharacterSet)) == set(encoding.CODECS)


@pytest.mark.parametrize("name", ["UNICODE UTF-16", "EBCDIC", "8859/1~ISO IR87", ""])
def test_an_unknown_character_set_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="MSH-18"):
        encoding.codec(name)


def test_japanese_repetitions_are_one_codec() -> None:
    raw = "ﾔﾏﾀﾞ^山田".encode("iso2022_jp_ext")
    assert encoding.decode(raw, encoding.codec("ASCII~ISO IR87~ISO IR13")) == "ﾔﾏﾀﾞ^山田"


@pytest.mark.parametrize(("raw", "name"), [("ü".encode("latin-1"), "UNICODE UTF-8"), ("ü".encode(), "ASCII")])
def test_bytes_outside_the_character_set_are_refused(raw: bytes, name: str) -> None:
    with pytest.raises(Refused, match="character set"):
        encoding.decode(raw, encoding.codec(name))


def test_a_nul_is_refused() -> None:
    with pytest.raises(Refused, match="NUL"):
        encoding.decode(b"a\x00", "ascii")


def test_a_text_that_does_not_fit_names_the_segment_and_not_the_text() -> None:
    with pytest.raises(PermanentError, match="a text in PID cannot be written in character set 8859/1") as raised:
        encoding.encode("MSH|\rPID|王\r", "8859/1")
    assert "王" not in str(raised.value)


def test_the_nodes_own_words_are_shown_as_far_as_the_character_set_goes() -> None:
    assert encoding.own_words("head: high → urgent, 王", "8859/1") == "head: high -> urgent, ?"
