"""Values of a run's files: finite numbers, amounts and objects, checked one by one.

In: a value of plain JSON, and its place for the message. Out: the same, typed; what is not as it
should be raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def named(values: Any, place: str) -> dict[str, float]:
    """Finite numbers by name.

    Raises:
        ValueError: says what is wrong.
    """
    return {
        name: finite(value, f"{place}.{name}") for name, value in mapping(values, place).items()
    }


def known(values: Any, place: str) -> dict[str, float]:
    """Finite numbers by name, without names whose number is None.

    Raises:
        ValueError: says what is wrong.
    """
    values = mapping(values, place)
    return named({name: value for name, value in values.items() if value is not None}, place)


def amounts(values: Any, place: str) -> dict[str, float]:
    """Finite numbers by name, none below zero.

    Raises:
        ValueError: says what is wrong.
    """
    return {name: amount(value, f"{place}.{name}") for name, value in named(values, place).items()}


def finite(value: Any, place: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"`{place}` must be a number; got {str(value)[:40]!r}")
    try:
        as_float = float(value)
    except OverflowError:
        as_float = math.inf
    if not math.isfinite(as_float):
        raise ValueError(f"`{place}` must be finite; got {str(value)[:40]}")
    return as_float


def optional(line: Mapping[str, Any], key: str) -> float | None:
    """A finite number, or None where there is none.

    Raises:
        ValueError: it is something else.
    """
    return None if line.get(key) is None else finite(line[key], key)


def mapping(value: Any, place: str) -> Mapping[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"`{place}` must be an object; got {str(value)[:40]!r}")
    return value


def number(line: Mapping[str, Any], key: str) -> float:
    """The finite number of a key.

    Raises:
        ValueError: there is none.
    """
    return finite(line.get(key), key)


def planned(line: Mapping[str, Any], key: str) -> float | None:
    """A finite number that is not below zero, or None where there is none.

    Raises:
        ValueError: it is something else.
    """
    value = optional(line, key)
    return None if value is None else amount(value, key)


def amount(value: float, place: str) -> float:
    """A finite number that is not below zero.

    Raises:
        ValueError: it is something else.
    """
    if finite(value, place) < 0:
        raise ValueError(f"`{place}` must be at least 0; got {value}")
    return value


def whole(line: Mapping[str, Any], key: str) -> int:
    """The number of a key, none below zero, to the nearest whole one.

    Raises:
        ValueError: there is none.
    """
    return round(amount(number(line, key), key))
