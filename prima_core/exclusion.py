"""Studies that a site does not want read, or not sent along a route, by description and age."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Exclusion:
    """descriptions: regular expressions, case ignored; a Study Description in which one is found excludes the study.

    Ages in years. With a limit set, an unknown age excludes: the site asked for certainty.
    """

    descriptions: tuple[str, ...] = ()
    younger_than_years: float | None = None
    older_than_years: float | None = None

    def reason(self, study_description: str, age_years: float | None) -> str:
        """Why the study is excluded, in words for the administrator, or an empty string."""
        if any(re.search(pattern, study_description, re.IGNORECASE) for pattern in self.descriptions):
            return "excluded by the site's list of descriptions"
        younger, older = self.younger_than_years, self.older_than_years
        if younger is None and older is None:
            return ""
        if age_years is None:
            return "excluded by the site's age limits: the patient's age is not known"
        if (younger is not None and age_years < younger) or (older is not None and age_years > older):
            return "excluded by the site's age limits"
        return ""
