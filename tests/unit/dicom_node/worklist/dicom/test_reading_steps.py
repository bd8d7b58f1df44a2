"""The node's own work items follow its reading list, and stand back where a person or a performer had a say.

Does not cover: association and negotiation (`tests/integration/test_ups_node.py`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from structlog.testing import capture_logs

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.events import Event
from dicom_node.base.orders import FinalReport, PatientCorrected, PriorityChange, WorklistEntry
from dicom_node.base.types import Level, Rejection
from dicom_node.base.workitems import Background, GlobalSubscription, StaleWorkitem, UpsQuery, UpsState, Workitem
from dicom_node.jobs.registry import Registry
from dicom_node.worklist.dicom import workitem as workitems
from dicom_node.worklist.dicom.dataset import text_of
from dicom_node.worklist.dicom.reading_steps import ReadingSteps, step_uid
from dicom_node.worklist.dicom.services import provider_of
from support.orders import ACCESSION, PATIENT, STUDY, UID, finish, order, placed, receive, tell
from support.reading_list import entry as listed
from support.statements import counted
from support.studies import report

NOW = "20260105090000"


class ReadingRoom:
    """The job over a registry whose reading list is what the test puts there."""

    def __init__(self, configuration: Configuration, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registry = registry
        self.listed: list[WorklistEntry] = []
        self.asked: list[bool] = []
        monkeypatch.setattr(registry, "worklist", self._worklist)
        self.steps = ReadingSteps(configuration, registry, provider_of(configuration, registry))

    def _worklist(self, since: float, *, nonclinical: bool) -> list[WorklistEntry]:
        self.asked.append(nonclinical)
        return self.listed

    def update(self, *entries: WorklistEntry) -> None:
        self.listed = list(entries)
        self.steps.update()

    def all(self) -> list[Workitem]:
        return list(self.registry.workitems(UpsQuery()))

    @property
    def only(self) -> Workitem:
        [one] = self.all()
        return one

    def told(self, receiver: str = "READER") -> list[str]:
        """Types of the events that wait for a receiver, with the state they report."""
        seen = []
        while (queued := self.registry.claim_event(receiver, "o", 1e12, 1e12)) is not None:
            information = workitems.data_sets.read(queued.event.information)
            seen.append(f"{queued.event.type.name} {text_of(information, 'ProcedureStepState')}")
            self.registry.remove_event(queued)
        return seen

    def set(self, **attributes: str) -> None:
        """What a peer sets while the step is scheduled."""
        modification = Dataset()
        for keyword, value in attributes.items():
            setattr(modification, keyword, value)
        present = self.only
        self.registry.update_workitem(workitems.with_set(present, modification, NOW), present.version)

    def move(self, state: UpsState) -> None:
        present = self.only
        self.registry.update_workitem(workitems.with_state(present, state, "1.2.3.4", NOW), present.version)


@pytest.fixture
def room(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadingRoom:
    subscribers = [{"ae_title": "READER", "host": "127.0.0.1", "port": 1}]
    configuration = configuration_from({"worklist": {"subscribers": subscribers}}, tmp_path)
    return ReadingRoom(configuration, registry, monkeypatch)


def entry(**changes: object) -> WorklistEntry:
    facts = {"study_instance_uid": UID, "study_id": STUDY, "accession_number": ACCESSION, "waiting_since": 1.7e9}
    return listed(**(facts | changes))


def write_report(folder: Path, name: str) -> Path:
    """The report that `finish` says there is, as far as it names the patient."""
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.SpecificCharacterSet = "ISO_IR 192"
    document.SOPClassUID, document.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.9"
    document.PatientName, document.PatientID = name, "ID7"
    document.PatientBirthDate, document.PatientSex = "19700101", "F"
    path = folder / "prima-data" / "outgoing" / report(UID).path
    path.parent.mkdir(parents=True)
    dcmwrite(path, document, enforce_file_format=True)
    return path


def text(step: Workitem, keyword: str) -> str:
    return text_of(workitems.attributes_of(step), keyword)


@pytest.mark.parametrize(
    ("level", "source", "priority"),
    [
        (Level.CRITICAL, "model", "HIGH"),
        (Level.URGENT, "order", "HIGH"),
        (Level.ELEVATED, "person", "MEDIUM"),
        (Level.ROUTINE, "model", "LOW"),
        (Level.ROUTINE, "order", None),
        (Level.ROUTINE, "", None),
    ],
)
def test_who_gets_a_work_item(room: ReadingRoom, level: Level, source: str, priority: str | None) -> None:
    room.update(entry(level=level, source=source))
    assert [step.priority for step in room.all()] == ([] if priority is None else [priority])


def test_what_a_work_item_says(room: ReadingRoom) -> None:
    room.update(entry(rule="priority head: high → urgent"))
    attributes = workitems.attributes_of(room.only)
    assert room.only.sop_instance_uid == step_uid(UID)
    assert room.only.state is UpsState.SCHEDULED
    assert attributes.ProcedureStepLabel == "Read study"
    assert attributes.WorklistLabel == "Reading"
    assert attributes.CommentsOnTheScheduledProcedureStep == "Reading priority urgent: priority head: high → urgent"
    assert attributes.InputReadinessState == "READY"
    assert attributes.StudyInstanceUID == UID
    [request] = attributes.ReferencedRequestSequence
    assert (request.StudyInstanceUID, request.AccessionNumber) == (UID, ACCESSION)
    assert attributes.PatientID == ""


def test_a_run_without_news_changes_nothing(room: ReadingRoom) -> None:
    for _ in range(3):
        room.update(entry())
    assert room.only.version == 1


def test_a_higher_level_raises_and_a_lower_one_lowers_what_the_node_set(room: ReadingRoom) -> None:
    room.registry.subscribe_globally(GlobalSubscription("READER", False))
    room.update(entry(level=Level.ELEVATED))
    room.update(entry(level=Level.CRITICAL, rule="rule 'bleeding'"))
    assert (room.only.priority, room.only.version) == ("HIGH", 2)
    assert "rule 'bleeding'" in text(room.only, "CommentsOnTheScheduledProcedureStep")
    room.update(entry(level=Level.ROUTINE, source="", rule=""))
    assert (room.only.priority, room.only.state) == ("LOW", UpsState.SCHEDULED)
    assert room.told() == ["STATE_REPORT SCHEDULED"] * 3


def test_a_priority_that_somebody_else_set_is_raised_but_never_lowered(room: ReadingRoom) -> None:
    room.update(entry(level=Level.ELEVATED))
    room.set(ScheduledProcedureStepPriority="HIGH")
    room.update(entry(level=Level.ELEVATED))
    assert room.only.priority == "HIGH"
    room.update(entry(level=Level.ROUTINE, source="", rule="taken back"))
    assert room.only.priority == "HIGH"
    assert "taken back" in text(room.only, "CommentsOnTheScheduledProcedureStep")
    room.set(ScheduledProcedureStepPriority="LOW")
    room.update(entry(level=Level.CRITICAL))
    assert room.only.priority == "HIGH"


def test_what_others_wrote_beside_it_stands(room: ReadingRoom) -> None:
    room.update(entry(level=Level.ELEVATED))
    room.set(ProcedureStepLabel="Read first", WorklistLabel="Neuro")
    room.update(entry(level=Level.CRITICAL))
    assert (text(room.only, "ProcedureStepLabel"), text(room.only, "WorklistLabel")) == ("Read first", "Neuro")


@pytest.mark.parametrize("state", [UpsState.IN_PROGRESS, UpsState.COMPLETED, UpsState.CANCELED])
def test_what_is_being_or_was_performed_is_left_alone_and_gets_no_second(room: ReadingRoom, state: UpsState) -> None:
    room.update(entry(level=Level.ELEVATED))
    room.move(UpsState.IN_PROGRESS)
    if state is not UpsState.IN_PROGRESS:
        room.move(state)
    before = room.only
    room.update(entry(level=Level.CRITICAL))
    room.update()
    room.update(entry(level=Level.CRITICAL))
    assert room.only == before


def test_a_study_that_left_the_list_is_canceled_by_way_of_in_progress(room: ReadingRoom) -> None:
    room.registry.subscribe_globally(GlobalSubscription("READER", False))
    room.update(entry())
    room.told()
    room.update()
    step = room.only
    assert step.state is UpsState.CANCELED
    [progress] = workitems.attributes_of(step).ProcedureStepProgressInformationSequence
    assert "left the node's reading list" in progress.ReasonForCancellation
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    assert progress.ProcedureStepCancellationDateTime
    assert room.told() == ["STATE_REPORT IN PROGRESS", "STATE_REPORT CANCELED"]
    room.update()
    assert room.only == step
    assert room.registry.readings_begun() == []


def test_a_study_that_comes_back_gets_another_work_item(room: ReadingRoom) -> None:
    room.update(entry())
    room.update()
    room.update(entry())
    assert [(one.sop_instance_uid, one.state) for one in room.all()] == [
        (step_uid(UID), UpsState.CANCELED),
        (step_uid(UID, 1), UpsState.SCHEDULED),
    ]


def test_a_claim_just_before_a_change_is_left_alone(room: ReadingRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room.update(entry(level=Level.ELEVATED))

    def stale(*_: object) -> None:
        raise StaleWorkitem("changed meanwhile")

    monkeypatch.setattr(room.registry, "update_workitem", stale)
    room.update(entry(level=Level.CRITICAL))
    room.update()
    assert (room.only.priority, room.only.state) == ("MEDIUM", UpsState.SCHEDULED)


def test_the_patient_and_the_request_are_the_orders(room: ReadingRoom, registry: Registry) -> None:
    receive(registry)
    tell(registry, placed())
    room.update(entry())
    attributes = workitems.attributes_of(room.only)
    assert attributes.PatientName == PATIENT.name
    assert attributes.PatientID == PATIENT.patient_id
    [request] = attributes.ReferencedRequestSequence
    assert request.PlacerOrderNumberImagingServiceRequest == order().placer_order_number


def test_a_corrected_patient_is_corrected_in_the_work_item(room: ReadingRoom, registry: Registry) -> None:
    receive(registry)
    tell(registry, placed())
    room.update(entry())
    tell(registry, PatientCorrected(replace(PATIENT, name="Doe^Jane^Maria")), at=60.0)
    room.update(entry())
    assert text(room.only, "PatientName") == "Doe^Jane^Maria"


def test_without_an_order_the_patient_is_the_reports(room: ReadingRoom, registry: Registry, tmp_path: Path) -> None:
    receive(registry)
    finish(registry)
    write_report(tmp_path, "Röntgen^Anna")
    room.update(entry())
    assert text(room.only, "PatientName") == "Röntgen^Anna"
    assert text(room.only, "PatientID") == "ID7"


def test_a_report_that_is_not_there_now_is_filled_in_later(
    room: ReadingRoom, registry: Registry, tmp_path: Path
) -> None:
    receive(registry)
    finish(registry)
    path = write_report(tmp_path, "Doe^Jane")
    hidden = path.rename(path.with_suffix(".away"))
    room.update(entry())
    assert text(room.only, "PatientID") == ""
    hidden.rename(path)
    room.update(entry())
    assert text(room.only, "PatientID") == "ID7"


@pytest.mark.parametrize("source", ["model", "order"])
@pytest.mark.parametrize("marked", [True, False])
def test_a_level_that_a_model_that_is_not_clinical_gave_is_marked_whoever_says_it(
    room: ReadingRoom, registry: Registry, source: str, marked: bool
) -> None:
    receive(registry)
    finish(registry, training_state="phantom")
    marking = "phantom model, not for clinical use"
    room.update(entry(source=source, marking=marking, level_marking=marking if marked else ""))
    for keyword in ("ProcedureStepLabel", "WorklistLabel", "CommentsOnTheScheduledProcedureStep"):
        assert text(room.only, keyword).startswith("phantom model, not for clinical use: ") is marked


def test_a_claim_is_noted_as_begun_reading(room: ReadingRoom, registry: Registry) -> None:
    receive(registry)
    room.update(entry())
    room.move(UpsState.IN_PROGRESS)
    [(_, at)] = registry.readings_begun()
    noted = []
    note = registry.note_reading
    registry.note_reading = lambda study, when: (noted.append((study, when)), note(study, when))[1]  # type: ignore[method-assign]
    room.update(entry())
    room.update(entry())
    assert noted == [(UID, at)]


def test_a_final_report_ends_the_work_item(registry: Registry, tmp_path: Path) -> None:
    """With the registry's own reading list."""
    now = time.time()
    receive(registry, at=now)
    tell(registry, placed(), at=now)
    finish(registry, at=now)
    configuration = configuration_from({}, tmp_path)
    steps = ReadingSteps(configuration, registry, provider_of(configuration, registry))
    steps.update()
    [step] = registry.workitems(UpsQuery())
    assert (step.state, step.priority) == (UpsState.SCHEDULED, "HIGH")
    tell(registry, FinalReport(order(), "Normal.", now), at=now)
    steps.update()
    [step] = registry.workitems(UpsQuery())
    assert step.state is UpsState.CANCELED


def test_a_run_without_news_takes_as_many_statements_for_many_studies_as_for_few_and_encodes_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    configuration = configuration_from({}, tmp_path)
    steps = ReadingSteps(configuration, registry, provider_of(configuration, registry))
    taken = []
    for first, last in ((0, 2), (2, 7)):
        for number in range(first, last):
            receive(registry, f"1.2.{number}", at=now + number, accession=f"A{number}")
            finish(registry, f"1.2.{number}", at=now + number)
        for _ in range(2):
            steps.update()  # creates what is missing, and sees that it says what it should
        monkeypatch.setattr(steps, "_refresh", None)  # would raise
        with counted(registry) as statements:
            steps.update()
        monkeypatch.undo()
        taken.append(len(statements))
    assert taken[0] == taken[1] > 0
    assert len(list(registry.workitems(UpsQuery()))) == 7


def test_what_a_peer_set_meanwhile_is_looked_at_again(room: ReadingRoom) -> None:
    for _ in range(2):
        room.update(entry(level=Level.ELEVATED))
    room.set(ScheduledProcedureStepPriority="LOW")
    room.update(entry(level=Level.ELEVATED))
    assert room.only.priority == "LOW", "the list says nothing new"
    room.update(entry(level=Level.URGENT))
    assert room.only.priority == "HIGH"


def test_one_study_that_cannot_be_written_holds_up_no_other(room: ReadingRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = room.steps._wanted

    def broken(one: WorklistEntry, known: Background) -> PriorityChange:
        if one.study_instance_uid == UID:
            raise workitems.Refusal(0x0106, "PatientID is invalid")
        return wanted(one, known)

    monkeypatch.setattr(room.steps, "_wanted", broken)
    other = replace(entry(), study_instance_uid="1.2.4", study_id="other")
    with capture_logs() as lines:
        room.update(entry(), other)
        room.update(entry(), other)
    assert [step.study_instance_uid for step in room.all()] == ["1.2.4"]
    assert [line["study"] for line in lines if line["number"] == Event.WORKITEM_NOT_KEPT.number] == [STUDY]


def test_the_sites_permission_for_models_that_are_not_clinical_is_passed_on(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for allowed in (False, True):
        configuration = configuration_from(
            {"worklist": {"allow_nonclinical": allowed}, "model": {"allow_nonclinical": True}}, tmp_path
        )
        made = ReadingRoom(configuration, registry, monkeypatch)
        made.update()
        assert made.asked == [allowed]


def test_a_withdrawn_result_leaves_no_work_item_that_names_its_patient(
    room: ReadingRoom, registry: Registry, tmp_path: Path
) -> None:
    receive(registry)
    finish(registry)
    write_report(tmp_path, "Doe^Jane")
    room.update(entry(level=Level.URGENT, source="model"))
    assert text_of(workitems.data_sets.read(room.only.encoded), "PatientID") == "ID7"
    registry.withdraw(STUDY, Rejection.WORKLIST, "tester", 300)
    for _ in range(3):
        room.update(entry(level=Level.URGENT, source="person"))
    old, new = sorted(room.all(), key=lambda step: step.state is not UpsState.CANCELED)
    assert (old.state, new.state) == (UpsState.CANCELED, UpsState.SCHEDULED)
    assert text_of(workitems.data_sets.read(new.encoded), "PatientID") == ""
