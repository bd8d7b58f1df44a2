"""CLIP: the study's vector is drawn to its own report's and away from the others', and the ViTs learn to see.

    python -m training.stages.clip --run RUN

Symmetric cross-entropy with a learned temperature, plus a small loss that draws series of one study together; tokens,
series and series names are dropped at random, report statements shuffled, abnormal studies seen more often (Lyu et al.
2025, arXiv 2509.18638). Reports that say the same are not told apart. Where a cohort is small, linear probes of known
labels may help along (`label_weight`), one on study and one on series embeddings, and where findings are located one of
what single tokens show (`place_weight`); they are thrown away.

Legend of the suffixes: B studies, V width of the CLIP vector, E width of the series vector, n labels.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from prima_core.base.config import Architecture, from_json, to_json
from training.base.checkpoint import done, finish, finished, write_json, write_weights
from training.base.cohort import StudyLabels, StudyReport
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.base.loop import EndlessOrder, LoopSettings, Outputs, Precision, Stage, random, train
from training.base.muon import WithMuon, inner_matrices, parameters_but
from training.base.splits import Split
from training.base.trained_on import SEEN, write_seen
from training.prepare.store import TokenizedStudy
from training.run_folder import RunFolder
from training.stages.architecture import ModelName, named
from training.stages.contrastive import SCALE, contrastive, text_key
from training.stages.mirror import mirrored_text
from training.stages.places import Shown, TokenProbe, shown
from training.stages.start import begin_from
from training.stages.study_model import NOTHING, Dropout, StudyModel, StudyTokens, study_tokens
from training.stages.targets import flags, known_bce, levels_apart, levels_of, names_of
from training.stages.text_tower import TextTower, open_text_tower, text_identity

STUDY_MODEL, TEXT_TOWER, ARCHITECTURE = "study_model.safetensors", "text_tower.safetensors", "architecture.json"
LARGEST_SCALE = 100.0  # of the logits, as in CLIP (Radford et al. 2021, arXiv 2103.00020)
SERIES_WIDTH = 64
RARE_LABEL = -2.8  # the logit that probes start from: most of what is asked is absent
PIECE = 8  # validation studies at once; small, as memory may be short
VALIDATION_STUDIES = 512  # at most; a figure to choose weights by does not need more


class Tokens(Protocol):
    """Where studies are read from; `TokenStore` is one. about: says which encoder the tokens are of."""

    about: dict[str, Any]

    def read(self, study: str) -> TokenizedStudy: ...

    def __contains__(self, study: object) -> bool: ...


@dataclass(frozen=True)
class ClipSettings:
    """Defaults are the paper's; small cohorts want a learning rate of about 1e-3 and a temperature of about 2.7.

    muon: the learning rate of Muon, which then takes the matrices inside the study model, with a weight decay of
    `muon_decay`; 0 for Adam alone.
    second_moment: decay of Adam's average of squares; a short run wants 0.98, as the first steps' large gradients would
    hold it back for long. temperature: t at the start; vectors' cosines are multiplied with exp(t), at most 100.
    abnormal_extra: how many more times a study with a known finding comes in every round. mirrored: share of the draws
    that are the mirror image of a study and of its report, for reports in English. series_weight, label_weight,
    place_weight: of the losses beside CLIP's; a label asked of the study's every series counts `label_share` of one
    asked of the study, and places are asked of tokens. most_report_tokens: what a report is cut to.
    """

    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(100_000, 64, warmup=200, precision="no", validate_every=1000)
    )
    dropout: Dropout = field(default_factory=Dropout)
    learning_rate: float = 2e-6
    muon: float = 0.0
    muon_decay: float = 0.0
    weight_decay: float = 1e-4
    second_moment: float = 0.999
    temperature: float = 0.07
    abnormal_extra: int = 3
    mirrored: float = 0.0
    series_weight: float = 0.03
    label_weight: float = 0.0
    label_share: float = 0.5
    place_weight: float = 0.0
    most_report_tokens: int = 256


@dataclass(frozen=True)
class Cohort:
    """What CLIP is trained on: studies with a report, of the training and the validation part."""

    tokens: Tokens
    reports: Mapping[str, StudyReport]
    labels: Mapping[str, StudyLabels]
    split: Split

    def usable(self, part: Sequence[str]) -> tuple[str, ...]:
        """The studies of a part that have tokens and a report that says something."""
        return tuple(
            study for study in part if study in self.tokens and study in self.reports and self.reports[study].items
        )


def train_clip(
    cohort: Cohort,
    architecture: Architecture,
    text: Path,
    folder: Path,
    settings: ClipSettings | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train study model and text tower; returns the figures of done.json. Resumes, and returns at once where done.

    text: a Hugging Face folder. start: the folder of a stage to start from, `series_names` or `localise`, or
    what `start_of` made of a bundle.
    Writes study_model.safetensors (a bundle's names), text_tower.safetensors and architecture.json.
    Raises BadTrainingData, and what `training.base.loop.train` raises.
    """
    settings = settings or ClipSettings()
    identity = _identity(cohort, architecture, text, settings, start)
    whole_identity = identity | settings.loop.identity()
    if (figures := finished(folder, whole_identity)) is not None:
        return figures
    stage = ClipStage(cohort, architecture, text, settings, start)
    result = train(stage, settings.loop, folder, identity, "CLIP")
    write_json(folder / ARCHITECTURE, to_json(architecture))
    write_weights(folder / STUDY_MODEL, stage.module.image.state_dict())
    write_weights(folder / TEXT_TOWER, stage.module.text.state_dict())
    write_seen(folder, (*cohort.usable(cohort.split.train), *cohort.usable(cohort.split.validation)))
    figures = result.figures() | {"scale": float(stage.module.scale().detach())}
    finish(folder, whole_identity, (STUDY_MODEL, TEXT_TOWER, ARCHITECTURE, SEEN), figures)
    return json.loads(json.dumps(figures))  # type: ignore[no-any-return]


def read_study_model(folder: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """What `train_clip` wrote. Raises BadTrainingData where the stage has not ended."""
    done(folder)
    document = json.loads((folder / ARCHITECTURE).read_text("utf-8"))
    return from_json(Architecture, document, ARCHITECTURE), load_file(folder / STUDY_MODEL)


def read_text_tower(folder: Path, text: Path) -> TextTower:
    """The trained tower, ready to run. text: the Hugging Face folder that it was made from. Raises BadTrainingData."""
    architecture, _ = read_study_model(folder)
    settings = done(folder)["settings"]
    if settings["text"] != text_identity(text):
        raise BadTrainingData(f"{folder}: its text tower was not made from {text}")
    tower = open_text_tower(text, architecture.study_vit.output, settings["most_report_tokens"])
    tower.load_state_dict(load_file(folder / TEXT_TOWER))
    return tower.eval().requires_grad_(False)


class ClipModel(nn.Module):
    """All that is trained; only `image` and `text` are kept."""

    def __init__(self, image: StudyModel, text: TextTower, settings: ClipSettings, labels: int, placeable: int) -> None:
        super().__init__()
        study_vit = image.study_vit
        self.image, self.text = image, text
        self.temperature = nn.Parameter(torch.tensor(settings.temperature))
        self.series = nn.Linear(image.sequence_vit.output.out_features, SERIES_WIDTH)
        self.probe = nn.Linear(study_vit.clip.in_features, labels) if labels else None
        self.series_probe = nn.Linear(self.series.in_features, labels) if labels else None
        for probe in filter(None, (self.probe, self.series_probe)):
            nn.init.constant_(probe.bias, RARE_LABEL)
        width = image.sequence_vit.pooling.class_tokens.shape[1]
        self.of_token = TokenProbe(width, placeable) if settings.place_weight else None

    def scale(self) -> Tensor:
        """What cosines are multiplied with."""
        return self.temperature.clamp(max=math.log(LARGEST_SCALE)).exp()


@dataclass(frozen=True)
class _Item:
    """pair: positions of two of the study's series, the same where it has one. report: of what it says, order aside.

    shown: what the tokens of each series show; empty where that is not asked.
    """

    study: int
    tokens: StudyTokens
    pair: tuple[int, int]
    text: str
    report: int
    labels: tuple[float, ...]
    shown: tuple[Shown, ...]


class ClipStage(Stage[_Item]):
    """Studies with reports → the losses of CLIP training."""

    module: ClipModel

    def __init__(
        self, cohort: Cohort, architecture: Architecture, text: Path, settings: ClipSettings, start: Path | None
    ) -> None:
        self._cohort, self._settings = cohort, settings
        self._training = cohort.usable(cohort.split.train)
        self._validation = cohort.usable(cohort.split.validation)[:VALIDATION_STUDIES]
        if len(self._training) < 2:
            raise BadTrainingData("CLIP needs at least two training studies with a report")
        names = _label_names(cohort, settings)
        self._placeable = names["diagnosis"] + names["priority"]
        self._labels = _label_rows(cohort, names, (*self._training, *self._validation))
        torch.manual_seed(settings.loop.seed)
        image = StudyModel(architecture)
        if start is not None:
            begin_from(image, start)
        tower = open_text_tower(text, architecture.study_vit.output, settings.most_report_tokens)
        labels = sum(map(len, names.values())) if settings.label_weight else 0
        self.module = ClipModel(image, tower, settings, labels, len(self._placeable))
        matrices = inner_matrices(image) if settings.muon else []
        self.optimizer = torch.optim.Adam(
            parameters_but(self.module, matrices),
            lr=settings.learning_rate,
            betas=(0.9, settings.second_moment),
            weight_decay=settings.weight_decay,
        )
        if settings.muon:
            self.optimizer = WithMuon(self.optimizer, matrices, settings.muon, settings.muon_decay)
        extra = [n for n, study in enumerate(self._training) if self._abnormal(study)] * settings.abnormal_extra
        self._order = EndlessOrder([*range(len(self._training)), *extra], settings.loop.seed)

    def draw(self, step: int, positions: range) -> list[_Item]:
        seed, batch = self._settings.loop.seed, self._settings.loop.batch
        chosen = [(self._order[step * batch + position], random(seed, step, position)) for position in positions]
        return [self._item(self._training[n], n, self._settings.dropout, draw) for n, draw in chosen]

    def outputs(self, items: Sequence[_Item]) -> Outputs:
        series_SE, study_BP, states = self.module.image.states([item.tokens for item in items])
        device = study_BP.device
        starts = np.cumsum([0, *(len(item.tokens.series) for item in items[:-1])])
        rows = [[start + place for place in item.pair] for start, item in zip(starts, items, strict=True)]
        outputs = {
            "image": self.module.image.study_vit.clip_vector(study_BP),
            "text": self.module.text([item.text for item in items]),
            "report": torch.tensor([item.report for item in items], device=device),
            "pair": normalize(self.module.series(series_SE[torch.tensor(rows, device=device)]), dim=-1),
            "study": torch.tensor([item.study for item in items], device=device),
            "single": torch.tensor([item.pair[0] == item.pair[1] for item in items], device=device),
        }
        if self.module.probe is not None and self.module.series_probe is not None:
            label_Bn = torch.tensor([item.labels for item in items], device=device)
            counts_B = torch.tensor([len(item.tokens.series) for item in items], device=device)
            outputs["labelled"] = label_Bn.isfinite().any(dim=1).float()
            outputs["labels"] = known_bce(self.module.probe(study_BP), label_Bn)
            of_series_S = known_bce(self.module.series_probe(series_SE), label_Bn.repeat_interleave(counts_B, dim=0))
            outputs["series_labels"] = torch.stack([one.mean() for one in torch.split(of_series_S, counts_B.tolist())])
        if self.module.of_token is not None:
            of_series_S = self.module.of_token.losses(states, [one for item in items for one in item.shown])
            counts = [len(item.shown) for item in items]
            outputs["places"] = torch.stack([one.mean() for one in torch.split(of_series_S, counts)])
            outputs["placed"] = torch.tensor([float(any(map(len, item.shown))) for item in items], device=device)
        return outputs

    def losses(self, outputs: Outputs) -> Outputs:
        losses = {
            "clip": contrastive(outputs["image"], outputs["text"], outputs["report"], self.module.scale()),
            "series": _series_loss(outputs["pair"], outputs["study"], outputs["single"]),
        }
        total = losses["clip"] + self._settings.series_weight * losses["series"]
        if self.module.probe is not None:
            losses |= {name: _mean_of(outputs[name], outputs["labelled"]) for name in ("labels", "series_labels")}
            labels = losses["labels"] + self._settings.label_share * losses["series_labels"]
            total = total + self._settings.label_weight * labels
        if self.module.of_token is not None:
            losses["places"] = _mean_of(outputs["places"], outputs["placed"])
            total = total + self._settings.place_weight * losses["places"]
        return {"loss": total, **losses, "scale": self.module.scale()}

    def validate(self) -> float | None:
        """The loss on validation studies, nothing dropped or shuffled, in batches like those of training."""
        if len(self._validation) < 2:
            return None
        batch = min(self._settings.loop.batch, len(self._validation))
        total, batches = 0.0, len(self._validation) // batch
        for start in range(0, batches * batch, batch):
            studies = self._validation[start : start + batch]
            items = [self._item(study, n, NOTHING, None) for n, study in enumerate(studies)]
            pieces = [self.outputs(items[first : first + PIECE]) for first in range(0, batch, PIECE)]
            outputs = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
            total += float(self.losses(outputs)["loss"])
        return total / batches

    def _item(self, study: str, number: int, dropout: Dropout, draw: np.random.Generator | None) -> _Item:
        """draw: None shuffles nothing."""
        statements: Sequence[str] = self._cohort.reports[study].items
        mirrored = draw is not None and draw.random() < self._settings.mirrored
        if mirrored:
            statements = [mirrored_text(one) for one in statements]
        key = text_key("\n".join(sorted(statements)))
        if draw is not None:
            statements = [statements[n] for n in draw.permutation(len(statements))]
        chance = draw or random(0)
        tokens = study_tokens(self._cohort.tokens.read(study), dropout, chance, mirrored)
        series = len(tokens.series)
        first, second = chance.choice(series, 2, replace=False) if series > 1 else (0, 0)
        labels = self._labels[study]
        places = self._shown(tokens, labels) if self._settings.place_weight else ()
        return _Item(number, tokens, (int(first), int(second)), " ".join(statements), key, labels, places)

    def _shown(self, tokens: StudyTokens, labels: Sequence[float]) -> tuple[Shown, ...]:
        label_n = np.array(labels[: len(self._placeable)])
        return tuple(shown(one.shares, tokens.located, label_n, self._placeable) for one in tokens.series)

    def _abnormal(self, study: str) -> bool:
        return any(self._cohort.labels.get(study, StudyLabels()).diagnosis.values())


def _series_loss(pair_B2E: Tensor, study_B: Tensor, single_B: Tensor) -> Tensor:
    """Two series of one study find each other among those of the batch; 0 where nothing is to be told apart."""
    pair_B2E, study_B = pair_B2E[~single_B], study_B[~single_B]
    if len(pair_B2E) < 2:
        return pair_B2E.sum() * 0
    return contrastive(pair_B2E[:, 0], pair_B2E[:, 1], study_B, SCALE)


def _mean_of(loss_B: Tensor, known_B: Tensor) -> Tensor:
    """The mean over those of whom something is known; 0 where nobody is."""
    return (loss_B * known_B).sum() / known_B.sum().clamp(min=1)


def _label_names(cohort: Cohort, settings: ClipSettings) -> dict[str, tuple[str, ...]]:
    """What probes are asked for, first what tokens are asked for too. Each level of the priority is a label."""
    if not settings.label_weight and not settings.place_weight:
        return {"diagnosis": (), "priority": (), "referral": ()}
    training = {study: cohort.labels[study] for study in cohort.split.train if study in cohort.labels}
    return {
        "diagnosis": names_of(training, "diagnosis"),
        "priority": levels_of(training),
        "referral": names_of(training, "referral"),
    }


def _label_rows(
    cohort: Cohort, names: Mapping[str, Sequence[str]], studies: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    columns = [
        flags(cohort.labels, studies, "diagnosis", names["diagnosis"]),
        levels_apart(cohort.labels, studies, names["priority"]),
        flags(cohort.labels, studies, "referral", names["referral"]),
    ]
    return {study: tuple(row) for study, row in zip(studies, np.concatenate(columns, axis=1).tolist(), strict=True)}


def _identity(
    cohort: Cohort, architecture: Architecture, text: Path, settings: ClipSettings, start: Path | None
) -> dict[str, Any]:
    """All that the result depends on; reports and labels by a checksum."""
    parts = {part: cohort.usable(getattr(cohort.split, part)) for part in ("train", "validation")}
    known = [(study, cohort.reports[study].items) for part in parts.values() for study in part]
    labels = [(study, asdict(cohort.labels[study])) for study, _ in known if study in cohort.labels]
    return asdict(settings) | {
        "loop": None,
        "architecture": {key: value for key, value in to_json(architecture).items() if key != "heads"},
        "text": text_identity(text),
        "tokens": cohort.tokens.about,
        "start": None if start is None else done(start)["files"],
        "studies": {part: len(studies) for part, studies in parts.items()},
        "reports": zlib.crc32(json.dumps(known).encode()),
        "labels": zlib.crc32(json.dumps(labels, sort_keys=True, default=dict).encode()),
    }


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    steps: Annotated[int, typer.Option(help="Updates.")] = 100_000,
    batch: Annotated[int, typer.Option(help="Studies an update.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = 2e-6,
    muon: Annotated[float, typer.Option(help="Muon's learning rate, for matrices inside; 0 for Adam alone.")] = 0.0,
    muon_decay: Annotated[float, typer.Option(help="Weight decay of those matrices.")] = 0.0,
    mirrored: Annotated[
        float, typer.Option(help="Share of studies seen with left and right exchanged; reports must be English.")
    ] = 0.0,
    temperature: Annotated[float, typer.Option(help="At the start; cosines are multiplied by exp of it.")] = 0.07,
    label_weight: Annotated[float, typer.Option(help="Of the loss of known labels.")] = 0.0,
    most_tokens: Annotated[int, typer.Option(help="Of a series, drawn at random; 0 for all.")] = 0,
    micro_batch: Annotated[int, typer.Option(help="Studies that a process runs at once; 0 for all.")] = 0,
    precision: Annotated[Precision, typer.Option(help="Of the matrix products.")] = "no",
    model: Annotated[ModelName, typer.Option(help="The architecture.")] = ModelName.SMALL,
    text: Annotated[Path | None, typer.Option(help="A Hugging Face folder; the run's text/ by default.")] = None,
) -> None:
    """Train the study model and the text tower of a run."""
    opened = RunFolder(run)
    every = max(steps // 20, 1)
    loop = LoopSettings(steps, batch, warmup=200, precision=precision, micro_batch=micro_batch, validate_every=every)
    settings = ClipSettings(
        loop,
        Dropout(most_tokens=most_tokens),
        learning_rate=learning_rate,
        muon=muon,
        muon_decay=muon_decay,
        mirrored=mirrored,
        temperature=temperature,
        label_weight=label_weight,
    )
    with explained():
        store, labels = opened.store(), opened.labels()
        cohort = Cohort(store, store.reports(), labels, opened.split())
        architecture = named(model, names_of(labels, "diagnosis"), names_of(labels, "referral"))
        figures = train_clip(cohort, architecture, text or run / "text", run / "clip", settings, opened.start())
    typer.echo(f"{run / 'clip'}: {figures['losses']}, best validation {figures['best']}")


if __name__ == "__main__":
    app()
