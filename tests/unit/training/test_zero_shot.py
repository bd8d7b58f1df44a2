"""Zero-shot heads: the direction of the prompts, in numbers and in a bundle; nothing incomplete is exported."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prima_core import bundle as bundle_module
from prima_core.bundle import Bundle, build_model, expected_tensors, load_bundle
from prima_core.random_weights import demo
from training.base.errors import BadTrainingData, NoSpace
from training.stages.export import attach_evaluation, export_bundle
from training.stages.heads import TrainedHeads, joined
from training.stages.zero_shot import Prompts, plain_prompts, read_prompts, zero_shot_head

WIDTH = 32
random = np.random.default_rng(0)


def encode(texts: Sequence[str]) -> np.ndarray:
    """A text points along its first letter after "There is ", backwards when it says no."""
    vectors = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        word = text.removeprefix("There is ").removeprefix("no ")
        vectors[row, ord(word[0]) - ord("a")] = -1 if " no " in text else 1
    return vectors


def test_an_image_that_agrees_with_the_prompt_scores_high() -> None:
    head = zero_shot_head({"glioma": plain_prompts(["glioma"]), "cyst": plain_prompts(["cyst"])}, encode, scale=10)
    images = np.zeros((2, WIDTH), np.float32)
    images[0, ord("g") - ord("a")], images[1, ord("c") - ord("a")] = 1, -1
    assert head.logits(images).tolist() == [[20, 0], [0, -20]]


def test_wordings_are_averaged() -> None:
    one = zero_shot_head({"x": Prompts(("There is a.", "There is b."), ("There is no a.",))}, encode, scale=1)
    assert one.weight[0, :2].tolist() == [1.5, 0.5]


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"x": {"present": []}}', '{"x": {"present": ["a"], "absent": [1]}}']
)
def test_faulty_prompts_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(BadTrainingData, match=r"prompts\.json"):
        read_prompts(tmp_path / "prompts.json")


def heads_and_body() -> tuple[TrainedHeads, dict[str, np.ndarray]]:
    architecture = demo(["glioma"], ["neurology"])
    shapes = expected_tensors(architecture)
    tensors = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("heads.")}
    heads = TrainedHeads(
        architecture.heads,
        weights,
        {"diagnosis": {"glioma": 0.5}, "referral": {"neurology": 0.0}},
        {"diagnosis": 1.5, "referral": None, "priority": None},
    )
    return heads, {name: tensor for name, tensor in tensors.items() if name not in weights}


def test_an_exported_bundle_answers_the_zero_shot_finding(tmp_path: Path) -> None:
    import torch

    heads, body = heads_and_body()
    head = zero_shot_head({"cyst": plain_prompts(["cyst"])}, encode, scale=3)
    bundle = export_bundle(
        tmp_path / "bundle",
        name="x",
        version="1",
        training_state="phantom",
        architecture=demo(),
        body=body,
        heads=joined(heads, head.as_heads({"cyst": 0.25}, 0.5)),
    )
    attach_evaluation(bundle, {"studies": 3})
    assert f'"bundle_id": "{bundle.manifest.id}"' in (bundle.directory / "evaluation.json").read_text()
    assert bundle.manifest.labels["diagnosis"] == ("glioma", "cyst")
    model = build_model(bundle, "cpu", "fp32")
    study = torch.randn(2, demo().study_vit.pooled_width)
    clip = model.study_vit.clip_vector(study)
    answers = model.heads(study, clip)
    # The task's temperature is 1.5, the prompts' own 0.5: logit and threshold are three times as large.
    assert bundle.manifest.thresholds["diagnosis"] == {"glioma": 0.5, "cyst": 0.75}
    assert [one["diagnosis"]["cyst"] for one in answers] == pytest.approx(
        (3 * (head.logits(clip.numpy())[:, 0] - 0.25)).tolist(), abs=1e-5
    )


def test_an_export_that_was_stopped_goes_on_and_never_replaces_another_bundle(tmp_path: Path) -> None:
    heads, body = heads_and_body()

    def export(heads: TrainedHeads) -> Bundle:
        return export_bundle(
            tmp_path / "bundle",
            name="x",
            version="1",
            training_state="phantom",
            architecture=demo(),
            body=body,
            heads=heads,
        )

    first = export(heads)
    assert export(heads).manifest == first.manifest
    other = {name: tensor + 1 for name, tensor in heads.weights.items()}
    with pytest.raises(BadTrainingData, match="holds another bundle"):
        export(replace(heads, weights=other))
    assert load_bundle(tmp_path / "bundle").manifest == first.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, body = heads_and_body()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_module, "save_file", full)
    with pytest.raises(NoSpace):
        export_bundle(
            tmp_path / "bundle",
            name="x",
            version="1",
            training_state="phantom",
            architecture=demo(),
            body=body,
            heads=heads,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["no stage", "not finite"])
def test_nothing_incomplete_is_exported(tmp_path: Path, fault: str) -> None:
    heads, body = heads_and_body()
    weight = body.pop("study_vit.clip.weight")
    if fault == "not finite":
        body["study_vit.clip.weight"] = weight * np.float32(np.nan)
    with pytest.raises(BadTrainingData, match=rf"study_vit\.clip\.weight: .*{fault}"):
        export_bundle(
            tmp_path / "bundle",
            name="x",
            version="1",
            training_state="phantom",
            architecture=demo(),
            body=body,
            heads=heads,
        )
    assert not (tmp_path / "bundle").exists()
