"""The series-name encoder learns by itself which images a name goes with: CLIP of names against single series.

    python -m training.stages.series_names --run RUN

Optional: later stages then start from the encoder, and from the sequence ViT that learned beside it, though it saw no
names here (Lyu et al. 2025, arXiv 2509.18638, keep the encoder alone).

Legend of the suffixes: B series, D token width, V width of the common space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.nn.functional import normalize

from prima_core.base.config import Architecture
from prima_core.name_encoder import NameEncoder
from prima_core.sequence_vit import SequenceVit
from training.base.checkpoint import finish, finished
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.base.loop import EndlessOrder, LoopSettings, Outputs, Stage, random, train
from training.base.trained_on import SEEN, write_seen
from training.prepare.store import TokenStore
from training.run_folder import RunFolder
from training.stages.architecture import ModelName, named
from training.stages.contrastive import contrastive, text_key
from training.stages.start import START, write_start
from training.stages.study_model import Dropout, SeriesTokens, encode_names, initialise, pack_tokens, series_tokens

WIDTH = 64


@dataclass(frozen=True)
class SeriesNamesSettings:
    """dropout: of tokens alone, names are what is learned."""

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(10_000, 256, warmup=200))
    dropout: Dropout = field(default_factory=lambda: Dropout(series=0.0, names=0.0))
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4


def train_series_names(
    tokens: TokenStore,
    studies: Sequence[str],
    architecture: Architecture,
    folder: Path,
    settings: SeriesNamesSettings | None = None,
) -> dict[str, Any]:
    """Train on the series of `studies`; returns the figures of done.json. Writes what later stages start from.

    Raises BadTrainingData, and what `training.base.loop.train` raises.
    """
    settings = settings or SeriesNamesSettings()
    identity = asdict(settings) | {
        "loop": None,
        "series_name": asdict(architecture.series_name),
        "sequence_vit": asdict(architecture.sequence_vit),
        "tokens": tokens.about,
        "studies": text_key("\n".join(studies)),
    }
    whole_identity = identity | settings.loop.identity()
    if (figures := finished(folder, whole_identity)) is not None:
        return figures
    stage = _NamesStage(tokens, studies, architecture, settings)
    figures = train(stage, settings.loop, folder, identity, "series names").figures()
    write_start(folder, stage.module)
    write_seen(folder, studies)
    finish(folder, whole_identity, (START, SEEN), figures)
    return figures


class _NamesModel(nn.Module):
    """Name encoder and sequence ViT are kept."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.series_name = NameEncoder(architecture.series_name)
        self.sequence_vit = SequenceVit(architecture.sequence_vit)
        self.from_name = nn.Linear(architecture.series_name.output, WIDTH)
        self.from_image = nn.Linear(architecture.sequence_vit.output, WIDTH)
        initialise(self)


class _NamesStage(Stage[SeriesTokens]):
    module: _NamesModel

    def __init__(
        self, tokens: TokenStore, studies: Sequence[str], architecture: Architecture, settings: SeriesNamesSettings
    ) -> None:
        self._tokens, self._settings = tokens, settings
        self._series = [(study, n) for study in studies for n in range(len(tokens.sizes(study)))]
        if len(self._series) < 2:
            raise BadTrainingData("series names need at least two series to learn from")
        torch.manual_seed(settings.loop.seed)
        self.module = _NamesModel(architecture)
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._order = EndlessOrder(range(len(self._series)), settings.loop.seed)

    def draw(self, step: int, positions: range) -> list[SeriesTokens]:
        return [self._drawn(step, position) for position in positions]

    def _drawn(self, step: int, position: int) -> SeriesTokens:
        loop = self._settings.loop
        study, n = self._series[self._order[step * loop.batch + position]]
        series = self._tokens.read(study).series[n]
        return series_tokens(series, self._settings.dropout, random(loop.seed, step, position))

    def outputs(self, items: Sequence[SeriesTokens]) -> Outputs:
        name_BD = encode_names(self.module.series_name, [one.name for one in items])
        tokens_ND = pack_tokens(items, name_BD.device)
        series_BE = self.module.sequence_vit(
            torch.zeros_like(name_BD), tokens_ND, [len(one.coordinates) for one in items]
        )
        return {
            "names": normalize(self.module.from_name(name_BD), dim=1),
            "images": normalize(self.module.from_image(series_BE), dim=1),
            "keys": torch.tensor([text_key(one.name.lower()) for one in items], device=name_BD.device),
        }

    def losses(self, outputs: Outputs) -> Outputs:
        return {"loss": contrastive(outputs["names"], outputs["images"], outputs["keys"])}


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    steps: Annotated[int, typer.Option(help="Updates.")] = 10_000,
    batch: Annotated[int, typer.Option(help="Series an update.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = 1e-4,
    model: Annotated[ModelName, typer.Option(help="The architecture.")] = ModelName.SMALL,
) -> None:
    """Train the series-name encoder of a run."""
    opened = RunFolder(run)
    settings = SeriesNamesSettings(LoopSettings(steps, batch, warmup=200), learning_rate=learning_rate)
    with explained():
        store, studies = opened.store(), opened.split().train
        figures = train_series_names(store, studies, named(model), run / "series_names", settings)
    typer.echo(f"{run / 'series_names'}: {figures['losses']}")


if __name__ == "__main__":
    app()
