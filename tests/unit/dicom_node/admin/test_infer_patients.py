"""`infer` on a folder that mixes two patients: it fails for good, instead of judging the scope of nobody's study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.admin.main import main
from prima_core.random_weights import demo, write_random_bundle
from support.dicom_factory import StudyFacts, write_study


def test_two_patients_in_one_folder_end_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = StudyFacts()
    write_study(tmp_path / "study" / "a", study)
    write_study(tmp_path / "study" / "b", replace(study, patient_name="Other^Person"))
    bundle = write_random_bundle(tmp_path / "bundle", demo(), name="demo").directory
    monkeypatch.setattr("sys.argv", ["dicom-node", "infer", str(tmp_path / "study"), "--bundle", str(bundle), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert "two patients (PatientName)" in printed.err
    assert "Other" not in printed.err + printed.out
    assert printed.out == ""
