"""Worklist requests at the node's receiver: bounded, on the right context, and over a registry that may be away.

Does not cover: the services themselves (`test_mwl_provider.py`, `test_ups_provider.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_FIND, N_CREATE

from dicom_node.base.config import configuration_from
from dicom_node.base.workitems import UpsQuery
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom.modality_worklist import MODALITY_WORKLIST
from dicom_node.worklist.dicom.services import services_of
from dicom_node.worklist.dicom.ups_provider import UPS_PULL
from dicom_node.worklist.dicom.workitem import UPS_PUSH
from support.orders import order, placed, tell
from support.peers import AE_TITLE, CLIENT, RunningReceiver, receiver, wait_until
from support.studies import new_registry
from support.worklist_peers import association_to, found
from support.worklist_steps import scheduled

TOO_LARGE = bytes([0x08, 0x00, 0x50, 0x00]) + b"UT\0\0" + (9 << 20).to_bytes(4, "little") + bytes(9 << 20)


@contextmanager
def worklist_receiver(folder: Path, registry: Registry | None = None, **worklist: object) -> Iterator[RunningReceiver]:
    registry = registry or new_registry(folder)
    services = services_of(configuration_from({"worklist": worklist}, folder), registry)
    with receiver(folder, registry, services) as node:
        yield node


def query(**keys: str) -> Dataset:
    identifier = Dataset()
    for keyword, value in ({"AccessionNumber": "", "RequestedProcedurePriority": ""} | keys).items():
        setattr(identifier, keyword, value)
    return identifier


def request(association: Association, message: C_FIND | N_CREATE, context: str) -> int | None:
    """Send a request that pynetdicom's own methods would not; its status, None when the association ended."""
    accepted = next(one for one in association.accepted_contexts if one.abstract_syntax == context)
    message.MessageID = 7
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(message, accepted.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return None if response is None else int(response.Status)  # type: ignore[union-attr]


def find_request(sop_class: str, identifier: bytes) -> C_FIND:
    message = C_FIND()
    message.Priority = 0
    message.AffectedSOPClassUID = sop_class
    message.Identifier = BytesIO(identifier)
    return message


def test_orders_of_the_registry_are_found(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    tell(registry, placed(order(accession_number="A1", study_instance_uid="1.2.8")))
    with worklist_receiver(tmp_path, registry) as node, association_to(node.port, MODALITY_WORKLIST) as association:
        [answer] = found(association, query(AccessionNumber="A1"), MODALITY_WORKLIST)
        assert answer.RequestedProcedurePriority == "ROUTINE"
        assert found(association, query(AccessionNumber="A2"), MODALITY_WORKLIST) == []


def test_a_query_that_is_larger_than_any_is_refused_and_the_next_one_answered(tmp_path: Path) -> None:
    with worklist_receiver(tmp_path) as node, association_to(node.port, MODALITY_WORKLIST) as association:
        assert request(association, find_request(MODALITY_WORKLIST, TOO_LARGE), MODALITY_WORKLIST) == 0xA900
        assert found(association, query(), MODALITY_WORKLIST) == []


def test_a_work_item_that_is_larger_than_any_is_refused_and_the_next_one_kept(tmp_path: Path) -> None:
    with worklist_receiver(tmp_path) as node, association_to(node.port, UPS_PUSH) as association:
        message = N_CREATE()
        message.AffectedSOPClassUID, message.AffectedSOPInstanceUID = UPS_PUSH, "1.2.3"
        message.AttributeList = BytesIO(TOO_LARGE)
        assert request(association, message, UPS_PUSH) == 0x0110
        status, _ = association.send_n_create(scheduled(), UPS_PUSH, "1.2.4")
        assert status.Status == 0xB300
        assert [one.sop_instance_uid for one in node.registry.workitems(UpsQuery())] == ["1.2.4"]


@pytest.mark.parametrize("sop_class", [MODALITY_WORKLIST, UPS_PULL])
def test_a_query_on_a_storage_context_finds_nothing_and_the_node_lives_on(tmp_path: Path, sop_class: str) -> None:
    registry = new_registry(tmp_path)
    tell(registry, placed())
    with worklist_receiver(tmp_path, registry) as node:
        with association_to(node.port, MRImageStorage) as association:
            status = request(association, find_request(sop_class, data_sets.write(query())), MRImageStorage)
        # None: pynetdicom ended the association.
        assert status not in (0x0000, 0xFF00, 0xFF01)
        with association_to(node.port, MODALITY_WORKLIST) as association:
            assert len(found(association, query(), MODALITY_WORKLIST)) == 1


def test_a_cancel_without_a_query_is_taken_calmly(tmp_path: Path) -> None:
    with worklist_receiver(tmp_path) as node, association_to(node.port, MODALITY_WORKLIST) as association:
        cancel = C_CANCEL()
        cancel.MessageIDBeingRespondedTo = 9
        association.dimse.send_msg(cancel, association.accepted_contexts[0].context_id)
        assert found(association, query(), MODALITY_WORKLIST) == []


@pytest.mark.parametrize(
    ("worklist", "offered"),
    [
        ({}, [MODALITY_WORKLIST, UPS_PUSH]),
        ({"procedure_steps": False}, [MODALITY_WORKLIST]),
        ({"modality_worklist": False}, [UPS_PUSH]),
        ({"modality_worklist": False, "procedure_steps": False}, []),
    ],
)
def test_a_service_that_is_switched_off_is_not_offered(
    tmp_path: Path, worklist: dict[str, bool], offered: list[str]
) -> None:
    with worklist_receiver(tmp_path, **worklist) as node:
        entity = AE("SCU")
        for sop_class in (MODALITY_WORKLIST, UPS_PUSH, MRImageStorage):
            entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", node.port, ae_title=AE_TITLE, evt_handlers=CLIENT)
        accepted = [context.abstract_syntax for context in association.accepted_contexts]
        association.release()
    assert accepted == [*offered, MRImageStorage]


def test_a_registry_that_is_away_is_a_status_without_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = new_registry(tmp_path)

    def away(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("SELECT 'Doe^Jane'", {}, Exception("gone"))

    monkeypatch.setattr(registry, "orders", away)
    monkeypatch.setattr(registry, "workitem", away)
    with (
        worklist_receiver(tmp_path, registry) as node,
        association_to(node.port, MODALITY_WORKLIST, UPS_PUSH) as association,
    ):
        [(status, _)] = association.send_c_find(query(), MODALITY_WORKLIST)
        assert (status.Status, status.ErrorComment) == (0xA700, "the registry cannot be reached now")
        status, _ = association.send_n_create(scheduled(), UPS_PUSH, "1.2.4")
        assert (status.Status, status.ErrorComment) == (0x0213, "the registry cannot be reached now")
