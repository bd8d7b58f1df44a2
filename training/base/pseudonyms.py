"""Pseudonyms and shifted days, from a key that a site keeps to itself (HMAC, RFC 2104; SHA-256).

Without the key nobody can go from a pseudonym back to a UID or a patient, nor try out candidates.
"""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from training.base.errors import BadTrainingData

KEY_BYTES = 32
MOST_WEEKS = 260


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms under one key. The key is never printed."""

    key: bytes = field(repr=False)

    def study(self, study_instance_uid: str) -> str:
        """16 hexadecimal digits."""
        return self._digest("study", study_instance_uid)[:16]

    def patient(self, *identity: str) -> str:
        """16 hexadecimal digits. identity: such as Patient ID and Issuer of Patient ID."""
        return self._digest("patient", "\x1f".join(identity))[:16]

    def day(self, day: date) -> date:
        """Earlier by a secret number of weeks, the same for the whole site."""
        return day - timedelta(weeks=1 + int(self._digest("weeks", "")[:8], 16) % MOST_WEEKS)

    def _digest(self, purpose: str, text: str) -> str:
        return hmac.new(self.key, f"{purpose}:{text}".encode(), "sha256").hexdigest()


def load_or_create_key(path: Path) -> Pseudonyms:
    """The key in `path`, made (readable by its owner alone) when there is none. Raises BadTrainingData."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise BadTrainingData(f"{path}: not a key of {KEY_BYTES} bytes") from None
        return Pseudonyms(key)
    with os.fdopen(handle, "wb") as file:
        file.write(key := secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return Pseudonyms(key)
