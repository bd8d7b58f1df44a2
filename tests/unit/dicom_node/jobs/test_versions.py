"""Which images count after corrections and rejections: the rule alone, and the registry, in any order of events."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.base.types import Arrival, KeyObjects, Rejection, Standing, Verdict, study_id
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.rejections import KEY_OBJECT_SELECTION
from dicom_node.jobs.tables import instances
from dicom_node.jobs.versions import Identity, Version, judge
from prima_core.base.patient import patient_key_of
from support.studies import arrival

STUDY = study_id("1.2.3")
WRONG = Identity(patient_key_of("P1", "Doe^Jane", "19700101"), "", "A1")
RIGHT = Identity(patient_key_of("P2", "Roe^Joan", "19800202"), "", "A2")
THIRD = Identity(patient_key_of("P3", "Poe^Jill", "19900303"), "", "A3")


def version(number: int, identity: Identity, at: float, standing: Standing = Standing.CURRENT) -> Version:
    return Version(f"{number}.{at}", f"1.2.{number}", identity, at, standing)


def rejects_none(_: Version) -> bool:
    return False


def old(number: int, identity: Identity = WRONG, at: float = 1.0) -> Version:
    return version(number, identity, at, Standing.SUPERSEDED)


def test_an_image_that_did_not_come_again_with_the_new_identity_does_not_count() -> None:
    judged = judge([old(1), version(1, RIGHT, 5), version(2, WRONG, 2)], rejects_none)
    assert judged.standings == {
        "1.1.0": Standing.SUPERSEDED,
        "1.5": Standing.CURRENT,
        "2.2": Standing.UNCORRECTED,
    }
    assert (judged.patient_key, judged.accession_number) == (RIGHT.patient_key, "A2")
    assert not judged.two_patients


@pytest.mark.parametrize(
    "change",
    [{"accession_number": "A9"}, {"issuer": "other"}, {"patient_key": patient_key_of("P1", "Doe^Joan", "19700101")}],
)
def test_each_part_of_the_identity_counts(change: dict[str, str]) -> None:
    known = replace(WRONG, issuer="one")
    judged = judge([old(1, known), version(1, replace(known, **change), 5), version(2, known, 2)], rejects_none)
    assert judged.standings["2.2"] is Standing.UNCORRECTED
    assert judged.contradicted == {"1.1.0"}


def test_other_labels_of_the_same_identity_leave_the_others_alone() -> None:
    judged = judge([old(1), version(1, WRONG, 5), version(2, WRONG, 2)], rejects_none)
    assert judged.standings["2.2"] is Standing.CURRENT
    assert judged.contradicted == frozenset()


def test_a_new_image_of_the_corrected_patient_counts() -> None:
    judged = judge([old(1), version(1, RIGHT, 5), version(3, RIGHT, 4)], rejects_none)
    assert {one.path for one in judged.evidence} == {"1.5", "3.4"}


def test_somebody_whom_no_correction_explains_is_a_second_patient() -> None:
    assert judge([old(1), version(1, RIGHT, 5), version(3, THIRD, 4)], rejects_none).two_patients
    assert judge([version(1, RIGHT, 5), version(3, THIRD, 4)], rejects_none).two_patients


def test_what_an_earlier_correction_said_is_no_second_patient() -> None:
    judged = judge([old(1), version(1, RIGHT, 5), old(2), version(2, THIRD, 6)], rejects_none)
    assert judged.standings["1.5"] is Standing.UNCORRECTED
    assert judged.patient_key == THIRD.patient_key


def test_the_first_images_of_two_patients_that_were_made_one_persons_are_fine() -> None:
    judged = judge([version(1, WRONG, 1), old(2, THIRD), version(2, WRONG, 5)], rejects_none)
    assert len(judged.evidence) == 2
    assert not judged.two_patients


def test_a_correction_whose_file_is_lost_still_says_who_it_is() -> None:
    judged = judge([old(1), version(1, RIGHT, 5, Standing.LOST), version(2, WRONG, 2)], rejects_none)
    assert judged.standings["2.2"] is Standing.UNCORRECTED
    assert judged.evidence == ()


def test_what_is_rejected_makes_no_second_patient() -> None:
    judged = judge([version(1, WRONG, 1), version(2, THIRD, 2)], lambda one: one.identity == THIRD)
    assert judged.standings["2.2"] is Standing.REJECTED
    assert not judged.two_patients


# One event: an image in a version (who, labels), or a note (who, as what, of which images).
images = st.tuples(
    st.just("image"), st.integers(1, 4), st.sampled_from([WRONG, RIGHT]), st.sampled_from(["", "relabelled"])
)
notes = st.tuples(
    st.just("note"),
    st.sampled_from([WRONG, RIGHT]),
    st.sampled_from([Rejection.QUALITY, Rejection.WORKLIST]),
    st.sets(st.integers(1, 4), min_size=1).map(sorted),
)


def as_arrival(event: tuple, at: float) -> Arrival:  # type: ignore[type-arg]
    if event[0] == "image":
        _, number, identity, labels = event
        return arrival(
            number,
            at=at,
            content=f"{identity}{labels}",
            patient_key=identity.patient_key,
            accession_number=identity.accession_number,
        )
    _, identity, what, numbers = event
    return arrival(
        1000 + int(at),
        at=at,
        content=f"{identity}{what}{numbers}",
        patient_key=identity.patient_key,
        accession_number=identity.accession_number,
        sop_class_uid=KEY_OBJECT_SELECTION,
        image=False,
    )


class House:
    """A registry, what each path holds, and the jobs that judge it."""

    def __init__(self, url: str, arrivals: dict[str, tuple]) -> None:  # type: ignore[type-arg]
        self.registry = Registry(url)
        self._events = arrivals

    def settle(self) -> bool:
        """Judge one disputed object and examine one note; whether there was any."""
        disputed, unread = self.registry.disputed(1), self.registry.unexamined_notes(1)
        for path, first in disputed:
            same = self._events[path][2:] == self._events[first][2:]
            self.registry.settle(path, Verdict.DUPLICATE if same else Verdict.CORRECTION, first)
        for path in unread:
            _, _, what, numbers = self._events[path]
            places = tuple(("1.2.3", "1.2.3.1", f"1.2.3.1.{number}") for number in numbers)
            self.registry.apply_note(path, KeyObjects(what, places), 900.0)
        return bool(disputed or unread)

    def end(self) -> tuple[dict[str, str], str, bool]:
        """Standings, patient and whether it is dead, once everything is judged."""
        while self.settle():
            pass
        standings = {
            path: standing for path, standing in _standings(self.registry).items() if self._events[path][0] == "image"
        }
        found = self.registry.study(STUDY)
        keys = self.registry.patient_keys()["1.2.3"]
        assert found is not None
        dead = (
            found.state == "dead"
        )  # of two patients: whichever came first gave the study its key, and nobody reads it
        counted = "current" in standings.values() and not dead
        return standings, keys[1] if counted else "", dead


def _standings(registry: Registry) -> dict[str, str]:
    with registry._read() as connection:
        return {row.path: row.standing for row in connection.execute(sa.select(instances))}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "empty.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(images, images, notes), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_standings_do_not_depend_on_the_order_in_which_things_come_to_be_known(
    template: Path,
    events: list[tuple],
    random,  # type: ignore[no-untyped-def,type-arg]
) -> None:
    known: dict[str, tuple] = {}  # type: ignore[type-arg]
    arrivals = []
    for at, event in enumerate(events):
        one = as_arrival(event, float(at))
        if one.path not in known:  # the same bytes again are the same object
            arrivals.append(one)
        known[one.path] = event
    shuffled = list(arrivals)
    random.shuffle(shuffled)
    ends = []
    for order, eager in ((arrivals, False), (shuffled, False), (shuffled, True)):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(template, f"{folder}/registry.sqlite")
            house = House(f"sqlite:///{folder}/registry.sqlite", known)
            for one in order:
                house.registry.record_arrivals([one])
                while eager and random.random() < 0.5 and house.settle():
                    pass
            ends.append(house.end())
            house.registry.close()
    assert ends[0] == ends[1] == ends[2]
