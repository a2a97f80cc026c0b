"""MixtureUpdater: one update of the mixture, and the account of all of them.

In: the live model at an optimizer step. Out: an `UpdateRecord`, and a change of mixture that the
dataset obeys from a stated sample on. The last update's prediction is audited, influence is
measured in rounds, the mixer and the noise guard decide on rank 0, their answer is checked,
broadcast and announced. What fails on the way leaves the mixture in force.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.checkpoint import check_same, seal, unseal
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.updates.auditor import Auditor
from tikmix_hf.updates.clock import Clock
from tikmix_hf.updates.decision import Decision, decide, with_influence, would_propose
from tikmix_hf.updates.measurement import Measurer
from tikmix_hf.updates.plan import Plan
from tikmix_hf.updates.record import UpdateRecord
from tikmix_hf.updates.rounds import Rounds, measure_in_rounds

# Shape letters: K domains.

logger = logging.getLogger(__name__)

# What an update may fail of without taking training along. MixerError is a ValueError.
FAILURES = (ValueError, FloatingPointError, torch.OutOfMemoryError, distributed.OtherRankFailed)
_COUNTERS = ("_num_updates", "_last_step", "_measured_tokens", "_trained_tokens")


class MixtureUpdater:
    """Changes a dataset's mixture as a mixer says, and keeps count.

    Args:
        dataset: what training reads.
        measurer: reads held-out rows of its domains and of the targets.
        mixer: turns signals into a mixture.
        noise_guard: standard errors by which a proposal's gain must stand out; 0 is no guard.
        observe: measure and propose, but change nothing.
        raises: whether a failed update raises; otherwise it keeps the mixture.

    Attributes:
        influence: the last `InfluenceMatrix`, None before the first.
        layout: how the run cuts samples into batches; to be set before the first update.
        plan: of the run's measurements; to be set before the first update, as is `layout`.
    """

    def __init__(
        self,
        dataset: InterleavedDomainDataset,
        measurer: Measurer,
        *,
        mixer: Mixer[Any],
        noise_guard: float,
        observe: bool,
        raises: bool,
    ) -> None:
        self.dataset, self.measurer = dataset, measurer
        self.mixer, self.noise_guard = mixer, noise_guard
        self.observe, self.raises = observe, raises
        self.measures = observe or bool(mixer.requires)
        self.influence: InfluenceMatrix | None = None
        self.layout: BatchLayout | None = None
        self._plan: Plan | None = None
        self._auditor = Auditor(measurer)
        self._data_identity = {"seed": dataset.seed, "domains": dataset.domains.fingerprint()}
        self.start()

    def start(self) -> None:
        """Sets what a run counts to where it is before the first step."""
        self._mixer_state = self.mixer.init(self.dataset.schedule.segments[0].mixture)
        self._num_updates = 0
        self._last_step = 0
        self._measured_tokens = 0
        self._trained_tokens = 0
        self._auditor.start()
        self.start_clock()

    def start_clock(self) -> None:
        """Takes this moment for the beginning of training in this process."""
        self._clock = Clock(self._trained_tokens)
        self.measurer.forget()

    def take(self, plan: Plan) -> None:
        """Measures by a plan from now on."""
        assert self.layout is not None
        self._plan = plan
        self.measurer.num_rows, self.measurer.per_device = plan.num_rows, self.layout.per_device

    def update(self, step: int, model: nn.Module, optimizer: Any) -> UpdateRecord:
        """Audits, measures, steps the mixer and announces its mixture."""
        interval, read_before = self._close_interval(step), self.measurer.num_tokens
        mixture_K = self.dataset.schedule.segments[-1].mixture
        audit = rounds = None
        decision = Decision(mixture_K, mixture_K, self._mixer_state, (), None)
        notes: list[str] = []
        with self._forgiving(step, "audit failed", notes):
            audit = self._auditor.settle(model, interval.realised)
        with self._forgiving(step, "update failed", notes):
            rounds = self._measure(step, mixture_K, model, optimizer)
            decision = self._decide(step, mixture_K, rounds)
        self._mixer_state = decision.state
        notes[:0] = decision.notes
        if self.observe:
            notes.append("observed only")
        from_sample = self._announce(step, mixture_K, decision, notes)
        in_force_K = self.dataset.schedule.segments[-1].mixture  # normalised once more
        matrix = None if rounds is None else rounds.matrix
        self.influence = matrix or self.influence
        self._auditor.predict(step, self._num_updates, rounds)
        self._num_updates += 1
        num_tokens = self._auditor.num_tokens + self.measurer.num_tokens - read_before
        self._measured_tokens += num_tokens
        return self._record(
            step,
            interval,
            mixture=mixture_K,
            proposed=decision.mixture if from_sample is None else in_force_K,
            unguarded=decision.proposal,
            verdict=decision.verdict,
            notes=tuple(notes),
            from_sample=from_sample,
            influence=matrix,
            num_rounds=0 if rounds is None else len(rounds.each),
            proposal_change=None if rounds is None else rounds.change,
            audit=audit,
            num_tokens=num_tokens,
        )

    @contextmanager
    def _forgiving(self, step: int, what: str, notes: list[str]) -> Iterator[None]:
        """Notes a failure and goes on, unless the user wants it raised."""
        try:
            yield
        except FAILURES as err:
            if self.raises:
                raise
            notes.append(f"{what}: {err}")
            logger.warning("step %d, mixer %s: %s", step, type(self.mixer).__name__, notes[-1])

    def _measure(
        self, step: int, mixture_K: NDArray[np.float64], model: nn.Module, optimizer: Any
    ) -> Rounds | None:
        """Measures rounds until the proposal stays, if the mixer or the user asks for any."""
        if not self.measures:
            return None
        portions = self.measurer.portions(self._num_updates)

        def follows(matrix: InfluenceMatrix) -> NDArray[np.float64] | None:
            if "influence" not in self.mixer.requires:
                return None
            signals = with_influence(self._signals(step, mixture_K), matrix)
            return distributed.solve_on_rank_0(
                lambda: would_propose(self.mixer, self._mixer_state, signals), (ValueError,)
            )

        try:
            return measure_in_rounds(
                lambda number: self.measurer.measure(model, optimizer, portions[number]),
                follows,
                num_rounds=len(portions),
                tolerance=self.measurer.settings.tolerance,
            )
        finally:
            self.measurer.release()

    def _decide(self, step: int, mixture_K: NDArray[np.float64], rounds: Rounds | None) -> Decision:
        """Steps the mixer on rank 0; every rank gets its answer, or its error."""
        signals = self._signals(step, mixture_K)
        if rounds is not None:
            signals = with_influence(signals, rounds.matrix)
        return distributed.solve_on_rank_0(
            lambda: decide(
                self.mixer,
                self._mixer_state,
                signals,
                None if rounds is None else rounds.matrix.rounds,
                num_errors=self.noise_guard,
            ),
            (ValueError,),
        )

    def _signals(self, step: int, mixture_K: NDArray[np.float64]) -> Signals:
        return Signals(
            step=step,
            domains=self.dataset.domains.names,
            targets=tuple(self.measurer.targets),
            mixture=mixture_K,
        )

    def _announce(
        self,
        step: int,
        mixture_K: NDArray[np.float64],
        decision: Decision,
        notes: Sequence[str],
    ) -> int | None:
        """Tells the dataset; returns the first sample under a new mixture, None for no change."""
        assert self.layout is not None
        from_sample = None
        if not self.observe and not np.array_equal(decision.mixture, mixture_K):
            # After a resume with fewer workers, a change announced before may lie farther ahead.
            announced = self.dataset.schedule.segments[-1].from_sample
            from_sample = self.layout.first_free_sample(step, after=announced)
            about = {"step": step, "mixer": self.mixer.describe(), "notes": list(notes)}
            self.dataset.set_mixture(decision.mixture, from_sample, update=about)
        last = self.dataset.schedule.segments[-1]
        distributed.check_identical(
            f"the mixture at step {step}", repr((last.from_sample, last.mixture.tolist())).encode()
        )
        return from_sample

    def _close_interval(self, step: int) -> _Interval:
        """Counts what was trained on since the last update."""
        assert self.layout is not None
        first, last = map(self.layout.samples_before, (self._last_step, step))
        realised_K = self.dataset.tokens_between(first, last)
        self._trained_tokens += int(realised_K.sum())
        self._last_step = step
        self._clock.begin_update(self._trained_tokens)
        return _Interval(
            requested=self.dataset.schedule.mean_between(first, last) * realised_K.sum(),
            realised=realised_K,
            epochs=np.array(list(self.dataset.epochs_used(last).values())),
        )

    def _record(self, step: int, interval: _Interval, **decided: Any) -> UpdateRecord:
        """Adds what was trained since the last update, and what this one cost."""
        assert self._plan is not None
        seconds = self._clock.end_update()
        return UpdateRecord(
            step=step,
            domains=self.dataset.domains.names,
            seconds=seconds,
            planned_tokens=round(self._plan.tokens_per_update),
            planned_seconds=self._clock.planned(self._plan.tokens_per_update),
            time_share=self._clock.time_share,
            token_share=self._measured_tokens / max(self._trained_tokens, 1),
            **interval._asdict(),
            **decided,
        )

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types under a checksum."""
        content = {
            "schedule": self.dataset.schedule.to_dict(),
            "data": self._data_identity,
            "layout": None if self.layout is None else self.layout.identity(),
            "mixer": {"settings": self.mixer.describe(), "state": self._mixer_state._asdict()},
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "audit": self._auditor.state(),
        }
        return seal(content)

    def resume(self, saved: Any, step: int) -> None:
        """Takes up the schedule and the counters of a checkpoint.

        Args:
            saved: what `state` returned, through JSON.
            step: optimizer steps that the checkpoint had done.

        Raises:
            ValueError: the checkpoint is damaged, or was made with other data or batches.
        """
        assert self.layout is not None
        origin = f"the checkpoint of step {step}"
        content = unseal(saved, origin=origin)
        for what, mine in (("data", self._data_identity), ("layout", self.layout.identity())):
            check_same(what, content[what], mine, origin=origin)
        self.dataset.load_schedule(MixtureSchedule.from_dict(content["schedule"], origin=origin))
        if content["mixer"]["settings"] == self.mixer.describe():
            self._mixer_state = self.mixer.restore(content["mixer"]["state"])
        else:
            logger.warning(
                "%s was made with another mixer; %s starts anew.", origin, self.mixer.describe()
            )
        for name in _COUNTERS:
            setattr(self, name, content["counters"][name])
        self._auditor.resume(content["audit"], origin)


class _Interval(NamedTuple):
    """What was trained on from one update to the next, (K,) each."""

    requested: NDArray[np.float64]
    realised: NDArray[np.int64]
    epochs: NDArray[np.float64]
