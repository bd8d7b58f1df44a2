"""A person's withdrawal holds against a registry that knows nothing of it, for exactly the images that it was about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.base.errors import RetriableError
from dicom_node.base.orders import Handover, PersonsWithdrawal
from dicom_node.base.types import Claim, Rejection
from dicom_node.jobs.registry import Registry
from dicom_node.withdrawn import FOLDER, forget, remember, remembered
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
    remember(tmp_path, claim.study_id, WISH, reversed(paths(claim)))
    assert remembered(tmp_path, claim) == WISH
    assert remembered(tmp_path, replace(claim, images=claim.images[:1])) is None
    assert remembered(tmp_path, replace(claim, revision=2)) is None, "this registry knows what came before"
    forget(tmp_path, claim.study_id)
    forget(tmp_path, claim.study_id)
    assert remembered(tmp_path, claim) is None


def test_a_withdrawal_that_cannot_be_read_lets_nothing_go(registry: Registry, tmp_path: Path) -> None:
    claim = claimed(registry, 1)
    (tmp_path / FOLDER).mkdir()
    for content in ("", "[]", "{}", '{"images": 1, "rejection": 2}'):
        (tmp_path / FOLDER / f"{claim.study_id}.json").write_text(content)
        if content == '{"images": 1, "rejection": 2}':
            assert remembered(tmp_path, claim) is None, "of other images"
            continue
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
