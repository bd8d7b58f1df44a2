"""The reading list in a real browser: contrast, keyboard, refresh in place, without a script, narrow and wide.

Chromium without a screen; does not cover other browsers or a real screen reader (its tree of roles and names is read).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import sqlalchemy as sa

from dicom_node.base.config import configuration_from
from dicom_node.base.orders import WorklistEntry
from dicom_node.base.types import Level
from dicom_node.console import application
from dicom_node.console import page as console_page
from dicom_node.console.http import Console
from support.browser import Browser
from support.peers import free_port, wait_until
from support.reading_list import ListedRegistry, delivery, entry, varied

pytestmark = pytest.mark.peers

AWAY = sa.exc.OperationalError("SELECT 1", {}, Exception("gone"))
# Lowest contrast (WCAG 2.2, 1.4.3) of any shown text with the first opaque ground behind it, and that text.
LOWEST_CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    throw new Error("no ground");
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let lowest = [22, "nothing"];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
    const colours = [numbers(getComputedStyle(element).color), ground(element)];
    const [a, b] = colours.map(luminance).sort((x, y) => x - y);
    const ratio = (b + 0.05) / (a + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, node.data.trim()];
  }
  return lowest;
})()"""
FOCUSED = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
ROWS = "Array.from(document.querySelectorAll('tbody tr'), (row) => row.id)"
NOTICE = "document.getElementById('notice').textContent"
NEWS = "document.getElementById('news').textContent"


@dataclass(frozen=True)
class Page:
    """The console, the list it shows, and a browser."""

    console: Console
    registry: ListedRegistry
    browser: Browser

    def show(self, entries: list[WorklistEntry], **wishes: bool | int) -> None:
        """Open the page anew with this list."""
        self.registry.listed = entries
        self.browser.emulate(**wishes)  # type: ignore[arg-type]
        self.browser.open(f"http://127.0.0.1:{self.console.port}/worklist")

    def change(self, entries: list[WorklistEntry] | Exception) -> None:
        """Have another list, and the page look again now: pausing and going on does that."""
        self.registry.listed = entries
        self.browser.press("p")
        self.browser.press("p")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("console")
    always_asked = pytest.MonkeyPatch()
    always_asked.setattr(application, "SHARED_SECONDS", 0)
    registry = ListedRegistry(f"sqlite:///{folder / 'registry.sqlite'}")
    console = Console(configuration_from({"node": {"storage": ".", "http_port": free_port()}}, folder), registry)
    console.start()
    yield Page(console, registry, browser)
    console.stop()
    always_asked.undo()
    registry.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_page, "REFRESH_SECONDS", 1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_every_text_has_contrast_aa(page: Page, width: int, dark: bool) -> None:
    page.show(varied(12), width=width, dark=dark)
    page.browser.press("p")  # the notice is shown as well
    ratio, text = page.browser.evaluate(LOWEST_CONTRAST)
    assert ratio >= 4.5, text
    ground = page.browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) < 384) == dark


@pytest.mark.parametrize("width", [1920, 1400, 1000, 420, 320])
@pytest.mark.parametrize("count", [0, 1, 60])
def test_nothing_is_cut_off_at_any_width(page: Page, width: int, count: int) -> None:
    page.show([replace(one, rule="a rule " * 20) for one in varied(count)], width=width)
    assert page.browser.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1400, 420])
def test_a_screen_reader_is_told_of_a_table_at_any_width(page: Page, width: int) -> None:
    page.show(varied(4), width=width)
    told = page.browser.accessible()
    roles = [role for role, _ in told]
    assert ("table", "Studies in the order in which they should be read") in told
    assert roles.count("columnheader") == 7
    assert roles.count("rowheader") == 4
    assert roles.count("cell") == 4 * 6
    assert ("heading", "Reading list") in told
    assert ("button", "Pause refresh p") in told
    assert page.browser.evaluate("document.documentElement.lang") == "en"


def test_tab_goes_from_the_skip_link_through_the_rows_in_order(page: Page) -> None:
    page.show(varied(3))
    went = []
    for _ in range(5):
        page.browser.press("Tab")
        went.append(page.browser.evaluate(FOCUSED))
    assert went == ["skip", "pause", "study-study01", "study-study02", "study-study03"]
    assert page.browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_skip_link_leads_to_the_list(page: Page) -> None:
    page.show(varied(3))
    page.browser.press("Tab")
    assert page.browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.browser.press("Enter")
    assert page.browser.evaluate(FOCUSED) == "list"


def test_j_k_and_arrows_go_through_the_studies(page: Page) -> None:
    page.show(varied(3))
    went = []
    for key in ("ArrowDown", "j", "j", "ArrowDown", "j", "k", "ArrowUp"):
        page.browser.press(key)
        went.append(page.browser.evaluate(FOCUSED)[-1])
    assert went == ["Y", "1", "2", "3", "3", "2", "1"]


def test_a_focused_row_is_not_under_the_table_s_head(page: Page) -> None:
    page.show(varied(60), height=500)
    for _ in range(20):
        page.browser.press("j")
    for _ in range(15):
        page.browser.press("k")
    below = page.browser.evaluate(
        "document.activeElement.getBoundingClientRect().top"
        " - document.querySelector('thead th').getBoundingClientRect().bottom"
    )
    assert below >= 0


def test_refreshing_keeps_the_focus_the_scroll_position_and_the_selection(page: Page) -> None:
    entries = varied(60)
    page.show(entries, height=500)
    for _ in range(30):
        page.browser.press("j")
    page.browser.evaluate(
        "getSelection().selectAllChildren(document.querySelector('#study-study29 .number')), window.kept = scrollY"
    )
    page.change([*entries[:40], replace(entries[40], level=Level.CRITICAL), *entries[41:], entry(61)])
    wait_until(lambda: page.browser.evaluate(ROWS)[-1] == "study-study61", "the new study is there")
    assert page.browser.evaluate(FOCUSED) == "study-study30"
    assert page.browser.evaluate("scrollY === window.kept && scrollY > 0")
    assert page.browser.evaluate("getSelection().toString()") == "A029"
    assert page.browser.evaluate(NEWS) == "List changed: 1 new, 1 changed"


def test_the_focused_study_is_followed_to_its_new_rank(page: Page) -> None:
    one, two, three = varied(3)
    page.show([one, two, three])
    page.browser.press("j")
    page.change([replace(three, rank=1), replace(two, rank=2), replace(one, rank=3, findings=("Infarction",))])
    wait_until(lambda: page.browser.evaluate(ROWS)[0] == "study-study03", "the order is new")
    assert page.browser.evaluate(ROWS) == ["study-study03", "study-study02", "study-study01"]
    assert page.browser.evaluate(FOCUSED) == "study-study01"
    assert "Infarction" in page.browser.evaluate("document.activeElement.textContent")
    assert page.browser.evaluate("Array.from(document.querySelectorAll('.rank'), (r) => r.textContent)") == list("123")


def test_when_the_focused_study_is_gone_the_next_one_has_the_focus(page: Page) -> None:
    one, two, three = varied(3)
    page.show([one, two, three])
    page.browser.press("j")
    page.browser.press("j")
    page.change([one, replace(three, rank=2)])
    wait_until(lambda: len(page.browser.evaluate(ROWS)) == 2, "one is gone")
    assert page.browser.evaluate(FOCUSED) == "study-study03"
    assert page.browser.evaluate(NEWS) == "List changed: 1 gone"


def test_a_list_that_fills_and_empties(page: Page) -> None:
    shown = "['list', 'empty'].filter((id) => !document.getElementById(id).hidden)"
    page.show([])
    assert page.browser.evaluate(shown) == ["empty"]
    page.change(varied(2))
    wait_until(lambda: page.browser.evaluate(shown) == ["list"], "the list is shown")
    assert "2 studies" in page.browser.evaluate("document.getElementById('summary').innerText")
    page.change([])
    wait_until(lambda: page.browser.evaluate(shown) == ["empty"], "the list is empty")


@pytest.mark.usefixtures("often")
def test_it_refreshes_by_itself_and_a_delivery_s_end_is_announced(page: Page) -> None:
    page.show([entry(deliveries=(delivery(state="sending"),))])
    page.registry.listed = [entry()]
    wait_until(lambda: "✓" in page.browser.evaluate("document.querySelector('.deliveries').textContent"), "delivered")
    assert page.browser.evaluate(NEWS) == "List changed: 1 changed"
    assert page.browser.evaluate("document.getElementById('news').role") == "status"


def test_a_pause_is_said_and_holds(page: Page) -> None:
    page.show(varied(2))
    as_of = page.browser.evaluate("document.getElementById('as-of').textContent")
    page.browser.press("Tab")
    page.browser.press("Tab")
    page.browser.press("Enter")
    assert page.browser.evaluate(NOTICE) == f"Paused: this is the list as of {as_of}."
    assert page.browser.evaluate("document.getElementById('pause').innerText").startswith("Resume refresh")
    page.registry.listed = varied(3)
    page.browser.press("Enter")
    wait_until(lambda: len(page.browser.evaluate(ROWS)) == 3, "it goes on at once")
    assert page.browser.evaluate(NOTICE) == ""


def test_an_old_list_is_said_to_be_old_until_there_is_a_new_one(page: Page) -> None:
    page.show(varied(2))
    as_of = page.browser.evaluate("document.getElementById('as-of').textContent")
    page.change(AWAY)
    wait_until(lambda: page.browser.evaluate(NOTICE), "a notice")
    assert page.browser.evaluate(NOTICE) == f"Not up to date: no new list from the node since {as_of}."
    assert len(page.browser.evaluate(ROWS)) == 2
    page.change(varied(3))
    wait_until(lambda: len(page.browser.evaluate(ROWS)) == 3, "a new list")
    assert page.browser.evaluate(NOTICE) == ""


@pytest.mark.usefixtures("often")
def test_without_a_database_the_page_comes_back_by_itself(page: Page) -> None:
    page.registry.listed = AWAY
    page.browser.emulate()
    page.browser.open(f"http://127.0.0.1:{page.console.port}/worklist")
    assert "database does not answer" in page.browser.evaluate("document.body.innerText")
    page.registry.listed = varied(1)
    wait_until(lambda: page.browser.evaluate("!!document.getElementById('list')"), "the list is back")


@pytest.mark.usefixtures("often")
def test_without_a_script_the_page_is_whole_and_refreshes(page: Page) -> None:
    page.show(varied(2), script=False)
    page.registry.listed = varied(3)
    wait_until(lambda: len(page.browser.evaluate(ROWS)) == 3, "the browser asked again")
    assert page.browser.evaluate("document.getElementById('pause').hidden")
    page.browser.emulate()


def test_what_a_field_says_is_never_run(page: Page) -> None:
    hostile = "<img src=x onerror='window.run=1'><script>window.run=1</script>"
    page.show([entry(findings=(hostile,), rule=hostile, accession_number=hostile)])
    page.change([entry(findings=(hostile,), rule=hostile, accession_number=hostile, note=hostile), entry(2)])
    wait_until(lambda: len(page.browser.evaluate(ROWS)) == 2, "the list is new")
    assert page.browser.evaluate("window.run === undefined && document.images.length === 0")
    assert page.browser.evaluate("document.querySelector('.finding').textContent") == hostile


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    moves = "getComputedStyle(document.querySelector('#study-study02')).animationName"
    for calm, name in ((False, "fresh"), (True, "none")):
        page.show([entry(1)], calm=calm)
        page.change([entry(1), entry(2)])
        wait_until(lambda: len(page.browser.evaluate(ROWS)) == 2, "the list is new")
        assert page.browser.evaluate(moves) == name


def test_five_hundred_studies_are_shown_and_refreshed(page: Page) -> None:
    entries = [entry(number) for number in range(1, 501)]
    page.show(entries)
    assert len(page.browser.evaluate(ROWS)) == 500
    page.change(entries[1:])
    wait_until(lambda: len(page.browser.evaluate(ROWS)) == 499, "one is gone")
