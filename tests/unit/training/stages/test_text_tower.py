"""The text tower: its vocabulary, its vectors, and that nothing but safetensors of this machine is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training.base.cohort import StudyReport
from training.base.errors import BadTrainingData
from training.stages.text_tower import TextSettings, make_text_tower, open_text_tower, text_identity

REPORTS = (StudyReport(("There is a tumour.", "The sinuses are clear.")), StudyReport(("Größe 3 × 4 cm.",)))
SETTINGS = TextSettings(width=16, depth=1, heads=2, vocabulary=300, most_tokens=24)


def made(folder: Path) -> Path:
    make_text_tower(REPORTS, folder, SETTINGS)
    return folder


def test_a_texts_vector_does_not_depend_on_its_company(tmp_path: Path) -> None:
    tower = open_text_tower(made(tmp_path), output=8).eval()
    texts = ["There is a tumour.", "", "Größe 3 × 4 cm. " * 30, "日本語 and letters never seen"]
    together = tower(texts)
    assert together.shape == (4, 8)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    for n, text in enumerate(texts):
        torch.testing.assert_close(tower([text])[0], together[n], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[3]).norm() > 0.01


def test_the_same_reports_make_the_same_folder(tmp_path: Path) -> None:
    assert text_identity(made(tmp_path / "a")) == text_identity(made(tmp_path / "b"))
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    made(tmp_path / "a")
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before


def test_other_reports_of_the_same_number_are_noticed(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(BadTrainingData, match="statements"):
        make_text_tower((REPORTS[0], StudyReport(("Another.",))), tmp_path, SETTINGS)


def test_a_long_report_is_cut_and_still_ends_with_the_end_mark(tmp_path: Path) -> None:
    tower = open_text_tower(made(tmp_path), output=8)
    seen: list[torch.Tensor] = []
    tower.model.register_forward_pre_hook(lambda _m, _a, named: seen.append(named["input_ids"]), with_kwargs=True)
    tower(["tumour " * 100])
    assert seen[0].shape == (1, 24)
    assert seen[0][0, -1] == tower.model.config.eos_token_id


def test_a_folder_with_pickled_weights_alone_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadTrainingData, match="not a usable model"):
        open_text_tower(tmp_path, output=8)


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    made(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BadTrainingData):
        open_text_tower(tmp_path, output=8)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_an_incomplete_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    made(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BadTrainingData, match=name):
        open_text_tower(tmp_path, output=8)


def test_no_reports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="no reports"):
        make_text_tower([], tmp_path, SETTINGS)
