"""Recurring work of retention: files of finished studies are deleted by age, and by a mark on the disk, oldest first.

What may go is the registry's to say (`jobs/cleaning.py`). Each step may be killed anywhere and run again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from apscheduler.schedulers.base import BaseScheduler

from dicom_node.base.config import Configuration
from dicom_node.base.disk import Usage, usage_of
from dicom_node.base.durable import sync_folder
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.jobs.cleaning import Cleaned
from dicom_node.jobs.registry import Registry
from dicom_node.latent_cache import kept_latents

LOOK_SECONDS = 60.0
AT_ONCE = 500  # studies in one round; a stop waits for its end
MOST_FAILURES = 10  # in one round: then the disk is at fault, and no further study is given up for it
HOUR_SECONDS = 3600.0
DAY_SECONDS = 86400.0


class Cleaning:
    """The job, which can also be run by hand in a test."""

    def __init__(
        self, configuration: Configuration, registry: Registry, usage: Callable[[Path], Usage] = usage_of
    ) -> None:
        self._spool = configuration.node.spool
        self._settings = configuration.retention
        self._latents = kept_latents(configuration)
        self._registry = registry
        self._usage = usage
        self._complained = False

    def schedule(self, scheduler: BaseScheduler) -> None:
        """Have it done every minute."""
        scheduler.add_job(self.clean, "interval", seconds=LOOK_SECONDS, id="clean spool")

    def clean(self) -> None:
        """Finish what was begun; then delete what is too old, then the oldest while the disk is above its mark.

        What can be computed again, kept latents, goes before any image.
        """
        if not self._spool.is_dir():
            return  # not mounted now
        if self._latents is not None:
            self._latents.give_way()
        freed = [self._tried(cleaned) for cleaned in self._registry.cleanings_due()]
        begun = 0
        while begun < AT_ONCE and freed.count(None) < MOST_FAILURES:
            if (cleaned := self._next(time.time())) is None:
                break
            freed.append(self._tried(cleaned))
            begun += 1
        if begun:
            log(Event.SPOOL_CLEANED, count=begun, bytes=sum(filter(None, freed)))

    def _next(self, now: float) -> Cleaned | None:
        """The next study whose files go; None where none may, or has to."""
        days = self._settings.keep_days
        if days is not None and (old := self._registry.begin_cleaning(now - days * DAY_SECONDS, now)) is not None:
            return old
        if not self._usage(self._spool).is_above(self._settings):
            self._complained = False
            return None
        found = self._registry.begin_cleaning(now - self._settings.min_hours * HOUR_SECONDS, now)
        if found is None and not self._complained:
            log(Event.SPOOL_STAYS_FULL, "warning")
            self._complained = True
        return found

    def _tried(self, cleaned: Cleaned) -> int | None:
        """How many bytes of a study went; None where not all could: it stays due, and the others go on."""
        try:
            return self._deleted(cleaned)
        except OSError as error:
            log(Event.FILES_NOT_DELETED, "warning", study=cleaned.study_id, error=type_and_place(error))
            return None

    def _deleted(self, cleaned: Cleaned) -> int:
        """How many bytes went. Raises OSError: the next round goes on."""
        freed = 0
        agree = True
        missing: list[str] = []
        of_folder: dict[Path, list[Path]] = defaultdict(list)
        for one in cleaned.files:
            file = self._spool / one.path
            written = _written_at(file)
            if one.cleaned_at is None:
                missing += [] if written is not None else [one.path]
            elif written is not None and written > one.cleaned_at:  # it came anew, and its row will say so
                agree = False
            elif written is not None:
                of_folder[file.parent].append(file)
                freed += one.size
        for folder, files in of_folder.items():
            for file in files:
                file.unlink(missing_ok=True)
            sync_folder(folder)
            if not any(folder.iterdir()):
                folder.rmdir()
                sync_folder(folder.parent)
        if agree:
            self._registry.cleaning_done(cleaned, missing, time.time())
        return freed


def _written_at(file: Path) -> float | None:
    """When the file was written, seconds since the epoch; None where there is none. Raises OSError."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return None
