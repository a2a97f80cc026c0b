"""Binding: which constraints a mixture sits on, those that it would leave first.

In: constraints and a mixture that obeys them. Out: a `Binding` of each bound that is met with no
room to spare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture import Constraints, kl, total_variation

# Shape letters: K domains.

Array = NDArray[np.float64]

# Interior points stop this close to a bound: a token in a million.
TOLERANCE = 1e-6


class Binding(NamedTuple):
    """A bound without room."""

    constraint: str
    """The setting, such as "caps"."""
    of: str
    """The domain, or the group's label; "" for a distance."""
    bound: float
    """Its number."""

    def sentence(self) -> str:
        """Such as "caps of code at 0.3"."""
        return f"{self.constraint}{f' of {self.of}' if self.of else ''} at {self.bound:g}"


def binding(
    constraints: Constraints | None,
    names: Sequence[str],
    mixture_K: Array,
    in_force_K: Array,
    prior_K: Array,
) -> tuple[Binding, ...]:
    """The bounds that a mixture meets but for `TOLERANCE`.

    Args:
        constraints: None has no bound.
        names: the K domains.
        mixture_K: (K,) the mixture.
        in_force_K: (K,) where `max_change` and `max_kl_change` count from.
        prior_K: (K,) where `max_kl_prior` counts from.
    """
    if constraints is None:
        return ()
    balls = {
        "max_change": (constraints.max_change, total_variation(mixture_K, in_force_K)),
        "max_kl_change": (constraints.max_kl_change, kl(mixture_K, in_force_K)),
        "max_kl_prior": (constraints.max_kl_prior, kl(mixture_K, prior_K)),
    }
    return (
        *_of_shares(constraints, dict(zip(names, mixture_K.tolist(), strict=True))),
        *(
            Binding(setting, "", radius)
            for setting, (radius, distance) in balls.items()
            if radius is not None and distance >= radius - TOLERANCE
        ),
    )


def _of_shares(constraints: Constraints, shares: dict[str, float]) -> Iterator[Binding]:
    for name, floor in constraints.floors.items():
        if floor > 0 and shares[name] <= floor + TOLERANCE:
            yield Binding("floors", name, floor)
    for name, cap in constraints.caps.items():
        if cap < 1 and shares[name] >= cap - TOLERANCE:
            yield Binding("caps", name, cap)
    for label, group in constraints.groups.items():
        total = sum(shares[name] for name in group.domains)
        if group.at_least > 0 and total <= group.at_least + TOLERANCE:
            yield Binding("groups.at_least", label, group.at_least)
        if group.at_most < 1 and total >= group.at_most - TOLERANCE:
            yield Binding("groups.at_most", label, group.at_most)
