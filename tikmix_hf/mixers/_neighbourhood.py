"""Neighbourhood: the mixtures a method may try, around the one in force and within constraints.

In go signals, constraints and the factors of the box; out come candidates and a way back in for
draws that left. Domains are in the order of their *names* here, whatever their order in the run: so
renumbering the domains only renumbers the answer, random draws and all.

The region is the box [q_k lo, q_k hi] cut by what is linear in `Constraints`: floors, caps, epochs
and groups. Where box and bounds of a domain do not meet, its share is the bound nearest to the box;
where even so no mixture is left, the box is widened until there is one. Trust regions and smoothing
shorten the way to an answer, not the search for it.
"""

# Shape letters: K domains, G group rows, N mixtures.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._box import into_box, room, sample_box
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import Constraints, Polytope, nearest
from tikmix_hf.mixture.polytope import is_empty

Array = NDArray[np.float64]

# Share of tokens below which there is nothing to choose.
MIN_ROOM = 1e-3
# By how much a group's sum may be off while searching; `exactly` mends it.
_GROUPS_OFF = 1e-6
_MAX_SWEEPS = 100
# Powers of the box's factors, tried in turn.
_WIDER = (1, 2, 4, 8)
_ROUNDED = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbourhood:
    """Where to look; arrays in the order of the domains' names."""

    order_K: NDArray[np.int64]
    """Positions of the domains in the run, by name."""
    mixture_K: Array
    """The mixture in force."""
    region: Polytope
    """Where to look."""
    nearest_K: Array
    """The mixture of the region that is nearest to the one in force."""
    notes: tuple[str, ...]
    """What to say of the region."""

    @classmethod
    def around(
        cls, signals: Signals, constraints: Constraints | None, box: tuple[float, float]
    ) -> Neighbourhood:
        """The neighbourhood of the mixture in force.

        Raises:
            MixerError: The constraints leave no mixture, or need a supply that is not known.
        """
        order_K = np.array(sorted(range(len(signals.domains)), key=signals.domains.__getitem__))
        mixture_K = signals.mixture[order_K]
        if constraints is None:
            region, nearest_K, notes = _box_around(mixture_K, box), mixture_K, ()
        else:
            try:
                allowed = constraints.polytope(
                    signals.domains, supply=signals.supply, in_force=signals.mixture
                )
                region, nearest_K, notes = _cut(mixture_K, box, _by_name(allowed, order_K))
            except ValueError as err:
                raise MixerError(str(err)) from err
        return cls(
            order_K=order_K, mixture_K=mixture_K, region=region, nearest_K=nearest_K, notes=notes
        )

    def in_order_of_run(self, mixtures: Array) -> Array:
        """Mixtures (..., K) with the domains in the order they have in the signals."""
        ordered = np.empty_like(mixtures)
        ordered[..., self.order_K] = mixtures
        return ordered

    def holds(self, mixture_K: Array) -> bool:
        """Whether a mixture is in the region, but for rounding."""
        return self.region.contains(mixture_K, tolerance=_ROUNDED)

    def exactly(self, mixture_K: Array) -> Array:
        """The mixture of the region that is nearest to one that `brought_in` gave."""
        return nearest(mixture_K, self.region) if len(self.region.least_G) else mixture_K

    def candidates(self, num_mixtures: int, rng: np.random.Generator) -> tuple[Array, str]:
        """Mixtures (N, K) of the region, and what to say of them; all the same if it is a point."""
        lower_K, upper_K, rows_GK, _ = self.region
        if (upper_K > lower_K).sum() < 2 or room(lower_K, upper_K) < MIN_ROOM:
            same_NK = np.repeat(self.nearest_K[None], num_mixtures, axis=0)
            return same_NK, "the box and the constraints leave a single mixture"
        sample = sample_box(lower_K, upper_K, num_mixtures, rng)
        note = (
            f"{num_mixtures} mixtures in the box, {sample.acceptance:.1%} of draws kept "
            f"(by plain rejection {sample.plain_acceptance:.1e})"
        )
        mixtures_NK = sample.mixtures
        if len(rows_GK):
            mixtures_NK = self.brought_in(mixtures_NK)
            num_moved = int((mixtures_NK != sample.mixtures).any(axis=1).sum())
            note += f", {num_moved} brought into the groups"
        return mixtures_NK, note

    def brought_in(self, draws_NK: Array) -> Array:
        """Mixtures (N, K) of the region for draws of mixtures, each near its own.

        Without groups the nearest in KL(w | draw). With groups, those that are broken are scaled to
        their bound and the draw goes back into the box, until all hold but for 1e-6
        or a hundred rounds are over.
        """
        lower_K, upper_K, rows_GK, least_G = self.region
        # Of shares that sum to 1: what a row asks for is that the domains below 0 weigh no more
        # than those above, as those outside a group whose sum is too small do, or those inside.
        balance_GK = rows_GK - least_G[:, None]
        mixtures_NK = draws_NK.copy()
        outside_N = ((draws_NK < lower_K) | (draws_NK > upper_K)).any(axis=1)
        mixtures_NK[outside_N] = into_box(draws_NK[outside_N], lower_K, upper_K)
        for _ in range(_MAX_SWEEPS):
            broken_N = (mixtures_NK @ balance_GK.T < -_GROUPS_OFF).any(axis=1)
            if not broken_N.any():
                break
            scaled_MK = mixtures_NK[broken_N]
            for row_K in balance_GK:
                above_M = scaled_MK @ np.maximum(row_K, 0.0)
                below_M = np.maximum(scaled_MK @ np.maximum(-row_K, 0.0), 1e-30)
                factor_M = np.minimum(above_M / below_M, 1.0)
                scaled_MK = np.where(row_K < 0, factor_M[:, None] * scaled_MK, scaled_MK)
            mixtures_NK[broken_N] = into_box(scaled_MK, lower_K, upper_K)
        return mixtures_NK


def _by_name(polytope: Polytope, order_K: NDArray[np.int64]) -> Polytope:
    lower_K, upper_K, rows_GK, least_G = polytope
    return Polytope(lower_K[order_K], upper_K[order_K], rows_GK[:, order_K], least_G)


def _box_around(mixture_K: Array, box: tuple[float, float]) -> Polytope:
    return Polytope.box(mixture_K * box[0], mixture_K * box[1])


def _cut(
    mixture_K: Array, box: tuple[float, float], allowed: Polytope
) -> tuple[Polytope, Array, tuple[str, ...]]:
    """The region, its mixture nearest to the one in force, and what to say of it.

    Raises:
        ValueError: The constraints leave no mixture.
    """
    cap_K = np.where(allowed.upper_K < 1, allowed.upper_K, np.inf)  # a cap of 1 is none
    for power in _WIDER:
        factors = (box[0] ** power, box[1] ** power)
        tried = _box_around(mixture_K, factors)
        region = allowed._replace(
            lower_K=np.clip(tried.lower_K, allowed.lower_K, cap_K),
            upper_K=np.clip(tried.upper_K, allowed.lower_K, cap_K),
        )
        if not is_empty(region):
            wider = f"the constraints widen the box to factors {factors[0]:.3g} to {factors[1]:.3g}"
            return region, nearest(mixture_K, region), (wider,) if power > 1 else ()
    return allowed, nearest(mixture_K, allowed), ("the constraints leave nothing of the box",)
