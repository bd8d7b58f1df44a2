"""Which bundles are in use, the audit, and what is kept of predictions, on every database. Nothing is loaded here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.base.errors import PermanentError
from dicom_node.base.types import Claim, Level, ModelIdentity, ModelRole, Prediction, Rejection
from dicom_node.jobs.models import Order
from dicom_node.jobs.registry import Registry
from support.studies import arrival, handover, report

BY = Order("anna", 1000.0, "because")
A, B, C = "a-1", "b-1", "c-1"


@pytest.fixture(autouse=True)
def _three_bundles(registry: Registry) -> None:
    for name in (A, B, C):
        registry.know_model(ModelIdentity(name, name, "1", "2.25.1", "clinical"), Path("/models") / name)


def active(registry: Registry) -> str | None:
    chosen = registry.chosen_models().active
    return chosen.bundle_id if chosen else None


def shadow(registry: Registry) -> str | None:
    chosen = registry.chosen_models().shadow
    return chosen.bundle_id if chosen else None


def said(bundle: str, encoder: str = "e1", logit: float = 1.0) -> Prediction:
    logits = {"diagnosis": {"x": logit}, "referral": {}, "priority": {"high": 1.0}}
    return Prediction(bundle, encoder, logits, Level.URGENT, "fp32", 0.5, bytes(8))


def run(registry: Registry, uid: str, *, at: float = 300.0, prediction: Prediction | None = None) -> Claim:
    """Have the active bundle report a study."""
    registry.record_arrivals([arrival(1, study=uid, at=at - 10)])
    registry.close_quiet(at, 0, at)
    claim = registry.claim("w", at + 60, at)
    assert claim is not None
    made = replace(report(uid), prediction=prediction or said(A), sop_instance_uid=f"2.25.{uid.replace('.', '')}")
    registry.finish_reported(claim, made, handover(), at)
    return claim


def test_nobody_has_chosen_anything_at_first(registry: Registry) -> None:
    chosen = registry.chosen_models()
    assert (chosen.generation, chosen.active, chosen.shadow, chosen.ran, chosen.rolled_back) == (
        0,
        None,
        None,
        None,
        False,
    )
    assert [model.bundle_id for model in registry.models()] == [A, B, C]


def test_an_activation_is_a_role_and_an_audit_row(registry: Registry) -> None:
    registry.activate_model(B, A, replace(BY, forced=True, evaluation="f" * 64))
    assert active(registry) == B
    [change] = registry.model_changes()
    assert (change.action, change.bundle_id, change.previous, change.who) == ("activate", B, A, "anna")
    assert (change.forced, change.reason, change.evaluation, change.at) == (True, "because", "f" * 64, 1000.0)
    assert registry.model_generation() == registry.chosen_models().generation > 0


def test_a_bundle_is_activated_once_unless_it_could_not_be_loaded(registry: Registry) -> None:
    with pytest.raises(PermanentError, match="active already"):
        registry.activate_model(A, A, BY)
    registry.activate_model(B, A, BY)
    with pytest.raises(PermanentError, match="active already"):
        registry.activate_model(B, A, BY)
    registry.note_model(B, faults=1, problem="a file is missing")
    before = registry.model_generation()
    registry.activate_model(B, A, BY)
    assert registry.model_generation() > before
    model = registry.chosen_models().active
    assert model is not None
    assert (model.problem, model.faults) == (None, 0)
    assert registry.rollback_model(BY) == A, "naming it twice is no step of its own"


def test_rollbacks_go_back_step_by_step_to_the_first(registry: Registry) -> None:
    for name in (B, C, A):
        registry.activate_model(name, A, BY)
    assert [registry.rollback_model(BY) for _ in range(3)] == [C, B, A]
    assert registry.chosen_models().rolled_back
    with pytest.raises(PermanentError, match="no bundle was active before"):
        registry.rollback_model(BY)
    assert active(registry) == A
    registry.activate_model(C, None, BY)
    assert registry.rollback_model(BY) == A
    assert [change.action for change in registry.model_changes()][:2] == ["rollback", "activate"]


def test_one_shadow_at_a_time_and_never_the_active_bundle(registry: Registry) -> None:
    with pytest.raises(PermanentError, match="active bundle"):
        registry.shadow_model(A, A, BY)
    with pytest.raises(PermanentError, match="no bundle runs in shadow"):
        registry.stop_shadow(BY)
    registry.shadow_model(B, A, BY)
    registry.shadow_model(C, A, BY)
    assert shadow(registry) == C
    registry.activate_model(C, A, BY)
    assert (active(registry), shadow(registry)) == (C, None), "what is active is no shadow any more"
    registry.shadow_model(A, None, BY)
    assert registry.stop_shadow(BY) == A
    assert shadow(registry) is None
    assert len(registry.model_changes()) == 5


def test_an_unknown_bundle_gets_no_role(registry: Registry) -> None:
    with pytest.raises(PermanentError, match="no bundle x"):
        registry.shadow_model("x", A, BY)
    assert registry.model_changes() == []


def test_the_worker_says_what_it_has_loaded(registry: Registry) -> None:
    registry.note_loaded(A, B)
    registry.note_loaded(B, None)
    assert {model.bundle_id: model.loaded_as for model in registry.models()} == {A: None, B: ModelRole.ACTIVE, C: None}
    ran = registry.chosen_models().ran
    assert ran is not None
    assert ran.bundle_id == B


def test_a_result_keeps_what_the_model_said(registry: Registry) -> None:
    claim = run(registry, "1.2.3")
    assert registry.embedding(claim.study_id, 1, "e1") == bytes(8)
    assert registry.embedding(claim.study_id, 2, "e1") is None
    assert registry.embedding(claim.study_id, 1, "e2") is None


def test_the_shadow_owes_every_reported_study_once(registry: Registry) -> None:
    run(registry, "1.1", at=300)
    run(registry, "1.2", at=400)
    first = registry.owed_to_shadow(B, 300, 0)
    assert first is not None
    assert (first.claim.study_instance_uid, len(first.claim.images), first.claim.revision) == ("1.1", 1, 1)
    registry.keep_shadow(first.claim, said(B), 500)
    second = registry.owed_to_shadow(B, 300, 0)
    assert second is not None
    assert second.claim.study_instance_uid == "1.2"
    registry.keep_shadow_failure(second.claim, B, "no memory", 500)
    assert registry.owed_to_shadow(B, 300, 0) is None
    assert registry.shadow_failures(B) == {"no memory": 1}
    assert registry.owed_to_shadow(C, 350, 0) == second, "what was reported before the shadow began is not owed"
    assert registry.owed_to_shadow(C, 350, second.number) is None
    study = registry.study("1.1")
    assert study is not None
    assert (study.state, study.deliveries, study.level) == ("reported", (), "urgent")


def test_the_first_word_of_a_shadow_that_two_nodes_ran_at_once_is_kept(registry: Registry) -> None:
    study = run(registry, "1.1", prediction=said(A))
    registry.keep_shadow(study, said(B, logit=-2.0), 500)
    registry.keep_shadow(study, said(B, logit=9.0), 501)
    registry.keep_shadow_failure(study, B, "no memory", 502)
    [pair] = registry.pairs(A, B)
    assert pair.second.logits["diagnosis"] == {"x": -2.0}
    assert registry.shadow_failures(B) == {}


def test_a_study_that_gets_new_images_is_owed_when_it_is_reported_again(registry: Registry) -> None:
    run(registry, "1.1", at=300)
    registry.record_arrivals([arrival(9, study="1.1", at=400)])
    assert registry.owed_to_shadow(B, 0, 0) is None
    registry.close_quiet(500, 0, 500)
    claim = registry.claim("w", 600, 500)
    assert claim is not None
    made = replace(report("1.1", 2), sop_instance_uid="2.25.77", prediction=said(A))
    registry.finish_reported(claim, made, handover(), 500)
    owed = registry.owed_to_shadow(B, 0, 0)
    assert owed is not None
    assert owed.claim.revision == 2


def test_pairs_are_the_newest_revisions_that_both_ran_on(registry: Registry) -> None:
    both = run(registry, "1.1", prediction=said(A, logit=1.0))
    registry.keep_shadow(both, said(B, logit=-2.0), 500)
    run(registry, "1.2")
    failed = run(registry, "1.3")
    registry.keep_shadow_failure(failed, B, "no memory", 500)
    [pair] = registry.pairs(A, B)
    assert (pair.study_id, pair.first.logits["diagnosis"], pair.second.logits["diagnosis"]) == (
        both.study_id,
        {"x": 1.0},
        {"x": -2.0},
    )
    assert (pair.first.level, pair.second.level) == ("urgent", "urgent")
    assert [other.study_id for other in registry.pairs(B, A)] == [both.study_id]


def test_what_was_said_for_a_withdrawn_result_is_no_truth(registry: Registry) -> None:
    claim = run(registry, "1.1")
    registry.keep_shadow(claim, said(B), 500)
    assert (len(registry.pairs(A, B)), len(registry.kept_studies("e1", 0))) == (1, 1)
    registry.withdraw(claim.study_id, Rejection.QUALITY, "tester", 600)
    assert (registry.pairs(A, B), registry.kept_studies("e1", 0)) == ([], [])
    assert registry.owed_to_shadow(C, 0, 0) is None


def test_a_shared_encoder_leaves_one_embedding_and_old_ones_are_dropped(registry: Registry) -> None:
    claim = run(registry, "1.1", at=300)
    registry.keep_shadow(claim, said(B, "e1"), 500)
    registry.keep_shadow(claim, said(C, "e2"), 500)
    assert registry.drop_embeddings(before=400) == 1
    assert registry.embedding(claim.study_id, 1, "e1") is None
    assert registry.embedding(claim.study_id, 1, "e2") == bytes(8)
    assert len(registry.pairs(A, B)) == 1, "what was said stays"


def test_a_study_waits_when_it_is_complete_or_due_again(registry: Registry) -> None:
    assert not registry.study_waits(100)
    registry.record_arrivals([arrival(1, at=100)])
    assert not registry.study_waits(100)
    registry.close_quiet(110, 0, 110)
    assert registry.study_waits(110)
    claim = registry.claim("w", 200, 120)
    assert claim is not None
    assert not registry.study_waits(130)
    registry.finish_failed(claim, "a reason", retry_at=300, at=140)
    assert not registry.study_waits(200)
    assert registry.study_waits(300)
