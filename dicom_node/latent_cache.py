"""Latents of series that were encoded before, kept on disk by content: encoding is nearly all of a study's work.

A late series then costs itself alone, and a study that is sent again, corrected or explained costs no encoding. An
entry's name is a digest of all that its numbers follow from: the prepared patches to the last bit, the bundle and its
tokenizer's weights, the precision, the device, and the software's own source. So nothing has to be thrown away when one
of these changes, and a correction of names, which leaves the pixels alone, finds what is there.

An entry holds numbers and no identifiers. Images could be guessed from it, so it is as private as they are, and what
was not used for some days is deleted; all of it where the disk is needed for images. Whatever ails the cache, the
model computes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dicom_node.base.config import Configuration
from dicom_node.base.disk import is_crowded
from dicom_node.base.durable import PRIVATE_FILE, make_folder
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.surroundings import machine, software
from prima_core.base.types import PreparedSeries
from prima_core.bundle import BundleManifest

if TYPE_CHECKING:
    from prima_core.base.device import Runtime

DAY_SECONDS = 86400.0
ABANDONED_SECONDS = 3600.0  # after which a file that nobody finished writing is deleted
ROOM = 0.9  # of the limit, to which entries are deleted: not a few at every new one
_PARTS = "*.part"
_MAGIC = b"latents1"
_DIGEST = hashlib.sha256().digest_size
_HEADER = struct.Struct("<B5I")  # bytes a number, shape
_FULL = (errno.ENOSPC, errno.EDQUOT)

Latents = npt.NDArray[np.float32]


class Damaged(ValueError):
    """An entry is not what was written."""


def latent_cache(
    configuration: Configuration, manifest: BundleManifest, runtime: Runtime, *, read_only: bool = False
) -> LatentCache | None:
    """The node's cache for one bundle on one device; None where the configuration keeps none."""
    if not configuration.model.keep_latents_bytes:
        return None
    known = software()
    place = {name: value for name, value in machine(runtime).items() if name != "threads"}  # which change no bit
    context = [manifest.id, manifest.sha256, manifest.files, runtime.precision, place, known["torch"], known["source"]]
    return _cache(configuration, hashlib.sha256(json.dumps(context, sort_keys=True).encode()).digest(), read_only)


def kept_latents(configuration: Configuration) -> LatentCache | None:
    """The node's cache for one who computes nothing: to tidy it, and to make it give way."""
    return _cache(configuration, b"") if configuration.model.keep_latents_bytes else None


def _cache(configuration: Configuration, context: bytes, read_only: bool = False) -> LatentCache:
    settings, folder = configuration.model, configuration.node.latents
    return LatentCache(
        folder,
        context,
        most_bytes=settings.keep_latents_bytes,
        most_seconds=settings.keep_latents_days * DAY_SECONDS,
        read_only=read_only,
        crowded=partial(is_crowded, folder, configuration),
    )


class LatentCache:
    """One folder, one file an entry; a `prima_core.prima.LatentStore`. Several processes may share the folder."""

    def __init__(
        self,
        folder: Path,
        context: bytes,
        *,
        most_bytes: int,
        most_seconds: float,
        read_only: bool = False,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """context: a digest of what latents follow from beside the patches. read_only: only what is there is used.
        crowded: whether images need the room on the disk.
        """
        self._folder = folder
        self._context = context
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._read_only = read_only
        self._crowded = crowded
        self._bytes = 0  # about: what others write or delete is seen at the next look
        self._ailing = False
        self.tidy()

    def find(self, series: PreparedSeries) -> Latents | None:
        """The series' latents, bit for bit as they were kept; None where there are none."""
        path = self._path(series)
        try:
            content = path.read_bytes()
            latents = _opened(content, path.name, len(series.patches))
            if not self._read_only:
                os.utime(path)  # the least recently used go first
        except FileNotFoundError:
            return None
        except Damaged:
            log(Event.LATENTS_DAMAGED, "warning", bytes=len(content))
            if not self._read_only:
                self._delete(path)
            return None
        except OSError as error:
            self._ails(error)
            return None
        return latents

    def keep(self, series: PreparedSeries, latents: Latents) -> None:
        """Write an entry, whole or not at all. A full disk gets back all that is kept: images need it more."""
        if self._read_only or not np.isfinite(latents).all() or self.give_way():
            return
        path = self._path(series)
        content = _closed(latents, path.name)
        if len(content) > self._most_bytes:
            return
        try:
            make_folder(self._folder)
            self._write(path, content)
        except OSError as error:
            self._ails(error)
            if error.errno in _FULL:
                self._make_room(0)
            return
        self._ailing = False
        self._bytes += len(content)
        if self._bytes > self._most_bytes:
            self._make_room(int(self._most_bytes * ROOM))

    def give_way(self) -> bool:
        """Delete all that is kept where images need the room; whether they do."""
        crowded = not self._read_only and self._crowded()
        if crowded:
            self._make_room(0)
        return crowded

    def tidy(self) -> None:
        """Delete what was not used for long, what is too much, and what nobody finished writing."""
        if self._read_only or self.give_way():
            return
        now = time.time()
        for path, size, used in self._entries():
            if now - used > self._most_seconds:
                self._delete(path, size)
        for path in self._folder.glob(_PARTS):
            with suppress(OSError):
                if now - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()
        self._make_room(self._most_bytes)

    def _path(self, series: PreparedSeries) -> Path:
        patches = np.ascontiguousarray(series.patches, "<f4")
        digest = hashlib.sha256(self._context)
        digest.update(json.dumps([series.thin_axis, patches.shape]).encode())
        digest.update(patches.data)
        return self._folder / digest.hexdigest()

    def _write(self, path: Path, content: bytes) -> None:
        # Not fsynced: what a power cut leaves behind is found out by its checksum.
        temporary = path.with_name(f".{secrets.token_hex(16)}.part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, most_bytes: int) -> None:
        """Delete the least recently used entries until no more than so many bytes are left."""
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        self._bytes = sum(size for _, size, _ in entries)
        for path, size, _ in entries:
            if self._bytes <= most_bytes:
                break
            self._delete(path, size)

    def _entries(self) -> Iterator[tuple[Path, int, float]]:
        """Every entry, its size, and when it was last used."""
        for path in self._folder.glob("[0-9a-f]*"):
            with suppress(OSError):  # another process was quicker
                status = path.stat()
                yield path, status.st_size, status.st_mtime

    def _delete(self, path: Path, size: int = 0) -> None:
        with suppress(OSError):
            path.unlink()
            self._bytes -= size

    def _ails(self, error: OSError) -> None:
        """Said once, until something can be kept again."""
        if not self._ailing:
            log(Event.LATENTS_NOT_KEPT, "warning", error=type_and_place(error))
        self._ailing = True


def _closed(latents: Latents, name: str) -> bytes:
    """An entry: mark, digest of the rest and of its name, header, numbers in the fewest bytes that hold them."""
    numbers = np.ascontiguousarray(latents, "<f4").view("<u4")
    short = not (numbers & 0xFFFF).any()  # computed in bf16, which is the upper half of a float32
    data = ((numbers >> 16).astype("<u2") if short else numbers).tobytes()
    body = _HEADER.pack(2 if short else 4, *latents.shape) + data
    return _MAGIC + _seal(body, name) + body


def _opened(content: bytes, name: str, patches: int) -> Latents:
    """The latents of so many patches. Raises Damaged."""
    start = len(_MAGIC) + _DIGEST
    body = content[start:]
    if content[:start] != _MAGIC + _seal(body, name):
        raise Damaged("not the bytes that were written")
    width, *shape = _HEADER.unpack_from(body)
    if shape[0] != patches:
        raise Damaged("of another number of patches")
    numbers = np.frombuffer(body, "<u2" if width == 2 else "<u4", offset=_HEADER.size)
    if width == 2:
        numbers = numbers.astype("<u4") << 16
    latents: Latents = numbers.astype(np.uint32).view(np.float32).reshape(shape)
    return latents


def _seal(body: bytes, name: str) -> bytes:
    return hashlib.sha256(name.encode() + body).digest()
