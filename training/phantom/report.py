"""A case → the statements of a report, in a radiologist's manner: what is there, what is not, and how it was looked at.

Every diagnosis of every finding is stated. Nothing is named as present that the case does not have, and what is said to
be normal or absent is chosen among what the findings cannot contradict (`wordings.NORMALS`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.base.cohort import StudyReport
from training.phantom import wordings
from training.phantom.grammar import fits, say
from training.phantom.types import Case, Finding, StudyProtocol
from training.phantom.wordings import DIAGNOSES, Wording

# What a more exact diagnosis of the same finding already says.
IMPLIED = {
    "tumor_adult_glioma": ("tumor_adult_high_grade_glioma", "tumor_adult_low_grade_glioma"),
    "vascular_hemorrhagic_intracranial_hemorrhage": (
        "vascular_hemorrhagic_intraventricular_hemorrhage",
        "vascular_hemorrhagic_subarachnoid_hemorrahage",
    ),
}
FEWEST_NORMALS, MOST_NORMALS = 2, 5
OWN_SENTENCE = 0.4  # share of the statements of a diagnosis that has sentences of its own
GRADES = ("age", "grade", "type")  # attributes that go before the noun
GRADED = 0.75  # share of the statements that say so, where it is known
SIGNED = 0.6  # share of the statements that say what it looks like


def write_report(
    case: Case, protocol: StudyProtocol, generator: np.random.Generator, follow_up: bool = False
) -> StudyReport:
    """The report of one study. follow_up: of a patient who was examined before, and in whom nothing changed.

    Raises KeyError for a diagnosis without wordings.
    """
    teller = _Teller(protocol, generator)
    findings = [teller.state(finding, key) for finding in case.findings for key in _keys(finding) or [finding.kind]]
    if follow_up and case.findings:
        findings.append(teller.repeat(case.findings[0]))
    items = [*_shuffled(findings, generator), *_normals(case, generator)]
    if generator.random() < 0.5:
        items.insert(0, say(wordings.LATER_VISIT if follow_up else wordings.FIRST_VISIT, {}, generator))
    impression = teller.conclude(case.findings[0]) if case.findings else say(wordings.WHOLLY_NORMAL, {}, generator)
    return StudyReport((_technique(protocol, generator), *items, impression))


@dataclass(frozen=True)
class _Teller:
    """Speaks of findings, as a study with these series shows them."""

    protocol: StudyProtocol
    generator: np.random.Generator

    def state(self, finding: Finding, key: str) -> str:
        """One of the finding's diagnoses, in the diagnosis' own sentences or in general ones."""
        wording = _wording(finding, key)
        noun, slots = self._named(finding, key)
        own = [pattern for pattern in wording.sentences if fits(pattern, slots)]
        if own and self.generator.random() < OWN_SENTENCE:
            return say(own, slots, self.generator)
        return say(_for(noun, finding, wordings.ONE, wordings.SEVERAL, wordings.UNCOUNTABLE), slots, self.generator)

    def repeat(self, finding: Finding) -> str:
        """The finding as known from the study before."""
        noun, slots = self._named(finding, _main(finding))
        return say(_for(noun, finding, wordings.AGAIN, wordings.AGAIN_SEVERAL, wordings.AGAIN), slots, self.generator)

    def conclude(self, finding: Finding) -> str:
        """The finding as an impression names it."""
        noun, slots = self._named(finding, _main(finding))
        patterns = wordings.IMPRESSION_ONE, wordings.IMPRESSION_SEVERAL, wordings.IMPRESSION_UNCOUNTABLE
        return say(_for(noun, finding, *patterns), slots, self.generator)

    def _named(self, finding: Finding, key: str) -> tuple[str, dict[str, str]]:
        noun = _pick(_wording(finding, key).nouns, self.generator)
        return noun, _slots(finding, key, noun, self.protocol, self.generator)


def _technique(protocol: StudyProtocol, generator: np.random.Generator) -> str:
    sequences = dict.fromkeys(plan.sequence for plan in protocol.series)
    planes = {sequence: _planes(protocol, sequence) for sequence in sequences}
    names = [f"{planes[sequence]} {_pick(wordings.SEQUENCES[sequence], generator)}" for sequence in sequences]
    contrast = wordings.WITH_CONTRAST if "T1C" in sequences else wordings.WITHOUT_CONTRAST
    slots = {
        "series": _listed(names),
        "contrast": _pick(contrast, generator),
        "field": f"{protocol.field_strength:g} T",
    }
    return say(wordings.TECHNIQUE, slots, generator)


def _planes(protocol: StudyProtocol, sequence: str) -> str:
    return _listed(list(dict.fromkeys(plan.plane for plan in protocol.series if plan.sequence == sequence)))


def _normals(case: Case, generator: np.random.Generator) -> list[str]:
    """Some of the statements that no finding contradicts, in the usual order."""
    free = [normal.sentences for normal in wordings.NORMALS if not contradicted(normal.unless, case)]
    free += [(sentence,) for sentence in wordings.ALWAYS]
    count = int(generator.integers(FEWEST_NORMALS, MOST_NORMALS + 1))
    chosen = sorted(generator.permutation(len(free))[:count])
    return [say(free[index], {}, generator) for index in chosen]


def contradicted(unless: Sequence[str], case: Case) -> bool:
    """Whether a diagnosis of the case begins with one of `unless`."""
    return any(key.startswith(tuple(unless)) for key in case.diagnoses)


def _slots(
    finding: Finding, key: str, noun: str, protocol: StudyProtocol, generator: np.random.Generator
) -> dict[str, str]:
    """Size, number and grade belong to what the finding is before all, not to what comes with it."""
    wording, main = _wording(finding, key), key == _main(finding)
    one, _, several = noun.partition("/")
    grade = next((finding.attributes[name] for name in GRADES if name in finding.attributes), "") if main else ""
    if grade and generator.random() < GRADED:
        one, several = f"{grade} {one}", f"{grade} {several or one}"
    shown = {"", *(plan.sequence for plan in protocol.series)}
    signs = [sign.text for sign in wording.signs if sign.sequence in shown and _has(finding, sign.when)]
    where, place = _place(finding, wording.towards)
    size = _size(finding.size_mm, generator) if main and wording.sized else ""
    scattered = finding.count > 1 and finding.side != "both"  # the site is the largest one's
    largest = "the largest" + (f" {where}" if scattered and where else "") + (f", {size}" if size else "")
    return {
        "noun": one,
        "nouns": several or one,
        "noun_a": f"{'an' if one[0].lower() in 'aeiou' else 'a'} {one}" if "/" in noun else one,
        "where": "" if scattered else where,
        "place": "" if scattered else place,
        "largest": largest if largest != "the largest" else "",
        "size": size,
        "grade": grade,
        "count": _count(finding.count, generator) if main else "",
        "sign": _pick(signs, generator) if signs and generator.random() < SIGNED else "",
    }


def _for(
    noun: str, finding: Finding, one: Sequence[str], several: Sequence[str], uncountable: Sequence[str]
) -> Sequence[str]:
    if "/" not in noun:
        return uncountable
    return several if finding.count > 1 else one


def _place(finding: Finding, towards: bool) -> tuple[str, str]:
    """Such as ("in the left frontal lobe", "left frontal lobe"); empty where nothing is known."""
    side = "" if finding.side == "midline" else finding.side
    if towards:
        return f"to the {side}" if side else "", ""
    if not finding.site:
        return {"": ("", ""), "both": ("bilaterally", "bilateral")}.get(side, (f"on the {side}", side))
    preposition, site = wordings.PLACES.get(finding.site, ("in", finding.site))
    if side == "both":
        return f"{preposition} the {site} bilaterally", f"bilateral {site}"
    place = f"{side} {site}".strip()
    return f"{preposition} the {place}", place


def _size(size_mm: float, generator: np.random.Generator) -> str:
    millimetres = round(size_mm)
    if millimetres < 1:
        return ""
    about = _pick(("", "", "", "approximately ", "about "), generator)
    if millimetres >= 10 and generator.random() < 0.5:
        return f"{about}{millimetres / 10:.1f} cm"
    return f"{about}{millimetres} mm"


def _count(count: int, generator: np.random.Generator) -> str:
    return _pick(wordings.COUNTS.get(count, wordings.MANY), generator) if count > 1 else ""


def _has(finding: Finding, when: Mapping[str, Sequence[str]]) -> bool:
    return all(finding.attributes.get(name) in values for name, values in when.items())


def _wording(finding: Finding, key: str) -> Wording:
    """By diagnosis; what gives no diagnosis is called by its kind."""
    return DIAGNOSES[key] if key in finding.diagnoses else Wording((finding.kind,))


def _main(finding: Finding) -> str:
    keys = _keys(finding)
    return keys[0] if keys else finding.kind


def _keys(finding: Finding) -> list[str]:
    return [key for key in finding.diagnoses if not set(IMPLIED.get(key, ())) & set(finding.diagnoses)]


def _shuffled(items: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The first finding mostly comes first."""
    order = generator.permutation(len(items)) if generator.random() < 0.5 else range(len(items))
    return [items[index] for index in order]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _pick(choices: Sequence[str], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]
