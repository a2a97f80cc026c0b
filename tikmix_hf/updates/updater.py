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
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.mixers import Mixer
from tikmix_hf.mixers.static import Static
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.updates.account import Account, Interval
from tikmix_hf.updates.audit import Comparison
from tikmix_hf.updates.auditor import Auditor
from tikmix_hf.updates.beginning import beginning, check_replay
from tikmix_hf.updates.decision import Decision, decide
from tikmix_hf.updates.failures import Failures
from tikmix_hf.updates.gathering import Gatherer, Live
from tikmix_hf.updates.measurer import Measurer
from tikmix_hf.updates.plan import Plan
from tikmix_hf.updates.probing import Prober, total_steps
from tikmix_hf.updates.record import UpdateRecord
from tikmix_hf.updates.schedule_entries import measured, update_record
from tikmix_hf.updates.wishes import Wishes, check_room, plan_run

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
        mixer_state: after the last update.
        layout: how the run cuts samples into batches; to be set before the first update.
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
        self.auditor = Auditor(measurer)
        prints = {name: card.fingerprint for name, card in dataset.schedule.cards.items()}
        self.data_identity = {"seed": dataset.seed, "domains": prints}
        self.start()

    def start(self) -> None:
        """Sets what a run counts to where it is before the first step."""
        self.mixer_state = self.mixer.init(self.dataset.schedule.segments[0].mixture)
        self.account.start()
        self.prober.probing = None
        self.auditor.start()
        self.gatherer.start()
        self.start_clock()

    def start_clock(self) -> None:
        """Takes this moment for the beginning of training in this process."""
        self.account.start_clock()
        self.measurer.forget()

    def make_plan(self, wishes: Wishes, *, step: int, max_steps: int) -> Plan:
        """Plans the run's measurements, and measures by that plan from now on.

        Args:
            wishes: of the user.
            step: optimizer steps done.
            max_steps: of the run.

        Raises:
            ValueError: no update is left that could change anything, or the schedule has no room.
        """
        assert self.layout is not None
        probe_steps = self.prober.probe_steps
        plan = plan_run(
            wishes,
            self.dataset,
            self.layout,
            self.measurer.parts(wishes.num_rows),
            max_steps=max_steps,
            observe=self.observe,
            num_probe_steps=total_steps(self.layout, probe_steps),
        )
        objection = wishes.objection(plan)
        if objection and self.mixer.at_updates:
            raise ValueError(objection)
        if not (self.observe or isinstance(self.mixer, Static)):
            check_room(self.dataset, plan, step=step, num_probes=len(probe_steps))
        self._plan = plan
        self.prober.layout = self.gatherer.layout = self.layout
        self.gatherer.end = self.layout.samples_before(max_steps)
        self.measurer.num_rows, self.measurer.per_device = plan.num_rows, self.layout.per_device
        return plan

    def begin(self, step: int) -> str:
        """Lets the mixer name the mixture to begin with, and keeps its constraints there.

        Args:
            step: optimizer steps done; 0 for a run that does not go on from a checkpoint.

        Returns:
            What was done, in words.

        Raises:
            ValueError: the mixer cannot say, or no mixture obeys its constraints.
        """
        known = self.gatherer.known(step)
        if not step:
            check_replay(self.mixer, self.dataset.schedule, known)
        segment, said = beginning(self.mixer, known)
        if segment is None:
            return ""
        if step:
            self.dataset.set_mixture(segment.mixture, segment.from_sample, update=segment.update)
        else:
            self.dataset.load_schedule(MixtureSchedule(self.dataset.domains.names, (segment,)))
            self.mixer_state = self.mixer.init(segment.mixture)
        return said

    def end_step(self, step: int, model: nn.Module, optimizer: Any) -> UpdateRecord | None:
        """Does what is due at the end of an optimizer step; returns the update, if it was one."""
        self.gatherer.end_step(step)
        if self.prober.probing:
            return self._probe(step, model, optimizer)
        if not self._is_due(step):
            return None
        notes: list[str] = []
        if self.prober.probe_steps:
            with self._failures.noted(step, "probe failed", notes):
                self.prober.begin(self.gatherer.known(step, optimizer), self.mixer_state)
                return None
        return self._update(step, Live(model, optimizer), notes)

    def _is_due(self, step: int) -> bool:
        """Whether this step updates: it is planned, and samples are left that it could change."""
        assert self.layout is not None
        assert self._plan is not None
        free = self.layout.first_free_sample(step)
        return self._plan.is_due(step) and (self.observe or free < self.gatherer.end)

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
        decision = Decision(mixture_K, mixture_K, self.mixer_state, (), None)
        audit = self._audit(interval, live, notes)
        is_answered = not (self.mixer.at_updates or self.observe)
        if not is_answered:
            with self._failures.noted(step, "update failed", notes):
                decision, is_answered = self._decide(step, live), True
        self.mixer_state = decision.state
        notes[:0] = decision.notes
        if self.observe:
            notes.append("observed only")
        from_sample = self._announce(step, mixture_K, decision, notes)
        in_force_K = self.dataset.schedule.segments[-1].mixture  # normalised once more
        rounds = self.gatherer.rounds
        self.influence = rounds.matrix if rounds else self.influence
        self.auditor.predict(step, self.account.num_updates, rounds)
        costs, self.prober.probing = self.gatherer.costs, None
        self.gatherer.start(keeps=not is_answered)
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
        if self.auditor.has_prediction:
            with self._failures.noted(interval.step, "audit failed", notes), costs.timing("audit"):
                audit = self.auditor.settle(live.model, interval.realised)
            costs.add("audit", tokens=self.auditor.num_tokens)
        return audit

    def _decide(self, step: int, live: Live) -> Decision:
        """Gathers signals and steps the mixer on rank 0; every rank gets its answer, or error."""
        known = self.gatherer.known(step, live.optimizer)
        try:
            signals = self.gatherer.gather(
                known, self.mixer_state, live, self.account.num_updates, self.prober.probing
            )
        finally:
            self.measurer.release()
        rounds = self.gatherer.rounds
        with self.gatherer.costs.timing("mixer"):
            return distributed.solve_on_rank_0(
                lambda: decide(
                    self.mixer,
                    self.mixer_state,
                    signals,
                    rounds.matrix.rounds if rounds else None,
                    num_errors=self.noise_guard,
                ),
                (ValueError,),
            )

    def _measured(self) -> dict[str, Any]:
        """What this update measured, for the schedule."""
        assert self._plan is not None
        rounds, targets = self.gatherer.rounds, tuple(self.measurer.targets)
        matrix = rounds.matrix if rounds else None
        return measured(targets, self.gatherer.costs, matrix, len(self._plan.steps))

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
            from_sample = self.gatherer.next_sample(step)
            about = update_record(step, self.mixer, notes, self._measured())
            self.dataset.set_mixture(decision.mixture, from_sample, update=about)
        last = self.dataset.schedule.segments[-1]
        distributed.check_identical(
            f"the mixture at step {step}", repr((last.from_sample, last.mixture.tolist())).encode()
        )
        return from_sample
