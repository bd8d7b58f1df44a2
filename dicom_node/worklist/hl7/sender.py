"""Hands messages to one destination over MLLP: one connection, kept open and restored, one message at a time.

Order is kept by the caller, who sends a study's next message only when the one before it is done.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time

from dicom_node.base.errors import PeerUnreachable
from dicom_node.base.hl7_settings import Hl7Destination
from dicom_node.worklist.hl7.acknowledgement import CommittedOnly, Meaning, judge, read_answer
from dicom_node.worklist.hl7.framing import BlockReader, MessageTooLarge, WrongFraming, block
from dicom_node.worklist.hl7.header import Header, read_header
from dicom_node.worklist.hl7.tls import client_context

MAX_ANSWER_BYTES = 1 << 20
CHUNK = 1 << 16


class _HungUp(PeerUnreachable):
    """The peer ended the connection before it answered."""


class MllpSender:
    """One destination's connection; threads may share it. Raises ConfigurationError on unusable certificates."""

    def __init__(self, destination: Hl7Destination) -> None:
        self._destination = destination
        self._context = client_context(destination.tls) if destination.tls else None
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def send(self, message: bytes) -> None:
        """Send one message and wait for the answer to it; returns only when the peer says that it has it.

        Raises PeerUnreachable (try again: same message, same control ID), PeerRefused (AE, AR, CE, CR), WrongFraming
        (the message cannot go through MLLP) or CommittedOnly (it must not be sent again).
        """
        data = block(message)
        header = read_header(message)
        with self._lock:
            before = self._connection
            connection = self._open()
            try:
                self._exchange(connection, data, header)
            except _HungUp:
                # A peer that closes after every answer may do so just as we send; the same bytes may go again.
                if connection is not before:
                    raise
                self._exchange(self._open(), data, header)

    def reach(self) -> None:
        """Open the connection and send nothing. Raises PeerUnreachable."""
        with self._lock:
            self._open()

    def close(self) -> None:
        """End the connection; the next message opens another."""
        with self._lock:
            self._drop()

    def _open(self) -> _Connection:
        if self._connection is not None and not self._connection.alive():
            self._drop()
        if self._connection is None:
            self._connection = _Connection(self._connect(), self._destination.timeout_seconds)
        return self._connection

    def _exchange(self, connection: _Connection, data: bytes, header: Header) -> None:
        try:
            connection.exchange(data, header.control_id, header.component(16) == "AL")
        except (PeerUnreachable, CommittedOnly):
            self._drop()
            raise

    def _connect(self) -> socket.socket:
        destination = self._destination
        try:
            plain = socket.create_connection((destination.host, destination.port), destination.timeout_seconds)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host name at all
            raise PeerUnreachable(f"no connection: {type(error).__name__}") from error
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None or destination.tls is None:
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=destination.tls.server_name or destination.host)
        except (OSError, ValueError) as error:
            plain.close()
            reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else type(error).__name__
            raise PeerUnreachable(f"no TLS connection: {reason}") from error

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """An open connection and what has come over it."""

    def __init__(self, peer: socket.socket, timeout: float) -> None:
        self._peer = peer
        self._timeout = timeout
        self._reader = BlockReader(MAX_ANSWER_BYTES)

    def alive(self) -> bool:
        """Whether the peer has not hung up meanwhile. Answers that came too late are thrown away."""
        self._peer.setblocking(False)
        try:
            while data := self._peer.recv(CHUNK):
                self._reader.feed(data)
                while self._reader.next() is not None:
                    pass
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except (OSError, WrongFraming, MessageTooLarge):
            return False
        return False

    def exchange(self, data: bytes, control_id: str, application_answer_asked: bool) -> None:
        """Send a block and wait for its acknowledgement."""
        try:
            self._peer.settimeout(self._timeout)
            self._peer.sendall(data)
        except TimeoutError as error:
            raise PeerUnreachable("the peer did not take the message in time") from error
        except OSError as error:
            raise _HungUp(f"the message could not be sent: {type(error).__name__}") from error
        if self._await(control_id, application_answer_asked, self._deadline()) is Meaning.DONE:
            return
        deadline = self._deadline()
        try:
            while self._await(control_id, application_answer_asked, deadline) is not Meaning.DONE:
                pass  # a commit answer once more
        except PeerUnreachable as error:
            raise CommittedOnly("the peer stored the message, but gave no application answer (MSH-16)") from error

    def close(self) -> None:
        """Hang up."""
        self._peer.close()

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _await(self, control_id: str, application_answer_asked: bool, deadline: float) -> Meaning:
        """What the next answer to this message means; answers to others are passed over."""
        while True:
            answer = read_answer(self._next(deadline))
            if answer is None:
                raise PeerUnreachable("the peer's answer is not an acknowledgement")
            meaning = judge(answer, control_id, application_answer_asked)
            if meaning is not Meaning.NOT_OURS:
                return meaning

    def _next(self, deadline: float) -> bytes:
        try:
            while (message := self._reader.next()) is None:
                self._peer.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._peer.recv(CHUNK)
                if not data:
                    raise _HungUp("the peer closed the connection without an answer")
                self._reader.feed(data)
        except TimeoutError as error:
            raise PeerUnreachable("the peer gave no answer in time") from error
        except OSError as error:
            raise _HungUp(f"the connection broke before the answer: {type(error).__name__}") from error
        except (WrongFraming, MessageTooLarge) as error:
            raise PeerUnreachable(f"the peer's answer cannot be read: {error}") from error
        if time.monotonic() > deadline:
            raise PeerUnreachable("the peer gave no answer in time")
        return message
