"""Settings of the kinds that their fields declare, in Python's own numbers.

In goes a mixer; its fields are annotated `int`, `float`, `bool`, `tuple[float, float]` or
`Constraints`, each perhaps `| None`. Out comes the same mixer, whose NumPy scalars are Python
numbers, so that JSON takes them, or a ValueError that names the setting. A field annotated
otherwise is its class's own business, and so are ranges.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from tikmix_hf.mixture import Constraints


def settle(mixer: Any) -> None:
    """Turns every setting into the kind that its field declares.

    Raises:
        ValueError: A setting of another kind, or NaN.
    """
    for field in dataclasses.fields(mixer):
        value = getattr(mixer, field.name)
        kind, _, other = _annotation(field.type).partition(" | ")
        if kind in _KINDS and not (value is None and other == "None"):
            object.__setattr__(mixer, field.name, _KINDS[kind](field.name, value))


def whole_number(argument: str, value: Any) -> int:
    """An int; 2.0 is none, and neither is True.

    Raises:
        ValueError: The value is no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"`{argument}` must be a whole number; got {value!r}.")
    return int(value)


def number(argument: str, value: Any) -> float:
    """A float that is not NaN.

    Raises:
        ValueError: The value is no number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise ValueError(f"`{argument}` must be a number; got {value!r}.")
    return float(value)


def _truth(argument: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{argument}` must be True or False; got {value!r}.")
    return bool(value)


def _pair(argument: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"`{argument}` must be two numbers; got {value!r}.")
    return number(argument, value[0]), number(argument, value[1])


def _constraints(argument: str, value: Any) -> Constraints:
    if not isinstance(value, Constraints):
        raise ValueError(
            f"`{argument}` must be a Constraints or None; got {value!r}. Wrap what is meant, as in "
            f"Constraints(floors={{'code': 0.1}})."
        )
    return value


_KINDS: dict[str, Callable[[str, Any], Any]] = {
    "int": whole_number,
    "float": number,
    "bool": _truth,
    "tuple[float, float]": _pair,
    "Constraints": _constraints,
}


def _annotation(declared: Any) -> str:
    """As written in the source, which is all there is under `from __future__ import annotations`.

    Resolving it would fail for whatever a class made within a function speaks of.
    """
    return declared if isinstance(declared, str) else inspect.formatannotation(declared)
