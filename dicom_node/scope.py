"""The scope check as the site configured it; the same for `serve` and `infer`."""

from __future__ import annotations

from dicom_node.base.config import Configuration
from prima_core.exclusion import Exclusion
from prima_core.scope import ScopeSettings


def scope_settings(configuration: Configuration) -> ScopeSettings:
    """What `prima_core` is to check before anything is computed."""
    scope = configuration.scope
    return ScopeSettings(
        min_series=scope.min_series,
        max_kept_tokens=scope.max_kept_tokens,
        exclusion=Exclusion(
            descriptions=scope.exclude.descriptions,
            younger_than_years=scope.exclude.younger_than_years,
            older_than_years=scope.exclude.older_than_years,
        ),
    )
