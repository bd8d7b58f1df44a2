"""What a record says of a result, and that nothing secret or of one machine alone is in what decides results."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_node import surroundings
from dicom_node.base.config import configuration_from
from dicom_node.base.provenance import InputImage, Received
from dicom_node.base.types import Claim
from dicom_node.provenance import Surroundings, configuration_record, provenance_of
from dicom_node.surroundings import software
from prima_core.base.types import PreparedSeries, PreparedStudy, SetAside, StudyPrediction
from prima_core.bundle import load_bundle

DATABASE = "postgresql://user:{}@host/prima"
NONE = np.zeros(1, np.float32)


def image(number: int, series: str) -> InputImage:
    return InputImage(f"{series}.{number}", series, "1.2.840.10008.1.2.1", f"{number:064}", 10, f"s/{number}.dcm")


def series(uid: str, *used: int, **changes: object) -> PreparedSeries:
    ids = np.zeros(5, np.int64)
    made = PreparedSeries(
        series_instance_uid=uid,
        name="AX_FLAIR",
        patches=np.zeros((1, 4, 32, 32), np.float32),
        token_ids=ids,
        coordinates=np.zeros((5, 3), np.int64),
        thin_axis=0,
        tokens_total=8,
        sop_instance_uids=tuple(f"{uid}.{number}" for number in used),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_images_are_used_set_aside_or_left_out_with_the_reason(random_bundle: Path) -> None:
    received = Received(
        (image(1, "1.1"), image(2, "1.1"), image(3, "1.2")), {"current": 3, "lost": 1}, 1.0, 2.0, 3.0, 4.0
    )
    study = PreparedStudy(
        "1",
        "MR BRAIN",
        (series("1.1", 1, notes=("one slice in 2 of 2 was used",)),),
        (SetAside("1.2", "localiser"), SetAside("", "1 file(s): not a readable DICOM file")),
        seconds=0.5,
    )
    seconds = {"tokenize": 3.0, "study_model": 2.0, "heads": 1.0}
    said = StudyPrediction("1", {}, {}, {}, NONE, NONE, "fp32", seconds, batch_studies=3, batch_tokens=20)
    claim = Claim("s", "1", 2, True, "w", ("PACS",), (), "partly", 2)
    around = Surroundings({"digest": "d"}, {"numpy": "2"}, {"device": "cpu"})
    bundle = load_bundle(random_bundle)
    made = provenance_of(claim, received, study, said, bundle, around, 5.0)

    assert [one.used for one in made.images] == [True, False, False]
    assert [replace(one, used=False) for one in made.images] == list(received.images)
    document = dict(made.document)
    assert document.pop("bundle")["files"] == dict(bundle.manifest.files)
    assert document == {
        "schema_version": 1,
        "study_description": "MR BRAIN",
        "calling_ae_titles": ["PACS"],
        "urgent": True,
        "attempt": 2,
        "partial_reason": "partly",
        "series": [
            {
                "series_instance_uid": "1.1",
                "name": "AX_FLAIR",
                "tokens_total": 8,
                "tokens_kept": 5,
                "images": 2,
                "images_used": 1,
                "notes": ["one slice in 2 of 2 was used"],
            }
        ],
        "set_aside": [
            {"series_instance_uid": "1.2", "reason": "localiser", "images": 1},
            {"series_instance_uid": "", "reason": "1 file(s): not a readable DICOM file", "images": None},
        ],
        "objects": {"current": 3, "lost": 1},
        "configuration": {"digest": "d"},
        "software": {"numpy": "2"},
        "machine": {"device": "cpu"},
        "precision": "fp32",
        "times": {"first_image": 1.0, "last_image": 2.0, "complete": 3.0, "claimed": 4.0, "reported": 5.0},
        "seconds": {"prepare": 0.5, **seconds},
        "batch": {"studies": 3, "tokens": 20},
    }


def test_what_decides_results_is_equal_on_another_machine_and_holds_no_secret() -> None:
    here = configuration_from({"node": {"database": DATABASE.format("secret")}}, Path("/a"))
    elsewhere = {"node": {"port": 4242}, "intake": {"stability_seconds": 9}, "report": {"keep_sent_days": 9}}
    there = configuration_from(elsewhere, Path("/b"))
    records = [configuration_record(one) for one in (here, there)]
    assert "secret" not in str(records)
    assert records[0]["digest"] != records[1]["digest"]
    assert records[0]["settings_digest"] == records[1]["settings_digest"]
    assert records[0]["settings"] == records[1]["settings"]
    assert set(records[0]["settings"]["model"]) == {"precision", "device", "token_budget"}


@pytest.mark.parametrize(
    "section",
    [
        {"scope": {"max_kept_tokens": 100}},
        {"scope": {"exclude": {"younger_than_years": 18}}},
        {"model": {"precision": "bf16"}},
        {"worklist": {"mapping": {"none": "routine", "low": "elevated", "medium": "elevated", "high": "urgent"}}},
        {"report": {"negatives": "all"}},
        {"explanation": {"samples": 64}},
        {"explanation": {"method": "gradient", "seed": 3}},
    ],
)
def test_every_setting_that_decides_a_result_changes_its_digest(section: dict[str, object]) -> None:
    default, other = (configuration_from(table, Path("/a")) for table in ({}, section))
    assert configuration_record(default)["settings_digest"] != configuration_record(other)["settings_digest"]


def test_a_password_is_not_in_the_configurations_digest() -> None:
    one, other = (configuration_from({"node": {"database": DATABASE.format(word)}}, Path("/")) for word in ("a", "b"))
    assert one.node.database != other.node.database
    assert one.digest == other.digest


def test_versions_are_told_without_loading_anything_heavy() -> None:
    program = (
        "import sys; from dicom_node.surroundings import software; found = software(); "
        "print(found['torch'] is not None, sorted({'torch', 'monai', 'highdicom', 'SimpleITK'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


def test_a_library_that_is_not_installed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "PACKAGES", ("numpy", "no-such-library"))
    found = software()
    assert found["no-such-library"] is None
    assert found["numpy"] == np.__version__


def test_other_code_of_the_same_version_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text("a = 1\n")
    monkeypatch.setattr(surroundings.prima_core, "__path__", [str(tmp_path)])
    before = software()["source"]
    assert software()["source"] == before
    (tmp_path / "module.py").write_text("a = 2\n")
    assert software()["source"] != before
