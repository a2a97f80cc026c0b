"""Scores of mixtures: what TiKMiX-M fits its model to.

In go mixtures (N, K) and what was measured; out comes a number for each, more is better. See
`tikmix_m` for where the two scores come from.
"""

# Shape letters: J targets, K domains, R rounds, N mixtures, C = R K pieces of text.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def linear_scores(values_JK: Array, mixtures_NK: Array) -> Array:
    """(N,) sum over targets of normalised influence S w.

    Example:
        >>> linear_scores(np.array([[2.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [1.0, 0.5]
    """
    return mixtures_NK @ (target_weights(values_JK) @ values_JK)


def drawn_scores(
    values_JK: Array,
    rounds_RJK: Array,
    mixtures_NK: Array,
    *,
    num_pieces: int | None,
    rng: np.random.Generator,
) -> Array:
    """(N,) the same, of text drawn from each mixture.

    Args:
        values_JK: Mean influence, which normalises.
        rounds_RJK: Influence of each round, on text of its own.
        mixtures_NK: The mixtures.
        num_pieces: Pieces drawn for a mixture, each a round's text of one domain: the domain by the
            mixture, the round by equal chance, with replacement. None: R K.
        rng: Where the randomness comes from.
    """
    gain_RK = np.einsum("j,rjk->rk", target_weights(values_JK), rounds_RJK)
    total = gain_RK.size if num_pieces is None else num_pieces
    chance_NC = np.tile(mixtures_NK, (1, len(gain_RK)))
    chance_NC /= chance_NC.sum(axis=1, keepdims=True)
    return rng.multinomial(total, chance_NC) @ gain_RK.ravel() / total


def lookahead_scores(losses_NJ: Array, num_mixtures: int) -> Array:
    """(N,) sum over targets of (mean loss - loss) / spread of the losses over mixtures.

    Losses of targets differ in unit and in how far a step moves them; divided by their spread all
    have the same say in the ranking. A target whose losses are all the same has none.

    Raises:
        MixerError: The losses are not those of `num_mixtures` mixtures, or do not differ.

    Example:
        >>> lookahead_scores(np.array([[1.0, 30.0], [3.0, 10.0], [2.0, 20.0]]), 3).tolist()
        [0.0, 0.0, 0.0]
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
    return (drop_NJ[:, moved_J] / spread_J[moved_J]).sum(axis=1)
