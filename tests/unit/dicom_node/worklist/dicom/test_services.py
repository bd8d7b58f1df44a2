"""Which messages pynetdicom may be given, and what is offered."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pynetdicom import dimse_messages as messages
from pynetdicom.dimse_messages import DIMSEMessage

from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST, ModalityWorklist
from dicom_node.worklist.dicom.services import WorklistServices, answerable
from dicom_node.worklist.dicom.ups_provider import OFFERED, UPS_PULL, UPS_QUERY, UpsProvider
from dicom_node.worklist.dicom.workitem import UPS_PUSH
from support.worklist_memory import MemoryUpsStore, Orders
from support.worklist_peers import receivers

STORAGE = "1.2.840.10008.5.1.4.1.1.4"
INSTANCE = {"RequestedSOPClassUID": UPS_PUSH, "RequestedSOPInstanceUID": "1.2.3"}


def message(kind: type[DIMSEMessage], **command: object) -> DIMSEMessage:
    made = kind()
    made.command_set = Dataset()
    for keyword, value in {"MessageID": 1, "CommandDataSetType": 1, **command}.items():
        if value is not None:
            setattr(made.command_set, keyword, value)
    return made


@pytest.mark.parametrize(
    ("kind", "command", "expected"),
    [
        (messages.C_FIND_RQ, {"AffectedSOPClassUID": MODALITY_WORKLIST, "Priority": 0}, True),
        (messages.C_FIND_RQ, {"AffectedSOPClassUID": UPS_QUERY, "Priority": 2}, True),
        (messages.C_FIND_RQ, {"AffectedSOPClassUID": UPS_PUSH, "Priority": 0}, False),
        (messages.C_FIND_RQ, {"AffectedSOPClassUID": STORAGE, "Priority": 0}, False),
        (messages.C_FIND_RQ, {"AffectedSOPClassUID": UPS_PULL}, False),
        (messages.C_FIND_RQ, {"AffectedSOPClassUID": UPS_PULL, "Priority": 0, "CommandDataSetType": 0x0101}, False),
        (messages.C_CANCEL_RQ, {"MessageIDBeingRespondedTo": 1}, True),
        (messages.C_CANCEL_RQ, {}, False),
        (messages.N_CREATE_RQ, {"AffectedSOPClassUID": UPS_PUSH, "CommandDataSetType": 0x0101}, True),
        (messages.N_CREATE_RQ, {"AffectedSOPClassUID": STORAGE}, False),
        (messages.N_CREATE_RQ, {"AffectedSOPClassUID": UPS_PUSH, "MessageID": None}, False),
        (messages.N_SET_RQ, INSTANCE, True),
        (messages.N_SET_RQ, {**INSTANCE, "CommandDataSetType": 0x0101}, False),
        (messages.N_GET_RQ, {**INSTANCE, "CommandDataSetType": 0x0101}, True),
        (messages.N_GET_RQ, {"RequestedSOPClassUID": UPS_PUSH}, False),
        (messages.N_ACTION_RQ, {**INSTANCE, "ActionTypeID": 1}, True),
        (messages.N_ACTION_RQ, INSTANCE, False),
        (messages.N_DELETE_RQ, INSTANCE, False),
        (messages.C_STORE_RQ, {"AffectedSOPClassUID": STORAGE}, False),
    ],
)
def test_answerable(kind: type[DIMSEMessage], command: dict[str, object], expected: bool) -> None:
    assert answerable(message(kind, **command)) is expected


def test_what_is_offered() -> None:
    mwl, ups = ModalityWorklist(Orders([])), UpsProvider(MemoryUpsStore(), receivers())
    for services, classes in (
        (WorklistServices(mwl, None), [MODALITY_WORKLIST]),
        (WorklistServices(None, ups), [*OFFERED]),
        (WorklistServices(mwl, ups), [MODALITY_WORKLIST, *OFFERED]),
    ):
        assert [context.abstract_syntax for context in services.contexts()] == classes
    assert len(WorklistServices(mwl, None).handlers()) == 1
    assert len(WorklistServices(mwl, ups).handlers()) == 5
