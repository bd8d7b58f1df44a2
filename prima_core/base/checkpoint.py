"""Reads a `torch.save` archive as inert data: nothing that the file names is imported or called.

Unpickling is code execution. This reader interprets the pickle's opcodes itself and knows only plain containers,
numbers and texts, tensors (as descriptions of bytes in the archive) and objects of an explicit list of classes, which
become records of their attributes. Every other name is refused the moment it occurs. Needs no torch.

The archive (torch ≥ 1.6): a ZIP of stored, not compressed, members `<root>/data.pkl` and `<root>/data/<key>`.
"""

from __future__ import annotations

import math
import pickletools  # it lists opcodes and runs none  # nosec B403
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from prima_core.base.errors import CheckpointRefused

_MOST_MODULES = 5000  # below one module; the released model has a few hundred

_STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}
_CONTAINERS = {
    **{(module, "set"): set for module in ("__builtin__", "builtins")},
    **{(module, "frozenset"): frozenset for module in ("__builtin__", "builtins")},
    ("collections", "OrderedDict"): dict,
    ("torch", "Size"): tuple,
}
_TENSOR_REBUILDERS = {"_rebuild_tensor", "_rebuild_tensor_v2"}
_PARAMETER_REBUILDERS = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
_TORCH_CONSTANTS = {
    *("device", "float32", "float16", "bfloat16", "float64"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
}
_RECORDS = {
    "complete_visual_model": {"FullMRIModel"},
    "__main__": {"FullMRIModel"},
    "model": {"CLIP"},
    "model_parts": {
        *("HierViT", "ViT", "Transformer", "Attention", "PreNorm"),
        *("FeedForward", "SerieTransformerEncoder", "GPTWrapper"),
    },
    "patchify": {"MedicalImagePatchifier", "RachelDatasetPatchifier"},
    "transformers.models.gpt2.modeling_gpt2": {
        *("GPT2Model", "GPT2Block", "GPT2Attention", "GPT2SdpaAttention", "GPT2FlashAttention2", "GPT2MLP"),
        *("GPT2LMHeadModel",),
    },
    "transformers.models.gpt2.configuration_gpt2": {"GPT2Config"},
    "transformers.pytorch_utils": {"Conv1D"},
    "transformers.modeling_utils": {"Conv1D"},
    "transformers.activations": {"NewGELUActivation"},
    "transformers.generation.configuration_utils": {"GenerationConfig"},
    "torch.nn.parallel.data_parallel": {"DataParallel"},
    "torch.nn.parallel.distributed": {"DistributedDataParallel"},
}


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """A run of `count` numbers in the archive."""

    archive: TorchArchive = field(repr=False)
    key: str
    dtype: str
    count: int

    def read(self) -> npt.NDArray[Any]:
        """The numbers; bfloat16 comes widened to float32."""
        data = self.archive.member(f"data/{self.key}")
        if self.dtype == "bfloat16":
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(data, self.dtype)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a view of a storage; nothing is read before `read`."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> npt.NDArray[np.float32]:
        """The tensor as contiguous float32.

        Raises CheckpointRefused when the view is empty, leaves its storage, or repeats it into more than is stored.
        """
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if not 0 < math.prod(self.shape) <= self.storage.count or last >= self.storage.count:
            raise CheckpointRefused(f"a tensor of shape {self.shape} does not fit its storage {self.storage.key!r}")
        numbers = self.storage.read()
        steps = [step * numbers.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False)
        return np.array(view, np.float32, order="C")


@dataclass(eq=False)
class Record:
    """An object of a known class: its attributes, and nothing of its behaviour."""

    of: Name
    state: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether there is an attribute, submodule, parameter or buffer of this name."""
        return any(name in place for place in self._places())

    def get(self, name: str) -> Any:
        """The attribute, submodule, parameter or buffer `name`. Raises CheckpointRefused when there is none."""
        for place in self._places():
            if name in place:
                return place[name]
        raise CheckpointRefused(f"{self.of} lacks {name!r}")

    def module(self, path: str) -> Record:
        """The submodule at a dotted path. Raises CheckpointRefused when it is not there."""
        found = self
        for name in path.split("."):
            value = found.get(name)
            if not isinstance(value, Record):
                raise CheckpointRefused(f"{found.of}: {name!r} is not a module")
            found = value
        return found

    def modules(self) -> list[Record]:
        """The direct submodules, in order."""
        found = self.state.get("_modules", {})
        if not isinstance(found, dict) or not all(isinstance(module, Record) for module in found.values()):
            raise CheckpointRefused(f"{self.of}: submodules are not modules")
        return list(found.values())

    def tensors(self) -> dict[str, StoredTensor]:
        """All parameters and buffers below, by dotted path. Raises CheckpointRefused when modules have no end."""
        found: dict[str, StoredTensor] = {}
        pending, visited = [("", self)], 0
        while pending:
            prefix, record = pending.pop()
            visited += 1
            if visited > _MOST_MODULES:
                raise CheckpointRefused(f"{self.of}: more than {_MOST_MODULES} modules, or one inside itself")
            for place in record._places()[1:]:
                for name, value in place.items():
                    if isinstance(value, StoredTensor):
                        found[f"{prefix}{name}"] = value
                    elif isinstance(value, Record):
                        pending.append((f"{prefix}{name}.", value))
        return found

    def _places(self) -> list[dict[Any, Any]]:
        inner = [self.state.get(kind) for kind in ("_modules", "_parameters", "_buffers")]
        return [self.state, *(place if isinstance(place, dict) else {} for place in inner)]


class TorchArchive:
    """An open `torch.save` archive. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointRefused when the file is not such an archive, OSError when it cannot be opened."""
        self._name = path.name
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise CheckpointRefused(
                f"{path.name} is not a torch.save archive (files of torch before 1.6 are not read; save it again)"
            ) from error
        self._members = self._index()

    def _index(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise CheckpointRefused(f"{self._name}: member {info.filename!r} is compressed; torch.save stores")
            name = str(PurePosixPath(*PurePosixPath(info.filename).parts[1:]))
            if name in members:
                raise CheckpointRefused(f"{self._name}: member {name!r} is there twice")
            members[name] = info
        if "data.pkl" not in members:
            raise CheckpointRefused(f"{self._name} is not a torch.save archive: no data.pkl in it")
        return members

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def member(self, name: str) -> bytes:
        """The bytes of a member. Raises CheckpointRefused when it is missing or damaged."""
        if name not in self._members:
            raise CheckpointRefused(f"{self._name}: member {name!r} is missing")
        try:
            return self._zip.read(self._members[name])
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise CheckpointRefused(f"{self._name}: member {name!r} is damaged") from error

    def storage(self, pickled_id: object) -> Storage:
        """The storage of a persistent id, its size checked. Raises CheckpointRefused for any other id."""
        match pickled_id:
            case ("storage", Name(module="torch", name=kind), str(key), str(), int(count)) if kind in _STORAGE_DTYPES:
                dtype = _STORAGE_DTYPES[kind]
            case _:
                raise CheckpointRefused(f"{self._name}: not a storage id: {_short(pickled_id)}")
        info = self._members.get(f"data/{key}")
        itemsize = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
        if info is None or count < 0 or info.file_size != count * itemsize:
            raise CheckpointRefused(f"{self._name}: storage {key!r} is missing or not of the size it claims")
        return Storage(self, key, dtype, count)

    def load(self) -> Any:
        """The object in the archive. Raises CheckpointRefused by name for anything unexpected."""
        if self._members.get("byteorder") and self.member("byteorder") != b"little":
            raise CheckpointRefused(f"{self._name}: numbers are not little-endian")
        return _PickleReader(self, self._name).read(self.member("data.pkl"))


class _PickleReader:
    """A pickle machine without a world: it can build data, and has nothing to call."""

    def __init__(self, archive: TorchArchive, file: str) -> None:
        self._archive = archive
        self._file = file
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(data):  # ends with STOP, or raises
                if opcode.name != "STOP":
                    self._step(opcode.name, argument)
            return self._stack.pop()
        except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise CheckpointRefused(f"{self._file}: damaged pickle: {error}") from error

    def _step(self, opcode: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 - one case an opcode
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4" | "FLOAT" | "BINFLOAT":
                stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_SET":
                stack.append(set())
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "APPEND":
                item = stack.pop()
                self._list().append(item)
            case "APPENDS":
                items = self._since_mark()
                self._list().extend(items)
            case "ADDITEMS":
                keys = [_key(item) for item in self._since_mark()]
                self._top(set).update(keys)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._top(dict)[_key(key)] = value
            case "SETITEMS":
                items = self._since_mark()
                pairs = zip(items[::2], items[1::2], strict=True)
                self._top(dict).update((_key(key), value) for key, value in pairs)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(self._name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._name(str(module), str(name)))
            case "BINPERSID":
                stack.append(self._archive.storage(stack.pop()))
            case "NEWOBJ":
                arguments, of = stack.pop(), stack.pop()
                stack.append(self._new(of, arguments))
            case "REDUCE":
                arguments, of = stack.pop(), stack.pop()
                stack.append(self._reduce(of, arguments))
            case "BUILD":
                state = stack.pop()
                self._build(stack[-1], state)
            case _:
                raise CheckpointRefused(f"{self._file}: pickle operation {opcode} is not allowed")

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _list(self) -> list[Any]:
        found: list[Any] = self._top(list)
        return found

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise CheckpointRefused(f"{self._file}: damaged pickle: expected a {kind.__name__}")
        return self._stack[-1]

    def _name(self, module: str, name: str) -> Name:
        known = (
            (module, name) in _CONTAINERS
            or (module == "torch" and name in {*_STORAGE_DTYPES, *_TORCH_CONSTANTS})
            or (module == "torch._utils" and name in _TENSOR_REBUILDERS | _PARAMETER_REBUILDERS)
            or _is_record(module, name)
        )
        if not known:
            raise CheckpointRefused(f"{self._file}: names {module}.{name}, which no Prima checkpoint holds")
        return Name(module, name)

    def _new(self, of: object, arguments: object) -> Record:
        if not isinstance(of, Name) or not _is_record(of.module, of.name) or arguments != ():
            raise CheckpointRefused(f"{self._file}: makes {_short(of)} in an unexpected way")
        return Record(of)

    def _reduce(self, of: object, arguments: object) -> Any:
        match of, arguments:
            case Name(module=module, name=name), () if (module, name) in _CONTAINERS:
                return _CONTAINERS[module, name]()
            case Name(module=module, name=name), (list() | tuple() as items,) if (module, name) in _CONTAINERS:
                return self._container(_CONTAINERS[module, name], items)
            case Name(module="torch._utils", name=name), (Storage() as storage, int(offset), shape, stride, *_) if (
                name in _TENSOR_REBUILDERS
            ):
                return self._tensor(storage, offset, shape, stride)
            case Name(module="torch._utils", name=name), (StoredTensor() as tensor, *_) if (
                name in _PARAMETER_REBUILDERS
            ):
                return tensor
            case Name(module="torch", name="device"), (str() as device, *_):
                return device
        raise CheckpointRefused(f"{self._file}: calls {_short(of)} in an unexpected way")

    @staticmethod
    def _container(kind: type, items: list[Any] | tuple[Any, ...]) -> Any:
        if kind is tuple:
            return tuple(items)
        if kind is dict:
            return {_key(key): value for key, value in items}
        return kind(_key(item) for item in items)

    def _tensor(self, storage: Storage, offset: int, shape: object, stride: object) -> StoredTensor:
        numbers = (offset, *_integers(shape), *_integers(stride))
        if min(numbers) < 0 or len(_integers(shape)) != len(_integers(stride)):
            raise CheckpointRefused(f"{self._file}: a tensor's shape or stride is damaged")
        return StoredTensor(storage, offset, _integers(shape), _integers(stride))

    def _build(self, target: object, state: object) -> None:
        if type(target) is dict and isinstance(state, dict):
            return  # a state dict's `_metadata`: module versions, of no use here
        if not isinstance(target, Record) or not isinstance(state, dict) or target.state:
            raise CheckpointRefused(f"{self._file}: sets the state of {_short(target)} in an unexpected way")
        if not all(isinstance(key, str) for key in state):
            raise CheckpointRefused(f"{self._file}: {target.of} has an attribute without a name")
        target.state = state


def _is_record(module: str, name: str) -> bool:
    return name in _RECORDS.get(module, ()) or (module.startswith("torch.nn.modules.") and name.isidentifier())


def _key(value: object) -> str | int | float | bool | None:
    """A dictionary key or set member. Only scalars: hashing nested tuples could take for ever."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise CheckpointRefused(f"a {type(value).__name__} as a dictionary key or set member")


def _integers(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(item) is int for item in value):
        raise CheckpointRefused("a tensor's shape or stride is not made of integers")
    return tuple(value)


def _short(value: object) -> str:
    """A value in a message: what it is, never its content."""
    match value:
        case Name():
            return str(value)
        case Record(of=of):
            return f"an object of {of}"
        case _:
            return f"a {type(value).__name__}"
