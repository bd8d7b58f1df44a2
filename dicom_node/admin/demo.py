"""`demo`: the node's main job in one command, on this machine, with an archive stand-in and no patient data."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from dicom_node.admin.output import Json, notes, print_json, progress, result
from dicom_node.base.errors import PermanentError
from dicom_node.demo.run import DemoNode, Outcome
from dicom_node.demo.study_files import StudyFiles, study_in

OUT_OF_SCOPE = 3
PHANTOM_SEED = 3_000_013  # bleeding into basal ganglia and ventricle; far from the seeds that a speedrun trains on
app = typer.Typer()


@app.command()
def demo(
    study: Annotated[Path | None, typer.Option(help="Folder of a real study instead of the sample.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where the demo keeps its files; a new folder if left out.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Model bundle instead of the one that comes with the node.")
    ] = None,
    json: Json = False,
) -> None:
    """Start a node and an archive, send a study by C-STORE, wait for the report to come back, and print it."""
    home = folder or Path(mkdtemp(prefix="prima-node-demo-"))
    sent = _study_files(study or _phantom(home / "phantom"))
    notes.print(f"files of this demo: {home}")
    with DemoNode(home, bundle) as node, progress() as bar:
        task = bar.add_task("sending the study", total=len(sent.files))
        node.send(sent, lambda: bar.advance(task))
        waiting = bar.add_task("waiting for the report", total=None)
        outcome = node.wait(sent, lambda state: bar.update(waiting, description=f"study is {state}"))
    if json:
        print_json(_document(outcome))
    else:
        _show(outcome)
    if outcome.study.state == "out_of_scope":
        raise typer.Exit(OUT_OF_SCOPE)
    if outcome.report is None:
        raise PermanentError(f"no report came back: the study is {outcome.study.state} ({outcome.study.reason})")


def _phantom(folder: Path) -> Path:
    """A simulated study in `folder`, and what is simulated in it as a note."""
    from training.phantom.study import make_study

    truth = make_study(PHANTOM_SEED, "home", folder)
    notes.print(f"a simulated study, no patient's; its report would say: {truth.report.text}")
    return folder


def _study_files(folder: Path) -> StudyFiles:
    return study_in(sorted(path for path in folder.rglob("*") if path.is_file()), _note_skipped)


def _note_skipped(path: Path) -> None:
    notes.print(f"not sent, no DICOM instance: {path}")


def _document(outcome: Outcome) -> dict[str, Any]:
    study = outcome.study
    return {
        "study_instance_uid": study.study_instance_uid,
        "state": study.state,
        "reason": study.reason,
        "sr_sop_instance_uid": study.report_uid if outcome.report else None,
        "sr_path": str(outcome.report) if outcome.report else None,
        "findings": list(study.findings),
        "priority": {"level": study.level, "rule": study.rule} if study.level else None,
        "seconds_to_report": outcome.seconds,
        "training_state": study.training_state,
    }


def _show(outcome: Outcome) -> None:
    study = outcome.study
    result.print(f"study {study.id}: {study.state}" + (f" ({study.reason})" if study.reason else ""))
    if outcome.report is None:
        return
    result.print(f"report {outcome.report} after {outcome.seconds:.1f} s")
    result.print(f"model: {study.training_state} — for demonstration, never for patients")
    result.print(f"priority: {study.level} ({study.rule})")
    for finding in sorted(study.findings, key=lambda one: -one["score"]):
        kind = "probability" if finding["calibrated"] else "uncalibrated score"
        words = f"  {finding['meaning']} ({finding['scheme']} {finding['code']}): {kind} {finding['score']:.3f}"
        result.print(words)
