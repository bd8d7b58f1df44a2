"""The node's logging in a test's own process, and as it was afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from dicom_node.base import events


@contextmanager
def default_logging_afterwards() -> Iterator[None]:
    """Whatever the block configures ends with it."""
    try:
        yield
    finally:
        structlog.reset_defaults()
        events._lowest = logging.NOTSET
        logging.captureWarnings(False)
