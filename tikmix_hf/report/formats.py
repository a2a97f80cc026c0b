"""Formats: numbers as people read them.

In: finite numbers, or None for what is not known. Out: short text with a real minus sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "\u2212"
UNKNOWN = "–"


def count(value: float | None) -> str:
    """A whole number with separators: 12,345."""
    return UNKNOWN if value is None else _signed(f"{value:,.0f}")


def short(value: float) -> str:
    """At most four characters and a letter: 950, 12.3k, 4M."""
    size = abs(value)
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return _signed(f"{value / limit:.3g}{letter}")
    return number(value, digits=3)


def number(value: float | None, *, digits: int = 4, sign: bool = False) -> str:
    """That many significant digits: 0.01235, 1,235, 1.2e+09."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    plus = "+" if sign and value > 0 else ""
    if value and not 1e-4 <= abs(value) < 1e7:
        return plus + _signed(f"{value:.{digits - 1}e}")
    rounded = float(f"{value:.{digits}g}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded)))) if rounded else 0
    return plus + _signed(f"{rounded:,.{min(places, digits + 3)}f}")


def share(value: float | None, *, sign: bool = False) -> str:
    """A share in per cent: 12.5%; small ones keep two digits."""
    if value is None:
        return UNKNOWN
    plus = "+" if sign and value > 0 else ""
    percent = 100 * value
    tiny = 0 < abs(percent) < 0.1
    return plus + _signed(f"{percent:.2g}%" if tiny else f"{percent:.1f}%")


def seconds(value: float | None) -> str:
    """Time: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if value is None:
        return UNKNOWN
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def with_error(value: float, error: float | None, *, sign: bool = False) -> str:
    """A value and its standard error, to the error's second digit: 0.312 ± 0.014."""
    plus = "+" if sign and value > 0 else ""
    if error is None:
        return number(value, sign=sign)
    if error <= 0 or not 1e-4 <= error < 1e7:
        return f"{number(value, sign=sign)} ± {number(error, digits=2)}"
    places = max(0, 1 - math.floor(math.log10(float(f"{error:.2g}"))))
    return plus + _signed(f"{value:,.{places}f}") + f" ± {error:,.{places}f}"


def ticks(values: Sequence[float]) -> list[str]:
    """Round numbers at equal distances, with no more digits than tell them apart: 0.5, 1.0, 1.5."""
    largest = max((abs(value) for value in values), default=0.0)
    limits = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k"), (1.0, ""))
    unit, letter = next((pair for pair in limits if largest >= pair[0]), (1.0, ""))
    unit = 1e3 if letter == "k" else unit
    scaled = [value / unit for value in values]
    places = next(
        (p for p in range(12) if all(abs(v - round(v, p)) < 1e-9 * max(1, abs(v)) for v in scaled)),
        12,
    )
    return [_signed(f"{v:,.{places}f}") + (letter if v else "") for v in scaled]


def plural(amount: int, noun: str) -> str:
    """1 update, 2 updates."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def cut(name: str, length: int) -> str:
    """A name of at most that many characters."""
    return name if len(name) <= length else name[: length - 1] + "…"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
