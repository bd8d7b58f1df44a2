"""Numbered, structured log events.

A line carries the node's own short study id and never patient data: only the fields in `ALLOWED` get through, anything
else is an error in the program. UIDs are logged at debug level alone.
"""

from __future__ import annotations

import enum
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

ALLOWED = frozenset(
    {
        "study",
        "association",
        "called_ae",
        "calling_ae",
        "address",
        "node",
        "destination",
        "reason",
        "state",
        "revision",
        "count",
        "seconds",
        "attempts",
        "path",
        "process",
        "pid",
        "port",
        "level",
        "rule",
        "priority",
        "bytes",
        "status",
        "bundle",
        "precision",
        "device",
        "error",
        "tokens",
        "job",
        "version",
        "service",
    }
)
ALLOWED_AT_DEBUG = ALLOWED | {"study_uid", "series_uid", "sop_uid"}


class Event(enum.Enum):
    """Number and words of everything worth a line. Thousands: 1 service, 2 intake, 3 jobs, 4 reporting, 5 sending,
    6 worklist, 7 audit trail.
    """

    NODE_STARTED = (1001, "node started")
    NODE_STOPPING = (1002, "node stopping")
    PROCESS_STARTED = (1003, "process started")
    PROCESS_ENDED = (1004, "process ended")
    PROCESS_CRASHED = (1005, "process crashed")
    PROCESS_SILENT = (1006, "process gave no sign of life and was killed")
    CERTIFICATE_RENEWED = (1007, "certificates were replaced and are in use")
    CONFIGURATION_CHANGED = (1010, "the node starts with another configuration than before")
    RUNS_AS_ROOT = (1011, "the node runs as root; give it a user of its own")
    HTTP_REFUSED = (1009, "HTTP connection refused, its address is not in node.http_peers")
    HELPER_READY = (1012, "receiver's helper serves associations")
    CERTIFICATE_UNUSABLE = (1008, "replaced certificates cannot be used, the earlier ones stay")
    NODE_LOOKED_AFTER = (1020, "another node went silent, what it had received was looked through")
    ASSOCIATION_OPENED = (2001, "association opened")
    ASSOCIATION_CLOSED = (2002, "association closed")
    ASSOCIATION_REFUSED = (2003, "association refused")
    ASSOCIATION_ABORTED = (2004, "association aborted")
    TLS_REFUSED = (2005, "TLS connection refused")
    OBJECT_STORED = (2011, "object stored")
    OBJECT_REFUSED = (2012, "object refused")
    REGISTRY_BEHIND = (2013, "registry write failed, will be repeated")
    SPOOL_RECONCILED = (2014, "spool and registry reconciled")
    OBJECT_SETTLED = (2015, "disputed object settled")
    REJECTION_APPLIED = (2016, "rejection note applied")
    REJECTION_IGNORED = (2017, "rejection note, or a part of it, ignored")
    OLD_VERSION_CAME = (2018, "an image came again as it was before its correction, and is not used")
    FILES_DELETED = (2019, "files deleted whose retention expired")
    SPOOL_CLEANED = (2031, "files of finished studies deleted")
    SPOOL_STAYS_FULL = (2032, "the disk is above its mark, and no more files may be deleted")
    FILES_NOT_DELETED = (2033, "files of a finished study could not be deleted, will be repeated")
    STUDY_COMPLETE = (3001, "study complete")
    STUDY_REOPENED = (3002, "study reopened")
    STUDY_CLAIMED = (3003, "study claimed")
    STUDY_RELEASED = (3004, "study given back")
    STUDY_REPORTED = (3005, "study reported")
    STUDY_OUT_OF_SCOPE = (3006, "study out of scope")
    STUDY_FAILED = (3007, "study failed")
    STUDY_DEAD = (3008, "study dead")
    STUDY_DELIVERED = (3009, "study delivered")
    CLAIM_LOST = (3010, "claim lost, result thrown away")
    JOB_FAILED = (3011, "recurring work failed, will be repeated")
    RECORDS_DELETED = (3012, "outdated records deleted")
    RESULT_WITHDRAWN = (3013, "result withdrawn")
    STUDY_OVER_NODES = (3020, "a study's objects came over several nodes")
    MODEL_LOADED = (3021, "model loaded")
    MODEL_REFUSED = (3022, "model refused")
    MODEL_ACTIVATED = (3023, "model activated")
    MODEL_ROLLED_BACK = (3024, "model rolled back")
    SHADOW_LOADED = (3025, "shadow model loaded")
    SHADOW_FAILED = (3026, "shadow model failed")
    ACTOR_DIED = (3027, "a Ray actor ended, its studies are computed again")
    RETRAINING_STARTED = (3031, "retraining started")
    RETRAINING_PAUSED = (3032, "retraining paused while studies wait")
    RETRAINING_WENT_ON = (3033, "retraining goes on")
    RETRAINING_ENDED = (3034, "retraining ended")
    LATENTS_DAMAGED = (3041, "kept latents damaged, deleted and computed again")
    LATENTS_NOT_KEPT = (3042, "latents cannot be kept or read, every series is encoded")
    RESULT_EXPLAINED = (4011, "result explained")
    EXPLANATION_FAILED = (4012, "result could not be explained, its report stands")
    REPORT_ATTRIBUTE_EMPTIED = (4001, "illegal source value written empty")
    DELIVERY_DONE = (5001, "delivered")
    DELIVERY_POSTPONED = (5002, "delivery postponed")
    DELIVERY_SET_ASIDE = (5003, "delivery set aside")
    DELIVERY_FELL_BACK = (5007, "destination takes no such SOP class, sent in a simpler form")
    RESULT_HELD = (5004, "result held")
    NOTE_WRITTEN = (5005, "rejection note written for a withdrawn result")
    NOTE_NOT_WRITTEN = (5006, "rejection note could not be written; a person must reject the result in the archive")
    NOTE_INCOMPLETE = (5008, "rejection note does not name objects of which nothing is left; a person must reject them")
    SENT_DELETED = (5009, "sent objects deleted that every destination has")
    COMMITMENT_ASKED = (5011, "storage commitment asked")
    COMMITMENT_USELESS = (5012, "storage commitment answer changes nothing")
    MESSAGE_APPLIED = (6001, "HL7 message applied")
    MESSAGE_REFUSED = (6002, "HL7 message refused")
    MESSAGE_TROUBLE = (6003, "HL7 connection ended or not let in")
    PRIORITY_RAISED = (6004, "reading priority raised")
    PRIORITY_STANDS = (6005, "priority of a withdrawn result could not be taken back everywhere")
    WORKITEM_CREATED = (6101, "work item created")
    WORKITEM_CHANGED = (6102, "work item changed")
    WORKITEM_CANCELED = (6103, "work item canceled, its study left the reading list")
    WORKITEM_NOT_KEPT = (6104, "work item could not be kept up to date")
    READING_BEGUN = (6105, "reading begun")
    UPS_EVENT_SENT = (6111, "UPS event sent")
    UPS_EVENT_POSTPONED = (6112, "UPS event postponed")
    UPS_EVENT_DROPPED = (6113, "UPS event dropped")
    QUERY_ANSWERED = (6114, "query answered")
    AUDIT_NOT_WRITTEN = (7001, "audit trail could not be written, will be repeated")
    AUDIT_NOT_SENT = (7002, "audit records could not be sent to the syslog server, will be repeated")
    AUDIT_SENT_AGAIN = (7003, "audit records are sent to the syslog server again")

    @property
    def number(self) -> int:
        """Stable number for filters and alarms."""
        return int(self.value[0])

    @property
    def words(self) -> str:
        """Fixed text; what varies is in the fields."""
        return str(self.value[1])


LEVELS = logging.getLevelNamesMapping()
_lowest = logging.NOTSET
Observer = Callable[[Event, Mapping[str, Any]], None]
_observers: list[Observer] = []


def observe(observer: Observer) -> Callable[[], None]:
    """Have every event shown to an observer as well, at whatever level it is logged; gives what ends that.

    An observer never raises and never blocks.
    """
    _observers.append(observer)
    return lambda: _observers.remove(observer)


def log(event: Event, level: str = "info", **fields: Any) -> None:
    """Write one line. Raises ValueError on a field that is not known to be free of patient data."""
    unknown = fields.keys() - (ALLOWED_AT_DEBUG if level == "debug" else ALLOWED)
    if unknown:
        raise ValueError(f"log field '{sorted(unknown)[0]}' may hold patient data; see events.ALLOWED")
    for observer in _observers:
        observer(event, fields)
    importance = LEVELS[level.upper()]
    if importance >= _lowest:  # asked here as well: making a logger costs more than receiving an image does
        structlog.get_logger("dicom_node").log(importance, event.words, number=event.number, **fields)


def type_and_place(error: BaseException) -> str:
    """Where an unexpected error arose, without its message, which may quote what came in."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


def configure_logging(level: str) -> None:
    """JSON lines on standard error, from this level up. What libraries log is dropped: it may name patients."""
    global _lowest  # noqa: PLW0603 - as global as structlog's own configuration
    _lowest = LEVELS[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_lowest),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.CRITICAL)  # on the handler: pydicom sets the level of its own logger and quotes values
    logging.basicConfig(level=logging.CRITICAL, handlers=[handler], force=True)
    logging.captureWarnings(True)  # its warnings quote values as well
