"""The registry's database: answers, has this version's schema, can be written, is this folder's, agrees on the time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.doctor.finding import Finding, failed, ok, warning
from dicom_node.jobs.database import check_schema
from dicom_node.jobs.registry import Registry
from dicom_node.storage import STORAGE_ID

NAME, CLOCK = "database", "clock"
APART_SECONDS = 2.0


def has_registry(configuration: Configuration) -> bool:
    """Whether there is a registry of this version to ask."""
    try:
        check_schema(configuration.node.database_url)
    except (ConfigurationError, PermanentError, SQLAlchemyError):
        return False
    return True


def check_database(configuration: Configuration) -> Iterator[Finding]:
    """From reachable to writable, up to the first that fails; then the clock."""
    try:
        check_schema(configuration.node.database_url)
        registry = Registry(configuration.node.database_url)
    except ConfigurationError as error:
        yield warning(NAME, str(error), "nothing, before the node was started for the first time")
        return
    except PermanentError as error:
        yield failed(NAME, str(error), "see Backup and upgrade in the runbook")
        return
    except SQLAlchemyError as error:  # its words quote the statement
        yield failed(NAME, f"does not answer ({type(error).__name__})", "see that node.database is right and runs")
        return
    try:
        registry.try_to_write()
        yield _folder(configuration, registry)
        yield _clock(registry)
    except SQLAlchemyError as error:
        words = f"cannot be written ({type(error).__name__})"
        yield failed(NAME, words, "look for a full disk, a missing right, or somebody who holds its lock")
    finally:
        registry.close()


def _folder(configuration: Configuration, registry: Registry) -> Finding:
    file = configuration.node.storage / STORAGE_ID
    mine = file.read_text(encoding="ascii").strip() if file.exists() else None
    described = registry.described()
    if described is not None and described != mine:
        return failed(NAME, "describes another storage folder than node.storage", "see the runbook under these words")
    return ok(NAME, "answers, is this version's, and can be written")


def _clock(registry: Registry) -> Finding:
    """Against the database's, and against what the node wrote down last."""
    apart = registry.clock() - time.time()
    if abs(apart) > APART_SECONDS:
        return failed(CLOCK, f"the database's is {apart:+.0f} s from this machine's", "set both by NTP")
    ahead = registry.latest_time() - time.time()
    if ahead > APART_SECONDS:
        words = f"was set back: the registry has times that lie {ahead:.0f} s ahead"
        return failed(CLOCK, words, "set it by NTP; studies and deliveries of that time may come late")
    return ok(CLOCK, "agrees with the database's and with what is on record")
