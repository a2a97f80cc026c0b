"""Conflicts: the fewest rules that cannot hold together, and how to say so.

In go rules and whether a subset of them can hold; out comes a smallest subset that cannot, and a
sentence that names it. What makes a subset smallest is known without looking at all of them: every
conflict must hit the rest of every subset that can hold. So the smallest set that hits all of those
met so far either cannot hold, and is the answer, or can, and shows another one to hit (Ignatiev et
al., "Smallest MUS extraction with minimal hitting set dualization", 2015). The hitting sets are
integer programs without large constants. Nothing is asked of the rules but that fewer of them are
easier to obey, so balls take part like bounds.
"""

# Shape letters: M members, that is rules; H subsets to be hit.

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from tikmix_hf.mixture.rules import Rule, listed

Members = NDArray[np.bool_]

# Rounds before a conflict is only made irreducible: many equal floors hold in very many subsets.
MAX_ROUNDS = 100
# Members that a sentence names one by one.
_NAMED = 6


def smallest_conflict(num_members: int, can_hold: Callable[[Members], bool]) -> tuple[int, ...]:
    """The fewest members that cannot hold together.

    Args:
        num_members: M.
        can_hold: Whether the members marked True in an (M,) array can hold together; true of
            every subset of members of which it is true.

    Returns:
        Members in order. After `MAX_ROUNDS` rounds: ones of which none can be spared.

    Raises:
        ValueError: All can hold together.

    Example:
        Any two of the first three can hold, and so can the fourth with any of them.

        >>> smallest_conflict(4, lambda marked: not marked[:3].all())
        (0, 1, 2)
    """
    if can_hold(np.ones(num_members, dtype=np.bool_)):
        raise ValueError("`can_hold` must be false of all members together; they can hold.")
    to_hit_HM = np.zeros((0, num_members), dtype=np.bool_)
    for _ in range(MAX_ROUNDS):
        marked_M = _smallest_hitting(to_hit_HM)
        if not can_hold(marked_M):
            return tuple(np.flatnonzero(marked_M).tolist())
        rest_M = ~_grown(marked_M, can_hold)
        to_hit_HM = np.vstack([to_hit_HM, rest_M])
    return _irreducible(num_members, can_hold)


def sentence(rules: Sequence[Rule]) -> str:
    """What cannot hold together, and what to do about it."""
    lower = [rule for rule in rules if rule.row_K is not None and rule.least > 0]
    higher = [rule for rule in rules if rule not in lower]
    mends = []
    if lower:
        mends.append(f"lower {listed([f'`{name}`' for name in _short(lower)], 'or')}")
    if higher:
        mends.append(f"raise {listed([f'`{name}`' for name in _short(higher)], 'or')}")
    cannot = "cannot hold together" if len(rules) > 1 else "cannot hold"
    mend = ", or ".join(mends)
    return f"{listed(_values(rules), 'and')} {cannot}. {mend[:1].upper()}{mend[1:]}."


def _smallest_hitting(to_hit_HM: Members) -> Members:
    """The fewest members that have one in common with every row."""
    num_rows, num_members = to_hit_HM.shape
    if num_rows == 0:
        return np.zeros(num_members, dtype=np.bool_)
    result = milp(
        np.ones(num_members),
        integrality=np.ones(num_members),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(to_hit_HM.astype(np.float64), lb=1),
    )
    assert result.x is not None, result.message
    return result.x > 0.5


def _grown(marked_M: Members, can_hold: Callable[[Members], bool]) -> Members:
    """The members with as many others as can hold with them."""
    grown_M = marked_M.copy()
    for m in np.flatnonzero(~marked_M):
        grown_M[m] = True
        grown_M[m] = can_hold(grown_M)
    return grown_M


def _irreducible(num_members: int, can_hold: Callable[[Members], bool]) -> tuple[int, ...]:
    """A conflict that any of its members ends by leaving."""
    marked_M = np.ones(num_members, dtype=np.bool_)
    for m in range(num_members):
        marked_M[m] = False
        marked_M[m] = can_hold(marked_M)
    return tuple(np.flatnonzero(marked_M).tolist())


def _values(rules: Sequence[Rule]) -> list[str]:
    """Each rule with its number; many of one setting as their number and sum."""
    if len(rules) <= _NAMED:
        return [f"`{rule.name}` {_value(rule)}" for rule in rules]
    settings = {rule.setting: [r for r in rules if r.setting == rule.setting] for rule in rules}
    return [
        f"`{setting}` of {len(same)} domains (shares that sum to "
        f"{sum(abs(rule.least) for rule in same):.6g})"
        if len(same) > 1 and setting != "groups"
        else ", ".join(f"`{rule.name}` {_value(rule)}" for rule in same)
        for setting, same in settings.items()
    ]


def _value(rule: Rule) -> str:
    if rule.setting == "max_epochs":
        of_samples = "" if rule.bounds_one_share else " of the samples"
        return f"{rule.value:.6g} (a share{of_samples} of at most {-rule.least:.6g})"
    return f"{rule.value:.6g}"


def _short(rules: Sequence[Rule]) -> list[str]:
    names = [rule.name if len(rules) <= _NAMED else rule.setting for rule in rules]
    return list(dict.fromkeys(names))
