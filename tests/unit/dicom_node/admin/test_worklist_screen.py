"""The reading list on a terminal: a colour for each level that stands out, and shown anew until Ctrl-C."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from dicom_node.admin import worklist
from dicom_node.base.types import Level
from support.orders import finish, order, placed, receive, tell
from support.reading_list import entry
from support.studies import new_registry


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the commands write, as a terminal gets it."""
    written = io.StringIO()
    shown = Console(file=written, force_terminal=True, color_system="standard", width=200, height=40)
    monkeypatch.setattr(worklist, "result", shown)
    return written


@pytest.mark.parametrize("level", Level)
def test_every_level_above_routine_has_a_colour(terminal: io.StringIO, level: Level) -> None:
    worklist.result.print(worklist._table([entry(level=level)]))
    coloured = re.search(rf"\x1b\[[0-9;]+m{level.value}", terminal.getvalue()) is not None
    assert level.value in terminal.getvalue()
    assert coloured == (level is not Level.ROUTINE)


def test_levels_are_told_apart_by_colour() -> None:
    assert len(set(worklist.COLOURS.values())) == len(Level)


def test_watching_shows_what_came_since_until_somebody_stops_it(
    terminal: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[node]\nstorage = "."\n[worklist]\nkeep_hours = 1e9\n')
    registry = new_registry(tmp_path)
    seen: list[bool] = []

    def pause(_: float) -> None:
        seen.append("urgent" in terminal.getvalue())
        if len(seen) == 2:
            raise KeyboardInterrupt
        tell(registry, placed(order()))
        receive(registry)
        finish(registry)

    monkeypatch.setattr(time, "sleep", pause)
    worklist._watch(*worklist.open_registry(config))
    registry.close()
    assert seen == [False, True]
