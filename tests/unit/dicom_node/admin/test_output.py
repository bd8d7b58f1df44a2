"""Progress goes to standard error, and only to a terminal; nothing that is printed is read as markup."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from dicom_node.admin import output

TEXT = "[red]not markup[/red] [/] :smile:"


@pytest.mark.parametrize("console", [output.result, output.notes])
def test_texts_and_cells_are_printed_as_they_are(console: Console) -> None:
    table = Table("cell", box=None)
    table.add_row(TEXT)
    with console.capture() as captured:
        console.print(TEXT)
        console.print(table)
    assert captured.get().count(TEXT) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    screen = StringIO()
    monkeypatch.setattr(output, "notes", Console(file=screen, force_terminal=terminal))
    with output.progress() as bar:
        bar.add_task(TEXT, total=None)
    assert (TEXT in screen.getvalue()) == terminal
