"""A RIS for tests in which every result is urgent: its orders by HL7, and its answer to every priority."""

from __future__ import annotations

import socket

from dicom_node.worklist.hl7.framing import block
from support.dicom_factory import StudyFacts
from support.hl7_messages import msh

URGENT = {"none": "urgent", "low": "urgent", "medium": "urgent", "high": "urgent"}


def accept(received: list[bytes]) -> bytes:
    """Application accept of the last message."""
    control = received[-1].decode().split("\r")[0].split("|")[9]
    return block(f"MSH|^~\\&|RIS||PRIMA||20260101||ACK|A{control}|P|2.3.1\rMSA|AA|{control}\r".encode())


def told_orders(port: int, *studies: StudyFacts) -> None:
    """Send a routine order for each study's accession number N: placer PLN, filler FIN."""
    for number, study in enumerate(studies):
        name = study.accession_number
        message = (
            msh("ORM^O01", "2.3.1", f"M{number}"),
            f"PID|1||{study.patient_id}||{study.patient_name}||{study.birth_date}|F",
            f"ORC|NW|PL{name}|FI{name}||SC||^^^20260102093000^^R",
            f"OBR|1|PL{name}|FI{name}|MRHEAD^MRI head^L||||||||||||||{name}",
        )
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(block(("\r".join(message) + "\r").encode()))
            assert "MSA|AA" in connection.recv(65536).decode()
