"""The sequence ViT learns what findings look like where they are, before CLIP asks about whole studies.

    python -m training.stages.localise --run RUN

Optional, for cohorts that know where findings lie: phantoms do, and so may any source (`SourceStudy.findings`); the
readers of a site's studies do not take masks yet. A study's label says only that one of a thousand tokens or so is the
reason for it; with a few thousand studies that is too little to learn from. Here every token is told what it shows, by
a linear probe on what the last block of the ViT reads, and every series what lies in it: diagnoses, and the reason for
the study's priority, which sets fresh blood apart from old. Both probes are thrown away; `training.stages.clip` starts
from the ViT and the name encoder.

Tokens are drawn so that located findings are seen more often than they occur. Findings without a place of their own,
such as a shifted midline, are asked of every series.

Legend of the suffixes: T tokens of one series, n labels: diagnoses, and priorities that are located.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import nn

from prima_core.base.config import Architecture
from prima_core.name_encoder import NameEncoder
from prima_core.sequence_vit import SequenceVit
from training.base.checkpoint import done, finish, finished
from training.base.cohort import StudyLabels
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.base.loop import EndlessOrder, LoopSettings, Outputs, Precision, Stage, random, train
from training.base.muon import WithMuon, inner_matrices, parameters_but
from training.base.trained_on import SEEN, write_seen
from training.prepare.store import TokenStore
from training.run_folder import RunFolder
from training.stages.architecture import ModelName, named
from training.stages.contrastive import text_key
from training.stages.mirror import mirrored_tokens
from training.stages.places import TokenProbe, shown
from training.stages.start import START, begin_from, write_start
from training.stages.study_model import UNKNOWN_NAME, SeriesTokens, initialise, read_series
from training.stages.targets import flags, known_bce, levels_apart, levels_of, names_of

RARE_SERIES = -2.8  # the logit that the probe of series starts from


@dataclass(frozen=True)
class LocaliseSettings:
    """most_tokens: of a series. focus: share of the draws in which up to a third of the tokens show a finding.

    names: share of series whose name is made unknown. mirrored: share that is seen in the mirror. learning_rate:
    AdamW's. muon: the learning rate of Muon, which then takes the matrices inside the model, with a weight decay of
    `muon_decay`; 0 for AdamW alone. token_weight, series_weight: of the two losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(10_000, 96, warmup=200))
    most_tokens: int = 40
    focus: float = 0.75
    names: float = 0.07
    mirrored: float = 0.0
    learning_rate: float = 1e-3
    muon: float = 0.0
    muon_decay: float = 0.0
    weight_decay: float = 1e-2
    token_weight: float = 10.0
    series_weight: float = 1.0


def train_localise(
    tokens: TokenStore,
    labels: Mapping[str, StudyLabels],
    studies: Sequence[str],
    architecture: Architecture,
    folder: Path,
    settings: LocaliseSettings | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train on those of `studies` whose findings are located; returns the figures of done.json. Resumes.

    start: the folder of `series_names`. Writes what `training.stages.clip` starts from.
    Raises BadTrainingData, and what `training.base.loop.train` raises.
    """
    settings = settings or LocaliseSettings()
    usable = tuple(study for study in studies if study in tokens and tokens.located(study) is not None)
    known = {study: asdict(labels[study]) for study in usable if study in labels}
    identity = asdict(settings) | {
        "loop": None,
        "series_name": asdict(architecture.series_name),
        "sequence_vit": asdict(architecture.sequence_vit),
        "tokens": tokens.about,
        "studies": text_key("\n".join(usable)),
        "labels": zlib.crc32(repr(sorted(known.items())).encode()),
        "start": None if start is None else done(start)["files"],
    }
    whole_identity = identity | settings.loop.identity()
    if (figures := finished(folder, whole_identity)) is not None:
        return figures
    stage = LocaliseStage(tokens, labels, usable, architecture, settings)
    if start is not None:
        begin_from(stage.module, start)
    figures = train(stage, settings.loop, folder, identity, "localise").figures()
    figures |= {"located": len(usable), "asked": len(studies)}
    write_start(folder, stage.module)
    write_seen(folder, usable)
    finish(folder, whole_identity, (START, SEEN), figures)
    return figures


class LocaliseModel(nn.Module):
    """Name encoder and sequence ViT are kept."""

    def __init__(self, architecture: Architecture, labels: int) -> None:
        super().__init__()
        vit = architecture.sequence_vit
        self.series_name = NameEncoder(architecture.series_name)
        self.sequence_vit = SequenceVit(vit)
        self.of_series = nn.Linear(vit.output, labels)
        initialise(self)
        nn.init.constant_(self.of_series.bias, RARE_SERIES)
        self.of_token = TokenProbe(vit.transformer.width, labels)


@dataclass(frozen=True)
class LocatedSeries:
    """What is known of one draw from a series. shown_Tn, present_n: 0…1, NaN where it is unknown."""

    tokens: SeriesTokens
    shown_Tn: npt.NDArray[np.float32]
    present_n: npt.NDArray[np.float32]


class LocaliseStage(Stage[LocatedSeries]):
    """Single series with located findings → the losses of both probes."""

    module: LocaliseModel

    def __init__(
        self,
        tokens: TokenStore,
        labels: Mapping[str, StudyLabels],
        studies: Sequence[str],
        architecture: Architecture,
        settings: LocaliseSettings,
    ) -> None:
        self._tokens, self._settings = tokens, settings
        self._series = [(study, n) for study in studies for n in range(len(tokens.sizes(study)))]
        known = {study: labels[study] for study in studies if study in labels}
        self._placed = {name for study in studies for name in tokens.located(study) or ()}
        diagnoses, reasons = names_of(known, "diagnosis"), [name for name in levels_of(known) if name in self._placed]
        self._names = (*diagnoses, *reasons)
        if not self._series or not self._names:
            raise BadTrainingData("there are no labelled studies that say where their findings lie")
        asked = flags(labels, studies, "diagnosis", diagnoses), levels_apart(labels, studies, reasons)
        self._labels = dict(zip(studies, np.concatenate(asked, axis=1), strict=True))
        torch.manual_seed(settings.loop.seed)
        self.module = LocaliseModel(architecture, len(self._names))
        matrices = inner_matrices(self.module.series_name, self.module.sequence_vit) if settings.muon else []
        self.optimizer = torch.optim.AdamW(
            parameters_but(self.module, matrices),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
        )
        if settings.muon:
            self.optimizer = WithMuon(self.optimizer, matrices, settings.muon, settings.muon_decay)
        self._order = EndlessOrder(range(len(self._series)), settings.loop.seed)

    def draw(self, step: int, positions: range) -> list[LocatedSeries]:
        loop = self._settings.loop
        return [
            self._drawn(*self._series[self._order[step * loop.batch + position]], random(loop.seed, step, position))
            for position in positions
        ]

    def outputs(self, items: Sequence[LocatedSeries]) -> Outputs:
        embedding_SE, states = read_series(
            self.module.series_name, self.module.sequence_vit, [item.tokens for item in items]
        )
        present_Sn = torch.from_numpy(np.stack([item.present_n for item in items])).to(embedding_SE.device)
        return {
            "token": self.module.of_token.losses(states, [item.shown_Tn for item in items]),
            "series": known_bce(self.module.of_series(embedding_SE), present_Sn),
        }

    def losses(self, outputs: Outputs) -> Outputs:
        token, series = outputs["token"].mean(), outputs["series"].mean()
        total = len(self._names) * (self._settings.token_weight * token + self._settings.series_weight * series)
        return {"loss": total, "token": token, "series": series}

    def _drawn(self, study: str, number: int, draw: np.random.Generator) -> LocatedSeries:
        read = self._tokens.read(study)
        series = read.series[number]
        shown_Un = shown(series.shares, read.located or (), self._labels[study], self._names)
        shown_Tn = shown_Un[series.rows]
        kept = self._kept(shown_Tn, draw)
        name = UNKNOWN_NAME if draw.random() < self._settings.names else series.name
        tokens = SeriesTokens(name, series.latents[series.rows[kept]], series.coordinates[kept], series.thin_axis)
        if draw.random() < self._settings.mirrored:
            tokens = mirrored_tokens(tokens, series)
        return LocatedSeries(tokens, shown_Tn[kept], self._present(study, shown_Tn[kept]))

    def _present(self, study: str, shown_Tn: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n,) whether these tokens show each label; where no place is known, whether the study has it."""
        label_n = self._labels[study].astype(np.float32)
        in_series_n: npt.NDArray[np.float32] = np.max(shown_Tn, axis=0)  # NaN where only the label is known
        placed_n = np.array([name in self._placed for name in self._names]) & np.isfinite(in_series_n)
        return np.where(placed_n, (in_series_n > 0).astype(np.float32), label_n)

    def _kept(self, shown_Tn: npt.NDArray[np.float32], draw: np.random.Generator) -> npt.NDArray[np.int64]:
        """Which tokens go in, ascending."""
        most = min(self._settings.most_tokens, len(shown_Tn))
        order = draw.permutation(len(shown_Tn))
        if draw.random() < self._settings.focus:
            shows_T = np.max(np.nan_to_num(shown_Tn), axis=1) > 0
            first = order[shows_T[order]][: max(1, most // 3)]
            order = np.concatenate([first, order[~np.isin(order, first)]])
        return np.sort(order[:most])


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    steps: Annotated[int, typer.Option(help="Updates.")] = 10_000,
    batch: Annotated[int, typer.Option(help="Series an update.")] = 96,
    learning_rate: Annotated[float, typer.Option(help="AdamW's.")] = 1e-3,
    mirrored: Annotated[float, typer.Option(help="Share of series seen with left and right exchanged.")] = 0.0,
    muon: Annotated[float, typer.Option(help="Muon's learning rate, for matrices inside; 0 for AdamW alone.")] = 0.0,
    muon_decay: Annotated[float, typer.Option(help="Weight decay of those matrices.")] = 0.0,
    precision: Annotated[Precision, typer.Option(help="Of the matrix products.")] = "no",
    model: Annotated[ModelName, typer.Option(help="The architecture.")] = ModelName.SMALL,
) -> None:
    """Train name encoder and sequence ViT of a run on where findings lie."""
    opened = RunFolder(run)
    loop = LoopSettings(steps, batch, warmup=min(200, steps // 4), precision=precision)
    settings = LocaliseSettings(loop, mirrored=mirrored, learning_rate=learning_rate, muon=muon, muon_decay=muon_decay)
    names = run / "series_names"
    with explained():
        figures = train_localise(
            opened.store(),
            opened.labels(),
            opened.split().train,
            named(model),
            run / "localise",
            settings,
            names if names.exists() else None,
        )
    told = f"{figures['located']} of {figures['asked']} training studies say where their findings lie"
    typer.echo(f"{run / 'localise'}: {told}; {figures['losses']}")


if __name__ == "__main__":
    app()
