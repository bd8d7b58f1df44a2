"""One tiny run through its commands: CLIP, embeddings, heads, zero-shot findings, evaluation, bundle.

Nothing half-made, stale or judged on patients who were trained on gets through. Studies are made up.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from prima_core.bundle import build_model, load_bundle
from support.training_cohort import CLIP, FINDINGS, TEXT, tiny, tokenized
from training.base.checkpoint import sha256
from training.base.cohort import StudyLabels, StudyRecord, StudyReport, write_labels
from training.base.embeddings import read_embeddings
from training.base.errors import BadTrainingData
from training.base.loop import LoopSettings
from training.base.trained_on import refuse_seen
from training.evaluate.__main__ import app as evaluate
from training.evaluate.held_out import held_out
from training.prepare.store import PATCHES, TOKENS, StoreWriter, StudyEntry
from training.run_folder import RunFolder, write_split
from training.split import app as split_command
from training.stages import embed
from training.stages.clip import Cohort, train_clip
from training.stages.embed import embed_store
from training.stages.export import app as export
from training.stages.fit import FitSettings
from training.stages.heads import HeadsSettings, head_logits, read_run_heads, train_heads
from training.stages.heads import app as heads_command
from training.stages.text_tower import make_text_tower
from training.stages.tokenizer import ENCODER, TokenizerSettings, train_tokenizer
from training.stages.zero_shot import app as zero_shot

STUDIES = 48
HEADS = HeadsSettings(FitSettings(LoopSettings(20, 16, device="cpu"), hidden=(), learning_rate=1e-2))
PROMPTS = {"abscess": {"present": ["There is abscess."], "absent": ["There is no finding."]}}


def call(app: Typer, run: RunFolder, *more: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["--run", str(run.folder), *map(str, more)])
    assert done.exit_code == code, done.output
    return done.output


def fill(folder: Path, numbers: Sequence[int], encoder: str) -> None:
    with StoreWriter(folder, TOKENS, {"encoder": {"sha256": encoder}}) as writer:
        for n in numbers:
            study, finding = tokenized(n), FINDINGS[n % len(FINDINGS)]
            record = StudyRecord(study.study, f"{n:016x}", date(2026, 1, 1) + timedelta(days=n))
            labels = StudyLabels({"tumour": finding == "tumour", "abscess": finding == "abscess"})
            writer.add(StudyEntry(record, study, labels, StudyReport((f"There is {finding}.",))))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Everything up to the heads; a prospective split; heads know tumours only, abscesses are left to the prompts."""
    torch.set_num_threads(1)
    run = RunFolder(tmp_path_factory.mktemp("run"))
    patches = np.random.default_rng(0).random((8, 4, 32, 32)).astype(np.float16)
    settings = TokenizerSettings(LoopSettings(1, 4, device="cpu"), tiny().tokenizer, codes=16)
    train_tokenizer(patches, patches, run / "tokenizer", settings)
    fill(run / "store", range(STUDIES), sha256(run / "tokenizer" / ENCODER))
    assert "train 24, validation 12, test 12" in call(split_command, run, "--by-day", "2026-01-25", "2026-02-06")
    store, split = run.store(), run.split()
    reports = store.reports()
    make_text_tower((reports[study] for study in split.train), run / "text", TEXT)
    train_clip(Cohort(store, reports, store.labels(), split), tiny(), run / "text", run / "clip", CLIP)
    embeddings = embed_store(store, run / "clip", run / "embeddings.safetensors", "cpu")
    write_labels(run / "labels.csv", store.labels())
    known = {study: StudyLabels({"tumour": one.diagnosis["tumour"]}) for study, one in run.labels().items()}
    known |= {study: replace(known[study], priority="high" if n % 2 else "none") for n, study in enumerate(known)}
    train_heads(embeddings, known, split, run / "heads", replace(HEADS, levels=("none", "high")))
    return run


@pytest.fixture
def run(finished_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that a test may damage."""
    shutil.copytree(finished_run.folder, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_finding_by_prompts_is_judged_and_exported_like_any_other(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    assert "abscess: threshold" in call(zero_shot, run, "--prompts", tmp_path / "prompts.json")
    call(evaluate, run, "--resamples", "3")
    record = json.loads((run / "evaluation" / "evaluation.json").read_text())
    found = record["sets"]["test part"]["diagnosis"]["outputs"]
    assert [(one["name"], one["positives"] + one["negatives"]) for one in found] == [("tumour", 12), ("abscess", 12)]
    assert record["prospective"] is True
    assert "all later than those that were" in (run / "evaluation" / "report.html").read_text()
    assert "clinical" in call(export, run, "--name", "site")
    bundle = load_bundle(run / "bundle")
    assert bundle.manifest.labels["diagnosis"] == ("tumour", "abscess")
    assert json.loads((run / "bundle" / "evaluation.json").read_text())["bundle_id"] == bundle.manifest.id
    assert (run / "bundle" / "evaluation.html").exists()
    model, embeddings, heads = build_model(bundle, "cpu", "fp32"), run.embeddings(), read_run_heads(run)
    with torch.inference_mode():
        said = model.heads(torch.from_numpy(embeddings.study), torch.from_numpy(embeddings.clip))
    judged = head_logits(heads, embeddings)["diagnosis"]
    np.testing.assert_allclose([list(one["diagnosis"].values()) for one in said], judged, atol=1e-6)
    assert "site-" in call(export, run, "--name", "site"), "an export that was done already is found to be the same"


def test_prompts_of_nothing_add_nothing(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text("{}")
    assert "names no finding" in call(zero_shot, run, "--prompts", tmp_path / "prompts.json", code=1)
    assert not (run / "zero_shot").exists()


def test_nothing_is_exported_that_was_not_evaluated_as_it_is(run: RunFolder, tmp_path: Path) -> None:
    assert "was not evaluated" in call(export, run, "--name", "x", code=1)
    call(evaluate, run, "--resamples", "2")
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    call(zero_shot, run, "--prompts", tmp_path / "prompts.json")
    assert "other heads than the run's" in call(export, run, "--name", "x", code=1)
    assert not (run / "bundle").exists()


@pytest.mark.parametrize("stage", ["tokenizer", "clip", "heads"])
def test_nothing_half_trained_is_exported(run: RunFolder, stage: str) -> None:
    call(evaluate, run, "--resamples", "2")
    (run / stage / "done.json").unlink()
    assert "has not ended" in call(export, run, "--name", "x", code=1)
    assert not (run / "bundle").exists()


def test_results_of_another_model_or_encoder_are_refused(run: RunFolder) -> None:
    call(evaluate, run, "--resamples", "2")
    shutil.rmtree(run / "clip")
    store, split = run.store(), run.split()
    other = replace(CLIP, loop=replace(CLIP.loop, seed=1))
    train_clip(Cohort(store, store.reports(), store.labels(), split), tiny(), run / "text", run / "clip", other)
    assert "embeddings are of another model" in call(export, run, "--name", "x", code=1)
    before = run.embeddings()
    embed_store(store, run / "clip", run / "embeddings.safetensors", "cpu")
    assert not np.allclose(before.study, run.embeddings().study), "those of the old model are not kept"
    assert "embeddings were others" in call(export, run, "--name", "x", code=1)
    shutil.rmtree(run / "store")
    fill(run / "store", range(STUDIES), "another")
    with pytest.raises(BadTrainingData, match="another encoder"):
        embed_store(run.store(), run / "clip", run / "embeddings.safetensors", "cpu")


def test_embedding_goes_on_where_it_was_killed(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run.embeddings()
    path = run / "embeddings.safetensors"
    path.unlink()
    monkeypatch.setattr(embed, "PART", 16)
    made = embed.embed_studies
    parts: list[int] = []

    def dies(*arguments: object) -> object:
        if len(parts) == 2:
            raise KeyboardInterrupt
        parts.append(1)
        return made(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(embed, "embed_studies", dies)
        with pytest.raises(KeyboardInterrupt):
            embed_store(run.store(), run / "clip", path, "cpu")
    assert len(read_embeddings(path).studies) == 32
    assert embed_store(run.store(), run / "clip", path, "cpu").digest() == whole.digest()


def test_heads_are_not_reused_for_another_split_of_the_same_size(run: RunFolder) -> None:
    split, known = run.split(), (run.embeddings(), run.labels())
    train_heads(*known, split, run / "again", HEADS)
    swapped = replace(split, train=(*split.train[1:], split.test[0]), test=(*split.test[1:], split.train[0]))
    write_split(run / "split.csv", swapped)
    with pytest.raises(BadTrainingData, match="made with split"):
        train_heads(*known, run.split(), run / "again", HEADS)
    with pytest.raises(BadTrainingData, match="split"):
        read_run_heads(run)


def test_nobody_whom_a_stage_has_seen_is_judged(run: RunFolder) -> None:
    split = run.split()
    moved = replace(split, train=split.train[1:], test=(*split.test, split.train[0]))
    write_split(run / "split.csv", moved)
    before = (run / "split.csv").read_bytes()
    with pytest.raises(BadTrainingData, match=f"trained on 1 studies .*{split.train[0]}"):
        held_out(run)
    assert "trained on" in call(split_command, run, "--by-day", "2026-01-10", "2026-01-20", code=1)
    assert (run / "split.csv").read_bytes() == before, "a split that is refused is not written"


def test_another_study_of_a_patient_who_was_seen_is_not_judged_either(tmp_path: Path) -> None:
    records = [StudyRecord("first", "a"), StudyRecord("second", "a"), StudyRecord("third", "b")]
    (tmp_path / "studies.json").write_text('["first"]')
    with pytest.raises(BadTrainingData, match="first"):
        refuse_seen([tmp_path], records, ["second"])
    refuse_seen([tmp_path, tmp_path / "absent"], records, ["third"])


def test_labels_of_unknown_studies_are_named(run: RunFolder) -> None:
    settings = ("--steps", "1", "--hidden", "")
    known = dict(run.labels())
    shutil.rmtree(run / "heads")
    write_labels(run / "labels.csv", known | {"f" * 16: StudyLabels({"tumour": True})})
    said = call(heads_command, run, *settings)
    assert f"1 of {STUDIES + 1} labelled studies are not in this run: the first is {'f' * 16}" in said
    write_labels(run / "labels.csv", {f"1.2.{n}": one for n, one in enumerate(known.values())})
    shutil.rmtree(run / "heads")
    said = call(heads_command, run, *settings, code=1)
    assert f"{STUDIES} of {STUDIES} labelled studies are not in this run: no pseudonyms" in said
    assert "1.2." not in said, "a UID is not repeated"
    assert not (run / "heads").exists()


def test_a_corrupt_shard_is_named_before_anything_is_learned_from_it(run: RunFolder) -> None:
    [shard] = (run / "store" / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    (run / "embeddings.safetensors").unlink()
    said = call(embed.app, run, "--device", "cpu", code=1)
    assert f"shard {shard.name} is damaged" in said
    assert not (run / "embeddings.safetensors").exists()


def test_a_split_may_be_made_while_there_are_only_patches(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with StoreWriter(run / "patches", PATCHES, {}) as writer:
        for n in range(6):
            record = StudyRecord(f"{n:016x}", f"{n:016x}", date(2026, 1, 1 + n))
            writer.add(StudyEntry(record, np.zeros((1, 4, 32, 32), np.float16)))
    assert "train 2, validation 2, test 2" in call(split_command, run, "--by-day", "2026-01-03", "2026-01-05")
