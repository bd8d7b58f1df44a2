"""Whose fault is an error: the file's, or that of a machine that is short of memory or cannot read its disk just now?

What a file holds is the same tomorrow, and the file or series is set aside with the reason. The machine's trouble says
nothing about the images: it is raised on, so that the study may be tried again.
"""

from __future__ import annotations

import struct
import traceback
import zlib
from pathlib import Path

from pydicom.errors import BytesLengthException, InvalidDicomError

# What pydicom raises on malformed content, gathered by feeding it damaged files. Its own OSErrors carry no errno.
MALFORMED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,  # NotImplementedError and RecursionError are among its children
    struct.error,
    zlib.error,
    InvalidDicomError,
    BytesLengthException,
)
_ITK_OUT_OF_MEMORY = "Failed to allocate memory"


def raise_trouble(error: BaseException | None) -> None:
    """Raise the machine's trouble, if it is that or lies behind it: a MemoryError, or an OSError that has an errno.

    Inside sequences pydicom raises an OSError of its own in front of any other error. ITK has no error of its own.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and _ITK_OUT_OF_MEMORY in str(error):
            raise MemoryError from error
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise error
        error = error.__context__


def unexpected(error: Exception) -> str:
    """The reason to set a file or series aside for an error that nobody thought of; the machine's trouble is raised.

    Type and place, never the message: a library's message may repeat values of the file, and so the patient's name.
    """
    raise_trouble(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"could not be read ({type(error).__name__} at {Path(place.filename).name}:{place.lineno})"
