"""Kept latents: what is not encoded twice, the same numbers to the last bit, and whatever may ail the folder.

Counts patches that go through the tokenizer. Does not cover a node that runs; `test_models_in_use.py` has its models.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from dicom_node import latent_cache as module
from dicom_node.base.config import Configuration, IntakeSection, ModelSection, NodeSection, RetentionSection
from dicom_node.base.events import Event
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.registry import Registry
from dicom_node.latent_cache import LatentCache, kept_latents, latent_cache
from dicom_node.models_in_use import ModelsInUse
from dicom_node.stages import StudyStages
from prima_core.base.types import PreparedSeries, PreparedStudy, StudyPrediction
from prima_core.bundle import build_model, load_bundle
from prima_core.explanation import Explainer
from prima_core.prima import Prima
from prima_core.volume_tokenizer import VolumeTokenizer
from support.bundles import new_bundle, new_heads

DAY = 86400.0


def series(number: int, count: int = 5) -> PreparedSeries:
    """Random patches; the thin axis goes with the number."""
    axis = number % 3
    return PreparedSeries(
        series_instance_uid=f"1.2.3.{number}",
        name=f"SERIES_{number}",
        patches=np.random.default_rng(number).random([count, *(4 if a == axis else 32 for a in range(3))], np.float32),
        token_ids=np.array([*range(count), 0]),
        coordinates=np.arange(3 * (count + 1)).reshape(-1, 3) * 32,
        thin_axis=axis,
        tokens_total=20,
        sop_instance_uids=(f"1.2.3.{number}.1",),
    )


def study(*numbers: int) -> PreparedStudy:
    return PreparedStudy("1.2.3", "MR HEAD", tuple(map(series, numbers)))


@pytest.fixture
def configuration(tmp_path: Path, random_bundle: Path) -> Configuration:
    model = ModelSection(bundle=random_bundle, device="cpu")
    return Configuration(node=NodeSection(storage=tmp_path), model=model, intake=IntakeSection(reserve_bytes=0))


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def plain(random_bundle: Path, request: pytest.FixtureRequest) -> Prima:
    """A model that keeps nothing."""
    torch.set_num_threads(1)
    return build_model(load_bundle(random_bundle), "cpu", request.param)


@pytest.fixture
def model(plain: Prima, configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> Prima:
    """The same model with a cache, for one test."""
    assert configuration.model.bundle is not None
    manifest = load_bundle(configuration.model.bundle).manifest
    monkeypatch.setattr(plain, "store", latent_cache(configuration, manifest, plain.runtime))
    return plain


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Patches of every series that is encoded."""
    counts: list[int] = []
    encode = VolumeTokenizer.encode

    def counting(self: VolumeTokenizer, sets: Sequence[Any], *rest: Any, **named: Any) -> list[torch.Tensor]:
        counts.extend(len(one.patches) for one in sets)
        return encode(self, sets, *rest, **named)

    monkeypatch.setattr(VolumeTokenizer, "encode", counting)
    return counts


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    found: list[Event] = []
    monkeypatch.setattr(module, "log", lambda event, *_, **__: found.append(event))
    return found


def cache_of(model: Prima) -> LatentCache:
    assert isinstance(model.store, LatentCache)
    return model.store


def files(configuration: Configuration) -> list[Path]:
    return sorted(configuration.node.latents.iterdir()) if configuration.node.latents.exists() else []


def same(one: StudyPrediction, other: StudyPrediction) -> bool:
    logits = [one.diagnosis == other.diagnosis, one.referral == other.referral, one.priority == other.priority]
    return all(logits) and np.array_equal(one.study_embedding, other.study_embedding)


def test_a_late_series_encodes_only_itself(model: Prima, encoded: list[int]) -> None:
    model.predict_one(study(1, 2))
    assert encoded == [5, 5]
    late = PreparedStudy("1.2.3", "MR HEAD", (series(1), series(7, count=3), series(2)))
    model.predict_one(late)
    assert encoded == [5, 5, 3]


def test_a_study_sent_again_and_its_explanation_encode_nothing(model: Prima, encoded: list[int]) -> None:
    model.predict_one(study(1, 2))
    model.predict_one(study(1, 2))
    Explainer(model, study(1, 2))
    assert encoded == [5, 5]


def test_a_corrected_identifier_encodes_nothing(model: Prima, encoded: list[int]) -> None:
    model.predict_one(study(1, 2))
    renamed = replace(study(1, 2), study_instance_uid="9.9", description="MR BRAIN")
    corrected = tuple(replace(one, series_instance_uid="9.9.1", name="T1") for one in renamed.series)
    model.predict_one(replace(renamed, series=corrected))
    assert encoded == [5, 5]


def test_the_numbers_are_the_same_to_the_last_bit(
    model: Prima, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study(1, 2, 3)
    model.predict_one(study(3, 1))  # in other company, in another order
    kept = model.predict_one(whole)
    assert encoded == [5, 5, 5]
    latents = model.latents([whole])
    monkeypatch.setattr(model, "store", None)
    assert same(model.predict_one(whole), kept)
    assert all(torch.equal(one, other) for one, other in zip(model.latents([whole]), latents, strict=True))


def test_one_voxel_or_another_thin_axis_is_another_series(model: Prima, encoded: list[int]) -> None:
    model.predict_one(study(1))
    changed = series(1)
    changed.patches[2, 3, 1, 9] += np.float32(1e-7)
    model.predict_one(replace(study(1), series=(changed,)))
    cube = np.zeros((2, 4, 32, 32), np.float32)
    store = cache_of(model)
    flat = replace(series(1, 2), patches=cube, thin_axis=0)
    store.keep(flat, np.ones((2, 2, 2, 8, 8), np.float32))
    assert store.find(flat) is not None
    assert store.find(replace(flat, thin_axis=1)) is None
    assert encoded == [5, 5]


@pytest.mark.parametrize("damage", ["first", "digest", "header", "last", "cut", "empty", "other"])
def test_a_damaged_entry_is_deleted_and_computed_again(
    model: Prima, configuration: Configuration, encoded: list[int], events: list[Event], damage: str
) -> None:
    before = model.predict_one(study(1))
    model.predict_one(study(2))
    assert len(files(configuration)) == 2
    entry = cache_of(model)._path(series(1))
    content = bytearray(entry.read_bytes())
    place = {"first": 0, "digest": 20, "header": 42, "last": -1}
    if damage in place:
        content[place[damage]] ^= 1
    changed = {"cut": content[:-7], "empty": b"", "other": cache_of(model)._path(series(2)).read_bytes()}
    entry.write_bytes(changed.get(damage, content))
    assert same(model.predict_one(study(1)), before)
    assert (encoded, events) == ([5, 5, 5], [Event.LATENTS_DAMAGED])
    assert same(model.predict_one(study(1)), before), "it was kept anew"
    assert encoded == [5, 5, 5]


def test_a_full_disk_costs_the_cache_and_nothing_else(
    model: Prima,
    configuration: Configuration,
    encoded: list[int],
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = model.predict_one(study(1))
    with monkeypatch.context() as full:

        def no_room(path: str, flags: int, *_: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device", path)

        full.setattr(os, "open", no_room)
        model.predict_one(study(2))
        model.predict_one(study(3))
        assert files(configuration) == [], "images need the room more"
        assert same(model.predict_one(study(1)), before)
    assert events == [Event.LATENTS_NOT_KEPT], "said once"
    model.predict_one(study(1))
    model.predict_one(study(1))
    assert encoded == [5, 5, 5, 5, 5]


def test_nothing_half_written_stays(
    model: Prima, configuration: Configuration, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", fail)
    model.predict_one(study(1))
    assert files(configuration) == []
    assert events == [Event.LATENTS_NOT_KEPT]


def test_another_bundle_or_precision_finds_nothing(
    configuration: Configuration, random_bundle: Path, tmp_path: Path
) -> None:
    one, new = series(1), load_bundle(new_bundle(tmp_path / "new", seed=1))
    heads = load_bundle(new_heads(tmp_path / "heads", random_bundle))  # the same tokenizer
    models = [
        (bundle.manifest, build_model(bundle, "cpu", precision).runtime)
        for bundle in (load_bundle(random_bundle), new, heads)
        for precision in ("fp32", "bf16")
    ]
    caches = [latent_cache(configuration, *each) for each in models]
    for number, cache in enumerate(caches):
        assert cache is not None
        assert cache.find(one) is None
        cache.keep(one, np.full((5, 2, 8, 2, 8), number, np.float32))
    assert len(files(configuration)) == len(models)
    again = latent_cache(configuration, *models[0])
    assert again is not None
    assert np.array_equal(again.find(one), np.zeros((5, 2, 8, 2, 8)))  # type: ignore[arg-type]


def test_only_a_model_that_is_given_a_cache_has_one(random_bundle: Path) -> None:
    """`infer` and `replay` compute: a proof must not rest on what was kept."""
    assert build_model(load_bundle(random_bundle), "cpu", "fp32").store is None


def test_it_can_be_switched_off(configuration: Configuration, plain: Prima, random_bundle: Path) -> None:
    off = configuration.model_copy(update={"model": ModelSection(bundle=random_bundle, keep_latents_bytes=0)})
    assert latent_cache(off, load_bundle(random_bundle).manifest, plain.runtime) is None


def kept(folder: Path, most_bytes: int = 1 << 20, read_only: bool = False) -> LatentCache:
    return LatentCache(folder, b"context", most_bytes=most_bytes, most_seconds=30 * DAY, read_only=read_only)


LATENTS = np.random.default_rng(0).random((5, 2, 2, 8, 8), np.float32)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = kept(tmp_path, most_bytes=4 * (LATENTS.nbytes + 100))
    for age, number in enumerate([1, 2, 3, 4]):
        cache.keep(series(number), LATENTS)
        os.utime(cache._path(series(number)), (0, time.time() - 1000 + age))
    assert cache.find(series(1)) is not None
    cache.keep(series(5), LATENTS)
    assert [number for number in range(1, 6) if cache.find(series(number)) is None] == [2, 3]
    sizes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sizes <= 4 * (LATENTS.nbytes + 100)


def test_an_entry_larger_than_all_room_is_not_kept(tmp_path: Path) -> None:
    cache = kept(tmp_path, most_bytes=1000)
    cache.keep(series(1), LATENTS)
    assert not list(tmp_path.iterdir())


def test_what_is_old_too_much_or_unfinished_is_tidied_away(tmp_path: Path) -> None:
    cache = kept(tmp_path)
    for number in (1, 2, 3):
        cache.keep(series(number), LATENTS)
    month_ago = time.time() - 31 * DAY
    os.utime(cache._path(series(1)), (month_ago, month_ago))
    abandoned, recent = tmp_path / ".a.part", tmp_path / ".b.part"
    for part in (abandoned, recent):
        part.write_bytes(b"x")
    os.utime(abandoned, (month_ago, month_ago))
    cache.tidy()
    assert cache.find(series(1)) is None
    assert cache.find(series(2)) is not None
    assert (abandoned.exists(), recent.exists()) == (False, True)
    small = kept(tmp_path, most_bytes=LATENTS.nbytes + 100)
    assert len([number for number in (2, 3) if small.find(series(number)) is not None]) == 1


def test_where_images_need_the_disk_nothing_is_kept(tmp_path: Path) -> None:
    crowded = False
    cache = LatentCache(tmp_path, b"", most_bytes=1 << 20, most_seconds=DAY, crowded=lambda: crowded)
    for number in (1, 2):
        cache.keep(series(number), LATENTS)
    assert len(list(tmp_path.iterdir())) == 2
    crowded = True
    cache.keep(series(3), LATENTS)
    assert list(tmp_path.iterdir()) == []


ENOUGH: dict[str, Any] = {"intake": IntakeSection(reserve_bytes=0)}
RESERVED: dict[str, Any] = {"intake": IntakeSection(reserve_bytes=1 << 60)}
MARKED: dict[str, Any] = {**ENOUGH, "retention": RetentionSection(min_free_bytes=1 << 60)}


@pytest.mark.parametrize(("sections", "stays"), [(ENOUGH, True), (RESERVED, False), (MARKED, False)])
def test_the_reserve_and_the_mark_of_the_disk_are_looked_at(
    tmp_path: Path, sections: dict[str, Any], stays: bool
) -> None:
    kept(tmp_path / "latents").keep(series(1), LATENTS)
    found = kept_latents(Configuration(node=NodeSection(storage=tmp_path), **sections))
    assert found is not None
    assert (found.give_way(), any((tmp_path / "latents").iterdir())) == (not stays, stays)


def test_what_was_kept_before_the_model_went_to_a_cluster_is_tidied_away(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(configuration.node.latents).keep(series(1), LATENTS)
    [entry] = files(configuration)
    os.utime(entry, (0, 0))
    models = SimpleNamespace(active=SimpleNamespace(cache=None))
    stages = StudyStages(configuration, cast(Registry, None), cast(ModelsInUse, models), threading.Event(), Pulse())
    for job in (stages._explaining, stages._shadow):
        monkeypatch.setattr(job, "run_one", lambda: False)
    stages.spare()
    assert files(configuration) == []


def test_entries_are_private_and_say_nothing_of_the_patient(tmp_path: Path) -> None:
    cache = kept(tmp_path / "latents")
    named = replace(series(1), name="MUELLER^ANNA", series_instance_uid="1.2.840.77")
    cache.keep(named, LATENTS)
    [entry] = (tmp_path / "latents").iterdir()
    assert (tmp_path / "latents").stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600
    assert len(entry.name) == 64
    assert not any(word in entry.read_bytes() for word in (b"MUELLER", b"1.2.840.77", b"1.2.3"))


def test_read_only_uses_and_changes_nothing(tmp_path: Path) -> None:
    kept(tmp_path).keep(series(1), LATENTS)
    [entry] = tmp_path.iterdir()
    os.utime(entry, (0, 0))
    reader = kept(tmp_path, read_only=True)
    assert np.array_equal(reader.find(series(1)), LATENTS)  # type: ignore[arg-type]
    reader.keep(series(2), LATENTS)
    assert ([path.name for path in tmp_path.iterdir()], entry.stat().st_mtime) == ([entry.name], 0)
    entry.write_bytes(b"damaged")
    assert reader.find(series(1)) is None
    assert entry.exists()


def test_latents_of_bf16_take_half_the_room_and_come_back_exactly(tmp_path: Path) -> None:
    cache = kept(tmp_path)
    short = torch.from_numpy(LATENTS).bfloat16().float().numpy()
    cache.keep(series(1), short)
    cache.keep(series(2), LATENTS)
    sizes = [cache._path(series(number)).stat().st_size for number in (1, 2)]
    assert sizes[0] - 61 == (sizes[1] - 61) // 2
    assert np.array_equal(cache.find(series(1)), short)  # type: ignore[arg-type]
    assert np.array_equal(cache.find(series(2)), LATENTS)  # type: ignore[arg-type]


def test_latents_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    broken = LATENTS.copy()
    broken[1, 0, 0, 0, 0] = np.nan
    kept(tmp_path).keep(series(1), broken)
    assert not list(tmp_path.iterdir())
