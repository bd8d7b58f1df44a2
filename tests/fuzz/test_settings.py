"""Damaged configuration files and bundle manifests end in the errors that name the file, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicom_node.base.config import load_configuration
from dicom_node.base.errors import ConfigurationError
from prima_core.base.errors import BundleError
from prima_core.bundle import read_manifest
from support.fuzzing import damaged, examples

EXAMPLE = (Path(__file__).parents[2] / "deploy/node.example.toml").read_bytes()

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 1e308, "1" * 70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@st.composite
def changed(draw: Callable[[st.SearchStrategy[Any]], Any], document: Any) -> Any:
    """The document with some values in it replaced, taken out or added."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in places(document) if place]))
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        match draw(st.integers(0, 2)):
            case 0:
                holder[path[-1]] = draw(values)
            case 1:
                del holder[path[-1]]
            case _ if isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = draw(values)
            case _:
                holder.append(draw(values))
        if not document:
            break
    return document


@examples(13)
@example(b"a = " + b"[" * 2000)
@example(b"a." * 2000 + b"b = 1")
@given(damaged(EXAMPLE) | st.binary(max_size=60))
def test_a_configuration_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(data)
    with suppress(ConfigurationError):
        load_configuration(path)


@cache
def frozen() -> Any:
    return json.loads(load_configuration(Path(__file__).parents[2] / "deploy/node.example.toml").to_json())


@examples(20)
@example("[" * 2000)
@example({"destinations": [1]})
@given(st.deferred(lambda: changed(frozen())))
def test_a_frozen_configuration(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "node.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with suppress(ConfigurationError):
        load_configuration(path)


@pytest.fixture(scope="module")
def manifest() -> Any:
    return json.loads((Path(__file__).parents[2] / "dicom_node/demo/bundle/bundle.json").read_bytes())


@examples(20)
@given(data=st.data())
def test_a_manifest(tmp_path: Path, manifest: Any, data: st.DataObject) -> None:
    whole = json.dumps(manifest).encode()
    written = data.draw(changed(manifest).map(lambda one: json.dumps(one).encode()) | damaged(whole))
    (tmp_path / "bundle.json").write_bytes(written)
    with suppress(BundleError):
        read_manifest(tmp_path)
