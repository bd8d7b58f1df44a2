"""Filling a store: the same in one process and in several, whatever single studies do; it goes on where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from prima_core.base.types import PreparedStudy
from prima_core.random_weights import demo, write_random_bundle
from prima_core.volume_tokenizer import PatchSet
from support.prepared_studies import RandomStudies, random_study
from training.base.errors import BadTrainingData, NoSpace
from training.prepare import run
from training.prepare.encode import Encoder, sample_patches
from training.prepare.run import fill_store
from training.prepare.store import TokenStore

HANG_SECONDS = 120


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    bundle = write_random_bundle(tmp_path_factory.mktemp("bundle") / "demo", demo())
    return Encoder(bundle.manifest.architecture.tokenizer, bundle.directory / "tokenizer.safetensors")


def test_the_tokens_are_those_of_the_encoder(tmp_path: Path, encoder: Encoder) -> None:
    result = fill_store(RandomStudies(2), tmp_path / "store", encoder, workers=0, quiet=True)
    assert (result.stored, result.before, result.refused) == (2, 0, {})
    store = TokenStore(tmp_path / "store")
    source = RandomStudies(2)
    tokenizer = encoder.load()
    for number in range(2):
        prepared: PreparedStudy = random_study(number).prepared
        expected = tokenizer.encode([PatchSet(one.patches, one.thin_axis) for one in prepared.series])
        found = store.read(source.study(str(number)))
        for one, latents, series in zip(prepared.series, expected, found.series, strict=True):
            assert series.latents.shape == (len(one.patches), 2, *(2 if a == one.thin_axis else 8 for a in range(3)))
            np.testing.assert_allclose(series.latents, latents.numpy(), rtol=1e-3, atol=1e-5)
            np.testing.assert_array_equal(series.token_ids, one.token_ids)
            np.testing.assert_array_equal(series.coordinates, one.coordinates)


def test_patches_are_drawn_by_the_seed_with_the_thin_axis_first() -> None:
    prepared = random_study(1).prepared
    drawn = sample_patches("a", prepared, 5, seed=0)
    assert drawn.shape == (5 + 4, 4, 32, 32)
    np.testing.assert_array_equal(drawn, sample_patches("a", prepared, 5, seed=0))
    assert (drawn != sample_patches("a", prepared, 5, seed=1)).any()
    sagittal = prepared.series[1].patches
    np.testing.assert_array_equal(drawn[5:], sagittal.transpose(0, 3, 2, 1).astype(np.float16))


def test_several_processes_give_the_same_store(tmp_path: Path) -> None:
    for workers in (0, 2):
        fill_store(RandomStudies(9), tmp_path / str(workers), workers=workers, patches_per_series=3, quiet=True)
    one, other = (TokenStore(tmp_path / name) for name in ("0", "2"))
    assert one.records == other.records
    assert len(one) == 9
    for record in one.records:
        np.testing.assert_array_equal(one.patches(record.study), other.patches(record.study))
    assert one.labels() == other.labels()
    assert not (tmp_path / ".2.scratch").exists()


def test_studies_that_fail_are_counted_by_reason(tmp_path: Path) -> None:
    trouble = {"0": "out of scope", "1": "two patients", "2": "bad", "3": "bug", "4": "unreadable", "5": "out of scope"}
    source = RandomStudies(8, trouble)
    result = fill_store(source, tmp_path / "store", workers=0, quiet=True)
    reasons = sorted(result.refused.items())
    assert result.stored == len(TokenStore(tmp_path / "store")) == 2
    assert [count for _, count in reasons] == [1, 1, 1, 2, 1]
    assert reasons[0][0].startswith("could not be read (Input/output error")
    assert reasons[1][0].startswith("could not be read (KeyError at prepared_studies.py")
    assert [reason for reason, _ in reasons[2:]] == ["no labels", "not a study of the head", "two patients"]
    assert source.study("3") in (tmp_path / "store" / "refused.jsonl").read_text()
    assert not any(b"MUELLER" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_what_another_source_was_refused_for_stays_on_record(tmp_path: Path) -> None:
    fill_store(RandomStudies(3, {"1": "bad"}), tmp_path / "store", workers=0, quiet=True)
    store = tmp_path / "store" / "refused.jsonl"
    before = store.read_text()
    fill_store(RandomStudies(0, {}), tmp_path / "store", workers=0, quiet=True)
    assert store.read_text() == before
    fill_store(RandomStudies(3, {}), tmp_path / "store", workers=0, quiet=True)
    assert store.read_text() == ""


def test_a_study_that_kills_its_process_costs_only_itself(tmp_path: Path) -> None:
    result = fill_store(RandomStudies(8, {"1": "crash"}), tmp_path / "store", workers=2, quiet=True)
    assert result.refused == {"the process that prepared it ended": 1}
    assert result.stored == len(TokenStore(tmp_path / "store")) == 7


def test_it_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    called = tmp_path / "called"
    fill_store(RandomStudies(9, called=called), tmp_path / "store", workers=0, limit=4, quiet=True)
    result = fill_store(RandomStudies(9, called=called), tmp_path / "store", workers=0, quiet=True)
    assert (result.stored, result.before) == (5, 4)
    assert called.read_text().split() == [str(number) for number in range(9)]


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="goes on when started with more"):
        fill_store(RandomStudies(9, {"5": "full"}), tmp_path / "store", workers=0, quiet=True)
    assert len(TokenStore(tmp_path / "store")) == 5


def test_an_encoder_that_does_not_fit_ends_the_run(tmp_path: Path, encoder: Encoder) -> None:
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(encoder.weights.read_bytes())
    assert load_file(weights)
    wide = Encoder(type(encoder.shape)(**{**vars(encoder.shape), "latent_channels": 3}), weights)
    with pytest.raises(BadTrainingData, match="not the weights of such an encoder"):
        fill_store(RandomStudies(2), tmp_path / "store", wide, workers=0, quiet=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_it_leaves_a_store_that_opens_and_no_process(tmp_path: Path, how: signal.Signals) -> None:
    """Study 3 hangs for ten minutes; the others are on their way or done when the signal comes."""
    called, script = tmp_path / "called", tmp_path / "fill.py"
    script.write_text(
        "import signal\n"
        "from pathlib import Path\n"
        "from support.prepared_studies import RandomStudies\n"
        "from training.prepare.run import fill_store\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        f"    here = Path({str(tmp_path)!r})\n"
        "    fill_store(RandomStudies(5, {'3': 'hang'}, here / 'called'), here / 'store', workers=2, quiet=True)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[4]), str(Path(__file__).parents[3])])
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": paths}, stderr=-3)
    wait_until(lambda: called.exists() and len(called.read_text().split()) == 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(how)
    process.wait(HANG_SECONDS)
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert len(children) >= 2
    store = TokenStore(tmp_path / "store")
    assert len(store) == (0 if how == signal.SIGKILL else len(store))
    result = fill_store(RandomStudies(5), tmp_path / "store", workers=0, quiet=True)
    assert result.stored + result.before == len(TokenStore(tmp_path / "store")) == 5
    assert not (tmp_path / ".store.scratch").exists()


def test_half_a_result_of_a_stopped_worker_holds_nobody() -> None:
    pool: Any = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    pool.submit(int).result()
    manager = pool._executor_manager_thread
    os.write(pool._result_queue._writer.fileno(), struct.pack("!i", 1000))  # of so many bytes none follows
    run._stop(pool)
    manager.join(HANG_SECONDS)
    assert not manager.is_alive()


def wait_until(condition: object) -> None:
    assert callable(condition)
    until = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < until, "never happened"
        time.sleep(0.05)
