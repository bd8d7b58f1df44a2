"""The released checkpoint → a bundle: every layout it may come in gives the same weights; what is unknown is refused.

The golden checkpoint's numbers are checked stage by stage in `test_prima`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from prima_core.base.errors import BundleError, CheckpointRefused
from prima_core.bundle import build_model, load_bundle
from prima_core.import_prima import ImportSummary, import_prima
from support.torch_archives import ReleasedModel


def imported(model: ReleasedModel, folder: Path, root: Any = None) -> dict[str, np.ndarray]:
    """All tensors of the bundle made of this model."""
    import_prima(*model.save(folder, root), folder / "bundle", training_state="untrained")
    bundle = load_bundle(folder / "bundle")
    build_model(bundle, "cpu", "fp32")
    tensors: dict[str, np.ndarray] = {}
    for name in bundle.manifest.files:
        tensors |= load_file(folder / "bundle" / name)
    return tensors


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return imported(ReleasedModel(), tmp_path_factory.mktemp("plain"))


def test_summary_and_manifest_of_the_golden_checkpoint(shared_data: Path, tmp_path: Path) -> None:
    golden = shared_data / "prima_golden"
    files = (golden / "primafullmodel.pt", golden / "vqvae.pth", golden / "tokenizer_config.json")
    summary = import_prima(*files, tmp_path / "bundle")
    manifest = load_bundle(tmp_path / "bundle").manifest
    stored = sum(values.size for name in manifest.files for values in load_file(tmp_path / "bundle" / name).values())
    assert summary == ImportSummary(tmp_path / "bundle", 3, 2, 4, stored)
    assert manifest.training_state == "clinical"
    assert manifest.thresholds["diagnosis"] == {
        "vascular_hemorrhagic_intracranial_hemorrhage": -0.4,
        "tumor_adult_glioma": 0.2,
        "ventricular_ventriculomegaly": -1.0,
    }
    assert manifest.labels["priority"] == ("none", "low", "medium", "high")
    architecture = manifest.architecture
    assert (architecture.sequence_vit.transformer.heads, architecture.sequence_vit.transformer.head_width) == (2, 16)
    assert architecture.tokenizer.channels == (16, 16)
    assert [head.outputs for head in architecture.heads if head.task == "diagnosis"] == [
        (name,) for name in manifest.labels["diagnosis"]
    ]


def test_only_the_used_output_of_a_head_is_kept(plain: dict[str, np.ndarray]) -> None:
    model = ReleasedModel()
    module, column = model.root.diagnosisheads["glioma"]
    np.testing.assert_array_equal(plain["heads.mlps.0.layers.2.weight"], module[4].weight.detach()[column][None])
    np.testing.assert_array_equal(plain["heads.mlps.0.layers.2.bias"], module[4].bias.detach()[column][None])


def in_main(_: ReleasedModel) -> tuple[ReleasedModel, Any]:
    model = ReleasedModel(main=True)
    return model, model.root


def wrapped(model: ReleasedModel) -> tuple[ReleasedModel, Any]:
    heads = model.root.diagnosisheads
    heads["glioma"][0] = nn.DataParallel(heads["glioma"][0])
    model.root.priorityhead = nn.DataParallel(model.root.priorityhead)
    visual = model.visual
    visual.serieencoder[0] = nn.DataParallel(visual.serieencoder[0])
    model.root.clipmodel.visual_model = nn.DataParallel(visual)
    model.root.clipmodel = nn.DataParallel(model.root.clipmodel)
    return model, nn.DataParallel(model.root)


def bare_series_encoder(model: ReleasedModel) -> tuple[ReleasedModel, Any]:
    pretrained, linear = model.visual.serieencoder
    pretrained.linear, pretrained.prelinear = linear, False
    model.visual.serieencoder = pretrained
    return model, model.root


def with_extras(model: ReleasedModel) -> tuple[ReleasedModel, Any]:
    model.visual.patdisnet = nn.Linear(3, 3)
    model.root.clipmodel.criterion = nn.CrossEntropyLoss()
    model.root.clipvisualmodel = model.root.clipmodel
    return model, model.root


@pytest.mark.parametrize("bend", [in_main, wrapped, bare_series_encoder, with_extras])
def test_every_layout_gives_the_same_weights(
    bend: Callable[[ReleasedModel], tuple[ReleasedModel, Any]], plain: dict[str, np.ndarray], tmp_path: Path
) -> None:
    model, root = bend(ReleasedModel())
    assert_equal(imported(model, tmp_path, root), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_become_float32(dtype: torch.dtype, plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = ReleasedModel()
    model.root.to(dtype)
    tensors = imported(model, tmp_path)
    for name in (name for name in tensors if not name.startswith(("tokenizer", "heads"))):
        rounded = torch.from_numpy(plain[name]).to(dtype).float().numpy()
        np.testing.assert_array_equal(tensors[name], rounded, err_msg=name)


def test_one_head_of_the_models_own_width(tmp_path: Path) -> None:
    tensors = imported(ReleasedModel(heads=1, head_width=32), tmp_path)
    assert "study_vit.pooling.transformer.blocks.0.attention.qkv.weight" in tensors
    assert "study_vit.pooling.transformer.blocks.0.attention.out.weight" not in tensors
    assert "sequence_vit.pooling.transformer.blocks.0.attention.out.weight" in tensors


def test_equal_hidden_layers_are_stored_once(tmp_path: Path) -> None:
    model = ReleasedModel()
    first, _ = model.root.diagnosisheads["glioma"]
    copy = model.mlp(64, 3, 0.75)
    copy[:4].load_state_dict(first[:4].state_dict())
    model.root.diagnosisheads["metastasis"] = [copy, 1]
    tensors = imported(model, tmp_path)
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert [head.outputs for head in manifest.architecture.heads[:2]] == [("glioma", "metastasis"), ("edema",)]
    expected = torch.stack((first[4].weight[2], copy[4].weight[1])).detach().numpy()
    np.testing.assert_array_equal(tensors["heads.mlps.0.layers.2.weight"], expected)
    assert manifest.thresholds["diagnosis"] == {"glioma": 0.25, "metastasis": 0.75, "edema": -0.5}


def test_three_priority_levels(tmp_path: Path) -> None:
    model = ReleasedModel()
    model.root.priorityhead = model.mlp(64, 3)
    imported(model, tmp_path)
    assert load_bundle(tmp_path / "bundle").manifest.labels["priority"] == ("none", "low", "high")


def test_a_threshold_may_be_a_tensor(tmp_path: Path) -> None:
    model = ReleasedModel()
    model.root.diagnosisheads["glioma"][0].thresh = torch.tensor([0.5])
    imported(model, tmp_path)
    assert load_bundle(tmp_path / "bundle").manifest.thresholds["diagnosis"]["glioma"] == 0.5


def _set(path: str, value: Callable[[ReleasedModel], Any]) -> Callable[[ReleasedModel], None]:
    def bend(model: ReleasedModel) -> None:
        place: Any = model.root
        *parents, last = path.split(".")
        for name in parents:
            place = place[int(name)] if name.isdecimal() else getattr(place, name)
        setattr(place, last, value(model))

    return bend


VISUAL = "clipmodel.visual_model"


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (_set(f"{VISUAL}.innerViT.pos_embedding", lambda _: nn.Parameter(torch.zeros(1, 9, 289))), "pos_embedding"),
        (_set(f"{VISUAL}.innerViT.pool", lambda _: "mean"), "pools in another way"),
        (_set(f"{VISUAL}.innerViT.transformer.layers.0.0.fn.causal", lambda _: True), "only backwards"),
        (_set(f"{VISUAL}.innerViT.transformer.layers.0.0.fn.heads", lambda _: 3), "3 heads do not divide"),
        (_set(f"{VISUAL}.innerViT.transformer.layers.0.0.fn.gate", lambda _: nn.Linear(2, 2)), "unknown tensor"),
        (_set(f"{VISUAL}.useseriename", lambda _: False), "useseriename is off"),
        (_set(f"{VISUAL}.studyencoder.prelinear", lambda _: True), "without its Linear"),
        (_set(f"{VISUAL}.outerViT.layernorm", lambda _: nn.Identity()), "lacks what the bundle calls study_vit"),
        (_set("priorityhead", lambda model: model.mlp(64, 5)), "5 outputs, not 3 or 4"),
        (_set("priorityhead", lambda _: nn.Sequential(nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 4))), "not Linear"),
        (_set("diagnosisheads", lambda model: {"glioma": [model.mlp(64, 3, 0.0), 3]}), "reads output 3"),
        (_set("diagnosisheads", lambda model: {"glioma": model.mlp(64, 3, 0.0)}), "not \\[module, column\\]"),
        (_set("diagnosisheads", lambda model: {"../glioma": [model.mlp(64, 3, 0.0), 0]}), "no name for a finding"),
        (_set("diagnosisheads", lambda model: {"glioma": [model.mlp(64, 3), 0]}), "lacks 'thresh'"),
        (_set("diagnosisheads", lambda model: {"glioma": [model.mlp(64, 3, float("nan")), 0]}), "not a finite number"),
        (_set("diagnosisheads", lambda _: []), "not a dictionary"),
    ],
)
def test_what_is_not_prima_is_refused(bend: Callable[[ReleasedModel], None], message: str, tmp_path: Path) -> None:
    model = ReleasedModel()
    bend(model)
    with pytest.raises(CheckpointRefused, match=message):
        import_prima(*model.save(tmp_path), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_dims": 2}, "not a 3-D VQ-VAE"),
        ({"act": "SWISH"}, "not a 3-D VQ-VAE"),
        ({"attention": True}, "unknown key 'attention'"),
        ({"downsample_parameters": [[2, 4, 1]]}, "not a tokenizer configuration"),
        ({"num_channels": None}, "not a tokenizer configuration"),
    ],
)
def test_other_tokenizers_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    full, tokenizer, config = ReleasedModel().save(tmp_path)
    document = json.loads(config.read_text("utf-8"))
    document["vqvae_config"] |= change
    config.write_text(json.dumps(document), "utf-8")
    with pytest.raises(CheckpointRefused, match=message):
        import_prima(full, tokenizer, config, tmp_path / "bundle")


def test_a_tokenizer_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    full, _, config = ReleasedModel().save(tmp_path)
    with pytest.raises(CheckpointRefused, match="not a state dict"):
        import_prima(full, full, config, tmp_path / "bundle")


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    files = ReleasedModel().save(tmp_path)
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "note.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists already"):
        import_prima(*files, out)
    assert [path.name for path in out.iterdir()] == ["note.txt"]
