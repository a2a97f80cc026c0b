"""Checks of arguments: what is right passes, all else raises one error that names it."""

from __future__ import annotations

import operator
from typing import Any


def check_count(argument: str, value: Any, *, least: int = 1) -> int:
    """Returns a whole number from `least` on, NumPy's too, as an int.

    Raises:
        ValueError: for anything else.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or count < least:
        raise ValueError(f"`{argument}` must be whole and at least {least}; got {value!r}.")
    return count


def check_positive(argument: str, value: float) -> None:
    """Refuses a setting that is not positive and finite (ValueError)."""
    if not 0 < value < float("inf"):
        raise ValueError(f"`{argument}` must be positive and finite; got {value!r}.")
