"""Probing: train for a few steps on each of some mixtures, and see what the targets' losses do.

In: mixtures and numbers of steps, and the step they are asked for at. Out: the samples at which
the mixture changes, the steps at which the losses are to be read, and the losses once all are.
The changes are announced ahead like any other, so a probe's samples are stated before anybody
reads them, and a killed run goes on in the middle of a probe.
"""

# Shape letters: J targets, K domains, N probes.

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.mixture import as_mixture, nearest
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.updates.measurer import Measurer
from tikmix_hf.updates.schedule_entries import update_record

Array = NDArray[np.float64]


class Probing(NamedTuple):
    """Probes under way, in JSON types."""

    asked_at: int
    """Optimizer step at which the mixer asked."""
    steps: tuple[int, ...]
    """Optimizer steps at the end of which losses are read: N + 1, increasing. The first is the one
    before the first probe's samples."""
    mixtures: tuple[tuple[float, ...], ...] = ()
    """(N, K) what is trained on."""
    losses: tuple[tuple[float, ...], ...] = ()
    """(n, J) read so far."""
    num_tokens: int = 0
    """Read so far, forward, by all ranks."""
    seconds: float = 0.0
    """That took."""

    @classmethod
    def restore(cls, saved: Any) -> Probing:
        """The probes that went through JSON."""
        asked_at, steps, mixtures, losses, num_tokens, seconds = saved
        return cls(
            asked_at,
            tuple(steps),
            tuple(map(tuple, mixtures)),
            tuple(map(tuple, losses)),
            num_tokens,
            seconds,
        )

    def is_due(self, step: int) -> bool:
        """Whether losses are to be read at the end of a step."""
        return len(self.losses) < len(self.steps) and step >= self.steps[len(self.losses)]

    def with_losses(self, losses_J: Array, num_tokens: int, seconds: float) -> Probing:
        """The same with one more reading."""
        return self._replace(
            losses=(*self.losses, tuple(losses_J.tolist())),
            num_tokens=self.num_tokens + num_tokens,
            seconds=self.seconds + seconds,
        )

    @property
    def is_over(self) -> bool:
        """Whether all losses are read."""
        return len(self.losses) == len(self.steps)


class Prober:
    """Announces a mixer's probes, and reads the losses that they lead to.

    Args:
        dataset: what training reads.
        measurer: reads the targets' rows; its `needs` say how long the probes are.
        mixer: names the mixtures.

    Attributes:
        probing: what is under way, None where nothing is.
        layout: how the run cuts samples into batches; to be set before the first probe.
    """

    def __init__(
        self, dataset: InterleavedDomainDataset, measurer: Measurer, mixer: Mixer[Any]
    ) -> None:
        self.dataset, self.measurer, self.mixer = dataset, measurer, mixer
        self.probing: Probing | None = None
        self.layout: BatchLayout | None = None

    @property
    def probe_steps(self) -> tuple[int, ...]:
        """Optimizer steps of each probe; empty where the mixer asks for none."""
        return self.measurer.needs.probe_steps

    def begin(self, signals: Signals, state: Any) -> None:
        """Announces every probe, and after the last one the mixture in force.

        Args:
            signals: of the step that it is asked at.
            state: the mixer's.

        Raises:
            ValueError: the mixer's answer is no mixture for each probe.
        """
        assert self.layout is not None
        mixtures = distributed.solve_on_rank_0(
            lambda: self._mixtures(signals, state), (ValueError,)
        )
        begin = _first_step(self.layout, signals.step, signals.sample)
        steps = (begin, *(begin + np.cumsum(self.probe_steps)).tolist())
        for number, mixture_K in enumerate([*mixtures, signals.mixture]):
            what = f"probe {number + 1}" if number < len(mixtures) else "after the probes"
            about = update_record(signals.step, self.mixer, [what])
            sample = self.layout.samples_before(steps[number])
            self.dataset.set_mixture(mixture_K, sample, update=about)
        probed = tuple(tuple(mixture_K.tolist()) for mixture_K in mixtures)
        self.probing = Probing(signals.step, steps, probed)

    def _mixtures(self, signals: Signals, state: Any) -> list[Array]:
        """(K,) for each probe, all of them checked before any is announced."""
        asked_NK = self.mixer.probe_mixtures(state, signals)
        if len(asked_NK) != len(self.probe_steps):
            raise ValueError(
                f"`mixer` {type(self.mixer).__name__} must name {len(self.probe_steps)} mixtures "
                f"to probe; got {len(asked_NK)}."
            )
        mixtures = [as_mixture(one_K, signals.domains, argument="a probe") for one_K in asked_NK]
        if self.mixer.constraints is None:
            return mixtures
        # How far a probe is from the mixture in force is the mixer's business.
        allowed = self.mixer.constraints.polytope(signals.domains, supply=signals.supply)
        return [nearest(mixture_K, allowed) for mixture_K in mixtures]

    def read(self, step: int, model: nn.Module, update: int) -> float:
        """Reads the losses that are due at the end of a step, if any are.

        Args:
            step: optimizer steps done.
            model: the live model, left as it was.
            update: how many updates came before.

        Returns:
            Seconds it took.

        Raises:
            FloatingPointError: a loss is not finite; the probes are given up.
        """
        probing, self.probing = self.probing, None
        assert probing is not None
        if not probing.is_due(step):
            self.probing = probing
            return 0.0
        started = time.perf_counter()
        losses = self.measurer.probe_losses(model, update)
        seconds = time.perf_counter() - started
        self.probing = probing.with_losses(losses.means, losses.num_tokens, seconds)
        return seconds


def total_steps(layout: BatchLayout, probe_steps: Sequence[int]) -> int:
    """Steps from the mixer's question to its answer; 0 without probes."""
    if not probe_steps:
        return 0
    return _first_step(layout, 0, layout.first_free_sample(0)) + sum(probe_steps)


def _first_step(layout: BatchLayout, step: int, sample: int) -> int:
    """The step at whose end all samples before `sample` are read."""
    while layout.samples_before(step) < sample:
        step += 1
    return step
