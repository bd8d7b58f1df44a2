"""Requests that the SOP class in them does not know, byte for byte: an abort, one warning, and no thread dies of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.events import Event
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.receiving import further_services
from support.peers import (
    AE_TITLE,
    RunningReceiver,
    associate_request,
    data_pdu,
    free_port,
    read_pdu,
    receiver,
    wait_until,
)
from support.raw_sender import command_set

A_ASSOCIATE_AC, A_ABORT = 0x02, 0x07
COMMAND_LAST, LAST = 0x03, 0x02
WITH_DATA_SET, NO_DATA_SET = 0x0001, 0x0101
C_STORE_RQ, C_FIND_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0020, 0x0100
IMPLICIT = "1.2.840.10008.1.2"
VERIFICATION, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.4"
MODALITY_WORKLIST, UPS_PUSH = "1.2.840.10008.5.1.4.31", "1.2.840.10008.5.1.4.34.6.1"


@pytest.fixture(scope="module", params=["all services", "storage alone"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    configuration = configured(tmp_path_factory.mktemp("node"), everything=request.param == "all services")
    registry = Registry(configuration.node.database_url)
    with receiver(configuration, registry, further_services(configuration, registry)) as running:
        yield running


def configured(folder: Path, *, everything: bool) -> Configuration:
    table: dict[str, Any] = {"node": {"ae_title": AE_TITLE, "port": free_port(), "storage": "node"}}
    table["worklist"] = {"modality_worklist": everything, "procedure_steps": everything}
    if everything:
        archive = {"name": "pacs", "ae_title": "RAW", "host": "127.0.0.1", "port": free_port()}
        table["destinations"] = [archive | {"storage_commitment": True}]
    configuration = configuration_from(table, folder)
    migrate(configuration.node.database_url)
    return configuration


def request_of(service: int, sop_class: str) -> bytes:
    """The PDUs of a request, with a data set where the service has one."""
    further = {"EventTypeID": 1} if service == N_EVENT_REPORT_RQ else {"Priority": 0}
    data_set = NO_DATA_SET if service == N_EVENT_REPORT_RQ else WITH_DATA_SET
    named = {"AffectedSOPClassUID": sop_class, "AffectedSOPInstanceUID": "1.2.3"}
    request = command_set(**named, CommandField=service, MessageID=7, CommandDataSetType=data_set, **further)
    pdus = data_pdu(COMMAND_LAST, request)
    return pdus if data_set == NO_DATA_SET else pdus + data_pdu(LAST, bytes.fromhex("0800 0500 0000 0000"))


@pytest.mark.parametrize(
    ("service", "sop_class"),
    [
        (service, sop_class)
        for service in (N_EVENT_REPORT_RQ, C_FIND_RQ, C_STORE_RQ)
        for sop_class in (MR, VERIFICATION, MODALITY_WORKLIST, UPS_PUSH, "1.2.3.4")
        if (service, sop_class) != (C_STORE_RQ, MR)
    ],
)
def test_it_aborts_with_one_warning_and_no_thread_dies(
    node: RunningReceiver, monkeypatch: pytest.MonkeyPatch, service: int, sop_class: str
) -> None:
    crashes: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)
    with capture_logs() as lines, closing(socket.create_connection(("127.0.0.1", node.port))) as connection:
        connection.sendall(associate_request(contexts=[(MR, IMPLICIT), (VERIFICATION, IMPLICIT)]))
        answer = read_pdu(connection)
        assert answer is not None
        assert answer[0] == A_ASSOCIATE_AC
        connection.sendall(request_of(service, sop_class))
        answer = read_pdu(connection)
        assert answer is None or answer[0] == A_ABORT
        wait_until(lambda: any(line["number"] == Event.ASSOCIATION_CLOSED.number for line in lines))
    assert crashes == []
    said = [line["number"] for line in lines if line["log_level"] in ("warning", "error")]
    assert said == [Event.ASSOCIATION_ABORTED.number]
