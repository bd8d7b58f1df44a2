"""UPS SCP over real associations: every service, statuses, events and hostile requests; DCMTK's findscu asks as well.

Does not cover the registry: work items are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE
from pynetdicom.sop_class import UnifiedProcedureStepEvent

from dicom_node.base.errors import PeerBusy, PeerRefused, PeerUnreachable, RetriableError
from dicom_node.base.ups_settings import Subscriber
from dicom_node.base.workitems import (
    EventType,
    StaleWorkitem,
    Subscription,
    UpsEvent,
    UpsLimits,
    UpsQuery,
    UpsState,
    Workitem,
)
from dicom_node.worklist.dicom import dataset as data_sets
from dicom_node.worklist.dicom.ups_events import (
    GLOBAL_SUBSCRIPTION,
    provider_status,
    send_event,
    state_report,
)
from dicom_node.worklist.dicom.ups_provider import (
    FILTERED_GLOBAL_SUBSCRIPTION,
    NO_MORE_THAN,
    UPS_PULL,
    UPS_QUERY,
    UPS_WATCH,
    UpsProvider,
)
from dicom_node.worklist.dicom.workitem import UPS_PUSH, attributes_of, with_state
from support.peers import AE_TITLE, free_port, run_dcmtk
from support.worklist_memory import MemoryUpsStore
from support.worklist_peers import association_to, found, receivers, served
from support.worklist_steps import performed, progress, scheduled, state_change, subscription

LOCK = "1.2.3.4"
UID = "1.2.840.1"
ALL = (UPS_PUSH, UPS_PULL, UPS_WATCH, UPS_QUERY)
STATES = ("null", "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")


class Peer:
    """One association to the provider, spoken in verbs."""

    def __init__(self, association: Association, store: MemoryUpsStore) -> None:
        self.association = association
        self.store = store

    def create(self, attributes: Dataset | None, uid: str | None = UID) -> Dataset:
        status, _ = self.association.send_n_create(attributes, UPS_PUSH, uid)
        return status

    def set(self, modification: Dataset, uid: str = UID) -> Dataset:
        status, _ = self.association.send_n_set(modification, UPS_PUSH, uid, meta_uid=UPS_PULL)
        return status

    def get(self, *keywords: str, uid: str = UID) -> tuple[Dataset, Dataset | None]:
        tags = [Tag(keyword) for keyword in keywords]
        answer: tuple[Dataset, Dataset | None] = self.association.send_n_get(tags, UPS_PUSH, uid, meta_uid=UPS_PULL)
        return answer

    def act(self, kind: int, information: Dataset | None, uid: str = UID) -> Dataset:
        context = UPS_PULL if kind == 1 else UPS_WATCH
        status, _ = self.association.send_n_action(information, kind, UPS_PUSH, uid, meta_uid=context)
        return status

    def bring_to(self, state: str) -> None:
        """A work item in this state, by the services alone."""
        if state == "null":
            return
        assert self.create(scheduled()).Status in (0x0000, 0xB300)
        if state == "SCHEDULED":
            return
        assert self.act(1, state_change("IN PROGRESS")).Status == 0x0000
        if state == "COMPLETED":
            assert self.set(performed()).Status == 0x0000
        if state != "IN PROGRESS":
            assert self.act(1, state_change(state)).Status == 0x0000

    def queued(self) -> list[tuple[str, EventType]]:
        return [(receiver, event.type) for receiver, event in self.store.queued]


@contextmanager
def provider(store: MemoryUpsStore | None = None, limits: UpsLimits = NO_MORE_THAN) -> Iterator[Peer]:
    store = store or MemoryUpsStore()
    with (
        served(ups=UpsProvider(store, receivers("WATCHER", "READER"), limits=limits)) as peer,
        association_to(peer.port, *ALL, calling="RIS") as association,
    ):
        yield Peer(association, store)


def uids(answers: list[Dataset]) -> list[str]:
    return sorted(str(answer.SOPInstanceUID) for answer in answers)


#: The same cells as the unit test's table, now by messages: (event) → statuses in STATES' order.
CELLS = {
    ("IN PROGRESS", LOCK): (0xC307, 0x0000, 0xC302, 0xC300, 0xC300),
    ("IN PROGRESS", ""): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    ("SCHEDULED", LOCK): (0xC307, 0xC303, 0xC303, 0xC303, 0xC303),
    ("COMPLETED", LOCK): (0xC307, 0xC310, 0xC304, 0xB306, 0xC300),
    ("COMPLETED", "9.9"): (0xC307, 0xC310, 0xC301, 0xC301, 0xC301),
    ("CANCELED", LOCK): (0xC307, 0xC310, 0x0000, 0xC300, 0xB304),
    ("CANCELED", ""): (0xC307, 0xC301, 0xC301, 0xC301, 0xC301),
    "cancel": (0xC307, 0x0000, 0xC312, 0xC311, 0xB304),
    "create": (0xB300, 0x0111, 0x0111, 0x0111, 0x0111),
    "set": (0xC307, 0x0000, 0xC301, 0xC300, 0xC300),
    "set with lock": (0xC307, 0xC310, 0x0000, 0xC300, 0xC300),
}


@pytest.mark.parametrize("event", CELLS, ids=str)
def test_every_cell_of_the_state_table_by_messages(event: str | tuple[str, str]) -> None:
    with provider() as peer:
        for state, expected in zip(STATES, CELLS[event], strict=True):
            peer.store.clear()
            peer.bring_to(state)
            if event == "cancel":
                status = peer.act(2, None)
            elif event == "create":
                status = peer.create(scheduled())
            elif event == "set":
                status = peer.set(progress("1", ""))
            elif event == "set with lock":
                status = peer.set(progress("1"))
            else:
                status = peer.act(1, state_change(*event))
            assert status.Status == expected, f"{state}: 0x{status.Status:04X} {status.get('ErrorComment')}"


def test_one_step_from_creation_to_completion() -> None:
    with provider() as peer:
        assert peer.create(scheduled()).Status == 0xB300
        assert peer.act(1, state_change("IN PROGRESS")).Status == 0x0000
        assert peer.set(progress("50")).Status == 0x0000
        assert peer.set(performed()).Status == 0x0000
        assert peer.act(1, state_change("COMPLETED")).Status == 0x0000
        status, attributes = peer.get("ProcedureStepState", "PatientName", "ProcedureStepProgressInformationSequence")
    assert status.Status == 0x0000
    assert attributes is not None
    assert (attributes.ProcedureStepState, str(attributes.PatientName)) == ("COMPLETED", "Doe^Jane")
    assert attributes.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 50


def test_a_complete_creation_has_no_modifications() -> None:
    complete = scheduled()
    for keyword in (
        *("PatientBirthDate", "PatientSex", "IssuerOfPatientID", "AdmissionID", "AdmittingDiagnosesDescription"),
        *("CommentsOnTheScheduledProcedureStep", "StudyInstanceUID", "TransactionUID"),
    ):
        setattr(complete, keyword, "")
    for keyword in (
        *("ScheduledProcessingParametersSequence", "ScheduledStationNameCodeSequence", "InputInformationSequence"),
        *("ScheduledStationClassCodeSequence", "ScheduledStationGeographicLocationCodeSequence"),
        *("IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "IssuerOfAdmissionIDSequence"),
        *("AdmittingDiagnosesCodeSequence", "ProcedureStepProgressInformationSequence"),
        "UnifiedProcedureStepPerformedProcedureSequence",
    ):
        setattr(complete, keyword, [])
    with provider() as peer:
        assert peer.create(complete).Status == 0x0000


def test_a_get_never_returns_the_lock() -> None:
    with provider() as peer:
        peer.bring_to("IN PROGRESS")
        status, attributes = peer.get("TransactionUID", "PatientID")
        assert status.Status == 0x0001
        assert attributes is not None
        assert {element.keyword for element in attributes} == {"PatientID"}
        status, attributes = peer.get(uid="1.2.9")
        assert (status.Status, attributes) == (0xC307, None)


def test_a_second_performer_does_not_get_the_step() -> None:
    with provider() as peer:
        peer.bring_to("IN PROGRESS")
        assert peer.act(1, state_change("IN PROGRESS", "9.9.9")).Status == 0xC301
        assert peer.set(progress("1", "9.9.9")).Status == 0xC301
        assert peer.store.kept[UID].transaction_uid == LOCK


def test_success_is_answered_after_the_store_has_it() -> None:
    class Failing(MemoryUpsStore):
        def update_workitem(self, workitem: Workitem, expected_version: int, events: object = ()) -> None:
            raise RetriableError("the database is busy")

    with provider(Failing()) as peer:
        peer.bring_to("SCHEDULED")
        status = peer.act(1, state_change("IN PROGRESS"))
        assert (status.Status, status.ErrorComment) == (0x0213, "the database is busy")
        assert peer.store.kept[UID].state == "SCHEDULED"


def test_a_change_that_came_second_is_judged_anew() -> None:
    class Overtaken(MemoryUpsStore):
        """Somebody else claims the step just before the first update."""

        def update_workitem(self, workitem: Workitem, expected_version: int, events: object = ()) -> None:
            if self.kept[UID].version == 1:
                claimed = self.kept[UID]
                self.kept[UID] = Workitem(UID, "IN PROGRESS", "LOW", claimed.encoded, "9.9.9", 2)  # type: ignore[arg-type]
                raise StaleWorkitem("too late")
            raise AssertionError("judged by what it was before")

    with provider(Overtaken()) as peer:
        peer.bring_to("SCHEDULED")
        assert peer.act(1, state_change("IN PROGRESS")).Status == 0xC301


def steps(peer: Peer) -> None:
    made = (
        scheduled("1.2.1", "A1", "HIGH", PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100"),
        scheduled("1.2.2", "A2", "MEDIUM", ScheduledProcedureStepStartDateTime="20260106090000+0100"),
        scheduled("1.2.3", "A3", "LOW", PatientID="ID3"),
    )
    for number, attributes in enumerate(made, 1):
        assert peer.create(attributes, f"1.2.840.{number}").Status == 0xB300


def asked(**values: object) -> Dataset:
    query = Dataset()
    query.SOPInstanceUID = ""
    for keyword, value in values.items():
        setattr(query, keyword, value)
    return query


def by_request(**values: object) -> Dataset:
    request = Dataset()
    for keyword, value in values.items():
        setattr(request, keyword, value)
    return asked(ReferencedRequestSequence=[request])


FINDS = {
    "universal": (asked(), "123"),
    "state": (asked(ProcedureStepState="SCHEDULED"), "123"),
    "other state": (asked(ProcedureStepState="IN PROGRESS"), ""),
    "priority": (asked(ScheduledProcedureStepPriority="MEDIUM"), "2"),
    "accession": (by_request(AccessionNumber="A2"), "2"),
    "study": (by_request(StudyInstanceUID="1.2.3"), "3"),
    "label": (asked(WorklistLabel="Read*"), "123"),
    "name": (asked(PatientName="müller*", SpecificCharacterSet="ISO_IR 192"), "1"),
    "start": (asked(ScheduledProcedureStepStartDateTime="20260106-20260107"), "2"),
    "uid": (asked(SOPInstanceUID="1.2.840.3"), "3"),
    "no such attribute has a value": (asked(AdmissionID="7"), ""),
    "lock is never matched": (asked(TransactionUID="1.2"), "123"),
}


@pytest.mark.parametrize("model", [UPS_PULL, UPS_WATCH, UPS_QUERY])
def test_find(model: str) -> None:
    with provider() as peer:
        steps(peer)
        for name, (query, expected) in FINDS.items():
            answers = found(peer.association, query, model)
            assert uids(answers) == [f"1.2.840.{number}" for number in expected], name
            assert all("TransactionUID" not in answer for answer in answers)
        (answer,) = found(peer.association, asked(SOPClassUID="", PatientName="M*"), model)
        assert answer.SOPClassUID == UPS_PUSH
        assert (answer.SpecificCharacterSet, str(answer.PatientName)) == ("ISO_IR 192", "Müller^Jörg")


@pytest.mark.peers
def test_dcmtk_asks() -> None:
    """findscu has no UPS models: it speaks Modality Worklist only, so it must be refused here, and calmly."""
    with served(ups=UpsProvider(MemoryUpsStore(), receivers())) as peer:
        done = run_dcmtk("findscu", "-W", "-aec", AE_TITLE, "127.0.0.1", peer.port, "-k", "PatientName")
        assert "No Acceptable Presentation Contexts" in done.stdout
        with association_to(peer.port, UPS_QUERY) as association:
            assert found(association, asked(), UPS_QUERY) == []


def test_a_subscriber_is_told_of_each_change() -> None:
    with provider() as peer:
        peer.bring_to("SCHEDULED")
        assert peer.queued() == []
        assert peer.act(3, subscription()).Status == 0x0000
        peer.act(1, state_change("IN PROGRESS"))
        peer.set(progress("50"))
        peer.act(1, state_change("CANCELED"))
        assert peer.queued() == [
            ("WATCHER", EventType.STATE_REPORT),
            ("WATCHER", EventType.STATE_REPORT),
            ("WATCHER", EventType.PROGRESS_REPORT),
            ("WATCHER", EventType.STATE_REPORT),
        ]
        said = [data_sets.read(event.information).get("ProcedureStepState") for _, event in peer.store.queued]
        assert said == ["SCHEDULED", "IN PROGRESS", None, "CANCELED"]


def test_a_cancel_request_reaches_the_performer_or_is_done_here() -> None:
    with provider() as peer:
        peer.bring_to("IN PROGRESS")
        peer.act(3, subscription())
        reason = Dataset()
        reason.ReasonForCancellation = "duplicate"
        assert peer.act(2, reason).Status == 0x0000
        said = data_sets.read(peer.store.queued[-1][1].information)
        assert (said.RequestingAE, said.ReasonForCancellation) == ("RIS", "duplicate")
        assert peer.store.kept[UID].state == "IN PROGRESS"
    with provider() as peer:
        peer.bring_to("SCHEDULED")
        peer.act(3, subscription())
        assert peer.act(2, reason).Status == 0x0000
        canceled = peer.store.kept[UID]
        assert canceled.state == "CANCELED"
        (item,) = attributes_of(canceled).ProcedureStepProgressInformationSequence
        assert item.ReasonForCancellation == "duplicate"
        said = [data_sets.read(event.information).ProcedureStepState for _, event in peer.store.queued[1:]]
        assert said == ["IN PROGRESS", "CANCELED"]


def test_a_push_user_may_request_a_cancel() -> None:
    store = MemoryUpsStore()
    provides = UpsProvider(store, receivers())
    with served(ups=provides) as served_peer, association_to(served_peer.port, UPS_PUSH) as association:
        association.send_n_create(scheduled(), UPS_PUSH, UID)
        status, _ = association.send_n_action(None, 2, UPS_PUSH, UID)
        assert (status.Status, store.kept[UID].state) == (0x0000, "CANCELED")
        status, _ = association.send_n_action(state_change("IN PROGRESS"), 1, UPS_PUSH, UID)
        assert status.Status == 0x0123
        status, _ = association.send_n_set(progress("1"), UPS_PUSH, UID)
        assert status.Status == 0x0211


#: Table CC.2.3-2: subscription before (None, lock or not) → action → (subscription after, told at once).
SUBSCRIBES = {
    "with lock": (3, "TRUE", UID),
    "without lock": (3, "FALSE", UID),
    "globally with lock": (3, "TRUE", GLOBAL_SUBSCRIPTION),
    "globally without lock": (3, "FALSE", GLOBAL_SUBSCRIPTION),
    "unsubscribe": (4, "", UID),
    "unsubscribe globally": (4, "", GLOBAL_SUBSCRIPTION),
    "suspend": (5, "", GLOBAL_SUBSCRIPTION),
}
AFTER = {
    ("with lock", None): (True, True),
    ("with lock", True): (True, True),
    ("with lock", False): (True, True),
    ("without lock", None): (False, True),
    ("without lock", True): (False, True),
    ("without lock", False): (False, True),
    ("globally with lock", None): (True, True),
    ("globally with lock", True): (True, False),
    ("globally with lock", False): (False, False),
    ("globally without lock", None): (False, False),
    ("globally without lock", True): (True, False),
    ("globally without lock", False): (False, False),
    ("unsubscribe", None): (None, False),
    ("unsubscribe", True): (None, False),
    ("unsubscribe", False): (None, False),
    ("unsubscribe globally", None): (None, False),
    ("unsubscribe globally", True): (None, False),
    ("unsubscribe globally", False): (None, False),
    ("suspend", None): (None, False),
    ("suspend", True): (True, False),
    ("suspend", False): (False, False),
}


def test_every_cell_of_the_subscription_table() -> None:
    with provider() as peer:
        for (action, before), (after, told) in AFTER.items():
            peer.store.clear()
            peer.bring_to("SCHEDULED")
            if before is not None:
                peer.act(3, subscription(lock="TRUE" if before else "FALSE"))
            queued = len(peer.store.queued)
            kind, lock, uid = SUBSCRIBES[action]
            assert peer.act(kind, subscription(lock=lock), uid).Status == 0x0000
            now = peer.store.subscriptions.get((UID, "WATCHER"))
            assert (now and now.deletion_lock, len(peer.store.queued) > queued) == (after, told), (action, before)


@pytest.mark.parametrize(("lock", "granted"), [("TRUE", True), ("FALSE", False)])
def test_a_global_subscriber_is_subscribed_to_what_is_created_later(lock: str, granted: bool) -> None:
    with provider() as peer:
        peer.act(3, subscription(lock=lock), GLOBAL_SUBSCRIPTION)
        peer.bring_to("SCHEDULED")
        assert peer.store.subscriptions[UID, "WATCHER"].deletion_lock is granted
        assert peer.queued() == [("WATCHER", EventType.STATE_REPORT)]
        peer.act(5, subscription(), GLOBAL_SUBSCRIPTION)
        peer.create(scheduled(), "1.2.840.2")
        assert ("1.2.840.2", "WATCHER") not in peer.store.subscriptions
        assert (UID, "WATCHER") in peer.store.subscriptions


def test_a_filtered_subscriber_gets_what_its_keys_match() -> None:
    with provider() as peer:
        steps(peer)
        keys = subscription(lock="TRUE", ScheduledProcedureStepPriority="HIGH")
        assert peer.act(3, keys, FILTERED_GLOBAL_SUBSCRIPTION).Status == 0x0000
        peer.create(scheduled("1.2.5", "A5", "HIGH"), "1.2.840.5")
        peer.create(scheduled("1.2.6", "A6", "LOW"), "1.2.840.6")
        assert sorted(uid for uid, _ in peer.store.subscriptions) == ["1.2.840.1", "1.2.840.5"]


def test_who_subscribes_globally_during_a_creation_misses_nothing() -> None:
    class Racing(MemoryUpsStore):
        """A global subscription arrives, and has looked at all there is, just before the work item is kept."""

        def create_workitem(self, workitem: Workitem, subscriptions: object = (), events: object = ()) -> None:
            racing.subscribe_globally_now()
            super().create_workitem(workitem, subscriptions, events)  # type: ignore[arg-type]

        def subscribe_globally_now(self) -> None:
            assert list(self.workitems(UpsQuery())) == []
            with association_to(port, UPS_WATCH) as other:
                status, _ = other.send_n_action(
                    subscription(lock="TRUE"), 3, UPS_PUSH, GLOBAL_SUBSCRIPTION, meta_uid=UPS_WATCH
                )
                assert status.Status == 0x0000

    racing = Racing()
    with served(ups=UpsProvider(racing, receivers("WATCHER"))) as peer, association_to(peer.port, UPS_PUSH) as one:
        port = peer.port
        one.send_n_create(scheduled(), UPS_PUSH, UID)
        assert racing.subscriptions[UID, "WATCHER"].deletion_lock
        assert [event.type for _, event in racing.queued] == [EventType.STATE_REPORT]


def test_who_subscribes_while_the_step_is_claimed_is_told_the_newer_state() -> None:
    class Racing(MemoryUpsStore):
        """The step is claimed after its subscriber's report was made and before the subscription is kept."""

        def subscribe(self, subscription: Subscription, events: Sequence[UpsEvent] = ()) -> None:
            present = self.kept[UID]
            if present.state is UpsState.SCHEDULED:
                self.kept[UID] = with_state(present, UpsState.IN_PROGRESS, LOCK, "20260105090000")
            super().subscribe(subscription, events)

    with provider(Racing()) as peer:
        peer.bring_to("SCHEDULED")
        assert peer.act(3, subscription()).Status == 0x0000
        told = [data_sets.read(event.information).ProcedureStepState for _, event in peer.store.queued]
        assert told == ["SCHEDULED", "IN PROGRESS"]


REFUSED: dict[str, tuple[int, Dataset | None, str, int]] = {
    "no such action": (7, None, UID, 0x0123),
    "no state": (1, None, UID, 0x0115),
    "an unknown state": (1, state_change("PAUSED"), UID, 0x0115),
    "a transaction UID that is none": (1, state_change("IN PROGRESS", "not a uid"), UID, 0x0115),
    "an unknown receiver": (3, subscription("NOBODY"), UID, 0xC308),
    "no receiver": (3, None, UID, 0x0114),
    "no lock": (3, subscription(lock=""), UID, 0x0115),
    "subscription to nothing": (3, subscription(), "1.2.9", 0xC307),
    "unsubscription from nothing": (4, subscription(), "1.2.9", 0xC307),
    "suspension of one step": (5, subscription(), UID, 0xC314),
    "a filter without keys": (3, subscription(), FILTERED_GLOBAL_SUBSCRIPTION, 0x0114),
    "a filter with a date that is none": (
        3,
        subscription(ScheduledProcedureStepStartDateTime="tomorrow"),
        FILTERED_GLOBAL_SUBSCRIPTION,
        0x0106,
    ),
}


def test_what_an_action_is_refused_for() -> None:
    with provider() as peer:
        peer.bring_to("SCHEDULED")
        for name, (kind, information, uid, expected) in REFUSED.items():
            status = peer.act(kind, information, uid)
            assert status.Status == expected, name
            assert 0 < len(status.ErrorComment) <= 64
            assert "tomorrow" not in status.ErrorComment
        assert peer.store.subscriptions == {}


def test_hostile_creations_end_in_statuses_and_the_association_lives() -> None:
    deep = Dataset()
    for _ in range(100):
        outer = Dataset()
        outer.ReferencedRequestSequence = [deep]
        deep = outer
    wrong = scheduled(PatientName="Secret^Name")
    del wrong.InputReadinessState
    with provider() as peer:
        assert peer.create(None).Status == 0x0120
        assert peer.create(scheduled(), None).Status == 0x0117
        assert peer.create(deep).Status == 0x0110
        assert peer.create(scheduled(CommentsOnTheScheduledProcedureStep="x" * (5 << 20))).Status == 0x0110
        status = peer.create(wrong)
        assert (status.Status, status.ErrorComment) == (0x0120, "InputReadinessState is missing")
        assert "Secret" not in str(status)
        assert raw_create(peer.association, b"\x10\x00\x20\x00SQ\x00\x00\x00\x00\x00\x00") == 0x0106
        assert raw_create(peer.association, b"\xff" * 1_000) in (0x0110, 0x0120)
        assert peer.create(scheduled()).Status == 0xB300
        assert list(peer.store.kept) == [UID]


def raw_create(association: Association, encoded: bytes) -> int:
    """The status of an N-CREATE with exactly these bytes."""
    request = N_CREATE()
    request.MessageID, request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = 7, UPS_PUSH, "1.2.77"
    request.AttributeList = BytesIO(encoded)
    context = next(one for one in association.accepted_contexts if one.abstract_syntax == UPS_PUSH)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(response.Status)


def test_one_ae_cannot_have_more_than_its_share_of_open_work_items() -> None:
    store, limits = MemoryUpsStore(), UpsLimits(open_steps=3, open_steps_of_one=2)
    with (
        served(ups=UpsProvider(store, receivers(), limits=limits)) as peer,
        association_to(peer.port, *ALL, calling="RIS") as one,
        association_to(peer.port, *ALL, calling="CIS") as two,
    ):
        ris, cis = Peer(one, store), Peer(two, store)
        assert [ris.create(scheduled(), f"1.2.{number}").Status for number in (1, 2)] == [0xB300, 0xB300]
        refused = ris.create(scheduled(), "1.2.3")
        assert (refused.Status, refused.ErrorComment) == (0x0213, "too many UPS of this AE that are not final")
        assert cis.create(scheduled(), "1.2.4").Status == 0xB300
        assert cis.create(scheduled(), "1.2.5").Status == 0x0213, "of all together"
        assert ris.act(2, None, "1.2.1").Status == 0x0000
        assert cis.create(scheduled(), "1.2.5").Status == 0xB300, "a canceled one makes room"
    assert sorted(store.kept) == ["1.2.1", "1.2.2", "1.2.4", "1.2.5"]


def test_the_nodes_own_work_items_have_no_limit_and_take_no_room() -> None:
    store, limits = MemoryUpsStore(), UpsLimits(open_steps=1, open_steps_of_one=1)
    provides = UpsProvider(store, receivers(), limits=limits)
    for number in range(3):
        provides.create(f"1.2.{number}", data_sets.plain(scheduled()), f"1.2.840.{number}")
    with provider(store, limits) as peer:
        assert peer.create(scheduled()).Status == 0xB300


def test_a_work_item_that_is_or_would_become_too_large_is_refused() -> None:
    limits = UpsLimits(step_bytes=10_000)
    many = [{"ContactURI": "http://example.org/" + "x" * 1_000} for _ in range(6)]
    with provider(limits=limits) as peer:
        refused = peer.create(scheduled(InputInformationSequence=[contact(**one) for one in many * 2]))
        assert (refused.Status, refused.ErrorComment) == (0x0110, "larger than worklist.max_step_bytes")
        assert peer.store.kept == {}
        assert peer.create(scheduled(InputInformationSequence=[contact(**one) for one in many])).Status == 0xB300
        more = Dataset()
        more.OutputDestinationSequence = [contact(**one) for one in many]
        assert peer.set(more).Status == 0x0110
        assert len(peer.store.kept[UID].encoded) < 10_000
        assert peer.set(progress("1", "")).Status == 0x0000
        assert peer.act(2, contact(ReasonForCancellation="x", ContactURI="y" * 10_000)).Status == 0x0110


def contact(**values: str) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def test_the_study_of_the_nodes_own_work_item_cannot_be_changed() -> None:
    store = MemoryUpsStore()
    UpsProvider(store, receivers()).create(UID, data_sets.plain(scheduled(StudyInstanceUID="1.2.3")), "1.2.3")
    with provider(store) as peer:
        for other in ("1.2.4", ""):
            refused = peer.set(contact(StudyInstanceUID=other, WorklistLabel="Mine"))
            assert refused.Status == 0x0106
            assert "StudyInstanceUID" in refused.ErrorComment
            assert refused.AttributeIdentifierList == Tag("StudyInstanceUID")
        kept = attributes_of(store.kept[UID])
        assert (kept.StudyInstanceUID, kept.WorklistLabel) == ("1.2.3", "Reading"), "whole or not at all"
        assert peer.set(contact(StudyInstanceUID="1.2.3", WorklistLabel="Mine")).Status == 0x0000
        peer.create(scheduled(), "1.2.9")
        assert peer.set(contact(StudyInstanceUID="1.2.4"), "1.2.9").Status == 0x0000, "of other AEs' it may be"


def test_another_sop_class_is_a_conflict() -> None:
    with provider() as peer:
        peer.bring_to("SCHEDULED")
        status, _ = peer.association.send_n_set(progress("1"), UPS_PULL, UID)
        assert status.Status == 0x0119


class Watcher:
    """A subscriber's AE: what it was told, and what it answers."""

    def __init__(self, status: int = 0x0000) -> None:
        self.status = status
        self.told: list[tuple[str, int, Dataset, str]] = []

    def on_event(self, event: evt.Event) -> tuple[int, None]:
        information = event.event_information
        uid, sop_class = str(event.request.AffectedSOPInstanceUID), str(event.request.AffectedSOPClassUID)
        self.told.append((uid, event.event_type, information, sop_class))
        return self.status, None


@contextmanager
def watching(watcher: Watcher, sop_class: str = UnifiedProcedureStepEvent) -> Iterator[Subscriber]:
    entity = AE(ae_title="WATCHER")
    entity.add_supported_context(sop_class, scu_role=False, scp_role=True)
    port = free_port()
    handlers = [(evt.EVT_N_EVENT_REPORT, watcher.on_event)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield Subscriber(ae_title="WATCHER", host="127.0.0.1", port=port, timeout_seconds=5)
    finally:
        server.shutdown()


def reported() -> UpsEvent:
    with provider() as peer:
        peer.bring_to("SCHEDULED")
        return state_report(peer.store.kept[UID])


def test_an_event_reaches_its_subscriber() -> None:
    watcher = Watcher()
    with watching(watcher) as subscriber:
        send_event(reported(), subscriber, "PRIMA")
        send_event(provider_status(going_down=True), subscriber, "PRIMA")
    (uid, kind, information, sop_class), (_, second, _, _) = watcher.told
    assert (uid, kind, sop_class, second) == (UID, 1, UPS_PUSH, 4)
    assert (information.ProcedureStepState, information.InputReadinessState) == ("SCHEDULED", "READY")


@pytest.mark.parametrize(
    ("status", "error"), [(0x0110, PeerBusy), (0x0213, PeerBusy), (0x0112, PeerRefused), (0x0113, PeerRefused)]
)
def test_a_subscriber_that_refuses(status: int, error: type[Exception]) -> None:
    with watching(Watcher(status)) as subscriber, pytest.raises(error):
        send_event(reported(), subscriber, "PRIMA")


def test_a_subscriber_that_is_away_or_knows_no_events() -> None:
    with pytest.raises(PeerUnreachable):
        send_event(reported(), Subscriber(ae_title="X", host="127.0.0.1", port=free_port()), "PRIMA")
    with watching(Watcher(), UPS_PUSH) as subscriber, pytest.raises(PeerRefused):
        send_event(reported(), subscriber, "PRIMA")
