"""What training commands say when they cannot go on."""

from __future__ import annotations

import pytest
import typer

from training.base.command import explained
from training.base.errors import BadTrainingData


def test_a_wrong_import_of_our_own_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), explained():
        raise ModuleNotFoundError("No module named 'training.foo'", name="training.foo")


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
