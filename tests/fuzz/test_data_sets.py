"""Damaged data sets and files, wherever the node reads one: only the node's own errors leave a reader.

Does not cover: the decoding of pixels, which happens apart (`intake/apart.py`, `prima_core/volume/pixels.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

from dicom_node.base.errors import NotDicom, ReportError
from dicom_node.base.types import Rejection, Verdict
from dicom_node.intake.content import compare
from dicom_node.intake.identity import read_identity
from dicom_node.intake.incoming import TooLarge
from dicom_node.intake.key_objects import read_key_objects
from dicom_node.intake.spool import Spool
from dicom_node.reporting.source import check_source, read_source
from dicom_node.worklist.dicom import dataset as of_worklist
from prima_core.base.errors import OutOfScope
from prima_core.volume.headers import read_headers
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.fuzzing import damaged, examples
from support.rejections import rejection_note
from support.spool import put
from support.studies import arrival

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
CHARACTER_SETS = [
    "ISO_IR 192",
    "ISO_IR 100",
    "ISO 2022 IR 87",
    "GB18030",
    "\\ISO 2022 IR 149",
    "\\" * 60,
    "GEHEIM",
    "ISO_IR 6\\\\x",
]
MAX_BYTES = 1 << 20


@cache
def image() -> Dataset:
    dataset = mr_slices(head_phantom(1, 16, 16), StudyFacts(accession_number="A1"))[0]
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "one"
    outer = Dataset()
    outer.PurposeOfReferenceCodeSequence = [item]
    dataset.SourceImageSequence = [outer, outer]
    dataset.RequestAttributesSequence = [outer]
    dataset.ProcedureCodeSequence = [item]
    return dataset


@cache
def file(syntax: str, character_set: str = "ISO_IR 192", note: bool = False) -> bytes:
    """A whole file in that syntax."""
    dataset = rejection_note([image()], Rejection.QUALITY) if note else deepcopy(image())
    dataset.SpecificCharacterSet = character_set.split("\\")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def with_odd_group_length() -> bytes:
    """A file whose group length (0002,0000) is not one number of four bytes."""
    whole = file(ExplicitVRLittleEndian)
    return whole[:138] + b"\x03\0" + whole[140:]


def data_set(syntax: str, character_set: str) -> bytes:
    """What a C-STORE brings of it."""
    whole = file(syntax, character_set)
    (length,) = struct.unpack_from("<L", whole, 140)
    return whole[144 + length :]


@st.composite
def nested(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Sequences in sequences, of defined and of undefined length, with and without their ends."""
    explicit = draw(st.booleans())
    depth = draw(st.sampled_from([1, 5, 100, 10_000]))
    length = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x10\0\0\0", b"\0\0\0\0"]))
    tag = draw(st.sampled_from([b"\x08\0\x40\x11", b"\x08\0\x05\0", b"\x09\0\x10\x10", b"\x10\0\x10\0"]))
    vr = draw(st.sampled_from([b"SQ\0\0", b"UN\0\0", b"OB\0\0"])) if explicit else b""
    level = tag + vr + length + b"\xfe\xff\0\xe0" + draw(st.sampled_from([length, b"\xff\xff\xff\xff"]))
    end = draw(st.sampled_from([b"", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"]))
    return level * depth + draw(st.binary(max_size=20)) + end * depth


syntaxes = st.sampled_from(SYNTAXES)
character_sets = st.sampled_from(CHARACTER_SETS)
encoded = st.tuples(syntaxes, character_sets).flatmap(lambda one: st.tuples(st.just(one[0]), damaged(data_set(*one))))
odd = st.tuples(syntaxes, nested() | st.binary(max_size=200))
files = st.tuples(syntaxes, character_sets, st.booleans()).flatmap(lambda one: damaged(file(*one)))


@examples(20)
@example((ExplicitVRLittleEndian, b"\x20\0\x0e\0U\0\0\0"))
@given(encoded | encoded | odd)
def test_the_identity_of_an_object_that_comes(came: tuple[str, bytes]) -> None:
    syntax, data = came
    with suppress(NotDicom, TooLarge):
        identity = read_identity(BytesIO(data), syntax, MAX_BYTES)
        assert identity.sop_class_uid
        assert len(identity.accession_number) <= 16


@examples(13)
@given((encoded | odd).filter(lambda came: came[0] in SYNTAXES[:2]))
def test_the_identifier_of_a_query_or_a_work_item(came: tuple[str, bytes]) -> None:
    syntax, data = came
    with suppress(of_worklist.InvalidAttribute, of_worklist.UnreadableDataSet):
        of_worklist.write(of_worklist.plain(of_worklist.read(data, syntax)))


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    made = Spool(tmp_path_factory.mktemp("spool"))
    made.prepare()
    return made


@cache
def kept(folder: Path) -> tuple[str, bytes]:
    """A spool file, as the node wrote it."""
    made = Spool(folder / "sound")
    made.prepare()
    dataset = image()
    identity = read_identity(BytesIO(data_set(ExplicitVRLittleEndian, "ISO_IR 192")), ExplicitVRLittleEndian, MAX_BYTES)
    one = replace(
        arrival(1),
        sop_class_uid=str(MRImageStorage),
        sop_instance_uid=identity.sop_instance_uid,
        study_instance_uid=str(dataset.StudyInstanceUID),
        association_id="a",
    )
    put(made, one, data_set(ExplicitVRLittleEndian, "ISO_IR 192"))
    return one.path, (made.folder / one.path).read_bytes()


@examples(16)
@given(st.data())
def test_a_file_in_the_spool(spool: Spool, data: st.DataObject) -> None:
    path, whole = kept(spool.folder)
    put_back(spool, path, data.draw(damaged(whole) | files))


def test_a_file_in_the_spool_whose_header_has_an_odd_length(spool: Spool) -> None:
    put_back(spool, kept(spool.folder)[0], with_odd_group_length())


def put_back(spool: Spool, path: str, content: bytes) -> None:
    target = spool.folder / path
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    with suppress(NotDicom):
        spool.read(path, MAX_BYTES)
    with suppress(NotDicom):
        spool.content(path)


@examples(13)
@example(file(DeflatedExplicitVRLittleEndian)[:-40])
@example(with_odd_group_length())
@given(files)
def test_a_file_that_is_run(spool: Spool, data: bytes) -> None:
    path = spool.folder / "image.dcm"
    path.write_bytes(data)
    with suppress(OutOfScope):
        read_headers([path])
    with suppress(ReportError):
        read_source([path])
    with suppress(ReportError):
        check_source([path])


@examples(8)
@example(file(DeflatedExplicitVRLittleEndian)[:-40], file(ImplicitVRLittleEndian))
@example(with_odd_group_length(), with_odd_group_length())
@given(files, files)
def test_files_under_one_uid(spool: Spool, one: bytes, other: bytes) -> None:
    paths = spool.folder / "one.dcm", spool.folder / "other.dcm"
    for path, data in zip(paths, (one, other), strict=True):
        path.write_bytes(data)
    assert compare(*paths) in Verdict


@examples(13)
@example(file(DeflatedExplicitVRLittleEndian, note=True)[:-40])
@example(with_odd_group_length())
@given(st.tuples(syntaxes, character_sets, st.just(True)).flatmap(lambda one: damaged(file(*one))) | files)
def test_a_rejection_note(spool: Spool, data: bytes) -> None:
    path = spool.folder / "note.dcm"
    path.write_bytes(data)
    said = read_key_objects(path)
    assert said is None or len(said.references) < 1000
