"""The damped Gauss-Newton matrix, inverted by conjugate gradients.

    H^-1 g = (G + D)^-1 g,   G = 1/N sum_t J_t^T (diag(p_t) - p_t p_t^T) J_t,

J_t the logits' Jacobian at loss token t of the held-out text, p_t the predicted shares: the exact
generalised Gauss-Newton matrix of the mean loss per token (Schraudolph, 2002; Martens, 2020, arXiv
1412.1193, section 8). D says how far the optimizer moves a parameter in the horizon's steps. With
Adam's bias-corrected second moment v,

    D = (sqrt(v) + damping mean(sqrt(v))) / (lr horizon_steps),

so that without curvature H^-1 is `horizon_steps` steps of `adam`; without an Adam D is a scalar,
damping times the mean of G's diagonal. The conjugate gradients are preconditioned by D (Nocedal and
Wright, 2006, algorithm 5.3) and stop after `num_products` products with G: an approximation that
leaves S linear in the domain's gradient and, strictly, not in the target's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tikmix_hf import distributed
from tikmix_hf.checks import check_count, check_positive
from tikmix_hf.signals.gradients import precision
from tikmix_hf.signals.preconditioners._gauss_newton import (
    NUM_PROBES,
    PASSES_PER_PRODUCT,
    GaussNewton,
    check_attention,
    dot,
    mean_diagonal,
)
from tikmix_hf.signals.preconditioners._predictions import ReadsText, batches_of_this_rank
from tikmix_hf.signals.preconditioners.adam import is_adam, second_moments
from tikmix_hf.signals.preconditioners.base import Apply, Fitting


@dataclass(frozen=True, kw_only=True, slots=True)
class Ggn(ReadsText):
    """Every rank must apply it to the same gradients at the same time: products are summed.

    Raises:
        ValueError: for a setting out of its range.
    """

    reads_optimizer: ClassVar[bool] = True

    num_products: int = 12
    """Products with G for each gradient: a target's, and that of half its text."""
    horizon_steps: float = 20.0
    """Optimizer steps that the influence looks ahead, > 0; with an Adam."""
    damping: float = 0.1
    """Relative to mean(sqrt(v)) with an Adam, else to the mean of G's diagonal, > 0."""
    share: float = 0.1
    """Of each domain's held-out batches that G is taken from, in (0, 1]."""

    def __post_init__(self) -> None:
        ReadsText.__post_init__(self)
        check_positive("damping", self.damping)
        check_positive("horizon_steps", self.horizon_steps)
        check_count("num_products", self.num_products)

    def fit_passes(self, num_batches: int, optimizer: Any) -> float:
        """Of the probes, which Adam's damping does without."""
        num_probes = 0 if is_adam(optimizer) else NUM_PROBES
        return num_probes * PASSES_PER_PRODUCT * self.share_read(num_batches)

    def apply_passes(self, num_batches: int) -> float:
        """Of each product."""
        return self.num_products * PASSES_PER_PRODUCT * self.share_read(num_batches)

    def fit(self, fitting: Fitting) -> Apply:
        """Chooses the text and D; the products come with each gradient.

        Raises:
            ValueError: for attention that has no forward-mode derivative, held-out text without any
                loss token, no curvature, an Adam that has not stepped or whose learning rate is 0.
        """
        check_attention(fitting.model)
        with distributed.FailTogether():
            batches = [batch for _, batch in batches_of_this_rank(fitting, self.share)]
        product = GaussNewton(fitting.model, fitting.parameters, batches)
        if is_adam(fitting.optimizer):  # anything else is damped by a scalar
            damping_P = self._adams_damping(fitting)
        else:
            damping = self.damping * mean_diagonal(product, self.seed)
            if not damping > 0:
                raise ValueError(
                    "the Gauss-Newton matrix of the held-out text is zero: no parameter moves a "
                    "prediction."
                )
            damping_P = [torch.tensor(damping, device=own.device) for own in fitting.parameters]
        return functools.partial(
            conjugate_gradients, product, damping_P, num_products=self.num_products
        )

    def _adams_damping(self, fitting: Fitting) -> list[Tensor]:
        moments_P = second_moments(fitting.parameters, fitting.optimizer)
        roots_P = [
            torch.zeros_like(own, dtype=precision(own), requires_grad=False)
            if moment is None
            else (moment.v.to(precision(own)) / moment.correction).sqrt_()
            for own, moment in zip(fitting.parameters, moments_P, strict=True)
        ]
        num_elements = sum(root.numel() for root in roots_P)
        mean = float(sum(root.sum(dtype=torch.float64) for root in roots_P)) / num_elements
        if not 0 < mean < float("inf"):
            raise ValueError(
                f"the optimizer's second moments must be finite and not all zero; the mean of "
                f"their square roots is {mean}."
            )
        rates = _learning_rates(fitting)
        return [
            root.add_(self.damping * mean).div_(rate * self.horizon_steps)
            for root, rate in zip(roots_P, rates, strict=True)
        ]


def conjugate_gradients(
    product: GaussNewton,
    damping_P: Sequence[Tensor],
    gradient_P: list[Tensor],
    *,
    num_products: int,
) -> list[Tensor]:
    """(G + D)^-1 g, preconditioned by D; overwrites g.

    Raises:
        FloatingPointError: if g or a product is not finite.
    """
    residual_P = gradient_P
    with distributed.FailTogether():
        solution_P = [torch.zeros_like(own) for own in residual_P]
        direction_P = [r / d for r, d in zip(residual_P, damping_P, strict=True)]
        start = length = dot(residual_P, direction_P)
    if not math.isfinite(start):
        raise FloatingPointError("the gradient that 'ggn' is applied to is not finite.")
    for _ in range(num_products):
        # All that is compared comes out of sums over ranks: no rank leaves the others waiting.
        if length <= torch.finfo(residual_P[0].dtype).eps ** 2 * start:
            break
        curved_P = product(direction_P)
        with distributed.FailTogether():
            length = _advance_(
                solution_P, residual_P, direction_P, curved_P, damping_P, length=length
            )
    return solution_P


def _advance_(
    solution_P: list[Tensor],
    residual_P: list[Tensor],
    direction_P: list[Tensor],
    curved_P: list[Tensor],
    damping_P: Sequence[Tensor],
    *,
    length: float,
) -> float:
    """One step of conjugate gradients, in place; the residual's next squared length under D^-1."""
    for curved, damping, direction in zip(curved_P, damping_P, direction_P, strict=True):
        curved += damping * direction
    curvature = dot(direction_P, curved_P)
    if not 0 < curvature < float("inf"):
        raise FloatingPointError(
            f"a Gauss-Newton product is not finite or not positive ({curvature}): the model's "
            f'precision does not carry it. Use preconditioner="sign".'
        )
    step = length / curvature
    for solution, direction in zip(solution_P, direction_P, strict=True):
        solution.add_(direction, alpha=step)
    for residual, curved in zip(residual_P, curved_P, strict=True):
        residual.sub_(curved, alpha=step)
    scaled_P = [r / d for r, d in zip(residual_P, damping_P, strict=True)]
    previous, length = length, dot(residual_P, scaled_P)
    for direction, scaled in zip(direction_P, scaled_P, strict=True):
        direction.mul_(length / previous).add_(scaled)
    return length


def _learning_rates(fitting: Fitting) -> list[float]:
    """Each parameter's, as it is now.

    Raises:
        ValueError: where one is not positive.
    """
    assert fitting.optimizer is not None
    groups: Sequence[Mapping[str, Any]] = fitting.optimizer.param_groups
    rate_of = {own: float(group["lr"]) for group in groups for own in group["params"]}
    rates = [rate_of[own] for own in fitting.parameters]
    if min(rates) <= 0:
        raise ValueError(
            f"`preconditioner` 'ggn' looks ahead with the optimizer's learning rate, which must be "
            f"positive; got {min(rates)}. Measure after the first step of a warm-up and before the "
            "end of a schedule that falls to 0, where a run's last checkpoint is; or use "
            'preconditioner="sign".'
        )
    return rates
