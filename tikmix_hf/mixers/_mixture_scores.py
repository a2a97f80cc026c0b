"""Gains of targets under mixtures, and scores made of them: what TiKMiX-M fits its model to.

In go mixtures (N, K) and what was measured; out come gains (N, J), and a number for each mixture,
more is better. See `tikmix_m` for where they come from.
"""

# Shape letters: J targets, K domains, R rounds, N mixtures, C = R x K pieces of text.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from tikmix_hf.mixers.signals import MixerError

Array = NDArray[np.float64]

# max_k S_jk below this part of max_k |S_jk| is rounding noise, not help.
_NO_HELP = 1e-12


def target_weights(values_JK: Array) -> Array:
    """(J,) what a target's influence is multiplied by: 1 / max_k S_jk.

    As in TiKMiX-D a target that no domain helps is divided by max_k |S_jk|, and one that no domain
    moves is left out.
    """
    top_J, size_J = values_JK.max(axis=1), np.abs(values_JK).max(axis=1)
    scale_J = np.where(top_J > _NO_HELP * size_J, top_J, size_J)
    return np.divide(1.0, scale_J, out=np.zeros_like(scale_J), where=scale_J > 0)


def linear_gains(values_JK: Array, mixtures_NK: Array) -> Array:
    """(N, J) normalised influence S w of each target.

    Example:
        >>> linear_gains(np.array([[2.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [[1.0], [0.5]]
    """
    return mixtures_NK @ (target_weights(values_JK)[:, None] * values_JK).T


def drawn_gains(
    values_JK: Array,
    rounds_RJK: Array,
    mixtures_NK: Array,
    *,
    num_pieces: int | None,
    rng: np.random.Generator,
) -> Array:
    """(N, J) the same, of text drawn from each mixture.

    Args:
        values_JK: Mean influence, which normalises.
        rounds_RJK: Influence of each round, on text of its own.
        mixtures_NK: The mixtures.
        num_pieces: Pieces drawn for a mixture, each a round's text of one domain: the domain by the
            mixture, the round by equal chance, with replacement. None: R K.
        rng: Where the randomness comes from.
    """
    pieces_JC = np.einsum("j,rjk->jrk", target_weights(values_JK), rounds_RJK)
    pieces_JC = pieces_JC.reshape(len(values_JK), -1)
    total = pieces_JC.shape[1] if num_pieces is None else num_pieces
    chance_NC = np.tile(mixtures_NK, (1, len(rounds_RJK)))
    chance_NC /= chance_NC.sum(axis=1, keepdims=True)
    return rng.multinomial(total, chance_NC) @ pieces_JC.T / total


def lookahead_gains(losses_NJ: Array, num_mixtures: int) -> Array:
    """(N, J) (mean loss - loss) / spread of the losses over mixtures, for each target.

    Losses of targets differ in unit and in how far a step moves them; divided by their spread all
    have the same say in the ranking. A target whose losses are all the same has none.

    Raises:
        MixerError: The losses are not those of `num_mixtures` mixtures, or do not differ.

    Example:
        >>> lookahead_gains(np.array([[1.0, 5.0], [3.0, 5.0]]), 2).tolist()
        [[1.0, 0.0], [-1.0, 0.0]]
    """
    if len(losses_NJ) != num_mixtures:
        raise MixerError(
            f"`lookahead_losses` must have a row for each of the {num_mixtures} mixtures that were "
            f"asked for; got {len(losses_NJ)}."
        )
    spread_J = losses_NJ.std(axis=0)
    moved_J = spread_J > 1e-12 * np.abs(losses_NJ).max(axis=0)
    if not moved_J.any():
        raise MixerError("`lookahead_losses` are the same for all mixtures: nothing tells them.")
    drop_NJ = losses_NJ.mean(axis=0) - losses_NJ
    return np.divide(drop_NJ, spread_J, out=np.zeros_like(drop_NJ), where=moved_J)


def balanced(
    gains_NJ: Array, mixtures_NK: Array, *, alpha: float, beta: float, gamma: float
) -> Array:
    """(N,) TiKMiX-D's objective (eq. 10), turned so that more is better.

    beta sum_j gain_j - alpha std_j(gain_j) + gamma H(w), the standard deviation that of the
    population and 0 log 0 = 0.

    Example:
        >>> balanced(np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]]),
        ...     alpha=1.0, beta=1.0, gamma=1.0).tolist()
        [3.0]
    """
    entropy_N = -xlogy(mixtures_NK, mixtures_NK).sum(axis=1)
    return beta * gains_NJ.sum(axis=1) - alpha * gains_NJ.std(axis=1) + gamma * entropy_N
