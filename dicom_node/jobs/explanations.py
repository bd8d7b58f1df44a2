"""What is to be explained of results on their images: worked on once no study waits, after the report has gone out."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import LostClaim
from dicom_node.base.types import Claim, DeliveryState, StudyState, ToSend
from dicom_node.jobs.claims import claim_of
from dicom_node.jobs.database import Database, is_over
from dicom_node.jobs.tables import deliveries, explanations, predictions, results, studies
from dicom_node.jobs.transitions import lock_study

MOST_ATTEMPTS = 3
RETRY_SECONDS = 60.0
OVERTAKEN = "the study was changed before the result was explained"
GAVE_UP = "the worker stopped while it explained this result, as often as attempts are allowed"
HAS_RESULT = (StudyState.REPORTED, StudyState.DELIVERED)


class ExplanationState(enum.StrEnum):
    """Where an explanation is. `failed` says why in its note; `overtaken` has a newer result beside it."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    OVERTAKEN = "overtaken"


@dataclass(frozen=True)
class OwedExplanation:
    """A result to explain, taken by one worker. logits: task → output → logit, as the result's bundle said them."""

    result_id: int
    owner: str
    claim: Claim
    report_uid: str
    bundle_id: str
    precision: str
    logits: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class ExplanationView:
    """An explanation as people and scripts see it."""

    state: str
    attempts: int
    note: str | None
    document: tuple[dict[str, Any], ...]


class ExplanationBook(Database):
    """Explanations of results."""

    def claim_explanation(self, owner: str, lease_until: float, at: float) -> OwedExplanation | None:
        """Take the oldest one that nobody works on; None when there is none.

        The try counts from now on, so that a result that brings the worker down is not tried for ever.
        """
        free = sa.or_(explanations.c.lease_until.is_(None), is_over(explanations.c.lease_until, at))
        query = (
            sa.select(explanations)
            .where(explanations.c.state == ExplanationState.PENDING, free)
            .order_by(explanations.c.result_id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._write() as connection:
            while (row := connection.execute(query).one_or_none()) is not None:
                owed = self._owed(connection, row, owner)
                if owed is None:
                    _end(connection, row.result_id, ExplanationState.OVERTAKEN, at, note=OVERTAKEN)
                elif row.attempts >= MOST_ATTEMPTS:
                    _end(connection, row.result_id, ExplanationState.FAILED, at, note=GAVE_UP)
                else:
                    taken = {"owner": owner, "lease_until": lease_until, "attempts": row.attempts + 1}
                    connection.execute(_this(row.result_id).values(taken))
                    return owed
        return None

    def explanation_waits(self) -> bool:
        """Whether a result is to be explained."""
        query = sa.select(explanations.c.result_id).where(explanations.c.state == ExplanationState.PENDING).limit(1)
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def give_back_explanation(self, owed: OwedExplanation) -> None:
        """A study goes first, or the node stops: the try does not count."""
        values = {"owner": None, "lease_until": None, "attempts": explanations.c.attempts - 1}
        with self._write() as connection:
            connection.execute(_this(owed.result_id, owed.owner).values(values))

    def renew_explanation(self, owed: OwedExplanation, lease_until: float) -> None:
        """Say that it is still worked on."""
        with self._write() as connection:
            connection.execute(_this(owed.result_id, owed.owner).values(lease_until=lease_until))

    def finish_explanation(
        self,
        owed: OwedExplanation,
        objects: Sequence[ToSend],
        document: Sequence[Mapping[str, Any]],
        at: float,
        *,
        report_uid: str | None,
        note: str | None = None,
    ) -> None:
        """Record what was found and what is to be sent, in one transaction.

        Raises LostClaim when the study changed meanwhile, or somebody else took it: then nothing is sent.
        """
        with self._write() as connection:
            lock_study(connection, owed.claim.study_id)  # whoever withdraws the result now waits, or was first
            row = connection.execute(
                sa.select(explanations)
                .where(explanations.c.result_id == owed.result_id, explanations.c.owner == owed.owner)
                .with_for_update()
            ).one_or_none()
            if row is None or self._owed(connection, row, owed.owner) is None:
                raise LostClaim(OVERTAKEN)
            values = {"report_uid": report_uid, "document": list(document), "note": note}
            _end(connection, owed.result_id, ExplanationState.DONE, at, **values)
            for item in objects:
                connection.execute(
                    deliveries.insert().values(
                        result_id=owed.result_id,
                        study_id=owed.claim.study_id,
                        destination=item.destination,
                        kind=item.kind,
                        path=item.path,
                        state=DeliveryState.PENDING,
                        next_attempt_at=at,
                    )
                )

    def fail_explanation(
        self, owed: OwedExplanation, note: str, at: float, *, final: bool, counts: bool = True
    ) -> None:
        """Say why there is none. final: trying again would not help; counts: the try is one of those allowed.

        Nothing happens where somebody else took it over. It is tried again after a while.
        """
        mine = _this(owed.result_id, owed.owner)
        with self._write() as connection:
            if final or (counts and owed_attempts(connection, owed.result_id) >= MOST_ATTEMPTS):
                failed = {"state": ExplanationState.FAILED, "finished_at": at, "owner": None, "lease_until": None}
                connection.execute(mine.values(failed | {"note": note}))
                return
            waits = {"owner": None, "lease_until": at + RETRY_SECONDS, "note": note}
            less = {} if counts else {"attempts": explanations.c.attempts - 1}
            connection.execute(mine.values(waits | less))

    def explanation(self, study: str) -> ExplanationView | None:
        """That of a study's newest result; None where nothing is to be explained."""
        newest = sa.select(sa.func.max(results.c.id)).where(results.c.study_id == study).scalar_subquery()
        with self._read() as connection:
            row = connection.execute(sa.select(explanations).where(explanations.c.result_id == newest)).one_or_none()
        return None if row is None else ExplanationView(row.state, row.attempts, row.note, tuple(row.document))

    @staticmethod
    def _owed(connection: sa.Connection, row: Any, owner: str) -> OwedExplanation | None:
        """None when the result was withdrawn or is not its study's newest any more, or the study is run again."""
        query = (
            sa.select(results, predictions.c.logits)
            .join(
                predictions,
                sa.and_(
                    predictions.c.study_id == results.c.study_id,
                    predictions.c.revision == results.c.revision,
                    predictions.c.bundle_id == results.c.bundle_id,
                ),
            )
            .where(results.c.id == row.result_id, results.c.withdrawn_at.is_(None))
        )
        result = connection.execute(query).one_or_none()
        if result is None:
            return None
        study = connection.execute(
            sa.select(studies).where(
                studies.c.id == result.study_id,
                studies.c.revision == result.revision,
                studies.c.state.in_(HAS_RESULT),
            )
        ).one_or_none()
        if study is None:
            return None
        return OwedExplanation(
            result_id=row.result_id,
            owner=owner,
            claim=claim_of(connection, study),
            report_uid=result.sop_instance_uid,
            bundle_id=result.bundle_id,
            precision=result.precision,
            logits=result.logits,
        )


def owe_explanation(connection: sa.Connection, result: int, at: float) -> None:
    """Have a result explained, in the transaction that records it."""
    connection.execute(explanations.insert().values(result_id=result, state=ExplanationState.PENDING, created_at=at))


def explain_again(connection: sa.Connection, result: int) -> bool:
    """Have a result explained whose explanation failed; whether there was one."""
    failed = explanations.c.state == ExplanationState.FAILED
    again = _this(result).where(failed).values(state=ExplanationState.PENDING, attempts=0, note=None)
    return bool(connection.execute(again).rowcount)


def explained_reports(connection: sa.Connection, result: int) -> list[str]:
    """SOP Instance UID of a result's explained report, if one was made that left the node or will."""
    of_result = deliveries.c.result_id == explanations.c.result_id
    stays = deliveries.c.state.in_([DeliveryState.SET_ASIDE, DeliveryState.WITHDRAWN]) & (deliveries.c.attempts < 2)
    later = sa.exists().where(of_result, deliveries.c.kind == "sr", deliveries.c.path != results.c.path, ~stays)
    query = (
        sa.select(explanations.c.report_uid)
        .join(results, results.c.id == explanations.c.result_id)
        .where(results.c.id == result, explanations.c.report_uid.is_not(None), later)
    )
    return [uid for uid in connection.scalars(query) if uid is not None]


def owed_attempts(connection: sa.Connection, result: int) -> int:
    """How often a result was tried to be explained."""
    query = sa.select(explanations.c.attempts).where(explanations.c.result_id == result)
    return connection.scalar(query) or 0


def _this(result: int, owner: str | None = None) -> sa.Update:
    mine = explanations.c.result_id == result
    return explanations.update().where(mine if owner is None else mine & (explanations.c.owner == owner))


def _end(connection: sa.Connection, result: int, state: ExplanationState, at: float, **values: Any) -> None:
    ended = {"state": state, "finished_at": at, "owner": None, "lease_until": None}
    connection.execute(_this(result).values(ended | values))
