"""What is said of an error that nobody thought of, met in one file or series: its kind and place, never its message.

The message of a library's error may repeat values of the file, and so the patient's name.
"""

from __future__ import annotations

import logging
import traceback

_LOG = logging.getLogger(__name__)


def unexpected(error: Exception) -> str:
    """The reason for setting the file or series aside. Logs where in the code the error was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    _LOG.error("unexpected %s at %s:%s", type(error).__name__, place.filename, place.lineno)
    return f"could not be read ({type(error).__name__})"
