"""Certainty of delivery with the real Orthanc: its own storage commitment SCP, and its DICOMweb plugin for STOW-RS."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.base.config import Configuration, ReportSection, configuration_from
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import commitments, results
from dicom_node.receiving import further_services
from dicom_node.reporting.document import build_report
from dicom_node.reporting.write import write_report
from dicom_node.sending.outbox import Outbox
from dicom_node.service import senders
from support.committing_archive import ARCHIVE, KEPT, SILENT, CommittingArchive
from support.dicom_factory import StudyFacts
from support.node import Node, destination, send, small_study
from support.orthanc import ORTHANC_AE, Orthanc
from support.peers import AE_TITLE, free_port, read_rows, receiver, wait_until
from support.reports import STUDY, make_result, write_study
from support.studies import arrival, handover, report

pytestmark = [pytest.mark.peers, pytest.mark.slow]


def test_a_report_is_delivered_once_orthanc_has_committed_to_it(tmp_path: Path, random_bundle: Path) -> None:
    port = free_port()
    facts = StudyFacts()
    with Orthanc(tmp_path / "pacs", port) as pacs:
        goals = [destination("pacs", ORTHANC_AE, pacs.port, storage_commitment=True)]
        with Node(tmp_path / "node", random_bundle, destinations=goals, node={"port": port}) as node:
            assert set(send(node.port, small_study(facts))) == {0x0000}
            study = node.wait_for_state(facts.study_uid, "delivered")
            [asked] = node.rows(commitments)
            assert (asked.sop_instance_uid, asked.failure) == (study.report_uid, None)
            assert asked.answered_at >= asked.asked_at
            assert len(pacs.instances(facts.study_uid, "SR")) == 1


def test_what_orthanc_lost_before_it_committed_is_sent_again(tmp_path: Path) -> None:
    port = free_port()
    images = write_study(tmp_path, {})
    document = write_report(
        build_report(make_result(images), images, ReportSection(), datetime(2026, 1, 2, tzinfo=UTC)), tmp_path
    )
    with Orthanc(tmp_path / "pacs", port) as pacs:
        goals = [destination("pacs", ORTHANC_AE, pacs.port, storage_commitment=True)]
        table = {"node": {"ae_title": AE_TITLE, "port": port, "storage": "sender"}, "destinations": goals}
        configuration = configuration_from(table, tmp_path)
        migrate(configuration.node.database_url)
        registry, beside = (Registry(configuration.node.database_url) for _ in range(2))
        with receiver(configuration, beside, further_services(configuration, beside)):
            _make_report(configuration, registry, document.read_bytes())
            outbox = Outbox(configuration, registry, senders(configuration, registry), "o")
            [goal] = configuration.destinations
            assert outbox.deliver_next(goal)
            [first] = pacs.wait(lambda: pacs.instances(STUDY, "SR"), "the report is in the PACS")
            pacs.delete(first)
            assert outbox.deliver_next(goal)

            def done() -> bool:
                outbox.deliver_next(goal)
                found = registry.study("1.2.3")
                return found is not None and found.state == "delivered"

            wait_until(done, "the report is delivered")
            assert len(pacs.instances(STUDY, "SR")) == 1
            failures = [row.failure for row in read_rows(configuration, commitments)]
            assert len(failures) == 2
            assert "0x0112" in failures[0]
            assert failures[1] is None
        registry.close()


@pytest.mark.skipif(
    "PRIMA_LONG" not in os.environ,
    reason="half a minute of a killed node: PRIMA_LONG=1, or make long; tests/faults dies at each of these points",
)
def test_a_sender_that_is_killed_while_it_asks_asks_again(tmp_path: Path, random_bundle: Path) -> None:
    """Kill -9 once the request is written down and before it is answered; its answer is lost too."""
    port = free_port()
    facts = StudyFacts()
    with CommittingArchive(port) as archive:
        goals = [destination("pacs", ARCHIVE, archive.port, storage_commitment=True)]
        with Node(tmp_path / "node", random_bundle, destinations=goals, node={"port": port}) as node:
            archive.answers = [SILENT, KEPT]
            killed: list[int] = []

            def kill_once() -> None:
                if not killed:
                    killed.append(node.pid("scheduler"))
                    os.kill(killed[0], signal.SIGKILL)

            archive.before_action = kill_once
            send(node.port, small_study(facts))
            node.wait_for_state(facts.study_uid, "delivered")
            assert node.pid("scheduler") not in killed
            assert [row.answered_at is None for row in node.rows(commitments)] == [True, False]
            assert len(archive.stored) == 1


def test_a_study_in_its_report_arrives_by_stow_byte_by_byte(tmp_path: Path, random_bundle: Path) -> None:
    port = free_port()
    facts = StudyFacts()
    with Orthanc(tmp_path / "pacs", port, dicom_web=True) as pacs:
        goals = [{"name": "web", "kind": "stow", "url": pacs.dicom_web, "first_retry_seconds": 0.2}]
        with Node(tmp_path / "node", random_bundle, destinations=goals, node={"port": port}) as node:
            send(node.port, small_study(facts))
            study = node.wait_for_state(facts.study_uid, "delivered")
            [instance] = pacs.instances(facts.study_uid, "SR")
            [result] = node.rows(results)
            assert study.report_uid == result.sop_instance_uid
            sent = (node.configuration.node.outgoing / result.path).read_bytes()
            assert pacs.download(instance, tmp_path / "report.dcm").read_bytes() == sent


def _make_report(configuration: Configuration, registry: Registry, document: bytes) -> None:
    outgoing = configuration.node.outgoing
    outgoing.mkdir(parents=True)
    (outgoing / report().path).write_bytes(document)
    registry.record_arrivals([arrival(1)])
    registry.close_quiet(100, 0, 130)
    claim = registry.claim("w", 1e12, 140)
    assert claim is not None
    registry.finish_reported(claim, report(), handover("pacs", path=report().path), time.time())
