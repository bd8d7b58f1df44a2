"""Explanations give way to studies, end with a stated reason, and never touch the plain report. A small real model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydicom import dcmread

from dicom_node.base.config import Configuration, Destination, ExplanationSection, ModelSection, NodeSection
from dicom_node.base.errors import Stopped
from dicom_node.base.types import Claim, Level, Priority, StudyResult
from dicom_node.explaining import ANOTHER_RESULT, EXCHANGED, GONE, Explaining, Progress
from dicom_node.jobs.explanations import ExplanationView
from dicom_node.jobs.registry import Registry
from dicom_node.models_in_use import ModelsInUse, scores_of
from dicom_node.reporting.document import report_uids
from dicom_node.stages import logits_of
from prima_core.base.types import PreparedStudy
from prima_core.explanation import Explainer
from prima_core.prepare import prepare_study
from support.dicom_factory import write_study
from support.studies import arrival, handover, new_registry, report


class Site:
    """A registry with one reported study, whose images lie in a spool."""

    def __init__(self, folder: Path, bundle: Path, **explanation: object) -> None:
        self.registry: Registry = new_registry(folder)
        goal = Destination(name="pacs", ae_title="PACS", host="h", port=1, objects=("sr", "sc", "kos", "seg"))
        self.configuration = Configuration(
            node=NodeSection(storage=folder),
            model=ModelSection(bundle=bundle, precision="fp32", device="cpu"),
            explanation=ExplanationSection(**{"samples": 32, "series": 1, "slices": 1} | explanation),  # type: ignore[arg-type]
            destinations=(goal,),
        )
        self.models = ModelsInUse(self.configuration, self.registry)
        self.go_on: Progress = lambda done, total: None
        self.explaining = Explaining(
            self.configuration,
            self.registry,
            self.models,
            self.prepare,
            self.result_of,
            lambda claim, study: [goal],
            self.moved,
        )
        self.files = self.spooled()
        self.claim = self.report()

    def moved(self, done: int, total: int) -> None:
        self.go_on(done, total)

    def spooled(self) -> list[Path]:
        write_study(self.configuration.node.spool)
        return sorted(path for path in self.configuration.node.spool.rglob("*") if path.is_file())

    def report(self) -> Claim:
        headers = [dcmread(path, stop_before_pixels=True) for path in self.files]
        self.uid = str(headers[0].StudyInstanceUID)
        for number, (path, header) in enumerate(zip(self.files, headers, strict=True), 1):
            name = str(path.relative_to(self.configuration.node.spool))
            one = arrival(number, study=self.uid, path=name, sop_instance_uid=str(header.SOPInstanceUID))
            self.registry.record_arrivals([one])
        self.registry.close_quiet(1000, 0, 1000)
        claim = self.registry.claim("w", 1e12, 1100)
        assert claim is not None
        said = self.models.active.model.predict_one(prepare_study(self.files))
        kept = self.models.active.prediction(logits_of(said), Level.ROUTINE, said.study_embedding, 0.1)
        made = report(self.uid)

        result = self.result_of(claim, prepare_study(self.files), kept.logits, "fp32")
        uid, series = report_uids(result, "comprehensive_3d")
        made = replace(made, prediction=kept, model=self.models.active.identity)
        made = replace(made, sop_instance_uid=uid, series_instance_uid=series)
        self.registry.finish_reported(claim, made, handover("pacs", explain=True), 1200)
        return claim

    def prepare(self, claim: Claim, progress: Progress) -> PreparedStudy:
        progress(0, 0)
        return prepare_study([self.configuration.node.spool / path for _, path in claim.images])

    def result_of(
        self, claim: Claim, study: PreparedStudy, logits: Mapping[str, Mapping[str, float]], precision: str
    ) -> StudyResult:
        manifest = self.models.active.bundle.manifest
        return StudyResult(
            study_instance_uid=claim.study_instance_uid,
            revision=claim.revision,
            diagnoses=scores_of(manifest, "diagnosis", logits["diagnosis"]),
            referrals=scores_of(manifest, "referral", logits["referral"]),
            priority=Priority(Level.ROUTINE, "priority head: low → routine"),
            model=self.models.active.identity,
            precision=precision,
            sop_instance_uids=tuple(uid for series in study.series for uid in series.sop_instance_uids),
        )

    @property
    def view(self) -> ExplanationView:
        found = self.registry.explanation(self.claim.study_id)
        assert found is not None
        return found

    @property
    def sent(self) -> list[str]:
        study = self.registry.study(self.uid)
        assert study is not None
        return [one.kind for one in study.deliveries]


@pytest.fixture
def site(tmp_path: Path, random_bundle: Path) -> Site:
    return Site(tmp_path, random_bundle)


def test_a_result_is_explained_and_everything_written_before_it_is_sent(site: Site) -> None:
    assert site.explaining.run_one()
    assert (site.view.state, site.view.note) == ("done", None)
    assert site.sent[0] == "sr"
    assert {*site.sent[1:]} == {"sr", "sc", "kos", "seg"}
    assert len(list(site.configuration.node.outgoing.glob("*.dcm"))) == len(site.sent) - 1
    assert not site.explaining.run_one()


def test_without_findings_to_explain_a_page_sums_the_result_up(tmp_path: Path, random_bundle: Path) -> None:
    site = Site(tmp_path, random_bundle, findings=0)
    assert site.explaining.run_one()
    assert site.sent == ["sr", "sc"]


def test_images_that_left_the_spool_end_it_and_the_report_stands(site: Site) -> None:
    site.files[0].unlink()
    assert site.explaining.run_one()
    assert (site.view.state, site.view.note) == ("failed", GONE)
    assert site.sent == ["sr"]


def test_another_model_does_not_explain_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:

    other = replace(site.models.active, identity=replace(site.models.active.identity, bundle_id="other"))
    monkeypatch.setattr(site.models, "active", other)
    assert site.explaining.run_one()
    assert (site.view.state, site.view.note) == ("failed", EXCHANGED)


def test_a_result_of_other_images_is_not_explained(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    result_of = site.result_of
    other = lambda *given: replace(result_of(*given), revision=2)  # noqa: E731
    monkeypatch.setattr(site.explaining, "_result_of", other)
    assert site.explaining.run_one()
    assert (site.view.state, site.view.note) == ("failed", ANOTHER_RESULT)
    assert site.sent == ["sr"]


def test_regions_that_cannot_be_made_cost_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_: object) -> None:
        raise ValueError("an odd geometry")

    monkeypatch.setattr("dicom_node.explaining.regions", odd)
    assert site.explaining.run_one()
    assert site.view.state == "done"
    assert (site.view.note or "").startswith("no regions: ValueError at ")
    assert {*site.sent} == {"sr", "sc", "kos"}


def test_a_study_that_waits_goes_first(site: Site) -> None:
    site.registry.record_arrivals([arrival(1, study="1.2.9")])
    site.registry.close_quiet(2000, 0, 2000)
    assert not site.explaining.run_one()
    assert (site.view.state, site.view.attempts) == ("pending", 0)


def test_it_stops_in_the_middle_for_a_study_and_is_taken_up_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.explaining.LOOK_SECONDS", -1.0)
    arrived = []

    def arrive(done: int, total: int) -> None:
        if not arrived:
            arrived.append(site.registry.record_arrivals([arrival(1, study="1.2.9")]))
            site.registry.close_quiet(2000, 0, 2000)

    site.go_on = arrive
    assert site.explaining.run_one()
    assert (site.view.state, site.view.attempts, site.sent) == ("pending", 0, ["sr"])
    assert site.registry.claim("w", 1e12, 2100) is not None
    assert site.explaining.run_one()
    assert site.view.state == "done"


def test_a_node_that_stops_gives_it_back(site: Site) -> None:
    def stop(done: int, total: int) -> None:
        raise Stopped("the node stops")

    site.go_on = stop
    assert site.explaining.run_one()
    assert (site.view.state, site.view.attempts) == ("pending", 0)


def no_memory(after: int) -> Callable[..., object]:
    """LIME that fits the memory with so many samples only."""
    lime = Explainer.lime

    def limited(self: Explainer, series: int, questions: object, samples: int, *rest: object) -> object:
        if samples > after:
            raise torch.OutOfMemoryError
        return lime(self, series, questions, samples, *rest)  # type: ignore[arg-type]

    return limited


def test_less_memory_means_fewer_samples_and_the_report_says_so(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, random_bundle, samples=128)
    monkeypatch.setattr(Explainer, "lime", no_memory(after=40))
    assert site.explaining.run_one()
    assert {one["samples"] for one in site.view.document} == {32}
    reports = [dcmread(path) for path in site.configuration.node.outgoing.glob("*.dcm")]
    [explained] = (document for document in reports if document.Modality == "SR")
    words = "explanation: LIME, 32 samples, seed 0; fewer samples than configured: 128 (memory)"
    assert words in {element.value for element in explained.iterall() if element.keyword == "TextValue"}


def test_no_memory_at_all_is_said_after_some_tries(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Explainer, "lime", no_memory(after=0))
    monkeypatch.setattr("dicom_node.jobs.explanations.RETRY_SECONDS", -1.0)
    while site.explaining.run_one():
        pass
    assert site.view.state == "failed"
    assert "OutOfMemoryError" in (site.view.note or "")
    assert site.sent == ["sr"]
