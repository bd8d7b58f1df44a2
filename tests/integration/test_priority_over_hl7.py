"""The worklist's whole way with a real node: an order by HL7, its study by C-STORE, the priority back by HL7, undone.

The RIS is a socket that speaks MLLP; the model is a small bundle of random weights, and the site maps whatever its
priority head says to urgent.
"""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.jobs.worklist_tables import final_reports, messages
from dicom_node.worklist.hl7.framing import block
from support.command_line import Cli
from support.dicom_factory import StudyFacts
from support.hl7_messages import msh
from support.hl7_peers import ScriptedPeer
from support.node import Node, send, small_study
from support.peers import free_port

pytestmark = pytest.mark.slow

URGENT = {"none": "urgent", "low": "urgent", "medium": "urgent", "high": "urgent"}


@dataclass(frozen=True)
class Site:
    """A node, its RIS, and the port where the RIS sends its messages."""

    node: Node
    ris: ScriptedPeer
    hl7_port: int

    def tell(self, *segments: str) -> str:
        """Send one message as the RIS does; the code of the acknowledgement."""
        with socket.create_connection(("127.0.0.1", self.hl7_port), timeout=60) as connection:
            connection.sendall(block(("\r".join(segments) + "\r").encode()))
            answer = connection.recv(65536).decode()
        return next(line for line in answer.split("\r") if line.startswith("MSA")).split("|")[1]

    def told(self, count: int) -> list[dict[str, list[str]]]:
        """The first messages that the RIS got, as segment → fields, once there are so many."""
        self.node.wait(lambda: len(self.ris.received) >= count, f"the RIS got {count} messages")
        assert len(self.ris.received) == count
        return [
            {line.split("|")[0]: line.split("|") for line in message.decode().split("\r") if line}
            for message in self.ris.received
        ]


def accept(received: list[bytes]) -> bytes:
    """Application accept of the last message."""
    control = received[-1].decode().split("\r")[0].split("|")[9]
    return block(f"MSH|^~\\&|RIS||PRIMA||20260101||ACK|A{control}|P|2.3.1\rMSA|AA|{control}\r".encode())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[Site]:
    hl7_port = free_port()
    with ScriptedPeer(accept) as ris:
        goal = {"name": "ris", "kind": "hl7", "host": "127.0.0.1", "port": ris.port, "first_retry_seconds": 0.2}
        sections: dict[str, dict[str, Any]] = {
            "worklist": {"allow_nonclinical": True},
            "worklist.mapping": URGENT,
            "hl7": {"port": hl7_port},
        }
        folder = tmp_path_factory.mktemp("site")
        with Node(folder, random_bundle, destinations=[goal], **sections) as node:
            yield Site(node, ris, hl7_port)


def order_for(study: StudyFacts, control_id: str, priority: str = "R") -> tuple[str, ...]:
    """ORM^O01 of the study's accession number."""
    return (
        msh("ORM^O01", "2.3.1", control_id),
        f"PID|1||{study.patient_id}||{study.patient_name}||{study.birth_date}|F",
        f"ORC|NW|PL{control_id}|FI{control_id}||SC||^^^20260102093000^^{priority}",
        f"OBR|1|PL{control_id}|FI{control_id}|MRHEAD^MRI head^L||||||||||||||{study.accession_number}",
    )


def test_an_urgent_study_moves_its_order_and_a_person_can_take_it_back(site: Site, cli: Cli) -> None:
    study, node = StudyFacts(accession_number="A100"), site.node
    assert site.tell(*order_for(study, "M1")) == "AA"
    assert set(send(node.port, small_study(study))) == {0}
    [raised] = site.told(1)
    assert raised["MSH"][8] == "ORM^O01"
    assert (raised["ORC"][1], raised["ORC"][2], raised["ORC"][3]) == ("XO", "PLM1", "FIM1")
    assert raised["ORC"][7].split("^")[5] == raised["OBR"][27].split("^")[5] == "A"
    assert raised["ZDS"][1].split("^")[0] == study.study_uid
    assert "not for clinical use" in raised["NTE"][3]
    [entry] = cli("worklist", "--json", "--config", node.config).json
    assert (entry["rank"], entry["accession_number"]) == (1, study.accession_number)
    assert entry["priority"]["level"] == "urgent"
    assert [(one["destination"], one["state"]) for one in entry["deliveries"]] == [("ris", "delivered")]
    node.wait(lambda: [one["deliveries"] for one in page(node)] == [entry["deliveries"]], "the page says the same")
    undone = cli("worklist", "undo", study.study_uid, "--json", "--config", node.config)
    assert undone.json["destinations"] == ["ris"]
    _, restored = site.told(2)
    assert restored["ORC"][7].split("^")[5] == "R"


def test_a_dry_run_prints_what_is_sent_and_an_order_that_comes_late_brings_it(site: Site, cli: Cli) -> None:
    study, node = StudyFacts(accession_number="A200"), site.node
    before = len(site.ris.received)
    assert set(send(node.port, small_study(study))) == {0}
    node.wait_for_state(study.study_uid, "reported")
    nobody = cli("worklist", "dry-run", study.study_uid, "--json", "--config", node.config).json
    assert (nobody["messages"], nobody["note"]) == ([], "no order is known for this study")
    refused = cli("worklist", "undo", study.study_uid, "--config", node.config)
    assert (refused.code, "no priority" in refused.err) == (1, True)
    assert site.tell(*order_for(study, "M2")) == "AA"
    assert site.told(before + 1)[-1]["ORC"][2] == "PLM2"


def test_the_final_report_ends_the_clock_and_takes_the_study_off_the_list(site: Site, cli: Cli) -> None:
    study, node = StudyFacts(accession_number="A300"), site.node
    before = len(site.ris.received)
    assert site.tell(*order_for(study, "M3", priority="A")) == "AA"
    assert set(send(node.port, small_study(study))) == {0}
    node.wait_for_state(study.study_uid, "reported")
    assert len(site.ris.received) == before, "never lowered, never repeated"
    node.wait(lambda: study.accession_number in listed(node), "the study is listed")
    now = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    report = (
        msh("ORU^R01", "2.3.1", "M4"),
        f"PID|1||{study.patient_id}||{study.patient_name}",
        f"OBR|1|PLM3|FIM3|MRHEAD^MRI head^L||||||||||||||{study.accession_number}||||{now}|||F",
        "OBX|1|TX|18748-4^Report^LN||No acute infarct.||||||F",
    )
    assert site.tell(*report) == "AA"
    node.wait(lambda: study.accession_number not in listed(node), "the study is no longer listed")
    [kept] = node.rows(final_reports)
    assert (kept.text, kept.accession_number) == ("No acute infarct.", study.accession_number)


def test_a_message_that_means_nothing_is_kept_and_answered_with_the_reason(site: Site) -> None:
    assert site.tell(msh("ORM^O01", "2.3.1", "M9"), "PID|1||X", "ORC|CA|NOBODYS|ORDER", "OBR|1|NOBODYS|ORDER") == "AE"
    refused = [row for row in site.node.rows(messages) if row.outcome]
    assert ["cancelled" in row.outcome for row in refused] == [True]
    assert b"NOBODYS" in refused[0].content


def test_the_report_names_the_rule(site: Site) -> None:
    outgoing = site.node.configuration.node.outgoing
    texts = [
        item.TextValue
        for path in outgoing.glob("*.dcm")
        for container in dcmread(path).ContentSequence
        for item in container.get("ContentSequence", [])
        if "TextValue" in item
    ]
    assert any("-> urgent" in text for text in texts)


def test_time_to_flag_is_in_the_metrics(site: Site) -> None:
    url = f"http://127.0.0.1:{site.node.configuration.node.http_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    assert "dicom_node_flag_seconds_count 2.0" in text
    assert "dicom_node_flags_too_late_total 0.0" in text


def page(node: Node) -> list[dict[str, Any]]:
    """The list as the page's script gets it; the console may remember it for a moment."""
    url = f"http://127.0.0.1:{node.configuration.node.http_port}/worklist.json"
    with urllib.request.urlopen(url) as answer:
        entries: list[dict[str, Any]] = json.loads(answer.read())
    return entries


def listed(node: Node) -> set[str]:
    return {entry["accession_number"] for entry in page(node)}
