"""Constraints: what every mixture of a run must obey, whichever mixer proposes it.

In go a proposal, the mixture in force and what is left to read; out come a mixture that obeys,
and what was done to the proposal in words. With P the mixtures within floors, caps, epochs and
groups:

1. the goal is the mixture of P that is nearest to the proposal in KL(w | proposal);
2. the anchor is the mixture in force, or where that does not obey, the one that does and is nearest
   to it in KL(w | in force);
3. from the anchor, the way to the goal is gone as far as `max_change`, `max_kl_change` and
   `max_kl_prior` let it: every one of them is convex, so there is one largest part of the way, and
   other convex promises that both ends keep, such as TiKMiX's to harm no target, are kept;
4. `smoothing` takes a part of that way back.

A proposal that obeys is returned bit by bit.
"""

# Shape letters: K domains.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixture.conflicts import sentence, smallest_conflict
from tikmix_hf.mixture.polytope import TOLERANCE, Polytope
from tikmix_hf.mixture.projection import nearest
from tikmix_hf.mixture.region import PROJECTED, Region
from tikmix_hf.mixture.rules import (
    Group,
    Rule,
    causes,
    check_number,
    epoch_rules,
    group_rules,
    listed,
    share_rules,
)
from tikmix_hf.mixture.simplex import (
    ROUNDING,
    as_mixture,
    read_only,
    total_variation,
)
from tikmix_hf.mixture.supply import Supply

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraints:
    """Bounds on shares and on how far a mixture moves, by domain name.

    Raises:
        ValueError: A bound out of its range, a floor above its cap, or floors that sum to more
            than 1.
    """

    floors: Mapping[str, float] = field(default_factory=dict)
    """Least share of a domain; 0 where a name is left out."""
    caps: Mapping[str, float] = field(default_factory=dict)
    """Largest share of a domain; 1 where a name is left out."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """Bounds on sums of shares, by a label of one's own. Groups may overlap."""
    max_epochs: float | Mapping[str, float] | None = None
    """How often a run may read a domain's rows until its end, for all domains or by name: a bound
    on its part of the samples that are left, and a cap where all rows are equally long. A domain
    that was read more often gets no share."""
    max_change: float | None = None
    """Largest part of the tokens that one update moves between domains: the total variation from
    the mixture in force, half the L1 distance, in [0, 1]."""
    max_kl_change: float | None = None
    """Largest KL(mixture | mixture in force), nats. A domain without a share then gets none."""
    max_kl_prior: float | None = None
    """Largest KL(mixture | prior), nats, with the natural mixture as the prior."""
    smoothing: float = 0.0
    """Part of the mixture in force that every update keeps, in [0, 1): mixtures become a moving
    average of what was proposed."""

    def __post_init__(self) -> None:
        for argument in ("floors", "caps"):
            bounds = {
                name: check_number(argument, bound, 1.0, of=name)
                for name, bound in getattr(self, argument).items()
            }
            object.__setattr__(self, argument, bounds)
        for name in self.floors.keys() & self.caps.keys():
            if self.floors[name] > self.caps[name]:
                raise ValueError(
                    f"`floors` must not exceed `caps`; got {self.floors[name]} > "
                    f"{self.caps[name]} for {name!r}."
                )
        if sum(self.floors.values()) > 1 + ROUNDING:
            raise ValueError(
                f"`floors` must sum to at most 1; got {sum(self.floors.values())}. Lower them."
            )
        groups = {label: Group.of(group, label) for label, group in self.groups.items()}
        object.__setattr__(self, "groups", groups)
        if isinstance(self.max_epochs, Mapping):
            epochs = {
                name: check_number("max_epochs", num_epochs, of=name)
                for name, num_epochs in self.max_epochs.items()
            }
            object.__setattr__(self, "max_epochs", epochs)
        elif self.max_epochs is not None:
            object.__setattr__(self, "max_epochs", check_number("max_epochs", self.max_epochs))
        for argument, radius in self._radii().items():
            most = 1.0 if argument == "max_change" else np.inf
            object.__setattr__(self, argument, check_number(argument, radius, most))
        smoothing = check_number("smoothing", self.smoothing)
        if smoothing >= 1:
            raise ValueError(f"`smoothing` must be below 1; got {smoothing}.")
        object.__setattr__(self, "smoothing", smoothing)

    def polytope(
        self,
        names: Sequence[str],
        *,
        supply: Supply | None = None,
        in_force: ArrayLike | None = None,
    ) -> Polytope:
        """P: what floors, caps, epochs and groups leave, in the order of `names`.

        Args:
            names: The K domains.
            supply: What there is to read; needed for `max_epochs` and `max_kl_prior`.
            in_force: (K,) the mixture in force. Given, domains that `max_kl_change` and
                `max_kl_prior` leave nothing have caps of 0.

        Raises:
            ValueError: An unknown name, or no supply where one is needed.
        """
        rules = self._rules(names, supply)
        if in_force is None:
            in_force = np.full(len(names), 1 / len(names))
            rules = [rule for rule in rules if rule.row_K is not None]
        return _region(rules, names, in_force, supply).polytope

    def check(self, names: Sequence[str], *, in_force: ArrayLike, supply: Supply | None) -> None:
        """Refuses constraints that no mixture obeys.

        Args:
            names: The K domains.
            in_force: (K,) the mixture in force.
            supply: What there is to read; needed for `max_epochs` and `max_kl_prior`.

        Raises:
            ValueError: An unknown name, no supply where one is needed, or constraints that cannot
                hold together; the fewest that cannot are named.
        """
        _anchored(self._rules(names, supply), names, in_force, supply)

    def apply(
        self,
        proposal: ArrayLike,
        names: Sequence[str],
        *,
        in_force: ArrayLike,
        supply: Supply | None,
    ) -> tuple[Array, tuple[str, ...]]:
        """The proposal (K,) brought into the constraints, and what was done to it in words.

        Raises:
            ValueError: As `check`, or the proposal is no mixture.
        """
        proposal_K = _as_given(proposal, names, argument="proposal")
        rules = self._rules(names, supply)
        region, anchor_K = _anchored(rules, names, in_force, supply)
        goal_K = proposal_K
        if not region.polytope.contains(proposal_K):
            goal_K = nearest(proposal_K, region.polytope)
        part, ended_by = region.reach(anchor_K, goal_K)
        way = total_variation(goal_K, anchor_K)
        notes = [
            *_anchor_notes(rules, region, anchor_K),
            *_goal_notes(rules, proposal_K, goal_K),
            *self._way_notes(part, way, ended_by),
        ]
        part *= 1 - self.smoothing
        if part < 1 and way > 0:
            goal_K = (1 - part) * anchor_K + part * goal_K
        return read_only(goal_K), tuple(notes)

    def holds(
        self,
        mixture: ArrayLike,
        names: Sequence[str],
        *,
        in_force: ArrayLike,
        supply: Supply | None,
    ) -> bool:
        """Whether a mixture (K,) obeys the constraints, but for rounding."""
        region = _region(self._rules(names, supply), names, in_force, supply)
        return region.contains(np.asarray(mixture, dtype=np.float64), tolerance=PROJECTED)

    def _radii(self) -> dict[str, float]:
        radii = {
            "max_change": self.max_change,
            "max_kl_change": self.max_kl_change,
            "max_kl_prior": self.max_kl_prior,
        }
        return {setting: radius for setting, radius in radii.items() if radius is not None}

    def _rules(self, names: Sequence[str], supply: Supply | None) -> list[Rule]:
        """Everything that can be broken, bound to the names."""
        if self.max_kl_prior is not None and supply is None:
            raise ValueError("`max_kl_prior` needs `supply`, which knows the prior; got None.")
        return [
            *share_rules("floors", self.floors, names),
            *share_rules("caps", self.caps, names),
            *group_rules(self.groups, names),
            *epoch_rules(self.max_epochs, names, supply),
            *(Rule(setting, "", setting, r, r) for setting, r in self._radii().items()),
        ]

    def _way_notes(self, part: float, way: float, ended_by: Sequence[str]) -> Iterator[str]:
        if (1 - part) * way > TOLERANCE:
            yield f"trust region: {listed(ended_by, 'and')} shortened the move to {part:.0%}"
        if self.smoothing * part * way > TOLERANCE:
            yield f"smoothing held back {self.smoothing:.0%} of the move"


def _as_given(mixture: ArrayLike, names: Sequence[str], *, argument: str) -> Array:
    """A mixture (K,), checked; one that sums to 1 but for rounding keeps its bits."""
    divided_K = as_mixture(mixture, names, argument=argument)
    given_K = np.array(mixture, dtype=np.float64)
    return given_K if abs(given_K.sum() - 1) <= ROUNDING else divided_K


def _region(
    rules: Sequence[Rule], names: Sequence[str], in_force: ArrayLike, supply: Supply | None
) -> Region:
    in_force_K = _as_given(in_force, names, argument="in_force")
    return Region.of(rules, in_force_K, in_force_K if supply is None else supply.prior)


def _anchored(
    rules: Sequence[Rule], names: Sequence[str], in_force: ArrayLike, supply: Supply | None
) -> tuple[Region, Array]:
    """The region and its mixture (K,) nearest to the one in force.

    Raises:
        ValueError: No mixture is inside; names the fewest rules that cannot hold together.
    """
    region = _region(rules, names, in_force, supply)
    anchor_K = region.anchor()
    if anchor_K is not None:
        return region, anchor_K

    def can_hold(marked: NDArray[np.bool_]) -> bool:
        kept = [rule for rule, is_marked in zip(rules, marked, strict=True) if is_marked]
        part = Region.of(kept, region.in_force_K, region.prior_K)
        return part.anchor(any_will_do=True) is not None

    conflict = smallest_conflict(len(rules), can_hold)
    raise ValueError(sentence([rules[m] for m in conflict]))


def _anchor_notes(rules: Sequence[Rule], region: Region, anchor_K: Array) -> Iterator[str]:
    moved = total_variation(anchor_K, region.in_force_K)
    if moved > TOLERANCE:
        broken = [rule for rule in rules if rule.is_broken(region.in_force_K, TOLERANCE)]
        words = causes(broken, region.broken_balls(region.in_force_K, tolerance=TOLERANCE))
        yield f"constraints: the mixture in force breaks {words}; {moved:.1%} of tokens move"


def _goal_notes(rules: Sequence[Rule], proposal_K: Array, goal_K: Array) -> Iterator[str]:
    moved = total_variation(goal_K, proposal_K)
    if moved > TOLERANCE:
        broken = [rule for rule in rules if rule.is_broken(proposal_K, TOLERANCE)]
        # What breaks no row got a share that a ball of KL forbids.
        balls = [rule.name for rule in rules if rule.setting in ("max_kl_change", "max_kl_prior")]
        yield f"constraints: {causes(broken, () if broken else balls)} moved {moved:.1%} of tokens"
