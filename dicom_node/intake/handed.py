"""A helper of the receiver (`intake.helpers`), from its own side: it serves the connections that it is handed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from dicom_node.base.config import Configuration
from dicom_node.base.events import Event, log
from dicom_node.intake import channel as words
from dicom_node.intake.access import LIMIT_EXCEEDED, LIMIT_OF_ONE_EXCEEDED, NO_ANSWER, NO_PLACE_ANY_MORE, Rejection
from dicom_node.intake.association import FurtherServices
from dicom_node.intake.channel import ALIVE_SECONDS, Channel, Message
from dicom_node.intake.helpers import NAME
from dicom_node.intake.serving import SWEEP_SECONDS, Serving, silence_libraries
from dicom_node.jobs.registry import Registry

SILENCE_SECONDS = 60.0  # without a word of the receiver a helper ends; others take a silent receiver for gone later
PAUSE_SECONDS = 5.0  # between two looks: this process itself was held still
REJECTIONS = {one.words: one for one in (LIMIT_EXCEEDED, LIMIT_OF_ONE_EXCEEDED, NO_PLACE_ANY_MORE)}


def serve_handed(
    channel: Channel, configuration: Configuration, registry: Registry, boot_id: str, services: FurtherServices | None
) -> None:
    """Serve until the receiver says that it is enough; where the receiver is gone this process ends at once.

    Raises ConfigurationError, RegistrarEnded.
    """
    silence_libraries()
    places = PlacesElsewhere(channel, configuration.intake.acse_timeout_seconds)
    serving = Serving(configuration, registry, boot_id, places, services)
    serving.start()
    channel.send(words.READY)
    try:
        _serve(channel, serving, places)
    finally:
        serving.stop()


class PlacesElsewhere:
    """The receiver's places. seconds: how long its answer may take."""

    def __init__(self, channel: Channel, seconds: float) -> None:
        self._channel = channel
        self._seconds = seconds
        self._questions: dict[str, _Question] = {}
        self._untold: deque[str] = deque()
        self._telling = threading.Lock()

    def take(self, association_id: str, calling_ae: str) -> Rejection | None:
        """See `Places`. Without an answer there is none."""
        question = self._questions[association_id] = _Question()
        try:
            if not self._channel.send(words.ASK, association_id, calling_ae):
                return NO_ANSWER
            if not question.answered.wait(self._seconds):
                self.give_back(association_id)
                return NO_ANSWER
            return question.rejection
        finally:
            del self._questions[association_id]

    def answer(self, association_id: str, said: str | None) -> None:
        """What the receiver says. said: words of the rejection."""
        question = self._questions.get(association_id)
        if question is not None:
            question.rejection = REJECTIONS[said] if said is not None else None
            question.answered.set()

    def give_back(self, association_id: str) -> None:
        """See `Places`."""
        self._untold.append(association_id)
        self.tell()

    def tell(self) -> None:
        """Give back what the receiver could not be told of so far."""
        with self._telling:
            while self._untold and self._channel.send(words.ENDED, self._untold[0]):
                self._untold.popleft()


@dataclass
class _Question:
    rejection: Rejection | None = None
    answered: threading.Event = field(default_factory=threading.Event)


def _serve(channel: Channel, serving: Serving, places: PlacesElsewhere) -> None:
    swept = said = 0.0
    heard = looked = time.monotonic()
    while True:
        try:
            message = channel.receive(SWEEP_SECONDS)
        except EOFError:
            # Not in order: the next receiver may be waiting, and rebuilds the rows that were not written.
            os._exit(1)
        now = time.monotonic()
        if message is not None or now - looked > PAUSE_SECONDS:
            heard = now
        looked = now
        if now - heard > SILENCE_SECONDS:
            log(Event.PROCESS_ENDED, "error", process=NAME, reason="the receiver gave no sign of life")
            os._exit(1)
        if message is not None and message.kind == words.STOP:
            return
        if message is not None:
            _take(message, serving, places)
        if now - swept > SWEEP_SECONDS:
            serving.sweep()
            places.tell()
            swept = now
        if now - said > ALIVE_SECONDS:
            channel.send(words.ALIVE)
            said = now


def _take(message: Message, serving: Serving, places: PlacesElsewhere) -> None:
    match message.kind, *message.fields:
        case words.CONNECTION, *address:
            if message.connection is None:
                reason = "connection cannot be accepted"
                log(Event.ASSOCIATION_REFUSED, "error", address=str(address[0]), reason=reason)
            else:
                serving.serve(message.connection, tuple(address))
        case words.ANSWER, association_id, said:
            places.answer(association_id, said)
