"""Arrivals recorded many at once leave what they leave one by one, whatever they are and in whatever groups."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.base.types import Arrival, StudyState
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import events, instances, studies
from prima_core.base.patient import patient_key_of
from support.statements import counted

PATIENTS = [
    patient_key_of("1", "A^B", "19500101"),
    patient_key_of("1", "", ""),
    patient_key_of("2", "C^D", "19600101"),
    "",
]

kinds = st.tuples(
    st.integers(1, 2),  # study
    st.integers(1, 6),  # instance
    st.sampled_from("xy"),  # content
    st.sampled_from([PATIENTS[0]] * 5 + PATIENTS),
    st.sampled_from(["", "ACC1", "ACC2"]),
    st.sampled_from([True, True, True, False]),  # an image
    st.sampled_from([False, False, False, True]),  # urgent
)


def arrivals_of(drawn: list[Any]) -> list[Arrival]:
    made = []
    for at, (study, number, content, patient, accession, image, urgent) in enumerate(drawn):
        digest = hashlib.sha256(f"{content}{patient}".encode()).hexdigest()
        made.append(
            Arrival(
                study_instance_uid=f"1.{study}",
                series_instance_uid="1.3",
                sop_instance_uid=f"1.4.{study}.{number}",
                sop_class_uid="1.5",
                transfer_syntax_uid="1.2.840.10008.1.2",
                patient_key=patient,
                accession_number=accession,
                digest=digest,
                path=f"{study}/{number}.{digest[:8]}.dcm",
                size=1,
                calling_ae="A",
                urgent=urgent,
                image=image,
                received_at=float(at),
            )
        )
    return made


class OneByOne(Registry):
    """As if nothing could be recorded together."""

    def _record_together(self, *_: Any) -> bool:
        return False


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry, to be copied."""
    path = tmp_path_factory.mktemp("registry") / "empty.sqlite"
    migrate(f"sqlite:///{path}")
    return path


def left_by(registry: Registry, groups: list[list[Arrival]], reported: int) -> list[list[Any]]:
    """All rows once the groups were recorded; studies have their report after so many of them."""
    for number, group in enumerate(groups):
        if number == reported:
            with registry._write() as connection:
                connection.execute(studies.update().values(state=StudyState.REPORTED))
        registry.record_arrivals(group)
    with registry._read() as connection:
        left = [sorted(connection.execute(sa.select(table)), key=repr) for table in (studies, instances, events)]
    registry.close()
    return left


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(kinds, min_size=1, max_size=25), st.lists(st.integers(1, 8), min_size=1), st.integers(0, 5))
def test_together_or_one_by_one_leaves_the_same(empty: Path, drawn: list[Any], sizes: list[int], reported: int) -> None:
    arrivals, groups = arrivals_of(drawn), []
    for size in itertools.cycle(sizes):
        if not arrivals:
            break
        groups.append(arrivals[:size])
        arrivals = arrivals[size:]
    urls = []
    for name in ("together", "one"):
        copy = shutil.copy(empty, empty.with_name(f"{name}.sqlite"))
        urls.append(f"sqlite:///{copy}")
    together, one = left_by(Registry(urls[0]), groups, reported), left_by(OneByOne(urls[1]), groups, reported)
    assert together == one


def test_a_scanners_images_take_a_handful_of_statements(empty: Path) -> None:
    registry = Registry(f"sqlite:///{shutil.copy(empty, empty.with_name('counted.sqlite'))}")
    drawn = [(1, number, "x", PATIENTS[0], "ACC1", True, False) for number in range(300)]
    numbers = []
    for share in (slice(0, 10), slice(10, 300)):
        with counted(registry) as statements:
            registry.record_arrivals(arrivals_of(drawn)[share])
        numbers.append(len(statements))
    registry.close()
    assert numbers[1] <= numbers[0]
