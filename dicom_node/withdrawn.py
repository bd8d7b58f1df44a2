"""A person's withdrawals, in files beside the spool: they hold although the registry is lost and rebuilt from there.

One file a study. It names the images of every withdrawn result by a digest of their paths, which hold digests of their
contents. A result of exactly the images of one is withdrawn as it is made: nothing of it leaves the node, whatever the
registry knows of what came before. Any other result stands, as does that of a study that a person runs again.
A registry that was restored from a copy may know the very result and not that it was withdrawn: it is withdrawn again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicom_node.base.durable import make_folder, replace_file, sync_folder
from dicom_node.base.errors import PermanentError, RetriableError
from dicom_node.base.orders import PersonsWithdrawal
from dicom_node.base.types import Claim, Rejection
from dicom_node.jobs.registry import Registry

FOLDER = "withdrawals"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)


def remember(
    storage: Path, study: str, withdrawal: PersonsWithdrawal, images: Iterable[Iterable[str]], at: float
) -> None:
    """Keep a withdrawal. images: of each result, paths in the spool of all that it was made of. Raises OSError."""
    make_folder(storage / FOLDER)
    digests = sorted(set(map(_digest, images)))
    kept = {"rejection": withdrawal.rejection, "who": withdrawal.who, "images": digests, "at": at}
    replace_file(_file(storage, study), json.dumps(kept).encode())


def forget(storage: Path, study: str) -> None:
    """A person wants a result after all. Raises OSError."""
    file = _file(storage, study)
    if file.exists():
        file.unlink()
        sync_folder(file.parent)


def remembered(storage: Path, claim: Claim) -> PersonsWithdrawal | None:
    """The withdrawal that a result of this claim falls under. Raises RetriableError when it cannot be read now."""
    try:
        kept = json.loads(_file(storage, claim.study_id).read_bytes())
        if _digest(path for _, path in claim.images) not in _digests(kept):
            return None
        return PersonsWithdrawal(Rejection(kept["rejection"]), str(kept["who"]))
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise RetriableError(f"the study's withdrawal cannot be read ({type(error).__name__})") from error


def withdraw_again(storage: Path, registry: Registry, at: float) -> None:
    """Withdraw what stands in this registry although a person had withdrawn it: before anything is sent.

    What was made of the same images after the person's wish stands. Raises RetriableError when a file cannot be read.
    """
    for file in sorted((storage / FOLDER).glob("*.json")):
        try:
            kept = json.loads(file.read_bytes())
            images, rejection, who = _digests(kept), Rejection(kept["rejection"]), str(kept["who"])
            until = float(kept.get("at", "inf"))
        except FileNotFoundError:  # a person wants a result after all
            continue
        except UNREADABLE as error:
            raise RetriableError(
                f"a withdrawal cannot be read ({type(error).__name__}): {FOLDER}/{file.name}"
            ) from error
        if any(_digest(paths) in images for paths in registry.standing_images(file.stem, until)):
            with suppress(PermanentError):  # another node was faster
                registry.withdraw(file.stem, rejection, who, at)


def _file(storage: Path, study: str) -> Path:
    return storage / FOLDER / f"{study}.json"


def _digests(kept: dict[str, Any]) -> frozenset[str]:
    """Of the images of each withdrawn result; older files name the newest result's alone. Raises TypeError."""
    images = kept["images"]
    return frozenset([images] if isinstance(images, str) else images)


def _digest(images: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()
