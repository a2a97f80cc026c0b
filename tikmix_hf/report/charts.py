"""Charts: bands, lines with error bars, points and bars, as SVG that needs no script.

In: plain numbers and names. Out: markup. Every mark says its numbers in a `<title>`, which a
browser shows on hovering; the page's script shows it on a tap as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_hf.report import colours
from tikmix_hf.report.axes import Axis, percent, plot
from tikmix_hf.report.markup import Html, join, tag

# Pixels between labels beside a plot.
LABEL_PIXELS = 17
NUM_MARKERS = 4
# Half a cap of an error bar, and a marker's reach, in pixels.
CAP, REACH = 3, 4.2


@dataclass(frozen=True, slots=True)
class Point:
    """A mark."""

    x: float
    y: float
    error: float | None
    """Half the length of its error bar, along y."""
    title: str
    """What it says of itself."""


@dataclass(frozen=True, slots=True)
class Band:
    """A rectangle from `start` to `end` along x and `low` to `high` along y."""

    start: float
    end: float
    low: float
    high: float
    place: int
    """Of its domain."""
    title: str


def bands(
    found: Sequence[Band], *, x: Axis, y: Axis, label: str, labels: Sequence[tuple[float, str]]
) -> Html:
    """Stacked bands, each named at the right edge.

    Args:
        found: the rectangles.
        x: the axis from left to right.
        y: the axis from the bottom up.
        label: what the picture shows.
        labels: of the domains, from the bottom up: the middle of the last band, and its name.
    """
    height = max(260, LABEL_PIXELS * len(labels) + 12)
    marks = [
        tag(
            "rect",
            tag("title", band.title),
            class_=f"band {colours.domain(band.place)}",
            x=percent(x.place(band.start)),
            y=percent(1 - y.place(band.high)),
            width=percent(x.place(band.end) - x.place(band.start)),
            height=percent(y.place(band.high) - y.place(band.low)),
        )
        for band in found
        if band.high > band.low and band.end > band.start
    ]
    wanted = [(1 - y.place(middle)) * height for middle, _ in labels]
    places = spread(wanted[::-1], gap=LABEL_PIXELS, low=4, high=height - 4)[::-1]
    beside = [
        join(
            tag("line", class_="leader", x1=3, x2=12, y1=f"{wanted[k]:.1f}", y2=f"{places[k]:.1f}"),
            tag("text", text, x=16, y=f"{places[k]:.1f}", dy="0.32em"),
        )
        for k, (_, text) in enumerate(labels)
    ]
    return plot(marks, x=x, y=y, label=label, height=height, right=beside)


def lines(series: Sequence[Sequence[Point]], *, x: Axis, y: Axis, label: str, height: int) -> Html:
    """Lines of points with error bars; each series has a colour, a dash and a marker of its own."""
    marks = []
    for place, points in enumerate(series):
        classes = f"{colours.stroke(place)} dash{place // len(colours.HUES) % 2}"
        path = " ".join(
            f"{'L' if i else 'M'}{100 * x.place(p.x):.3f},{100 * (1 - y.place(p.y)):.3f}"
            for i, p in enumerate(points)
        )
        line = tag("path", class_=f"line {classes}", d=path)
        marks.append(tag("svg", line, viewBox="0 0 100 100", preserveAspectRatio="none",
                         width="100%", height="100%", overflow="visible"))  # fmt: skip
        marks += [_error_bar(p, x, y, classes) for p in points if p.error]
        marks += [marker(place, x.place(p.x), 1 - y.place(p.y), p.title) for p in points]
    return plot(marks, x=x, y=y, label=label, height=height)


def curve(points: Sequence[Point], *, x: Axis, y: Axis, label: str, height: int) -> Html:
    """One line without markers, for many points."""
    path = " ".join(
        f"{'L' if i else 'M'}{100 * x.place(p.x):.3f},{100 * (1 - y.place(p.y)):.3f}"
        for i, p in enumerate(points)
    )
    line = tag("path", class_="line s1", d=path)
    inside = tag("svg", line, viewBox="0 0 100 100", preserveAspectRatio="none",
                 width="100%", height="100%", overflow="visible")  # fmt: skip
    return plot(inside, x=x, y=y, label=label, height=height)


def points(
    found: Sequence[tuple[int, Point]], *, x: Axis, y: Axis, label: str, height: int
) -> Html:
    """Points, each with its place in a list of series, and the line where x and y agree."""
    low, high = max(x.low, y.low), min(x.high, y.high)
    diagonal = tag(
        "line",
        class_="grid diagonal",
        x1=percent(x.place(low)),
        y1=percent(1 - y.place(low)),
        x2=percent(x.place(high)),
        y2=percent(1 - y.place(high)),
    )
    marks = [marker(place, x.place(p.x), 1 - y.place(p.y), p.title) for place, p in found]
    return plot([diagonal, *marks], x=x, y=y, label=label, height=height)


def marker(place: int, x: float, y: float, title: str) -> Html:
    """A circle, square, diamond or triangle, at a place from 0 to 1 both ways."""
    shapes = (
        tag("circle", r=REACH),
        tag("rect", x=-3.7, y=-3.7, width=7.4, height=7.4),
        tag("path", d="M0,-5.4 L5.4,0 L0,5.4 L-5.4,0 Z"),
        tag("path", d="M0,-5.2 L4.8,3.8 L-4.8,3.8 Z"),
    )
    return tag(
        "svg",
        tag("g", tag("title", title), shapes[place % NUM_MARKERS],
            class_=f"marker f{place % len(colours.HUES)}"),
        x=percent(x),
        y=percent(y),
        overflow="visible",
    )  # fmt: skip


def key(names: Sequence[str]) -> Html:
    """The legend of lines and points: marker and name."""
    items = [
        tag("li", tag("svg", marker(place, 0.5, 0.5, name), class_="swatch", width=14, height=14,
                      aria_hidden="true"), name)
        for place, name in enumerate(names)
    ]  # fmt: skip
    return tag("ul", items, class_="legend")


def legend(names: Sequence[str]) -> Html:
    """The legend of domains: colour and name."""
    return tag(
        "ul",
        [tag("li", colours.swatch(place), name) for place, name in enumerate(names)],
        class_="legend",
    )


def bar(value: float, *, full: float, place: int, mark: float | None = None, title: str) -> Html:
    """A bar for a table's cell, `full` being its whole width; `mark` is a line across it."""
    inside = [
        tag("rect", class_="track", width="100%", height="100%", rx=2),
        tag("rect", class_=colours.domain(place), width=percent(value / full), height="100%", rx=2),
    ]
    if mark is not None:
        at = percent(mark / full)
        inside.append(tag("line", class_="aim", x1=at, x2=at, y1=-3, y2=17))
    return tag("svg", tag("title", title), inside, class_="bar", height=14, role="img",
               aria_label=title)  # fmt: skip


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Moves ascending places apart until they are `gap` from each other, within bounds if they fit.

    >>> spread([0, 1, 50], gap=10, low=0, high=60)
    [0, 10, 50]
    """
    places = list(wanted)
    floor = low
    for i, place in enumerate(places):
        places[i] = max(place, floor)
        floor = places[i] + gap
    ceiling = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def thin(length: int, most: int) -> list[int]:
    """Places of at most that many of a list, evenly chosen, the first and the last among them."""
    if length <= most:
        return list(range(length))
    return sorted({round(i * (length - 1) / (most - 1)) for i in range(most)})


def steps_axis(last: float) -> Axis:
    """Optimizer steps from 0 on."""
    return Axis(low=0, high=max(last, 1) * 1.02, name="optimizer steps")


def _error_bar(point: Point, x: Axis, y: Axis, classes: str) -> Html:
    assert point.error is not None
    at = percent(x.place(point.x))
    top, bottom = (percent(1 - y.place(point.y + side * point.error)) for side in (1, -1))
    return tag("line", class_=f"error {classes}", x1=at, x2=at, y1=top, y2=bottom)
