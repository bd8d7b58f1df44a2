"""A receiver of several processes: one lets in and counts, each stores by itself, and none outlives the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined] # made at run time
from structlog.testing import capture_logs

from dicom_node.base.config import Configuration, IntakeSection, configuration_from
from dicom_node.base.events import Event
from dicom_node.intake import channel, helpers
from dicom_node.intake.helpers import Helper, HelperEnded, HelperProgram
from dicom_node.intake.places import CountedPlaces
from dicom_node.intake.receiver import Sharing, run_receiver
from dicom_node.intake.spool import Spool
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.tables import associations
from dicom_node.receiving import HELPER, further_services
from support.dicom_factory import StudyFacts, head_phantom, mr_slices
from support.peers import (
    AE_TITLE,
    CLIENT,
    RunningReceiver,
    configuration_for,
    free_port,
    listening,
    receiver,
    receiver_process,
    wait_until,
)

HELPING = HelperProgram(HELPER)
SILENT = HelperProgram((sys.executable, "-c", "import time; time.sleep(600)"))
#: Says that it is ready, and never reads.
DEAF = HelperProgram(
    (
        sys.executable,
        "-c",
        "import socket, sys, time; socket.socket(fileno=int(sys.argv[2])).send(b'[\"ready\"]'); time.sleep(600)",
    )
)
LOCAL_LIMIT = 0x02  # PS3.8 9.3.4, reason of source 3


@contextmanager
def of_two(where: Path | Configuration, **intake: object) -> Iterator[RunningReceiver]:
    """A receiver of two processes in turn, the helper and this one."""
    with receiver(where, program=HELPING, **{"processes": 2} | intake) as node:
        helper = helper_of(os.getpid())
        wait_until(lambda: shared_out(node.port, helper), "the helper serves")
        wait_until(lambda: not connections_of(helper) and ended(node), "nobody is there")
        yield node


def ended(node: RunningReceiver) -> bool:
    """Whether all associations ended, of which there were some."""
    rows = node.rows(associations)
    return bool(rows) and all(row.closed_at is not None for row in rows)


def shared_out(port: int, helper: int) -> bool:
    """Whether of two associations one is with the helper."""
    with associated(port), associated(port):
        return connections_of(helper) == 1


def helper_of(receiving: int) -> int:
    """The process id of a receiver's only helper, as soon as there is one."""

    def look() -> str:
        command = ["pgrep", "-P", str(receiving), "-f", HELPER[-1]]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    return int(wait_until(look, "the helper runs"))


def connections_of(pid: int) -> int:
    """How many TCP connections a process has."""
    tcp = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    return sum(_target(file) in {f"socket:[{inode}]" for inode in tcp} for file in Path(f"/proc/{pid}/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def images(count: int) -> list[Dataset]:
    return mr_slices(head_phantom(count, 32, 32), StudyFacts())


def associate(port: int, calling: str = "SENDER") -> Association:
    ae = AE(calling)
    ae.add_requested_context(MRImageStorage, "1.2.840.10008.1.2.1")
    ae.add_requested_context(ModalityWorklistInformationFind)
    return ae.associate("127.0.0.1", port, ae_title=AE_TITLE, evt_handlers=CLIENT)


@contextmanager
def associated(port: int, calling: str = "SENDER") -> Iterator[Association]:
    association = associate(port, calling)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def test_every_process_stores(tmp_path: Path) -> None:
    with of_two(tmp_path) as node, ExitStack() as stack:
        senders = [stack.enter_context(associated(node.port)) for _ in range(4)]
        assert connections_of(helper_of(os.getpid())) == 2
        assert {senders[n % 4].send_c_store(image).Status for n, image in enumerate(images(40))} == {0}
        stack.close()
        assert node.standings(after=4) == {"current": 40}
    assert len({row.boot_id for row in node.rows(associations)}) == 1


def test_the_bounds_on_associations_are_those_of_the_whole_receiver(tmp_path: Path) -> None:
    with (
        of_two(tmp_path, max_associations=3, max_associations_of_one=2) as node,
        associated(node.port, "ONE") as first,
        associated(node.port, "ONE") as second,
    ):
        assert connections_of(helper_of(os.getpid())) == 1
        refused = associate(node.port, "ONE")
        assert refused.is_rejected
        assert refused.acceptor.primitive.diagnostic == LOCAL_LIMIT  # type: ignore[union-attr]
        with associated(node.port, "TWO"):
            assert associate(node.port, "THREE").is_rejected
        first.release()
        again = wait_until(lambda: established(node.port, "ONE"), "the place of one process is free again")
        second.release()
        wait_until(lambda: let_in(node.port, "ONE"), "that of the other is")
        again.release()


def established(port: int, calling: str) -> Association | None:
    association = associate(port, calling)
    return association if association.is_established else None


def let_in(port: int, calling: str) -> bool:
    association = associate(port, calling)
    established = association.is_established
    association.release()
    return established


def test_a_helper_answers_all_that_the_receiver_answers(tmp_path: Path) -> None:
    table = {
        "node": {"ae_title": AE_TITLE, "port": free_port(), "storage": "node"},
        "worklist": {"modality_worklist": True},
    }
    configuration = configuration_from(table, tmp_path)
    migrate(configuration.node.database_url)
    registry = Registry(configuration.node.database_url)
    services = further_services(configuration, registry)
    query = Dataset()
    query.PatientID = ""
    with (
        receiver(configuration, registry, services, HELPING) as node,
        ExitStack() as stack,
    ):
        helper = helper_of(os.getpid())
        wait_until(lambda: shared_out(node.port, helper), "the helper serves")
        for association in [stack.enter_context(associated(node.port)) for _ in range(2)]:
            answers = [status.Status for status, _ in association.send_c_find(query, ModalityWorklistInformationFind)]
            assert answers == [0]
        assert connections_of(helper) == 1


def test_a_graceful_stop_leaves_a_row_for_every_file(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    queue = images(300)
    with of_two(tmp_path) as node:
        senders = [
            threading.Thread(target=send_until_cut, args=(node.port, queue[n::4], acknowledged)) for n in range(4)
        ]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(acknowledged) >= 40)
    for sender in senders:
        sender.join()
    assert acknowledged <= {row.sop_instance_uid for row in node.rows()}
    assert len(acknowledged) < 300
    assert all(row.closed_at is not None for row in node.rows(associations))


def send_until_cut(port: int, queue: list[Dataset], acknowledged: set[str]) -> None:
    """Send until all is sent or the node is gone; note what was answered with Success."""
    association = associate(port)
    for image in queue:
        try:
            status = association.send_c_store(image)
        except (RuntimeError, ValueError):  # the association is gone
            return
        if "Status" not in status:
            return
        if status.Status == 0:
            acknowledged.add(str(image.SOPInstanceUID))
    association.release()


@pytest.mark.parametrize("killed", ["helper", "receiver"])
def test_where_one_process_is_killed_all_end_and_the_next_receiver_has_every_image(tmp_path: Path, killed: str) -> None:
    configuration = configuration_for(tmp_path, free_port(), processes=2)
    acknowledged: set[str] = set()
    queue = images(400)
    with receiver_process(tmp_path, configuration) as process:
        helper = helper_of(process.pid)
        wait_until(lambda: shared_out(configuration.node.port, helper), "the helper serves")
        senders = [
            threading.Thread(target=send_until_cut, args=(configuration.node.port, queue[n::4], acknowledged))
            for n in range(4)
        ]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(acknowledged) >= 40)
        os.kill(helper if killed == "helper" else process.pid, signal.SIGKILL)
        assert process.wait() != 0
        wait_until(lambda: not Path(f"/proc/{helper}").exists(), "the helper is gone")
        for sender in senders:
            sender.join()
    assert 0 < len(acknowledged) < 400
    with receiver_process(tmp_path, configuration):
        node = RunningReceiver(
            configuration, Registry(configuration.node.database_url), Spool(configuration.node.spool)
        )
        assert acknowledged <= {row.sop_instance_uid for row in node.rows()}
        assert let_in(configuration.node.port, "SENDER")


def test_a_receiver_waits_until_nothing_of_the_one_before_stores(tmp_path: Path) -> None:
    configuration = configuration_for(tmp_path, free_port(), processes=2)
    lock = configuration.node.storage / ".receiving"
    with subprocess.Popen(["flock", str(lock), "sleep", "600"]) as holder, ExitStack() as stack:
        stack.callback(holder.kill)
        wait_until(lambda: subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode != 0)
        threading.Timer(2.0, lambda: subprocess.run(["pkill", "-P", str(holder.pid)], check=True)).start()
        with receiver_process(tmp_path, configuration) as process:  # which listens by now
            assert holder.poll() is not None
            held = {_target(file) for file in Path(f"/proc/{helper_of(process.pid)}/fd").iterdir()}
            assert str(lock) in held


def test_a_helper_that_gives_no_sign_of_life_ends_the_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "SILENCE_SECONDS", 0.5)
    configuration = configuration_for(tmp_path, free_port(), processes=3)
    registry = Registry(configuration.node.database_url)
    with capture_logs() as logs, pytest.raises(HelperEnded):
        run_receiver(configuration, registry, threading.Event(), program=SILENT)
    registry.close()
    assert Event.PROCESS_SILENT.number in {line["number"] for line in logs}
    assert not listening(configuration.node.port)


def test_a_receiver_that_was_held_still_does_not_take_its_helper_for_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "SILENCE_SECONDS", 100.0)
    clock = [0.0]
    monkeypatch.setattr(helpers.time, "monotonic", lambda: clock[0])
    configuration = configuration_for(tmp_path, free_port(), processes=2)
    helper = Helper(SILENT, configuration, "boot", CountedPlaces(1, 1))
    clock[0] = 1000.0  # it was held all that time
    helper.check()
    for _ in range(99):
        clock[0] += 1.0
        helper.check()
    clock[0] += 2.0
    with pytest.raises(HelperEnded):
        helper.check()
    helper.wait(0.0)


def test_a_helper_that_cannot_be_told_to_stop_is_killed_at_once(tmp_path: Path) -> None:
    configuration = configuration_for(tmp_path, free_port(), processes=2)
    helper = Helper(DEAF, configuration, "boot", CountedPlaces(1, 1))
    wait_until(lambda: helper.ready, "it is ready")
    while helper._channel.send(channel.ALIVE):
        pass  # until there is no room for more
    with capture_logs() as logs:
        helper.ask_to_stop()
        wait_until(lambda: helper._process.poll() == -signal.SIGKILL, "it is killed")
    assert [line["number"] for line in logs] == [Event.PROCESS_ENDED.number]
    helper.wait(0.0)


def test_a_burst_is_shared_out_before_anybody_asked_for_a_place(tmp_path: Path) -> None:
    class Ready(Helper):
        ready = True

    class Here:
        load = given = 0

        def serve(self, connection: socket.socket, address: object) -> None:
            self.load += 1
            connection.close()

    configuration = configuration_for(tmp_path, free_port(), processes=2)
    here, helper = Here(), Ready(SILENT, configuration, "boot", CountedPlaces(1, 1))
    sharing = Sharing(here, [helper])  # type: ignore[arg-type]
    for _ in range(10):
        sharing.serve(socket.socket(), ("127.0.0.1", 1))
    assert (here.load, helper.load) == (5, 5)
    helper.wait(0.0)


def test_the_receiver_serves_alone_until_its_helper_does(tmp_path: Path) -> None:
    with receiver(tmp_path, program=SILENT, processes=2) as node:
        with associated(node.port) as first, associated(node.port) as second:
            one, other = images(2)
            assert first.send_c_store(one).Status == second.send_c_store(other).Status == 0
        assert node.standings(after=2) == {"current": 2}


def test_what_may_be_on_its_way_is_enough_for_each_process() -> None:
    assert IntakeSection(processes=4).incoming_bytes == 8 * IntakeSection().max_object_bytes
    with pytest.raises(ValueError, match="2 × processes × max_object_bytes"):
        IntakeSection(processes=2, max_object_bytes=1 << 20, max_incoming_bytes=3 << 20)
