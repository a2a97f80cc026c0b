"""MixtureUpdater: one update of the mixture, and the account of all of them.

In: the live model at an optimizer step. Out: an `UpdateRecord`, and a change of mixture that the
dataset obeys from a stated sample on. The last update's prediction is audited, influence is
measured in rounds, the mixer and the noise guard decide on rank 0, their answer is checked,
broadcast and announced. What fails on the way leaves the mixture in force.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.checkpoint import check_same, seal, unseal
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.updates.account import Account, Interval
from tikmix_hf.updates.audit import Comparison
from tikmix_hf.updates.auditor import Auditor
from tikmix_hf.updates.beginning import beginning
from tikmix_hf.updates.decision import Decision, decide
from tikmix_hf.updates.failures import Failures
from tikmix_hf.updates.gathering import Gatherer, Live
from tikmix_hf.updates.measurer import Measurer
from tikmix_hf.updates.plan import Plan
from tikmix_hf.updates.probing import Prober, Probing
from tikmix_hf.updates.record import UpdateRecord

# Shape letters: K domains.

logger = logging.getLogger(__name__)


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
        self.observe = observe
        self._failures = Failures(type(mixer).__name__, raises=raises)
        self.influence: InfluenceMatrix | None = None
        self.layout: BatchLayout | None = None
        self.gatherer = Gatherer(dataset, measurer, mixer)
        self.prober = Prober(dataset, measurer, mixer)
        self.account = Account(dataset)
        self._plan: Plan | None = None
        self._auditor = Auditor(measurer)
        self._data_identity = {"seed": dataset.seed, "domains": dataset.domains.fingerprint()}
        self.start()

    def start(self) -> None:
        """Sets what a run counts to where it is before the first step."""
        self._mixer_state = self.mixer.init(self.dataset.schedule.segments[0].mixture)
        self.account.start()
        self.prober.probing = None
        self._auditor.start()
        self.gatherer.start()
        self.start_clock()

    def start_clock(self) -> None:
        """Takes this moment for the beginning of training in this process."""
        self.account.start_clock()
        self.measurer.forget()

    def take(self, plan: Plan) -> None:
        """Measures by a plan from now on."""
        assert self.layout is not None
        self._plan, self.prober.layout = plan, self.layout
        self.measurer.num_rows, self.measurer.per_device = plan.num_rows, self.layout.per_device

    def begin(self) -> str:
        """Lets the mixer name the mixture of the first sample; returns what was done, in words.

        Raises:
            ValueError: the mixer cannot say, or no mixture obeys its constraints.
        """
        known = self.gatherer.known(0, 0, end=self._end)
        schedule, said = beginning(self.mixer, known)
        if schedule is not None:
            self.dataset.load_schedule(schedule)
            self._mixer_state = self.mixer.init(schedule.segments[0].mixture)
        return said

    def end_step(self, step: int, model: nn.Module, optimizer: Any) -> UpdateRecord | None:
        """Does what is due at the end of an optimizer step; returns the update, if it was one."""
        assert self.layout is not None
        self.gatherer.end_step(self.layout, step)
        if self.prober.probing:
            return self._probe(step, model, optimizer)
        if not self._is_due(step):
            return None
        notes: list[str] = []
        if self.prober.probe_steps:
            with self._failures.noted(step, "probe failed", notes):
                self.prober.begin(self._signals(step, optimizer), self._mixer_state)
                return None
        return self._update(step, Live(model, optimizer), notes)

    def _is_due(self, step: int) -> bool:
        """Whether this step updates: it is planned, and samples are left that it could change."""
        assert self.layout is not None
        assert self._plan is not None
        free = self.layout.first_free_sample(step)
        return self._plan.is_due(step) and (self.observe or free < self._end)

    @property
    def _end(self) -> int:
        """Samples of the whole run."""
        assert self.layout is not None
        assert self._plan is not None
        return self.layout.samples_before(self._plan.run.max_steps)

    def _probe(self, step: int, model: nn.Module, optimizer: Any) -> UpdateRecord | None:
        """Reads the losses that probes led to; with the last of them, the mixer answers."""
        notes: list[str] = []
        with self._failures.noted(step, "probe failed", notes):
            seconds = self.prober.read(step, model, self.account.num_updates)
            self.account.clock.add_to_updates(seconds)
        if self.prober.probing and not self.prober.probing.is_over:
            return None
        return self._update(step, Live(model, optimizer), notes)

    def _update(self, step: int, live: Live, notes: list[str]) -> UpdateRecord:
        """Audits, measures, steps the mixer and announces its mixture."""
        assert self.layout is not None
        assert self._plan is not None
        interval = self.account.close_interval(step, self.layout)
        mixture_K = self.dataset.schedule.segments[-1].mixture
        decision = Decision(mixture_K, mixture_K, self._mixer_state, (), None)
        audit = self._audit(interval, live, notes)
        failed = self.mixer.at_updates or self.observe
        if failed:
            with self._failures.noted(step, "update failed", notes):
                decision, failed = self._decide(step, live), False
        self._mixer_state = decision.state
        notes[:0] = decision.notes
        if self.observe:
            notes.append("observed only")
        from_sample = self._announce(step, mixture_K, decision, notes)
        in_force_K = self.dataset.schedule.segments[-1].mixture  # normalised once more
        rounds = self.gatherer.rounds
        self.influence = rounds.matrix if rounds else self.influence
        self._auditor.predict(step, self.account.num_updates, rounds)
        costs, self.prober.probing = self.gatherer.costs, None
        self.gatherer.start(keeps=failed)
        return self.account.record(
            interval,
            costs,
            self._plan,
            mixture=mixture_K,
            proposed=decision.mixture if from_sample is None else in_force_K,
            unguarded=decision.proposal,
            verdict=decision.verdict,
            notes=tuple(notes),
            from_sample=from_sample,
            influence=rounds.matrix if rounds else None,
            num_rounds=len(rounds.each) if rounds else 0,
            proposal_change=rounds.change if rounds else None,
            audit=audit,
        )

    def _audit(self, interval: Interval, live: Live, notes: list[str]) -> Comparison | None:
        """Checks what the last update predicted, if it predicted anything."""
        audit, costs = None, self.gatherer.costs
        if self._auditor.has_prediction:
            with self._failures.noted(interval.step, "audit failed", notes), costs.timing("audit"):
                audit = self._auditor.settle(live.model, interval.realised)
            costs.add("audit", tokens=self._auditor.num_tokens)
        return audit

    def _decide(self, step: int, live: Live) -> Decision:
        """Gathers signals and steps the mixer on rank 0; every rank gets its answer, or error."""
        known = self._signals(step, live.optimizer)
        try:
            signals = self.gatherer.gather(
                known, self._mixer_state, live, self.account.num_updates, self.prober.probing
            )
        finally:
            self.measurer.release()
        rounds = self.gatherer.rounds
        with self.gatherer.costs.timing("mixer"):
            return distributed.solve_on_rank_0(
                lambda: decide(
                    self.mixer,
                    self._mixer_state,
                    signals,
                    rounds.matrix.rounds if rounds else None,
                    num_errors=self.noise_guard,
                ),
                (ValueError,),
            )

    def _signals(self, step: int, optimizer: Any) -> Signals:
        """What is known without measuring, for an answer to be announced now."""
        return self.gatherer.known(
            step, self._next_sample(step), end=self._end, optimizer=optimizer
        )

    def _next_sample(self, step: int) -> int:
        """The first sample that a change announced now could begin with."""
        assert self.layout is not None
        # After a resume with fewer workers, a change announced before may lie farther ahead.
        announced = self.dataset.schedule.segments[-1].from_sample
        return self.layout.first_free_sample(step, after=announced)

    def _announce(
        self,
        step: int,
        mixture_K: NDArray[np.float64],
        decision: Decision,
        notes: Sequence[str],
    ) -> int | None:
        """Tells the dataset; returns the first sample under a new mixture, None for no change."""
        from_sample = None
        if not self.observe and not np.array_equal(decision.mixture, mixture_K):
            from_sample = self._next_sample(step)
            about = {"step": step, "mixer": self.mixer.describe(), "notes": list(notes)}
            self.dataset.set_mixture(decision.mixture, from_sample, update=about)
        last = self.dataset.schedule.segments[-1]
        distributed.check_identical(
            f"the mixture at step {step}", repr((last.from_sample, last.mixture.tolist())).encode()
        )
        return from_sample

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types under a checksum."""
        content = {
            "schedule": self.dataset.schedule.to_dict(),
            "data": self._data_identity,
            "layout": None if self.layout is None else self.layout.identity(),
            "mixer": {"settings": self.mixer.describe(), "state": self._mixer_state._asdict()},
            "counters": self.account.state(),
            "audit": self._auditor.state(),
            "heard": self.gatherer.state(),
            "probing": self.prober.probing,
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
        self.account.resume(content["counters"])
        self._auditor.resume(content["audit"], origin)
        self.gatherer.resume(content["heard"])
        probing = content["probing"]
        self.prober.probing = None if probing is None else Probing.restore(probing)
