"""What is due for the audit trail: each thing once, or again when it could not be written; on every database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic import command

from dicom_node.base.audited import Due, Happened
from dicom_node.jobs.database import _alembic, migrate, open_engine
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import associations, metadata
from support.studies import MR, SR, arrival, handover, report

LIMIT = 100


def take(registry: Registry) -> list[Due]:
    with registry.audit_due(LIMIT, 500.0) as due:
        return list(due)


def kinds(due: list[Due]) -> list[Happened]:
    return [one.what for one in due]


def receive(registry: Registry) -> None:
    registry.open_association("a", "boot", "SCANNER", "192.0.2.7", 100.0)
    registry.record_arrivals([arrival(1, association_id="a"), arrival(2, association_id="a")])
    registry.record_arrivals([arrival(1, study="1.2.9", association_id="a", sop_class_uid=SR, image=False)])


def test_what_came_is_due_once_its_association_has_ended(registry: Registry) -> None:
    receive(registry)
    assert take(registry) == []
    registry.close_association("a", 110.0)
    found = take(registry)
    assert {one.study_instance_uid: one.sop_classes for one in found} == {"1.2.3": {MR: 2}, "1.2.9": {SR: 1}}
    assert {(one.what, one.peer, one.address, one.at) for one in found} == {
        (Happened.RECEIVED, "SCANNER", "192.0.2.7", 110.0)
    }
    assert all(one.example.startswith(one.study_instance_uid) for one in found)
    assert take(registry) == []


def test_associations_of_a_group_each_keep_what_is_theirs(registry: Registry) -> None:
    registry.open_associations("boot", [("a", "SCANNER", "192.0.2.7", 100.0), ("b", "ARCHIVE", "192.0.2.8", 101.0)])
    registry.record_arrivals([arrival(1, association_id="a"), arrival(2, study="1.2.9", association_id="b")])
    registry.close_associations([("a", 110.0), ("b", 111.0)])
    registry.close_associations([("a", 120.0)])  # it ended before
    assert {(one.study_instance_uid, one.peer, one.address, one.at) for one in take(registry)} == {
        ("1.2.3", "SCANNER", "192.0.2.7", 110.0),
        ("1.2.9", "ARCHIVE", "192.0.2.8", 111.0),
    }
    registry.open_associations("boot", [])
    registry.close_associations([])


@pytest.mark.parametrize("gone", ["cleaned", "lost"])
def test_what_was_sent_again_after_its_file_went_is_due_again(registry: Registry, gone: str) -> None:
    images = [arrival(number, association_id="a") for number in (1, 2)]
    registry.open_association("a", "boot", "SCANNER", "192.0.2.7", 100.0)
    registry.record_arrivals(images)
    registry.close_association("a", 110.0)
    registry.close_quiet(quiet_since=110.0, opened_before=0, at=130)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    registry.finish_reported(claim, report(), handover(), 150)
    assert kinds(take(registry)) == [Happened.RECEIVED, Happened.RESULT]
    if gone == "cleaned":
        assert registry.begin_cleaning(160, 160) is not None
    else:
        registry.mark_lost([one.path for one in images], 160)
    registry.open_association("b", "boot", "ARCHIVE", "192.0.2.8", 200.0)
    registry.record_arrivals([arrival(number, association_id="b", at=200) for number in (1, 2)])
    registry.close_association("b", 210.0)
    [due] = take(registry)
    assert (due.what, due.peer, due.at, due.sop_classes) == (Happened.RECEIVED, "ARCHIVE", 210.0, {MR: 2})


def test_what_could_not_be_written_is_due_again(registry: Registry) -> None:
    receive(registry)
    registry.close_association("a", 110.0)

    def write(due: list[Due]) -> None:
        assert len(due) == 2
        raise OSError("disk full")

    with pytest.raises(OSError, match="full"), registry.audit_due(LIMIT, 500.0) as due:
        write(due)
    assert len(take(registry)) == 2


def test_a_result_and_its_delivery_are_due_as_they_happen(registry: Registry) -> None:
    registry.record_arrivals([arrival(number) for number in range(1, 4)])
    registry.close_quiet(quiet_since=100.0, opened_before=0, at=130)
    claim = registry.claim("w", 1e9, 140)
    assert claim is not None
    registry.finish_reported(claim, report(), handover("pacs", path=report().path), 150)
    [made] = take(registry)
    assert (made.what, made.sop_classes, made.words) == (Happened.RESULT, {SR: 1}, "by model bundle (clinical)")
    delivery = registry.claim_delivery("o", "pacs", 1e9, 160)
    assert delivery is not None
    [begun] = take(registry)
    assert (begun.what, begun.peer, begun.at, begun.sop_classes) == (Happened.SENDING, "pacs", 500.0, {SR: 1})
    registry.delivered(delivery, 170)
    [sent] = take(registry)
    assert (sent.what, sent.peer, sent.at, sent.study_instance_uid) == (Happened.SENT, "pacs", 170.0, "1.2.3")
    assert take(registry) == []


def test_a_delivery_that_was_quick_is_due_as_begun_and_sent(registry: Registry) -> None:
    test_a_result_and_its_delivery_are_due_as_they_happen(registry)
    with registry._write() as connection:
        connection.execute(sa.text("UPDATE deliveries SET audited = 0"))
    assert kinds(take(registry)) == [Happened.SENDING, Happened.SENT]


def test_what_happened_before_there_was_a_trail_stays_out_of_it(database_url: str) -> None:
    command.upgrade(_alembic(database_url), "0009")
    engine = open_engine(database_url)
    old = sa.Table(
        "associations", sa.MetaData(), *(sa.Column(c.name, c.type) for c in associations.c if c.name != "audited")
    )
    with engine.execution_options(writes=True).begin() as connection:
        row = {"id": "a", "boot_id": "b", "calling_ae": "PACS", "address": "::1", "opened_at": 1.0, "closed_at": 2.0}
        connection.execute(old.insert().values(row))
    engine.dispose()
    migrate(database_url)
    registry = Registry(database_url)
    assert take(registry) == []
    registry.open_association("c", "boot", "SCANNER", "192.0.2.7", 100.0)
    registry.record_arrivals([arrival(7, association_id="c")])
    registry.close_association("c", 110.0)
    assert kinds(take(registry)) == [Happened.RECEIVED]
    registry.close()


def test_the_tables_that_can_be_due_say_so() -> None:
    assert {name for name, table in metadata.tables.items() if "audited" in table.c} == {
        "associations",
        "results",
        "deliveries",
        "model_changes",
    }
