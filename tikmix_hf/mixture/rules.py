"""Rules: every bound on a mixture as one row of numbers, with the words of whoever set it.

In go floors, caps, groups and epochs by domain name; out come rules in the order of the names.
"""

# Shape letters: K domains.

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture.simplex import refuse_unknown
from tikmix_hf.mixture.supply import Supply

Array = NDArray[np.float64]


class Rule(NamedTuple):
    """One bound, as its author wrote it: of one domain, of a group, or of a distance."""

    setting: str
    """The argument, "floors" or "max_change"."""
    subject: str
    """The domain or the group's label; "" for a distance."""
    name: str
    """The argument down to the number, "floors['code']"."""
    value: float
    """The number."""
    least: float
    """What row @ w must reach; the radius of a ball."""
    row_K: Array | None = None
    """1 where the sum of the domains has a least value, -1 where it has a largest; for epochs
    where rows differ in length, see `Supply.part_row`; None: a ball."""

    @property
    def bounds_one_share(self) -> bool:
        """Whether it is a floor or cap of a single domain, whatever the others' shares."""
        return self.row_K is not None and np.count_nonzero(self.row_K) == 1

    def is_broken(self, mixture_K: Array, tolerance: float) -> bool:
        """Whether a mixture misses the row's bound; a ball's rule is not asked."""
        return self.row_K is not None and bool(self.least - self.row_K @ mixture_K > tolerance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Bounds on the sum of some domains' shares.

    Raises:
        ValueError: No domain, one twice, a bound outside [0, 1], or the bounds out of order.
    """

    domains: tuple[str, ...]
    """Names."""
    at_least: float = 0.0
    """Least sum of their shares."""
    at_most: float = 1.0
    """Largest sum of their shares."""

    def __post_init__(self) -> None:
        if isinstance(self.domains, str) or not self.domains:
            raise ValueError(f"`domains` of a group must be names; got {self.domains!r}.")
        object.__setattr__(self, "domains", tuple(self.domains))
        if len(set(self.domains)) < len(self.domains):
            raise ValueError(f"`domains` of a group must differ; got {', '.join(self.domains)}.")
        for argument in ("at_least", "at_most"):
            bound = check_number(argument, getattr(self, argument), 1.0)
            object.__setattr__(self, argument, bound)
        if self.at_least > self.at_most:
            raise ValueError(
                f"`at_least` must not exceed `at_most`; got {self.at_least} > {self.at_most} for "
                f"the group of {', '.join(self.domains)}."
            )

    @classmethod
    def of(cls, given: Group | Mapping[str, object], label: str) -> Group:
        """The group itself, or the one whose `dataclasses.asdict` is given."""
        if isinstance(given, Group):
            return given
        known = {entry.name for entry in fields(cls)}
        if not isinstance(given, Mapping) or not {"domains"} <= set(given) <= known:
            raise ValueError(
                f"`groups` must hold a Group for {label!r}, or its domains, at_least and at_most "
                f"by name; got {given!r}."
            )
        return cls(**given)  # pyright: ignore[reportArgumentType]


def check_number(
    argument: str, value: float, most: float = np.inf, *, of: str | None = None
) -> float:
    """A Python float, which JSON takes; one not finite or outside [0, most] is a ValueError."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= most and np.isfinite(value)):
        limit = "be finite and not negative" if most == np.inf else f"lie in [0, {most:g}]"
        where = "" if of is None else f" for {of!r}"
        raise ValueError(f"`{argument}` must {limit}; got {value}{where}.")
    return float(value)


def share_rules(setting: str, bounds: Mapping[str, float], names: Sequence[str]) -> Iterator[Rule]:
    """Of "floors" or "caps"."""
    refuse_unknown(bounds, names, argument=setting)
    sign, vacuous = (1.0, 0.0) if setting == "floors" else (-1.0, 1.0)
    for name in names:
        if name in bounds and bounds[name] != vacuous:
            row_K = sign * np.array([other == name for other in names], dtype=np.float64)
            value = float(bounds[name])
            yield Rule(setting, name, f"{setting}[{name!r}]", value, sign * value, row_K)


def group_rules(groups: Mapping[str, Group], names: Sequence[str]) -> Iterator[Rule]:
    """Of groups: at most two of each."""
    for label, group in groups.items():
        refuse_unknown(group.domains, names, argument=f"groups[{label!r}]")
        row_K = np.array([name in group.domains for name in names], dtype=np.float64)
        name = f"groups[{label!r}]"
        if group.at_least > 0:
            value = float(group.at_least)
            yield Rule("groups", label, f"{name}.at_least", value, value, row_K)
        if group.at_most < 1:
            value = float(group.at_most)
            yield Rule("groups", label, f"{name}.at_most", value, -value, -row_K)


def epoch_rules(
    max_epochs: float | Mapping[str, float] | None, names: Sequence[str], supply: Supply | None
) -> Iterator[Rule]:
    """Of `max_epochs`, for the domains that can run out.

    Raises:
        ValueError: An unknown name, or the supply is not known.
    """
    if max_epochs is None:
        return
    if supply is None:
        raise ValueError("`max_epochs` needs `supply`, the tokens there are; got None.")
    if not isinstance(max_epochs, Mapping):
        max_epochs = dict.fromkeys(names, max_epochs)
    refuse_unknown(max_epochs, names, argument="max_epochs")
    most_K = supply.largest_parts([max_epochs.get(name, 0.0) for name in names])
    for k, (name, most) in enumerate(zip(names, most_K.tolist(), strict=True)):
        if name in max_epochs and most < 1:
            value, row_K = float(max_epochs[name]), supply.part_row(k, most)
            yield Rule("max_epochs", name, f"max_epochs[{name!r}]", value, -most, row_K)


def causes(rules: Sequence[Rule], balls: Sequence[str] = ()) -> str:
    """The settings of some rules and the balls in words: "floors of code and caps of web"."""
    subjects: dict[str, list[str]] = {}
    for rule in rules:
        same = subjects.setdefault(rule.setting, [])
        if rule.subject not in same:
            same.append(rule.subject)
    words = [
        f"{setting} of {', '.join(same) if len(same) <= 6 else f'{len(same)} domains'}"
        for setting, same in subjects.items()
    ]
    return listed([*words, *balls], "and")


def listed(words: Sequence[str], link: str) -> str:
    """The words with commas, and a word before the last."""
    return f" {link} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
