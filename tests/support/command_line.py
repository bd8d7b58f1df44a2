"""`dicom-node` in the tests' own process, where everything it prints is caught and torch is loaded once.

How to use (the fixture `cli` of `tests/conftest.py`):

    done = cli("studies", "--config", path, "--json")
    assert (done.code, done.json) == (0, [])
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dicom_node.admin import main as command_line


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Cli = Callable[..., Outcome]


def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A function that runs `dicom-node`. Not for `serve` and `run`: they set the process's logging up for good."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["dicom-node", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        said = capfd.readouterr()
        return Outcome(int(end.value.code or 0), said.out, said.err)

    return run
