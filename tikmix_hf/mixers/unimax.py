"""UniMax: as uniform as the domains' sizes allow without repeating any of them too often.

In goes the supply, out comes, once, before the first sample, the mixture of Chung et al., "UniMax"
(arXiv 2304.09151, 2023), algorithm 1: domains in ascending size get the same share of the budget
that is left, but none more than `max_epochs` of its tokens. That is T_k = min(c, cap_k) tokens of
each with the one c that fills the run, and shares proportional to T_k. Samples fill a run: with r_k
tokens in a mean row and n samples left, sum_k T_k / r_k = n. So the parts of the samples are
min(c, cap_k) / (r_k n), the KL projection of those of the uniform mixture onto their caps; where
all rows are equally long that of the uniform mixture itself.

The paper counts characters; this counts tokens. Where the domains cannot fill the run in
`max_epochs` it is a `MixerError` that names the least that would do; the paper's algorithm ends
with a budget that is not spent.
"""

# Shape letters: K domains.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.base import About, Mixer, State
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import Supply, project

Array = NDArray[np.float64]

# Caps that sum to 1 but for the rounding of a sum of up to 4,000 shares leave one mixture.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class UniMax(Mixer[State]):
    """Uniform under a cap on epochs."""

    about: ClassVar[About] = About(
        paper="Chung et al., UniMax (arXiv 2304.09151, 2023), algorithm 1",
        cost="nothing",
        deviations="tokens for characters; a budget that cannot be spent is an error",
    )
    at_start: ClassVar[bool] = True
    at_updates: ClassVar[bool] = False

    max_epochs: float = 1.0
    """How often a domain may be gone through by the end of training, > 0. 1 is best in the
    paper, by little."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        if not (self.max_epochs > 0 and np.isfinite(self.max_epochs)):
            raise ValueError(f"`max_epochs` must be finite and above 0; got {self.max_epochs}.")

    def propose(self, state: State, signals: Signals) -> tuple[Array, State]:
        """The capped uniform mixture and the same state.

        Raises:
            MixerError: The supply is not known, or `max_epochs` of it do not fill the run.
        """
        supply = signals.usable_supply()
        caps_K = supply.largest_parts(self.max_epochs)
        if caps_K.sum() < 1 - _ROUNDING:
            raise MixerError(
                f"`max_epochs` {self.max_epochs:g} of every domain are {caps_K.sum():.1%} of the "
                f"samples that training still reads. {_mend(supply)}"
            )
        parts_K = project(1 / supply.row_tokens, np.zeros(len(signals.domains)), caps_K)
        return supply.as_shares(parts_K), state


def _mend(supply: Supply) -> str:
    """What to set `max_epochs` to."""
    if not supply.tokens.any():
        return "No domain has tokens."
    return f"Set `max_epochs` to at least {_least_epochs(supply):.3g} or train for fewer samples."


def _least_epochs(supply: Supply) -> float:
    """The least number of epochs at which the caps sum to 1, rounded up to three digits.

    Their sum is piecewise linear and never falls, with a corner where a domain gets room and one
    where it could fill the run alone; it reaches 1 at the latest where the first one could.
    """
    held_K = supply.tokens > 0
    tokens_K, seen_K = supply.tokens[held_K], supply.seen[held_K]
    alone_K = seen_K + max(supply.left, 1.0) * supply.row_tokens[held_K]
    corners = np.unique(np.concatenate([seen_K, alone_K]) / np.tile(tokens_K, 2))
    sums = np.array([supply.largest_parts(corner).sum() for corner in corners])
    above = int(np.argmax(sums >= 1 - _ROUNDING))
    exact = float(np.interp(1.0, sums[above - 1 : above + 1], corners[above - 1 : above + 1]))
    unit = 10.0 ** (np.floor(np.log10(exact)) - 2)
    return float(np.ceil(exact / unit - 1e-9) * unit)
