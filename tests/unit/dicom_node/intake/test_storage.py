"""The table from errors to C-STORE status (PS3.4 B.2.3, PS3.7 annex C)."""

from __future__ import annotations

import pytest

from dicom_node.base.errors import DiskFull, NotDicom
from dicom_node.intake.identity import InvalidUid
from dicom_node.intake.incoming import TooLarge
from dicom_node.intake.registrar import RegistryBehind
from dicom_node.intake.storage import ClassNotNegotiated, Mismatch, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DiskFull("full"), 0xA700),
        (RegistryBehind("behind"), 0xA700),
        (Mismatch("other"), 0xA900),
        (InvalidUid("uid"), 0x0117),
        (ClassNotNegotiated("class"), 0x0122),
        (TooLarge("large"), 0xC001),
        (NotDicom("text"), 0xC000),
        (KeyError("bug"), 0x0110),
        (MemoryError(), 0x0110),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_only_errors_that_may_pass_tell_the_sender_to_try_again() -> None:
    for error in (DiskFull("x"), RegistryBehind("x"), Mismatch("x"), InvalidUid("x"), TooLarge("x"), NotDicom("x")):
        assert (status_of(error) == 0xA700) == error.retriable
