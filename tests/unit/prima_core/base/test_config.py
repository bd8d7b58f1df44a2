"""The architecture's JSON form: a round trip, and every deviation refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from prima_core.base.config import Architecture, HeadShape, from_json, to_json
from prima_core.base.errors import BundleError
from prima_core.random_weights import demo, released


def changed(path: str, value: Any) -> dict[str, Any]:
    document: Any = json.loads(json.dumps(to_json(demo())))
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[int(name) if name.isdecimal() else name]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return dict(document)


@pytest.mark.parametrize("architecture", [demo(), released()])
def test_round_trip(architecture: Architecture) -> None:
    assert from_json(Architecture, json.loads(json.dumps(to_json(architecture))), "architecture") == architecture


def test_token_width_is_the_published_one() -> None:
    assert released().tokenizer.latent_shape == (2, 8, 8)
    assert released().tokenizer.token_width == 289


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sequence_vit.depth", 3, "sequence_vit: unknown key 'depth'"),
        ("sequence_vit.transformer.depth", KeyError, "sequence_vit.transformer: missing key 'depth'"),
        ("sequence_vit.transformer.depth", "2", "sequence_vit.transformer.depth: expected int"),
        ("sequence_vit.transformer.depth", True, "depth: expected int"),
        ("sequence_vit.transformer.depth", -1, "depth: negative"),
        ("tokenizer.channels", [], "tokenizer.channels: expected a list"),
        ("tokenizer.channels", [16], "differ in length"),
        ("tokenizer.downsample", [[2, 4, 1], [2, 2, 1, 0]], r"downsample\[0\]: expected 4 values"),
        ("heads.0.task", "prognosis", "unknown task 'prognosis'"),
        ("heads.0.source", "image", "unknown source 'image'"),
        ("heads.0.source", "clip", "diagnosis head input and clip vector differ: 256 and 32"),
        ("sequence_vit.transformer.width", 288, "sequence_vit width and token width differ"),
        ("sequence_vit", 5, "sequence_vit: expected an object"),
    ],
)
def test_deviations_are_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        from_json(Architecture, changed(path, value), "architecture")


def test_an_output_is_named_once() -> None:
    twice = HeadShape("diagnosis", demo().heads[0].widths, ("glioma", "glioma"))
    with pytest.raises(BundleError, match="named twice"):
        replace(demo(), heads=(twice,))


def test_a_head_reads_the_study_embedding_where_an_older_bundle_does_not_say() -> None:
    assert from_json(Architecture, changed("heads.0.source", KeyError), "architecture") == demo()
