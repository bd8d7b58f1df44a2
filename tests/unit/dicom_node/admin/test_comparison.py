"""Agreement of two bundles in numbers, held against counts by hand and against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from dicom_node.admin.comparison import DISAGREEMENTS, compare, correlation, kappa
from dicom_node.jobs.models import Pair, Said


def pair(study: str, first: float, second: float, levels: tuple[str, str] = ("routine", "routine")) -> Pair:
    said = [
        Said({"diagnosis": {"x": logit}, "referral": {}, "priority": {}}, level)
        for logit, level in zip((first, second), levels, strict=True)
    ]
    return Pair(study, *said)


def test_counts_of_a_finding_are_those_by_hand() -> None:
    logits = [(1.0, 2.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -2.0), (3.0, 4.0)]
    compared = compare([pair(f"s{n}", *both) for n, both in enumerate(logits)])
    assert compared["studies"] == 5
    [finding] = compared["diagnosis"]
    assert {key: finding[key] for key in ("name", "both", "only_active", "only_shadow", "neither")} == {
        "name": "x",
        "both": 2,
        "only_active": 1,
        "only_shadow": 1,
        "neither": 1,
    }
    assert finding["agreement"] == 0.6
    assert finding["kappa"] == pytest.approx((0.6 - 0.52) / 0.48)
    first, second = zip(*logits, strict=True)
    assert finding["correlation"] == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert compared["referral"] == []


def test_kappa_is_scikit_learns() -> None:
    stream = np.random.default_rng(1)
    first, second = stream.integers(0, 4, 200), stream.integers(0, 4, 200)
    second = np.where(stream.random(200) < 0.5, first, second)
    table = np.zeros((4, 4), int)
    np.add.at(table, (first, second), 1)
    assert kappa(table) == pytest.approx(cohen_kappa_score(first, second))


def test_what_the_studies_do_not_decide_is_none() -> None:
    assert kappa([[0, 0], [0, 7]]) is None
    assert kappa(np.zeros((2, 2))) is None
    assert correlation(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
    assert correlation(np.array([1.0]), np.array([1.0])) is None
    empty = compare([])
    assert (empty["studies"], empty["diagnosis"], empty["disagreements"]) == (0, [], [])
    assert (empty["priority"]["agreement"], empty["priority"]["kappa"]) == (None, None)


def test_priorities_are_counted_by_level() -> None:
    levels = [("routine", "routine"), ("routine", "urgent"), ("urgent", "urgent")]
    compared = compare([pair(f"s{n}", 1, 1, both) for n, both in enumerate(levels)])["priority"]
    assert compared["confusion"]["routine"] == {"routine": 1, "elevated": 0, "urgent": 1, "critical": 0}
    assert compared["confusion"]["urgent"]["urgent"] == 1
    assert compared["agreement"] == pytest.approx(2 / 3)


def test_the_widest_disagreements_come_first_and_agreement_is_none() -> None:
    pairs = [pair(f"s{n}", 0.5, -float(n)) for n in range(1, DISAGREEMENTS + 5)] + [pair("same", 9.0, 1.0)]
    found = compare(pairs)["disagreements"]
    assert len(found) == DISAGREEMENTS
    assert found[0] == {
        "study": f"s{DISAGREEMENTS + 4}",
        "task": "diagnosis",
        "name": "x",
        "active": 0.5,
        "shadow": -float(DISAGREEMENTS + 4),
    }
    assert "same" not in {one["study"] for one in found}


def test_outputs_of_one_bundle_alone_are_named_and_not_compared() -> None:
    first = Said({"diagnosis": {"x": 1.0, "y": 1.0}, "referral": {}, "priority": {}}, "routine")
    second = Said({"diagnosis": {"z": 1.0, "x": 1.0}, "referral": {"r": 1.0}, "priority": {}}, "routine")
    compared = compare([Pair("s", first, second)])
    assert [one["name"] for one in compared["diagnosis"]] == ["x"]
    assert (compared["only_active"], compared["only_shadow"]) == (["diagnosis.y"], ["diagnosis.z", "referral.r"])
    assert json.loads(json.dumps(compared)) == compared
