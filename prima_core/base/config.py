"""The model's architecture as frozen dataclasses, and their strict JSON form in a bundle. Needs no torch.

Widths are not constants of the code: the released model, a small test model and a model trained at a site differ only
in these numbers. A bundle says everything about its model: the one default value is read where an older bundle lacks
the key.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from prima_core.base.errors import BundleError

TASKS = ("diagnosis", "referral", "priority")
HEAD_SOURCES = ("study", "clip")
TOKEN_SHAPE = (8, 32, 32)  # a patch as the tokenizer takes it, thin axis first (and doubled from 4 to 8)
POSITION_VALUES = 10  # sinusoidal values an axis
NAME_POSITION_VALUES = 10
TOKEN_EXTRA_WIDTH = 3 * POSITION_VALUES + 3  # grid position and one-hot orientation beside the latents


@dataclass(frozen=True)
class TransformerShape:
    """A stack of pre-norm blocks: `depth` blocks of `heads` × `head_width` attention and an MLP of `mlp_width`."""

    width: int
    depth: int
    heads: int
    head_width: int
    mlp_width: int


@dataclass(frozen=True)
class TokenizerShape:
    """The VQ-VAE's encoder. `downsample`: (stride, kernel, dilation, padding) of each level's first convolution."""

    channels: tuple[int, ...]
    residual_channels: tuple[int, ...]
    residual_layers: int
    downsample: tuple[tuple[int, int, int, int], ...]
    latent_channels: int

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Spatial shape of one token's latents, thin axis first."""
        shape = TOKEN_SHAPE
        for stride, kernel, dilation, padding in self.downsample:
            z, y, x = ((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for size in shape)
            shape = (z, y, x)
        return shape

    @property
    def token_width(self) -> int:
        """Width of a token as the sequence ViT takes it: latents, position and orientation."""
        return self.latent_channels * math.prod(self.latent_shape) + TOKEN_EXTRA_WIDTH


@dataclass(frozen=True)
class NameEncoderShape:
    """Letters → one vector of `output` width. The transformer's width includes the position values."""

    transformer: TransformerShape
    output: int


@dataclass(frozen=True)
class VitShape:
    """A transformer that pools into `class_tokens` learned tokens, and the width of the Linear behind them."""

    class_tokens: int
    transformer: TransformerShape
    output: int

    @property
    def pooled_width(self) -> int:
        """Width of the class tokens laid end to end."""
        return self.class_tokens * self.transformer.width


@dataclass(frozen=True)
class HeadShape:
    """One MLP of one task: input and hidden `widths`, and the names of its outputs.

    source: what it reads, of HEAD_SOURCES: the study embedding, or the CLIP image vector (zero-shot findings).
    """

    task: str
    widths: tuple[int, ...]
    outputs: tuple[str, ...]
    source: str = "study"


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the model's tensors. Valid once constructed.

    Raises BundleError where parts do not fit together or outputs of a task repeat.
    """

    tokenizer: TokenizerShape
    series_name: NameEncoderShape
    study_description: NameEncoderShape
    sequence_vit: VitShape
    study_vit: VitShape
    heads: tuple[HeadShape, ...]

    def __post_init__(self) -> None:
        levels = {len(self.tokenizer.channels), len(self.tokenizer.residual_channels), len(self.tokenizer.downsample)}
        if len(levels) != 1:
            raise BundleError("architecture.tokenizer: channels, residual_channels and downsample differ in length")
        token, series = self.sequence_vit.transformer.width, self.study_vit.transformer.width
        _must_equal("sequence_vit width and token width", token, self.tokenizer.token_width)
        _must_equal("sequence_vit width and series_name output", token, self.series_name.output)
        _must_equal("study_vit width and sequence_vit output", series, self.sequence_vit.output)
        _must_equal("study_vit width and study_description output", series, self.study_description.output)
        for head in self.heads:
            if head.task not in TASKS:
                raise BundleError(f"architecture.heads: unknown task {head.task!r}")
            if head.source not in HEAD_SOURCES:
                raise BundleError(f"architecture.heads: unknown source {head.source!r}")
            source_width = self.study_vit.output if head.source == "clip" else self.study_vit.pooled_width
            _must_equal(f"{head.task} head input and {head.source} vector", head.widths[0], source_width)
        for task in TASKS:
            if len(set(self.labels(task))) != len(self.labels(task)):
                raise BundleError(f"architecture.heads: an output of {task} is named twice")

    def labels(self, task: str) -> tuple[str, ...]:
        """Names of one task's outputs, in the heads' order."""
        return tuple(name for head in self.heads if head.task == task for name in head.outputs)


def _must_equal(what: str, left: int, right: int) -> None:
    if left != right:
        raise BundleError(f"architecture: {what} differ: {left} and {right}")


Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(record)


def from_json(record: type[Record], value: object, where: str) -> Record:
    """`value` as the dataclass `record`, strictly.

    Raises BundleError that names the place: a key missing, unknown or of another type.
    """
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object")
    hints = get_type_hints(record)
    if unknown := sorted(set(map(str, value)) - set(hints)):
        raise BundleError(f"{where}: unknown key {unknown[0]!r}")
    if missing := sorted(set(hints) - set(value) - _with_default(record)):
        raise BundleError(f"{where}: missing key {missing[0]!r}")
    return record(**{key: _field(hints[key], value[key], f"{where}.{key}") for key in hints if key in value})


def _with_default(record: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(record) if field.default is not dataclasses.MISSING}


def _field(hint: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if get_origin(hint) is tuple:
        return _tuple_field(get_args(hint), value, where)
    if type(value) is not hint:  # exact: True is no number here
        raise BundleError(f"{where}: expected {hint.__name__}")
    if isinstance(value, int) and value < 0:
        raise BundleError(f"{where}: negative")
    return value


def _tuple_field(hints: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise BundleError(f"{where}: expected a list with something in it")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise BundleError(f"{where}: expected {len(hints)} values")
    return tuple(_field(hint, item, f"{where}[{n}]") for n, (hint, item) in enumerate(zip(hints, value, strict=True)))
