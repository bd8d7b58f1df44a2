"""Storage commitment between the node's outbox, its receiver and an archive that answers as a test wants.

Does not cover: the processes of a whole node and a real archive (`test_orthanc_commitment.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT

from dicom_node.base.config import Configuration, Destination, configuration_from
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import commitments
from dicom_node.jobs.views import StudyView
from dicom_node.receiving import further_services
from dicom_node.sending import commitment
from dicom_node.sending.outbox import Outbox
from dicom_node.service import senders
from support.committing_archive import (
    ARCHIVE,
    KEPT,
    SILENT,
    SR,
    STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    CommittingArchive,
)
from support.peers import AE_TITLE, RunningReceiver, free_port, read_rows, receiver, wait_until
from support.studies import arrival, handover, report


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody in these tests answers on the association that asked, but where a test says so."""
    monkeypatch.setattr(commitment, "SAME_ASSOCIATION_SECONDS", 0.0)
    caplog.set_level(logging.CRITICAL, "pynetdicom")


class House:
    """A node's outbox and receiver over one registry, and the archive."""

    def __init__(self, folder: Path, archive: CommittingArchive, configuration: Configuration) -> None:
        self.archive = archive
        self.configuration = configuration
        self.registry = Registry(configuration.node.database_url)
        self.outbox = Outbox(configuration, self.registry, senders(configuration, self.registry), "o")
        self.uid = generate_uid()

    def make_report(self) -> None:
        """A study's report that is to be sent."""
        outgoing = self.configuration.node.outgoing
        outgoing.mkdir(parents=True)
        _write(outgoing / report().path, self.uid)
        self.registry.record_arrivals([arrival(1)])
        self.registry.close_quiet(100, 0, 130)
        claim = self.registry.claim("w", 1e12, 140)
        assert claim is not None
        self.registry.finish_reported(claim, report(), handover("pacs", path=report().path), time.time())

    @property
    def study(self) -> StudyView:
        found = self.registry.study("1.2.3")
        assert found is not None
        return found

    @property
    def state(self) -> str:
        return self.study.deliveries[0].state

    @property
    def reason(self) -> str:
        return self.study.deliveries[0].last_error or ""

    def step(self) -> bool:
        """What the outbox does next, if anything is due."""
        done = self.outbox.deliver_next(self.configuration.destinations[0])
        self.archive.settle()
        return done

    def until(self, state: str) -> None:
        """Let the outbox work until the delivery is in this state."""
        wait_until(lambda: self.state == state or (self.step() and self.state == state), f"the delivery is {state}")


def _write(path: Path, uid: str) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SR
    dataset.SOPInstanceUID = uid
    dataset.save_as(path, enforce_file_format=True)


@contextmanager
def houses(folder: Path, *, commits: bool = True, **changes: object) -> Iterator[House]:
    port = free_port()
    with CommittingArchive(port, commits=commits) as archive:
        destination = {
            "name": "pacs",
            "ae_title": ARCHIVE,
            "host": "127.0.0.1",
            "port": archive.port,
            "storage_commitment": True,
            "first_retry_seconds": 0.05,
            "max_retry_seconds": 0.1,
            "timeout_seconds": 20,
            **changes,
        }
        table = {
            "node": {"ae_title": AE_TITLE, "port": port, "storage": "sender"},
            "destinations": [destination],
        }
        configuration = configuration_from(table, folder)
        migrate(configuration.node.database_url)
        house = House(folder, archive, configuration)
        with listening(house):
            house.make_report()  # only now: a receiver asks where the images of known studies are
            yield house
        house.registry.close()


@contextmanager
def listening(house: House) -> Iterator[RunningReceiver]:
    """The node's receiver; it shares the outbox's registry, as the two processes share their database."""
    registry = Registry(house.configuration.node.database_url)
    services = further_services(house.configuration, registry)
    with receiver(house.configuration, registry, services) as running:
        yield running


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with houses(tmp_path) as made:
        yield made


def transactions(house: House) -> list[sa.Row[tuple[object, ...]]]:
    return read_rows(house.configuration, commitments)


@pytest.mark.parametrize("same_association", [False, True])
def test_delivered_only_once_the_archive_has_committed(
    house: House, same_association: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if same_association:
        monkeypatch.setattr(commitment, "SAME_ASSOCIATION_SECONDS", 600.0)
    house.archive.same_association = same_association
    seen: list[str] = []
    house.archive.before_action = lambda: seen.append(transactions(house)[-1].transaction_uid)
    assert house.step()
    assert house.state == "committing"
    house.until("delivered")
    assert house.study.state == "delivered"
    assert house.archive.stored == [house.uid]
    assert house.archive.asked == seen, "a request is written down before it goes out"
    assert house.archive.statuses == [0x0000]


def test_a_failed_commitment_sends_the_object_again(house: House) -> None:
    house.archive.answers = [0x0112, 0x0110, KEPT]
    house.until("delivered")
    assert house.archive.stored == [house.uid] * 3
    assert len(house.archive.asked) == 3
    assert house.archive.statuses == [0x0000] * 3


def test_an_archive_that_never_keeps_it_needs_a_person_and_a_person_may_try_again(house: House) -> None:
    house.archive.answers = [0x0112] * 3
    house.until("set_aside")
    assert len(house.archive.stored) == 3
    assert "no such object instance (0x0112)" in house.reason
    assert house.registry.retry(house.study.id, time.time()).deliveries == 1
    house.until("delivered")


def test_what_storing_again_cannot_change_needs_a_person_at_once(house: House) -> None:
    house.archive.answers = [0x0122]
    house.until("set_aside")
    assert house.archive.stored == [house.uid]


def test_short_resources_are_asked_about_later_and_nothing_is_sent_again(tmp_path: Path) -> None:
    with houses(tmp_path, commitment_seconds=0.2) as house:
        house.archive.answers = [0x0213] * 4
        house.until("delivered")
        assert house.archive.stored == [house.uid]
        assert len(house.archive.asked) == 5


def test_no_answer_is_asked_again_and_after_a_few_times_sent_again(tmp_path: Path) -> None:
    with houses(tmp_path, commitment_seconds=0.1) as house:
        house.archive.answers = [SILENT] * 4
        house.until("delivered")
        assert len(set(house.archive.asked)) == len(house.archive.asked) >= 5, "each is a transaction of its own"
        assert house.archive.stored == [house.uid] * 2


def test_silence_for_ever_ends_with_a_person(tmp_path: Path) -> None:
    with houses(tmp_path, commitment_seconds=0.01) as house:
        house.archive.answers = [SILENT] * 100
        house.until("set_aside")
        assert "answered none of 3 requests" in house.reason
        assert (len(house.archive.stored), len(house.archive.asked)) == (3, 9)


def test_a_late_answer_to_an_earlier_request_counts(house: House) -> None:
    house.archive.answers = [SILENT, SILENT]
    assert house.step()
    assert house.step()
    house.registry.retry(house.study.id, time.time())
    assert house.step()
    [first, _] = house.archive.asked
    assert house.archive.report(first, kept=[house.uid]) == 0x0000
    assert house.state == "delivered"


@pytest.mark.parametrize("status", [0x0110, 0x0213, 0xA700])
def test_a_busy_archive_is_asked_again(house: House, status: int) -> None:
    house.archive.action_status = status
    assert house.step()
    assert house.step()
    assert (house.state, f"{status:04X}" in house.reason) == ("committing", True)
    house.archive.action_status = 0x0000
    house.until("delivered")
    assert house.archive.stored == [house.uid]


def test_an_archive_that_refuses_the_request_needs_a_person(house: House) -> None:
    house.archive.action_status = 0x0124
    house.until("set_aside")
    assert "refused Storage Commitment (status 0x0124)" in house.reason


def test_an_archive_without_storage_commitment_needs_a_person(tmp_path: Path) -> None:
    with houses(tmp_path, commits=False) as house:
        house.until("set_aside")
        assert "takes no Storage Commitment: allow it there, or set storage_commitment = false" in house.reason


def test_once_it_is_switched_off_what_is_stored_is_delivered(house: House) -> None:
    assert house.step()
    off = Destination.model_validate(house.configuration.destinations[0].model_dump() | {"storage_commitment": False})
    configuration = house.configuration.model_copy(update={"destinations": (off,)})
    assert Outbox(configuration, house.registry, senders(configuration, house.registry), "o").deliver_next(off)
    assert house.state == "delivered"
    assert house.archive.asked == []


def test_an_asker_that_died_before_its_request_went_out_is_replaced(house: House) -> None:
    assert house.step()
    died = house.registry.claim_delivery("o-that-died", "pacs", time.time() + 600, time.time())
    assert died is not None
    house.registry.ask(died, "1.9.9", house.uid, time.time())
    assert not house.step()
    house.registry.return_deliveries("o-that-")
    house.until("delivered")
    assert "1.9.9" not in house.archive.asked
    assert len(transactions(house)) == 2


def waiting(house: House) -> str:
    """A request that the archive has not answered."""
    house.archive.answers = [SILENT]
    assert house.step()
    assert house.step()
    [transaction] = house.archive.asked
    return transaction


def test_answers_that_nobody_asked_for_change_nothing(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    transaction, archive, uid = waiting(house), house.archive, house.uid
    assert archive.report("1.2.999", kept=[uid]) == 0x0115
    assert archive.report(transaction, kept=["1.2.999"]) == 0x0115
    assert archive.report(transaction) == 0x0115
    assert archive.report(transaction, kept=[uid], calling="SOMEBODY") == 0x0115
    assert archive.report(transaction, kept=[uid], instance="1.2.3") == 0x0112
    assert archive.report(transaction, kept=[uid], event_type=3) == 0x0113
    assert (house.state, house.study.state) == ("committing", "reported")
    assert capsys.readouterr().out.count("storage commitment answer changes nothing") == 6
    assert archive.report(transaction, kept=["1.2.999", uid]) == 0x0000
    assert (house.state, house.study.state) == ("delivered", "delivered")
    assert archive.report(transaction, kept=[uid]) == 0x0000, "a repeated answer is acknowledged"
    assert archive.report(transaction, failed={uid: 0x0112}) == 0x0000
    assert (house.state, house.study.state) == ("delivered", "delivered")


@pytest.mark.parametrize(
    "information",
    [None, b"\x08\x00\x95\x11UI\xff\xff", b"nonsense" * 100, b"\x08\x00\x98\x11\x00\x00\x00\x00" * 20_000],
)
def test_an_answer_that_is_no_data_set_changes_nothing(house: House, information: bytes | None) -> None:
    waiting(house)
    request = N_EVENT_REPORT()
    request.MessageID = 7
    request.AffectedSOPClassUID = STORAGE_COMMITMENT
    request.AffectedSOPInstanceUID = WELL_KNOWN_INSTANCE
    request.EventTypeID = 1
    request.EventInformation = None if information is None else BytesIO(information)
    assert house.archive.send(request) == 0x0115
    assert house.state == "committing"


def test_the_node_is_no_archive_to_ask(house: House) -> None:
    request = N_ACTION()
    request.MessageID = 7
    request.RequestedSOPClassUID = STORAGE_COMMITMENT
    request.RequestedSOPInstanceUID = WELL_KNOWN_INSTANCE
    request.ActionTypeID = 1
    assert house.archive.send(request, role=False) is None, "the association is aborted"
    house.until("delivered")


def test_an_answer_that_overtakes_the_response_counts(house: House) -> None:
    house.archive.answers = [SILENT]
    house.archive.before_action = lambda: house.archive.report(
        transactions(house)[-1].transaction_uid, kept=[house.uid]
    )
    assert house.step()
    assert house.step()
    assert house.state == "delivered"
    assert not house.step()


def test_an_object_both_kept_and_failed_is_not_kept(house: House) -> None:
    transaction = waiting(house)
    assert house.archive.report(transaction, kept=[house.uid], failed={house.uid: 0x0110}) == 0x0000
    assert house.state == "pending"


def test_success_is_answered_only_when_the_registry_has_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = waiting(house)

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("UPDATE", {}, Exception())

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "committed", away)
        assert house.archive.report(transaction, kept=[house.uid]) == 0x0213
    assert house.state == "committing"
    assert house.archive.report(transaction, kept=[house.uid]) == 0x0000
    assert house.state == "delivered"


def test_the_archive_may_call_the_node_by_the_title_that_asked_it(tmp_path: Path) -> None:
    with houses(tmp_path, calling_ae_title="OTHER") as house:
        assert house.step()
        assert house.archive.report("1.2.999", called="OTHER") == 0x0115
        assert house.archive.report("1.2.999", called="NOBODY") is None
