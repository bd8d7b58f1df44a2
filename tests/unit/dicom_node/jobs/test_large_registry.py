"""What the node asks from second to second costs the same however many studies are on record.

Measured by the steps that SQLite takes for the node's own statements, on a small registry and one that is five times as
large: the same on every machine. On both databases no plan looks through a table that grows. What it takes in
milliseconds with a million studies: `tests/benchmarks/registry_queries.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.jobs import pruning
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from support.large_registry import GROWING, fill, steady_state
from support.postgres import PostgresServer
from support.query_plans import planned, stepped
from support.studies import new_registry

SMALL, LARGE = 800, 4000
#: Looks through everything once, when a process starts; from then on only at what came since.
ONCE = "metrics, first"
#: In the order of an index, and no further than its limit: so many steps however many there are.
UP_TO_A_LIMIT = "SCAN studies USING INDEX ix_studies_received_at"

Steps = dict[str, int]


@pytest.fixture(autouse=True)
def _windows_fit_the_small_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "WINDOW", 200)


def steps(registry: Registry, folder: Path) -> Steps:
    """Steps of everything that the node does, by its name."""
    found = {}
    for name, act in steady_state(registry, folder):
        with stepped(registry) as taken:
            act()
        found[name] = sum(taken.values())
    return found


def grown(small: Steps, large: Steps) -> list[str]:
    """What costs more in the large registry."""
    return [name for name in small if name != ONCE and large[name] > 1.3 * small[name] + 300]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "WINDOW", 200)
        folder = tmp_path_factory.mktemp("small")
        registry = new_registry(folder)
        fill(registry, SMALL)
        yield steps(registry, folder)
        registry.close()


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Registry]:
    registry = new_registry(tmp_path)
    fill(registry, LARGE)
    yield registry
    registry.close()


def test_nothing_costs_more_with_more_studies_on_record(small: Steps, large: Registry, tmp_path: Path) -> None:
    found = steps(large, tmp_path)
    assert len(found) > 20
    assert found[ONCE] > 3 * small[ONCE], "what does grow is seen to grow"
    assert grown(small, found) == []


def test_an_index_that_is_missing_is_found(small: Steps, large: Registry, tmp_path: Path) -> None:
    missing = {
        "ix_studies_last_arrival_at": "reading list (console's first page)",
        "ix_studies_with_files": "retention, nothing due",
        "ix_changes_at": "metrics, again",
    }
    with large._write() as connection:
        for index in missing:
            connection.execute(sa.text(f"DROP INDEX {index}"))
    assert set(missing.values()) <= set(grown(small, steps(large, tmp_path)))


def test_no_plan_looks_through_what_grows(large: Registry, tmp_path: Path) -> None:
    """Without SQLite's statistics, which the node never makes: they say nothing of how rare an open study is."""
    scans: list[str] = []
    for name, act in steady_state(large, tmp_path):
        with planned(large) as plans:
            act()
        scans += [] if name == ONCE else [f"{name}: {scan}" for scan in plans.scans(GROWING)]
    assert [scan for scan in scans if UP_TO_A_LIMIT not in scan] == []
    assert any(UP_TO_A_LIMIT in scan for scan in scans), "a look through an index is seen"


@pytest.mark.peers
def test_postgresql_has_an_index_for_everything_too(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    migrate(url)
    registry = Registry(url)
    fill(registry, SMALL)
    scans: list[str] = []
    for name, act in steady_state(registry, tmp_path):
        with planned(registry) as plans:
            act()
        scans += [] if name == ONCE else [f"{name}: {scan}" for scan in plans.scans(GROWING)]
    registry.close()
    assert scans == []
