"""Every target's gradient paired with every domain's: the J x K dots, and their standard errors.

Microbatches of K domains and J targets go in; S and its errors by either side's text come out. The
fewer side's gradients are held, in half as many bytes again for their halves, while the other
side's stream past:

* a linear H^-1 acts on what is held, once each, and what streams is dotted microbatch by microbatch
  and dropped;
* one that is not linear acts on a domain's whole gradient: held domains are kept preconditioned;
  streaming ones are gathered, in two halves, before they are dotted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tikmix_hf import distributed
from tikmix_hf.signals import gradients, sampling_error
from tikmix_hf.signals.gradients import Batches, Gradient
from tikmix_hf.signals.held import HeldGradients
from tikmix_hf.signals.passes import Passes
from tikmix_hf.signals.preconditioners import Apply
from tikmix_hf.signals.walk import Part, settle, walk

# Shape letters: J targets, K domains; N gradients held, H halves of each (after the whole), A parts
# that stream or B; G groups of microbatches; _P is a list with one tensor per parameter.


class Found(NamedTuple):
    """What a measurement has found."""

    values_JK: np.ndarray
    domain_stderr_JK: np.ndarray
    target_stderr_JK: np.ndarray
    targets_J: list[Part]
    domains_K: list[Part]


class Pairing:
    """Holds one side's gradients while the other's stream past; lives for one measurement.

    Args:
        passes: how the model gives gradients.
        apply: H^-1.
        linear: whether `apply` is linear, and so acts on whatever is held; otherwise on domains.
        offload: hold in CPU memory.
        bar: moved on by one for every microbatch.
    """

    def __init__(
        self, passes: Passes, apply: Apply, *, linear: bool, offload: bool, bar: tqdm
    ) -> None:
        self.passes, self.apply, self.linear = passes, apply, linear
        self.offload, self.bar = offload, bar
        with distributed.FailTogether():
            self.even_P, self.odd_P = (gradients.accumulator(passes.local_P) for _ in range(2))

    def targets_held(
        self, domain_batches: Mapping[str, Batches], target_batches: Mapping[str, Batches]
    ) -> Found:
        """Holds J targets, and the odd half of each; domains stream past."""
        held, targets_J = self._hold(target_batches, "target", num_halves=1)
        with distributed.FailTogether():
            squares_J = held.squares()
        norms_J = self.passes.total(squares_J).sqrt().cpu().numpy()
        columns_K, domains_K = [], []
        for name, batches in domain_batches.items():
            if self.linear:
                values_HJ, stderr_J, part = self._stream(f"domain {name!r}", batches, held)
            else:
                part = self._gather(f"domain {name!r}", batches)
                updates = self._updates(part)
                values_HJ = self._dots(held, next(updates))
                even_J, odd_J = (self._dots(held, half, halves=False)[0] for half in updates)
                weight = sampling_error.half_weight(*part.halves, linear=False)
                gap_1J = weight * (even_J - odd_J)[None]
                stderr_J = sampling_error.pooled(gap_1J, norms_J)[0]
            columns_K.append((values_HJ, stderr_J))
            domains_K.append(part)
        values_HJK = np.stack([values_HJ for values_HJ, _ in columns_K], axis=-1)
        domain_stderr_JK = np.stack([stderr_J for _, stderr_J in columns_K], axis=-1)
        # What is not linear has taken the gradients' sizes away.
        sizes_K = np.array([part.gradient_size if self.linear else 1.0 for part in domains_K])
        target_stderr_JK = sampling_error.pooled(_odd_gaps(values_HJK, targets_J), sizes_K)
        return Found(values_HJK[0], domain_stderr_JK, target_stderr_JK, targets_J, domains_K)

    def domains_held(
        self, domain_batches: Mapping[str, Batches], target_batches: Mapping[str, Batches]
    ) -> Found:
        """Holds K domains' updates, and their halves; targets stream past."""
        num_halves = 1 if self.linear else 2
        held, domains_K = self._hold(domain_batches, "domain", num_halves=num_halves)
        rows_J = [
            self._stream(f"target {name!r}", batches, held)
            for name, batches in target_batches.items()
        ]
        values_HKJ = np.stack([values_HK for values_HK, _, _ in rows_J], axis=-1)
        target_stderr_JK = np.stack([stderr_K for _, stderr_K, _ in rows_J])
        if self.linear:
            gaps_KJ = _odd_gaps(values_HKJ, domains_K)
        else:
            weights_K = [
                sampling_error.half_weight(*part.halves, linear=False) for part in domains_K
            ]
            gaps_KJ = np.array(weights_K)[:, None] * (values_HKJ[1] - values_HKJ[2])
        targets_J = [part for *_, part in rows_J]
        sizes_J = np.array([part.gradient_size for part in targets_J])
        domain_stderr_JK = sampling_error.pooled(gaps_KJ, sizes_J).T
        return Found(values_HKJ[0].T, domain_stderr_JK, target_stderr_JK, targets_J, domains_K)

    def updates_held(self, domain_batches: Mapping[str, Batches]) -> tuple[list[Tensor], int]:
        """Holds K domains' updates H^-1 g_k whole.

        Returns:
            (K, n) of every parameter with n elements, and the tokens read by all ranks.
        """
        with distributed.FailTogether():
            held = HeldGradients(
                self.passes.local_P, len(domain_batches), num_halves=0, offload=self.offload
            )
        num_tokens = 0
        for k, (name, batches) in enumerate(domain_batches.items()):
            part = self._gather(f"domain {name!r}", batches)
            with distributed.FailTogether():
                held.put_whole(k, next(self._updates(part)))
            num_tokens += part.num_tokens
        return held.whole_P, num_tokens

    def _hold(
        self, parts: Mapping[str, Batches], kind: Literal["target", "domain"], *, num_halves: int
    ) -> tuple[HeldGradients, list[Part]]:
        """Fills the held gradients with those of the mean loss per token, as dots need them."""
        with distributed.FailTogether():
            held = HeldGradients(
                self.passes.local_P, len(parts), num_halves=num_halves, offload=self.offload
            )
        settled = []
        for n, (name, batches) in enumerate(parts.items()):
            part = self._gather(f"{kind} {name!r}", batches)
            if kind == "domain" and not self.linear:
                stages = self._updates(part)
            else:
                stages = self._means(part)
            whole_P = next(stages)
            with distributed.FailTogether():
                held.put_whole(n, whole_P)
            del whole_P
            for half, gradient_P in enumerate(stages):
                with distributed.FailTogether():
                    held.put_half(n, half, gradient_P)
            settled.append(part)
        return held, settled

    def _gather(self, what: str, batches: Batches) -> Part:
        """Sums the gradient of a part's even and of its odd groups, over all ranks."""
        for total in (*self.even_P, *self.odd_P):
            total.zero_()
        add = functools.partial(_add_in_turn, self.even_P, self.odd_P)
        with distributed.FailTogether():
            ledger = walk(what, batches, self.passes, add, self.bar)
        self.passes.sum_gradients_([*self.even_P, *self.odd_P])
        distributed.all_reduce_sum_([ledger])
        return settle(what, ledger, self.passes.lanes)

    def _means(self, part: Part) -> Iterator[list[Tensor]]:
        """The gathered mean gradient, then that of its odd groups; both preconditioned if linear.

        Each is gone once the next is asked for.
        """
        # A preconditioner of domains leaves the targets alone.
        apply = self.apply if self.linear else _unchanged
        for even, odd in zip(self.even_P, self.odd_P, strict=True):
            even += odd
        yield apply(_divided(self.even_P, part.num_loss_tokens))
        yield apply(_divided(self.odd_P, part.halves[1]))

    def _updates(self, part: Part) -> Iterator[list[Tensor]]:
        """H^-1 of the gathered mean gradient, then of its even and of its odd groups.

        Each is gone once the next is asked for.
        """
        with distributed.FailTogether():
            whole_P = [even + odd for even, odd in zip(self.even_P, self.odd_P, strict=True)]
        yield self.apply(_divided(whole_P, part.num_loss_tokens))
        del whole_P
        yield self.apply(_divided(self.even_P, part.halves[0]))
        yield self.apply(_divided(self.odd_P, part.halves[1]))

    def _dots(
        self, held: HeldGradients, gradient_P: list[Tensor], *, halves: bool = True
    ) -> np.ndarray:
        """Dots with a gradient that all ranks have summed."""
        with distributed.FailTogether():
            dots_HN = held.dots(gradient_P, halves=halves)
        return self.passes.total(dots_HN).cpu().numpy()

    def _stream(
        self, what: str, batches: Batches, held: HeldGradients
    ) -> tuple[np.ndarray, np.ndarray, Part]:
        """Dots with a part's gradient, microbatch by microbatch.

        Returns:
            (1 + H, N) dots with the mean's gradient, (N,) standard errors of the first, the part.
        """
        num_groups = -(-len(batches) // self.passes.lanes)
        with distributed.FailTogether():
            dots_GHN = torch.zeros(
                num_groups, *held.shape, dtype=torch.float64, device=self.passes.device
            )
        note = functools.partial(_note_dots, held, dots_GHN)
        with distributed.FailTogether():
            ledger = walk(what, batches, self.passes, note, self.bar)
        distributed.all_reduce_sum_([ledger])
        self.passes.sum_streamed_([dots_GHN])
        part = settle(what, ledger, self.passes.lanes)
        dots = dots_GHN.cpu().numpy()
        _, stderr_N = sampling_error.ratio_estimate(dots[:, 0], part.loss_tokens_G)
        return dots.sum(0) / part.num_loss_tokens, stderr_N, part


def _odd_gaps(values_HAB: np.ndarray, parts_A: list[Part]) -> np.ndarray:
    """(A, B) standard errors from one difference each, where S is linear in the held gradient.

    With S = (n_e S_e + n_o S_o) / n, the difference S_e - S_o is n (S - S_o) / n_e.
    """
    gaps_AB = np.empty_like(values_HAB[0])
    for a, part in enumerate(parts_A):
        even, odd = part.halves
        weight = sampling_error.half_weight(even, odd, linear=True)
        gaps_AB[a] = weight * (even + odd) / max(even, 1.0) * (values_HAB[0, a] - values_HAB[1, a])
    return gaps_AB


def _add_in_turn(
    even_P: list[Tensor], odd_P: list[Tensor], group: int, gradient_P: Gradient
) -> None:
    gradients.add_(odd_P if group % 2 else even_P, gradient_P)


def _note_dots(held: HeldGradients, dots_GHN: Tensor, group: int, gradient_P: Gradient) -> None:
    dots_GHN[group] += held.dots(gradient_P)


def _divided(gradient_P: list[Tensor], num_tokens: float) -> list[Tensor]:
    """The sum as a mean, in place; a half without tokens stays zero."""
    for gradient in gradient_P:
        gradient /= max(num_tokens, 1.0)
    return gradient_P


def _unchanged(gradient_P: list[Tensor]) -> list[Tensor]:
    return gradient_P
