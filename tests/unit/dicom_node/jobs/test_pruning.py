"""What is outdated is deleted in chunks and nothing that is still needed, on every database.

Does not cover: when it is done (`test_scheduler.py`).
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from dicom_node.base.orders import FinalReport, OrderAction, OrderReceived, Patient, PatientsMerged
from dicom_node.base.workitems import EventType, Subscription, UpsEvent, UpsQuery, UpsState, Workitem
from dicom_node.jobs import pruning
from dicom_node.jobs.pruning import Retention
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import associations
from dicom_node.jobs.worklist_tables import final_reports, merges, messages, orders, workitems
from support.orders import ACCESSION, UID, order, placed, receive, tell
from support.statements import counted, meanwhile

OLD, NOW = 1_000.0, 1_000_000.0
NOTHING = Retention(0.0, 1 << 40, 0.0, 0.0, 0.0, 1_000_000, 0.0)
MESSAGES = replace(NOTHING, messages=NOW)
ORDERS = replace(NOTHING, orders=NOW)
STEPS = replace(NOTHING, steps=NOW)


def count(registry: Registry, table: sa.Table) -> int:
    with registry._read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def keep(registry: Registry, content: bytes, at: float = OLD) -> int:
    return registry.keep_message(content, hashlib.sha256(content).hexdigest(), "127.0.0.1", at).id


def kept(registry: Registry) -> list[bytes]:
    with registry._read() as connection:
        return list(connection.scalars(sa.select(messages.c.content).order_by(messages.c.id)))


def prune_all(registry: Registry, retention: Retention) -> dict[str, int]:
    """Until nothing is left; how many of each kind went."""
    gone: dict[str, int] = {}
    while deleted := registry.prune(retention):
        gone = {kind: gone.get(kind, 0) + deleted.get(kind, 0) for kind in gone | deleted}
    return gone


def reported(**changes: object) -> FinalReport:
    return FinalReport(order(**changes), "normal", OLD + 500)


def test_nothing_goes_that_is_young(registry: Registry) -> None:
    tell(registry, placed(), at=OLD)
    registry.note_refusal(keep(registry, b"junk"), "no MSH")
    step(registry, 1, UpsState.COMPLETED)
    assert registry.prune(NOTHING) == {}


def test_handled_messages_go_by_age_and_others_stay(registry: Registry) -> None:
    tell(registry, at=OLD)
    registry.note_refusal(keep(registry, b"junk"), "no MSH")
    keep(registry, b"not handled yet")
    registry.note_refusal(keep(registry, b"young junk", NOW), "no MSH")
    assert prune_all(registry, MESSAGES) == {"HL7 messages": 2}
    assert kept(registry) == [b"not handled yet", b"young junk"]


def test_too_much_goes_down_to_the_bound_refused_ones_first(registry: Registry) -> None:
    tell(registry, at=OLD)
    [applied] = kept(registry)
    for number in range(4):
        registry.note_refusal(keep(registry, b"%d" % number * 1000), "no MSH")
    keep(registry, b"w" * 500)
    bound = replace(NOTHING, message_bytes=len(applied) + 500 + 2000)
    assert prune_all(registry, bound) == {"HL7 messages": 2}
    assert [content[:1] for content in kept(registry)] == [applied[:1], b"2", b"3", b"w"]
    assert prune_all(registry, replace(NOTHING, message_bytes=500)) == {"HL7 messages": 3}
    assert prune_all(registry, replace(NOTHING, message_bytes=0)) == {}, "what is not handled is never deleted"


def test_what_stays_with_its_study_takes_no_room_from_other_messages(registry: Registry) -> None:
    receive(registry)
    tell(registry, reported(), at=OLD)
    tell(registry, at=NOW)
    size = len(kept(registry)[1])
    assert prune_all(registry, replace(NOTHING, message_bytes=size)) == {}
    assert prune_all(registry, replace(NOTHING, message_bytes=size - 1)) == {"HL7 messages": 1}


def test_a_clock_that_was_wrong_for_one_message_makes_no_other_old(registry: Registry) -> None:
    registry.note_refusal(keep(registry, b"today's", NOW), "no MSH")
    tell(registry, reported(), at=NOW)
    registry.note_refusal(keep(registry, b"of 1970", 1.0), "no MSH")
    assert prune_all(registry, replace(NOTHING, messages=OLD, orders=OLD)) == {"HL7 messages": 1}
    assert (kept(registry)[0], count(registry, final_reports)) == (b"today's", 1)


def test_a_message_that_comes_again_after_its_refusal_stays_until_it_is_handled(registry: Registry) -> None:
    registry.note_refusal(keep(registry, b"junk"), "no MSH")
    again = keep(registry, b"junk", NOW)
    assert prune_all(registry, MESSAGES) == {}
    registry.note_refusal(again, "no MSH")
    assert prune_all(registry, MESSAGES) == {"HL7 messages": 1}


def test_a_message_that_comes_again_while_it_is_deleted_stays_or_is_kept_anew(registry: Registry) -> None:
    registry.note_refusal(keep(registry, b"junk"), "no MSH")
    with meanwhile(registry, "FROM messages", lambda: keep(registry, b"junk", NOW)):
        registry.prune(MESSAGES)
    assert kept(registry) == [b"junk"]


def test_while_nothing_is_outdated_nobody_has_to_wait(registry: Registry) -> None:
    tell(registry, placed(), at=OLD)
    receive(registry)
    with counted(registry) as statements:
        assert prune_all(registry, replace(NOTHING, orders=NOW)) == {}
    assert not [one for one in statements if "DELETE FROM orders" in one or "DELETE FROM final_reports" in one]


def test_chunks_are_small(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 2)
    for number in range(5):
        registry.note_refusal(keep(registry, b"%d" % number), "no MSH")
    assert [registry.prune(MESSAGES).get("HL7 messages") for _ in range(4)] == [2, 2, 1, None]


def test_an_order_whose_study_never_came_goes(registry: Registry) -> None:
    tell(registry, placed(), at=OLD)
    assert prune_all(registry, ORDERS) == {"orders": 1}
    assert count(registry, orders) == 0


@pytest.mark.parametrize("key", ["accession_number", "study_instance_uid"])
def test_an_order_stays_with_its_study(registry: Registry, key: str) -> None:
    numbers = {"accession_number": ACCESSION, "study_instance_uid": UID}
    other = {"accession_number": "", "study_instance_uid": ""} | {key: numbers[key]}
    tell(registry, placed(order(**other)), at=OLD)
    receive(registry)
    assert prune_all(registry, ORDERS) == {}
    assert count(registry, orders) == 1


def test_an_order_stays_until_its_appointment_is_long_ago(registry: Registry) -> None:
    tell(registry, placed(order(scheduled_at="20990101083000")), at=OLD)
    assert prune_all(registry, ORDERS) == {}


def test_an_order_that_was_told_of_lately_stays(registry: Registry) -> None:
    tell(registry, placed(), at=OLD)
    tell(registry, OrderReceived(order(), OrderAction.CHANGE, "XO"), at=NOW)
    assert prune_all(registry, ORDERS) == {}


def test_of_two_orders_of_one_accession_number_the_older_does_not_go_first(registry: Registry) -> None:
    tell(registry, placed(), at=OLD)
    tell(registry, placed(order(placer_order_number="PL2", filler_order_number="FI2")), at=NOW)
    assert count(registry, orders) == 2
    assert prune_all(registry, ORDERS) == {}
    assert prune_all(registry, replace(ORDERS, orders=NOW + 1)) == {"orders": 2}


def test_a_final_report_stays_with_its_study_and_so_do_its_order_and_message(registry: Registry) -> None:
    tell(registry, placed(), at=50.0)
    receive(registry)
    tell(registry, reported(), at=OLD)
    everything = replace(NOTHING, messages=NOW, orders=NOW)
    assert prune_all(registry, everything) == {"HL7 messages": 1}, "the order's own message"
    assert (count(registry, final_reports), count(registry, orders)) == (1, 1)


def test_a_report_of_no_study_goes_with_its_order_and_message(registry: Registry) -> None:
    tell(registry, placed(), at=OLD)
    tell(registry, reported(), at=OLD)
    assert count(registry, final_reports) == 1
    assert prune_all(registry, replace(ORDERS, messages=NOW)) == {"final reports": 1, "orders": 1, "HL7 messages": 2}


def test_merges_go_once_no_order_needs_them_the_last_of_a_chain_first(registry: Registry) -> None:
    for survivor, retired in (("B", "A"), ("C", "B"), ("P1", "Z")):
        tell(registry, PatientsMerged(Patient(survivor), Patient(retired)), at=OLD)
    tell(registry, placed(order(patient=Patient("C"), scheduled_at="20990101")), at=OLD)
    assert prune_all(registry, ORDERS) == {"merges": 1}
    with registry._write() as connection:
        connection.execute(orders.delete())
    assert [registry.prune(ORDERS) for _ in range(3)] == [{"merges": 1}, {"merges": 1}, {}]
    assert count(registry, merges) == 0


def step(registry: Registry, number: int, state: UpsState, at: float = OLD, **changes: object) -> str:
    """A work item that changed last at that time."""
    made = Workitem(f"1.2.840.{number}", state, "LOW", b"data set", **changes)  # type: ignore[arg-type]
    registry.create_workitem(made)
    with registry._write() as connection:
        mine = workitems.c.sop_instance_uid == made.sop_instance_uid
        connection.execute(workitems.update().where(mine).values(changed_at=at))
    return made.sop_instance_uid


def steps(registry: Registry) -> list[str]:
    return [one.sop_instance_uid[-1] for one in registry.workitems(UpsQuery())]


def test_work_items_in_final_states_go_with_their_subscriptions(registry: Registry) -> None:
    for number, state in enumerate(UpsState, 1):
        registry.subscribe(Subscription(step(registry, number, state), "A", False))
    step(registry, 5, UpsState.COMPLETED, NOW)
    assert prune_all(registry, STEPS) == {"work items": 2}
    assert steps(registry) == ["1", "2", "5"]
    assert registry.subscribers() == ["A"]


def test_a_deletion_lock_holds_a_work_item_until_it_is_taken_away_or_forgotten(registry: Registry) -> None:
    first, second = step(registry, 1, UpsState.COMPLETED), step(registry, 2, UpsState.CANCELED)
    for uid in (first, second):
        registry.subscribe(Subscription(uid, "A", True))
    assert prune_all(registry, STEPS) == {}
    registry.subscribe(Subscription(first, "A", False))
    assert prune_all(registry, STEPS) == {"work items": 1}
    assert steps(registry) == ["2"]
    assert prune_all(registry, replace(STEPS, locked_steps=NOW)) == {"work items": 1}
    assert registry.subscribers() == []


def test_a_work_item_stays_until_its_events_were_sent(registry: Registry) -> None:
    uid = step(registry, 1, UpsState.COMPLETED)
    registry.subscribe(Subscription(uid, "A", False), [UpsEvent(uid, EventType.STATE_REPORT, b"told", "A")])
    assert prune_all(registry, STEPS) == {}
    queued = registry.claim_event("A", "o", 1e12, 1e12)
    assert queued is not None
    registry.remove_event(queued)
    assert prune_all(registry, STEPS) == {"work items": 1}


def test_the_nodes_own_stays_while_its_study_may_be_listed(registry: Registry) -> None:
    receive(registry, at=100.0)
    step(registry, 1, UpsState.COMPLETED, study_instance_uid=UID)
    assert prune_all(registry, replace(STEPS, listed=100.0)) == {}
    assert prune_all(registry, replace(STEPS, listed=100.1)) == {"work items": 1}


def test_no_more_than_so_many_final_ones_are_kept_the_newest(registry: Registry) -> None:
    for number in range(1, 6):
        step(registry, number, UpsState.CANCELED, OLD + number)
    step(registry, 6, UpsState.SCHEDULED, OLD)
    assert prune_all(registry, replace(NOTHING, final_steps=2)) == {"work items": 3}
    assert steps(registry) == ["4", "5", "6"]


def test_of_work_items_that_changed_at_one_time_no_more_go_than_are_too_many(registry: Registry) -> None:
    for number in range(1, 6):
        step(registry, number, UpsState.CANCELED, OLD)
    assert prune_all(registry, replace(NOTHING, final_steps=2)) == {"work items": 3}
    assert steps(registry) == ["4", "5"]


def test_subscribing_to_what_was_deleted_does_nothing(registry: Registry) -> None:
    registry.subscribe(Subscription("1.2.840.9", "A", True), [UpsEvent("1.2.840.9", EventType.STATE_REPORT, b"t", "A")])
    assert registry.subscribers() == []
    assert registry.claim_event("A", "o", 1e12, 1e12) is None


def test_the_day_of_an_appointment_is_local() -> None:
    at = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
    assert "20260304" in str(pruning._stale(orders, at).compile(compile_kwargs={"literal_binds": True}))


def test_merges_in_a_circle_go_as_a_whole_unless_somebody_in_it_has_an_order(registry: Registry) -> None:
    def merge(retired: str, survivor: str, at: float = OLD) -> None:
        tell(registry, PatientsMerged(Patient(survivor), Patient(retired)), at=at)

    for retired, survivor in (("X1", "X2"), ("X2", "X3"), ("X3", "X1")):  # nobody's
        merge(retired, survivor)
    for retired, survivor in (("Y1", "Y2"), ("Y2", "Y3"), ("Y3", "Y1")):  # of a patient with an order
        merge(retired, survivor)
    tell(registry, placed(order(patient=Patient("Y3"))), at=NOW)
    merge("Z1", "Z2")
    merge("Z2", "Z1", at=NOW + 1)  # young
    assert prune_all(registry, ORDERS) == {"merges": 3}
    with registry._read() as connection:
        left = set(connection.scalars(sa.select(merges.c.retired_id)))
    assert left == {"Y1", "Y2", "Y3", "Z1", "Z2"}


def test_associations_go_a_while_after_their_end_and_open_ones_stay(registry: Registry) -> None:
    for name, closed in (("old", OLD), ("young", NOW), ("open", None)):
        registry.open_association(name, "boot", "PACS", "127.0.0.1", OLD)
        if closed is not None:
            registry.close_association(name, closed)
    assert prune_all(registry, replace(NOTHING, associations=NOW)) == {"associations": 1}
    assert count(registry, associations) == 2


def test_associations_that_the_audit_trail_lacks_stay_where_there_is_one(registry: Registry) -> None:
    registry.open_association("old", "boot", "PACS", "127.0.0.1", OLD)
    registry.close_association("old", OLD)
    keeping = replace(NOTHING, associations=NOW, audited=True)
    assert prune_all(registry, keeping) == {}
    with registry.audit_due(10, NOW):
        pass
    assert prune_all(registry, keeping) == {"associations": 1}


def test_a_round_looks_at_a_part_of_what_stays_and_the_next_at_what_is_behind_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "WINDOW", 2)
    receive(registry)
    tell(registry, placed(), at=OLD)  # stays with its study
    for number in range(2, 6):
        young = number == 4
        other = order(
            accession_number=f"A{number}", placer_order_number=f"PL{number}", filler_order_number=f"FI{number}"
        )
        tell(registry, placed(other), at=NOW if young else OLD)
    gone = [registry.prune(ORDERS).get("orders", 0) for _ in range(8)]
    assert (sum(gone), count(registry, orders)) == (3, 2)
    assert gone.count(0) >= 3, "a window without anything to delete ends the round"


def test_a_message_goes_once_the_report_in_it_has(registry: Registry) -> None:
    tell(registry, reported(), at=OLD)  # of no study
    everything = replace(NOTHING, messages=NOW, orders=NOW)
    assert prune_all(registry, everything) == {"final reports": 1, "HL7 messages": 1}
