"""Protocols: typical, in range, told apart by domain, and named as the node's scope check accepts."""

from __future__ import annotations

import numpy as np
import pytest

from prima_core.anatomy import anatomy_of
from prima_core.scope import kind_of
from training.base.errors import BadTrainingData
from training.phantom.protocol import BLOCKS, DOMAINS, TIMINGS, draw_protocol
from training.phantom.types import PLANES, SEQUENCES, StudyProtocol
from training.phantom.vendors import AWAY, HOME, Habits

HABITS = list({id(scanner.habits): scanner.habits for scanner in (*HOME, *AWAY)}.values())


def protocols(domain: str, count: int = 150) -> list[StudyProtocol]:
    generator = np.random.default_rng(7)
    return [draw_protocol(generator, domain) for _ in range(count)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_three_to_six_series_in_realistic_ranges(domain: str) -> None:
    for protocol in protocols(domain):
        assert 3 <= len(protocol.series) <= 6
        kinds = [(plan.sequence, plan.plane) for plan in protocol.series]
        for plan in protocol.series:
            assert plan.sequence in SEQUENCES
            assert plan.plane in PLANES
            assert plan.description
            assert plan.protocol_name
            assert 18 <= plan.slices <= 28
            assert 192 <= plan.matrix <= 320
            assert 205 <= plan.matrix * plan.pixel_mm <= 255
            assert 4 <= plan.thickness_mm <= 6
            assert plan.spacing_mm >= plan.thickness_mm
            assert 115 <= plan.slices * plan.spacing_mm <= 175
            assert (plan.inversion_ms > 0) == (plan.sequence == "FLAIR")
            assert 0 < plan.noise < 0.1
            assert 0 <= plan.bias <= 1
        if ("ADC", "axial") in kinds:
            assert kinds[kinds.index(("ADC", "axial")) - 1] == ("DWI", "axial"), "the map follows its images"


def test_all_kinds_of_series_occur() -> None:
    drawn = {(plan.sequence, plan.plane) for protocol in protocols("home", 600) for plan in protocol.series}
    assert {sequence for sequence, _ in drawn} == set(SEQUENCES)
    assert {plane for _, plane in drawn} == set(PLANES)
    assert {kind.split()[0] for block, _ in BLOCKS for kind in block} == set(TIMINGS)


def test_the_domains_differ_in_words_scanners_and_quality() -> None:
    home, away = protocols("home"), protocols("away")
    assert not {p.site for p in home} & {p.site for p in away}
    assert not {p.vendor for p in home} & {p.vendor for p in away}
    assert not {plan.description for p in home for plan in p.series} & {
        plan.description for p in away for plan in p.series
    }
    for quality in ("noise", "bias", "thickness_mm"):
        means = [np.mean([getattr(plan, quality) for p in domain for plan in p.series]) for domain in (home, away)]
        assert means[1] > 1.1 * means[0]


def test_a_seed_gives_the_same_protocol() -> None:
    assert protocols("home", 5) == protocols("home", 5)


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(BadTrainingData, match="elsewhere"):
        draw_protocol(np.random.default_rng(0), "elsewhere")


@pytest.mark.parametrize("habits", HABITS)
def test_every_name_passes_the_scope_check(habits: Habits) -> None:
    names = [name for several in habits.series.values() for name in several]
    for name in [f"{name}{added}" for name in names for added in ("", *habits.maps.values())]:
        for text in (name, *(protocol.format(name) for protocol in habits.protocols)):
            assert kind_of((), text) == ""
            assert anatomy_of([text]).elsewhere == ()
    for study in habits.studies:
        anatomy = anatomy_of([study])
        assert anatomy.head, study
        assert not anatomy.elsewhere, study


def test_every_habit_names_every_series() -> None:
    wanted = {kind for block, _ in BLOCKS for kind in block}
    for habits in HABITS:
        computed = {"ADC axial"} if habits.maps else set()
        assert set(habits.series) == wanted - computed
        assert all(len(name) <= 64 for names in habits.series.values() for name in names), "LO, PS3.5 section 6.2"
