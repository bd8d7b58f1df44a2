"""The queue of studies: closed ones wait by priority, then age; a worker claims, and only the owner may finish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from dicom_node.base.errors import LostClaim
from dicom_node.base.fault_points import FaultPoint, passed
from dicom_node.base.orders import Handover
from dicom_node.base.types import CLINICAL, Claim, DeliveryState, Report, Standing, StudyState
from dicom_node.jobs.claims import CLOSED_BY_CAP, certain, claim_of
from dicom_node.jobs.database import is_over
from dicom_node.jobs.explanations import explained_reports, owe_explanation
from dicom_node.jobs.models import keep_prediction
from dicom_node.jobs.provenance import keep_provenance
from dicom_node.jobs.rejections import is_unexamined
from dicom_node.jobs.tables import associations, deliveries, instances, results, studies
from dicom_node.jobs.transitions import lock_study, move
from dicom_node.jobs.withdrawals import WithdrawalBook

GRACE_SECONDS = 30.0
WORKER_DIED = "the worker stopped while it ran this study, as often as attempts are allowed; see `dicom-node retry`"


class StudyQueue(WithdrawalBook):
    """Closing, claiming and finishing."""

    def close_quiet(self, quiet_since: float, opened_before: float, at: float) -> list[tuple[str, str | None]]:
        """Close studies that are complete; returns (study id, reason why it may be partial).

        Complete: no image since `quiet_since`, no association that fed it still open, no object in dispute, and no Key
        Object Selection that may reject images; or opened before `opened_before`, whatever still arrives or waits. A
        time that lies in the future, because the clock was set back, counts as now.
        """
        disputed = sa.exists().where(instances.c.study_id == studies.c.id, instances.c.standing == Standing.DISPUTED)
        unread = sa.exists().where(instances.c.study_id == studies.c.id, is_unexamined())
        feeding = sa.exists().where(
            instances.c.study_id == studies.c.id,
            instances.c.association_id == associations.c.id,
            associations.c.closed_at.is_(None),
        )
        receiving = studies.c.state == StudyState.RECEIVING
        quiet = sa.and_(studies.c.last_arrival_at <= quiet_since, ~feeding, ~disputed, ~unread)
        due = sa.or_(quiet, studies.c.opened_at <= opened_before)
        # Ordered as arrivals lock studies: no waiting in a circle.
        query = sa.select(studies.c.id, quiet.label("quiet")).where(receiving, due).order_by(studies.c.id)
        closed: list[tuple[str, str | None]] = []
        with self._write() as connection:
            for column in (studies.c.last_arrival_at, studies.c.opened_at):
                connection.execute(studies.update().where(receiving, column > at).values({column: at}))
            for study, is_quiet in connection.execute(query).all():
                partial = None if is_quiet else CLOSED_BY_CAP
                if move(
                    connection,
                    study,
                    [StudyState.RECEIVING],
                    StudyState.COMPLETE,
                    at,
                    guard=due,
                    completed_at=at,
                    partial_reason=partial,
                ):
                    closed.append((study, partial))
            if closed:
                passed(FaultPoint.CLOSING_WRITTEN)
        return closed

    def claim(self, owner: str, lease_until: float, at: float, *, untried: bool = False) -> Claim | None:
        """Take the most urgent, then oldest study that waits; None when nothing does. One atomic transaction.

        One that got an object since it was closed that may correct or reject its images waits until that is judged, for
        a while. untried: only if no attempt has failed on it, which makes it fit for the company of others; those after
        one that has must not go before it for ever.
        """
        due = sa.or_(
            studies.c.state == StudyState.COMPLETE,
            sa.and_(studies.c.state == StudyState.FAILED, is_over(studies.c.next_attempt_at, at)),
        )
        with self._write() as connection:
            row = connection.execute(
                sa.select(studies)
                .where(due, certain(at))
                .order_by(studies.c.urgent.desc(), studies.c.completed_at, studies.c.id)
                .limit(1)
                .with_for_update(skip_locked=True, key_share=True)
            ).one_or_none()
            if row is None or (untried and row.attempts):
                return None
            move(
                connection,
                row.id,
                [StudyState(row.state)],
                StudyState.RUNNING,
                at,
                owner=owner,
                lease_until=lease_until,
                attempts=row.attempts + 1,
            )
            return claim_of(connection, row, owner, row.attempts + 1)

    def renew(self, owner: str, held: Sequence[str], lease_until: float) -> None:
        """Say that the owner still works on these studies."""
        with self._write() as connection:
            connection.execute(
                studies.update()
                .where(studies.c.id.in_(held), studies.c.state == StudyState.RUNNING, studies.c.owner == owner)
                .values(lease_until=lease_until)
            )

    def give_back(self, owner: str, at: float, only: Sequence[str] | None = None) -> list[str]:
        """Return what an owner holds, or `only` some of it, to the queue; the attempt does not count."""
        mine = studies.c.owner == owner
        return self._requeue(mine if only is None else mine & studies.c.id.in_(only), at, counts=False)

    def reclaim_dead(self, owner_prefix: str, at: float, max_attempts: int) -> list[str]:
        """Return what earlier owners of this kind held when they died; the attempt counts."""
        dead = studies.c.owner.startswith(owner_prefix, autoescape=True)
        return self._requeue(dead, at, counts=True, max_attempts=max_attempts)

    def reclaim_expired(self, at: float, max_attempts: int) -> list[str]:
        """Return studies to the queue whose owner's lease ran out.

        With some grace: an owner that only could not reach the database returns them by itself, and nothing counts.
        """
        return self._requeue(
            is_over(studies.c.lease_until, at - GRACE_SECONDS), at, counts=True, max_attempts=max_attempts
        )

    def finish_reported(
        self, claim: Claim, report: Report, handover: Handover, at: float, set_aside: Sequence[str] = ()
    ) -> None:
        """Record the result, where it came from, its deliveries and the priority it gives in one transaction.

        set_aside: why series were not used, one reason a series. Raises LostClaim.
        """
        with self._write() as connection:
            reason, series = handover.hold, _counted(set_aside)
            self._finish(connection, claim, StudyState.REPORTED, at, reason, set_aside=series)
            result = connection.execute(
                results.insert()
                .values(
                    study_id=claim.study_id,
                    revision=claim.revision,
                    sop_instance_uid=report.sop_instance_uid,
                    series_instance_uid=report.series_instance_uid,
                    sop_class_uid=report.sop_class_uid,
                    path=report.path,
                    level=report.priority.level,
                    rule=report.priority.rule,
                    priority_output=report.priority_output,
                    findings=[asdict(finding) for finding in report.findings],
                    told=[asdict(listener) for listener in handover.told],
                    bundle_id=report.model.bundle_id,
                    device_uid=report.model.device_uid,
                    training_state=report.model.training_state,
                    precision=report.precision,
                    created_at=report.created_at,
                )
                .returning(results.c.id)
            ).scalar_one()
            for item in handover.objects:
                connection.execute(
                    deliveries.insert().values(
                        result_id=result,
                        study_id=claim.study_id,
                        destination=item.destination,
                        kind=item.kind,
                        path=item.path,
                        state=DeliveryState.PENDING,
                        next_attempt_at=at,
                    )
                )
            if handover.explain:
                owe_explanation(connection, result, at)
            if report.prediction is not None:
                keep_prediction(connection, claim.study_id, claim.revision, report.prediction, at, shadow=False)
            if report.provenance is not None:
                keep_provenance(connection, result, report.provenance, at)
            if handover.withdrawn is not None:
                self._withdraw_for(connection, lock_study(connection, claim.study_id), handover.withdrawn, at)
                return
            self._flag(connection, claim.study_id, at, nonclinical=handover.nonclinical)
            passed(FaultPoint.RESULT_WRITTEN)
        passed(FaultPoint.RESULT_COMMITTED)

    def finish_out_of_scope(self, claim: Claim, reason: str, at: float, set_aside: Sequence[str] = ()) -> None:
        """The model was not made for this study. set_aside: as in `finish_reported`. Raises LostClaim."""
        with self._write() as connection:
            self._finish(connection, claim, StudyState.OUT_OF_SCOPE, at, reason, set_aside=_counted(set_aside))

    def finish_failed(self, claim: Claim, reason: str, retry_at: float, at: float, *, counts: bool = True) -> None:
        """Something that may pass stood in the way; tried again at `retry_at`. Raises LostClaim.

        counts: whether this attempt is one of those that are allowed; a full disk is not the study's fault.
        """
        attempts = claim.attempts if counts else claim.attempts - 1
        with self._write() as connection:
            self._finish(connection, claim, StudyState.FAILED, at, reason, next_attempt_at=retry_at, attempts=attempts)

    def finish_dead(self, claim: Claim, reason: str, at: float) -> None:
        """A person is needed. Raises LostClaim."""
        with self._write() as connection:
            self._finish(connection, claim, StudyState.DEAD, at, reason)

    def urgent_waits(self) -> bool:
        """Whether an urgent study waits in the queue."""
        query = sa.select(studies.c.id).where(studies.c.state == StudyState.COMPLETE, studies.c.urgent).limit(1)
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def predecessors(
        self, study: str, revision: int, *, clinical_only: bool = True
    ) -> tuple[tuple[str, str, str], ...]:
        """SOP Instance, Series Instance and SOP Class UID of the latest earlier report that left the node or will.

        Both, where an explained report followed a plain one.
        """
        may = results.c.training_state == CLINICAL if clinical_only else sa.true()
        stays = deliveries.c.state.in_([DeliveryState.SET_ASIDE, DeliveryState.WITHDRAWN])
        leaves = (deliveries.c.attempts > 0) | (may & ~stays)
        sent = sa.exists().where(deliveries.c.result_id == results.c.id, deliveries.c.kind == "sr", leaves)
        query = (
            sa.select(results.c.id, results.c.sop_instance_uid, results.c.series_instance_uid, results.c.sop_class_uid)
            .where(results.c.study_id == study, results.c.revision < revision, sent)
            .order_by(results.c.revision.desc())
            .limit(1)
        )
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return ()
            uids = row.sop_instance_uid, *explained_reports(connection, row.id)
        return tuple((uid, row.series_instance_uid, row.sop_class_uid) for uid in uids)

    def _finish(
        self,
        connection: sa.Connection,
        claim: Claim,
        state: StudyState,
        at: float,
        reason: str | None,
        next_attempt_at: float | None = None,
        set_aside: Sequence[dict[str, str | int]] = (),
        **values: int,
    ) -> None:
        mine = sa.and_(studies.c.owner == claim.owner, studies.c.revision == claim.revision)
        finished = move(
            connection,
            claim.study_id,
            [StudyState.RUNNING],
            state,
            at,
            reason=reason,
            guard=mine,
            owner=None,
            lease_until=None,
            finished_at=at,
            next_attempt_at=next_attempt_at,
            set_aside=list(set_aside),
            **values,
        )
        if not finished:
            raise LostClaim("the study changed or was given to another worker while this one ran it")

    def _requeue(self, whose: sa.ColumnElement[bool], at: float, *, counts: bool, max_attempts: int = 0) -> list[str]:
        query = sa.select(studies.c.id, studies.c.attempts).where(studies.c.state == StudyState.RUNNING, whose)
        query = query.order_by(studies.c.id)
        with self._write() as connection:
            returned = []
            for study, attempts in connection.execute(query).all():
                exhausted = counts and attempts >= max_attempts
                if move(
                    connection,
                    study,
                    [StudyState.RUNNING],
                    StudyState.DEAD if exhausted else StudyState.COMPLETE,
                    at,
                    reason=WORKER_DIED if exhausted else "given back by its worker",
                    guard=whose,
                    owner=None,
                    lease_until=None,
                    attempts=attempts if counts else attempts - 1,
                ):
                    returned.append(study)
        return returned


def _counted(reasons: Sequence[str]) -> list[dict[str, str | int]]:
    return [{"reason": reason, "series": count} for reason, count in Counter(reasons).items()]
