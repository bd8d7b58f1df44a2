"""Which of the images that were received under a study's name count: a pure rule, the same in whatever order they came.

An image may be there in several versions: the same pixels under one SOP Instance UID with other identifiers or labels.
The one that was received last counts. Where that changed who the study is of, or which order, images that were not
sent again with the new identity are no evidence: two identities never go into one result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dicom_node.base.types import Standing
from prima_core.base.patient import contradiction, merge_patient_keys, same_patient

CONTRADICTION = "\\"  # no legal accession number, so no order has it
JUDGED = frozenset({Standing.CURRENT, Standing.UNCORRECTED, Standing.REJECTED})
# What was superseded stays so; files that are gone still say whose images they were.
KNOWN = JUDGED | {Standing.SUPERSEDED, Standing.LOST, Standing.EXPIRED}


@dataclass(frozen=True)
class Identity:
    """Of whom, and for which order, an image says that it is. Empty parts say nothing."""

    patient_key: str
    issuer: str = ""
    accession_number: str = ""

    def agrees(self, other: Identity) -> bool:
        """Whether no part contradicts the other's."""
        pairs = (self.issuer, other.issuer), (self.accession_number, other.accession_number)
        return same_patient(self.patient_key, other.patient_key) and all(
            one == two or not one or not two for one, two in pairs
        )


@dataclass(frozen=True)
class Version:
    """One received version of an image, as its row has it."""

    path: str
    sop_instance_uid: str
    identity: Identity
    received_at: float
    standing: Standing

    @property
    def age(self) -> tuple[float, str]:
        """Grows with the time at which it was received; no two are equal."""
        return self.received_at, self.path


@dataclass(frozen=True)
class Judged:
    """What the versions of a study's images make of it.

    standings: by path. contradicted: paths of superseded versions that said another identity. evidence: what counts,
    the latest correction of identity first, then in the order of arrival.
    """

    standings: dict[str, Standing]
    contradicted: frozenset[str]
    evidence: tuple[Version, ...]

    @property
    def two_patients(self) -> bool:
        """Whether what counts is of more than one patient."""
        return bool(contradiction(one.identity.patient_key for one in self.evidence))

    @property
    def patient_key(self) -> str:
        """Who the patient is, as far as any of the evidence says it."""
        key = ""
        for one in self.evidence:
            key = merge_patient_keys(key, one.identity.patient_key)
        return key

    @property
    def accession_number(self) -> str:
        """The one accession number of the evidence, see `one_of`."""
        number = ""
        for one in self.evidence:
            number = one_of(number, one.identity.accession_number)
        return number


def one_of(known: str, said: str) -> str:
    """A study's accession number; images that disagree leave it without one for good."""
    return known if not said or known == said else (said if not known else CONTRADICTION)


def judge(versions: Sequence[Version], is_rejected: Callable[[Version], bool]) -> Judged:
    """The standings of a study's images.

    versions: all whose standing is in KNOWN. is_rejected: whether a rejection note names this version's image and is of
    its patient.
    """
    corrections = list(_corrections(versions))
    newest = max((after for _, after in corrections), key=lambda one: one.age, default=None)
    corrected = {after.path for _, after in corrections}
    former = {before.identity for before, _ in corrections}
    standings = {one.path: one.standing for one in versions}
    for one in versions:
        if one.standing not in JUDGED:
            continue
        if is_rejected(one):
            standings[one.path] = Standing.REJECTED
        elif newest is None or one.identity.agrees(newest.identity):
            standings[one.path] = Standing.CURRENT
        elif one.path in corrected or any(one.identity.agrees(before) for before in former):
            standings[one.path] = Standing.UNCORRECTED
        else:
            standings[one.path] = Standing.CURRENT
    counts = [one for one in versions if standings[one.path] is Standing.CURRENT]
    counts.sort(key=lambda one: (one is not newest, one.age))
    return Judged(standings, frozenset(before.path for before, _ in corrections), tuple(counts))


def _corrections(versions: Sequence[Version]) -> Iterable[tuple[Version, Version]]:
    """Each superseded version that said another identity, with the version that counts instead."""
    of_image: dict[str, list[Version]] = defaultdict(list)
    for one in versions:
        of_image[one.sop_instance_uid].append(one)
    for same in of_image.values():
        last = max((one for one in same if one.standing is not Standing.SUPERSEDED), key=lambda o: o.age, default=None)
        for one in same:
            if one.standing is Standing.SUPERSEDED and last is not None and not one.identity.agrees(last.identity):
                yield one, last
