"""Every association that is opened loses no answer to pynetdicom's own reactor (`base/reactor.py`): read by `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: How many in which file. The retraining tools must not import the node: an answer that is lost there costs a time-out,
#: is told, and the command can be run again. The other file provokes the loss.
ELSEWHERE = {"training/prepare/c_move.py": 1, "tests/unit/dicom_node/base/test_reactor.py": 1}


def unguarded(source: str) -> Iterator[int]:
    """Lines that open an association without the handler."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "associate":
            handlers = {word.id for key in node.keywords for word in ast.walk(key) if isinstance(word, ast.Name)}
            if not handlers & {"CLIENT", "WITHOUT_LOSS"}:
                yield node.lineno


def test_no_association_is_opened_that_may_lose_an_answer() -> None:
    files = [path for folder in ("dicom_node", "training", "tests") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): len(list(unguarded(path.read_text()))) for path in files}
    assert {path: count for path, count in found.items() if count} == ELSEWHERE


def test_one_without_the_handler_is_found() -> None:
    source = "entity.associate(host, port)\nentity.associate(host, port, evt_handlers=[WITHOUT_LOSS])\n"
    assert list(unguarded(source)) == [1]
