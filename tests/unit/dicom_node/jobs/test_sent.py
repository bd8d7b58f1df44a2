"""What the registry says of objects that left the node, and which of their files nothing needs any more."""

from __future__ import annotations

import pytest

from dicom_node.base.sent import NotedObject
from dicom_node.base.types import KeyObjects, Rejection, Standing
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.rejections import KEY_OBJECT_SELECTION
from support.studies import arrival, handover, report

PATH = report().path
SENT = NotedObject(PATH, "1.2.840.10008.5.1.4.1.1.88.34", "2.25.1", "2.25.2", b"header")
LATER = 1e6


@pytest.fixture
def delivered(registry: Registry) -> Registry:
    """A study's report that one of its two destinations has, and was noted as it left."""
    registry.record_arrivals([arrival(1)])
    registry.close_quiet(LATER, 0, 200)
    claim = registry.claim("w", 1e9, 210)
    assert claim is not None
    registry.finish_reported(claim, report(), handover("first", "second", path=PATH), 220)
    deliver(registry, "first", 230)
    return registry


def deliver(registry: Registry, destination: str, at: float) -> None:
    delivery = registry.claim_delivery("o", destination, 1e9, at)
    assert delivery is not None
    registry.note_sent(delivery, SENT, at)
    registry.note_sent(delivery, SENT, at)
    registry.delivered(delivery, at)


def test_what_left_is_noted_once(delivered: Registry) -> None:
    assert (delivered.is_sent(PATH), delivered.is_sent("other.dcm")) == (True, False)
    assert delivered.sent([PATH, "other.dcm"]) == {PATH: SENT}


def test_a_file_goes_only_once_every_destination_has_it_for_long(delivered: Registry) -> None:
    assert delivered.unneeded(LATER) == [], "one destination waits"
    deliver(delivered, "second", 300)
    assert (delivered.unneeded(300), delivered.unneeded(301)) == ([], [PATH])
    delivered.bytes_deleted([PATH])
    assert delivered.unneeded(LATER) == []
    assert delivered.sent([PATH]) == {PATH: SENT}


def test_what_was_made_and_sent_again_has_a_file_to_delete_again(delivered: Registry) -> None:
    again = delivered.claim_delivery("o", "second", 1e9, 240)
    assert again is not None
    delivered.bytes_deleted([PATH])
    assert not delivered.is_sent(PATH), "who sends it again notes it again"
    delivered.note_sent(again, SENT, 300)
    delivered.delivered(again, 300)
    assert delivered.is_sent(PATH)
    assert (delivered.unneeded(300), delivered.unneeded(301)) == ([], [PATH])


def test_what_a_person_may_try_again_stays(delivered: Registry) -> None:
    delivery = delivered.claim_delivery("o", "second", 1e9, 240)
    assert delivery is not None
    delivered.set_aside(delivery, "refused")
    assert delivered.unneeded(LATER) == []


def test_what_is_not_committed_stays(delivered: Registry) -> None:
    delivery = delivered.claim_delivery("o", "second", 1e9, 240)
    assert delivery is not None
    delivered.stored(delivery, 240)
    assert delivered.unneeded(LATER) == []


def test_what_a_rejection_note_is_owed_for_stays(delivered: Registry) -> None:
    deliver(delivered, "second", 300)
    delivered.withdraw(arrival(1).study_id, Rejection.QUALITY, "tester", 310)
    assert delivered.unneeded(LATER) == []
    [due] = delivered.withdrawals_due()
    delivered.complete_withdrawal(due, {"first": "note.dcm", "second": "note.dcm"}, {}, 320)
    assert delivered.unneeded(LATER) == [PATH]


def test_with_the_images_the_results_files_expire(delivered: Registry) -> None:
    deliver(delivered, "second", 300)
    came = arrival(8, sop_class_uid=KEY_OBJECT_SELECTION, image=False)
    delivered.record_arrivals([came])
    image = ("1.2.3", "1.2.3.1", arrival(1).sop_instance_uid)
    delivered.apply_note(came.path, KeyObjects(Rejection.RETENTION, (image,)), 400)
    assert delivered.standings(arrival(1).study_id)[Standing.EXPIRED] >= 1
    assert delivered.unneeded(0) == [PATH]
