"""What every process of the node is wrapped in: private files, its registry, no traceback that quotes what came in."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dicom_node.audit.recorder import recording
from dicom_node.base.config import Configuration
from dicom_node.base.errors import NodeError
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.jobs.registry import Registry

PRIVATE = 0o077  # the umask: nothing that the node writes is for other users of the machine


@contextmanager
def process_edge(name: str, configuration: Configuration) -> Iterator[Registry]:
    """Be the process of this name while the block lasts; gives the registry, which is closed at the end.

    Raises the node's own errors, and SystemExit in place of any other, which is logged by its type and place.
    """
    threading.excepthook = lambda crash: log(
        Event.PROCESS_CRASHED, "error", process=name, error=type_and_place(crash.exc_value or crash.exc_type())
    )
    os.umask(PRIVATE)
    registry = Registry(configuration.node.database_url)
    try:
        with recording(configuration):
            yield registry
    except NodeError:
        raise
    except Exception as error:  # noqa: BLE001 - a traceback's message may quote what came in
        log(Event.PROCESS_CRASHED, "error", process=name, error=type_and_place(error))
        raise SystemExit(1) from None
    finally:
        registry.close()
