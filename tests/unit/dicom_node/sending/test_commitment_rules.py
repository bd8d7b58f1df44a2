"""What is done without a commitment, and which messages the receiver lets through to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import dimse_messages as messages
from pynetdicom.dimse_messages import DIMSEMessage

from dicom_node.base.commitments import Remedy
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.intake.access import CALLED_UNKNOWN, AccessRule
from dicom_node.intake.services import Together
from dicom_node.receiving import further_services
from dicom_node.sending.commitment_answers import STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, CommitmentAnswers
from dicom_node.sending.remedies import in_words, remedy_for
from support.studies import new_registry

REPORT = {"AffectedSOPClassUID": STORAGE_COMMITMENT, "AffectedSOPInstanceUID": WELL_KNOWN_INSTANCE, "EventTypeID": 1}


def message(kind: type[DIMSEMessage], **command: object) -> DIMSEMessage:
    made = kind()
    made.command_set = Dataset()
    for keyword, value in {"MessageID": 1, "CommandDataSetType": 1, **command}.items():
        if value is not None:
            setattr(made.command_set, keyword, value)
    return made


def configuration(folder: Path, **destination: object) -> Configuration:
    base = {"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104}
    return configuration_from({"node": {"ae_title": "PRIMA"}, "destinations": [base | destination]}, folder)


@pytest.mark.parametrize(
    ("reason", "failures", "remedy"),
    [
        (0x0112, 0, Remedy.SEND_AGAIN),
        (0x0110, 1, Remedy.SEND_AGAIN),
        (0x0112, 2, Remedy.SET_ASIDE),
        (0xC123, 0, Remedy.SEND_AGAIN),
        (None, 1, Remedy.SEND_AGAIN),
        (None, 2, Remedy.SET_ASIDE),
        (0x0119, 0, Remedy.SET_ASIDE),
        (0x0122, 0, Remedy.SET_ASIDE),
        (0x0213, 99, Remedy.ASK_AGAIN),
        (0x0131, 99, Remedy.ASK_AGAIN),
    ],
)
def test_what_is_done_without_a_commitment(reason: int | None, failures: int, remedy: Remedy) -> None:
    assert remedy_for(reason, failures) is remedy


def test_a_reason_is_said_in_words_and_as_it_came() -> None:
    assert in_words(0x0112).endswith("no such object instance (0x0112)")
    assert in_words(0xC123).endswith("failure (0xC123)")


@pytest.mark.parametrize(
    ("kind", "command", "expected"),
    [
        (messages.N_EVENT_REPORT_RQ, REPORT, True),
        (messages.N_EVENT_REPORT_RQ, {**REPORT, "CommandDataSetType": 0x0101}, True),
        (messages.N_EVENT_REPORT_RQ, {**REPORT, "MessageID": None}, False),
        (messages.N_EVENT_REPORT_RQ, {**REPORT, "EventTypeID": None}, False),
        (messages.N_EVENT_REPORT_RQ, {**REPORT, "AffectedSOPInstanceUID": None}, False),
        (messages.N_EVENT_REPORT_RQ, {**REPORT, "AffectedSOPClassUID": "1.2.840.10008.5.1.4.34.6.4"}, False),
        (messages.N_ACTION_RQ, {"RequestedSOPClassUID": STORAGE_COMMITMENT, "ActionTypeID": 1}, False),
    ],
)
def test_answerable(tmp_path: Path, kind: type[DIMSEMessage], command: dict[str, object], expected: bool) -> None:
    services = Together(CommitmentAnswers(configuration(tmp_path), new_registry(tmp_path)))
    assert services.answerable(message(kind, **command)) is expected


def test_the_context_is_offered_only_where_somebody_is_asked(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    for commits in (False, True):
        services = further_services(configuration(tmp_path, storage_commitment=commits), registry)
        assert services is not None
        offered = {context.abstract_syntax: context for context in services.contexts()}
        assert (STORAGE_COMMITMENT in offered) is commits
    assert (offered[STORAGE_COMMITMENT].scu_role, offered[STORAGE_COMMITMENT].scp_role) == (False, True)


def test_an_archive_may_call_the_node_by_the_title_that_asked_it(tmp_path: Path) -> None:
    asks = AccessRule(configuration(tmp_path, storage_commitment=True, calling_ae_title="OTHER"))
    assert asks.rejection("PACS", "127.0.0.1", "OTHER") is None
    assert asks.rejection("PACS", "127.0.0.1", "PRIMA") is None
    does_not = AccessRule(configuration(tmp_path, calling_ae_title="OTHER"))
    assert does_not.rejection("PACS", "127.0.0.1", "OTHER") is CALLED_UNKNOWN
