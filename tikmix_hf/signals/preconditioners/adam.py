"""Division by Adam's live, bias-corrected sqrt(v) plus damping relative to its mean.

    H^-1 g = g / (sqrt(v) + damping mean(sqrt(v)))

(Kingma and Ba, 2015, arXiv 1412.6980, algorithm 1). The damping is relative, where the paper has an
absolute epsilon: rows of rarely seen tokens have almost no second moment, and an absolute constant
lets them explode. The mean runs over all parameters' elements; a parameter that never received a
gradient has v = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tikmix_hf import distributed
from tikmix_hf.checks import check_positive
from tikmix_hf.signals.preconditioners.base import Apply, Fitting, Preconditioner, Side

MOMENT = frozenset({"exp_avg_sq", "step"})
"""What Adam keeps of a parameter, as far as it is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adam(Preconditioner):
    """Adam's diagonal, read from the optimizer that trains the model.

    Raises:
        ValueError: if `damping` is not positive.
    """

    side: ClassVar[Side] = "target"
    reads_optimizer: ClassVar[bool] = True

    damping: float = 0.1
    """Relative to mean(sqrt(v)), > 0."""

    def __post_init__(self) -> None:
        check_positive("damping", self.damping)

    def check(self, *, sharded: bool, optimizer: Any) -> None:
        """Refuses optimizers that are no Adam (ValueError)."""
        check_adam(optimizer, self.name)

    def fit(self, fitting: Fitting) -> Apply:
        """The division.

        Raises:
            ValueError: without an optimizer, with one that keeps no elementwise `exp_avg_sq`,
                before its first step, or if it does not hold every trainable parameter.
        """
        return fit_division(fitting, self.damping)


def fit_division(fitting: Fitting, damping: float) -> Apply:
    """In-place division of a gradient by sqrt(v) + damping mean(sqrt(v))."""
    moments_P = second_moments(fitting.parameters, fitting.optimizer)
    # One tensor at a time: the P square roots never exist together.
    sums = torch.zeros(2, dtype=torch.float64, device=fitting.parameters[0].device)
    for parameter, moment in zip(fitting.parameters, moments_P, strict=True):
        sums[1] += _local(parameter).numel()
        if moment is not None:
            sums[0] += moment.v.sqrt().sum(dtype=torch.float64) / moment.correction**0.5
    sqrt_sum, num_elements = fitting.total(sums).tolist()
    floor = damping * sqrt_sum / num_elements
    if not 0 < floor < float("inf"):
        raise ValueError(
            "the optimizer's second moments must be finite and not all zero; the mean of their "
            f"square roots is {floor / damping}."
        )

    def divide(gradient_P: list[Tensor]) -> list[Tensor]:
        with distributed.FailTogether():
            for gradient, moment in zip(gradient_P, moments_P, strict=True):
                if moment is None:
                    gradient /= floor
                else:
                    v_hat = moment.v.to(gradient.dtype) / moment.correction
                    gradient /= v_hat.sqrt_().add_(floor)
        return gradient_P

    return divide


def check_adam(optimizer: Any, name: str) -> None:
    """Refuses what will never keep `exp_avg_sq` (ValueError); it need not have stepped."""
    if not is_adam(optimizer):
        kind = "None" if optimizer is None else type(bare(optimizer)).__name__
        raise ValueError(
            f"`preconditioner` {name!r} needs an optimizer of the Adam family, which keeps "
            f'`exp_avg_sq`; got {kind}. Use preconditioner="sign", which needs no optimizer.'
        )


def is_adam(optimizer: Any) -> bool:
    """Whether an optimizer, if there is one, keeps a second moment, or looks as if it will."""
    if optimizer is None:
        return False
    states = [state for state in bare(optimizer).state.values() if state]
    if states:
        return all(set(state) >= MOMENT for state in states)
    # Before the first step there is no state, but Adam's groups have betas and eps; Lion's no eps.
    return all({"betas", "eps"} <= set(group) for group in optimizer.param_groups)


def bare(optimizer: torch.optim.Optimizer | AcceleratedOptimizer) -> torch.optim.Optimizer:
    """The optimizer inside Accelerate's wrappers."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer


@dataclass(frozen=True, slots=True, eq=False)
class SecondMoment:
    """Of one parameter."""

    v: Tensor
    """In the parameter's local shape."""
    correction: float
    """1 - beta2^t, by which v is still too small."""


def second_moments(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None,
) -> list[SecondMoment | None]:
    """Each parameter's `exp_avg_sq`; None before its first step.

    Raises:
        ValueError: as `Adam.fit`.
    """
    if optimizer is None:
        raise ValueError(_no_adam("needs the `optimizer` that trains the model; got None"))
    optimizer = bare(optimizer)
    kind = type(optimizer).__name__
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    moments: list[SecondMoment | None] = []
    for parameter in parameters:
        if parameter not in groups:
            raise ValueError(
                _no_adam(f"needs every trainable parameter in {kind}; one is not in it")
            )
        state = optimizer.state.get(parameter, {})  # [] would make an entry
        if "betas" not in groups[parameter] or (state and not set(state) >= MOMENT):
            raise ValueError(
                _no_adam(f"needs an optimizer with `exp_avg_sq` and `step`; {kind} keeps none")
            )
        if not state:
            moments.append(None)
            continue
        v = _local(state["exp_avg_sq"])
        if v.shape != _local(parameter).shape:
            raise ValueError(
                _no_adam(
                    f"needs `exp_avg_sq` element by element; {kind} keeps the shape "
                    f"{tuple(v.shape)} for a parameter of {tuple(_local(parameter).shape)}"
                )
            )
        correction = 1 - groups[parameter]["betas"][1] ** float(state["step"])
        moments.append(SecondMoment(v, correction))
    if not any(moments):
        raise ValueError(_no_adam(f"needs the second moments of {kind}, which has not stepped yet"))
    return moments


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _no_adam(fact: str) -> str:
    return f'Adam\'s second moment {fact}. Use preconditioner="sign", which needs no optimizer.'
