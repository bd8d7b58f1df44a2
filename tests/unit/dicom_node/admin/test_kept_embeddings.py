"""What the node hands to training: embeddings of the active bundle under labels by UID, short id or accession number.

The folder is read back by training's own reader. No head is trained here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from dicom_node.admin.kept_embeddings import export_embeddings
from dicom_node.base.config import Configuration, ModelSection, NodeSection
from dicom_node.base.errors import PermanentError
from dicom_node.base.types import Level, Prediction, study_id
from dicom_node.bundles import encoder_of, identity_of
from dicom_node.jobs.models import Order
from dicom_node.jobs.registry import Registry
from prima_core.bundle import read_manifest
from support.bundles import new_bundle
from support.studies import arrival, handover, new_registry, report
from training.run_folder import RunFolder

DAY = 86400.0
FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


class Site:
    """A registry whose active bundle is `random_bundle`."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.registry: Registry = new_registry(folder)
        self.configuration = Configuration(node=NodeSection(storage=folder), model=ModelSection(bundle=bundle))
        self.encoder = encoder_of(read_manifest(bundle))
        self.labels = folder / "labels.csv"
        self._count = 0

    def report(self, uid: str, patient: str = "a:b:c", accession: str = "", encoder: str = "") -> None:
        """A reported study, one day after the one before; its embedding holds its number."""
        at = FIRST + DAY * self._count
        self._count += 1
        self.registry.record_arrivals([arrival(1, study=uid, at=at, patient_key=patient, accession_number=accession)])
        self.registry.close_quiet(at + 1, 0, at + 1)
        claim = self.registry.claim("w", at + 60, at + 2)
        assert claim is not None
        logits = {"diagnosis": {"x": 1.0}, "referral": {}, "priority": {}}
        vector = np.full(4, self._count, "<f4").tobytes()
        kept = Prediction("b", encoder or self.encoder, logits, Level.ROUTINE, "fp32", 1.0, vector)
        made = replace(report(uid), prediction=kept, sop_instance_uid=f"2.25.{self._count}")
        self.registry.finish_reported(claim, made, handover(), at + 3)

    def label(self, *lines: str, columns: str = "study,diagnosis.glioma,diagnosis.stroke,priority") -> Path:
        """A file of labels."""
        self.labels.write_text("\n".join([columns, *lines, ""]))
        return self.labels


@pytest.fixture
def site(tmp_path: Path, random_bundle: Path) -> Site:
    return Site(tmp_path, random_bundle)


def test_studies_are_found_by_uid_short_id_and_accession_number(site: Site) -> None:
    site.report("1.1")
    site.report("1.2")
    site.report("1.3", accession="ACC3")
    labels = site.label("1.1,1,0,high", f"{study_id('1.2')},0,0,", "ACC3,,0,none", "1.99,1,1,low")
    made = export_embeddings(site.configuration, site.registry, labels)
    assert (made.studies, made.unknown, made.without_positives) == (3, ("1.99",), ("diagnosis.stroke",))
    run = RunFolder(made.folder)
    embeddings, read = run.embeddings(), run.labels()
    assert embeddings.studies == tuple(study_id(uid) for uid in ("1.1", "1.2", "1.3"))
    assert embeddings.study.tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert read[study_id("1.1")].diagnosis == {"glioma": True, "stroke": False}
    assert read[study_id("1.1")].priority == "high"
    assert read[study_id("1.3")].diagnosis == {"stroke": False}
    assert {record.study for record in run.records()} == set(embeddings.studies)


def test_a_patients_studies_share_a_pseudonym_that_stays_the_same(site: Site) -> None:
    for number, patient in enumerate(["id1:n:b", "id1::", "id2:n:b", ":n:b", ":n:b", "::", "::"]):
        site.report(f"1.{number}", patient=patient)
    labels = site.label(*(f"1.{number},1,1," for number in range(7)))
    made = [export_embeddings(site.configuration, site.registry, labels) for _ in range(2)]
    one, other = ({record.study: record.patient for record in RunFolder(each.folder).records()} for each in made)
    assert one == other
    first, again, second, unnumbered, alike, nobody, stranger = (one[study_id(f"1.{number}")] for number in range(7))
    assert first == again
    assert unnumbered == alike
    assert len({first, second, unnumbered, nobody, stranger}) == 5


def test_nobody_can_be_told_from_what_is_exported(site: Site) -> None:
    site.report("1.2.3.4567", patient="cafe:beef:dead", accession="ACC77")
    made = export_embeddings(site.configuration, site.registry, site.label("1.2.3.4567,1,1,"))
    assert made.folder.stat().st_mode & 0o777 == 0o700
    [record] = RunFolder(made.folder).records()
    assert record.day is not None
    assert record.day < date(2026, 3, 1)
    for path in made.folder.iterdir():
        content = path.read_bytes()
        assert not [word for word in (b"4567", b"cafe", b"beef", b"dead", b"ACC77", b"2026-03") if word in content]


def test_only_studies_since_a_day_are_taken(site: Site) -> None:
    site.report("1.1")
    site.report("1.2")
    made = export_embeddings(site.configuration, site.registry, site.label("1.1,1,1,", "1.2,1,1,"), date(2026, 3, 2))
    assert (made.studies, made.unknown) == (1, ("1.1",))


def test_only_the_active_bundles_encoder_counts(site: Site, tmp_path: Path) -> None:
    other = new_bundle(tmp_path / "other", seed=1)
    site.report("1.1")
    site.report("1.2", encoder=encoder_of(read_manifest(other)))
    labels = site.label("1.1,1,1,", "1.2,1,1,")
    assert export_embeddings(site.configuration, site.registry, labels).unknown == ("1.2",)
    site.registry.know_model(identity_of(read_manifest(other)), other)
    site.registry.activate_model(read_manifest(other).id, None, Order("anna", 1.0))
    after = export_embeddings(site.configuration, site.registry, labels)
    assert (after.unknown, after.bundle) == (("1.1",), other)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1.99,1,1,"], "nothing to train on"),
        (["1.1,1,1,", "ACC1,0,0,"], "another line names"),
        (["ACC2,1,1,"], "accession numbers"),
        (["1.1,yes,1,"], "line 2"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(site: Site, lines: list[str], words: str) -> None:
    for uid, accession in (("1.1", "ACC1"), ("1.2", "ACC2"), ("1.3", "ACC2")):
        site.report(uid, accession=accession)
    with pytest.raises(PermanentError, match=words):
        export_embeddings(site.configuration, site.registry, site.label(*lines))
    assert not list((site.configuration.node.storage / "training").glob("2*"))
