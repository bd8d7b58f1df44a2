"""UPS SCU against our own provider and against peers that behave otherwise: found, created, raised, left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from dicom_node.base.errors import PeerBusy, PeerRefused, PeerUnreachable, PermanentError
from dicom_node.base.orders import Order, Patient, PriorityChange
from dicom_node.base.types import Level
from dicom_node.base.ups_settings import UpsSettings
from dicom_node.base.workitems import UpsState
from dicom_node.worklist.dicom import ups_user
from dicom_node.worklist.dicom import workitem as workitems
from dicom_node.worklist.dicom.dataset import plain
from dicom_node.worklist.dicom.ups_provider import UPS_PULL, UpsProvider
from dicom_node.worklist.dicom.ups_user import Outcome, ReferencedImage, Told, attributes_of, step_uid, tell
from dicom_node.worklist.dicom.workitem import (
    CREATE_EMPTY,
    CREATE_WITH_VALUE,
    UPS_PUSH,
    created,
    with_state,
)
from support.peers import AE_TITLE, free_port
from support.worklist_memory import MemoryUpsStore
from support.worklist_peers import receivers, served
from support.worklist_steps import code, scheduled

STUDY, ACCESSION, NOW = "1.2.3", "A1", "20260105080000"
ORDER = Order(
    Patient("ID1", name="Doe^Jane", birth_date="19700101", sex="F"),
    accession_number=ACCESSION,
    placer_order_number="PL1^RIS",
    study_instance_uid=STUDY,
    requested_procedure_id="RP1",
    code_value="MRHEAD",
    code_meaning="MR head",
    code_scheme="99TEST",
)


def change(level: Level = Level.URGENT, **fields: object) -> PriorityChange:
    facts: dict[str, object] = {
        "key": "K1",
        "study_instance_uid": STUDY,
        "level": level,
        "previous": None,
        "rule": "priority head: high → urgent",
        "at": 1_767_600_000.0,
        "order": ORDER,
    }
    return PriorityChange(**(facts | fields))  # type: ignore[arg-type]


class Manager:
    """A worklist manager: our provider over memory, and how it is told."""

    def __init__(self, port: int, store: MemoryUpsStore) -> None:
        self.settings = UpsSettings(ae_title=AE_TITLE, host="127.0.0.1", port=port, timeout_seconds=10)
        self.store = store

    def has(self, *steps: Dataset, state: UpsState = UpsState.SCHEDULED) -> None:
        for number, step in enumerate(steps, len(self.store.kept) + 1):
            item, _ = created(f"1.2.840.{number}", plain(step), NOW)
            self.store.create_workitem(item if state is UpsState.SCHEDULED else with_state(item, state, "1.2.3.4", NOW))

    def tell(self, told: PriorityChange, ours: Level | None = None, **settings: object) -> Told:
        return tell(told, self.settings.model_copy(update=settings), "PRIMA", ours)

    def priorities(self) -> list[str]:
        return [item.priority for item in self.store.kept.values()]


@contextmanager
def manager(store: MemoryUpsStore | None = None) -> Iterator[Manager]:
    store = store or MemoryUpsStore()
    with served(ups=UpsProvider(store, receivers())) as peer:
        yield Manager(peer.port, store)


def test_a_scheduled_step_is_raised_once() -> None:
    with manager() as peer:
        peer.has(scheduled(STUDY, ACCESSION, "LOW"), scheduled("1.2.9", "A9", "LOW"))
        assert peer.tell(change()) == Told(Outcome.RAISED, "1.2.840.1", "LOW", "HIGH")
        assert peer.tell(change()) == Told(Outcome.ALREADY, "1.2.840.1", "HIGH", "HIGH")
        assert peer.priorities() == ["HIGH", "LOW"]


@pytest.mark.parametrize(
    ("level", "present", "outcome", "after"),
    [
        (Level.CRITICAL, "MEDIUM", Outcome.RAISED, "HIGH"),
        (Level.ELEVATED, "LOW", Outcome.RAISED, "MEDIUM"),
        (Level.ELEVATED, "HIGH", Outcome.ALREADY, "HIGH"),
        (Level.ROUTINE, "MEDIUM", Outcome.ALREADY, "MEDIUM"),
        (Level.ROUTINE, "LOW", Outcome.ALREADY, "LOW"),
    ],
)
def test_a_priority_is_never_lowered(level: Level, present: str, outcome: Outcome, after: str) -> None:
    with manager() as peer:
        peer.has(scheduled(STUDY, ACCESSION, present))
        assert peer.tell(change(level)).outcome is outcome
        assert peer.priorities() == [after]


def test_without_an_accession_number_the_study_is_looked_for() -> None:
    with manager() as peer:
        peer.has(scheduled("1.2.9", "A9"), scheduled(STUDY, ""))
        assert peer.tell(change(order=None)).outcome is Outcome.RAISED
        assert peer.priorities() == ["LOW", "HIGH"]


def test_a_step_is_created_where_there_is_none_and_found_again() -> None:
    with manager() as peer:
        told = peer.tell(change(Level.ELEVATED))
        assert told == Told(Outcome.CREATED, step_uid(change()), "", "MEDIUM")
        assert peer.tell(change(Level.ELEVATED)).outcome is Outcome.ALREADY
        assert peer.tell(change(Level.URGENT)) == Told(Outcome.RAISED, told.sop_instance_uid, "MEDIUM", "HIGH")
        (item,) = peer.store.kept.values()
        attributes = workitems.attributes_of(item)
        request = attributes.ReferencedRequestSequence[0]
        assert (request.AccessionNumber, request.StudyInstanceUID) == (ACCESSION, STUDY)
        assert str(attributes.PatientName) == "Doe^Jane"
        assert attributes.ScheduledWorkitemCodeSequence[0].CodeValue == "110005"


def test_a_repeated_creation_that_the_peer_calls_a_duplicate_raises_it() -> None:
    """The step exists, but the peer does not find it by its keys: our first attempt's answer was lost."""

    class Forgetful(MemoryUpsStore):
        def workitems(self, query: object) -> Iterator[object]:  # type: ignore[override]
            return iter(())

    with manager(Forgetful()) as peer:
        assert peer.tell(change(Level.ELEVATED)).outcome is Outcome.CREATED
        assert peer.tell(change(Level.ELEVATED)).outcome is Outcome.ALREADY
        assert peer.tell(change(Level.CRITICAL)).outcome is Outcome.RAISED
        assert peer.priorities() == ["HIGH"]


def test_a_created_step_has_all_the_attributes() -> None:
    images = [ReferencedImage("1.2.3.1", "1.2.840.10008.5.1.4.1.1.4", f"1.2.3.1.{number}") for number in (1, 2)]
    settings = UpsSettings(ae_title="RIS", host="ris", port=104, retrieve_ae_title="PACS")
    step = attributes_of(change(marking="NOT FOR CLINICAL USE"), settings, images)
    keywords = {element.keyword for element in step}
    assert {*CREATE_EMPTY, *CREATE_WITH_VALUE, "TransactionUID", "ProcedureStepState", "WorklistLabel"} <= keywords
    assert step.TransactionUID == ""
    assert step.ProcedureStepLabel == "NOT FOR CLINICAL USE: Read study"
    assert step.WorklistLabel == "NOT FOR CLINICAL USE: Reading"
    (series,) = step.InputInformationSequence
    assert (series.StudyInstanceUID, len(series.ReferencedSOPSequence)) == (STUDY, 2)
    assert series.DICOMRetrievalSequence[0].RetrieveAETitle == "PACS"
    workitem, added = created("1.2.9", plain(step), NOW)
    assert (workitem.priority, len(added)) == ("HIGH", 0)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (UpsState.IN_PROGRESS, Outcome.IN_PROGRESS),
        (UpsState.COMPLETED, Outcome.FINISHED),
        (UpsState.CANCELED, Outcome.FINISHED),
    ],
)
def test_a_step_that_began_is_left_alone(state: UpsState, outcome: Outcome) -> None:
    with manager() as peer:
        peer.has(scheduled(STUDY, ACCESSION), state=state)
        assert peer.tell(change(Level.CRITICAL)).outcome is outcome
        assert peer.tell(change(Level.ROUTINE, undo=True), Level.URGENT).outcome is outcome
        assert peer.priorities() == ["LOW"]
        assert len(peer.store.kept) == 1


def test_a_step_claimed_between_find_and_set_is_left_alone() -> None:
    class Racing(MemoryUpsStore):
        """The step is claimed once it was found."""

        def workitem(self, sop_instance_uid: str):  # type: ignore[no-untyped-def]
            found = super().workitem(sop_instance_uid)
            if found is not None and found.state is UpsState.SCHEDULED:
                self.kept[sop_instance_uid] = with_state(found, UpsState.IN_PROGRESS, "9.9", NOW)
            return super().workitem(sop_instance_uid)

    with manager(Racing()) as peer:
        peer.has(scheduled(STUDY, ACCESSION))
        assert peer.tell(change()).outcome is Outcome.IN_PROGRESS
        assert peer.priorities() == ["LOW"]


AMBIGUOUS = {
    "another study under this accession number": [scheduled("1.2.9", ACCESSION)],
    "two studies under this accession number": [scheduled(STUDY, ACCESSION), scheduled("1.2.9", ACCESSION)],
    "another patient": [scheduled(STUDY, ACCESSION, PatientID="ID2")],
    "two patients": [scheduled(STUDY, ACCESSION), scheduled(STUDY, ACCESSION, PatientID="ID2")],
    "two steps alike": [scheduled(STUDY, ACCESSION), scheduled(STUDY, ACCESSION)],
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_not_certain_moves_nothing(case: str) -> None:
    with manager() as peer:
        peer.has(*AMBIGUOUS[case])
        with pytest.raises(PermanentError) as refused:
            peer.tell(change(Level.CRITICAL))
        assert not {"ID1", "ID2", ACCESSION, STUDY} & set(str(refused.value).split())
        assert set(peer.priorities()) == {"LOW"}
        assert len(peer.store.kept) == len(AMBIGUOUS[case])


def test_of_several_steps_the_one_of_our_kind_is_meant() -> None:
    other = scheduled(STUDY, ACCESSION, ScheduledWorkitemCodeSequence=[code("110001", "DCM", "Image Processing")])
    with manager() as peer:
        peer.has(other, scheduled(STUDY, ACCESSION))
        assert peer.tell(change()).sop_instance_uid == "1.2.840.2"
        assert peer.priorities() == ["LOW", "HIGH"]


@pytest.mark.parametrize(
    ("told", "settings"),
    [(change(order=None), {}), (change(), {"create": False}), (change(undo=True), {})],
    ids=["no order", "not allowed", "undo"],
)
def test_nothing_is_created_without_an_order_or_permission_or_for_an_undo(
    told: PriorityChange, settings: dict[str, object]
) -> None:
    with manager() as peer:
        assert peer.tell(told, Level.URGENT, **settings).outcome is Outcome.NO_STEP
        assert not peer.store.kept


def test_an_undo_restores_only_what_is_still_ours() -> None:
    undo = change(Level.ROUTINE, undo=True)
    with manager() as peer:
        peer.has(scheduled(STUDY, ACCESSION, "LOW"))
        peer.tell(change(Level.ELEVATED))
        assert peer.tell(undo, Level.ELEVATED) == Told(Outcome.RESTORED, "1.2.840.1", "MEDIUM", "LOW")
        assert peer.tell(undo, Level.ELEVATED).outcome is Outcome.ALREADY
        peer.tell(change(Level.URGENT))
        assert peer.tell(undo, Level.ELEVATED).outcome is Outcome.OVERTAKEN
        assert peer.priorities() == ["HIGH"]
        with pytest.raises(PermanentError):
            peer.tell(undo)


def test_an_unknown_present_priority_is_left_alone_unless_the_site_opted_in() -> None:
    with manager() as peer:
        peer.has(scheduled(STUDY, ACCESSION))
        item = peer.store.kept["1.2.840.1"]
        attributes = workitems.attributes_of(item)
        attributes.ScheduledProcedureStepPriority = ""
        peer.store.kept["1.2.840.1"] = replace(item, encoded=ups_user.data_sets.write(attributes))
        assert peer.tell(change(Level.CRITICAL)).outcome is Outcome.UNKNOWN_PRIORITY
        assert peer.tell(change(Level.URGENT), top_level_if_unknown=True).outcome is Outcome.UNKNOWN_PRIORITY
        assert peer.tell(change(Level.CRITICAL), top_level_if_unknown=True).outcome is Outcome.RAISED


@contextmanager
def stranger(find: Callable[[evt.Event], Iterator[object]], modify: int = 0x0000) -> Iterator[UpsSettings]:
    """A peer whose C-FIND answers with these (status, identifier) and whose N-SET and N-CREATE with that status."""
    entity = AE(ae_title="OTHER")
    for sop_class in (UPS_PULL, UPS_PUSH):
        entity.add_supported_context(sop_class)
    handlers = [
        (evt.EVT_C_FIND, find),
        (evt.EVT_N_SET, lambda event: (modify, None)),
        (evt.EVT_N_CREATE, lambda event: (modify, None)),
    ]
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield UpsSettings(ae_title="OTHER", host="127.0.0.1", port=port, timeout_seconds=5)
    finally:
        server.shutdown()


def answer(number: int = 1, **values: object) -> Dataset:
    step = scheduled(STUDY, ACCESSION, SOPInstanceUID=f"1.2.840.{number}")
    for keyword, value in values.items():
        setattr(step, keyword, value)
    return step


def test_a_peer_that_ignores_the_keys_moves_nothing_of_others() -> None:
    request = scheduled("1.2.9", "A9").ReferencedRequestSequence[0]
    others = [answer(number, ReferencedRequestSequence=[request]) for number in (1, 2)]

    def find(_event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        yield from ((0xFF01, other) for other in others)

    with stranger(find, 0x0124) as settings:
        assert tell(change(order=None), settings, "PRIMA").outcome is Outcome.NO_STEP


def test_a_peer_without_end_is_refused() -> None:
    def find(_event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        for number in range(10_000):
            yield 0xFF00, answer(number)

    with stranger(find) as settings, pytest.raises(PermanentError, match="too many"):
        tell(change(), settings, "PRIMA")


@pytest.mark.parametrize(
    ("status", "error"), [(0x0110, PeerBusy), (0x0213, PeerBusy), (0x0124, PeerRefused), (0xC307, PeerRefused)]
)
def test_what_a_peer_refuses(status: int, error: type[Exception]) -> None:
    with stranger(lambda _event: iter([(0xFF00, answer())]), status) as settings, pytest.raises(error):
        tell(change(), settings, "PRIMA")


@pytest.mark.parametrize(
    ("status", "error"), [(0xA700, PeerBusy), (0xC001, PeerBusy), (0xCFFF, PeerBusy), (0xA900, PeerRefused)]
)
def test_a_query_that_fails_creates_nothing(status: int, error: type[Exception]) -> None:
    with stranger(lambda _event: iter([(status, None)])) as settings, pytest.raises(error):
        tell(change(), settings, "PRIMA")


def test_a_step_in_no_state_is_not_guessed_at() -> None:
    with (
        stranger(lambda _event: iter([(0xFF00, answer(ProcedureStepState="WAITING"))])) as settings,
        pytest.raises(PeerRefused),
    ):
        tell(change(), settings, "PRIMA")


def test_nobody_there() -> None:
    with pytest.raises(PeerUnreachable):
        tell(change(), UpsSettings(ae_title="X", host="127.0.0.1", port=free_port(), timeout_seconds=2), "PRIMA")
