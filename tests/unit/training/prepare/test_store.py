"""The store gives back what was put in, names what is damaged, and opens whatever ended its writer."""

from __future__ import annotations

import errno
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.prepared_studies import PSEUDONYMS, random_study
from training.base.cohort import StudyRecord
from training.base.errors import BadTrainingData, NoSpace
from training.prepare import store as store_module
from training.prepare.store import (
    PATCHES,
    TOKENS,
    StoreWriter,
    StudyEntry,
    TokenizedSeries,
    TokenizedStudy,
    TokenStore,
)

ABOUT = {"encoder": {"sha256": "00"}}


def entry(number: int, **changes: Any) -> StudyEntry:
    found = random_study(number)
    draw = np.random.default_rng(number)
    series = tuple(
        TokenizedSeries(
            one.name,
            draw.standard_normal((len(one.patches), 2, 8, 8, 2)).astype(np.float16),
            one.token_ids,
            one.coordinates,
            one.thin_axis,
        )
        for one in found.prepared.series
    )
    content = TokenizedStudy(found.record.study, found.prepared.description, series)
    return replace(StudyEntry(found.record, content, found.labels, found.report, found.truth), **changes)


def write(folder: Path, numbers: range, a_shard: int = 3) -> None:
    with StoreWriter(folder, TOKENS, ABOUT, studies_a_shard=a_shard) as writer:
        for number in numbers:
            writer.add(entry(number))


def name(number: int) -> str:
    return PSEUDONYMS.study(str(number))


def test_studies_come_back_as_written(tmp_path: Path) -> None:
    write(tmp_path, range(7))
    store = TokenStore(tmp_path)
    assert len(list((tmp_path / "shards").iterdir())) == 3
    assert [record.study for record in store.records] == sorted(map(name, range(7)))
    for number in range(7):
        put, got = entry(number), store.read(name(number))
        assert isinstance(put.content, TokenizedStudy)
        assert (got.study, got.description) == (put.content.study, "MRI BRAIN")
        for a, b in zip(put.content.series, got.series, strict=True):
            assert (a.name, a.thin_axis) == (b.name, b.thin_axis)
            for part in ("latents", "token_ids", "coordinates"):
                np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
                assert getattr(a, part).dtype == getattr(b, part).dtype
        assert [(size.patches, size.tokens) for size in store.sizes(name(number))] == [(6, 7), (4, 5)]
        assert store.labels()[name(number)] == put.labels
        assert store.reports()[name(number)] == put.report
    assert set(store.truth()) == {name(number) for number in (1, 3, 5)}
    assert store.records[0] in [entry(number).record for number in range(7)]
    store.verify()


def test_rows_follow_the_tokens(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    series = TokenStore(tmp_path).read(name(0)).series[0]
    assert series.rows.tolist() == [0, 1, 2, 3, 4, 5, 0]


def test_an_open_store_travels_to_other_processes(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    store = TokenStore(tmp_path)
    store.read(name(0))
    assert pickle.loads(pickle.dumps(store)).read(name(1)).study == name(1)


def test_patches_come_back_and_the_kinds_are_told_apart(tmp_path: Path) -> None:
    patches = np.random.default_rng(0).random((5, 4, 32, 32)).astype(np.float16)
    with StoreWriter(tmp_path, PATCHES, {"seed": 0}) as writer:
        writer.add(entry(0, content=patches))
        with pytest.raises(BadTrainingData, match="the store takes patches"):
            writer.add(entry(1))
    store = TokenStore(tmp_path)
    np.testing.assert_array_equal(store.patches(name(0)), patches)
    with pytest.raises(BadTrainingData, match="a store of patches, not of tokens"):
        store.read(name(0))


@pytest.mark.parametrize("file", ["index.jsonl", "shards.jsonl", "reports.jsonl", "truth.jsonl"])
def test_a_line_that_was_cut_short_is_no_line(tmp_path: Path, file: str) -> None:
    write(tmp_path, range(2))
    with (tmp_path / file).open("ab") as torn:
        torn.write(b'{"study": "ab')
    assert len(TokenStore(tmp_path)) == 2
    write(tmp_path, range(2, 4))
    store = TokenStore(tmp_path)
    assert len(store) == len(store.labels()) == len(store.reports()) == 4
    assert len(store.truth()) == 2


@pytest.mark.parametrize("cut", ["shards", "shards.jsonl", "reports.jsonl", "truth.jsonl", "labels.csv", "index.jsonl"])
def test_a_writer_killed_at_any_step_leaves_a_store_that_goes_on(
    tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def replace_file(path: Path, data: bytes, original: Any = store_module._replace) -> None:
        original(path, data)
        if path.parent.name == cut:
            raise Killed

    def append(writer: StoreWriter, file: str, lines: Any, original: Any = StoreWriter._append) -> None:
        original(writer, file, lines)
        if file == cut:
            raise Killed

    def labels(writer: StoreWriter, original: Any = StoreWriter._write_labels) -> None:
        original(writer)
        if cut == "labels.csv":
            raise Killed

    write(tmp_path, range(3))
    with monkeypatch.context() as patched:
        writer = StoreWriter(tmp_path, TOKENS, ABOUT, studies_a_shard=3)
        patched.setattr(store_module, "_replace", replace_file)
        patched.setattr(StoreWriter, "_append", append)
        patched.setattr(StoreWriter, "_write_labels", labels)
        writer.add(entry(3))
        writer.add(entry(4))
        with pytest.raises(Killed):
            writer.add(entry(5))
        writer._lock.close()
    assert len(TokenStore(tmp_path)) == (6 if cut == "index.jsonl" else 3)
    with StoreWriter(tmp_path, TOKENS, ABOUT, studies_a_shard=3) as writer:
        for number in range(6):
            if name(number) not in writer.studies:
                writer.add(entry(number))
    store = TokenStore(tmp_path)
    assert len(store) == len(store.labels()) == len(store.reports()) == 6
    assert len((tmp_path / "reports.jsonl").read_text().splitlines()) == 6
    assert len(list((tmp_path / "shards").iterdir())) == len((tmp_path / "shards.jsonl").read_text().splitlines()) == 2
    store.verify()
    assert store.read(name(5)).study == name(5)


def test_a_missing_or_cut_shard_is_named_when_the_store_is_opened(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    shard = tmp_path / "shards" / "000001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(BadTrainingData, match=r"shard 000001\.safetensors has \d+ bytes instead of"):
        TokenStore(tmp_path)
    shard.unlink()
    with pytest.raises(BadTrainingData, match=r"shard 000001\.safetensors is missing"):
        TokenStore(tmp_path)


def test_an_altered_shard_is_named_by_verify(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    shard = tmp_path / "shards" / "000000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    store = TokenStore(tmp_path)
    with pytest.raises(BadTrainingData, match=r"damaged shards: 000000\.safetensors;"):
        store.verify()


def test_a_damaged_header_is_named_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    shard = tmp_path / "shards" / "000000.safetensors"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(BadTrainingData, match=r"000000\.safetensors is damaged"):
        TokenStore(tmp_path).read(name(0))


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    for file in ("index.jsonl", "shards.jsonl"):
        text = (tmp_path / file).read_text()
        (tmp_path / file).write_text(text.replace("000000.safetensors", "../../x.safetensors"))
    with pytest.raises(BadTrainingData, match="its shard is unknown"):
        TokenStore(tmp_path)


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, original: Any = store_module._replace) -> None:
        if path.name == "000001.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, data)

    monkeypatch.setattr(store_module, "_replace", full)
    with pytest.raises(NoSpace, match="3 studies are kept, 3 are prepared again"):
        write(tmp_path, range(9))
    assert len(TokenStore(tmp_path)) == 3
    monkeypatch.undo()
    write(tmp_path, range(3, 9))
    assert len(TokenStore(tmp_path)) == 9


def test_a_store_takes_only_studies_made_the_same_way(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    with pytest.raises(BadTrainingData, match="another encoder"):
        StoreWriter(tmp_path, TOKENS, {"encoder": {"sha256": "01"}})
    with pytest.raises(BadTrainingData, match="another encoder"):
        StoreWriter(tmp_path, PATCHES, {})


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, TOKENS, ABOUT), pytest.raises(BadTrainingData, match="another process"):
        StoreWriter(tmp_path, TOKENS, ABOUT)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    series = TokenizedSeries("x", np.full((1, 2, 2, 8, 8), np.inf, np.float16), np.zeros(1, int), np.zeros((1, 3)), 0)
    with StoreWriter(tmp_path, TOKENS, ABOUT) as writer:
        writer.add(entry(0))
        with pytest.raises(BadTrainingData, match="twice"):
            writer.add(entry(0))
        with pytest.raises(BadTrainingData, match="float16"):
            writer.add(entry(1, content=TokenizedStudy(name(1), "", (series,))))
        with pytest.raises(BadTrainingData, match="no pseudonym"):
            writer.add(StudyEntry(StudyRecord("1.2.840.113619", "a" * 16), entry(2).content))
    assert len(TokenStore(tmp_path)) == 1


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="not a store"):
        TokenStore(tmp_path)
    write(tmp_path, range(1))
    store = TokenStore(tmp_path)
    with pytest.raises(BadTrainingData, match="is not in the store"):
        store.read("f" * 16)


def test_where_findings_lie_comes_back(tmp_path: Path) -> None:
    plain = entry(1)
    assert isinstance(plain.content, TokenizedStudy)
    series = [
        replace(one, shares=np.linspace(0, 1, 2 * len(one.latents)).reshape(-1, 2).astype(np.float16))
        for one in plain.content.series
    ]
    placed = replace(plain.content, series=tuple(series), located=("cyst", "oedema"))
    nowhere = replace(
        plain.content,
        study=name(2),
        series=tuple(replace(one, shares=np.empty((len(one.latents), 0), np.float16)) for one in plain.content.series),
        located=(),
    )
    with StoreWriter(tmp_path, TOKENS, ABOUT) as writer:
        writer.add(replace(plain, content=placed))
        writer.add(replace(entry(2), content=nowhere))
        writer.add(entry(3))
    store = TokenStore(tmp_path)
    assert [store.located(name(n)) for n in (1, 2, 3)] == [("cyst", "oedema"), (), None]
    for written, read in zip(placed.series, store.read(name(1)).series, strict=True):
        np.testing.assert_array_equal(read.shares, written.shares)
    assert [one.shares.shape[1] for one in store.read(name(2)).series] == [0] * len(nowhere.series)  # type: ignore[union-attr]
    assert all(one.shares is None for one in store.read(name(3)).series)


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_shares_that_do_not_fit_are_refused(tmp_path: Path, columns: int | None) -> None:
    plain = entry(1)
    assert isinstance(plain.content, TokenizedStudy)
    series = tuple(
        replace(one, shares=None if columns is None else np.zeros((len(one.latents), columns), np.float16))
        for one in plain.content.series
    )
    with (
        StoreWriter(tmp_path, TOKENS, ABOUT) as writer,
        pytest.raises(BadTrainingData, match="shares do not fit"),
    ):
        writer.add(replace(plain, content=replace(plain.content, series=series, located=("cyst", "oedema"))))
