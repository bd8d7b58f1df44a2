"""A reading room as its site describes it: who sends, who reads, what is found, and what the flag is able to do.

Read from TOML; every key is documented in `deploy/simulation.example.toml`, and a test fails when one is missing there.
What a site must know about itself has no default.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from dicom_node.base.config import Section
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.types import Level
from dicom_node.worklist.simulation.estimate import FEWEST

Name = Annotated[str, StringConstraints(pattern=r"^\w[\w .+–-]{0,31}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0)]
PerHour = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=24, max_length=24)]
Readers = Annotated[tuple[Annotated[int, Field(ge=0, le=1000)], ...], Field(min_length=24, max_length=24)]
FoundLevel = Literal[Level.ELEVATED, Level.URGENT, Level.CRITICAL]

LEVELS = tuple(Level)
WEEKDAYS, DAYS = 5, 7


class Duration(Section):
    """A random time in minutes. variation: standard deviation over mean, of a lognormal time."""

    distribution: Literal["lognormal", "exponential", "constant"] = "lognormal"
    mean_minutes: Annotated[float, Field(gt=0)]
    variation: Annotated[float, Field(gt=0)] = 0.6

    @model_validator(mode="after")
    def _one_shape(self) -> Duration:
        if self.distribution != "lognormal" and "variation" in self.model_fields_set:
            raise ValueError("variation belongs to lognormal times only")
        return self


class Run(Section):
    """How long and how often. Margin days are simulated before and after the measured weeks and not counted."""

    weeks: Annotated[int, Field(ge=1)] = 4
    margin_days: Annotated[int, Field(ge=0)] = 7
    replications: Annotated[int, Field(ge=FEWEST)] = 30
    seed: Annotated[int, Field(ge=0)] = 1

    @property
    def measured(self) -> tuple[int, int]:
        """The first measured day and the first one after, counted from a Monday."""
        return self.margin_days, self.margin_days + self.weeks * DAYS


class Site(Section):
    """Who sends studies: how many an hour from midnight on; `days` scales Monday … Sunday."""

    name: Name
    weekday: PerHour
    weekend: PerHour
    days: Annotated[tuple[Ratio, ...], Field(min_length=DAYS, max_length=DAYS)] = (1.0,) * DAYS
    prevalence_ratio: Ratio = 1.0

    @property
    def rates(self) -> tuple[float, ...]:
        """Studies an hour for each of the week's 168 hours, from Monday midnight on."""
        hours = (self.weekday if day < WEEKDAYS else self.weekend for day in range(DAYS))
        return tuple(rate * ratio for profile, ratio in zip(hours, self.days, strict=True) for rate in profile)


class AgeBand(Section):
    """A share of the patients, and how much likelier a finding is among them."""

    name: Name
    share: Share
    prevalence_ratio: Ratio = 1.0


class Finding(Section):
    """Something that makes a study urgent in truth, whatever its order says.

    stat_share: how many of these studies are ordered STAT anyway. sensitivity: how many of them the flag marks.
    reading: time to read one; left out, it is that of any other study.
    """

    level: FoundLevel
    prevalence: Share
    stat_share: Share
    sensitivity: Share
    flagged_as: FoundLevel
    reading: Duration | None = None


class Orders(Section):
    """What orders say without any flag: the share of STAT among studies without a finding, and the level of STAT."""

    stat_share: Share
    stat_level: FoundLevel


class Flag(Section):
    """The flag on studies without a finding, and its delay from the last image to the changed priority."""

    specificity: Share
    false_level: FoundLevel
    delay: Duration


class Staff(Section):
    """Readers on duty in each hour from midnight on. Who goes off duty finishes the study at hand."""

    weekday: Readers
    weekend: Readers

    @property
    def on_duty(self) -> tuple[int, ...]:
        """Readers for each of the week's 168 hours, from Monday midnight on."""
        return self.weekday * WEEKDAYS + self.weekend * (DAYS - WEEKDAYS)


class Scenario(Section):
    """The whole file. Raises ValidationError when it contradicts itself or the room can never catch up."""

    run: Run = Run()
    sites: Annotated[tuple[Site, ...], Field(min_length=1)]
    age_bands: Annotated[tuple[AgeBand, ...], Field(min_length=1)]
    findings: tuple[Finding, ...]
    orders: Orders
    flag: Flag
    readers: Staff
    reading: Duration

    @model_validator(mode="after")
    def _check(self) -> Scenario:
        for key, names in (
            ("sites", [site.name for site in self.sites]),
            ("age_bands", [band.name for band in self.age_bands]),
            ("findings", [finding.level for finding in self.findings]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: two of them have the same name or level")
        if abs(sum(band.share for band in self.age_bands) - 1) > 1e-6:
            raise ValueError("age_bands: the shares do not add up to 1")
        for site in self.sites:
            for band in self.age_bands:
                if sum(self.prevalences(site, band)) > 1:
                    raise ValueError(f"findings: more than every study at '{site.name}', '{band.name}' has one")
        if not any(rate for site in self.sites for rate in site.rates):
            raise ValueError("sites: no study ever arrives")
        if self.load >= 1:
            raise ValueError(f"readers: the studies need {self.load:.2f} times the hours on duty; the queue never ends")
        return self

    def prevalences(self, site: Site, band: AgeBand) -> tuple[float, ...]:
        """The probability of each finding for a patient of this age at this site."""
        return tuple(f.prevalence * site.prevalence_ratio * band.prevalence_ratio for f in self.findings)

    @property
    def reading_times(self) -> tuple[Duration, ...]:
        """The reading time of each finding, and last that of studies without one."""
        return (*(finding.reading or self.reading for finding in self.findings), self.reading)

    @property
    def load(self) -> float:
        """Expected reading time over time on duty, in an average week. Infinite when nobody is ever on duty."""
        minutes = [time.mean_minutes for time in self.reading_times]
        work = 0.0
        for site in self.sites:
            for band in self.age_bands:
                found = self.prevalences(site, band)
                mean = sum(p * m for p, m in zip((*found, 1 - sum(found)), minutes, strict=True))
                work += sum(site.rates) * band.share * mean
        on_duty = 60.0 * sum(self.readers.on_duty)
        return work / on_duty if on_duty else float("inf")


def load_scenario(path: Path) -> Scenario:
    """Read and check a TOML file. Raises ConfigurationError naming the key and the reason."""
    try:
        return Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigurationError(f"no scenario at {path}: copy deploy/simulation.example.toml there") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ValidationError as error:
        wrong = ("{}: {}".format(".".join(map(str, item["loc"])), item["msg"]).lstrip(": ") for item in error.errors())
        raise ConfigurationError(f"{path}: {'; '.join(wrong)}") from error
