"""GRAPE: gradient alignment with the targets that improve least weighted most.

In go alignment <f_j, g_k> (J, K), the targets' losses and the learning rate; out come the domain
weights of Fan, Glarou and Jaggi, "GRAPE" (arXiv 2505.20380, 2025), a minimax of two mirror steps.
With the gradients of log losses, whose alignment is a rate of relative improvement,
r_jk = <f_j, g_k> / f_j, and the gradient of training, sum_k p_k g_k:

    z_j <- z_j exp(-lr sum_k r_jk p_k / mu_z) / normalisation        (tasks)
    alpha_k <- alpha_k exp(lr sum_j z_j r_jk / mu_alpha) / normalisation     (domains).

Where this differs from the paper:
* The paper steps alpha every 10 and z every 100 optimizer steps. This steps both at every update, z
  first, by the learning rate times the number of such steps since the last update (a fraction where
  it is less than one).
* p is the mixture in force, which is what training samples from, constraints included.
* alpha starts from the mixture that training starts with; z from the uniform one.
* `mu_domains` and `mu_tasks` are 0.3 of the paper's code's, at which a run of some hundreds of
  optimizer steps hardly leaves the mixture it starts with.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._exponentiated import multiplied
from tikmix_hf.mixers._gradient_alignment import log_loss_alignment, progress
from tikmix_hf.mixers.base import About, Mixer, check_settings
from tikmix_hf.mixers.signals import Signals

Array = NDArray[np.float64]


class GRAPEState(NamedTuple):
    """Weights of domains and of tasks, whatever the constraints made of the former."""

    weights: tuple[float, ...]
    """(K,) alpha."""
    task_weights: tuple[float, ...] = ()
    """(J,) z; empty before the first update, which learns how many targets there are."""
    step: int = 0
    """Optimizer steps done at the last update."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GRAPE(Mixer[GRAPEState]):
    """Two weight vectors, over domains and over tasks; a setting of 0 or less is a ValueError."""

    about: ClassVar[About] = About(
        paper="Fan, Glarou and Jaggi, GRAPE (arXiv 2505.20380, 2025)",
        cost="a gradient pass over rows of every domain and target",
        deviations="an update stands for the steps before it; larger step sizes",
    )
    state_type: ClassVar[type[GRAPEState]] = GRAPEState

    mu_domains: float = 3e-4
    """Price of moving alpha, > 0. 1e-3 in the paper's code."""
    mu_tasks: float = 3e-5
    """Price of moving z, > 0; infinitely dear tasks would weigh the same for ever. 1e-4 in the
    paper's code."""
    domain_interval: int = 10
    """Optimizer steps to a step of alpha, > 0. 10 in the paper's code."""
    task_interval: int = 100
    """Optimizer steps to a step of z, > 0. 100 in the paper's code."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        settings = {
            "mu_domains": self.mu_domains,
            "mu_tasks": self.mu_tasks,
            "domain_interval": self.domain_interval,
            "task_interval": self.task_interval,
        }
        check_settings(**settings)
        for name, value in settings.items():
            if value == 0:
                raise ValueError(f"`{name}` must be above 0; got 0.")

    @property
    def requires(self) -> frozenset[str]:
        """Alignment."""
        return frozenset({"alignment"})

    def init(self, prior: Array) -> GRAPEState:
        """The weights alpha are the prior."""
        return GRAPEState(tuple(prior.tolist()))

    def propose(self, state: GRAPEState, signals: Signals) -> tuple[Array, GRAPEState]:
        """The weights alpha after the steps since the last update.

        Raises:
            MixerError: Alignment is missing, not finite or zero everywhere, a target's loss is not
                positive, or the learning rate is not known.
        """
        rates_JK = log_loss_alignment(signals)
        done = progress(state.step, signals)
        num_targets = len(signals.targets)
        tasks_J = np.array(state.task_weights or (1 / num_targets,) * num_targets)
        improvement_J = rates_JK @ signals.mixture
        tasks_J = _lagging(tasks_J, done / (self.task_interval * self.mu_tasks) * improvement_J)
        gains_K = done / (self.domain_interval * self.mu_domains) * (tasks_J @ rates_JK)
        weights_K = multiplied(state.weights, gains_K, signals)
        shown = ", ".join(
            f"{name} {weight:.2f}" for name, weight in zip(signals.targets, tasks_J, strict=True)
        )
        after = GRAPEState(
            weights=tuple(weights_K.tolist()),
            task_weights=tuple(tasks_J.tolist()),
            step=signals.step,
            notes=(f"task weights: {shown}",),
        )
        return weights_K, after


def _lagging(tasks_J: Array, improvement_J: Array) -> Array:
    """Task weights z_j exp(-improvement_j), normalised; the least is taken off all of them."""
    held_J = np.where(tasks_J > 0, improvement_J, np.inf)
    raised_J = tasks_J * np.exp(held_J.min() - held_J)
    return raised_J / raised_J.sum()
