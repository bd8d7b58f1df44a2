"""The one table from what a worklist peer answers (PS3.7 annex C) to our errors."""

from __future__ import annotations

from collections.abc import Collection

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.base.errors import PeerBusy, PeerRefused, PeerUnreachable

SUCCESS = 0x0000
WARNINGS = (0x0001, 0x0107, 0x0116)  # PS3.7 annex C
BUSY = (0x0110, 0x0213)  # processing failure, resource limitation
UNABLE_TO_PROCESS = range(0xC000, 0xD000)  # of a C-FIND alone (PS3.4 section CC.2.8)
TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def judge(status: Dataset, service: str, *, busy: Collection[int] = BUSY) -> int:
    """The status, if it is success or a warning. Raises PeerUnreachable, PeerBusy or PeerRefused.

    busy: failures that may pass, beside 0xA7xx.
    """
    if "Status" not in status:
        raise PeerUnreachable(f"the peer gave no answer to the {service}")
    code = int(status.Status)
    if code == SUCCESS or code in WARNINGS or code & 0xF000 == 0xB000:
        return code
    if code & 0xFF00 == 0xA700 or code in busy:
        raise PeerBusy(f"the peer could not do the {service} now (status 0x{code:04X})")
    raise PeerRefused(f"the peer refused the {service} (status 0x{code:04X})")
