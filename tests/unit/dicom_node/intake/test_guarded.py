"""An error that ends an association's thread ends that association and nothing else."""

from __future__ import annotations

import threading

import pytest

from dicom_node.intake.guarded import guard


@pytest.mark.parametrize("broken", [True, False])
def test_an_error_ends_the_association_and_is_no_crash(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    crashes: list[object] = []
    ended: list[bool] = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)

    def work() -> None:
        if broken:
            raise AttributeError("what a peer sent")

    thread = threading.Thread(target=work)
    guard(thread, lambda: ended.append(True))
    thread.start()
    thread.join()
    assert (crashes, ended) == ([], [True] if broken else [])
