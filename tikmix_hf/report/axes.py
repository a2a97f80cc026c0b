"""Axes: where a number stands in a plot, and the lines and words around it.

In: the range of the numbers. Out: places from 0 to 1 and SVG. All places are written in per cent of
the plot, all letters in pixels: so one picture fits every screen, and its words keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tikmix_hf.report import formats
from tikmix_hf.report.markup import Child, Html, tag


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A range of numbers along one side of a plot."""

    low: float
    high: float
    name: str
    """What the numbers are, with their unit."""
    text: Callable[[Sequence[float]], list[str]] = formats.ticks
    """How they are written."""
    num_ticks: int = 5
    """About how many are written."""

    @classmethod
    def around(
        cls, values: Sequence[float], name: str, *, zero: bool = False, num_ticks: int = 5
    ) -> Axis:
        """An axis that holds all values with some room; from 0 on, if `zero`."""
        low, high = min(values), max(values)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        return cls(
            low=low if zero and low == 0 else low - room,
            high=high if zero and high == 0 else high + room,
            name=name,
            num_ticks=num_ticks,
        )

    def place(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers in the range."""
        step = _round_step((self.high - self.low) / max(self.num_ticks, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def percent(place: float) -> str:
    """A place from 0 to 1, as SVG writes it."""
    return f"{100 * place:.3f}".rstrip("0").rstrip(".") + "%"


def plot(marks: Child, *, x: Axis, y: Axis, label: str, height: int, right: Child = None) -> Html:
    """A picture: axes, marks between them, and what stands to the right of them.

    Args:
        marks: SVG, its places in per cent.
        x: from left to right.
        y: from the bottom up.
        label: what the picture shows, for those who cannot see it.
        height: of the space between the axes, in pixels.
        right: SVG with its origin in the upper right corner, in pixels.
    """
    beside = None
    if right is not None:
        beside = tag("svg", right, x="100%", overflow="visible", class_="beside", width=1)
    inside = tag(
        "svg",
        *(_rows(y), columns(x), tag("g", marks, class_="marks"), beside),
        *(tag("text", x.name, class_="axis-name", x="50%", y="100%", dy=36, text_anchor="middle"),),
        class_="plot",
        height=height,
        role="img",
        aria_label=label,
    )
    words = tag("p", y.name, class_="axis-name")
    classes = "plot-box with-labels" if right is not None else "plot-box"
    return tag("div", words, inside, class_=classes)


def columns(axis: Axis) -> list[Html]:
    """The line below a plot, and its numbers."""
    made = [tag("line", class_="base", x1="0", x2="100%", y1="100%", y2="100%")]
    values = axis.ticks()
    for value, text in zip(values, axis.text(values), strict=True):
        x = percent(axis.place(value))
        made.append(tag("text", text, x=x, y="100%", dy=18, text_anchor="middle"))
    return made


def _rows(axis: Axis) -> list[Html]:
    made = []
    values = axis.ticks()
    for value, text in zip(values, axis.text(values), strict=True):
        y = percent(1 - axis.place(value))
        made.append(tag("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        made.append(tag("text", text, x="0", y=y, dx=-8, dy="0.32em", text_anchor="end"))
    return made


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * (1 - 1e-9))
