"""The receiver with all that it answers, and the processes that help it.

    python -m dicom_node.receiving PARENT_PID CHANNEL BOOT_ID < configuration.json

is one of these, as the receiver starts it (`intake.helpers`).
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from dicom_node.base.config import Configuration, Destination, configuration_from
from dicom_node.base.errors import NodeError
from dicom_node.base.events import configure_logging
from dicom_node.end_with_parent import end_with
from dicom_node.intake.association import FurtherServices
from dicom_node.intake.channel import Channel
from dicom_node.intake.handed import serve_handed
from dicom_node.intake.helpers import NAME, HelperProgram
from dicom_node.intake.receiver import run_receiver
from dicom_node.intake.services import Together
from dicom_node.jobs.registry import Registry
from dicom_node.process_edge import process_edge
from dicom_node.sending.commitment_answers import CommitmentAnswers
from dicom_node.storage import only_receiver
from dicom_node.worklist.dicom.services import services_of

HELPER = (sys.executable, "-m", "dicom_node.receiving")


def receive(
    configuration: Configuration,
    registry: Registry,
    stop: threading.Event,
    on_listening: Callable[[], None] = lambda: None,
) -> None:
    """Receive with as many processes as `intake.processes` says; see `run_receiver`."""
    with only_receiver(configuration) as lock:
        services = further_services(configuration, registry)
        run_receiver(configuration, registry, stop, on_listening, services, HelperProgram(HELPER, (lock,)))


def further_services(configuration: Configuration, registry: Registry) -> FurtherServices | None:
    """What the receiver answers beside Storage: worklists, and storage commitment where an archive is asked for it."""
    services: list[FurtherServices] = []
    if worklists := services_of(configuration, registry):
        services.append(worklists)
    if any(isinstance(one, Destination) and one.storage_commitment for one in configuration.destinations):
        services.append(CommitmentAnswers(configuration, registry))
    return Together(*services) if services else None


def help_receiver(parent: int, channel: Channel, boot_id: str, configuration: Configuration) -> None:
    """Be a helper until the receiver says that it is enough. Raises SystemExit when something is wrong."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the receiver gets it as well, and says so
    configure_logging(configuration.node.log_level)
    try:
        with process_edge(NAME, configuration) as registry:
            serve_handed(channel, configuration, registry, boot_id, further_services(configuration, registry))
    except NodeError as error:
        raise SystemExit(f"{NAME}: {error}") from None


if __name__ == "__main__":
    help_receiver(
        int(sys.argv[1]),
        Channel(socket.socket(fileno=int(sys.argv[2]))),
        sys.argv[3],
        configuration_from(json.load(sys.stdin.buffer), Path("/")),
    )
