"""Colour scales.

Invariant: a scale is even in lightness from end to end, so that it survives greyscale printing, and what is written on
a colour has at least the contrast 4.5 that the Web Content Accessibility Guidelines ask of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Colour = tuple[int, int, int]
STEPS = 20


@dataclass(frozen=True)
class Scale:
    """Colours between stops.

    Args:
        stops: The colours at equal distances, from share 0 to share 1.
    """

    stops: tuple[Colour, ...]

    def at(self, share: float) -> Colour:
        """The colour of a share between 0 and 1."""
        position = share * (len(self.stops) - 1)
        index = min(int(position), len(self.stops) - 2)
        weight = position - index
        low, high = self.stops[index], self.stops[index + 1]
        red, green, blue = (round(a + weight * (b - a)) for a, b in zip(low, high, strict=True))
        return red, green, blue


@dataclass(frozen=True)
class Theme:
    """A scale for pages, which have a light and a dark side.

    Args:
        name: Begins the classes of its steps.
        light: On a light page: the further from the page's colour, the more.
        dark: The same on a dark page.
    """

    name: str
    light: Scale
    dark: Scale

    def class_of(self, share: float) -> str:
        """The class of the step that a share falls on."""
        return f"{self.name}{round(share * STEPS)}"

    def rules(self, *, dark: bool) -> Iterator[str]:
        """A style rule for each step: the colour, and what can be read on it."""
        for step in range(STEPS + 1):
            colour = (self.dark if dark else self.light).at(step / STEPS)
            yield f".{self.name}{step}{{--face:{css(colour)};--ink:{ink(colour)}}}"


SEQUENTIAL = Scale(((247, 246, 242), (250, 220, 168), (240, 160, 96), (204, 84, 66), (122, 28, 56), (58, 12, 48)))

MORE = Theme(
    "more",
    SEQUENTIAL,
    Scale(((40, 41, 48), (84, 38, 66), (146, 48, 66), (206, 92, 66), (240, 166, 100), (252, 230, 186))),
)
"""From little to much."""

SIDES = Theme(
    "side",
    Scale(
        ((124, 62, 6), (202, 132, 50), (244, 214, 164), (244, 244, 242), (168, 212, 222), (50, 142, 170), (6, 72, 104))
    ),
    Scale(((250, 196, 120), (190, 124, 50), (98, 66, 36), (44, 45, 50), (30, 76, 94), (50, 140, 168), (142, 216, 238))),
)
"""From below zero to above it, for readers of any colour vision."""


def css(colour: Colour) -> str:
    """A colour in hexadecimal."""
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def ink(colour: Colour) -> str:
    """Black or white, whichever is easier to read on a colour."""
    level = luminance(colour)
    return "#fff" if 1.05 / (level + 0.05) > (level + 0.05) / 0.05 else "#000"


def luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, between 0 and 1."""
    parts = (part / 255 for part in colour)
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
