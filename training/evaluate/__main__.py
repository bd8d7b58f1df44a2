"""Judge a run's heads on its test part: `python -m training.evaluate --run RUN [--scaling]`.

Reads heads/, zero_shot/, embeddings.safetensors, labels and split.csv; writes evaluation.json and report.html in
evaluation/. With --scaling, heads are also fitted on growing shares of the training patients (in scaling/; resumes).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from training.base.command import command, explained
from training.evaluate.figures import RESAMPLES
from training.evaluate.held_out import TEST_PART, held_out, is_prospective, write_evaluation
from training.evaluate.record import EvaluationSet, evaluation_record, judge_set
from training.evaluate.scaling import scaling_curve
from training.run_folder import RunFolder
from training.stages.heads import read_run_heads, read_settings


def evaluate_run(run: RunFolder, resamples: int = RESAMPLES, scaling: bool = False) -> dict[str, Any]:
    """The evaluation record of a run's test part. Raises BadTrainingData, and what `train_heads` raises."""
    heads, test, split = read_run_heads(run), held_out(run), run.split()
    return evaluation_record(
        {TEST_PART: judge_set(heads, test, count=resamples)},
        heads=heads.digest(),
        training_state=run.training_state(),
        training_studies=len(split.train),
        prospective=is_prospective(run.records(), split),
        left_out=list(heads.left_out),
        scaling=_scaling(run, test) if scaling else None,
    )


def _scaling(run: RunFolder, test: EvaluationSet) -> list[dict[str, Any]]:
    settings = read_settings(run / "heads")
    split, folder = run.split(), run / "scaling"
    points = scaling_curve(run.embeddings(), run.labels(), split, run.records(), test, folder, settings)
    return [asdict(point) for point in points]


app = command()


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples behind each interval.")] = RESAMPLES,
    scaling: Annotated[bool, typer.Option(help="Also fit heads on growing shares of the training patients.")] = False,
) -> None:
    """Judge the test part of a run."""
    opened = RunFolder(run)
    with explained():
        record = evaluate_run(opened, resamples, scaling)
        page = write_evaluation(opened, record, run.resolve().name)
    mean = "too few studies for an AUROC" if record["mean_auroc"] is None else f"mean AUROC {record['mean_auroc']:.3f}"
    typer.echo(f"{page}: {record['studies']} studies, {mean}")


if __name__ == "__main__":
    app()
