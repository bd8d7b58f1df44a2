"""Pure rules: which studies run together. Nobody ever waits for a batch to fill; an urgent study goes first, alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.base.types import Claim
from prima_core.base.types import PreparedStudy


@dataclass(frozen=True)
class Prepared:
    """A claimed study whose tokens are ready."""

    claim: Claim
    study: PreparedStudy


def may_take_more(held: Sequence[Prepared], token_budget: int) -> bool:
    """Whether the worker should claim another study that already waits before it runs what it holds.

    No when the budget is used, when something urgent is in hand, or after a failed attempt: a study that may have
    brought a worker down runs alone.
    """
    if any(item.claim.urgent or item.claim.attempts > 1 for item in held):
        return False
    return sum(item.study.tokens_kept for item in held) < token_budget


def split(held: Sequence[Prepared], token_budget: int) -> list[list[Prepared]]:
    """The batches to run, in order: urgent studies first and each alone, then the rest within the budget."""
    batches = [[item] for item in held if item.claim.urgent]
    current: list[Prepared] = []
    tokens = 0
    for item in (item for item in held if not item.claim.urgent):
        if current and (tokens + item.study.tokens_kept > token_budget or item.claim.attempts > 1):
            batches.append(current)
            current, tokens = [], 0
        current.append(item)
        tokens += item.study.tokens_kept
    return [*batches, current] if current else batches
