"""What training commands say when they cannot go on."""

from __future__ import annotations

import pytest
import typer

from training.base.command import explained
from training.base.errors import BadTrainingData


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BadTrainingData("labels.csv: no such study"), "error: labels.csv: no such study"),
        (
            ModuleNotFoundError("No module named 'accelerate'", name="accelerate"),
            "error: accelerate is not installed; training needs `pip install 'prima-node[training]'`",
        ),
    ],
)
def test_an_error_that_a_person_can_act_on_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, explained():
        raise error
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [said]
