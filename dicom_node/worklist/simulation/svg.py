"""A sheet of Scalable Vector Graphics (W3C SVG 1.1) to draw a plot on. Lengths are pixels, y grows downwards."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal
from xml.etree import ElementTree

INK, FAINT, PAPER = "#24292f", "#d8dee4", "#ffffff"


class Sheet:
    """An empty sheet with a headline, and a smaller line below it."""

    def __init__(self, width: float, height: float, headline: str, below: str) -> None:
        self.width = width
        self._root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "width": f"{width:g}",
                "height": f"{height:g}",
                "viewBox": f"0 0 {width:g} {height:g}",
                "font-family": "Helvetica, Arial, sans-serif",
            },
        )
        ElementTree.SubElement(self._root, "title").text = headline
        self.bar(0, 0, width, height, PAPER)
        self.words(24, 34, headline, size=18, weight="bold")
        self.words(24, 56, below, colour="#57606a")

    def words(
        self,
        x: float,
        y: float,
        text: str,
        anchor: Literal["start", "middle", "end"] = "start",
        colour: str = INK,
        size: int = 13,
        weight: Literal["normal", "bold"] = "normal",
    ) -> None:
        """One line of text on the base line y."""
        style = {"text-anchor": anchor, "fill": colour, "font-size": str(size), "font-weight": weight}
        self._add("text", style, x=x, y=y).text = text

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self._add("rect", {"fill": colour}, x=x, y=y, width=width, height=height)

    def dot(self, x: float, y: float, colour: str) -> None:
        """A filled circle."""
        self._add("circle", {"fill": colour}, cx=x, cy=y, r=4.5)

    def line(
        self, points: Iterable[tuple[float, float]], colour: str, width: float = 1.0, dashes: str = "none"
    ) -> None:
        """Straight lines from point to point."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = {"points": path, "stroke": colour, "stroke-dasharray": dashes, "fill": "none"}
        self._add("polyline", style, **{"stroke-width": width})

    def render(self) -> str:
        """The document, the same bytes for the same drawing."""
        ElementTree.indent(self._root)
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def _add(self, tag: str, style: dict[str, str], **numbers: float) -> ElementTree.Element:
        return ElementTree.SubElement(self._root, tag, {k: f"{v:.1f}" for k, v in numbers.items()} | style)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, 0 among them, from at or below `low` to at or above `high`: some five to ten steps."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * size for size in (1, 2, 5, 10) if span / (power * size) <= 8)
    return [step * place for place in range(math.floor(low / step), math.ceil(high / step) + 1)]
