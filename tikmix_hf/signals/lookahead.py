"""Lookahead: what the targets' losses would be a step ahead, for many mixtures.

Mixtures w_n, domains' and targets' batches go in; out come the losses L_j(theta - s sum_k w_nk u_k)
with u_k = H^-1 g_k the preconditioned gradient of domain k. Unlike influence, its first derivative
at s = 0 (with the sign turned), this is not linear in the mixture. The domains' updates are taken
once; a mixture then costs forward passes over the targets' rows alone.

The length: s is such that the step under the mixture in force has the root mean square of
`num_steps` optimizer steps of 0.2 times the learning rate each, which is what AdamW's have in
training (Liu et al., arXiv 2502.16982, 2025, section 2.2).

Memory: K + 1 gradients in fp32 beyond a plain forward and backward pass.
"""

# Shape letters: J targets, K domains, N mixtures, P parameters; _P is a list with one tensor per
# parameter.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tikmix_hf import distributed
from tikmix_hf.signals.gradients import Batches
from tikmix_hf.signals.losses import mean_losses
from tikmix_hf.signals.pairing import Pairing
from tikmix_hf.signals.passes import Passes

# Root mean square of AdamW's updates, in learning rates.
TYPICAL_RMS = 0.2


class StepsAhead(NamedTuple):
    """What to look at."""

    mixtures: np.ndarray
    """(N, K)."""
    in_force: np.ndarray
    """(K,) the mixture whose step has the stated length."""
    num_steps: float
    """Length, in typical optimizer steps."""
    learning_rate: float
    """Of the optimizer."""


class LookaheadLosses(NamedTuple):
    """What was seen."""

    means: np.ndarray
    """(N, J) float64, nats per token."""
    gradient_tokens: int
    """Tokens in forward and backward passes of all ranks."""
    forward_tokens: int
    """Tokens in forward passes of all ranks."""


def losses_ahead(
    passes: Passes,
    pairing: Pairing,
    domain_batches: Mapping[str, Batches],
    target_batches: Mapping[str, Batches],
    ahead: StepsAhead,
) -> LookaheadLosses:
    """Steps ahead under each mixture, reads the targets, and steps back.

    Raises:
        ValueError: for a sharded model, or a learning rate that is not positive.
        FloatingPointError: a loss a step ahead is not finite: the step is too long.
    """
    if passes.sharded:
        raise ValueError(
            "`score` 'lookahead' needs parameters that are whole on every rank; the model is "
            "sharded (FSDP2 or ZeRO-3). Use score='influence'."
        )
    if not ahead.learning_rate > 0:
        raise ValueError(
            "`score` 'lookahead' needs the learning rate for the length of its step; got "
            f"{ahead.learning_rate}. Update where the rate is positive."
        )
    updates_KP, num_tokens = pairing.updates_held(domain_batches)
    num_parameters = sum(local.numel() for local in passes.local_P)
    squares = sum(
        float((_weighted(ahead.in_force, updates_K) ** 2).sum(dtype=torch.float64))
        for updates_K in updates_KP
    )
    length = ahead.num_steps * ahead.learning_rate * TYPICAL_RMS * num_parameters**0.5
    scale = length / max(squares**0.5, np.finfo(np.float64).tiny)
    rows_NJ, forward_tokens = [], 0
    for mixture_K in ahead.mixtures:
        with _stepped(passes.local_P, updates_KP, scale * mixture_K):
            losses = mean_losses(passes.model, target_batches)
        rows_NJ.append(losses.means)
        forward_tokens += losses.num_tokens
    return LookaheadLosses(np.stack(rows_NJ), num_tokens, forward_tokens)


@contextmanager
def _stepped(
    local_P: Sequence[Tensor], updates_KP: Sequence[Tensor], weights_K: np.ndarray
) -> Iterator[None]:
    """Inside, parameters are a step ahead; afterwards they have their bits back."""
    with distributed.FailTogether():
        kept_P = [local.clone() for local in local_P]
    try:
        for local, updates_K in zip(local_P, updates_KP, strict=True):
            local -= _weighted(weights_K, updates_K).view_as(local).to(local)
        yield
    finally:
        for local, kept in zip(local_P, kept_P, strict=True):
            local.copy_(kept)


def _weighted(weights_K: np.ndarray, updates_K: Tensor) -> Tensor:
    """The weighted sum of K flat updates of one parameter."""
    return torch.tensor(weights_K).to(updates_K) @ updates_K
