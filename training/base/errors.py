"""What ends a training command. The message names the file, study or setting at fault and what to do."""

from __future__ import annotations


class TrainingError(Exception):
    """Base of all errors that training raises on purpose; nothing half-made was exported."""


class BadTrainingData(TrainingError):
    """Studies, labels, reports or shards that cannot be used as they are."""


class NotConverging(TrainingError):
    """More losses were not finite than the settings allow."""


class NoSpace(TrainingError):
    """The disk is full; what was finished before is kept, and the command resumes."""
