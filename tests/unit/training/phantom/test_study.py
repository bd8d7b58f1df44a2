"""A seed → one study: its files, labels, report and truth agree, and the same seed gives the same bytes.

What the images look like is tested with the physics; here a study is one thing.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from typer import Typer
from typer.testing import CliRunner

from prima_core.prepare import prepare_study
from training.base.cohort import read_labels, read_reports
from training.base.errors import BadTrainingData
from training.phantom.__main__ import main
from training.phantom.case import KINDS, SECOND_STORY, SIMULATED, draw_case
from training.phantom.priority import PRIORITIES, REFERRALS
from training.phantom.study import FIRST_DAY, labels_of, make_study, simulate, truth_json, visit
from training.phantom.types import Case, Truth
from training.phantom.vendors import HOME

SEED = 104


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, Path]:
    folder = tmp_path_factory.mktemp("study")
    return make_study(SEED, "home", folder), folder


def test_the_files_are_the_study_that_the_truth_speaks_of(made: tuple[Truth, Path]) -> None:
    truth, folder = made
    paths = sorted(folder.iterdir())
    for path in (paths[0], paths[-1]):
        image = dcmread(path, stop_before_pixels=True)
        assert image.StudyInstanceUID == truth.study_instance_uid
        assert image.PatientID == truth.patient_id
        assert image.PatientSex == truth.case.sex
        assert image.StudyDate == truth.day.strftime("%Y%m%d")
        assert image.Manufacturer == truth.vendor
        assert image.StationName == truth.site.upper()
        assert image.MagneticFieldStrength == truth.field_strength
        assert int(image.PatientAge[:3]) == int(truth.case.age_years)


def test_the_node_accepts_every_series(made: tuple[Truth, Path]) -> None:
    truth, folder = made
    prepared = prepare_study(sorted(folder.iterdir()))
    assert prepared.study_instance_uid == truth.study_instance_uid
    assert prepared.set_aside == ()
    assert 3 <= len(prepared.series) <= 6
    assert all(series.notes == () for series in prepared.series)
    assert all(series.tokens_kept > 25 for series in prepared.series)


def test_labels_say_every_simulated_diagnosis_yes_or_no(made: tuple[Truth, Path]) -> None:
    truth, _ = made
    labels = truth.labels
    assert set(labels.diagnosis) == set(SIMULATED)
    assert {key for key, present in labels.diagnosis.items() if present} == truth.case.diagnoses
    assert set(labels.referral) == set(REFERRALS)
    assert labels.priority in PRIORITIES
    assert labels.value == {"age_years": pytest.approx(truth.case.age_years, abs=0.01)}


def test_the_truth_says_how_plain_each_finding_is_and_identifies_nobody(made: tuple[Truth, Path]) -> None:
    truth, _ = made
    assert len(truth.contrast_to_noise) == len(truth.case.findings) > 0
    text = truth_json(truth)
    values = json.loads(text)
    assert [finding["kind"] for finding in values["findings"]] == [finding.kind for finding in truth.case.findings]
    assert all(finding["contrast_to_noise"] >= 0 for finding in values["findings"])
    for secret in (truth.study_instance_uid, truth.patient_id, truth.day.isoformat()):
        assert secret not in text


def test_a_seed_gives_the_same_bytes(made: tuple[Truth, Path], tmp_path: Path) -> None:
    truth, folder = made
    assert make_study(SEED, "home", tmp_path) == truth
    names = [path.name for path in sorted(folder.iterdir())]
    assert [path.name for path in sorted(tmp_path.iterdir())] == names
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_the_away_domain_shows_the_same_patient_elsewhere(made: tuple[Truth, Path], tmp_path: Path) -> None:
    home, _ = made
    away = make_study(SEED, "away", tmp_path)
    assert away.case == home.case
    assert away.labels == home.labels
    assert away.study_instance_uid != home.study_instance_uid
    assert away.patient_id != home.patient_id
    assert away.vendor != home.vendor
    assert away.site != home.site


def test_the_teaching_collection_is_of_other_patients_on_the_scanners_of_home() -> None:
    seed = next(
        one for one in range(0, 200, 2) if len(_kinds(draw_case(one, SECOND_STORY))) > len(_kinds(draw_case(one)))
    )
    taught, home = (simulate(seed, domain).truth for domain in ("teaching", "home"))
    assert taught.patient_id != home.patient_id
    assert taught.study_instance_uid != home.study_instance_uid
    assert taught.site in {scanner.site for scanner in HOME}
    assert _kinds(taught.case) == _kinds(draw_case(seed, SECOND_STORY))
    assert _kinds(home.case) == _kinds(draw_case(seed))


def _kinds(case: Case) -> set[str]:
    """Without what follows from the others."""
    return {finding.kind for finding in case.findings} & set(KINDS)


def test_an_unknown_domain_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="nowhere"):
        make_study(SEED, "nowhere", tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_some_pairs_of_seeds_are_two_visits_of_one_patient() -> None:
    visits = [visit(seed) for seed in range(2000)]
    pairs = [(first, second) for first, second in zip(visits[::2], visits[1::2], strict=True)]
    same = [(first, second) for first, second in pairs if first.patient_seed == second.patient_seed]
    assert 0.11 < len(same) / len(pairs) < 0.19
    for first, second in same:
        assert first.days_since_first == 0
        assert second.day - first.day == timedelta(days=second.days_since_first) >= timedelta(days=30)
    others = [one for pair in pairs if pair not in same for one in pair]
    assert all(one.days_since_first == 0 for one in others)
    assert len({one.patient_seed for one in others}) == len(others)
    assert {one.day.year for one in visits} == {2024, 2025}
    assert all(FIRST_DAY <= one.day <= date(2025, 12, 31) for one in visits)


def test_a_second_visit_is_the_same_patient_older(tmp_path: Path) -> None:
    seed = next(seed for seed in range(1, 200, 2) if visit(seed).days_since_first and draw_case(seed - 1).findings)
    first, second = (make_study(one, "home", tmp_path / str(one)) for one in (seed - 1, seed))
    assert first.patient_id == second.patient_id
    assert first.study_instance_uid != second.study_instance_uid
    assert first.case.findings == second.case.findings
    assert second.case.age_years > first.case.age_years
    born = {dcmread(next((tmp_path / str(one)).iterdir())).PatientBirthDate for one in (seed - 1, seed)}
    assert len(born) == 1


def test_labels_of_a_healthy_patient_are_all_no() -> None:
    healthy = next(case for case in map(draw_case, range(200)) if not case.findings)
    labels = labels_of(healthy)
    assert not any(labels.diagnosis.values())
    assert not any(labels.referral.values())
    assert labels.priority == "none"


def test_the_command_writes_studies_and_their_lists(tmp_path: Path) -> None:
    app = Typer()
    app.command()(main)
    arguments = ["--out", str(tmp_path), "--studies", "1", "--first-seed", "7", "--domain", "away"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    uid = str(dcmread(next(folder.iterdir()), stop_before_pixels=True).StudyInstanceUID)
    assert set(read_labels(tmp_path / "labels.csv")) == {uid}
    assert set(read_reports(tmp_path / "reports.jsonl")) == {uid}
    [line] = (tmp_path / "truth.jsonl").read_text().splitlines()
    assert json.loads(line)["study"] == uid


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--out", str(tmp_path), "--studies", "1", "--domain", "nowhere"])
    assert result.exit_code == 1
    assert "unknown domain 'nowhere'" in result.output
