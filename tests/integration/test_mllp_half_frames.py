"""A peer that begins its answer and never ends it: no answer, and the next message does not take the rest for its own.

The peers that hang up inside an answer, refuse, or answer rubbish are in `test_hl7_sender.py`.
"""

from __future__ import annotations

import pytest

from dicom_node.base.errors import PeerUnreachable
from dicom_node.worklist.hl7.messages import build
from dicom_node.worklist.hl7.sender import MllpSender
from support.hl7_messages import change, destination
from support.hl7_peers import ScriptedPeer, ack

QUICK = 0.3


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_half_an_answer_and_then_silence_is_no_answer(cut: int) -> None:
    def script(received: list[bytes]) -> bytes:
        return ack("AA", "K1")[:cut] if len(received) == 1 else ack("AA", "K1")[cut:] + ack("AE", "K2")[:cut]

    with ScriptedPeer(script) as server:
        sender = MllpSender(destination(port=server.port, timeout_seconds=QUICK))
        for key in ("K1", "K2"):
            with pytest.raises(PeerUnreachable):
                sender.send(build(change(key=key), destination()))
        assert len(server.connections) == 2, "an answer of which half is missing ends its connection"
