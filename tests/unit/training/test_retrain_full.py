"""Every stage anew, in the base's architecture, on made-up studies: tiny, and nothing is learned."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prima_core.bundle import Bundle, build_model, load_bundle
from support.prepared_studies import RandomStudies
from training.base.cohort import StudyLabels
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.prepare.source import SourceStudy
from training.retrain import RetrainSettings, StageSettings, retrain_full, stage_settings
from training.run_folder import RunFolder
from training.stages.heads import held_heads

STUDIES = 40
LEVELS = ("none", "low", "medium", "high")
SETTINGS = RetrainSettings("2+full", "phantom", held_heads(2), allow_fewer=True, resamples=2)


@dataclass(frozen=True)
class Labelled(RandomStudies):
    """Random studies whose labels a bundle can be made of; of a site that keeps no priorities where `levels` is ()."""

    levels: tuple[str, ...] = LEVELS

    def fetch(self, reference: str, scratch: Path) -> SourceStudy:
        """With labels of every task."""
        number = int(reference) // 2
        level = self.levels[number % 4] if self.levels else None
        labels = StudyLabels({"glioma": number % 2 == 0}, {"neurology": number % 3 == 0}, level)
        return replace(super().fetch(reference, scratch), labels=labels, truth="")


@pytest.fixture
def base(random_bundle: Path) -> Bundle:
    torch.set_num_threads(1)
    return load_bundle(random_bundle)


def stages(base: Bundle, *, keep_tokenizer: bool) -> StageSettings:
    """The site's settings, but for their size."""
    chosen = stage_settings(
        base.manifest.architecture,
        steps=2,
        tokenizer_steps=2,
        keep_tokenizer=keep_tokenizer,
        workers=0,
        device="cpu",
    )
    tokenizer = chosen.tokenizer and replace(chosen.tokenizer, loop=LoopSettings(2, 4, device="cpu"), codes=16)
    clip = replace(chosen.clip, loop=LoopSettings(2, 4, device="cpu"))
    names = replace(chosen.names, loop=LoopSettings(2, 4, device="cpu"))
    text = replace(chosen.text, width=16, depth=1, heads=2, vocabulary=300)
    return replace(
        chosen, tokenizer=tokenizer, names=names, clip=clip, text=text, patch_studies=STUDIES, patches_per_series=4
    )


@pytest.mark.parametrize("keep_tokenizer", [True, False])
def test_every_stage_ends_in_one_evaluated_bundle(base: Bundle, tmp_path: Path, keep_tokenizer: bool) -> None:
    run = RunFolder(tmp_path / "run")
    run.folder.mkdir()
    source = Labelled(STUDIES)
    bundle = retrain_full(run, source, base, tmp_path / "new", SETTINGS, stages(base, keep_tokenizer=keep_tokenizer))
    manifest = bundle.manifest
    assert (manifest.training_state, manifest.version) == ("phantom", "2+full")
    assert manifest.labels == {"diagnosis": ("glioma",), "referral": ("neurology",), "priority": LEVELS}
    files, old = manifest.files, base.manifest.files
    assert (files["tokenizer.safetensors"] == old["tokenizer.safetensors"]) is keep_tokenizer
    assert files["study_model.safetensors"] != old["study_model.safetensors"]
    record = json.loads((bundle.directory / "evaluation.json").read_text())
    assert record["studies"] == len(run.split().test)
    assert f"diagnosis.{base.manifest.labels['diagnosis'][0]}" in record["no_longer_reported"]
    model = build_model(bundle, "cpu", "fp32")
    one = run.split().test[0]
    reference = next(name for name in source.references() if source.study(name) == one)
    (tmp_path / "scratch").mkdir()
    [said] = model.predict([source.fetch(reference, tmp_path / "scratch").prepared])
    embedding = run.embeddings().study[run.embeddings().rows([one])[0]]
    torch.testing.assert_close(torch.from_numpy(said.study_embedding), torch.from_numpy(embedding), atol=1e-2, rtol=0)
    assert (run / "series_names/done.json").exists()
    assert not (run / "base").exists(), "nobody goes on from weights that were never trained"
    grown = Labelled(STUDIES + 8)
    again = retrain_full(run, grown, base, tmp_path / "new", SETTINGS, stages(base, keep_tokenizer=keep_tokenizer))
    assert again.manifest == manifest, "studies that came later are the next run's"


def test_a_kept_tokenizer_goes_on_from_the_trained_study_model(base: Bundle, tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    for run in (first, second):
        run.folder.mkdir()
    kept = stages(base, keep_tokenizer=True)
    trained = retrain_full(first, Labelled(STUDIES), base, tmp_path / "new", SETTINGS, kept)
    retrain_full(second, Labelled(STUDIES), trained, tmp_path / "newer", replace(SETTINGS, version="3+full"), kept)
    begun, body = (
        load_file(path) for path in (second / "base/start.safetensors", tmp_path / "new/study_model.safetensors")
    )
    assert begun.keys() == body.keys()
    assert all(torch.equal(begun[name], tensor) for name, tensor in body.items())
    said = json.loads((second / "clip/done.json").read_text())["settings"]["start"]
    assert list(said) == ["start.safetensors"]
    assert not (second / "series_names").exists()


def test_a_bundle_that_could_not_report_is_not_trained(base: Bundle, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.folder.mkdir()
    with pytest.raises(BadTrainingData, match="priority head"):
        retrain_full(
            run, Labelled(STUDIES, levels=()), base, tmp_path / "new", SETTINGS, stages(base, keep_tokenizer=True)
        )
    assert not (run / "clip").exists()
