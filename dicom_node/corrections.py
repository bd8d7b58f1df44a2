"""Recurring work about corrections: rejection notes of others are acted on, notes of our own written, expired files
and sent objects deleted. Each step may be killed anywhere and run again.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from apscheduler.schedulers.base import BaseScheduler

from dicom_node.base.config import Configuration
from dicom_node.base.durable import sync_folder
from dicom_node.base.errors import NodeError
from dicom_node.base.events import Event, log
from dicom_node.base.types import KeyObjects, Withdrawal
from dicom_node.intake.key_objects import read_apart
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.rejections import Applied, Expired
from dicom_node.reporting.rejection import build_rejection, named_in
from dicom_node.reporting.write import write_report

LOOK_SECONDS = 1.0
DELETE_SECONDS = 60.0
DAY_SECONDS = 86400.0
READINGS = 300  # of one note that the disk does not give, before it counts as one that cannot be read

Read = Callable[[Sequence[Path]], Sequence[tuple[bool, KeyObjects | None]]]


class Corrections:
    """The jobs, each of which can also be run by hand in a test."""

    def __init__(self, configuration: Configuration, registry: Registry, read: Read = read_apart) -> None:
        self._node = configuration.node
        self._keep_sent_days = configuration.report.keep_sent_days
        self._registry = registry
        self._read = read
        self._unread: Counter[str] = Counter()
        self._unwritten: set[tuple[int, str]] = set()

    def schedule(self, scheduler: BaseScheduler) -> None:
        """Have everything done every second."""
        scheduler.add_job(self.examine_notes, "interval", seconds=LOOK_SECONDS, id="examine rejection notes")
        scheduler.add_job(self.complete_withdrawals, "interval", seconds=LOOK_SECONDS, id="withdraw results")
        scheduler.add_job(self.delete_expired, "interval", seconds=LOOK_SECONDS, id="delete expired files")
        scheduler.add_job(self.delete_sent, "interval", seconds=DELETE_SECONDS, id="delete sent objects")

    def examine_notes(self) -> None:
        """Read the Key Object Selections that came, and do what those that reject say."""
        paths = self._registry.unexamined_notes()
        if not paths:
            return
        answers = self._read([self._node.spool / path for path in paths])
        for path, (known, said) in zip(paths, answers, strict=False):
            self._unread[path] += 1
            if known or self._unread[path] >= READINGS:
                del self._unread[path]
                _tell(self._registry.apply_note(path, said, time.time()), path)

    def complete_withdrawals(self) -> None:
        """Write the rejection notes of withdrawn results and hand them to the outbox."""
        for withdrawal in self._registry.withdrawals_due():
            notes: dict[str, str] = {}
            failures: dict[str, str] = {}
            for destination, paths in withdrawal.objects:
                try:
                    notes[destination] = self._written(withdrawal, paths)
                except NodeError as error:
                    if not error.retriable:
                        failures[destination] = str(error)
                    self._complain(withdrawal, destination, error)
            self._registry.complete_withdrawal(withdrawal, notes, failures, time.time())

    def _written(self, withdrawal: Withdrawal, paths: Sequence[str]) -> str:
        """The note, durable in the outgoing folder before its delivery is there. Raises NodeError."""
        files = [self._node.outgoing / path for path in paths]
        note = build_rejection(withdrawal, files, self._registry.sent(paths))
        written = write_report(note, self._node.outgoing).name
        named = named_in(note)
        log(Event.NOTE_WRITTEN, study=withdrawal.study_id, count=named, reason=withdrawal.rejection.meaning)
        if named < len(paths):
            log(Event.NOTE_INCOMPLETE, "error", study=withdrawal.study_id, count=len(paths) - named)
        return written

    def _complain(self, withdrawal: Withdrawal, destination: str, error: NodeError) -> None:
        if (withdrawal.result_id, destination) not in self._unwritten:
            reason = str(error)
            log(Event.NOTE_NOT_WRITTEN, "error", study=withdrawal.study_id, destination=destination, reason=reason)
        self._unwritten.add((withdrawal.result_id, destination))

    def delete_expired(self) -> None:
        """Delete the files whose retention expired; a folder that is empty then goes as well."""
        if not self._node.spool.is_dir():
            return  # not mounted now
        for expired in self._registry.expired_files():
            count = self._deleted(expired)
            self._registry.files_deleted(expired.note, expired.study_id, count, time.time())
            if count:
                log(Event.FILES_DELETED, study=expired.study_id, count=count)

    def delete_sent(self) -> None:
        """Delete the bytes of objects that every destination has had for long; what rejects them stays known."""
        folder = self._node.outgoing
        if not folder.is_dir():
            return  # not mounted now
        paths = self._registry.unneeded(time.time() - self._keep_sent_days * DAY_SECONDS)
        for path in paths:
            (folder / path).unlink(missing_ok=True)
        if paths:
            sync_folder(folder)
            self._registry.bytes_deleted(paths)
            log(Event.SENT_DELETED, count=len(paths))

    def _deleted(self, expired: Expired) -> int:
        """How many files were there. Raises OSError: the next run tries again."""
        of_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in expired.paths:
            file = self._node.spool / path
            if file.exists():
                of_folder[file.parent].append(file)
        for folder, files in of_folder.items():
            for file in files:
                file.unlink(missing_ok=True)
            sync_folder(folder)
            if not any(folder.iterdir()):
                folder.rmdir()
                sync_folder(folder.parent)
        return sum(map(len, of_folder.values()))


def _tell(applied: Applied | None, path: str) -> None:
    if applied is None:
        return
    if applied.rejection is not None:
        count = applied.images + applied.reports
        log(Event.REJECTION_APPLIED, study=applied.study_id, count=count, reason=applied.rejection.meaning, path=path)
    if applied.ignored:
        log(Event.REJECTION_IGNORED, "warning", study=applied.study_id, reason=applied.ignored, path=path)
