"""The training loop that all stages share, on Accelerate: CPU, one GPU or several processes, fp32, bf16 or fp16.

A stage says what one step's items are, what the model makes of some of them, and what the loss of all of them is. The
loop computes the loss over the whole batch at once, however the items are spread over processes and micro-batches:

    outputs of every micro-batch → gathered → loss → gradient of the outputs → back through every micro-batch

With more than one micro-batch the outputs are first computed without a graph and then again with one (as GradCache
does, Gao et al. 2021, arXiv 2101.06983). So a contrastive loss sees every negative whether it runs on one large GPU, in
small pieces or on many processes, and the curve is the same.

Whatever is random depends on the seed and the step alone. A run that was killed therefore goes on from its checkpoint
as if nothing had happened; on a CPU bit for bit.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import Tensor, nn

from training.base.checkpoint import (
    BEST,
    CHECKPOINT,
    is_writer,
    load_checkpoint,
    must_agree,
    save_checkpoint,
    write_weights,
)
from training.base.curve import Curve
from training.base.errors import NotConverging, TrainingError

PROGRESS = ("losses", "skipped", "zeroed", "best", "best_step")
# Settings that may change between a kill and the resumption: they decide speed, not the result.
OPERATIONAL = ("micro_batch", "checkpoint_every", "device")

Precision = Literal["no", "bf16", "fp16"]
Item = TypeVar("Item")
Outputs = dict[str, Tensor]
Result = TypeVar("Result")


@dataclass(frozen=True)
class LoopSettings:
    """How a stage is trained. The learning rate is the optimizer's own; the loop scales it.

    steps, batch: updates, and items an update over all processes. warmup: steps of linear rise. schedule: what follows,
    cosine to 0 or constant. clip_norm: largest norm of the gradient, 0 for any. micro_batch: items that a process runs
    at once, 0 for all. checkpoint_every, validate_every: in steps; validate_every 0 for never. max_nonfinite: so many
    steps may have a loss or a gradient that is not finite. precision: of the matrix products. device: auto or cpu.
    """

    steps: int
    batch: int
    warmup: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float = 1.0
    seed: int = 0
    precision: Precision = "no"
    device: Literal["auto", "cpu"] = "auto"
    micro_batch: int = 0
    checkpoint_every: int = 100
    validate_every: int = 0
    max_nonfinite: int = 20

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied with at `step`, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(self.steps - self.warmup, 1)))

    def identity(self) -> dict[str, Any]:
        """What of these settings the result depends on."""
        return {f"loop.{key}": value for key, value in asdict(self).items() if key not in OPERATIONAL}


@dataclass(frozen=True)
class LoopResult:
    """How a run went.

    losses: of the last step. skipped: steps without an update, as the loss was not finite. zeroed: steps in which
    single gradients were not finite and became 0. best, best_step: of the validation, where there was one; then the
    module holds the best weights. micro_batch: what a process ran at once in the end.
    """

    steps: int
    losses: Mapping[str, float]
    skipped: int
    zeroed: int
    best: float | None
    best_step: int | None
    micro_batch: int

    def figures(self) -> dict[str, Any]:
        """For done.json; without what depends on the machine."""
        figures = asdict(self)
        del figures["micro_batch"]
        return figures


class Stage(ABC, Generic[Item]):
    """What the loop trains. `module` holds every tensor to keep, the loss's own parameters included."""

    module: nn.Module
    optimizer: torch.optim.Optimizer

    @abstractmethod
    def draw(self, step: int, positions: range) -> Sequence[Item]:
        """The items at these positions of the step's batch; depends on the arguments and the stage's seed alone."""

    @abstractmethod
    def outputs(self, items: Sequence[Item]) -> Outputs:
        """One row an item, (n, …), in the items' order. Changes nothing: it may run twice. Dropout is seeded."""

    @abstractmethod
    def losses(self, outputs: Outputs) -> Outputs:
        """Scalars; "loss" is minimised, all are written to the curve. outputs: of the whole batch."""

    def after_step(self, step: int, outputs: Outputs) -> None:
        """Whatever else follows from the whole batch's outputs, without gradients."""

    def validate(self) -> float | None:
        """A figure of the validation studies, lower is better; None where there are none."""
        return None


class EndlessOrder:
    """Entries in a new order every time round, for ever. `order[k]` depends on the entries, the seed and k alone."""

    def __init__(self, entries: Sequence[int], seed: int) -> None:
        self._entries, self._seed = np.asarray(entries, np.int64), seed
        self._round, self._order = -1, self._entries

    def __getitem__(self, k: int) -> int:
        turn, place = divmod(k, len(self._entries))
        if turn != self._round:
            self._round, self._order = turn, random(self._seed, turn).permutation(self._entries)
        return int(self._order[place])


def random(seed: int, *where: int) -> np.random.Generator:
    """Random numbers of one place, such as (step, position), whatever was drawn before."""
    return np.random.default_rng([seed, *where])


def train(
    stage: Stage[Any], settings: LoopSettings, folder: Path, identity: Mapping[str, Any], title: str = "training"
) -> LoopResult:
    """Train to the end, from `folder`'s checkpoint where there is one. The module then holds the result, on the CPU.

    identity: settings and data that the result depends on, as JSON; a checkpoint of others is refused. Writes
    curve.csv, validation.csv, checkpoint.safetensors and best.safetensors in `folder`.
    Raises NotConverging, NoSpace, BadTrainingData, TrainingError (not even one item fits in the memory).
    """
    loop = _Loop(stage, settings, folder, dict(identity) | settings.identity())
    with _progress(title, loop.main) as progress:
        return loop.run(progress)


class _Loop:
    """One run of `train`."""

    def __init__(self, stage: Stage[Any], settings: LoopSettings, folder: Path, identity: dict[str, Any]) -> None:
        AcceleratorState._reset_state()  # one process trains several stages, each in its own precision
        self.accelerator = Accelerator(mixed_precision=settings.precision, cpu=settings.device == "cpu")
        self.main = is_writer()
        self.processes: int = self.accelerator.num_processes
        self.stage, self.settings, self.folder, self.identity = stage, settings, folder, identity
        if settings.batch % self.processes:
            raise TrainingError(f"a batch of {settings.batch} cannot be shared by {self.processes} processes evenly")
        self.share = settings.batch // self.processes
        self.micro = min(settings.micro_batch or self.share, self.share)
        self.skipped = self.zeroed = 0
        self.losses: dict[str, float] = {}
        self.best: float | None = None
        self.best_step: int | None = None
        self.say: Callable[[str], None] = print
        stage.module.to(self.accelerator.device)
        for group in stage.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.optimizer = self.accelerator.prepare_optimizer(stage.optimizer)

    def run(self, progress: _Report) -> LoopResult:
        self.say = progress.say
        first = self._resume()
        if self.processes > 1:
            for tensor in self.stage.module.state_dict().values():
                broadcast(tensor)
        curve = Curve(self.folder / "curve.csv", first) if self.main else None
        validation = Curve(self.folder / "validation.csv", first) if self.main else None
        for step in range(first, self.settings.steps):
            self.losses = self._step(step)
            if curve:
                curve.add(step, self.losses)
            progress.advance(step + 1, self.settings.steps, self.losses["loss"])
            if self._due(self.settings.validate_every, step):
                self._validate(step, validation)
            if self._due(self.settings.checkpoint_every, step):
                self._save(step + 1)
        self.accelerator.wait_for_everyone()
        if self.best is not None:
            self.stage.module.load_state_dict(load_file(self.folder / BEST))
        self.stage.module.to("cpu").eval()
        return LoopResult(
            self.settings.steps, self.losses, self.skipped, self.zeroed, self.best, self.best_step, self.micro
        )

    def _due(self, every: int, step: int) -> bool:
        return bool(every) and ((step + 1) % every == 0 or step + 1 == self.settings.steps)

    def _step(self, step: int) -> dict[str, float]:
        """One update. Raises NotConverging."""
        self.stage.module.train()
        for group in self.stage.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.settings.factor(step)
        self.stage.optimizer.zero_grad(set_to_none=True)
        start = self.accelerator.process_index * self.share
        items = self.stage.draw(step, range(start, start + self.share))
        mine = self._within_memory(lambda: self._forward(step, items))
        leaves = {name: self._leaf(torch.cat([part[name] for part in mine])) for name in mine[0]}
        losses = self.stage.losses(leaves)
        values = {name: value.item() for name, value in losses.items()}
        if math.isfinite(values["loss"]):
            self.accelerator.backward(losses["loss"])
            self._backward(step, items, mine, leaves)
            self._average()
            self._repair_and_clip()
            self.optimizer.step()
            with torch.no_grad():
                self.stage.after_step(step, {name: rows.detach() for name, rows in leaves.items()})
        else:
            self.skipped += 1
        if self.skipped + self.zeroed > self.settings.max_nonfinite:
            raise NotConverging(
                f"step {step}: {self.skipped} losses and {self.zeroed} gradients were not finite, "
                f"{self.settings.max_nonfinite} are allowed; lower the learning rate or look at the data"
            )
        return values

    def _forward(self, step: int, items: Sequence[Any]) -> list[Outputs]:
        """Outputs of each micro-batch; with a graph where there is only one."""
        chunks = _chunks(items, self.micro)
        with torch.set_grad_enabled(len(chunks) == 1):
            return [self._outputs(step, start, chunk) for start, chunk in chunks]

    def _leaf(self, rows: Tensor) -> Tensor:
        """All processes' rows, cut off from what made them."""
        gathered: Tensor = self.accelerator.gather(rows.detach().contiguous())
        return gathered.requires_grad_(rows.is_floating_point())

    def _outputs(self, step: int, start: int, items: Sequence[Any]) -> Outputs:
        place = self.accelerator.process_index * self.share + start  # each process draws other noise
        torch.manual_seed(int(random(self.settings.seed, step, place).integers(2**63)))
        with self.accelerator.autocast():
            outputs = self.stage.outputs(items)
        return {name: rows.float() if rows.is_floating_point() else rows for name, rows in outputs.items()}

    def _backward(self, step: int, items: Sequence[Any], mine: list[Outputs], leaves: Outputs) -> None:
        """From the outputs' gradients to the parameters'. The processes' mean is taken later, hence the factor."""
        own = slice(self.accelerator.process_index * self.share, (self.accelerator.process_index + 1) * self.share)
        gradients = {name: leaf.grad[own] * self.processes for name, leaf in leaves.items() if leaf.grad is not None}
        parameters = list(self.stage.module.parameters())
        before = [None if p.grad is None else p.grad.clone() for p in parameters]  # of the loss's own parameters
        graph = mine if len(mine) == 1 else []

        def attempt() -> None:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
            if graph:
                _back(graph.pop(), gradients, 0)
                return
            for start, chunk in _chunks(items, self.micro):
                _back(self._outputs(step, start, chunk), gradients, start)

        self._within_memory(attempt)

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """`work`, again with half the micro-batch while the memory does not suffice. Raises TrainingError."""
        while True:
            with contextlib.suppress(torch.OutOfMemoryError):
                return work()
            if self.micro == 1:
                raise TrainingError("out of memory with a single item at once; use a smaller model or cut series")
            # Several processes may halve at different times: what they gather has the same shape all the same.
            self.micro = math.ceil(self.micro / 2)
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            self.say(f"out of memory: {self.micro} items at once from now on; the batch stays {self.settings.batch}")

    def _average(self) -> None:
        if self.processes == 1:
            return
        parameters = [p for p in self.stage.module.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        mean = self.accelerator.reduce(flat, "mean")
        for parameter, gradient in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def _repair_and_clip(self) -> None:
        """Gradients that are not finite become 0, as in arXiv 2509.18638; fp16's scaler skips such steps by itself."""
        self.accelerator.unscale_gradients()
        gradients = [p.grad for p in self.stage.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not norm.isfinite():
            self.zeroed += self.accelerator.scaler is None
            for gradient in gradients:
                gradient.nan_to_num_(0.0, 0.0, 0.0)
            norm = nn.utils.get_total_norm(gradients)
        if self.settings.clip_norm:
            nn.utils.clip_grads_with_norm_(self.stage.module.parameters(), self.settings.clip_norm, norm)

    @torch.no_grad()
    def _validate(self, step: int, curve: Curve | None) -> None:
        self.stage.module.eval()
        figure = self.stage.validate()
        if figure is None:
            return
        if curve:
            curve.add(step, {"validation": figure})
        if math.isfinite(figure) and (self.best is None or figure < self.best):
            self.best, self.best_step = figure, step
            write_weights(self.folder / BEST, self.stage.module.state_dict())

    def _save(self, steps: int) -> None:
        facts = {"identity": self.identity, "steps": steps, "scaler": None}
        facts |= {name: getattr(self, name) for name in PROGRESS}
        if self.accelerator.scaler is not None:
            facts["scaler"] = self.accelerator.scaler.state_dict()
        save_checkpoint(self.folder / CHECKPOINT, self.stage.module, self.stage.optimizer, facts)

    def _resume(self) -> int:
        """Number of steps that were already taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CHECKPOINT
        facts = load_checkpoint(path, self.stage.module, self.stage.optimizer)
        if facts is None:
            return 0
        must_agree(path, facts["identity"], self.identity)
        for name in PROGRESS:
            setattr(self, name, facts[name])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.say(f"going on after step {facts['steps']}")
        return int(facts["steps"])


def _chunks(items: Sequence[Any], size: int) -> list[tuple[int, Sequence[Any]]]:
    return [(start, items[start : start + size]) for start in range(0, len(items), size)]


def _back(outputs: Outputs, gradients: Outputs, start: int) -> None:
    names = [name for name in gradients if outputs[name].requires_grad]
    tensors = [outputs[name] for name in names]
    torch.autograd.backward(tensors, [gradients[name][start : start + len(outputs[name])] for name in names])


@dataclass(frozen=True)
class _Report:
    """Where a run tells a person how it goes."""

    bar: Progress
    task: TaskID

    def advance(self, done: int, steps: int, loss: float) -> None:
        self.bar.update(self.task, completed=done, total=steps, loss=f"{loss:.4f}")

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False)


@contextlib.contextmanager
def _progress(title: str, show: bool) -> Iterator[_Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        yield _Report(bar, bar.add_task(title, total=None, loss="…"))
