"""Errors of the model package. Every one is permanent: the same input gives the same error."""

from __future__ import annotations

from prima_core.base.types import SetAside


class PrimaError(Exception):
    """Base of all errors that `prima_core` raises on purpose. Messages hold no patient data."""


class UnusableSeries(PrimaError):
    """One series cannot be read as a volume; the study may go on without it. The message is the reason."""


class OutOfScope(PrimaError):
    """The study is not one the model was made for.

    `reason` is one plain sentence for the administrator; `set_aside` says what became of each series;
    `study_instance_uid` is None where the files do not agree on one.
    """

    def __init__(
        self, reason: str, set_aside: tuple[SetAside, ...] = (), study_instance_uid: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.set_aside = set_aside
        self.study_instance_uid = study_instance_uid


class TwoPatients(PrimaError):
    """Images under one Study Instance UID name two patients: nothing computed from them may be reported."""


class BundleError(PrimaError):
    """A model bundle on disk is incomplete, altered or of an unknown schema; the message names the file or tensor."""


class CheckpointRefused(PrimaError):
    """A checkpoint names something that the importer does not know; nothing in it was run."""
