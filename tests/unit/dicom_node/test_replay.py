"""How a replay compares, and what it refuses to compute on; the commands: `tests/integration/test_provenance.py`."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.base.provenance import InputImage, Provenance, Received, ResultRecord
from dicom_node.base.types import Claim
from dicom_node.intake.identity import read_identity
from dicom_node.intake.spool import Spool, arrival_of
from dicom_node.provenance import Surroundings, configuration_record, provenance_of
from dicom_node.replay import (
    Replayed,
    check_bundle,
    check_images,
    greatest_difference,
    input_differences,
    recorded,
    replay,
    software_changes,
)
from dicom_node.scope import scope_settings
from dicom_node.surroundings import machine
from prima_core.base.errors import OutOfScope
from prima_core.base.types import PreparedStudy
from prima_core.bundle import Bundle, build_model, load_bundle
from prima_core.prepare import prepare_study
from support.dicom_factory import StudyFacts
from support.node import small_study
from support.spool import put

BOUND = 1 << 26
SOFTWARE = {"numpy": "2"}
SITE = configuration_from({"scope": {"max_kept_tokens": 64}}, Path("/"))


@dataclass(frozen=True)
class House:
    """A spool with a study whose result is on record; the study had company and was run by one thread."""

    spool: Spool
    bundle: Bundle
    record: ResultRecord
    prepared: PreparedStudy

    @property
    def provenance(self) -> Provenance:
        return recorded(self.record)

    def replayed(self, record: ResultRecord | None = None, device: str | None = None) -> Replayed:
        return replay(record or self.record, self.bundle, self.spool, device, SOFTWARE, lambda _done, _total: None)

    def with_document(self, **changes: Any) -> ResultRecord:
        document = {**self.provenance.document, **changes}
        return replace(self.record, provenance=replace(self.provenance, document=document))


def store(spool: Spool, image: Dataset, number: int) -> InputImage:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, image)
    data = buffer.getvalue()
    arrival = arrival_of(
        read_identity(BytesIO(data), ExplicitVRLittleEndian, BOUND),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        digest=hashlib.sha256(data).hexdigest(),
        size=len(data),
        calling_ae="SENDER",
        urgent=False,
        received_at=float(number),
        association_id=None,
    )
    put(spool, arrival, data)
    return InputImage(
        arrival.sop_instance_uid,
        arrival.series_instance_uid,
        arrival.transfer_syntax_uid,
        arrival.digest,
        arrival.size,
        arrival.path,
    )


def received_study(spool: Spool, **changes: Any) -> tuple[InputImage, ...]:
    images = [store(spool, image, n) for n, image in enumerate(small_study(StudyFacts(), **changes))]
    return tuple(sorted(images, key=lambda image: image.path))


def run(folder: Path, bundle: Bundle, precision: str) -> House:
    spool = Spool(folder / "spool")
    spool.prepare()
    inputs = [received_study(spool), received_study(spool, slices=12, names=("AX T2", "COR T1", "AX FLAIR"))]
    studies = [prepare_study([spool.folder / one.path for one in images], scope_settings(SITE)) for images in inputs]
    model = build_model(bundle, "cpu", precision)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    said, _ = model.predict(studies)
    surroundings = Surroundings(configuration_record(SITE), SOFTWARE, machine(model.runtime))
    torch.set_num_threads(threads)
    assert not isinstance(said, Exception)
    uid = studies[0].study_instance_uid
    claim = Claim("s", uid, 1, False, "w", ("SENDER",), (), None, 1)
    received = Received(inputs[0], {"current": len(inputs[0])}, 1.0, 2.0, 3.0, 4.0)
    record = ResultRecord(
        study_id="s",
        study_instance_uid=uid,
        revision=1,
        sop_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        sop_class_uid="1.2",
        level="routine",
        rule="",
        findings=(),
        bundle_id=bundle.manifest.id,
        precision=precision,
        created_at=5.0,
        logits={"diagnosis": said.diagnosis, "referral": said.referral, "priority": said.priority},
        provenance=provenance_of(claim, received, studies[0], said, bundle, surroundings, 5.0),
        recorded_at=6.0,
        deliveries=(),
    )
    return House(spool, bundle, record, studies[0])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> House:
    return run(tmp_path_factory.mktemp("house"), load_bundle(random_bundle), "fp32")


def test_alone_and_with_other_threads_the_numbers_are_the_same(house: House) -> None:
    assert house.provenance.document["batch"]["studies"] == 2
    check_images(house.provenance.images, house.spool)
    done = house.replayed()
    assert (done.same, done.tolerance, done.differences, done.notes) == (True, 1e-5, (), ())
    assert done.greatest <= 1e-5
    assert done.output


def test_shorter_precision_has_a_wider_tolerance_that_is_told(tmp_path: Path, random_bundle: Path) -> None:
    done = run(tmp_path, load_bundle(random_bundle), "bf16").replayed()
    assert (done.same, done.tolerance) == (True, 1e-2)


def test_another_precision_than_the_recorded_one_would_be_found(house: House) -> None:
    assert house.replayed(house.with_document(precision="bf16")).greatest > 1e-5


@pytest.mark.parametrize("off", [2e-5, -2e-5, math.nan, math.inf])
def test_a_logit_beyond_the_tolerance_is_found(house: House, off: float) -> None:
    assert house.record.logits is not None
    task, logits = "referral", dict(house.record.logits["referral"])
    name = next(iter(logits))
    logits[name] += off
    done = house.replayed(replace(house.record, logits={**house.record.logits, task: logits}))
    assert (done.same, done.output) == (False, f"{task}.{name}")


def test_the_recorded_scope_counts_and_not_todays(house: House) -> None:
    assert any("at most 64" in note for series in house.provenance.document["series"] for note in series["notes"])
    settings = {"settings": configuration_record(Configuration())["settings"]}
    done = house.replayed(house.with_document(configuration=settings))
    assert not done.same
    assert any(text.startswith("tokens_kept of a series") for text in done.differences)
    assert any(text.startswith("images used") for text in done.differences)


def test_a_study_that_is_out_of_scope_now_is_said_to_be(house: House) -> None:
    settings = {"settings": {"scope": {"min_series": 9}}}
    with pytest.raises(OutOfScope, match="at least 9"):
        house.replayed(house.with_document(configuration=settings))


def test_settings_that_this_version_does_not_know_are_refused(house: House) -> None:
    with pytest.raises(PermanentError, match="does not know"):
        house.replayed(house.with_document(configuration={"settings": {"scope": {"of_a_later_version": 1}}}))


def test_another_device_is_a_note_and_a_missing_one_asked_for_an_error(house: House) -> None:
    was = {**house.provenance.document["machine"], "device": "cuda:99", "name": "a GPU"}
    done = house.replayed(house.with_document(machine=was))
    assert done.same
    assert done.notes == ("device: cuda:99 (a GPU) then, cpu now",)
    with pytest.raises(ConfigurationError, match="--device"):
        house.replayed(device="cuda:99")


def test_other_versions_are_notes() -> None:
    was, now = {"torch": "2.1", "numpy": "2", "monai": "1"}, {"torch": "2.2", "numpy": "2", "pyjpegls": "1"}
    assert software_changes(was, now) == [
        "torch: 2.1 then, 2.2 now",
        "monai: 1 then, None now",
        "pyjpegls: None then, 1 now",
    ]


def test_inputs_are_compared_one_by_one(house: House) -> None:
    assert list(input_differences(house.provenance, house.prepared)) == []
    first, *others = house.prepared.series
    fewer = replace(house.prepared, series=tuple(others), description="of another kind")
    assert list(input_differences(house.provenance, fewer)) == [
        "series used: 2 then, 1 now, 1 the same",
        f"images used: {len(used(house))} then, {len(used(house)) - len(first.sop_instance_uids)} now, "
        f"{len(used(house)) - len(first.sop_instance_uids)} the same",
        "the study description is another",
    ]
    renamed = replace(house.prepared, series=(replace(first, name="OTHER", tokens_total=1), *others))
    assert list(input_differences(house.provenance, renamed)) == [
        f"name of a series: {first.name} then, OTHER now",
        f"tokens_total of a series: {first.tokens_total} then, 1 now",
    ]


def used(house: House) -> list[InputImage]:
    return [image for image in house.provenance.images if image.used]


@pytest.mark.parametrize(
    ("other", "greatest", "output"),
    [
        ({"a": {"x": 1.0, "y": 2.0}}, 0.0, "a.y"),
        ({"a": {"x": 1.0, "y": 1.5}}, 0.5, "a.y"),
        ({"a": {"x": 1.0}}, math.inf, "a.y"),
        ({"a": {"x": 1.0, "y": 2.0}, "b": {"z": 0.0}}, math.inf, "b.z"),
        ({"a": {"x": 1.0, "y": math.nan}}, math.inf, "a.y"),
    ],
)
def test_the_greatest_difference_counts_whatever_is_in_one_alone(
    other: dict[str, dict[str, float]], greatest: float, output: str
) -> None:
    assert greatest_difference({"a": {"x": 1.0, "y": 2.0}}, other) == (greatest, output)


def test_nothing_compared_with_nothing_proves_nothing() -> None:
    assert greatest_difference({"a": {}}, {"a": {}})[0] == math.inf


def test_images_must_be_there_byte_by_byte_in_the_recorded_transfer_syntax(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    images = received_study(spool)
    check_images(images, spool)
    paths = [tmp_path / image.path for image in images]
    content = paths[1].read_bytes()
    meta = content.replace(ExplicitVRLittleEndian.encode() + b"\0", ExplicitVRBigEndian.encode() + b"\0", 1)
    for wrong in (content[:-1] + b"\xff", content + b"\0", content[:200], b"", meta):
        assert wrong != content
        paths[1].write_bytes(wrong)
        with pytest.raises(PermanentError, match="1 of 16 images are not what was received") as refused:
            check_images(images, spool)
        assert str(paths[1]) in str(refused.value)
    paths[0].unlink()
    with pytest.raises(PermanentError, match=r"1 of 16 images are missing.*; 1 of 16 images are not what"):
        check_images(images, spool)


def test_a_trouble_of_the_disk_is_not_taken_for_an_altered_image(house: House, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    [first, *_] = house.provenance.images
    (tmp_path / first.path).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        check_images([first], spool)


def test_records_that_cannot_be_replayed_are_refused(house: House) -> None:
    for record, words in (
        (replace(house.record, provenance=None), "before the node kept records"),
        (replace(house.record, logits=None), "before the node kept records"),
        (house.with_document(schema_version=2), "later version"),
    ):
        with pytest.raises(PermanentError, match=words):
            recorded(record)


def test_the_bundle_must_be_the_same_to_the_byte(house: House) -> None:
    assert check_bundle(house.provenance, house.bundle.directory) == house.bundle
    was = house.provenance.document["bundle"]
    other = house.with_document(bundle={**was, "id": "other"})
    with pytest.raises(PermanentError, match="was made by other"):
        check_bundle(recorded(other), house.bundle.directory)


def test_the_order_of_the_files_does_not_matter_to_the_numbers(house: House) -> None:
    turned = replace(house.provenance, images=house.provenance.images[::-1])
    done = house.replayed(replace(house.record, provenance=turned))
    assert done.same
    assert np.isfinite(done.greatest)
