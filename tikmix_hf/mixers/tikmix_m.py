"""TiKMiX-M: score mixtures near the one in force, fit a model to the scores, search with it.

In goes influence S (J, K), by rounds or as a mean, or losses a step ahead; out comes a mixture
within half and twice each share in force. Wang et al., "TiKMiX" (arXiv 2508.17677, 2025), the
section on the mix influence model and algorithm 1:

1. a box [q_k / 2, 2 q_k] around the mixture in force q;
2. 256 mixtures from it, by Latin hypercube, division by the sum and rejection;
3. the score of each: sum over targets of normalised influence, on text drawn from that mixture;
4. LightGBM from mixtures to scores;
5. for t = 1 .. T: draws from Dirichlet(c_t w), w <- mean of those with the best predictions.

Two scores. `influence` is the paper's: text is drawn from what was measured, M pieces of it, each
a round's text of one domain, domains by the mixture; S_j of the pieces is averaged and divided by
max_k S_jk. It is linear in the mixture but for the noise of drawing text, and a linear function is
what TiKMiX-D maximises exactly. `lookahead` scores losses after a step of finite length under each
mixture, which is not linear: sum over targets of (mean loss - loss) / spread of the losses over
mixtures, so that every target has the same say whatever its losses' unit and size.

Where this differs from the paper:
* Rejection is done by `_box.sample_box`: the same law, and not hopeless with many domains.
* The box is around the mixture in force; TiKMiX-D's optimum *within the box* starts the search.
* Floors, caps, epochs and groups cut the box, see `_neighbourhood`.
* The concentration of the Dirichlet grows from round to round (the paper's wording has a large one
  explore, which it does not). A draw that left the box comes back to the nearest mixture in it:
  near a face of the box almost every draw leaves, and the model knows nothing out there.
* A linear model stands beside LightGBM. Both are cross-validated and the notes tell the outcome;
  the search follows the better one, and stays where it starts if neither predicts anything. With
  `surrogate="lightgbm"` it follows LightGBM, as in the paper.
* The answer is the best predicted of the start, every round's w and the mixture in force, if that
  is allowed.
* A domain without a share stays without one, since twice nothing is nothing: give it a floor.
"""

# Shape letters: J targets, K domains, R rounds, N mixtures, M pieces of text.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._dirichlet_search import Climb, search
from tikmix_hf.mixers._mixture_scores import (
    balanced,
    drawn_gains,
    linear_gains,
    lookahead_gains,
)
from tikmix_hf.mixers._neighbourhood import Neighbourhood
from tikmix_hf.mixers._surrogate import FITS, choose, without_outliers
from tikmix_hf.mixers.base import About, Lookahead, Mixer, check_settings
from tikmix_hf.mixers.signals import Signals
from tikmix_hf.mixers.tikmix_d import solve

Array = NDArray[np.float64]

SCORES = {"influence": 256, "lookahead": 64}
"""How mixtures can be scored, and how many are where `num_mixtures` does not say."""
OBJECTIVES = ("sum", "balanced")
"""What is made of the targets' gains."""
# Candidates whose shares differ by less are one candidate.
_SAME = 1e-6
# Purposes of random numbers, so that one more of the one does not change the other.
_FOR_MIXTURES, _FOR_THE_REST = 0, 1


class MState(NamedTuple):
    """What TiKMiX-M remembers: how often it was asked, which its random numbers follow."""

    num_updates: int = 0
    """Updates so far."""
    notes: tuple[str, ...] = ()
    """What the last step did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TikMixM(Mixer[MState]):
    """TiKMiX-M as a mixer.

    Raises:
        ValueError: A setting out of range.
    """

    about: ClassVar[About] = About(
        paper="Wang et al., TiKMiX (arXiv 2508.17677, 2025), algorithm 1",
        cost="a gradient pass over rows of every domain and target; with `lookahead` also a second "
        "one over the first round's rows of the domains and, for each mixture, a pass over the "
        "first round's rows of the targets, forward alone",
        deviations="a linear model beside LightGBM, annealed search inside the box, lookahead "
        "score (see the file's head)",
        constraints="floors, caps, epochs and groups cut its box",
    )
    state_type: ClassVar[type[MState]] = MState

    score: str = "influence"
    """"influence", the paper's, or "lookahead": losses a step ahead."""
    objective: str = "sum"
    """"sum" of the targets' gains, the paper's, which ends in a corner of the box; or "balanced",
    TiKMiX-D's: less what they spread, plus the mixture's entropy."""
    num_mixtures: int | None = None
    """Mixtures that are scored, N. None: 256, as in the paper, for influence and 64 for lookahead,
    where each costs a pass over the targets."""
    box: tuple[float, float] = (0.5, 2.0)
    """Least and largest factor on each share in force; below and above 1. The paper's."""
    num_pieces: int | None = None
    """Pieces of text, each of one domain in one round, that a mixture's influence is the mean of.
    None: as many as were measured, rounds times domains."""
    lookahead_steps: float = 10.0
    """Length of the step ahead, in typical optimizer steps."""
    num_outliers: int = 2
    """Mixtures left out of the fit, those whose scores are furthest from the median. The paper's
    number; it does not say which."""
    surrogate: str = "better"
    """Which model the search follows: "lightgbm" (the paper's), "linear", or the "better" one by
    cross-validated R2, none if none is above 0."""
    num_folds: int = 5
    """Folds of the cross-validation."""
    num_search_rounds: int = 8
    """Rounds of the search, T."""
    num_draws: int = 512
    """Mixtures drawn in each of them."""
    top_k: int = 32
    """How many of the best predicted the next round's mixture is the mean of."""
    concentration: tuple[float, float] = (1.0, 1000.0)
    """First and last c_t / K of Dirichlet(c_t w), the rounds between spaced by equal factors. A
    share of 1 / K is drawn with a relative spread of about sqrt(K / c_t): 100 % to 3 %."""
    alpha: float = 1.0
    """Price of spread in TiKMiX-D, which finds the start, and in `objective="balanced"`. 1 in the
    paper, as the next two."""
    beta: float = 1.0
    """Its reward of normalised influence."""
    gamma: float = 1.0
    """Its reward of entropy."""
    seed: int = 0
    """Of all random numbers, with the number of updates."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        for name, choices in (
            ("score", tuple(SCORES)),
            ("objective", OBJECTIVES),
            ("surrogate", ("better", *FITS)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(choices)}; got {getattr(self, name)!r}."
                )
        check_settings(alpha=self.alpha, beta=self.beta, gamma=self.gamma, seed=self.seed)
        check_settings(num_outliers=self.num_outliers)
        check_settings(1, num_search_rounds=self.num_search_rounds, top_k=self.top_k)
        check_settings(1, num_pieces=1 if self.num_pieces is None else self.num_pieces)
        check_settings(2, num_folds=self.num_folds)
        check_settings(self.top_k, num_draws=self.num_draws)
        check_settings(2 * self.num_folds + self.num_outliers, num_mixtures=self._num_scored)
        if not 0 <= self.box[0] < 1 < self.box[1] < np.inf:
            raise ValueError(f"`box` must be a factor in [0, 1) and one above 1; got {self.box}.")
        if not 0 < self.concentration[0] <= self.concentration[1] < np.inf:
            raise ValueError(
                f"`concentration` must be positive and not fall; got {self.concentration}."
            )
        if not 0 < self.lookahead_steps < np.inf:
            raise ValueError(f"`lookahead_steps` must be positive; got {self.lookahead_steps}.")

    def init(self, prior: Array) -> MState:
        """No update yet."""
        return MState()

    @property
    def requires(self) -> frozenset[str]:
        """Influence, and with `score="lookahead"` the losses a step ahead."""
        ahead = {"lookahead_losses"} if self.score == "lookahead" else set()
        return frozenset({"influence", *ahead})

    @property
    def num_lookahead(self) -> int:
        """Mixtures to be scored a step ahead."""
        return self._num_scored if self.score == "lookahead" else 0

    def lookahead(self, state: MState, signals: Signals) -> Lookahead:
        """The mixtures that the next step scores.

        A function of state, mixture in force, constraints and supply: the step finds them again.

        Raises:
            MixerError: No mixture obeys the constraints.
        """
        if self.score != "lookahead":
            return Lookahead(np.zeros((0, len(signals.domains))), 0.0)
        near, mixtures_NK, _ = self._candidates(state, signals)
        return Lookahead(near.in_order_of_run(mixtures_NK), self.lookahead_steps)

    def propose(self, state: MState, signals: Signals) -> tuple[Array, MState]:
        """The mixture that the search ends at.

        Raises:
            MixerError: A signal is missing, not finite or says nothing, no mixture obeys the
                constraints, or TiKMiX-D found no start.
        """
        rng = np.random.default_rng((self.seed, state.num_updates, _FOR_THE_REST))
        values_JK = signals.usable("influence")
        near, mixtures_NK, drawn = self._candidates(state, signals)
        if np.ptp(mixtures_NK, axis=0).max() < _SAME:
            return self._answer(near, near.nearest_K, state, (*near.notes, drawn))
        values_JK = values_JK[:, near.order_K]
        scores_N, scored = self._scores(near, values_JK, mixtures_NK, signals, rng)
        kept_N = without_outliers(scores_N, self.num_outliers)
        predict, fitted = choose(
            self.surrogate, mixtures_NK[kept_N], scores_N[kept_N], num_folds=self.num_folds, rng=rng
        )
        start_K = self._start(near, values_JK)
        notes = (*near.notes, drawn, *scored, *fitted)
        if predict is None:
            return self._answer(near, start_K, state, notes)
        mixture_K, searched = search(near, predict, start_K, self._climb, rng)
        return self._answer(near, mixture_K, state, (*notes, searched))

    def _answer(
        self, near: Neighbourhood, mixture_K: Array, state: MState, notes: tuple[str, ...]
    ) -> tuple[Array, MState]:
        return near.in_order_of_run(near.exactly(mixture_K)), MState(state.num_updates + 1, notes)

    @property
    def _climb(self) -> Climb:
        return Climb(self.num_search_rounds, self.num_draws, self.top_k, self.concentration)

    @property
    def _num_scored(self) -> int:
        return SCORES[self.score] if self.num_mixtures is None else self.num_mixtures

    def _candidates(self, state: MState, signals: Signals) -> tuple[Neighbourhood, Array, str]:
        rng = np.random.default_rng((self.seed, state.num_updates, _FOR_MIXTURES))
        near = Neighbourhood.around(signals, self.constraints, self.box)
        return near, *near.candidates(self._num_scored, rng)

    def _start(self, near: Neighbourhood, values_JK: Array) -> Array:
        """(K,) TiKMiX-D's optimum within the region, brought into the groups."""
        optimum_K = solve(
            values_JK,
            near.mixture_K,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            constraints=near.region,
        )
        return near.brought_in(optimum_K[None])[0]

    def _scores(
        self,
        near: Neighbourhood,
        values_JK: Array,
        mixtures_NK: Array,
        signals: Signals,
        rng: np.random.Generator,
    ) -> tuple[Array, tuple[str, ...]]:
        """(N,) what each mixture is worth, more is better, and what to say of it."""
        notes: tuple[str, ...] = ()
        if self.score == "lookahead":
            gains_NJ = lookahead_gains(signals.usable("lookahead_losses"), len(mixtures_NK))
        elif signals.rounds is None:
            gains_NJ = linear_gains(values_JK, mixtures_NK)
            notes = ("a single round of text, so gains are linear in the mixture",)
        else:
            rounds_RJK = signals.usable("rounds")[:, :, near.order_K]
            gains_NJ = drawn_gains(
                values_JK, rounds_RJK, mixtures_NK, num_pieces=self.num_pieces, rng=rng
            )
        if self.objective == "sum":
            return gains_NJ.sum(axis=1), notes
        prices = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        return balanced(gains_NJ, mixtures_NK, **prices), notes
