"""The gradients that are held while others stream past, and dots with them.

N gradients (of the targets, or of the domains where those are fewer) go in, each with halves of it
for its standard error; a streamed gradient goes in, its dot with each comes out: the one place
where P-sized numbers become N of them. Whole gradients are kept in at least fp32, halves in
bfloat16: a standard error does not need more. Works through the parameters in pieces, so that no
temporary is P-sized; the products of a piece are summed in fp32 (PyTorch's sum is pairwise, its
rounding error grows with the logarithm of the length) and the pieces in float64.

Memory: N (1 + num_halves / 2) fp32 gradients, on the parameters' device or, offloaded, on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Shape letters: N held gradients, H halves, n elements of a piece; _P: one tensor per parameter.


class HeldGradients:
    """N gradients, not set at first.

    Args:
        local_P: what this rank holds of each parameter: shapes, dtypes and device.
        num_held: N.
        num_halves: H, how many parts of each gradient are kept beside the whole.
        offload: keep them in CPU memory, where the dots are then taken.

    Attributes:
        whole_P: (N, n) for each parameter of n elements.
    """

    def __init__(
        self, local_P: Sequence[Tensor], num_held: int, *, num_halves: int, offload: bool
    ) -> None:
        self._device = local_P[0].device
        place = torch.device("cpu") if offload else self._device
        # Pages that the accelerator can write to while the CPU works.
        pinned = offload and self._device.type == "cuda"
        self.whole_P = [
            torch.empty(
                (num_held, local.numel()),
                dtype=torch.promote_types(local.dtype, torch.float32),
                device=place,
                pin_memory=pinned,
            )
            for local in local_P
        ]
        self._halves_HP = [
            [
                torch.empty_like(whole, dtype=torch.bfloat16, pin_memory=pinned)
                for whole in self.whole_P
            ]
            for _ in range(num_halves)
        ]
        self._num_held = num_held
        # Long enough to keep an accelerator busy, short enough that temporaries do not count.
        num_elements = sum(local.numel() for local in local_P)
        self._piece_length = min(max(num_elements // 64, 2**16), 2**22)

    def put_whole(self, n: int, gradient_P: Sequence[Tensor]) -> None:
        """Copies the n-th gradient."""
        for stacked, gradient in zip(self.whole_P, gradient_P, strict=True):
            stacked[n].copy_(gradient.reshape(-1))

    def put_half(self, n: int, half: int, gradient_P: Sequence[Tensor]) -> None:
        """Copies one half of the n-th gradient, rounded to bfloat16."""
        for stacked, gradient in zip(self._halves_HP[half], gradient_P, strict=True):
            stacked[n].copy_(gradient.reshape(-1))

    @property
    def shape(self) -> tuple[int, int]:
        """(1 + H, N), of `dots`."""
        return 1 + len(self._halves_HP), self._num_held

    def squares(self) -> Tensor:
        """(N,) float64, each whole gradient's squared norm; of this rank's shards alone."""
        squares_N = self._zeros(self._num_held)
        for p, piece in self._pieces():
            squares_N += self.whole_P[p][:, piece].square().sum(1).to(squares_N)
        return squares_N

    def dots(self, gradient_P: Sequence[Tensor | None], *, halves: bool = True) -> Tensor:
        """Dots with a gradient, of this rank's shards alone.

        Returns:
            (1 + H, N) float64: of the wholes, and of each of the `halves` if they are asked for.
        """
        stacks_HP = [self.whole_P, *(self._halves_HP if halves else [])]
        dots_HN = self._zeros(len(stacks_HP), self._num_held)
        for p, whole_Nn in enumerate(self.whole_P):
            gradient = gradient_P[p]
            if gradient is None:
                continue
            elements_n = gradient.reshape(-1).to(whole_Nn.device)
            for piece in self._pieces_of(p):
                for h, stacked_P in enumerate(stacks_HP):
                    # Not a matrix product: the user may have allowed TF32 or autocast there.
                    products_Nn = stacked_P[p][:, piece] * elements_n[piece]
                    dots_HN[h] += products_Nn.sum(1).to(dots_HN)
        return dots_HN

    def _pieces(self) -> Iterator[tuple[int, slice]]:
        """Every parameter's position, with slices that cover its flattened elements."""
        for p in range(len(self.whole_P)):
            for piece in self._pieces_of(p):
                yield p, piece

    def _pieces_of(self, p: int) -> Iterator[slice]:
        for start in range(0, self.whole_P[p].shape[1], self._piece_length):
            yield slice(start, start + self._piece_length)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self._device)
