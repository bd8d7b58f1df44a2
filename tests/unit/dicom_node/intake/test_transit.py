"""What is on its way is bounded, and given back on every way out."""

from __future__ import annotations

import gc
from pathlib import Path

from dicom_node.intake.incoming import Incoming
from dicom_node.intake.transit import Transit


def test_a_finalizer_that_runs_while_the_lock_is_held_waits_for_nobody() -> None:
    transit = Transit(100)
    share = transit.share("A")
    assert share.take(50)
    with transit._lock:  # as where the collector runs within `take`
        share.forget()
    assert transit.share("A").take(50)


def test_an_object_that_nobody_holds_any_more_gives_its_share_back(tmp_path: Path) -> None:
    transit = Transit(100)
    incoming = Incoming(tmp_path, 1000, transit.share("A"))
    incoming.write(bytes(50))
    assert not transit.share("A").take(1)
    del incoming
    gc.collect()
    assert transit.share("A").take(50)
