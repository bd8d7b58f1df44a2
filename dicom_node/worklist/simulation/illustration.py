"""A made-up room of three sites, to show what a simulation says. It describes no real hospital.

`deploy/simulation.example.toml` writes it out.
"""

from __future__ import annotations

from dicom_node.base.types import Level
from dicom_node.worklist.simulation.scenario import (
    AgeBand,
    Duration,
    Finding,
    Flag,
    Orders,
    Scenario,
    Site,
    Staff,
)

UNIVERSITY_HOSPITAL = Site(
    name="university hospital",
    weekday=(1.5,) * 6 + (2.0,) + (4.0,) * 2 + (6.0,) * 8 + (4.0,) * 3 + (2.5,) * 2 + (1.5,) * 2,
    weekend=(1.2,) * 8 + (2.5,) * 10 + (1.5,) * 6,
    prevalence_ratio=1.2,
)
COMMUNITY_HOSPITAL = Site(
    name="community hospital",
    weekday=(0.6,) * 7 + (2.5,) * 2 + (4.0,) * 8 + (2.0,) * 3 + (0.8,) * 4,
    weekend=(0.5,) * 8 + (1.2,) * 10 + (0.6,) * 6,
)
OUTPATIENT_CENTRE = Site(
    name="outpatient centre",
    weekday=(0.0,) * 7 + (4.0,) + (6.0,) * 9 + (2.0,) * 2 + (0.0,) * 5,
    weekend=(0.0,) * 24,
    days=(1.1, 1.0, 1.0, 1.0, 0.9, 1.0, 1.0),
    prevalence_ratio=0.3,
)
CRITICAL = Finding(
    level=Level.CRITICAL,
    prevalence=0.02,
    stat_share=0.5,
    sensitivity=0.9,
    flagged_as=Level.CRITICAL,
    reading=Duration(mean_minutes=14.0),
)
URGENT = Finding(
    level=Level.URGENT,
    prevalence=0.06,
    stat_share=0.25,
    sensitivity=0.8,
    flagged_as=Level.URGENT,
    reading=Duration(mean_minutes=13.0),
)
ILLUSTRATION = Scenario(
    sites=(UNIVERSITY_HOSPITAL, COMMUNITY_HOSPITAL, OUTPATIENT_CENTRE),
    age_bands=(
        AgeBand(name="under 18", share=0.08, prevalence_ratio=0.6),
        AgeBand(name="18 to 64", share=0.56, prevalence_ratio=0.8),
        AgeBand(name="65 and over", share=0.36, prevalence_ratio=1.4),
    ),
    findings=(CRITICAL, URGENT),
    orders=Orders(stat_share=0.12, stat_level=Level.URGENT),
    flag=Flag(specificity=0.92, false_level=Level.URGENT, delay=Duration(mean_minutes=4.0, variation=0.5)),
    readers=Staff(
        weekday=(1,) * 8 + (3,) * 4 + (2,) + (3,) * 5 + (2,) * 2 + (1,) * 4,
        weekend=(1,) * 24,
    ),
    reading=Duration(mean_minutes=11.0),
)
