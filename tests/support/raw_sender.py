"""A sender that decides about every byte: associations and messages from raw PDUs.

How to use:

    with RawSender(node.port) as sender:
        sender.connection.sendall(data_pdu(3, store_request(uid)) + data_pdu(2, data_set))
        assert sender.answer().Status == 0
        sender.release()
"""

from __future__ import annotations

import socket
import struct
from io import BytesIO

from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import Verification

from support.peers import AE_TITLE, associate_request, pdu, read_pdu

IMPLICIT = str(ImplicitVRLittleEndian)
A_ASSOCIATE_AC, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 0x02, 0x04, 0x05, 0x06, 0x07


def store_request(instance: str, priority: int = 0, message_id: int = 1) -> bytes:
    """The command set of a C-STORE of an MR image, as pynetdicom encodes it."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = message_id, priority
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, instance
    primitive.DataSet = BytesIO(b"there is one")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded


def command_set(**attributes: object) -> bytes:
    """An encoded command set (PS3.7 6.3.1), with its group length."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    body = encode(dataset, True, True)
    assert body is not None
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


class RawSender:
    """A peer that decides about every byte."""

    def __init__(self, port: int, called: str = AE_TITLE, *, calling: str = "RAW", syntax: str = IMPLICIT) -> None:
        """Associates for MR images (context 1) in that syntax and Verification (3) in implicit VR little endian."""
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.settimeout(60)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        contexts = [(MRImageStorage, syntax), (Verification, ImplicitVRLittleEndian)]
        self.connection.sendall(associate_request(calling, called, contexts))
        answer = read_pdu(self.connection)
        assert answer is not None
        assert answer[0] == A_ASSOCIATE_AC

    def __enter__(self) -> RawSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def answer(self) -> Dataset | None:
        """The command set of the next message; None once the association is aborted or closed."""
        found = read_pdu(self.connection)
        if found is None or found[0] == A_ABORT:
            return None
        assert found[0] == P_DATA_TF
        return decode(BytesIO(found[1][6:]), True, True)

    def release(self) -> None:
        """A-RELEASE, answered."""
        self.connection.sendall(pdu(A_RELEASE_RQ, bytes(4)))
        answer = read_pdu(self.connection)
        assert answer is not None
        assert answer[0] == A_RELEASE_RP
        self.connection.close()
