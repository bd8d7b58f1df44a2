"""A sender as modalities and archives are: it sends again what was not acknowledged, until everything is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from support.node import HANG_SECONDS, LOOK_AGAIN_SECONDS, SENDER
from support.peers import AE_TITLE, CLIENT


class PersistentSender:
    """Sends until everything is acknowledged, whatever becomes of the receiver meanwhile."""

    def __init__(self, port: int, images: Sequence[Dataset], timeout_seconds: float = 30.0) -> None:
        """timeout_seconds: how long it waits for a connection or an answer before it begins anew."""
        self._port = port
        self._images = images
        self._timeout = timeout_seconds
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        """Send what is not acknowledged, over and over."""
        entity = AE(SENDER)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout
        for pair in {(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in self._images}:
            entity.add_requested_context(*pair)
        until = time.monotonic() + HANG_SECONDS
        while missing := [image for image in self._images if image.SOPInstanceUID not in self.acknowledged]:
            assert time.monotonic() < until, "the receiver does not come back"
            association = entity.associate("127.0.0.1", self._port, ae_title=AE_TITLE, evt_handlers=CLIENT)
            if association.is_established:
                self._send(association, missing)
                association.release()
            else:
                time.sleep(10 * LOOK_AGAIN_SECONDS)

    def _send(self, association: Association, images: Sequence[Dataset]) -> None:
        for image in images:
            try:
                status = association.send_c_store(image)
            except RuntimeError:  # the association ended since the last image
                return
            if status.get("Status") != 0x0000:
                return
            self.acknowledged.add(image.SOPInstanceUID)
