"""The thread that lets connections in outlives what a connection does to it."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from dicom_node.intake.entrance import Entrance
from dicom_node.intake.receiver import ListenerEnded, run_receiver
from dicom_node.intake.server import AssociationServer
from dicom_node.jobs.registry import Registry
from support.peers import configuration_for, free_port, receiver, wait_until
from support.raw_sender import RawSender


def test_one_connection_without_a_thread_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = AssociationServer.process_request, []

    def scarce(self: AssociationServer, request: Any, address: Any) -> None:
        if not refused:
            refused.append(address)
            raise RuntimeError("can't start new thread")
        real(self, request, address)

    monkeypatch.setattr(AssociationServer, "process_request", scarce)
    with receiver(tmp_path) as node:
        with pytest.raises(AssertionError):
            RawSender(node.port)
        assert refused
        with RawSender(node.port) as sender:
            sender.release()


def test_a_receiver_whose_listener_ended_says_so_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a mistake in the program")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(Entrance, "asking", broken)
    configuration = configuration_for(tmp_path, free_port())
    registry = Registry(configuration.node.database_url)
    with pytest.raises(ListenerEnded):
        run_receiver(configuration, registry, threading.Event())
    registry.close()


def test_a_request_of_no_length_is_closed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    real = Entrance.asking
    monkeypatch.setattr(Entrance, "asking", lambda self, timeout: looks.append(1) or real(self, timeout))
    with receiver(tmp_path) as node, socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(struct.pack(">BxL", 1, 0))
        connection.settimeout(60)
        assert wait_until(lambda: _ended(connection))
        assert len(looks) < 100


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
