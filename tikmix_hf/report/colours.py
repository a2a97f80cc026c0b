"""Colours: of domains, of runs, and of what is above or below; as style sheet and as patterns.

In: a place in a list, or a number between -1 and 1. Out: names of classes, and the style sheet and
patterns that they mean, in light and in dark.

Ten calm hues that are told apart with every common colour blindness ("muted" of Paul Tol, Colour
Schemes, SRON/EPS/TN/09-002, 2021, and grey), plain, striped and dotted: 30 domains. The hues of the
dark page are the same, those that would drown in it lighter. What is written on a colour of the
heat map is black or white, whichever stands out more: one of the two always does by 4.5 to 1.
"""

from __future__ import annotations

from tikmix_hf.report.markup import Html, tag

HUES = (
    *("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#888888"),
)
DARK_HUES = (
    *("#D9808F", "#8C7FE0", "#DDCC77", "#3FA564", "#88CCEE"),
    *("#C2558C", "#44AA99", "#B3B34D", "#C76DB8", "#A6A6A6"),
)
TEXTURES = 3
# Half as many shades on each side of the middle.
SHADES = 10
# Below, middle, above: on the light page and on the dark one.
LIGHT_SCALE = ("#B35806", "#FFFFFF", "#2166AC")
DARK_SCALE = ("#E08214", "#24272C", "#5AA2E0")


def domain(place: int) -> str:
    """Class that fills with the colour of a domain by its place."""
    return f"f{place % (TEXTURES * len(HUES))}"


def stroke(place: int) -> str:
    """Class that draws lines in the colour of a run or target by its place."""
    return f"s{place % len(HUES)}"


def shade(value: float) -> str:
    """Class of a heat map's cell, for a value from -1 to 1."""
    return f"h{round(SHADES * max(-1.0, min(1.0, value))) + SHADES}"


def swatch(place: int) -> Html:
    """A small square in the colour of a domain."""
    square = tag("rect", class_=domain(place), width=12, height=12, rx=2)
    return tag("svg", square, class_="swatch", width=12, height=12, aria_hidden="true")


def style() -> str:
    """The style sheet's part that this file decides."""
    rules = [
        f".f{i}{{fill:{f'var(--c{i})' if i < len(HUES) else f'url(#p{i})'}}}"
        for i in range(TEXTURES * len(HUES))
    ]
    rules += [f".s{i}{{stroke:var(--c{i})}}" for i in range(len(HUES))]
    rules += [f".h{i}{{background:var(--h{i});color:var(--t{i})}}" for i in range(2 * SHADES + 1)]
    dark = f":root{{{_variables(DARK_HUES, DARK_SCALE)}}}"
    return "\n".join(
        [
            f":root{{{_variables(HUES, LIGHT_SCALE)}}}",
            f"@media screen and (prefers-color-scheme:dark){{{dark}}}",
            *rules,
        ]
    )


def patterns() -> Html:
    """The striped and dotted fills; to stand once on the page."""
    made = []
    for i in range(len(HUES), TEXTURES * len(HUES)):
        hue = i % len(HUES)
        ground = tag("rect", class_=f"f{hue}", width=7, height=7)
        if i < 2 * len(HUES):
            mark = tag("path", class_="texture", d="M-1,8 L8,-1 M-1,1 L1,-1 M6,8 L8,6")
        else:
            mark = tag("circle", class_="dot", cx=3.5, cy=3.5, r=1.7)
        made.append(
            tag(
                "pattern",
                ground,
                mark,
                id=f"p{i}",
                width=7,
                height=7,
                patternUnits="userSpaceOnUse",
            )
        )
    return tag("svg", tag("defs", made), class_="patterns", width=0, height=0, aria_hidden="true")


def contrast(one: str, other: str) -> float:
    """How far two colours stand out from each other, 1 to 21 (WCAG 2.2)."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _variables(hues: tuple[str, ...], scale: tuple[str, str, str]) -> str:
    parts = [f"--c{i}:{hue}" for i, hue in enumerate(hues)]
    for i in range(2 * SHADES + 1):
        value = i / SHADES - 1
        ground = _blend(scale[1], scale[2] if value > 0 else scale[0], abs(value))
        ink = max(("#000000", "#ffffff"), key=lambda ink, ground=ground: contrast(ink, ground))
        parts += [f"--h{i}:{ground}", f"--t{i}:{ink}"]
    return ";".join(parts)


def _parts(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _blend(one: str, other: str, amount: float) -> str:
    pairs = zip(_parts(one), _parts(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * amount):02x}" for a, b in pairs)


def _luminance(colour: str) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in _parts(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
