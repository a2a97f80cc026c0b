"""Cheap stand-ins for the inverse Hessian H^-1 in S[j, k] = f_j^T H^-1 g_k.

A gradient goes in piece by piece, the preconditioned gradient comes out:

| name        | H^-1 g                                | acts on | S is linear in g_k |
|-------------|---------------------------------------|---------|--------------------|
| `identity`  | g                                     | target  | yes                |
| `adam`      | g / (sqrt(v) + d mean(sqrt(v)))       | target  | yes                |
| `adam_unit` | the same, scaled to global norm 1     | domain  | no                 |
| `sign`      | sign(g)                               | domain  | no                 |

v is Adam's bias-corrected second moment, the mean runs over all parameters' elements, and d is the
`damping`: relative to the mean, because rows of rarely seen tokens have almost no second moment and
an absolute constant lets them explode (Kingma and Ba, 2015, arXiv 1412.6980, algorithm 1, has the
absolute epsilon). `sign` is the limit of Adam for a gradient that stands out of its noise, and is
the default: without the domain gradient's norm the loop beats uniform, with it it does not.

On the target side the J target gradients are preconditioned once and S is linear in the domain's
gradient, so dots may be taken batch by batch. On the domain side they may not: the domain's whole
gradient is summed, over ranks too, before it is preconditioned.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

Side = Literal["target", "domain"]


class Preconditioner(Protocol):
    """H^-1 as an elementwise map, up to a final scaling to unit norm."""

    side: ClassVar[Side]
    """"target": S is linear in the domain's gradient; "domain": it is not."""
    unit_norm: ClassVar[bool]
    """Whether the preconditioned gradient is divided by its norm over all parameters."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None,
        damping: float,
    ) -> None: ...

    def __call__(self, gradient: Tensor, parameter: int, span: slice) -> Tensor:
        """Preconditions elements `span` of the flattened `parameter`-th parameter.

        Args:
            gradient: (..., n) those elements; not changed.
            parameter: position in `parameters`.
            span: which n of its elements.
        """
        ...


class Identity:
    """H^-1 = 1: the plain dot product of gradients."""

    side: ClassVar[Side] = "target"
    unit_norm: ClassVar[bool] = False

    def __init__(self, parameters, optimizer, damping) -> None:
        """Needs nothing."""

    def __call__(self, gradient: Tensor, parameter: int, span: slice) -> Tensor:
        """The gradient itself."""
        return gradient


class Sign(Identity):
    """The sign of each element; 0 where it is 0."""

    side: ClassVar[Side] = "domain"

    def __call__(self, gradient: Tensor, parameter: int, span: slice) -> Tensor:
        """-1, 0 or 1."""
        return gradient.sign()


class Adam:
    """Division by Adam's live, bias-corrected sqrt(v) plus relative damping.

    A parameter that never received a gradient has v = 0.

    Raises:
        ValueError: without an optimizer, with one that keeps no `exp_avg_sq`, before its first
            step, if it does not hold every trainable parameter, or if `damping` is not positive.
    """

    side: ClassVar[Side] = "target"
    unit_norm: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None,
        damping: float,
    ) -> None:
        if not 0 < damping < float("inf"):
            raise ValueError(f"`damping` must be positive and finite; got {damping}.")
        self._moments = _second_moments(parameters, optimizer)
        # One tensor at a time: the P square roots never exist together.
        sqrt_sum = sum(
            (v.sqrt().sum(dtype=torch.float64) / correction**0.5).item()
            for v, correction in filter(None, self._moments)
        )
        self._floor = damping * sqrt_sum / sum(parameter.numel() for parameter in parameters)
        if not 0 < self._floor < float("inf"):
            raise ValueError(
                f"the optimizer's second moments must be finite and not all zero; the mean of "
                f"their square roots is {self._floor / damping}."
            )

    def __call__(self, gradient: Tensor, parameter: int, span: slice) -> Tensor:
        """The gradient divided by sqrt(v) + damping mean(sqrt(v))."""
        moment = self._moments[parameter]
        if moment is None:
            return gradient / self._floor
        v, correction = moment
        v_hat = v.flatten()[span].to(gradient.dtype) / correction
        return gradient / v_hat.sqrt_().add_(self._floor)


class AdamUnit(Adam):
    """`Adam` on the domain's gradient, scaled to global norm 1."""

    side: ClassVar[Side] = "domain"
    unit_norm: ClassVar[bool] = True


_PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    "identity": Identity,
    "adam": Adam,
    "adam_unit": AdamUnit,
    "sign": Sign,
}


def available() -> tuple[str, ...]:
    """The names that `load` takes."""
    return tuple(_PRECONDITIONERS)


def load(name: str) -> type[Preconditioner]:
    """The preconditioner of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in _PRECONDITIONERS:
        close = difflib.get_close_matches(name, available(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`preconditioner` must be one of {available()}; got {name!r}.{hint}")
    return _PRECONDITIONERS[name]


def _second_moments(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None,
) -> list[tuple[Tensor, float] | None]:
    """Each parameter's `exp_avg_sq` and correction 1 - beta_2^t; None before its first step."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    if optimizer is None:
        raise ValueError(_no_adam("needs the `optimizer` that trains the model; got None"))
    kind = type(optimizer).__name__
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    moments: list[tuple[Tensor, float] | None] = []
    for parameter in parameters:
        if parameter not in groups:
            raise ValueError(
                _no_adam(f"needs every trainable parameter in {kind}; one is not in it")
            )
        state = optimizer.state.get(parameter, {})  # [] would make an entry
        if "betas" not in groups[parameter] or (state and "exp_avg_sq" not in state):
            raise ValueError(_no_adam(f"needs an optimizer with `exp_avg_sq`; {kind} keeps none"))
        if not state:
            moments.append(None)
            continue
        correction = 1 - groups[parameter]["betas"][1] ** float(state["step"])
        moments.append((state["exp_avg_sq"], correction))
    if not any(moments):
        raise ValueError(_no_adam(f"needs the second moments of {kind}, which has not stepped yet"))
    return moments


def _no_adam(fact: str) -> str:
    return f'an Adam preconditioner {fact}. Use preconditioner="sign", which needs no optimizer.'
