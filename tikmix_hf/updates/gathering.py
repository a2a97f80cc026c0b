"""Gatherer: brings together the signals that a mixer asked for, and no others.

In: the live model, at the end of every step and at updates. Out: `Signals`, and what each of them
cost. What is known without measuring (the supply of tokens, the learning rate) comes with every
update.
"""

# Shape letters: J targets, K domains, N mixtures.

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.mixture import Supply
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.signals.lookahead import StepsAhead
from tikmix_hf.signals.train_losses import TrainLossMeter
from tikmix_hf.updates.costs import Costs
from tikmix_hf.updates.decision import with_gradients, would_propose
from tikmix_hf.updates.measurer import Measurer
from tikmix_hf.updates.plan import FORWARD_ONLY
from tikmix_hf.updates.probing import Probing
from tikmix_hf.updates.rounds import Rounds, measure_in_rounds

Array = NDArray[np.float64]


class Live(NamedTuple):
    """What trains."""

    model: nn.Module
    optimizer: Any


class Gatherer:
    """Measures for one mixer.

    Args:
        dataset: what training reads.
        measurer: reads held-out rows; its `needs` say what for.
        mixer: whom for.

    Attributes:
        costs: of the update under way.
        rounds: of gradients, of the update under way; None where none was measured.
        layout: how the run cuts samples into batches; to be set before the first step.
        end: samples of the whole run; likewise.
    """

    def __init__(
        self, dataset: InterleavedDomainDataset, measurer: Measurer, mixer: Mixer[Any]
    ) -> None:
        self.dataset, self.measurer, self.mixer = dataset, measurer, mixer
        self.needs = measurer.needs
        self.costs = Costs()
        self.rounds: Rounds | None = None
        self.layout: BatchLayout | None = None
        self.end = 0
        self._meter = TrainLossMeter(len(dataset.domains)) if self.needs.train_losses else None

    def start(self, *, keeps: bool = False) -> None:
        """Begins an interval.

        Args:
            keeps: what was heard in training so far, since no mixer has made use of it.
        """
        self.costs, self.rounds = Costs(), None
        if self._meter and not keeps:
            self._meter.clear()

    def attach(self, model: nn.Module) -> None:
        """Listens to training, if the mixer wants to hear of it."""
        if self._meter:
            self._meter.attach(model)

    def detach(self) -> None:
        """Listens no more."""
        if self._meter:
            self._meter.detach()

    def end_step(self, step: int) -> None:
        """Books what training's own passes told in an optimizer step.

        Raises:
            ValueError: they cannot be matched with the dataset's samples.
        """
        if self._meter:
            assert self.layout is not None
            batches = self.layout.batches_of(step, distributed.rank())
            self._meter.end_step([self.dataset.locate(list(batch))[0] for batch in batches])

    def next_sample(self, step: int) -> int:
        """The first sample that a change announced at the end of a step could begin with."""
        assert self.layout is not None
        # After a resume with fewer workers, a change announced before may lie farther ahead.
        announced = self.dataset.schedule.segments[-1].from_sample
        return self.layout.first_free_sample(step, after=announced)

    def known(self, step: int, optimizer: Any = None) -> Signals:
        """What is known without measuring, for an answer to be announced now.

        Args:
            step: optimizer steps done; before the first, the answer governs the first sample.
            optimizer: the live optimizer, if there is one yet.
        """
        sample = self.next_sample(step) if step else 0
        domains = self.dataset.domains
        row_tokens_K = domains.num_tokens / [domain.num_rows for domain in domains]
        supply = Supply(
            prior=domains.prior,
            tokens=domains.num_tokens.astype(np.float64),
            seen=(self.dataset.num_served(sample) if sample else 0) * row_tokens_K,
            left=float(max(self.end - sample, 0)),
            row_tokens=row_tokens_K,
        )
        rate = float(optimizer.param_groups[0]["lr"]) if optimizer is not None else np.nan
        return Signals(
            step=step,
            domains=domains.names,
            targets=tuple(self.measurer.targets),
            mixture=self.dataset.schedule.segments[-1].mixture,
            supply=supply,
            sample=sample,
            learning_rate=rate,
        )

    def gather(
        self, signals: Signals, state: Any, live: Live, update: int, probing: Probing | None
    ) -> Signals:
        """Adds whatever the mixer requires.

        Args:
            signals: what is known without measuring.
            state: the mixer's.
            live: what trains.
            update: how many updates came before.
            probing: the probes that led to this update.

        Raises:
            FloatingPointError: a loss or a gradient is not finite.
            ValueError: something cannot be measured on this model.
        """
        if self._meter and self._meter.has_heard:
            heard = self._meter.read()
            self.costs.add("train_losses", seconds=heard.seconds)
            signals = replace(
                signals,
                train_losses=heard.means,
                train_tokens=heard.tokens,
                train_steps=heard.steps,
            )
        if self.needs.excess_losses:
            with self.costs.timing("excess_losses"):
                excess = self.measurer.excess_losses(live.model, update)
            self.costs.add("excess_losses", tokens=excess.num_tokens * FORWARD_ONLY)
            signals = replace(signals, excess_losses=excess.means)
        if probing:
            self.costs.add(
                "probe_losses", tokens=probing.num_tokens * FORWARD_ONLY, seconds=probing.seconds
            )
            signals = replace(
                signals,
                probe_losses=np.array(probing.losses),
                probe_mixtures=np.array(probing.mixtures),
            )
        if self.needs.gradients:
            self.rounds = self._measure(signals, state, live, update)
            signals = with_gradients(signals, self.rounds.matrix, self.needs.gradients)
        return self._look_ahead(signals, state, update) if self.needs.num_lookahead else signals

    def _measure(self, signals: Signals, state: Any, live: Live, update: int) -> Rounds:
        """Measures rounds of gradients until the proposal stays."""
        name = self.needs.gradients
        assert name is not None
        portions = self.measurer.portions(update)

        def measured(number: int) -> InfluenceMatrix:
            with self.costs.timing(name):
                matrix = self.measurer.measure(live.model, live.optimizer, portions[number])
            self.costs.add(name, tokens=matrix.num_tokens)
            return matrix

        def follows(matrix: InfluenceMatrix) -> Array | None:
            if self.mixer.requires != {name}:  # it cannot answer yet, or is only observed
                return None
            given = with_gradients(signals, matrix, name)
            with self.costs.timing("mixer"):
                return distributed.solve_on_rank_0(
                    lambda: would_propose(self.mixer, state, given), (ValueError,)
                )

        return measure_in_rounds(
            measured,
            follows,
            num_rounds=len(portions),
            tolerance=self.measurer.settings.tolerance,
        )

    def _look_ahead(self, signals: Signals, state: Any, update: int) -> Signals:
        """Adds the losses a step ahead under the mixtures that the mixer names."""
        asked = distributed.solve_on_rank_0(
            lambda: self.mixer.lookahead(state, signals), (ValueError,)
        )
        ahead = StepsAhead(asked.mixtures, signals.mixture, asked.num_steps, signals.learning_rate)
        with self.costs.timing("lookahead_losses"):
            seen = self.measurer.losses_ahead(update, ahead)
        tokens = seen.gradient_tokens + seen.forward_tokens * FORWARD_ONLY
        self.costs.add("lookahead_losses", tokens=tokens)
        return replace(signals, lookahead_losses=seen.means)

    def state(self) -> Any:
        """Returns what a checkpoint keeps, as JSON types."""
        return self._meter.state() if self._meter else None

    def resume(self, saved: Any) -> None:
        """Takes up what `state` returned, through JSON."""
        if self._meter and saved is not None:
            self._meter.resume(saved)
