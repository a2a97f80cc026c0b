"""K-FAC: the inverse of a damped Fisher matrix with one Kronecker product per Linear layer.

    H^-1 g = (F + d 1)^-1 g,   d = damping * mean eigenvalue of F,

F block-diagonal: A (x) G for the [W b] of a Linear, a diagonal for all else (`_fisher`; Martens
and Grosse, 2015, arXiv 1503.05671). With A = Q_A a Q_A^T and G = Q_G b Q_G^T the damped inverse of
a block is exact,

    (A (x) G + d 1)^-1 g = Q_G [(Q_G^T g Q_A) / (b a^T + d)] Q_A^T

with no factored approximation of the damping (Grosse et al., 2023, arXiv 2308.03296, section 3.2,
without their corrected eigenvalues).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tikmix_hf import distributed
from tikmix_hf.checks import check_count, check_positive
from tikmix_hf.signals.preconditioners._fisher import Fisher, Layer
from tikmix_hf.signals.preconditioners._predictions import ReadsText, batches_of_this_rank
from tikmix_hf.signals.preconditioners.base import Apply, Fitting


@dataclass(frozen=True, kw_only=True, slots=True)
class Kfac(ReadsText):
    """Needs no optimizer; keeps I^2 + O^2 + I O numbers for a weight of I x O.

    The factors are taken from `share` of the text, with labels drawn from the model's predictions.

    Every rank must apply it at the same time: where one fails, all do.

    Raises:
        ValueError: for a setting out of its range.
    """

    damping: float = 0.1
    """Relative to the mean eigenvalue over all parameters, > 0."""
    refresh_every: int = 1
    """Updates that one fit serves."""
    max_side: int = 4096
    """Factors of more rows keep their diagonal alone."""

    def __post_init__(self) -> None:
        ReadsText.__post_init__(self)
        check_positive("damping", self.damping)
        check_count("refresh_every", self.refresh_every)
        check_count("max_side", self.max_side)

    @property
    def refresh_updates(self) -> int:
        """How many updates one fit serves."""
        return self.refresh_every

    def fit_passes(self, num_batches: int, optimizer: Any) -> float:
        """One over the share."""
        return self.share_read(num_batches)

    def fit(self, fitting: Fitting) -> Apply:
        """One forward and backward pass over the share, and an eigendecomposition per factor.

        Raises:
            ValueError: for held-out text without any loss token, if the Fisher matrix is zero.
            FloatingPointError: if it is not finite or cannot be decomposed.
            OtherRankFailed: here and in what is returned, where another rank failed.
        """
        with distributed.FailTogether():
            fisher = Fisher(fitting.model, fitting.parameters, self.max_side)
            for number, batch in batches_of_this_rank(fitting, self.share):
                fisher.add(batch, seed=(self.seed, number))
        fisher.reduce_()
        # The ranks' numbers are the same, their memory and their LAPACK perhaps not.
        with distributed.FailTogether():
            damping = self.damping * mean_eigenvalue(fisher)
            if not damping > 0:
                raise ValueError(
                    "the Fisher matrix of the held-out text is zero: no parameter moves a "
                    "prediction."
                )
            blocks = [_Block.of(layer, damping) for layer in fisher.layers.values()]
            diagonals = {place: own.add_(damping) for place, own in fisher.diagonals.items()}

        def solve(gradient_P: list[Tensor]) -> list[Tensor]:
            with distributed.FailTogether():
                for place, diagonal in diagonals.items():
                    gradient_P[place] /= diagonal
                for block in blocks:
                    block.solve_(gradient_P)
            return gradient_P

        return solve


def mean_eigenvalue(fisher: Fisher) -> float:
    """The Fisher matrix's trace over its number of rows; a Kronecker product's traces multiply."""
    trace, num_rows = 0.0, 0
    for layer in fisher.layers.values():
        trace += _trace(layer.input_sum) * _trace(layer.output_sum)
        num_rows += len(layer.input_sum) * len(layer.output_sum)
    for diagonal in fisher.diagonals.values():
        trace += float(diagonal.sum(dtype=torch.float64))
        num_rows += diagonal.numel()
    return trace / num_rows


def _trace(factor: Tensor) -> float:
    diagonal = factor.diagonal() if factor.dim() == 2 else factor
    return float(diagonal.sum(dtype=torch.float64))


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """The damped inverse of one layer's A (x) G."""

    layer: Layer
    input_basis: Tensor | None
    """(I, I) eigenvectors in columns; None where the factor is a diagonal."""
    output_basis: Tensor | None
    """(O, O)."""
    inverse_OI: Tensor
    """1 / (b a^T + d)."""

    @classmethod
    def of(cls, layer: Layer, damping: float) -> _Block:
        input_values, input_basis = _decomposed(layer.input_sum, f"{layer.name}, inputs")
        output_values, output_basis = _decomposed(layer.output_sum, f"{layer.name}, outputs")
        inverse_OI = torch.outer(output_values, input_values).add_(damping).reciprocal_()
        return cls(layer, input_basis, output_basis, inverse_OI)

    def solve_(self, gradient_P: list[Tensor]) -> None:
        weight, bias = self.layer.weight, self.layer.bias
        block_OI = gradient_P[weight].T if self.layer.transposed else gradient_P[weight]
        if bias is not None:
            block_OI = torch.cat([block_OI, gradient_P[bias][:, None]], dim=1)
        block_OI = _rotated(block_OI, self.output_basis, self.input_basis) * self.inverse_OI
        block_OI = _rotated(block_OI, _transposed(self.output_basis), _transposed(self.input_basis))
        if bias is not None:
            gradient_P[bias] = block_OI[:, -1].contiguous()
            block_OI = block_OI[:, :-1]
        gradient_P[weight] = (block_OI.T if self.layer.transposed else block_OI).contiguous()


def _rotated(block_OI: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left^T block right."""
    if left is not None:
        block_OI = left.T @ block_OI
    return block_OI if right is None else block_OI @ right


def _transposed(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.T


def _decomposed(factor: Tensor, what: str) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues, rounded up to zero, and eigenvectors.

    Raises:
        FloatingPointError: where LAPACK gives up.
    """
    if factor.dim() == 1:
        return factor, None
    try:
        values, basis = torch.linalg.eigh(factor)
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise FloatingPointError(
            f"the Fisher factor of layer {what}, {tuple(factor.shape)}, cannot be decomposed. "
            f'Use preconditioner="sign", or a lower `max_side` to keep its diagonal alone.'
        ) from error
    return values.clamp_(min=0), basis
