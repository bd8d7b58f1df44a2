"""A person's withdrawal holds against a registry that knows nothing of it, for exactly the images that it was about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.base.errors import RetriableError
from dicom_node.base.orders import Handover, PersonsWithdrawal
from dicom_node.base.provenance import InputImage, Provenance
from dicom_node.base.types import Claim, Rejection
from dicom_node.jobs.registry import Registry
from dicom_node.withdrawn import FOLDER, forget, remember, remembered, withdraw_again
from support.studies import arrival, handover, new_registry, report

WISH = PersonsWithdrawal(Rejection.SAFETY, "tester")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


def claimed(registry: Registry, *numbers: int) -> Claim:
    registry.record_arrivals([arrival(number) for number in numbers])
    registry.close_quiet(1e6, 0, 200)
    claim = registry.claim("w", 1e9, 210)
    assert claim is not None
    return claim


def paths(claim: Claim) -> list[str]:
    return [path for _, path in claim.images]


def test_it_holds_for_the_same_images_in_any_order_and_no_others(registry: Registry, tmp_path: Path) -> None:
    claim = claimed(registry, 1, 2)
    assert remembered(tmp_path, claim) is None
    remember(tmp_path, claim.study_id, WISH, [reversed(paths(claim))], 205)
    assert remembered(tmp_path, claim) == WISH
    assert remembered(tmp_path, replace(claim, images=claim.images[:1])) is None
    forget(tmp_path, claim.study_id)
    forget(tmp_path, claim.study_id)
    assert remembered(tmp_path, claim) is None


def test_a_withdrawal_that_cannot_be_read_lets_nothing_go(registry: Registry, tmp_path: Path) -> None:
    claim = claimed(registry, 1)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{claim.study_id}.json").write_text('{"images": "1", "rejection": 2}')
    assert remembered(tmp_path, claim) is None, "of other images, in a file from before there were several"
    for content in ("", "[]", "{}", '{"images": 1, "rejection": 2}'):
        (tmp_path / FOLDER / f"{claim.study_id}.json").write_text(content)
        with pytest.raises(RetriableError):
            remembered(tmp_path, claim)


def test_a_result_that_falls_under_it_is_withdrawn_as_it_is_made_and_leaves_in_no_way(registry: Registry) -> None:
    claim = claimed(registry, 1)
    registry.finish_reported(claim, report(), Handover(withdrawn=WISH), 220)
    study = registry.study(claim.study_id)
    assert study is not None
    assert (study.state, study.reason, study.deliveries) == ("withdrawn", WISH.reason, ())
    assert [former.reason for former in study.former] == [WISH.reason]
    assert registry.withdrawals_due() == []
    assert study.level is None


def test_a_person_may_run_it_again(registry: Registry) -> None:
    claim = claimed(registry, 1)
    registry.finish_reported(claim, report(), Handover(withdrawn=WISH), 220)
    assert registry.retry(claim.study_id, 230).queued
    again = registry.claim("w", 1e9, 240)
    assert again is not None
    registry.finish_reported(again, report("1.2.3", again.revision), handover("pacs"), 250)
    study = registry.study(claim.study_id)
    assert study is not None
    assert (study.state, len(study.deliveries)) == ("reported", 1)


def reported(registry: Registry, claim: Claim, at: float) -> None:
    images = tuple(InputImage(uid, "1.2.3.1", "1.2.840.10008.1.2.1", "0", 1, path) for uid, path in claim.images)
    made = replace(report("1.2.3", claim.revision), created_at=at, provenance=Provenance({}, images))
    registry.finish_reported(claim, made, handover("pacs"), at)


def test_it_holds_in_a_registry_restored_from_before_it(registry: Registry, tmp_path: Path) -> None:
    claim = claimed(registry, 1, 2)
    withdraw_again(tmp_path, registry, 215)
    reported(registry, claim, 220)
    remember(tmp_path, claim.study_id, WISH, [reversed(paths(claim))], 230)
    withdraw_again(tmp_path, registry, 300)
    withdraw_again(tmp_path, registry, 310)
    study = registry.study(claim.study_id)
    assert study is not None
    assert (study.state, study.reason) == ("withdrawn", WISH.reason)
    assert [delivery.state for delivery in study.deliveries] == ["withdrawn"]
    assert [former.withdrawn_at for former in study.former] == [300]


def test_it_holds_for_what_a_registry_from_before_its_images_makes_later(registry: Registry, tmp_path: Path) -> None:
    """The copy knows the first result alone: it goes nowhere, nor does what is made anew with the late image."""
    first = claimed(registry, 1)
    reported(registry, first, 220)
    late = [*paths(first), arrival(2).path]
    remember(tmp_path, first.study_id, WISH, [paths(first), late], 230)
    withdraw_again(tmp_path, registry, 300)
    restored = registry.study(first.study_id)
    assert restored is not None
    assert [delivery.state for delivery in restored.deliveries] == ["withdrawn"]
    registry.record_arrivals([arrival(2)])
    registry.close_quiet(1e6, 0, 310)
    second = registry.claim("w", 1e9, 320)
    assert second is not None
    assert (second.revision, len(second.images)) == (2, 2)
    wish = remembered(tmp_path, second)
    assert wish == WISH
    registry.finish_reported(second, report("1.2.4", 2), Handover(withdrawn=wish), 330)
    study = registry.study(first.study_id)
    assert study is not None
    assert (study.state, study.reason) == ("withdrawn", WISH.reason)


@pytest.mark.parametrize(("images", "at"), [(1, 230), (2, 210)])
def test_a_result_of_other_images_or_of_later_is_not_taken_back(
    registry: Registry, tmp_path: Path, images: int, at: float
) -> None:
    claim = claimed(registry, 1, 2)
    reported(registry, claim, 220)
    remember(tmp_path, claim.study_id, WISH, [paths(claim)[:images]], at)
    withdraw_again(tmp_path, registry, 300)
    study = registry.study(claim.study_id)
    assert study is not None
    assert study.state == "reported"


def test_one_that_cannot_be_read_keeps_everything_from_being_sent(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "0123.json").write_text("[]")
    with pytest.raises(RetriableError, match=r"withdrawals/0123\.json"):
        withdraw_again(tmp_path, registry, 300)
