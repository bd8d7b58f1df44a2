"""The site's rule on description and age, which the scope check and the routes share."""

from __future__ import annotations

import pytest

from prima_core.exclusion import Exclusion


@pytest.mark.parametrize(
    ("exclusion", "description", "age", "reason"),
    [
        (Exclusion(), "MRI BRAIN", None, ""),
        (Exclusion(descriptions=("spine", "^mri brain$")), "MRI Brain", 40.0, "list of descriptions"),
        (Exclusion(descriptions=("spine",)), "MRI BRAIN", 40.0, ""),
        (Exclusion(younger_than_years=18), "", 18.0, ""),
        (Exclusion(younger_than_years=18), "", 17.9, "age limits"),
        (Exclusion(older_than_years=40), "", 40.0, ""),
        (Exclusion(older_than_years=40), "", 41.0, "age limits"),
        (Exclusion(older_than_years=40), "", None, "age is not known"),
    ],
)
def test_what_a_site_keeps_out(exclusion: Exclusion, description: str, age: float | None, reason: str) -> None:
    found = exclusion.reason(description, age)
    assert reason in found
    assert bool(found) == bool(reason)
