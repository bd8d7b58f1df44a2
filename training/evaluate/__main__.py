"""Judge a run's heads on its test part: `python -m training.evaluate --run RUN`.

Reads heads/, embeddings.safetensors, labels and split.csv; writes evaluation.json and report.html in evaluation/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prima_core.bundle import MANIFEST, read_manifest
from training.base.errors import TrainingError
from training.evaluate.figures import RESAMPLES
from training.evaluate.held_out import TEST_PART, held_out, write_evaluation
from training.evaluate.record import evaluation_record, judge_set
from training.run_folder import RunFolder
from training.stages.heads import read_heads

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples behind each interval.")] = RESAMPLES,
) -> None:
    """Judge the test part of a run."""
    opened = RunFolder(run)
    try:
        heads = read_heads(run / "heads")
        sets = {TEST_PART: judge_set(heads, held_out(opened), count=resamples)}
        state = read_manifest(run / "bundle").training_state if (run / "bundle" / MANIFEST).exists() else None
        record = evaluation_record(
            sets, training_state=state, training_studies=len(opened.split().train), left_out=list(heads.left_out)
        )
        page = write_evaluation(opened, record, run.resolve().name)
    except TrainingError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    mean = "too few studies for an AUROC" if record["mean_auroc"] is None else f"mean AUROC {record['mean_auroc']:.3f}"
    typer.echo(f"{page}: {record['studies']} studies, {mean}")


if __name__ == "__main__":
    app()
