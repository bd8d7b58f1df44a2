"""Nodes that share a registry: who may join, whose associations are whose, and who looks after a silent node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicom_node.base.config import NodeSection
from dicom_node.base.types import StudyState, study_id
from dicom_node.jobs.database import migrate
from dicom_node.jobs.nodes import LOOKING_SECONDS, SILENT_SECONDS
from dicom_node.jobs.registry import Registry
from support.studies import arrival

A, B = NodeSection(name="a"), NodeSection(name="b")
ALIKE = {"routes": "1", "report": "2"}


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    migrate(database_url)
    opened = Registry(database_url)
    yield opened
    opened.close()


def begin(registry: Registry, node: NodeSection, at: float) -> None:
    """A node joins, and its receiver is heard of."""
    assert node.name is not None
    assert registry.join(node.name, "host", ALIKE, at) == {}
    registry.beat(node.process("receiver"), 1, "ready", at)


def receive(registry: Registry, node: NodeSection, association: str, *images: int, at: float = 100.0) -> None:
    registry.open_association(association, node.boot("run"), "PACS", "::1", at)
    registry.record_arrivals([arrival(number, at=at, association_id=association) for number in images])


def state(registry: Registry) -> str:
    [study] = registry.studies()
    return study.state


def test_a_running_node_with_other_settings_keeps_one_out_until_it_is_stopped(registry: Registry) -> None:
    begin(registry, A, 100)
    other = ALIKE | {"routes": "other", "worklist": "3"}
    assert registry.join("b", "host", other, 110) == {"a": ["routes", "worklist"]}
    registry.leave("a", 120)
    assert registry.join("b", "host", other, 121) == {}
    assert registry.join("a", "host", ALIKE, 122) == {"b": ["routes", "worklist"]}


def test_a_node_that_died_keeps_nobody_out(registry: Registry) -> None:
    begin(registry, A, 100)
    registry.beat(A.process("receiver"), 1, "ready", 500)
    assert registry.join("b", "host", {}, 500 + SILENT_SECONDS - 1) == {"a": ["report", "routes"]}
    assert registry.join("b", "host", {}, 500 + SILENT_SECONDS + 1) == {}


def test_a_receiver_closes_what_its_own_node_left_open_alone(registry: Registry) -> None:
    receive(registry, A, "of a", 1)
    receive(registry, B, "of b", 2)
    registry.close_other_boots(A.boot("new run"), 150)
    registry.close_quiet(200, 0, 200)
    assert state(registry) == StudyState.RECEIVING, "b still feeds it"
    registry.close_other_boots(B.boot("run"), 250)
    registry.close_quiet(300, 0, 300)
    assert state(registry) == StudyState.RECEIVING, "it is this very run of b that feeds it"
    registry.close_other_boots(B.boot("new run"), 350)
    registry.close_quiet(400, 0, 400)
    assert state(registry) == StudyState.COMPLETE


def test_a_node_that_is_alone_now_closes_what_any_node_left_open(registry: Registry) -> None:
    receive(registry, A, "of a", 1)
    registry.close_other_boots(NodeSection().boot("run"), 150)
    registry.close_quiet(200, 0, 200)
    assert state(registry) == StudyState.COMPLETE


def test_a_name_that_begins_like_anothers_is_not_the_other(registry: Registry) -> None:
    receive(registry, NodeSection(name="ab"), "of ab", 1)
    registry.close_other_boots(A.boot("new run"), 150)
    registry.close_quiet(200, 0, 200)
    assert state(registry) == StudyState.RECEIVING


def test_images_of_one_study_over_two_nodes_are_one_study_and_it_is_told(registry: Registry) -> None:
    receive(registry, A, "of a", 1, 2)
    receive(registry, B, "of b", 2, 3)
    assert registry.standings(study_id("1.2.3")) == {"current": 3}
    assert registry.received_by(study_id("1.2.3")) == ("a", "b")
    registry.close_association("of a", 150)
    registry.close_quiet(200, 0, 200)
    assert state(registry) == StudyState.RECEIVING
    registry.close_association("of b", 250)
    registry.close_quiet(300, 0, 300)
    claim = registry.claim("worker", 1e9, 300)
    assert claim is not None
    assert len(claim.images) == 3


def test_other_bytes_of_an_image_over_another_node_are_compared_not_mixed(registry: Registry) -> None:
    receive(registry, A, "of a", 1)
    registry.record_arrivals([arrival(1, content="other", association_id="of b")])
    assert registry.standings(study_id("1.2.3")) == {"current": 1, "disputed": 1}


def test_a_silent_node_is_looked_after_once_and_its_associations_are_closed(registry: Registry) -> None:
    begin(registry, A, 100)
    begin(registry, B, 100)
    receive(registry, B, "of b", 1)
    late = 100 + SILENT_SECONDS + 1
    assert registry.look_after("a", "a-1", 150) is None, "it was heard of just now"
    assert registry.look_after("b", "b-1", late) == "a"
    assert registry.look_after("a", "a-1", late) == "b"
    assert registry.look_after("c", "c-1", late) is None, "both are looked after"
    assert registry.looked_after("b", "a-1", late + 1) == 1
    assert registry.look_after("a", "a-1", late + 2 * LOOKING_SECONDS) is None, "once is enough"
    registry.close_quiet(late, 0, late)
    assert state(registry) == StudyState.COMPLETE


def test_who_dies_while_it_looks_after_another_is_replaced(registry: Registry) -> None:
    begin(registry, B, 100)
    late = 100 + SILENT_SECONDS + 1
    assert registry.look_after("a", "a-1", late) == "b"
    assert registry.look_after("c", "c-1", late + LOOKING_SECONDS - 1) is None
    assert registry.look_after("c", "c-1", late + LOOKING_SECONDS + 1) == "b"
    assert registry.looked_after("b", "a-1", late + LOOKING_SECONDS + 2) is None, "it is another's by now"


def test_a_node_that_comes_back_meanwhile_keeps_its_associations(registry: Registry) -> None:
    begin(registry, B, 100)
    receive(registry, B, "of b", 1)
    late = 100 + SILENT_SECONDS + 1
    assert registry.look_after("a", "a-1", late) == "b"
    registry.beat(B.process("receiver"), 1, "ready", late + 1)
    assert registry.looked_after("b", "a-1", late + 2) is None
    registry.close_quiet(late, 0, late)
    assert state(registry) == StudyState.RECEIVING
    again = late + SILENT_SECONDS + 3
    assert registry.look_after("a", "a-1", again) == "b", "and when it goes silent again it is looked after again"


def test_a_registry_has_one_identity(registry: Registry, database_url: str) -> None:
    registry.describes("folder")
    other = Registry(database_url)
    assert registry.registry_id() == other.registry_id() != ""
    other.close()
