"""What a hospital sends in one round: a few studies, each after its order, until everything is acknowledged."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pydicom import Dataset
from pynetdicom.dsutils import encode

from dicom_node.worklist.hl7.framing import block
from faults.house import PATIENCE_SECONDS, House
from support.dicom_factory import StudyFacts
from support.hl7_messages import lines, msh
from support.node import HANG_SECONDS, LOOK_AGAIN_SECONDS, small_study
from support.persistent_sender import PersistentSender

STUDIES = 3
SLICES = (4, 12)  # of each of two series, at least and at most
LARGE_BYTES = 5 << 20  # of one object in each round: the receiver does not keep it in memory
LONGEST_DELAY = 1.5  # of a study, so that a fault meets each of them somewhere else on its way
SENDER_SECONDS = 2 * PATIENCE_SECONDS


@dataclass(frozen=True)
class SentStudy:
    """A study of a patient of its own. digests: SHA-256 of each encoded data set, by SOP Instance UID.

    images: until all are acknowledged.
    """

    facts: StudyFacts
    images: list[Dataset]
    digests: dict[str, str]
    acknowledged: set[str] = field(default_factory=set)

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return str(self.facts.study_uid)

    @property
    def placer(self) -> str:
        """The order's number at the RIS."""
        return f"PL{self.facts.accession_number}"


def studies(number: int, dice: random.Random) -> list[SentStudy]:
    """The studies of a round."""
    made = []
    for one in range(STUDIES):
        name = f"{number}X{one}"
        facts = StudyFacts(patient_id=f"PAT{name}", patient_name=f"Patient^{name}", accession_number=f"ACC{name}")
        images = small_study(facts, slices=dice.randint(*SLICES))
        if one == 0:
            dice.choice(images).DataSetTrailingPadding = bytes(LARGE_BYTES)
        made.append(SentStudy(facts, images, {str(image.SOPInstanceUID): digest(image) for image in images}))
    return made


def digest(image: Dataset) -> str:
    """Of the data set as it goes over the wire."""
    encoded = encode(image, is_implicit_vr=False, is_little_endian=True)
    assert encoded is not None
    return hashlib.sha256(encoded).hexdigest()


def send(house: House, sent: list[SentStudy], dice: random.Random, pool: ThreadPoolExecutor) -> list[Future[None]]:
    """Begin to send all studies, each after a while of its own."""
    return [pool.submit(_send, house, study, dice.uniform(0, LONGEST_DELAY)) for study in sent]


def _send(house: House, study: SentStudy, delay: float) -> None:
    time.sleep(delay)
    _order(house.wires["orders"].port, study)
    sender = PersistentSender(house.wires["images"].port, study.images, SENDER_SECONDS)
    try:
        sender.run()
    finally:
        study.acknowledged.update(map(str, sender.acknowledged))
    study.images.clear()


def _order(port: int, study: SentStudy) -> None:
    """The study's order, over and over until it is accepted."""
    facts, placer = study.facts, study.placer
    message = lines(
        msh("ORM^O01", "2.3.1", placer),
        f"PID|1||{facts.patient_id}||{facts.patient_name}||{facts.birth_date}|O",
        f"ORC|NW|{placer}|FI{placer}||SC||^^^20260102093000^^R",
        f"OBR|1|{placer}|FI{placer}|MRHEAD^MRI head^L||||||||||||||{facts.accession_number}",
    )
    until = time.monotonic() + HANG_SECONDS
    while not _accepted(port, block(message)):
        assert time.monotonic() < until, "the node does not take the order"
        time.sleep(LOOK_AGAIN_SECONDS)


def _accepted(port: int, data: bytes) -> bool:
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), SENDER_SECONDS) as connection:
            connection.sendall(data)
            while not answer.endswith(b"\x1c\r") and (part := connection.recv(65536)):
                answer += part
    except OSError:
        return False
    assert not answer.endswith(b"\x1c\r") or b"\rMSA|AA|" in answer, answer
    return answer.endswith(b"\x1c\r")
