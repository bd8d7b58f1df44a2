"""What a bundle must be before it is used: fit for the site, evaluated; and what names its encoder."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.bundles import check_fits, encoder_of, read_evaluation
from prima_core.bundle import read_manifest
from support.bundles import evaluated, new_bundle, new_heads


def test_an_evaluation_counts_for_its_own_bundle_alone(tmp_path: Path, random_bundle: Path) -> None:
    folder = evaluated(Path(shutil.copytree(random_bundle, tmp_path / "bundle")))
    found = read_evaluation(folder, read_manifest(folder).id)
    digest = hashlib.sha256((folder / "evaluation.json").read_bytes()).hexdigest()
    assert (found.studies, found.digest) == (12, digest)
    with pytest.raises(PermanentError, match="not of bundle other-1"):
        read_evaluation(folder, "other-1")


@pytest.mark.parametrize("studies", [0, -1, True, "12", 1.5, None])
def test_an_evaluation_on_no_study_is_none(tmp_path: Path, random_bundle: Path, studies: object) -> None:
    folder = evaluated(Path(shutil.copytree(random_bundle, tmp_path / "bundle")), studies=studies)
    with pytest.raises(PermanentError, match="no study"):
        read_evaluation(folder, read_manifest(folder).id)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_record_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "evaluation.json").write_bytes(content)
    with pytest.raises(PermanentError, match="no evaluation record"):
        read_evaluation(tmp_path, "a-1")


@pytest.mark.parametrize(
    ("worklist", "key"),
    [
        ({"mapping": {"none": "routine"}}, r"worklist\.mapping"),
        ({"rules": [{"name": "r", "findings": ["no_such_finding"], "level": "urgent"}]}, r"worklist\.rules"),
    ],
)
def test_a_bundle_must_fit_the_sites_rules(random_bundle: Path, worklist: dict[str, Any], key: str) -> None:
    manifest = read_manifest(random_bundle)
    check_fits(Configuration(), manifest)
    with pytest.raises(ConfigurationError, match=key):
        check_fits(Configuration.model_validate({"worklist": worklist}), manifest)


def test_heads_are_no_part_of_the_encoder(tmp_path: Path, random_bundle: Path) -> None:
    original, heads = read_manifest(random_bundle), read_manifest(new_heads(tmp_path / "heads", random_bundle))
    other = read_manifest(new_bundle(tmp_path / "other", seed=1))
    assert heads.id != original.id
    assert encoder_of(heads) == encoder_of(original) != encoder_of(other)
