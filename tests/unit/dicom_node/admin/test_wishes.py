"""Who is told that a person raises a study without a result: whom the routes name, by what its images say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.jobs.registry import Registry
from support.command_line import Cli
from support.dicom_factory import StudyFacts, head_phantom, write_series
from support.orders import ACCESSION, KEY, UID, order, placed, tell
from support.studies import arrival, new_registry

CONFIG = """
[node]
storage = "."
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 11113
[[destinations]]
name = "ris"
kind = "hl7"
host = "127.0.0.1"
port = 2575
[[destinations]]
name = "manager"
kind = "ups"
ae_title = "MANAGER"
host = "127.0.0.1"
port = 11114
"""
ROUTES = """
[[routes]]
from = ["PACS"]
to = ["pacs", "ris"]
exclude = { descriptions = ["research"], younger_than_years = 18 }
[[routes]]
from = ["OTHER"]
to = ["manager"]
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = new_registry(tmp_path)
    tell(made, placed(order()))
    yield made
    made.close()


def received(registry: Registry, folder: Path, calling_ae: str = "PACS", **facts: object) -> None:
    """Images of the study in the spool and on record, sent by this AE."""
    study = StudyFacts(study_uid=UID, **facts)  # type: ignore[arg-type]
    for number, path in enumerate(write_series(folder / "made", head_phantom(2, 16, 16), study), 1):
        kept = folder / "spool" / UID / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, kept)
        said = {"path": f"{UID}/{path.name}", "calling_ae": calling_ae, "accession_number": ACCESSION}
        registry.record_arrivals([arrival(number, study=UID, patient_key=KEY, **said)])


def raised(cli: Cli, folder: Path, config: str) -> list[str]:
    (folder / "node.toml").write_text(config)
    done = cli("worklist", "raise", UID, "--level", "critical", "--config", folder / "node.toml", "--json")
    assert done.code == 0, done.err
    destinations: list[str] = done.json["destinations"]
    return destinations


def test_without_routes_everybody_who_is_told_priorities(registry: Registry, cli: Cli, tmp_path: Path) -> None:
    received(registry, tmp_path)
    assert raised(cli, tmp_path, CONFIG) == ["ris", "manager"]


@pytest.mark.parametrize(
    ("calling_ae", "facts", "told"),
    [
        ("PACS", {}, ["ris"]),
        ("OTHER", {}, ["manager"]),
        ("STRANGER", {}, []),
        ("PACS", {"description": "Research brain"}, []),
        ("PACS", {"birth_date": "20200101"}, []),
    ],
)
def test_with_routes_whom_they_name(
    registry: Registry, cli: Cli, tmp_path: Path, calling_ae: str, facts: dict[str, str], told: list[str]
) -> None:
    received(registry, tmp_path, calling_ae, **facts)
    assert raised(cli, tmp_path, CONFIG + ROUTES) == told
    delivery = registry.claim_delivery("o", told[0], 1e12, 1e11) if told else None
    assert (delivery is not None) is bool(told)


def test_that_nobody_is_told_is_said(registry: Registry, cli: Cli, tmp_path: Path) -> None:
    received(registry, tmp_path, "STRANGER")
    (tmp_path / "node.toml").write_text(CONFIG + ROUTES)
    done = cli("worklist", "raise", UID, "--level", "urgent", "--config", tmp_path / "node.toml")
    assert "told: nobody (no destination is told reading priorities)" in done.out


def test_images_that_cannot_be_read_leave_the_wish_undone(registry: Registry, cli: Cli, tmp_path: Path) -> None:
    received(registry, tmp_path)
    shutil.rmtree(tmp_path / "spool")
    (tmp_path / "node.toml").write_text(CONFIG + ROUTES)
    done = cli("worklist", "raise", UID, "--level", "urgent", "--config", tmp_path / "node.toml")
    assert done.code == 1
    assert "images cannot tell now" in done.err
    assert raised(cli, tmp_path, CONFIG) == ["ris", "manager"], "nothing was changed"
