"""Runs of `dicom-node retrain` in the storage folder: one at a time; what was stopped goes on; what is done forgets.

    training/.lock, training/key     the lock, and the site's pseudonym key
    training/<when>/retrain.json     what was asked for, what was found, and the bundle once there is one
    bundles/<when>/                  the bundle, which stays when its run's folder is deleted

A run that is done keeps weights, curves and figures; studies, labels and embeddings are deleted from it.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.admin.kept_embeddings import FOLDER
from dicom_node.base.config import Configuration
from dicom_node.base.durable import make_folder, replace_file
from dicom_node.base.errors import PermanentError

MARK = "retrain.json"
OF_PATIENTS = ("store", "patches", "embeddings.safetensors", "records.jsonl", "labels.csv", "split.csv")
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")


@dataclass(frozen=True)
class Run:
    """wanted: all that decides the result but the studies. found: about the studies. bundle: None until it is done."""

    folder: Path
    wanted: Mapping[str, Any]
    found: Mapping[str, Any]
    bundle: str | None = None


@contextmanager
def only_one_run(configuration: Configuration) -> Iterator[None]:
    """Hold the lock; runs that ended before they began in earnest are deleted. Raises PermanentError, OSError."""
    above = configuration.node.storage / FOLDER
    make_folder(above)
    with (above / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermanentError("another retraining runs; wait for its end, or stop it: it goes on later") from None
        for folder in _folders(above):
            if not (folder / MARK).exists():
                shutil.rmtree(folder)
        yield


def begin(run: Run) -> Run:
    """Write the mark, from which on the run can be taken up again. Raises OSError."""
    document = {"wanted": run.wanted, "found": run.found, "bundle": run.bundle}
    replace_file(run.folder / MARK, json.dumps(document, indent=1).encode())
    return run


def finish(run: Run, bundle: str) -> None:
    """Note the bundle and delete what is of patients. Raises OSError."""
    begin(Run(run.folder, run.wanted, run.found, bundle))
    for name in OF_PATIENTS:
        path = run.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def unfinished(configuration: Configuration, wanted: Mapping[str, Any]) -> Run | None:
    """The newest run that asked for just this and was stopped."""
    return next((run for run in _runs(configuration, wanted) if run.bundle is None), None)


def stopped(configuration: Configuration, what: str) -> list[Run]:
    """All runs of a kind that were stopped, whatever they asked for."""
    return [run for run in _all(configuration) if run.bundle is None and run.wanted["what"] == what]


def made_before(configuration: Configuration, run: Run) -> str | None:
    """The bundle that an earlier run made of the same studies and labels, if one did."""
    earlier = _runs(configuration, run.wanted)
    return next((one.bundle for one in earlier if one.bundle is not None and one.found == run.found), None)


def _runs(configuration: Configuration, wanted: Mapping[str, Any]) -> Iterator[Run]:
    """Those that asked for just this, newest first."""
    return (run for run in _all(configuration) if run.wanted == dict(wanted))


def _all(configuration: Configuration) -> Iterator[Run]:
    """Newest first."""
    for folder in reversed(_folders(configuration.node.storage / FOLDER)):
        if (folder / MARK).exists():
            yield Run(folder, **json.loads((folder / MARK).read_text("utf-8")))


def _folders(above: Path) -> list[Path]:
    return sorted(path for path in above.iterdir() if _NAME.fullmatch(path.name))
