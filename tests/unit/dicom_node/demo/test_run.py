"""The demo's node ends with the demo, however that ends.

Not covered: SIGKILL, which no process can answer.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dicom_node.base.errors import PermanentError
from dicom_node.demo.run import DemoNode


def started_and(node: DemoNode, monkeypatch: pytest.MonkeyPatch, happening: BaseException | signal.Signals) -> None:
    """Let something happen while the node starts."""

    def happen() -> None:
        if isinstance(happening, BaseException):
            raise happening
        os.kill(os.getpid(), happening)
        raise AssertionError("the signal was not noticed")

    monkeypatch.setattr(node, "_wait_until_healthy", happen)
    with node:
        raise AssertionError("the node counts as started")


def test_a_node_that_does_not_become_ready_is_ended(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = DemoNode(tmp_path, random_bundle)
    with pytest.raises(PermanentError, match="not ready"):
        started_and(node, monkeypatch, PermanentError("not ready"))
    assert node._process.returncode is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_node_as_well(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    node = DemoNode(tmp_path, random_bundle)
    with pytest.raises(SystemExit) as end:
        started_and(node, monkeypatch, number)
    assert end.value.code == 128 + number
    assert node._process.returncode is not None
    assert signal.getsignal(number) is before


def test_a_folder_used_again_has_a_storage_of_its_own_for_every_node(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storages = []
    for _ in range(2):
        node = DemoNode(tmp_path, random_bundle)
        with pytest.raises(KeyboardInterrupt):
            started_and(node, monkeypatch, KeyboardInterrupt())
        storages.append(node.configuration.node.storage)
    assert len(set(storages)) == 2
    assert {storage.parent for storage in storages} == {tmp_path}
