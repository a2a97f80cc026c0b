"""The J target gradients, held while the domains stream past, and dots with them.

A domain's gradient goes in, its dot with each target comes out: the one place where P-sized numbers
become J of them. Works through the parameters in pieces, so that no temporary is P-sized; the
products of a piece are summed in the gradients' precision (PyTorch's sum is pairwise, its rounding
error grows with the logarithm of the length) and the pieces in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from tikmix_hf.signals.gradients import Gradient, accumulator
from tikmix_hf.signals.preconditioners import Preconditioner

# Shape letters: J targets, n elements of a piece; _P is a list with one tensor per parameter.


class TargetGradients:
    """One gradient per target, zero at first.

    Args:
        parameters: what the gradients are taken by.
        num_targets: J.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], num_targets: int) -> None:
        self.stacked_P = accumulator(parameters, num_targets)
        """(J, *shape) per parameter."""
        self._num_targets = num_targets
        self._device = parameters[0].device
        # Long enough to keep an accelerator busy, short enough that temporaries do not count.
        num_elements = sum(parameter.numel() for parameter in parameters)
        self._piece_length = min(max(num_elements // 64, 2**16), 2**22)

    def __getitem__(self, target: int) -> list[Tensor]:
        """One target's gradient, a view for each parameter."""
        return [stacked[target] for stacked in self.stacked_P]

    def norms(self) -> Tensor:
        """(J,) float64, each gradient's norm over all parameters."""
        return torch.stack([get_total_norm(self[j]).double() for j in range(self._num_targets)])

    def precondition_(self, precondition: Preconditioner) -> None:
        """Replaces every f_j by H^-1 f_j (H^-1 elementwise, so symmetric)."""
        for p, piece in self._pieces():
            target_Jn = self.stacked_P[p].flatten(1)[:, piece]
            target_Jn.copy_(precondition(target_Jn, p, piece))

    def dots(self, gradient_P: Gradient) -> Tensor:
        """(J,) float64, each target's dot with a gradient."""
        dots_J = self._float64(self._num_targets)
        for p, piece in self._pieces():
            gradient = gradient_P[p]
            if gradient is not None:
                dots_J += self._dot(p, piece, gradient.reshape(-1)[piece])
        return dots_J

    def dots_of_updates(
        self, precondition: Preconditioner, even_P: list[Tensor], odd_P: list[Tensor]
    ) -> Tensor:
        """Each target's dot with H^-1 of a gradient that is held in two halves.

        Returns:
            (3, J) float64: for even + odd, for even, for odd.
        """
        dots_3J, squares_3 = self._float64(3, self._num_targets), self._float64(3)
        for p, piece in self._pieces():
            even_n, odd_n = even_P[p].view(-1)[piece], odd_P[p].view(-1)[piece]
            for i, gradient_n in enumerate((even_n + odd_n, even_n, odd_n)):
                update_n = precondition(gradient_n, p, piece)
                dots_3J[i] += self._dot(p, piece, update_n)
                squares_3[i] += update_n.square().sum()
        return dots_3J / squares_3.sqrt()[:, None] if precondition.unit_norm else dots_3J

    def _dot(self, p: int, piece: slice, elements_n: Tensor) -> Tensor:
        # Not a matrix product: the user may have allowed TF32 or autocast there.
        return (self.stacked_P[p].flatten(1)[:, piece] * elements_n).sum(1)

    def _pieces(self) -> Iterator[tuple[int, slice]]:
        """Every parameter's position, with slices that cover its flattened elements."""
        for p, stacked in enumerate(self.stacked_P):
            for start in range(0, stacked[0].numel(), self._piece_length):
                yield p, slice(start, start + self._piece_length)

    def _float64(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self._device)
