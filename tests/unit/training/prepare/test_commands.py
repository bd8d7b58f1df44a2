"""`python -m training.prepare`: what the commands leave behind and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from prima_core.random_weights import demo, write_random_bundle
from support.dicom_factory import StudyFacts, write_study
from training.base.pseudonyms import load_or_create_key
from training.prepare.__main__ import app
from training.prepare.store import TokenStore


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def export(tmp_path: Path) -> Path:
    write_study(tmp_path / "in" / "a", StudyFacts(accession_number="A1"))
    write_study(tmp_path / "in" / "b", StudyFacts(description="MRI KNEE"))
    return tmp_path / "in"


def test_patches_then_tokens_from_a_folder(export: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("study,diagnosis.glioma\nA1,1\n")
    common = ["--key", tmp_path / "key", "--workers", 0, "--labels", tmp_path / "labels.csv"]
    code, text = run("dicom", export, "--out", tmp_path / "patches", *common)
    assert code == 0, text
    assert "1 studies added, 0 were there already" in text
    assert "1 not used: not a study of the head" in text
    bundle = write_random_bundle(tmp_path / "bundle", demo()).directory
    code, text = run("dicom", export, "--out", tmp_path / "store", *common, "--encoder", bundle)
    assert code == 0, text
    patches, tokens = TokenStore(tmp_path / "patches"), TokenStore(tmp_path / "store")
    assert patches.records == tokens.records
    [record] = tokens.records
    assert tokens.read(record.study).series[0].latents.shape[1] == 2
    assert tokens.labels()[record.study].diagnosis == {"glioma": True}
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_or_create_key(tmp_path / "key").key not in b"".join(
        path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()
    )
    assert run("verify", tmp_path / "store") == (0, "1 studies, all shards as they were written\n")
    shard = next((tmp_path / "store" / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    code, text = run("verify", tmp_path / "store")
    assert (code, "damaged shards" in text) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["dicom", "nowhere"], 1, "nowhere: not a folder"),
        (["bids", "nowhere"], 1, "no sub-*/anat"),
        (["mr-rate", "nowhere"], 1, "no mri/batchNN"),
        (["archive", "--studies", "nowhere", "--wado", "http://127.0.0.1:1"], 1, "nowhere: cannot be read"),
        (["archive", "--wado", "http://a", "--move", "A@b:1"], 2, "--wado or by --move"),
        (["archive"], 2, "--wado or by --move"),
        (["archive", "--move", "A@b", "--own", "T:1"], 2, "TITLE@HOST:PORT"),
        (["archive", "--move", "A@b:1"], 2, "TITLE:PORT"),
        (["dicom", ".", "--encoder", "nowhere"], 1, "neither a bundle nor"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got, text = run(*arguments, "--out", tmp_path / "store", "--key", tmp_path / "key", "--workers", 0)
    assert got == code
    assert message in text
