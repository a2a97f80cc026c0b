"""Mixtures inside a box: drawn at random, or brought back from outside.

In go least and largest shares l <= u (K,), as numbers; out come mixtures (N, K) with
l <= w <= u. `sample_box` has the law of TiKMiX's plain rejection (Wang et al., arXiv 2508.17677,
2025, the paragraph on TiKMiX-M): v uniform in the box, w = v / sum(v), thrown away where w left the
box. `into_box` is the projection of `mixture.project` for many points at once.

Plain rejection keeps almost nothing where there are many domains. What it keeps is v uniform on

    A = {v : l <= v <= u,  l s <= v <= u s,  s = sum(v)},

and that can be drawn faster, without another law. A is cut into layers a <= s < b. The layer lies
in the smaller box [l max(1, a), u min(1, b)]; there v is drawn with density exp(-t s) / Z, t such
that the mean of s is the layer's nearest edge e, and kept with probability exp(t (s - e)) <= 1 if
it is in the layer and in A. A layer that is drawn with probability proportional to its bound
Z exp(t e) is so left with what plain rejection would leave it. The bounds are Chernoff's, so the
share of draws that is kept falls like 1 / sqrt(K), and not exponentially in K.

The draws of a block are a Latin hypercube (McKay, Beckman and Conover, 1979) in K + 2 dimensions:
the shares, the layer, the toss that keeps or not.
"""

# Shape letters: K domains, N mixtures or draws, B layers.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Shares closer than this are the same share.
_SAME = 1e-12
_BLOCK = 2048
_MAX_LAYERS = 4096
# A box of reasonable room keeps percents; this many draws without an end is an error of ours.
_MAX_BLOCKS = 10_000


class BoxSample(NamedTuple):
    """Mixtures drawn from a box."""

    mixtures: Array
    """(N, K)."""
    acceptance: float
    """Share of the draws that were kept."""
    plain_acceptance: float
    """Share that plain rejection would have kept, estimated from `acceptance`."""


class _Layers(NamedTuple):
    """Where v is drawn, by layer of s = sum(v)."""

    bottom_B: Array
    top_B: Array
    lower_BK: Array
    upper_BK: Array
    tilt_B: Array
    """t."""
    log_edge_B: Array
    """t e, the largest t s of the layer."""
    log_bound_B: Array
    """log(Z exp(t e))."""


def room(lower_K: Array, upper_K: Array) -> float:
    """Largest share of tokens in which two mixtures of the box can differ, but for a factor of 2.

    Not positive where the box holds one mixture or none.
    """
    return float(min(upper_K.sum() - 1.0, 1.0 - lower_K.sum()))


def sample_box(
    lower_K: Array, upper_K: Array, num_mixtures: int, rng: np.random.Generator
) -> BoxSample:
    """Mixtures of the law that plain rejection has in the box.

    Domains without room (l_k = u_k) keep their share, and the others divide the rest.

    Args:
        lower_K: Least shares, >= 0.
        upper_K: Largest shares.
        num_mixtures: N.
        rng: Where the randomness comes from.

    Raises:
        ValueError: The box leaves no room for two mixtures.
    """
    free_K = upper_K - lower_K > _SAME
    rest = 1.0 - float(lower_K[~free_K].sum())
    if free_K.sum() < 2 or room(lower_K, upper_K) <= _SAME:
        raise ValueError(
            "`lower_K` and `upper_K` must leave room for two mixtures; got sums "
            f"{lower_K.sum()} and {upper_K.sum()}, {free_K.sum()} domains with room."
        )
    lower_F, upper_F = lower_K[free_K] / rest, upper_K[free_K] / rest
    layers = _best_layers(lower_F, upper_F)
    kept: list[Array] = []
    num_kept = num_blocks = 0
    while num_kept < num_mixtures:
        assert num_blocks < _MAX_BLOCKS, "rejection starves"
        kept.append(_kept_of_a_block(layers, lower_F, upper_F, rng))
        num_kept, num_blocks = num_kept + len(kept[-1]), num_blocks + 1
    mixtures_NK = np.tile(lower_K, (num_mixtures, 1))
    mixtures_NK[:, free_K] = rest * np.concatenate(kept)[:num_mixtures]
    acceptance = num_kept / (num_blocks * _BLOCK)
    log_volume = float(np.log(upper_F - lower_F).sum())
    gain = float(np.exp(_log_sum(layers.log_bound_B) - log_volume))
    return BoxSample(mixtures_NK, acceptance, acceptance * gain)


def into_box(values_NK: Array, lower_K: Array, upper_K: Array) -> Array:
    """For each row m the mixture of the box nearest in KL(w | m): w_k = clip(c m_k, l_k, u_k).

    Args:
        values_NK: >= 0, of any scale near 1; what is below 1e-30 counts as 1e-30.
        lower_K: Least shares, sum at most 1.
        upper_K: Largest shares, sum at least 1.

    Returns:
        (N, K); rows sum to 1 but for rounding.
    """
    values_NK = np.maximum(values_NK, 1e-30)
    # At exp(-80) no share is above its floor for it, at exp(80) all are at their caps.
    below_N, above_N = np.full(len(values_NK), -80.0), np.full(len(values_NK), 80.0)
    for _ in range(64):  # to the last bit of the scale
        middle_N = (below_N + above_N) / 2
        scaled_NK = np.exp(middle_N)[:, None] * values_NK
        falls_short_N = np.clip(scaled_NK, lower_K, upper_K).sum(axis=1) < 1
        below_N = np.where(falls_short_N, middle_N, below_N)
        above_N = np.where(falls_short_N, above_N, middle_N)
    return np.clip(np.exp(above_N)[:, None] * values_NK, lower_K, upper_K)


def latin_hypercube(num_points: int, num_axes: int, rng: np.random.Generator) -> Array:
    """(num_points, num_axes) points of the unit cube, one in each of N slices of every axis."""
    slices = rng.permuted(np.tile(np.arange(num_points), (num_axes, 1)), axis=1).T
    return (slices + rng.random((num_points, num_axes))) / num_points


def _kept_of_a_block(
    layers: _Layers, lower_K: Array, upper_K: Array, rng: np.random.Generator
) -> Array:
    """The mixtures (n, K) that a block of draws leaves."""
    cube = latin_hypercube(_BLOCK, len(lower_K) + 2, rng)
    chance_B = np.exp(layers.log_bound_B - _log_sum(layers.log_bound_B))
    layer_N = np.searchsorted(np.cumsum(chance_B), cube[:, 0], side="right")
    layer_N = np.minimum(layer_N, len(chance_B) - 1)  # the sum of the chances is 1 but for rounding
    tilt_N = layers.tilt_B[layer_N]
    draws_NK = _truncated_exponential(
        cube[:, 1:-1], layers.lower_BK[layer_N], layers.upper_BK[layer_N], tilt_N
    )
    sum_N = draws_NK.sum(axis=1)
    mixtures_NK = draws_NK / sum_N[:, None]
    stays_N = (sum_N >= layers.bottom_B[layer_N]) & (sum_N < layers.top_B[layer_N])
    stays_N &= ((mixtures_NK >= lower_K) & (mixtures_NK <= upper_K)).all(axis=1)
    toss_N = np.maximum(cube[:, -1], 1e-300)
    stays_N &= np.log(toss_N) <= tilt_N * sum_N - layers.log_edge_B[layer_N]
    return mixtures_NK[stays_N]


def _truncated_exponential(
    cube_NK: Array, lower_NK: Array, upper_NK: Array, tilt_N: Array
) -> Array:
    """The quantiles of density exp(-t v) on [lower, upper]."""
    width_NK = upper_NK - lower_NK
    steep_N1 = np.abs(tilt_N)[:, None]
    flat_NK = steep_N1 * width_NK < 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        depth_NK = -np.log1p(cube_NK * np.expm1(-steep_N1 * width_NK)) / steep_N1
    depth_NK = np.where(flat_NK, cube_NK * width_NK, np.minimum(depth_NK, width_NK))
    return np.where(tilt_N[:, None] >= 0, lower_NK + depth_NK, upper_NK - depth_NK)


def _best_layers(lower_K: Array, upper_K: Array) -> _Layers:
    """The layers whose bounds are least in sum: thin ones fit well, but there are more of them."""
    best, num_layers = _layers(lower_K, upper_K, 1), 2
    while num_layers <= _MAX_LAYERS:
        finer = _layers(lower_K, upper_K, num_layers)
        if num_layers > 8 and _log_sum(finer.log_bound_B) > _log_sum(best.log_bound_B):
            break
        best = min(best, finer, key=lambda layers: _log_sum(layers.log_bound_B))
        num_layers *= 2
    return best


def _layers(lower_K: Array, upper_K: Array, num_layers: int) -> _Layers:
    """Layers of equal height over all sums that A has; empty ones are left out."""
    ratio = float((lower_K / upper_K).max())
    least = max(float(lower_K.sum()), ratio)
    most = min(float(upper_K.sum()), 1 / ratio if ratio > 0 else np.inf)
    edges = np.linspace(least, most, num_layers + 1)
    bottom_B, top_B = edges[:-1], edges[1:]
    lower_BK = lower_K * np.maximum(1.0, bottom_B)[:, None]
    upper_BK = upper_K * np.minimum(1.0, top_B)[:, None]
    full_B = (lower_BK < upper_BK).all(axis=1)
    full_B &= (lower_BK.sum(axis=1) < top_B) & (upper_BK.sum(axis=1) > bottom_B)
    bottom_B, top_B, lower_BK, upper_BK = (
        values[full_B] for values in (bottom_B, top_B, lower_BK, upper_BK)
    )
    tilt_B = _tilts(bottom_B, top_B, lower_BK, upper_BK)
    log_edge_B = np.maximum(tilt_B * top_B, tilt_B * bottom_B)
    log_bound_B = _log_mass(tilt_B, lower_BK, upper_BK) + log_edge_B
    return _Layers(bottom_B, top_B, lower_BK, upper_BK, tilt_B, log_edge_B, log_bound_B)


def _tilts(bottom_B: Array, top_B: Array, lower_BK: Array, upper_BK: Array) -> Array:
    """Each layer's t: the mean sum is the layer's nearest edge; 0 where it is in it at t = 0.

    Every t is right; this one makes the bound least.
    """
    middle_B = (lower_BK + upper_BK).sum(axis=1) / 2
    goal_B = np.clip(middle_B, bottom_B, top_B)
    limit = 1e6 / (upper_BK - lower_BK).max()
    below_B, above_B = np.full(len(goal_B), -limit), np.full(len(goal_B), limit)
    for _ in range(64):
        tilt_B = (below_B + above_B) / 2
        half_BK = (upper_BK - lower_BK) / 2
        mean_B = middle_B - (half_BK * _langevin(tilt_B[:, None] * half_BK)).sum(axis=1)
        below_B, above_B = (
            np.where(mean_B > goal_B, tilt_B, below_B),
            np.where(mean_B > goal_B, above_B, tilt_B),
        )
    return np.where(goal_B == middle_B, 0.0, (below_B + above_B) / 2)


def _log_mass(tilt_B: Array, lower_BK: Array, upper_BK: Array) -> Array:
    """Logarithm of the integral of exp(-t sum(v)) over the box."""
    half_BK = (upper_BK - lower_BK) / 2
    size_BK = np.abs(tilt_B[:, None] * half_BK)
    safe_BK = np.maximum(size_BK, 1e-4)
    grown_BK = safe_BK + np.log(-np.expm1(-2 * safe_BK) / (2 * safe_BK))  # log(sinh(x) / x)
    grown_BK = np.where(size_BK < 1e-4, size_BK**2 / 6, grown_BK)
    middle_B = (lower_BK + upper_BK).sum(axis=1) / 2
    return (np.log(2 * half_BK) + grown_BK).sum(axis=1) - tilt_B * middle_B


def _log_sum(values: Array) -> float:
    """log(sum(exp(values)))."""
    return float(np.logaddexp.reduce(values))


def _langevin(values: Array) -> Array:
    """coth(x) - 1 / x."""
    safe = np.where(np.abs(values) < 1e-4, 1.0, values)
    return np.where(np.abs(values) < 1e-4, values / 3, 1 / np.tanh(safe) - 1 / safe)
