"""The released Prima checkpoint → a bundle.

The release is a pickle of a whole module (`primafullmodel*.pt`), a state dict of the VQ-VAE (`vqvae_model_*.pth`) and
the VQ-VAE's configuration. They are read as inert data (`base.checkpoint`): nothing in them runs. Widths and depths
come from the tensors' shapes. Every tensor of the parts that are used must be known, so that a model with something
added is refused instead of computed wrongly.

Left behind, since inference does not need it: the text tower, the series-discrimination net, the position tables
(computed here), the VQ-VAE's decoder and codebook, and the head outputs that no task reads. Heads whose hidden layers
are equal, number for number, are stored once.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prima_core.base.checkpoint import Record, StoredTensor, TorchArchive
from prima_core.base.config import (
    Architecture,
    HeadShape,
    NameEncoderShape,
    TokenizerShape,
    TransformerShape,
    VitShape,
)
from prima_core.base.errors import CheckpointRefused
from prima_core.bundle import write_bundle

Reader = Callable[[], npt.NDArray[np.float32]]
Rules = Mapping[str, str | None]

PRIORITY_LEVELS = {3: ("none", "low", "high"), 4: ("none", "low", "medium", "high")}

# Path in the checkpoint (a pattern) → name in the bundle; None: known and not used.
_BLOCK_RULES: Rules = {
    r"transformer\.layers\.(\d+)\.0\.norm\.(\w+)": r"transformer.blocks.\1.attention.norm.\2",
    r"transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.weight": r"transformer.blocks.\1.attention.qkv.weight",
    r"transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.(\w+)": r"transformer.blocks.\1.attention.out.\2",
    r"transformer\.layers\.(\d+)\.1\.norm\.(\w+)": r"transformer.blocks.\1.feed_forward.norm.\2",
    r"transformer\.layers\.(\d+)\.1\.fn\.net\.0\.(\w+)": r"transformer.blocks.\1.feed_forward.up.\2",
    r"transformer\.layers\.(\d+)\.1\.fn\.net\.3\.(\w+)": r"transformer.blocks.\1.feed_forward.down.\2",
}
_VIT_RULES: Rules = {"cls_token": "class_tokens", r"layernorm\.(\w+)": r"norm.\1", **_BLOCK_RULES}  # nosec B105
_NAME_RULES: Rules = {r"embed\.weight": "letters.weight", "p_enc": None, r"linear\.\w+": None, **_BLOCK_RULES}

_VQVAE_KEYS = {
    *("spatial_dims", "in_channels", "out_channels", "num_channels", "channels", "num_res_layers", "num_res_channels"),
    *("downsample_parameters", "upsample_parameters", "num_embeddings", "embedding_dim", "embedding_init"),
    *("commitment_cost", "decay", "epsilon", "adn_ordering", "act", "dropout", "output_act", "ddp_sync"),
    *("use_checkpointing", "ckpt_path"),
}
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ .+-]{0,63}")


@dataclass(frozen=True)
class ImportSummary:
    """What an import made. bundle: the folder. diagnoses, referrals, priority_levels, parameters: their numbers."""

    bundle: Path
    diagnoses: int
    referrals: int
    priority_levels: int
    parameters: int


def import_prima(
    full_model: Path,
    tokenizer: Path,
    tokenizer_config: Path,
    out: Path,
    *,
    training_state: str = "clinical",
    name: str = "prima",
    version: str = "1",
) -> ImportSummary:
    """Write the bundle of a released checkpoint to the folder `out`, which must not exist or be empty.

    training_state: what the weights were trained on. The release was trained on patients, hence `clinical`; whoever
    imports something else in the same form (random weights, a phantom model) must say so.
    Raises CheckpointRefused for anything unexpected in the files, BundleError when `out` cannot be written, OSError
    when a file cannot be read.
    """
    tokenizer_shape = read_tokenizer_shape(tokenizer_config)
    with TorchArchive(full_model) as model_file, TorchArchive(tokenizer) as tokenizer_file:
        root = _unwrapped(model_file.load())
        study_model = _study_model(_part(root, "clipmodel", "visual_model"))
        heads = [*_threshold_heads(root, "diagnosis"), *_threshold_heads(root, "referral"), _priority_head(root)]
        architecture = Architecture(tokenizer_shape, *study_model.shapes, tuple(head.shape for head in heads))
        readers = dict(study_model.readers)
        for path, tensor in tokenizer_tensors(tokenizer_file).items():
            if path.startswith("encoder."):
                readers[f"tokenizer.{path}"] = tensor.read
        for number, head in enumerate(heads):
            readers |= {f"heads.mlps.{number}.{path}": reader for path, reader in head.readers().items()}
        parameters = 0

        def weight(tensor: str) -> npt.NDArray[np.float32]:
            nonlocal parameters
            if tensor not in readers:
                raise CheckpointRefused(f"the checkpoint lacks what the bundle calls {tensor}")
            values = readers[tensor]()
            parameters += values.size
            return values

        write_bundle(
            out,
            name=name,
            version=version,
            training_state=training_state,
            architecture=architecture,
            thresholds={
                task: {label: value for head in heads if head.shape.task == task for label, value in head.thresholds()}
                for task in ("diagnosis", "referral")
            },
            calibration={},
            weights=weight,
        )
    count = {task: len(architecture.labels(task)) for task in ("diagnosis", "referral", "priority")}
    return ImportSummary(out, count["diagnosis"], count["referral"], count["priority"], parameters)


# ---- tokenizer


def read_tokenizer_shape(path: Path) -> TokenizerShape:
    """The encoder's shape from `tokenizer_config.json`, in the key names of either class (monai-generative, MONAI).

    Raises CheckpointRefused for an unknown key or a network that is not Prima's.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        config = document["vqvae_config"]
        if unknown := sorted(set(config) - _VQVAE_KEYS):
            raise CheckpointRefused(f"{path.name}: unknown key {unknown[0]!r}")
        if config["spatial_dims"] != 3 or config["in_channels"] != 1 or config.get("act", "RELU") != "RELU":
            raise CheckpointRefused(f"{path.name}: not a 3-D VQ-VAE of one channel with ReLU")
        channels = tuple(map(int, config["channels"] if "channels" in config else config["num_channels"]))
        residual = config["num_res_channels"]
        downsample = [(int(a), int(b), int(c), int(d)) for a, b, c, d in config["downsample_parameters"]]
        return TokenizerShape(
            channels=channels,
            residual_channels=(residual,) * len(channels) if isinstance(residual, int) else tuple(map(int, residual)),
            residual_layers=int(config["num_res_layers"]),
            downsample=tuple(downsample),
            latent_channels=int(config["embedding_dim"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointRefused(f"{path.name}: not a tokenizer configuration: {error!r}") from error


def tokenizer_tensors(archive: TorchArchive) -> dict[str, StoredTensor]:
    """All tensors of a VQ-VAE state dict under MONAI's key names.

    monai-generative's keys differ from them only by the `module.` of a DataParallel wrapper.
    """
    state = archive.load()
    if not isinstance(state, dict) or not all(isinstance(value, StoredTensor) for value in state.values()):
        raise CheckpointRefused("the tokenizer's file is not a state dict")
    return {str(path).removeprefix("module."): tensor for path, tensor in state.items()}


# ---- study model


@dataclass
class _StudyModel:
    """Shapes in the order of `Architecture`'s fields, and a reader for each tensor."""

    shapes: tuple[NameEncoderShape, NameEncoderShape, VitShape, VitShape]
    readers: dict[str, Reader]


def _study_model(visual: Record) -> _StudyModel:
    for flag in ("useseriename", "usestudydescription"):
        if visual.has(flag) and visual.get(flag) is not True:
            raise CheckpointRefused(f"{visual.of}: {flag} is off; models without names are not supported")
    readers: dict[str, Reader] = {}
    series_name = _name_encoder(_part(visual, "serieencoder"), "series_name", readers)
    description = _name_encoder(_part(visual, "studyencoder"), "study_description", readers)
    sequence_vit = _vit(_part(visual, "innerViT"), "sequence_vit", "output", readers)
    study_vit = _vit(_part(visual, "outerViT"), "study_vit", "clip", readers)
    return _StudyModel((series_name, description, sequence_vit, study_vit), readers)


def _vit(vit: Record, prefix: str, output: str, readers: dict[str, Reader]) -> VitShape:
    """`output`: the name of the Linear behind the class tokens."""
    if vit.get("pool") != "cls":
        raise CheckpointRefused(f"{vit.of}: pools in another way than by class tokens")
    tensors = vit.tensors()
    head = {path: tensors.pop(path) for path in list(tensors) if path.startswith("mlp_head.0.")}
    for path, tensor in _renamed(vit, tensors, _VIT_RULES).items():
        read = _class_tokens(tensor) if path == "class_tokens" else tensor.read
        readers[f"{prefix}.pooling.{path}"] = read
    readers |= {f"{prefix}.{output}.{path.removeprefix('mlp_head.0.')}": tensor.read for path, tensor in head.items()}
    return VitShape(
        class_tokens=_size(tensors, "cls_token", 1),
        transformer=_transformer_shape(vit.module("transformer")),
        output=_size(head, "mlp_head.0.weight", 0),
    )


def _class_tokens(tensor: StoredTensor) -> Reader:
    return lambda: tensor.read().reshape(tensor.shape[-2:])


def _name_encoder(encoder: Record, prefix: str, readers: dict[str, Reader]) -> NameEncoderShape:
    """Two layouts: the bare encoder with its own `linear`; a pre-trained one, its `linear` unused, and a Linear."""
    if encoder.of.name == "Sequential":
        encoder, output = _pretrained(encoder)
    elif encoder.has("prelinear") and encoder.get("prelinear") is not False:
        raise CheckpointRefused(f"{encoder.of}: a pre-trained encoder without its Linear")
    else:
        output = encoder.module("linear").tensors()
    for path, tensor in _renamed(encoder, encoder.tensors(), _NAME_RULES).items():
        readers[f"{prefix}.{path}"] = tensor.read
    readers |= {f"{prefix}.output.{path}": tensor.read for path, tensor in output.items()}
    return NameEncoderShape(_transformer_shape(encoder.module("transformer")), _size(output, "weight", 0))


def _pretrained(pair: Record) -> tuple[Record, dict[str, StoredTensor]]:
    parts = pair.modules()
    if len(parts) != 2 or parts[1].of.name != "Linear":
        raise CheckpointRefused(f"{pair.of}: a name encoder is not an encoder and a Linear")
    return _unwrapped(parts[0]), parts[1].tensors()


def _transformer_shape(transformer: Record) -> TransformerShape:
    """Read off the first block; `write_bundle` holds the others to it."""
    layers = transformer.module("layers").modules()
    if not layers:
        raise CheckpointRefused(f"{transformer.of}: has no blocks")
    attention, feed_forward = layers[0].module("0"), layers[0].module("1")
    heads = {layer.module("0.fn").get("heads") for layer in layers}
    if len(heads) != 1 or any(layer.module("0.fn").state.get("causal") for layer in layers):
        raise CheckpointRefused(f"{transformer.of}: blocks differ in heads, or look only backwards")
    count = heads.pop()
    inner = _size(attention.tensors(), "fn.to_qkv.weight", 0)
    if not isinstance(count, int) or count < 1 or inner % (3 * count):
        raise CheckpointRefused(f"{transformer.of}: {count!r} heads do not divide a projection of {inner}")
    return TransformerShape(
        width=_size(attention.tensors(), "norm.weight", 0),
        depth=len(layers),
        heads=count,
        head_width=inner // (3 * count),
        mlp_width=_size(feed_forward.tensors(), "fn.net.0.weight", 0),
    )


def _renamed(record: Record, tensors: dict[str, StoredTensor], rules: Rules) -> dict[str, StoredTensor]:
    """The tensors under their bundle names. Raises CheckpointRefused for one that no rule knows."""
    renamed: dict[str, StoredTensor] = {}
    for path, tensor in tensors.items():
        for pattern, name in rules.items():
            if match := re.fullmatch(pattern, path):
                if name is not None:
                    renamed[match.expand(name)] = tensor
                break
        else:
            raise CheckpointRefused(f"{record.of}: unknown tensor {path!r}")
    return renamed


def _size(tensors: Mapping[str, StoredTensor], path: str, axis: int) -> int:
    if path not in tensors or len(tensors[path].shape) <= axis:
        raise CheckpointRefused(f"tensor {path!r} is missing or has too few axes")
    return tensors[path].shape[axis]


# ---- heads


@dataclass(frozen=True)
class _Output:
    """One output of a head: which row of which last layer, and the threshold."""

    label: str
    last: Record
    column: int
    threshold: float

    def weight(self) -> npt.NDArray[np.float32]:
        """The row that makes this output."""
        return self.last.get("weight").read()[self.column]  # type: ignore[no-any-return]

    def bias(self) -> npt.NDArray[np.float32]:
        """The bias of this output."""
        return self.last.get("bias").read()[self.column]  # type: ignore[no-any-return]


@dataclass
class _Head:
    """One MLP of a task: hidden layers, and the outputs that are read from it."""

    task: str
    hidden: list[Record]
    outputs: list[_Output] = field(default_factory=list)

    @property
    def shape(self) -> HeadShape:
        widths = [_size(layer.tensors(), "weight", 0) for layer in self.hidden]
        first = (self.hidden or [self.outputs[0].last])[0]
        entry = _size(first.tensors(), "weight", 1)
        return HeadShape(self.task, (entry, *widths), tuple(output.label for output in self.outputs))

    def thresholds(self) -> Iterator[tuple[str, float]]:
        return ((output.label, output.threshold) for output in self.outputs)

    def readers(self) -> dict[str, Reader]:
        found: dict[str, Reader] = {}
        for number, layer in enumerate(self.hidden):
            found |= {f"layers.{number}.{path}": tensor.read for path, tensor in layer.tensors().items()}
        found[f"layers.{len(self.hidden)}.weight"] = lambda: np.stack([output.weight() for output in self.outputs])
        found[f"layers.{len(self.hidden)}.bias"] = lambda: np.stack([output.bias() for output in self.outputs])
        return found


def _threshold_heads(root: Record, task: str) -> list[_Head]:
    """The MLPs behind `diagnosisheads` or `referralheads`: {label: [module, column]} with `module.thresh`."""
    entries = root.get(f"{task}heads")
    if not isinstance(entries, dict):
        raise CheckpointRefused(f"{task}heads is not a dictionary")
    heads: dict[str, _Head] = {}
    for label, entry in entries.items():
        match entry:
            case [Record() as module, int(column)] | (Record() as module, int(column)):
                pass
            case _:
                raise CheckpointRefused(f"{task}heads: {label!r} is not [module, column]")
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise CheckpointRefused(f"{task}heads: {label!r} is no name for a finding")
        *hidden, last = _layers(module)
        if not 0 <= column < _size(last.tensors(), "weight", 0):
            raise CheckpointRefused(f"{task}heads: {label!r} reads output {column}, which its module lacks")
        head = heads.setdefault(_content(hidden), _Head(task, hidden))
        head.outputs.append(_Output(label, last, column, _threshold(_unwrapped(module), label)))
    return list(heads.values())


def _priority_head(root: Record) -> _Head:
    *hidden, last = _layers(_part(root, "priorityhead"))
    levels = _size(last.tensors(), "weight", 0)
    if levels not in PRIORITY_LEVELS:
        raise CheckpointRefused(f"priorityhead has {levels} outputs, not 3 or 4")
    names = PRIORITY_LEVELS[levels]
    return _Head("priority", hidden, [_Output(name, last, column, 0.0) for column, name in enumerate(names)])


def _layers(module: Record) -> list[Record]:
    """The Linear layers of an MLP with ReLU between them. Raises CheckpointRefused for anything else."""
    parts = [part for part in _unwrapped(module).modules() if part.of.name != "Dropout"]
    kinds = [part.of.name for part in parts]
    if not parts or kinds[::2] != ["Linear"] * len(kinds[::2]) or kinds[1::2] != ["ReLU"] * (len(kinds) // 2):
        raise CheckpointRefused("a head is not Linear layers with ReLU between them")
    if len(kinds) % 2 == 0:
        raise CheckpointRefused("a head ends with a ReLU")
    return parts[::2]


def _content(layers: list[Record]) -> str:
    digest = hashlib.sha256()
    for layer in layers:
        for path, tensor in sorted(layer.tensors().items()):
            digest.update(f"{path}{tensor.shape}".encode())
            digest.update(tensor.read().tobytes())
    return digest.hexdigest()


def _threshold(module: Record, label: str) -> float:
    value = module.get("thresh")
    if isinstance(value, StoredTensor) and math.prod(value.shape) == 1:
        value = float(value.read().reshape(()))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointRefused(f"the threshold of {label!r} is not a finite number")
    return float(value)


# ---- walking


def _unwrapped(value: Any) -> Record:
    """The model inside any DataParallel wrappers."""
    for _ in range(4):
        if not isinstance(value, Record):
            raise CheckpointRefused(f"expected a module, found a {type(value).__name__}")
        if value.of.name not in {"DataParallel", "DistributedDataParallel"}:
            return value
        value = value.get("module")
    raise CheckpointRefused("wrapped too often")


def _part(record: Record, *names: str) -> Record:
    for name in names:
        record = _unwrapped(record.get(name))
    return record
