"""Places of associations: of all, of one AE title, and asked for from another process."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
from contextlib import suppress

import pytest

from dicom_node.intake import channel as words
from dicom_node.intake.access import LIMIT_EXCEEDED, LIMIT_OF_ONE_EXCEEDED, NO_ANSWER, NO_PLACE_ANY_MORE
from dicom_node.intake.channel import Channel
from dicom_node.intake.handed import PlacesElsewhere
from dicom_node.intake.places import CountedPlaces


def pair() -> tuple[Channel, Channel]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


def test_places_are_bounded_for_all_and_for_one() -> None:
    places = CountedPlaces(of_all=3, of_one=2)
    assert [places.take(name, "ONE") for name in "ab"] == [None, None]
    assert places.take("c", "ONE") is LIMIT_OF_ONE_EXCEEDED
    assert places.take("c", "TWO") is None
    assert places.take("d", "THREE") is LIMIT_EXCEEDED
    places.give_back("a")
    places.give_back("a")
    assert places.take("d", "THREE") is None
    assert places.take("e", "FOUR") is LIMIT_EXCEEDED


@pytest.mark.parametrize("rejection", [None, LIMIT_EXCEEDED, LIMIT_OF_ONE_EXCEEDED, NO_PLACE_ANY_MORE])
def test_another_process_hears_whether_there_is_a_place(rejection: object) -> None:
    mine, its = pair()
    places = PlacesElsewhere(its, seconds=60)
    said: list[object] = []
    asking = threading.Thread(target=lambda: said.append(places.take("a", "ONE")))
    asking.start()
    question = mine.receive(60)
    assert question is not None
    assert (question.kind, *question.fields) == (words.ASK, "a", "ONE")
    places.answer("somebody else", None)
    places.answer("a", getattr(rejection, "words", None))
    asking.join()
    assert said == [rejection]


def test_a_receiver_that_stops_has_no_places() -> None:
    places = CountedPlaces(of_all=3, of_one=2)
    assert places.take("a", "ONE") is None
    places.close()
    assert places.take("b", "ONE") is NO_PLACE_ANY_MORE


def test_a_place_that_the_receiver_could_not_be_told_of_is_given_back_later() -> None:
    mine, its = pair()
    places = PlacesElsewhere(its, seconds=60)
    while its.send(words.ALIVE):
        pass
    places.give_back("a")
    while (message := mine.receive(0.1)) is not None:
        assert message.kind == words.ALIVE
    places.tell()
    told = mine.receive(60)
    assert told is not None
    assert (told.kind, *told.fields) == (words.ENDED, "a")
    places.tell()
    assert mine.receive(0.01) is None


def test_without_an_answer_there_is_no_place_and_none_stays_taken() -> None:
    mine, its = pair()
    places = PlacesElsewhere(its, seconds=0.01)
    assert places.take("a", "ONE") is NO_ANSWER
    told = [mine.receive(60), mine.receive(60)]
    assert [(one.kind, *one.fields) for one in told if one] == [(words.ASK, "a", "ONE"), (words.ENDED, "a")]
    mine.close()
    assert places.take("b", "ONE") is NO_ANSWER


def test_a_connection_goes_over_the_channel() -> None:
    mine, its = pair()
    near, far = socket.socketpair()
    with near, far:
        assert mine.send(words.CONNECTION, "192.0.2.1", 4242, connection=far)
        far.close()
        message = its.receive(60)
        assert message is not None
        assert message.connection is not None
        assert list(message.fields) == ["192.0.2.1", 4242]
        with message.connection as handed:
            near.sendall(b"hello")
            assert handed.recv(5) == b"hello"


def test_a_channel_never_waits_for_one_that_does_not_read_and_tells_when_it_is_gone() -> None:
    mine, its = pair()
    assert mine.receive(0.01) is None  # what waited for the other side before does not wait for it to read
    sent = 0
    while mine.send(words.ANSWER, "x" * 1000, None):
        sent += 1
        assert sent < 100_000
    assert its.receive(60) is not None
    mine.close()
    for _ in range(sent - 1):
        assert its.receive(60) is not None
    with pytest.raises(EOFError):
        its.receive(60)
    assert not its.send(words.ALIVE)


def test_a_connection_for_which_there_is_no_descriptor_comes_as_none() -> None:
    mine, its = pair()
    near, far = socket.socketpair()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with near, far:
        mine.send(words.CONNECTION, "192.0.2.1", 4242, connection=far)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1]))
        holes = [os.dup(0) for _ in range(_free_descriptors())]
        try:
            message = its.receive(60)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for hole in holes:
                os.close(hole)
    assert message is not None
    assert message.connection is None


def _free_descriptors() -> int:
    """How many more this process may have."""
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for one in taken:
        os.close(one)
    return len(taken)


def test_nothing_in_time_is_no_message() -> None:
    _mine, its = pair()
    assert its.receive(0.01) is None


def test_a_packet_is_plain_json() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        Channel(one).send(words.ASK, "a", "ONE")
        assert json.loads(other.recv(4096)) == [words.ASK, "a", "ONE"]
