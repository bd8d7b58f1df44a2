"""A page to draw on: text that never runs out of its box, pictures in their true proportions. RGB, 8 bits."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import font_roboto
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SIDE = 1024  # pixels of a page
MARGIN = 32
BLACK, WHITE, GREY, RED, YELLOW = (0, 0, 0), (255, 255, 255), (170, 170, 170), (150, 20, 20), (255, 214, 90)
MORE = "…"

Colour = tuple[int, int, int]
Picture = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Page:
    """One page, filled from top to bottom."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (SIDE, SIDE), BLACK)
        self._draw = ImageDraw.Draw(self._image)

    @property
    def pixels(self) -> Picture:
        """(SIDE, SIDE, 3)."""
        return np.asarray(self._image)

    def banner(self, text: str, height: int = 52) -> int:
        """A red band over the whole width, text in the middle; the row below it."""
        self._draw.rectangle((0, 0, SIDE, height), fill=RED)
        font = _fitting(text, 30, SIDE - 2 * MARGIN)
        self._draw.text((SIDE / 2, height / 2), text, WHITE, font, anchor="mm")
        return height

    def text(
        self,
        text: str,
        top: int,
        *,
        size: int = 22,
        bottom: int = SIDE - MARGIN,
        left: int = MARGIN,
        right: int = SIDE - MARGIN,
        colour: Colour = WHITE,
        bold: bool = False,
    ) -> int:
        """Text in lines, from `top`; the row below it. What does not fit above `bottom` is cut at a visible `…`."""
        font = _font(size, bold)
        height = round(size * 1.3)
        lines = [line for paragraph in text.splitlines() for line in _wrapped(paragraph, font, right - left)]
        room = max(0, (bottom - top) // height)
        if len(lines) > room:
            lines = [*lines[: room - 1], _cut(lines[room - 1], font, right - left)] if room else []
        for number, line in enumerate(lines):
            self._draw.text((left, top + number * height), line, colour, font)
        return top + len(lines) * height

    def picture(self, pixels: Picture, box: Box, pixel_size: tuple[float, float]) -> Box:
        """A picture as large as the box allows, in its true proportions; where it lies now.

        pixels: (rows, columns, 3). pixel_size: between rows, between columns, in any unit.
        """
        left, top, right, bottom = box
        high, wide = pixels.shape[0] * pixel_size[0], pixels.shape[1] * pixel_size[1]
        scale = min((right - left) / wide, (bottom - top) / high)
        size = max(1, round(wide * scale)), max(1, round(high * scale))
        at = left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2
        self._image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), at)
        return at[0], at[1], at[0] + size[0], at[1] + size[1]

    def sides(self, box: Box, letters: Sequence[str], size: int = 20) -> None:
        """Letters in the middle of a picture's left, right, upper and lower side, inside it."""
        left, top, right, bottom = box
        across, down = (left + right) / 2, (top + bottom) / 2
        places = ((left + 4, down, "lm"), (right - 4, down, "rm"), (across, top + 4, "mt"), (across, bottom - 4, "mb"))
        for letter, (x, y, anchor) in zip(letters, places, strict=True):
            self._draw.text((x, y), letter, YELLOW, _font(size, True), anchor=anchor, stroke_width=2, stroke_fill=BLACK)

    def scale(self, colours: Picture, box: Box, low: str, high: str) -> None:
        """A colour scale with the numbers at its ends. colours: (n, 3), from low to high."""
        left, top, right, bottom = box
        bar = np.broadcast_to(colours[None], (1, *colours.shape))
        self._image.paste(Image.fromarray(bar).resize((right - left, bottom - top), Image.Resampling.BILINEAR), box[:2])
        self._draw.rectangle(box, outline=GREY)
        font, middle = _font(20, False), (top + bottom) / 2
        self._draw.text((left - 8, middle), low, WHITE, font, anchor="rm")
        self._draw.text((right + 8, middle), high, WHITE, font, anchor="lm")


def drawable(text: str) -> bool:
    """Whether the font has a glyph for every character."""
    font = _font(22, False)
    missing = bytes(font.getmask("\uffff"))
    return all(sign.isspace() or bytes(font.getmask(sign)) != missing for sign in text)


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_roboto.font_files["RobotoBold" if bold else "Roboto"], size)


def _fitting(text: str, size: int, width: int) -> ImageFont.FreeTypeFont:
    """The bold font at this size, or smaller where the text would be wider."""
    while size > 12 and _font(size, True).getlength(text) > width:
        size -= 1
    return _font(size, True)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines that are no wider; a word that is wider by itself is broken."""
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for sign in word:
            if font.getlength(lines[-1] + sign) > width:
                lines.append("")
            lines[-1] += sign
    return lines


def _cut(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while line and font.getlength(line + MORE) > width:
        line = line[:-1]
    return line + MORE
