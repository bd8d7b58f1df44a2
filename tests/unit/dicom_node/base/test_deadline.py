"""A deadline ends whatever waits on a socket, and nothing after its block.

Does not cover TLS: `tests/unit/dicom_node/sending/test_stow.py`.
"""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from dicom_node.base.deadline import Deadline
from dicom_node.demo.ports import free_ports


def test_a_read_and_a_write_that_wait_end() -> None:
    for wait in (lambda peer: peer.recv(1), lambda peer: peer.sendall(bytes(32 << 20))):
        ours, theirs = socket.socketpair()
        with ours, theirs, Deadline(0.05) as deadline:
            deadline.watch(ours)
            with contextlib.suppress(BrokenPipeError):
                assert wait(ours) == b""
            assert deadline.passed


def test_a_socket_that_comes_too_late_is_shut_down_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Deadline(0.0) as deadline:
        while not deadline.passed:
            time.sleep(0.001)
        deadline.watch(ours)
        assert ours.recv(1) == b""
        assert deadline.remaining(5.0) == 0.001


def test_what_is_still_open_after_the_block_stays_open() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        deadline = Deadline(0.05)
        with deadline:
            deadline.watch(ours)
        deadline._end()  # a timer that fired just then
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
        assert not deadline.passed


def test_a_host_that_nobody_is_at_is_an_error() -> None:
    [port] = free_ports(1)
    with Deadline(5) as deadline:
        with pytest.raises(ConnectionRefusedError):
            deadline.connect("127.0.0.1", port, 5)
        with pytest.raises(socket.gaierror):
            deadline.connect("no-such-host.invalid", port, 5)
