"""The reading list as a web page: made here, whole and readable without a script; nothing comes from another server.

`templates/worklist.js` only fetches the same list again. Style and script stand in the page, and the
Content-Security-Policy names them by their hashes: nothing else can run, whatever a field says.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dicom_node.base.orders import WorklistEntry
from dicom_node.base.types import DeliveryState, Level, StudyState
from dicom_node.console.reading_list import age_seconds, duration, utc

REFRESH_SECONDS = 10
TEMPLATES = Path(__file__).parent / "templates"
STYLE = (TEMPLATES / "worklist.css").read_text(encoding="utf-8")
SCRIPT = (TEMPLATES / "worklist.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


#: Of every answer that tells of studies (Content Security Policy Level 3).
HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            f"style-src {_hash(STYLE)}",
            f"script-src {_hash(SCRIPT)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def whole(entries: Sequence[WorklistEntry], now: float) -> str:
    """The page. now: seconds since the epoch, UTC."""
    return _TEMPLATES.get_template("worklist.html").render(_facts(entries, now), refresh_seconds=REFRESH_SECONDS)


def fragment(entries: Sequence[WorklistEntry], now: float) -> str:
    """The part of the page that changes, for the page's own script."""
    return _TEMPLATES.get_template("list.html").render(_facts(entries, now))


def away(reason: str) -> str:
    """The page while there is no list to show; it looks again by itself, without a script."""
    return _TEMPLATES.get_template("away.html").render(reason=reason, refresh_seconds=REFRESH_SECONDS)


def _facts(entries: Sequence[WorklistEntry], now: float) -> dict[str, object]:
    levels = Counter(entry.level for entry in entries)
    return {
        "entries": entries,
        "now": now,
        "levels": [(level, levels[level]) for level in reversed(Level) if levels[level]],
        "set_aside": sum(one.state == DeliveryState.SET_ASIDE for entry in entries for one in entry.deliveries),
    }


def _clock(seconds: float) -> str:
    """Time of day where the node stands, with the zone's name."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S %Z")


_TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.globals.update(
    style=Markup(STYLE),  # noqa: S704 - the project's own file  # nosec B704
    script=Markup(SCRIPT),  # noqa: S704 - the project's own file  # nosec B704
    shapes={Level.CRITICAL: "◆", Level.URGENT: "▲", Level.ELEVATED: "●", Level.ROUTINE: "○"},
    with_result={StudyState.REPORTED, StudyState.DELIVERED},
    marks={
        DeliveryState.DELIVERED: "✓",
        DeliveryState.SENDING: "→",
        DeliveryState.PENDING: "…",
        DeliveryState.COMMITTING: "?",
        DeliveryState.SET_ASIDE: "!",
    },
)
_TEMPLATES.filters.update(
    age=age_seconds, clock=_clock, duration=duration, utc=utc, words=lambda value: value.replace("_", " ")
)
