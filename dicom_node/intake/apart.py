"""Compares disputed objects in a process of its own: a decoder that hostile pixels crash takes nothing else along.

`python -m dicom_node.intake.apart` reads pairs of paths, one JSON list a line, and answers each with the line
`<number of the pair> <verdict>`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dicom_node.base.events import Event, log
from dicom_node.base.types import Verdict
from dicom_node.intake.content import compare

UNREADABLE = "unreadable"
ANSWERS: dict[str, Verdict | None] = {verdict.value: verdict for verdict in Verdict} | {UNREADABLE: None}
PATIENCE_SECONDS = 600.0


def compare_apart(pairs: Sequence[tuple[Path, Path]]) -> list[Verdict | None]:
    """Verdicts of the first pairs, in order; None where nothing is known, to be tried again.

    That is where the disk or the memory did not suffice, or the process died. A pair on which it hangs is quarantined.
    After a pair that ended the process nothing is said of the others.
    """
    questions = "".join(json.dumps([str(first), str(second)]) + "\n" for first, second in pairs)
    command = [sys.executable, "-m", "dicom_node.intake.apart"]
    try:
        # A library's warnings may quote what a sender sent, so nothing of standard error is kept.
        answer = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            input=questions,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            start_new_session=True,  # a Ctrl-C for the node is none for a comparison
        ).stdout
    except subprocess.TimeoutExpired as error:
        done = _verdicts((error.stdout or b"").decode(), len(pairs))
        return [*done[:-1], Verdict.QUARANTINED] if done and done[-1] is None else done
    except OSError as error:  # no process to be had now
        log(Event.JOB_FAILED, "warning", job="compare", error=type(error).__name__)
        return []
    return _verdicts(answer, len(pairs))


def _verdicts(answer: str, pairs: int) -> list[Verdict | None]:
    """What was answered, up to the first pair without an answer, of which nothing is known."""
    # A decoder in native code may print lines of its own; only whole ones in our form count.
    said = set(answer.split("\n")[:-1])
    verdicts: list[Verdict | None] = []
    for number in range(pairs):
        possible = [word for word in ANSWERS if f"{number} {word}" in said]
        if len(possible) != 1:
            return [*verdicts, None]
        verdicts.append(ANSWERS[possible[0]])
    return verdicts


def main() -> None:
    """Answer every line of standard input."""
    for number, line in enumerate(sys.stdin):
        first, second = json.loads(line)
        try:
            verdict: str = compare(Path(first), Path(second))
        except (OSError, MemoryError):
            verdict = UNREADABLE
        print(f"{number} {verdict}", flush=True)


if __name__ == "__main__":
    main()
