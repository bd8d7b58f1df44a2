"""The reading list's page as text: what it says, that fields cannot become markup, and its colours' contrast.

What a browser makes of it: tests/integration/test_console_page.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest

from dicom_node.base.types import Level
from dicom_node.console.page import HEADERS, STYLE, away, fragment, whole
from support.reading_list import REFUSED, delivery, entry, varied

AA = 4.5  # WCAG 2.2, 1.4.3
AA_GRAPHICS = 3.0  # 1.4.11
TEXT_ON = [
    ("text", ("page", "sheet", "critical-sheet", "fresh")),
    ("muted", ("page", "sheet", "critical-sheet", "fresh")),
    ("on-notice", ("notice", "sheet", "critical-sheet", "fresh")),
    ("on-problem", ("problem",)),
    ("on-critical", ("critical",)),
    ("on-urgent", ("urgent",)),
    ("on-elevated", ("elevated",)),
    ("focus", ("sheet",)),
    ("done", ("sheet", "critical-sheet", "fresh")),
    ("under-way", ("sheet", "critical-sheet", "fresh")),
]
GRAPHICS_ON = [
    ("focus", ("page", "sheet", "critical-sheet")),
    ("critical", ("page", "critical-sheet")),
    ("urgent", ("page", "sheet")),
]


class Text(HTMLParser):
    """Tags with their attributes, and the text of everything but style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._parts: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self._parts.append(data)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""
    dark, light = sorted(luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def shape(parsed: Text) -> list[tuple[str, list[str]]]:
    """Tags and the names of their attributes, in order."""
    return [(tag, list(attributes)) for tag, attributes in parsed.tags]


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for name, block in (("light", light), ("dark", dark))
    }


def test_the_page_says_level_finding_age_and_every_delivery() -> None:
    now = time.time()
    one = entry(
        waiting_since=now - 9000,
        flagged_at=now - 8900,
        deliveries=(delivery(), delivery("RIS", "set_aside", kind="hl7", attempts=3, last_error=REFUSED)),
    )
    text = Text(whole([one], now)).text
    for words in (
        "▲ urgent",
        "Glioma",
        "Hydrocephalus",
        "model: priority head: high → urgent",
        "2 h 30 min",
        "A001",
        "flagged after 1 min",
        "PACS dicom delivered",
        f"RIS hl7 set aside, 3 attempts {REFUSED}",
        "1 delivery set aside",
    ):
        assert words in text


def test_a_study_without_result_is_not_said_to_have_no_finding() -> None:
    assert "no result" in Text(whole([entry(findings=(), state="running")], time.time())).text
    assert "no finding" in Text(whole([entry(findings=(), state="delivered")], time.time())).text


def test_of_many_findings_the_strongest_are_named_and_the_others_counted() -> None:
    text = Text(whole([entry(findings=tuple(f"finding {number}" for number in range(9)))], time.time())).text
    assert "finding 5" in text
    assert "finding 6" not in text
    assert "and 3 more" in text


def test_what_needs_a_person_stands_in_words() -> None:
    text = Text(whole([entry(too_late=True, note="not sent: no order is known")], time.time())).text
    assert "too late: reading had begun" in text
    assert "not sent: no order is known" in text


def test_an_error_that_was_overcome_is_no_longer_shown() -> None:
    text = Text(whole([entry(deliveries=(delivery(attempts=2, last_error=REFUSED),))], time.time())).text
    assert "2 attempts" in text
    assert REFUSED not in text


def test_a_delivery_state_of_a_later_version_is_shown_in_its_own_word() -> None:
    assert "PACS dicom on hold" in Text(whole([entry(deliveries=(delivery(state="on_hold"),))], time.time())).text


def test_fields_cannot_become_markup() -> None:
    hostile = "<script>alert(1)</script>\" onfocus='alert(1)'"
    one = entry(
        accession_number=hostile,
        study_id=hostile,
        rule=hostile,
        source=hostile,
        note=hostile,
        state=hostile,
        findings=(hostile,),
        deliveries=(delivery(hostile, "set_aside", kind=hostile, last_error=hostile),),
    )
    parsed = Text(whole([one], time.time()))
    plain = entry(note="n", findings=("f",), deliveries=(delivery(state="set_aside", last_error="e"),))
    assert shape(parsed) == shape(Text(whole([plain], time.time())))
    assert parsed.text.count("<script>") == 10


def test_the_policy_names_the_one_style_and_the_one_script_of_the_page() -> None:
    policy = HEADERS["Content-Security-Policy"]
    html = whole(varied(3), time.time())
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_nothing_comes_from_another_server() -> None:
    for html in (whole(varied(3), time.time()), away("gone")):
        assert "//" not in re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
        assert "url(" not in STYLE


def test_the_fragment_is_the_part_of_the_page_that_changes() -> None:
    now = time.time()
    entries = varied(3)
    assert fragment(entries, now) in whole(entries, now)
    assert "<script" not in fragment(entries, now)


def test_a_level_that_nobody_gave_has_no_rule() -> None:
    assert 'class="rule"' not in whole([entry(level=Level.ROUTINE, source="", rule="")], time.time())


def test_an_empty_list_says_so() -> None:
    parsed = Text(whole([], time.time()))
    hidden = {attributes.get("id"): "hidden" in attributes for _, attributes in parsed.tags}
    assert hidden["list"]
    assert not hidden["empty"]
    assert "The list is empty." in parsed.text


def test_without_a_list_the_page_says_why_and_looks_again_by_itself() -> None:
    parsed = Text(away("the registry's database does not answer"))
    assert "the registry's database does not answer" in parsed.text
    assert ("meta", {"http-equiv": "refresh", "content": "10"}) in parsed.tags


def test_every_level_has_a_shape_and_a_word() -> None:
    shapes = set()
    for level in Level:
        found = re.search(rf"(\S) {level}", Text(whole([entry(level=level)], time.time())).text.split("Deliveries")[1])
        assert found is not None
        shapes.add(found.group(1))
    assert len(shapes) == len(Level)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_aa_on_every_ground_it_stands_on(scheme: str) -> None:
    palette = palettes()[scheme]
    measured = {(on, name): contrast(palette[name], palette[on]) for name, grounds in TEXT_ON for on in grounds}
    assert {pair: round(ratio, 2) for pair, ratio in measured.items() if ratio < AA} == {}
    graphics = {(on, name): contrast(palette[name], palette[on]) for name, grounds in GRAPHICS_ON for on in grounds}
    assert {pair: round(ratio, 2) for pair, ratio in graphics.items() if ratio < AA_GRAPHICS} == {}


def test_both_schemes_have_the_same_colours_by_name_and_no_rule_another_one() -> None:
    light, dark = palettes().values()
    assert light.keys() == dark.keys()
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8};|rgb|hsl", rules) == []
    assert set(re.findall(r"var\(--([\w-]+)\)", rules)) <= light.keys()


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
