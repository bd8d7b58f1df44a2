"""What goes to a Ray actor and how studies are shared out; `tests/integration/test_ray.py` has a cluster."""

from __future__ import annotations

import dataclasses
import socket
import sys
from pathlib import Path

import pytest

from dicom_node.base.config import RaySettings, configuration_from
from dicom_node.base.errors import ConfigurationError
from dicom_node.jobs.pulse import PATIENCE_SECONDS
from dicom_node.ray_engine import RayCluster, shares, without_identifiers
from prima_core.base.types import PreparedStudy, SetAside
from support.prepared_studies import random_study


@pytest.fixture
def study() -> PreparedStudy:
    made = random_study(1).prepared
    series = tuple(
        dataclasses.replace(one, sop_instance_uids=("1.2.840.99",), notes=("a note",)) for one in made.series
    )
    return dataclasses.replace(made, series=series, set_aside=(SetAside("1.2.840.77", "why"),), age_years=47.0)


def test_what_leaves_for_an_actor_names_nobody_and_is_what_the_model_reads(study: PreparedStudy) -> None:
    bare = without_identifiers(study, 3)
    assert bare.study_instance_uid == "3"
    assert (bare.description, bare.set_aside, bare.age_years) == (study.description, (), None)
    for number, (sent, original) in enumerate(zip(bare.series, study.series, strict=True)):
        left = {"series_instance_uid": str(number), "sop_instance_uids": (), "notes": (), "affine": None}
        assert {name: getattr(sent, name) for name in left} == left
        for field in {one.name for one in dataclasses.fields(sent)} - left.keys():
            assert getattr(sent, field) is getattr(original, field), "the model reads it"


def test_studies_are_shared_out_by_their_tokens_and_none_is_left_out(study: PreparedStudy) -> None:
    short = dataclasses.replace(study, series=study.series[:1])
    studies = [study, short, short, study, short]
    parts = shares(studies, [0, 1, 2, 3, 4], 3)
    assert sorted(place for part in parts for place in part) == [0, 1, 2, 3, 4]
    tokens = [sum(studies[place].tokens_kept for place in part) for part in parts]
    assert max(tokens) - min(tokens) <= study.tokens_kept
    assert shares(studies, [2], 3).count([]) == 2


def test_a_node_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"model\.execution.*prima-node\[ray\]"):
        RayCluster(RaySettings(), "cpu", "fp32")


def test_a_cluster_that_does_not_answer_is_told_by_its_address() -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=rf"model\.ray\.address.*{address}"):
            RayCluster(RaySettings(address=address), "cpu", "fp32")


def test_only_a_cluster_that_the_machine_belongs_to_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.ray\.address"):
        configuration_from({"model": {"ray": {"address": "ray://elsewhere:10001"}}}, tmp_path)


def test_a_worker_that_waits_for_an_actor_does_not_count_as_stuck(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.ray\.start_seconds"):
        configuration_from({"model": {"ray": {"start_seconds": PATIENCE_SECONDS - 60}}}, tmp_path)
