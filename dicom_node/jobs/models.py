"""Which bundles are in use and who said so, and what each of them said of the studies.

Until somebody activates a bundle, the configured one is active; from then on the registry's word holds. Every change of
a role is an audit row in the same transaction. The worker looks at `model_generation` between batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dicom_node.base.errors import PermanentError
from dicom_node.base.types import (
    Claim,
    ModelAction,
    ModelIdentity,
    ModelRole,
    Prediction,
    StudyState,
)
from dicom_node.jobs.claims import certain, claim_of
from dicom_node.jobs.database import Database, is_over
from dicom_node.jobs.tables import model_changes, models, predictions, studies, study_embeddings
from dicom_node.jobs.withdrawals import withdrawn


@dataclass(frozen=True)
class KnownModel:
    """A bundle that the node was told of, see `tables.models`."""

    bundle_id: str
    path: Path
    device_uid: str
    training_state: str
    role: ModelRole | None
    since: float | None
    loaded_as: ModelRole | None
    faults: int
    problem: str | None


@dataclass(frozen=True)
class ModelChange:
    """One row of the audit."""

    at: float
    action: ModelAction
    bundle_id: str
    previous: str | None
    who: str
    forced: bool
    reason: str | None
    evaluation: str | None


@dataclass(frozen=True)
class Chosen:
    """The bundles that are to be in use. active: None while the configured one is. ran: the active one before.

    generation: grows with every change. rolled_back: whether the active one is so by a rollback.
    """

    generation: int
    active: KnownModel | None
    shadow: KnownModel | None
    ran: KnownModel | None
    rolled_back: bool


@dataclass(frozen=True)
class Order:
    """Who asks for a change, when and why. evaluation: SHA-256 of the record that allows an activation."""

    who: str
    at: float
    reason: str | None = None
    forced: bool = False
    evaluation: str | None = None


@dataclass(frozen=True)
class Owed:
    """A reported study on which the shadow has not run. number: grows with time. claim: its images, owned by nobody."""

    number: int
    claim: Claim


@dataclass(frozen=True)
class Said:
    """What one bundle said of a study. logits: as in `Prediction`."""

    logits: Mapping[str, Mapping[str, float]]
    level: str


@dataclass(frozen=True)
class Pair:
    """What two bundles said of the same revision of one study."""

    study_id: str
    first: Said
    second: Said


@dataclass(frozen=True)
class KeptStudy:
    """A study whose embedding was kept. revision: the newest one that has one and stands."""

    study_id: str
    study_instance_uid: str
    accession_number: str
    patient_key: str
    received_at: float
    revision: int


def keep_prediction(
    connection: sa.Connection, study: str, revision: int, prediction: Prediction, at: float, *, shadow: bool
) -> None:
    """Keep what a bundle said, and its study embedding unless a bundle with the same encoder left that already."""
    connection.execute(
        predictions.insert().values(
            study_id=study,
            revision=revision,
            bundle_id=prediction.bundle_id,
            shadow=shadow,
            logits=prediction.logits,
            level=prediction.level,
            precision=prediction.precision,
            seconds=prediction.seconds,
            created_at=at,
        )
    )
    if _embedding(connection, study, revision, prediction.encoder) is None:
        connection.execute(
            study_embeddings.insert().values(
                study_id=study,
                revision=revision,
                encoder=prediction.encoder,
                embedding=prediction.embedding,
                created_at=at,
            )
        )


class ModelBook(Database):
    """Bundles, their roles, the audit, and predictions."""

    def know_model(self, model: ModelIdentity, path: Path) -> None:
        """Note where a bundle lies."""
        values = {"path": str(path), "device_uid": model.device_uid, "training_state": model.training_state}
        row = self._insert(models).values(bundle_id=model.bundle_id, faults=0, **values)
        with self._write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=[models.c.bundle_id], set_=values))

    def models(self) -> list[KnownModel]:
        """Every bundle the node was told of, by id."""
        with self._read() as connection:
            return [_known(row) for row in connection.execute(sa.select(models).order_by(models.c.bundle_id))]

    def model_changes(self) -> list[ModelChange]:
        """The audit, newest first."""
        with self._read() as connection:
            rows = connection.execute(sa.select(model_changes).order_by(model_changes.c.id.desc())).all()
        return [
            ModelChange(
                row.at,
                ModelAction(row.action),
                row.bundle_id,
                row.previous,
                row.who,
                row.forced,
                row.reason,
                row.evaluation,
            )
            for row in rows
        ]

    def model_generation(self) -> int:
        """Grows with every change of which bundles are in use; 0 before the first."""
        with self._read() as connection:
            return connection.scalar(sa.select(sa.func.max(model_changes.c.id))) or 0

    def chosen_models(self) -> Chosen:
        """What is to be in use now."""
        with self._read() as connection:
            known = [_known(row) for row in connection.execute(sa.select(models))]
            generation = connection.scalar(sa.select(sa.func.max(model_changes.c.id))) or 0
            about_active = model_changes.c.action.in_([ModelAction.ACTIVATE, ModelAction.ROLLBACK])
            last = sa.select(model_changes.c.action).where(about_active).order_by(model_changes.c.id.desc()).limit(1)
            rolled_back = connection.scalar(last) == ModelAction.ROLLBACK
        of_role = {model.role: model for model in known if model.role}
        ran = next((model for model in known if model.loaded_as is ModelRole.ACTIVE), None)
        return Chosen(generation, of_role.get(ModelRole.ACTIVE), of_role.get(ModelRole.SHADOW), ran, rolled_back)

    def activate_model(self, bundle_id: str, configured: str | None, order: Order) -> None:
        """Make a known bundle the active one. configured: the id of the bundle in the configuration, if it is known.

        One that is active but could not be loaded is tried again. Raises PermanentError when it is active already.
        """
        with self._write() as connection:
            active = _holder(connection, ModelRole.ACTIVE) or configured
            problem = sa.select(models.c.problem).where(models.c.bundle_id == bundle_id)
            if active == bundle_id and connection.scalar(problem) is None:
                raise PermanentError(f"{bundle_id} is active already")
            _give_role(connection, ModelRole.ACTIVE, bundle_id, order.at)
            _audit(connection, ModelAction.ACTIVATE, bundle_id, active, order)

    def rollback_model(self, order: Order) -> str:
        """Go back to the bundle that was active before the present one was activated; its id. Raises PermanentError."""
        with self._write() as connection:
            active, before = _holder(connection, ModelRole.ACTIVE), _before(connection)
            if before is None:
                raise PermanentError(
                    "no bundle was active before this one; `dicom-node model history` shows the changes"
                )
            _give_role(connection, ModelRole.ACTIVE, before, order.at)
            _audit(connection, ModelAction.ROLLBACK, before, active, order)
        return before

    def shadow_model(self, bundle_id: str, configured: str | None, order: Order) -> None:
        """Make a known bundle the shadow, in place of another. Raises PermanentError when it is the active one."""
        with self._write() as connection:
            if bundle_id == (_holder(connection, ModelRole.ACTIVE) or configured):
                raise PermanentError(f"{bundle_id} is the active bundle")
            previous = _holder(connection, ModelRole.SHADOW)
            _give_role(connection, ModelRole.SHADOW, bundle_id, order.at)
            _audit(connection, ModelAction.SHADOW, bundle_id, previous, order)

    def stop_shadow(self, order: Order) -> str:
        """Run no shadow from now on; the id of the one that ran. Raises PermanentError when there is none."""
        with self._write() as connection:
            shadow = _holder(connection, ModelRole.SHADOW)
            if shadow is None:
                raise PermanentError("no bundle runs in shadow")
            _take_role(connection, ModelRole.SHADOW)
            _audit(connection, ModelAction.STOP_SHADOW, shadow, shadow, order)
        return shadow

    def note_model(self, bundle_id: str, *, faults: int, problem: str | None = None) -> None:
        """The worker's word on a bundle: tries in a row that failed, and why it is not in use."""
        with self._write() as connection:
            row = models.update().where(models.c.bundle_id == bundle_id)
            connection.execute(row.values(faults=faults, problem=problem))

    def model_faults(self, bundle_id: str) -> int:
        """How many tries of a bundle failed in a row, as the worker noted."""
        with self._read() as connection:
            return connection.scalar(sa.select(models.c.faults).where(models.c.bundle_id == bundle_id)) or 0

    def note_loaded(self, active: str, shadow: str | None) -> None:
        """The worker's word on what it has loaded."""
        roles = {active: ModelRole.ACTIVE} | ({shadow: ModelRole.SHADOW} if shadow else {})
        loaded_as = sa.case(*((models.c.bundle_id == name, role) for name, role in roles.items()), else_=None)
        with self._write() as connection:
            connection.execute(models.update().values(loaded_as=loaded_as))

    def study_waits(self, at: float) -> bool:
        """Whether a study waits for the active model now."""
        again = sa.and_(studies.c.state == StudyState.FAILED, is_over(studies.c.next_attempt_at, at))
        query = sa.select(studies.c.id).where((studies.c.state == StudyState.COMPLETE) | again, certain(at)).limit(1)
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def owed_to_shadow(self, bundle_id: str, since: float, after: int) -> Owed | None:
        """The first study with a newest result since then, and of a number above `after`, that the bundle lacks."""
        done = predictions.alias("done")
        ran = sa.exists().where(
            done.c.study_id == predictions.c.study_id,
            done.c.revision == predictions.c.revision,
            done.c.bundle_id == bundle_id,
        )
        has_result = studies.c.state.in_([StudyState.REPORTED, StudyState.DELIVERED])
        of_its_time = sa.select(predictions.c.id).where(predictions.c.created_at >= since)
        first = of_its_time.order_by(predictions.c.created_at).limit(1)
        query = (
            sa.select(predictions.c.id.label("number"), studies)
            .join(
                studies, sa.and_(studies.c.id == predictions.c.study_id, studies.c.revision == predictions.c.revision)
            )
            .where(predictions.c.created_at >= since, ~predictions.c.shadow, has_result, ~ran)
            .order_by(predictions.c.id)
            .limit(1)
        )
        with self._read() as connection:
            # Ids grow with time: what was predicted before the shadow is not looked through.
            oldest = connection.scalar(first)
            if oldest is None:
                return None
            row = connection.execute(query.where(predictions.c.id > max(after, oldest - 1))).one_or_none()
            return None if row is None else Owed(row.number, claim_of(connection, row))

    def keep_shadow(self, claim: Claim, prediction: Prediction, at: float) -> None:
        """What the shadow said of a reported study."""
        with self._write() as connection:
            keep_prediction(connection, claim.study_id, claim.revision, prediction, at, shadow=True)

    def keep_shadow_failure(self, claim: Claim, bundle_id: str, failure: str, at: float) -> None:
        """Why the shadow said nothing of a reported study; it is not tried again."""
        row = predictions.insert().values(
            study_id=claim.study_id,
            revision=claim.revision,
            bundle_id=bundle_id,
            shadow=True,
            logits={},
            failure=failure,
            created_at=at,
        )
        with self._write() as connection:
            connection.execute(row)

    def embedding(self, study: str, revision: int, encoder: str) -> bytes | None:
        """The study embedding that an encoder made of a revision, if it was kept: float32 little-endian."""
        with self._read() as connection:
            return _embedding(connection, study, revision, encoder)

    def kept_studies(self, encoder: str, since: float) -> list[KeptStudy]:
        """Studies received since then that have an embedding of an encoder, oldest first."""
        newest = sa.func.max(study_embeddings.c.revision).label("newest")
        of_study = sa.select(study_embeddings.c.study_id, newest).where(study_embeddings.c.encoder == encoder)
        of_study = of_study.where(~withdrawn(study_embeddings))  # made of images that were wrong, or of another person
        kept = of_study.group_by(study_embeddings.c.study_id).subquery()
        query = sa.select(studies, kept.c.newest).join(kept, kept.c.study_id == studies.c.id)
        query = query.where(studies.c.received_at >= since).order_by(studies.c.received_at, studies.c.id)
        with self._read() as connection:
            return [
                KeptStudy(
                    row.id, row.study_instance_uid, row.accession_number, row.patient_key, row.received_at, row.newest
                )
                for row in connection.execute(query)
            ]

    def patient_keys(self) -> dict[str, tuple[str, str]]:
        """Study Instance UID → the node's short id and the patient key, of all studies."""
        query = sa.select(studies.c.study_instance_uid, studies.c.id, studies.c.patient_key)
        with self._read() as connection:
            return {uid: (study, key) for uid, study, key in connection.execute(query)}

    def embeddings(self, encoder: str, wanted: Sequence[KeptStudy]) -> list[bytes]:
        """Their study embeddings, in their order, as in `embedding`. Raises PermanentError when one was deleted."""
        with self._read() as connection:
            found = [_embedding(connection, study.study_id, study.revision, encoder) for study in wanted]
        kept = [one for one in found if one is not None]
        if len(kept) < len(found):
            raise PermanentError("study embeddings were deleted meanwhile; try again")
        return kept

    def drop_embeddings(self, before: float) -> int:
        """Delete study embeddings that are older; how many."""
        with self._write() as connection:
            old = study_embeddings.c.created_at < before
            return connection.execute(study_embeddings.delete().where(old)).rowcount

    def pairs(self, first: str, second: str) -> list[Pair]:
        """What two bundles said of the same studies, of each study the newest revision that both ran on."""
        one, other = predictions.alias("one"), predictions.alias("other")
        same = sa.and_(one.c.study_id == other.c.study_id, one.c.revision == other.c.revision)
        query = (
            sa.select(
                one.c.study_id, one.c.logits, one.c.level, other.c.logits.label("others"), other.c.level.label("to")
            )
            .join(other, same)
            .where(one.c.bundle_id == first, other.c.bundle_id == second)
            .where(one.c.failure.is_(None), other.c.failure.is_(None), ~withdrawn(one))
            .order_by(one.c.study_id, one.c.revision)
        )
        with self._read() as connection:
            newest = {row.study_id: row for row in connection.execute(query)}
        return [Pair(study, Said(row.logits, row.level), Said(row.others, row.to)) for study, row in newest.items()]

    def shadow_failures(self, bundle_id: str) -> dict[str, int]:
        """Why a bundle said nothing in shadow → of how many revisions of studies."""
        failed = predictions.c.failure.is_not(None)
        query = (
            sa.select(predictions.c.failure, sa.func.count())
            .where(predictions.c.bundle_id == bundle_id, failed)
            .group_by(predictions.c.failure)
        )
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}


def _known(row: Any) -> KnownModel:
    return KnownModel(
        bundle_id=row.bundle_id,
        path=Path(row.path),
        device_uid=row.device_uid,
        training_state=row.training_state,
        role=ModelRole(row.role) if row.role else None,
        since=row.since,
        loaded_as=ModelRole(row.loaded_as) if row.loaded_as else None,
        faults=row.faults,
        problem=row.problem,
    )


def _holder(connection: sa.Connection, role: ModelRole) -> str | None:
    """The bundle that has a role; the rows stay locked until the transaction ends, so that two people take turns."""
    rows = connection.execute(sa.select(models).order_by(models.c.bundle_id).with_for_update()).all()
    return next((row.bundle_id for row in rows if row.role == role), None)


def _take_role(connection: sa.Connection, role: ModelRole) -> None:
    connection.execute(models.update().where(models.c.role == role).values(role=None, since=None))


def _give_role(connection: sa.Connection, role: ModelRole, bundle_id: str, at: float) -> None:
    """What the bundle was before, and what went wrong with it, is over."""
    _take_role(connection, role)
    row = models.update().where(models.c.bundle_id == bundle_id)
    if not connection.execute(row.values(role=role, since=at, faults=0, problem=None)).rowcount:
        raise PermanentError(f"no bundle {bundle_id} is known")


def _audit(connection: sa.Connection, action: ModelAction, bundle_id: str, previous: str | None, order: Order) -> None:
    connection.execute(
        model_changes.insert().values(
            at=order.at,
            action=action,
            bundle_id=bundle_id,
            previous=previous,
            who=order.who,
            forced=order.forced,
            reason=order.reason,
            evaluation=order.evaluation,
        )
    )


def _before(connection: sa.Connection) -> str | None:
    """What was active before the present bundle: activations and rollbacks are the pushes and pops of a stack."""
    earlier: list[str | None] = [None]
    for row in connection.execute(sa.select(model_changes).order_by(model_changes.c.id)):
        if row.action == ModelAction.ACTIVATE and row.previous != row.bundle_id:
            earlier.append(row.previous)
        elif row.action == ModelAction.ROLLBACK:
            earlier.pop()
    return earlier[-1]


def _embedding(connection: sa.Connection, study: str, revision: int, encoder: str) -> bytes | None:
    key = {"study_id": study, "revision": revision, "encoder": encoder}
    query = sa.select(study_embeddings.c.embedding).where(*(study_embeddings.c[name] == key[name] for name in key))
    found: bytes | None = connection.scalar(query)
    return found
