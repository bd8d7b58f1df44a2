"""Fixtures every test may use: where the shared test data lies, and the real peers."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from prima_core.random_weights import demo, write_random_bundle

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

from support.command_line import Cli, command  # noqa: E402 - found only from here on
from support.node import Node  # noqa: E402
from support.postgres import PostgresServer  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the log of every node that runs: most of these failures are told there alone."""
    report = yield
    if report.failed:
        for node in Node.entered:
            report.sections.append(("log of a node that runs", node.log()[-20_000:]))
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with `brainix`, `knee` and `prima_golden`; `$PRIMA_SHARED` or `../shared` beside the repository."""
    root = Path(os.environ.get("PRIMA_SHARED", TESTS.parent.parent / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"shared test data not found at {root} (set PRIMA_SHARED)")
    return root / "data"


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of seeded random weights, `untrained`; tests must not change it."""
    folder = tmp_path_factory.mktemp("model") / "bundle"
    write_random_bundle(folder, demo(), name="test")
    return folder


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `dicom-node` in this process."""
    return command(capfd, monkeypatch)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind that the node supports."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.sqlite'}"
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests that ask for one; skips with a printed reason when it is not installed."""
    server = PostgresServer()
    yield server
    server.close()
