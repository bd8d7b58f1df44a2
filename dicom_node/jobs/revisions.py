"""What a study's images make of the study: its identity, its evidence, and whether its results may stand.

Called, in the transaction of the cause, whenever an image came, was corrected or was rejected in a way that more than
adds to what is there. The rule itself is in `versions.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dicom_node.base.events import Event, log
from dicom_node.base.types import Rejection, Standing, StudyState
from dicom_node.jobs.flags import is_of_two_patients
from dicom_node.jobs.tables import instances, rejected_objects, rejection_notes, studies
from dicom_node.jobs.transitions import TWO_PATIENTS, lock_study, move, reopen
from dicom_node.jobs.versions import KNOWN, Identity, Judged, Version, judge
from dicom_node.jobs.withdrawals import WithdrawalBook
from prima_core.base.patient import surely_same_patient

REOPENED = "an image arrived after the study was closed"
CORRECTED = "images were sent again with other identifiers or labels"
IDENTITY_CORRECTED = "patient or accession number was corrected at the source"
REJECTED = "images of the study were rejected"
# Who says what an image is rejected as, by its SOP Instance UID: (patient key of the note, as what).
Named = Mapping[str, list[tuple[str, Rejection]]]


def rejection_of(named: Named, sop_instance_uid: str, patient_key: str) -> Rejection | None:
    """What an image is rejected as by a note of its own patient; None where by none."""
    said = [what for key, what in named.get(sop_instance_uid, ()) if surely_same_patient(key, patient_key)]
    return next((what for what in said if what is not Rejection.RETENTION), None)


class RevisionBook(WithdrawalBook):
    """Studies whose images are judged anew."""

    @staticmethod
    def _named(connection: sa.Connection, study: str) -> Named:
        """What the rejection notes of a study name."""
        query = (
            sa.select(rejected_objects.c.sop_instance_uid, rejection_notes.c.patient_key, rejection_notes.c.rejection)
            .join(rejection_notes, rejection_notes.c.path == rejected_objects.c.note)
            .where(rejection_notes.c.study_id == study)
            .order_by(rejection_notes.c.examined_at, rejection_notes.c.path)
        )
        found: dict[str, list[tuple[str, Rejection]]] = defaultdict(list)
        for uid, key, what in connection.execute(query):
            found[uid].append((key, Rejection(what)))
        return found

    @staticmethod
    def _has_versions(connection: sa.Connection, study: str) -> bool:
        """Whether any image of a study was corrected."""
        is_old = sa.and_(instances.c.study_id == study, instances.c.standing == Standing.SUPERSEDED, instances.c.image)
        return connection.execute(sa.select(instances.c.path).where(is_old).limit(1)).first() is not None

    @staticmethod
    def _evidence(connection: sa.Connection, study: str) -> set[str]:
        """Paths of the images that count of a study."""
        counts = sa.and_(instances.c.study_id == study, instances.c.image, instances.c.standing == Standing.CURRENT)
        return set(connection.scalars(sa.select(instances.c.path).where(counts)))

    def _revise(
        self, connection: sa.Connection, study: str, at: float, reason: str, before: set[str], *, arrived: bool
    ) -> None:
        """Judge a study's images anew and do what follows: withdraw, reopen, or end the study of two patients.

        before: paths of the images that counted until now. arrived: whether an image came, at that time.
        """
        row = lock_study(connection, study)
        versions = self._versions(connection, study)
        named = self._named(connection, study)
        judged = judge(versions, lambda one: _is_rejected(named, one))
        for one in versions:
            if judged.standings[one.path] is not one.standing:
                this = instances.update().where(instances.c.path == one.path)
                connection.execute(this.values(standing=judged.standings[one.path]))
        after = {one.path for one in judged.evidence}
        self._withdraw_where_wrong(connection, row, before - after, versions, judged, named, at)
        values: dict[str, Any] = {} if judged.two_patients else _identity(judged)
        if arrived:
            values["last_arrival_at"] = max(row.last_arrival_at, at)
        if values:
            connection.execute(studies.update().where(studies.c.id == study).values(**values))
        if judged.two_patients:
            self._end_of_two(connection, row, at)
        elif before != after or is_of_two_patients(row):
            revision = reopen(connection, row, at, reason)
            if revision is not None:
                log(Event.STUDY_REOPENED, study=study, revision=revision, state=row.state, reason=reason)

    @staticmethod
    def _versions(connection: sa.Connection, study: str) -> list[Version]:
        columns = (
            instances.c.path,
            instances.c.sop_instance_uid,
            instances.c.patient_key,
            instances.c.issuer,
            instances.c.accession_number,
            instances.c.received_at,
            instances.c.standing,
        )
        query = sa.select(*columns).where(
            instances.c.study_id == study, instances.c.image, instances.c.standing.in_(KNOWN)
        )
        return [
            Version(path, uid, Identity(key, issuer, number), received_at, Standing(standing))
            for path, uid, key, issuer, number, received_at, standing in connection.execute(query)
        ]

    def _withdraw_where_wrong(
        self,
        connection: sa.Connection,
        study: Any,
        left: set[str],
        versions: list[Version],
        judged: Judged,
        named: Named,
        at: float,
    ) -> None:
        """left: what counted and does not any more. That a label was corrected makes no result wrong."""
        why: dict[Rejection, str] = {}
        if judged.two_patients:
            why[Rejection.SAFETY] = TWO_PATIENTS
        for one in versions:
            if one.path not in left:
                continue
            standing = judged.standings[one.path]
            if standing is Standing.REJECTED:
                what = rejection_of(named, one.sop_instance_uid, one.identity.patient_key)
                why[what or Rejection.QUALITY] = REJECTED
            elif standing is Standing.UNCORRECTED or one.path in judged.contradicted:
                why[Rejection.WORKLIST] = IDENTITY_CORRECTED
        for what in (Rejection.SAFETY, Rejection.WORKLIST, Rejection.QUALITY):
            if what in why:
                self._withdraw_results(connection, study, what, why[what], at)

    @staticmethod
    def _end_of_two(connection: sa.Connection, study: Any, at: float) -> None:
        everywhere_else = [state for state in StudyState if state is not StudyState.DEAD]
        if move(connection, study.id, everywhere_else, StudyState.DEAD, at, reason=TWO_PATIENTS, owner=None):
            log(Event.STUDY_DEAD, "error", study=study.id, reason=TWO_PATIENTS)


def _is_rejected(named: Named, version: Version) -> bool:
    return rejection_of(named, version.sop_instance_uid, version.identity.patient_key) is not None


def _identity(judged: Judged) -> dict[str, str]:
    """What a study is to be found by; as it was where nothing counts any more."""
    if not judged.evidence:
        return {}
    return {"patient_key": judged.patient_key, "accession_number": judged.accession_number}
