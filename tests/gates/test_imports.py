"""The borders between packages and stages, read from the source by `ast`; each rule has a planted violation.

Does not see imports by string (importlib).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dicom_node", "prima_core", "training")
STAGES = ("intake", "reporting", "sending", "worklist", "console", "audit")
HEAVY = {"torch", "monai", "transformers", "ray"}
# What brings torch along; only the worker, the model commands and the demo may load it, and late.
BRINGS_TORCH = {
    "prima_core.prima",
    "prima_core.volume_tokenizer",
    "prima_core.sequence_vit",
    "prima_core.study_vit",
    "prima_core.task_heads",
    "prima_core.name_encoder",
    "prima_core.vit_input",
    "prima_core.base.attention",
    "prima_core.base.device",
    "prima_core.import_prima",
    "prima_core.random_weights",
    "prima_core.explanation",
    "prima_core.key_slices",
    "dicom_node.stages",
    "dicom_node.explaining",
    "training",
}
OF_THE_WORKER = {"dicom_node.stages", "dicom_node.explaining"}  # which it alone loads, and admin commands late

Import = tuple[str, int, bool]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> Iterator[Import]:
    """(module, line, inside a function) of everything imported at run time."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in inside
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno, id(node) in inside
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, id(node) in inside


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def violations(module: str, source: str) -> list[str]:
    found = []
    for imported, line, in_function in imports(source):
        if reason := forbidden(module, imported):
            found.append(f"{module}:{line} imports {imported}: {reason}")
        late_allowed = imported.split(".")[0] in HEAVY or any(within(imported, name) for name in BRINGS_TORCH)
        late_allowed = late_allowed or imported.startswith("prima_core.bundle")  # beside build_model, which needs torch
        if in_function and not (late_allowed or module.startswith("prima_core")):
            found.append(f"{module}:{line} imports {imported} inside a function")
        early = not in_function and (imported.split(".")[0] in HEAVY or imported in BRINGS_TORCH)
        if early and module.startswith("dicom_node") and module not in OF_THE_WORKER:
            found.append(f"{module}:{line} imports {imported} at the top: it would load torch")
    return found


def forbidden(module: str, imported: str) -> str | None:
    top, target = module.split(".", maxsplit=1)[0], imported.split(".", maxsplit=1)[0]
    if top == "prima_core" and target in ("dicom_node", "training"):
        return "prima_core stands alone"
    if top == "training" and target == "dicom_node":
        return "training rests on prima_core only"
    if top == "dicom_node" and target == "training" and not module.startswith("dicom_node.admin"):
        return "only admin commands start training"
    if top != "dicom_node" or target != "dicom_node":
        return None
    return forbidden_inside(module, imported)


def forbidden_inside(module: str, imported: str) -> str | None:
    parts = module.split(".")
    folder = parts[1] if len(parts) > 1 else ""
    own = imported == "dicom_node" or within(imported, f"dicom_node.{folder}")
    if folder == "base" and not own:
        return "base imports nothing internal"
    if folder == "jobs" and not (own or within(imported, "dicom_node.base")):
        return "jobs import base only; stages are handed over as functions"
    if folder in STAGES and not (
        own or within(imported, "dicom_node.base") or within(imported, "dicom_node.jobs.registry")
    ):
        return "a stage imports base, its own folder and jobs.registry"
    return None


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_every_module_keeps_the_borders() -> None:
    assert [v for path in sources() for v in violations(module_name(path), path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("prima_core.scope", "from dicom_node.base import config"),
        ("training.heads", "import dicom_node.service"),
        ("dicom_node.jobs.worker", "from dicom_node.reporting import document"),
        ("dicom_node.base.types", "from dicom_node.jobs.registry import Registry"),
        ("dicom_node.intake.spool", "from dicom_node.jobs import tables"),
        ("dicom_node.sending.outbox", "from dicom_node.reporting.write import write_report"),
        ("dicom_node.service", "import training"),
        ("dicom_node.audit.collector", "from dicom_node.intake.spool import Spool"),
        ("dicom_node.admin.main", "import torch"),
        ("dicom_node.service", "from dicom_node.stages import load_worker"),
        ("dicom_node.sending.outbox", "def f():\n    import json"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert violations(module, source)


def test_no_import_cycles() -> None:
    graph = {module_name(path): set[str]() for path in sources()}
    for path in sources():
        for imported, _, in_function in imports(path.read_text()):
            if imported in graph and not in_function and imported != module_name(path):
                graph[module_name(path)].add(imported)
    assert find_cycle(graph) is None


def test_a_planted_cycle_is_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for following in sorted(graph[node]):
            if cycle := visit(following, [*path, node]):
                return cycle
        done.add(node)
        return None

    for start in sorted(graph):
        if cycle := visit(start, []):
            return cycle
    return None
