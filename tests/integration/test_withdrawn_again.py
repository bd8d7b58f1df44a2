"""A node whose registry is lost after a person withdrew a result: rebuilt from the spool, it does not send it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.tables import deliveries
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PRIMA_LONG" not in os.environ,
        reason="half a minute of a node started twice: PRIMA_LONG=1, or make long; test_withdrawn.py has the parts",
    ),
]


def test_what_a_person_withdrew_stays_withdrawn_until_a_person_runs_it_again(
    tmp_path: Path, random_bundle: Path
) -> None:
    with Archive(tmp_path / "archive") as archive:
        goal = destination("pacs", AE_TITLE, archive.port)
        with Node(tmp_path, random_bundle, destinations=[goal]) as node:
            images = small_study(StudyFacts())
            uid = str(images[0].StudyInstanceUID)
            assert set(send(node.port, images)) == {0}
            node.wait_for_state(uid, "delivered")
            withdrawn = node.cli("withdraw", uid, "--reason", "safety")
            assert withdrawn.returncode == 0, withdrawn.stderr
            node.wait(lambda: [row.state for row in node.rows(deliveries)] == ["delivered"] * 2, "it is rejected there")
            node.stop()
            node.registry.close()
            for file in node.configuration.node.storage.glob("registry.sqlite*"):
                file.unlink()
            node.start()
            study = node.wait_for_state(uid, "withdrawn")
            assert "Safety" in (study.reason or "")
            assert node.rows(deliveries) == []
            assert node.cli("retry", uid).returncode == 0
            node.wait_for_state(uid, "delivered", revision=2)
            assert list((node.configuration.node.storage / "withdrawals").iterdir()) == []
