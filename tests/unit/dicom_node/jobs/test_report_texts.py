"""Which text stands for a study: the newest report's, of the right study, and nothing that was superseded."""

from __future__ import annotations

from dicom_node.base.orders import FinalReport, Order, Patient
from dicom_node.jobs.registry import Registry
from support.orders import ACCESSION, PATIENT, UID, order, placed, receive, tell


def said(text: str, at: float, **more: object) -> FinalReport:
    return FinalReport(Order(PATIENT, accession_number=ACCESSION), text, at, **more)  # type: ignore[arg-type]


def texts(registry: Registry, since: float = 0.0) -> dict[str, str]:
    return {one.study_instance_uid: one.text for one in registry.report_texts(since)}


def test_the_newest_report_of_each_study_stands(registry: Registry) -> None:
    receive(registry)
    tell(registry, said("Normal.", 300), at=310)
    assert texts(registry) == {UID: "Normal."}
    tell(registry, said("Meningioma.", 400, corrected=True), at=410)
    tell(registry, said("Preliminary thought.", 350), at=420)
    assert texts(registry) == {UID: "Meningioma."}
    assert (texts(registry, since=400), texts(registry, since=401)) == ({UID: "Meningioma."}, {})


def test_a_correction_without_text_hides_what_it_corrects(registry: Registry) -> None:
    receive(registry)
    tell(registry, said("Normal.", 300), at=310)
    tell(registry, said("", 400, corrected=True), at=410)
    assert texts(registry) == {}


def test_parts_of_one_message_are_one_report(registry: Registry) -> None:
    receive(registry)
    tell(registry, said("Findings.", 300), said("", 300), said("Findings.", 300), said("Opinion.", 300), at=310)
    assert texts(registry) == {UID: "Findings.\nOpinion."}


def test_a_report_of_which_it_is_not_certain_whose_it_is_is_left_out(registry: Registry) -> None:
    receive(registry)
    tell(registry, placed(order(patient=Patient("P2", name="Roe^Jim"), accession_number="A9")))
    other = FinalReport(Order(Patient("P2", name="Roe^Jim"), accession_number=ACCESSION), "Another patient's.", 300.0)
    tell(registry, other, at=310)
    assert texts(registry) == {}
    assert registry.reports_of_no_study() == 1
