"""Records of where results came from: kept with the result or not at all, whole and small, on every database."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import sqlalchemy as sa

from dicom_node.base.errors import LostClaim
from dicom_node.base.provenance import InputImage, Provenance, Received
from dicom_node.base.types import Claim, Verdict, study_id
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import instances, provenance
from support.studies import MR, SR, arrival, handover, report

STUDY = study_id("1.2.3")


def claimed(registry: Registry, count: int = 3) -> Claim:
    """A claimed study of so many images, complete at 130 and claimed at 140."""
    registry.record_arrivals([arrival(number, at=100.0 + number) for number in range(1, count + 1)])
    registry.close_quiet(quiet_since=100.0 + count, opened_before=0, at=130)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    return claim


def record(received: Received) -> Provenance:
    return Provenance({"schema_version": 1, "name": 'Sch\xe4del "\\\x00\ud800'}, received.images)


def finish(registry: Registry, claim: Claim) -> Provenance:
    kept = record(registry.received(claim))
    registry.finish_reported(claim, replace(report(revision=claim.revision), provenance=kept), handover("pacs"), 150)
    return kept


def rows(registry: Registry) -> list[bytes]:
    with registry._read() as connection:
        return list(connection.scalars(sa.select(provenance.c.images)))


def test_what_was_received_is_named_with_its_digest_in_the_claims_order(registry: Registry) -> None:
    claim = claimed(registry)
    received = registry.received(claim)
    assert [(image.sop_instance_uid, image.path) for image in received.images] == list(claim.images)
    first = next(image for image in received.images if image.sop_instance_uid == "1.2.3.1.1")
    sent = arrival(1)
    assert first == InputImage(
        "1.2.3.1.1", "1.2.3.1", sent.transfer_syntax_uid, sent.digest, sent.size, sent.path, used=False
    )
    times = received.first_image_at, received.last_image_at, received.complete_at, received.claimed_at
    assert times == (101, 103, 130, 140)


def test_what_was_received_and_is_no_input_is_counted(registry: Registry) -> None:
    registry.record_arrivals([arrival(1), arrival(2), arrival(9, sop_class_uid=SR, image=False)])
    registry.record_arrivals([arrival(2, content="other"), arrival(1, path="copy.dcm")])
    registry.settle(arrival(2, content="other").path, Verdict.QUARANTINED)
    registry.close_quiet(quiet_since=100, opened_before=0, at=130)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    received = registry.received(claim)
    assert dict(received.objects) == {"current": 2, "duplicate": 1, "other": 1, "quarantined": 1}
    assert len(received.images) == 2
    assert {image.sha256 for image in received.images} == {arrival(1).digest, arrival(2).digest}


def test_a_claim_in_a_later_attempt_has_its_own_time(registry: Registry) -> None:
    first = claimed(registry)
    registry.finish_failed(first, "no", retry_at=160, at=150)
    again = registry.claim("w", 1e9, 170)
    assert again is not None
    assert registry.received(again).claimed_at == 170


def test_images_that_became_another_studys_end_the_claim(registry: Registry) -> None:
    claim = claimed(registry)
    registry.record_arrivals([arrival(1, study="1.2.4")])
    with registry._write() as connection:
        connection.execute(
            instances.update().where(instances.c.path == claim.images[0][1]).values(study_id=study_id("1.2.4"))
        )
    with pytest.raises(LostClaim):
        registry.received(claim)


def test_a_record_comes_back_as_it_was_kept(registry: Registry) -> None:
    kept = finish(registry, claimed(registry))
    found = registry.result_record(STUDY)
    assert found is not None
    assert found.provenance == kept
    assert (found.revision, found.recorded_at, found.level, found.logits) == (1, 150, "urgent", None)
    assert [(one.destination, one.state, one.delivered_at) for one in found.deliveries] == [("pacs", "pending", None)]


def test_deliveries_are_told_as_they_are_now(registry: Registry) -> None:
    finish(registry, claimed(registry))
    delivery = registry.claim_delivery("s", "pacs", 460, 400)
    assert delivery is not None
    registry.delivered(delivery, 500)
    found = registry.result_record(STUDY)
    assert found is not None
    assert [(one.state, one.attempts, one.delivered_at) for one in found.deliveries] == [("delivered", 1, 500)]


def test_a_result_that_is_thrown_away_leaves_no_record(registry: Registry) -> None:
    claim = claimed(registry)
    kept = record(registry.received(claim))
    registry.record_arrivals([arrival(4, at=145)])
    with pytest.raises(LostClaim):
        registry.finish_reported(claim, replace(report(), provenance=kept), handover("pacs"), 150)
    assert (rows(registry), registry.result_record(STUDY)) == ([], None)


def test_a_result_whose_record_cannot_be_kept_is_no_result(registry: Registry) -> None:
    claim = claimed(registry)
    with pytest.raises((sa.exc.StatementError, TypeError)):
        registry.finish_reported(
            claim, replace(report(), provenance=Provenance({"not": object()}, ())), handover("pacs"), 150
        )
    found = registry.study(STUDY)
    assert found is not None
    assert (found.state, found.deliveries, registry.result_record(STUDY)) == ("running", (), None)


def test_each_revision_has_its_own_record(registry: Registry) -> None:
    finish(registry, claimed(registry))
    registry.record_arrivals([arrival(4, at=200.0)])
    registry.close_quiet(quiet_since=200, opened_before=0, at=230)
    again = registry.claim("w", 1e9, 240)
    assert again is not None
    finish(registry, again)
    found = [registry.result_record(STUDY, revision) for revision in (1, 2, None)]
    assert [len(one.provenance.images) for one in found if one and one.provenance] == [3, 4, 4]
    assert registry.result_record(STUDY, 3) is None


def test_a_result_without_a_record_has_none(registry: Registry) -> None:
    registry.finish_reported(claimed(registry), report(), handover("pacs"), 150)
    found = registry.result_record(STUDY)
    assert found is not None
    assert (found.provenance, found.recorded_at) == (None, None)


def test_two_thousand_images_take_little_room(registry: Registry) -> None:
    claim = claimed(registry)
    images = tuple(
        InputImage(
            f"1.3.12.2.1107.5.2.32.35177.2026030110123456789{number:05}",
            f"1.3.12.2.1107.5.2.32.35177.20260301101234{number % 8}",
            MR,
            digest := hashlib.sha256(b"%d" % number).hexdigest(),
            131072,
            f"{STUDY}/{hashlib.sha256(digest.encode()).hexdigest()[:32]}.{digest[:32]}.dcm",
            used=True,
        )
        for number in range(2000)
    )
    kept = Provenance({"schema_version": 1}, images)
    registry.finish_reported(claim, replace(report(), provenance=kept), handover("pacs"), 150)
    found = registry.result_record(STUDY)
    assert found is not None
    assert found.provenance == kept
    [packed] = rows(registry)
    assert len(packed) < 200_000
