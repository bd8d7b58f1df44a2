"""What a Key Object Selection says: its title, and which objects it names (PS3.3 A.35.4, PS3.16 TID 2010).

Read in a process of its own, within bounds: a document that brings a parser down takes nothing else along.
`python -m dicom_node.intake.key_objects` reads paths, one JSON text a line, and answers each with the line
`<number of the path> <what it says, as JSON>`; `null` says that it cannot be read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from dicom_node.base.errors import NotDicom
from dicom_node.base.events import Event, log
from dicom_node.base.types import KeyObjects, Rejection
from dicom_node.intake.identity import PARSE_ERRORS, checked_uid
from prima_core.base.bounded import Allowance, bounded

MAX_BYTES = 64 << 20  # 100 bytes an object are plenty: a note that names half a million
MAX_PARSED_BYTES = 1 << 30
MAX_REFERENCES = 200_000
PATIENCE_SECONDS = 120.0
TITLES = {rejection.value: rejection for rejection in Rejection}


def read_key_objects(path: Path) -> KeyObjects | None:
    """What the document at `path` says; None when it cannot be read as a Key Object Selection.

    An object is named when an item of the content names it and the evidence says where it is. Raises OSError when the
    disk does not give the file.
    """
    if path.stat().st_size > MAX_BYTES:
        return None
    content = path.read_bytes()
    try:
        with disable_value_validation():
            dataset = dcmread(bounded(BytesIO(content), Allowance(MAX_PARSED_BYTES)))
            title = dataset.ConceptNameCodeSequence[0]
            of_dicom = str(title.CodingSchemeDesignator).strip() == "DCM"
            rejection = TITLES.get(str(title.CodeValue).strip()) if of_dicom else None
            if rejection is None:
                return KeyObjects(None)
            named = set(_named(dataset))
            places = dict.fromkeys(place for place in _places(dataset) if place[2] in named)
    except (*PARSE_ERRORS, NotDicom, RecursionError):
        return None
    return KeyObjects(rejection, tuple(places)) if len(places) <= MAX_REFERENCES else None


def _named(dataset: Dataset) -> Iterator[str]:
    for item in dataset.get("ContentSequence") or ():
        for reference in item.get("ReferencedSOPSequence") or ():
            yield _uid(reference, "ReferencedSOPInstanceUID")


def _places(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        study_uid = _uid(study, "StudyInstanceUID")
        for series in study.get("ReferencedSeriesSequence") or ():
            series_uid = _uid(series, "SeriesInstanceUID")
            for reference in series.get("ReferencedSOPSequence") or ():
                yield study_uid, series_uid, _uid(reference, "ReferencedSOPInstanceUID")


def _uid(item: Dataset, keyword: str) -> str:
    return checked_uid(str(item[keyword].value), keyword)


def read_apart(paths: Sequence[Path]) -> list[tuple[bool, KeyObjects | None]]:
    """For the first of the paths, in order: whether an answer is known, and the answer.

    Nothing is known where the disk or the memory did not suffice. Where the process died nothing is said of the paths
    from there on. A document on which the process dies or hangs is one that cannot be read when it is read alone.
    """
    questions = "".join(json.dumps(str(path)) + "\n" for path in paths)
    command = [sys.executable, "-m", "dicom_node.intake.key_objects"]
    try:
        # A library's warnings may quote what a sender sent, so nothing of standard error is kept.
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            input=questions.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            check=False,
            start_new_session=True,  # a Ctrl-C for the node is none for a reader
        )
        answer, ended = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as error:
        answer, ended = error.stdout or b"", True
    except OSError as error:  # no process to be had now
        log(Event.JOB_FAILED, "warning", job="read rejection notes", error=type(error).__name__)
        return []
    answers = _answers(answer.decode(errors="replace"), len(paths))
    if ended and not answers and paths:
        return [(True, None)] if len(paths) == 1 else read_apart(paths[:1])
    return answers


def _answers(text: str, count: int) -> list[tuple[bool, KeyObjects | None]]:
    lines = dict(line.split(" ", 1) for line in text.split("\n")[:-1] if line[:1].isdigit() and " " in line)
    answers: list[tuple[bool, KeyObjects | None]] = []
    for number in range(count):
        if str(number) not in lines:
            break
        said: Any = json.loads(lines[str(number)])
        if said == "later":
            answers.append((False, None))
            continue
        answers.append((True, None if said is None else _from_json(said)))
    return answers


def _from_json(said: Any) -> KeyObjects:
    rejection = Rejection(said["rejection"]) if said["rejection"] else None
    return KeyObjects(rejection, tuple((one[0], one[1], one[2]) for one in said["references"]))


def main() -> None:
    """Answer every line of standard input."""
    for number, line in enumerate(sys.stdin):
        try:
            said = read_key_objects(Path(json.loads(line)))
        except (OSError, MemoryError):
            print(f'{number} "later"', flush=True)
            continue
        answer = None if said is None else {"rejection": said.rejection, "references": said.references}
        print(f"{number} {json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main()
