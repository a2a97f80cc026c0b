"""Pure functions on the simplex.

In go shares of K domains as a dict by name, a sequence or an array; out come float64 arrays (K,),
read-only, in the order of the domains' names. Everything here is arithmetic: no state, no random
numbers, no other room of the package.

A *mixture* w has w_k >= 0 and sum_k w_k = 1; a *share* w_k is a share of tokens. Floors and caps
make a box l <= w <= u, and `project` is the one way into it: the point of simplex and box that is
nearest in Kullback-Leibler divergence, w_k = clip(c m_k, l_k, u_k) with one scalar c.
"""

# Shape letters: K domains.

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, rel_entr

# Shares written by hand or read from a file are rounded to six digits or more.
SUM_TOLERANCE = 1e-6
# K additions of shares round by at most K * 2^-53, which is below this for K < 4,000.
ROUNDING = 1e-12


def as_mixture(
    mixture: Mapping[str, float] | ArrayLike, names: Sequence[str], *, argument: str = "mixture"
) -> NDArray[np.float64]:
    """Turn shares by name, or one share per name, into a mixture.

    Args:
        mixture: Shares by domain name (a name left out has share 0), or K shares in the order of
            `names`. The shares sum to 1 within 1e-6.
        names: The K domain names.
        argument: What the error messages call `mixture`.

    Returns:
        (K,) shares divided by their sum, read-only.

    Raises:
        ValueError: Unknown name, wrong length, or a share that is negative or not finite, or a sum
            that is not 1.

    Example:
        >>> as_mixture({"web": 0.75, "code": 0.25}, ("code", "books", "web")).tolist()
        [0.25, 0.0, 0.75]
    """
    if isinstance(mixture, str):
        raise ValueError(f"`{argument}` must hold shares, by name or in order; got {mixture!r}.")
    if isinstance(mixture, Mapping):
        refuse_unknown(mixture, names, argument=argument)
        mixture = [mixture.get(name, 0.0) for name in names]
    shares_K = np.array(mixture, dtype=np.float64)
    if shares_K.shape != (len(names),):
        raise ValueError(
            f"`{argument}` must have one share per domain ({len(names)}: {', '.join(names)}); "
            f"got shape {shares_K.shape}. Pass a dict by name."
        )
    for name, share in zip(names, shares_K, strict=True):
        if not (np.isfinite(share) and share >= 0):
            raise ValueError(
                f"`{argument}` must be finite and not negative; got {share} for {name!r}."
            )
    if abs(shares_K.sum() - 1) > SUM_TOLERANCE:
        raise ValueError(
            f"`{argument}` must sum to 1 within {SUM_TOLERANCE}; got {shares_K.sum()}. "
            "Divide the shares by their sum."
        )
    return normalise(shares_K)


def refuse_unknown(given: Iterable[str], names: Sequence[str], *, argument: str) -> None:
    """Raise a ValueError that suggests the nearest name if `given` has one outside `names`."""
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            mend = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(names)}."
            raise ValueError(f"`{argument}` has no domain to bind {name!r} to. {mend}")


def normalise(values_K: ArrayLike) -> NDArray[np.float64]:
    """Divide K finite, non-negative values by their sum; the result (K,) is read-only.

    Raises:
        ValueError: A value is negative or not finite, or all are zero.
    """
    values_K = np.asarray(values_K, dtype=np.float64)
    if not (np.isfinite(values_K).all() and (values_K >= 0).all() and values_K.sum() > 0):
        raise ValueError(f"`values_K` must be finite, not negative, not all zero; got {values_K}.")
    return read_only(values_K / values_K.sum())


def entropy(mixture_K: ArrayLike) -> float:
    """H(w) = -sum_k w_k log w_k in nats, between 0 and log K; 0 log 0 is 0."""
    return float(entr(np.asarray(mixture_K, dtype=np.float64)).sum())


def kl(mixture_K: ArrayLike, reference_K: ArrayLike) -> float:
    """KL(w | r) = sum_k w_k log(w_k / r_k) in nats; infinite where r_k = 0 < w_k."""
    mixture_K = np.asarray(mixture_K, dtype=np.float64)
    return float(rel_entr(mixture_K, np.asarray(reference_K, dtype=np.float64)).sum())


def total_variation(mixture_K: ArrayLike, reference_K: ArrayLike) -> float:
    """(1/2) sum_k |w_k - r_k|: the share of tokens that changed domain, between 0 and 1."""
    difference_K = np.asarray(mixture_K, dtype=np.float64) - np.asarray(reference_K)
    return float(0.5 * np.abs(difference_K).sum())


def largest_remainder(mixture: ArrayLike, total: int) -> NDArray[np.int64]:
    """Split `total` units by a mixture (Hamilton's method), nobody with a share going empty.

    Every domain gets the whole part of its quota w_k * total, but at least one unit if w_k > 0 and
    none if w_k = 0; units left over, or owed, go one by one to, or come from, the domain furthest
    below, or above, its quota. The earlier domain wins ties.

    Args:
        mixture: (K,) shares.
        total: Number of units.

    Returns:
        (K,) counts that sum to `total`.

    Raises:
        ValueError: Fewer units than positive shares.

    Example:
        >>> largest_remainder([0.55, 0.44, 0.01, 0.0], 10).tolist()
        [5, 4, 1, 0]
    """
    shares_K = normalise(mixture)
    has_share_K = shares_K > 0
    if total < has_share_K.sum():
        raise ValueError(
            f"`total` must give each of the {has_share_K.sum()} domains with a share one unit; "
            f"got {total}."
        )
    quota_K = shares_K * total
    counts_K = np.maximum(np.floor(quota_K), has_share_K).astype(np.int64)
    missing = total - int(counts_K.sum())
    sign = 1 if missing > 0 else -1
    for _ in range(abs(missing)):
        may_change_K = has_share_K if sign > 0 else counts_K > 1
        counts_K[np.argmax(np.where(may_change_K, sign * (quota_K - counts_K), -np.inf))] += sign
    return counts_K


def project(mixture_K: ArrayLike, lower_K: ArrayLike, upper_K: ArrayLike) -> NDArray[np.float64]:
    """The mixture within the box that is nearest in KL(w | m): w_k = clip(c m_k, l_k, u_k).

    The sum over k is piecewise linear and never falls in c, so c is found exactly: bisection over
    the sorted corners l_k / m_k and u_k / m_k, then one division. A domain with m_k = 0 stays at
    its floor. If the others cannot hold everything even at their caps, KL is infinite at every
    point of the box; the rest then goes to the empty domains as for a vanishing equal share each.

    Args:
        mixture_K: (K,) the mixture m.
        lower_K: (K,) least shares, sum at most 1.
        upper_K: (K,) largest shares, sum at least 1.

    Returns:
        (K,) mixture, read-only.

    Raises:
        ValueError: No mixture lies in the box.

    Example:
        >>> project([0.5, 0.25, 0.25], [0, 0, 0], [0.25, 1, 1]).tolist()
        [0.25, 0.375, 0.375]
    """
    mixture_K = normalise(mixture_K)
    lower_K = np.asarray(lower_K, dtype=np.float64)
    upper_K = np.asarray(upper_K, dtype=np.float64)
    if (lower_K > upper_K).any() or lower_K.sum() > 1 + ROUNDING or upper_K.sum() < 1 - ROUNDING:
        raise ValueError(
            f"`lower_K` and `upper_K` must leave room for a mixture; got sums {lower_K.sum()} and "
            f"{upper_K.sum()}, {(lower_K > upper_K).sum()} floors above their caps."
        )
    has_share_K = mixture_K > 0
    reach = upper_K[has_share_K].sum() + lower_K[~has_share_K].sum()
    if reach < 1 - ROUNDING:
        lower_K = np.where(has_share_K, upper_K, lower_K)
        mixture_K = np.where(has_share_K, 0.0, 1.0)
    return read_only(_scaled_into_box(mixture_K, lower_K, upper_K))


def _scaled_into_box(
    mixture_K: NDArray[np.float64], lower_K: NDArray[np.float64], upper_K: NDArray[np.float64]
) -> NDArray[np.float64]:
    """clip(c m, l, u) with the c at which it sums to 1."""
    with np.errstate(all="ignore"):  # no share, no corner; a corner beyond 1e308 is never reached
        rises_K, stops_K = lower_K / mixture_K, upper_K / mixture_K
    corners = np.unique(np.concatenate([rises_K, stops_K]))
    corners = corners[np.isfinite(corners)]
    below, above = -1, len(corners)  # the sum is < 1 at corners[below], >= 1 at corners[above]
    while above - below > 1:
        middle = (below + above) // 2
        if np.clip(corners[middle] * mixture_K, lower_K, upper_K).sum() < 1:
            below = middle
        else:
            above = middle
    last = min(above, len(corners) - 1)
    start_K = np.clip(corners[last] * mixture_K, lower_K, upper_K)
    free_K = (rises_K <= corners[below]) & (stops_K >= corners[last])
    if below < 0 or above > last or not free_K.any():  # the floors or caps reach 1 by themselves
        return start_K
    fixed_K = np.where(stops_K <= corners[below], upper_K, lower_K)
    scale = (1 - fixed_K[~free_K].sum()) / mixture_K[free_K].sum()
    return np.clip(np.where(free_K, scale * mixture_K, fixed_K), lower_K, upper_K)


def read_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same array, which nobody can write to from now on."""
    values.flags.writeable = False
    return values
