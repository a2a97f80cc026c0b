"""MixtureUpdater: one update of the mixture, and the account of all of them.

In: the live model at an optimizer step. Out: an `UpdateRecord`, and a change of mixture that the
dataset obeys from a stated sample on: influence is measured, the mixer steps on rank 0, its answer
is checked, broadcast and announced. What fails on the way leaves the mixture in force.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.checkpoint import check_same, seal, unseal
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.layout import BatchLayout
from tikmix_hf.measurement import Measurement
from tikmix_hf.mixers.base import Mixer, Signals
from tikmix_hf.mixture import as_mixture
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.update import UpdateRecord

# Shape letters: K domains.

logger = logging.getLogger(__name__)

# What an update may fail of without taking training along. MixerError is a ValueError.
FAILURES = (ValueError, FloatingPointError, torch.OutOfMemoryError, distributed.OtherRankFailed)
_COUNTERS = ("_num_updates", "_last_step", "_measured_tokens", "_trained_tokens")


class MixtureUpdater:
    """Changes a dataset's mixture as a mixer says, and keeps count.

    Args:
        dataset: what training reads.
        targets: tokenised rows by name.
        mixer: turns signals into a mixture.
        measurement: how influence is measured.
        observe: measure and propose, but change nothing.
        raises: whether a failed update raises; otherwise it keeps the mixture.

    Attributes:
        influence: the last `InfluenceMatrix`, None before the first.
        layout: how the run cuts samples into batches; to be set before the first update.
    """

    def __init__(
        self,
        dataset: InterleavedDomainDataset,
        targets: Mapping[str, datasets.Dataset],
        *,
        mixer: Mixer[Any],
        measurement: Measurement,
        observe: bool,
        raises: bool,
    ) -> None:
        self.dataset, self.targets = dataset, dict(targets)
        self.mixer, self.measurement = mixer, measurement
        self.observe, self.raises = observe, raises
        self.influence: InfluenceMatrix | None = None
        self.layout: BatchLayout | None = None
        self._data_identity = {"seed": dataset.seed, "domains": dataset.domains.fingerprint()}
        self.start()

    def start(self) -> None:
        """Sets what a run counts to where it is before the first step."""
        self._mixer_state = self.mixer.init(self.dataset.schedule.segments[0].mixture)
        self._num_updates = 0
        self._last_step = 0
        self._measured_tokens = 0
        self._trained_tokens = 0
        self.start_clock()

    def start_clock(self) -> None:
        """Takes this moment for the beginning of training in this process."""
        self._began, self._measured_seconds = time.perf_counter(), 0.0

    def update(self, step: int, model: nn.Module, optimizer: Any) -> UpdateRecord:
        """Measures, steps the mixer and announces its mixture."""
        assert self.layout is not None
        started = time.perf_counter()
        mixture_K = self.dataset.schedule.segments[-1].mixture
        proposed_K, notes, from_sample, matrix = mixture_K, (), None, None
        try:
            if self.observe or self.mixer.requires:
                matrix = self.measurement.measure(
                    model,
                    optimizer,
                    self.dataset.domains,
                    self.targets,
                    update=self._num_updates,
                    batch_size=self.layout.per_device,
                )
            proposed_K, notes = self._step_mixer(step, mixture_K, matrix)
        except FAILURES as err:
            if self.raises:
                raise
            notes = (f"update failed, mixture kept: {err}",)
            logger.warning("step %d, mixer %s: %s", step, type(self.mixer).__name__, notes[0])
        if self.observe:
            notes = (*notes, "observed only")
        elif not np.array_equal(proposed_K, mixture_K):
            # After a resume with fewer workers, a change announced before may lie farther ahead.
            announced = self.dataset.schedule.segments[-1].from_sample
            from_sample = self.layout.first_free_sample(step, after=announced)
            about = {"step": step, "mixer": self.mixer.describe(), "notes": list(notes)}
            self.dataset.set_mixture(proposed_K, from_sample, update=about)
        last = self.dataset.schedule.segments[-1]
        distributed.check_identical(
            f"the mixture at step {step}", repr((last.from_sample, last.mixture.tolist())).encode()
        )
        self.influence = matrix or self.influence
        self._num_updates += 1
        self._measured_tokens += 0 if matrix is None else matrix.num_tokens
        return self._record(
            step,
            started,
            mixture=mixture_K,
            proposed=proposed_K,
            notes=notes,
            from_sample=from_sample,
            influence=matrix,
        )

    def _step_mixer(
        self, step: int, mixture_K: NDArray[np.float64], matrix: InfluenceMatrix | None
    ) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        """Steps the mixer on rank 0; every rank gets its answer, or its error."""
        names = self.dataset.domains.names
        signals = Signals(
            step=step,
            domains=names,
            targets=tuple(self.targets),
            mixture=mixture_K,
            influence=None if matrix is None else matrix.values,
            stderr=None if matrix is None else matrix.stderr,
        )

        def solve() -> tuple[NDArray[np.float64], Any]:
            proposed_K, mixer_state = self.mixer.step(self._mixer_state, signals)
            if not np.array_equal(proposed_K, mixture_K):  # what is in force keeps its bits
                proposed_K = as_mixture(proposed_K, names, argument="the mixer's mixture")
            return proposed_K, mixer_state

        proposed_K, self._mixer_state = distributed.solve_on_rank_0(solve, (ValueError,))
        return proposed_K, tuple(self._mixer_state.notes)

    def _record(self, step: int, started: float, **decided: Any) -> UpdateRecord:
        """Adds what was trained since the last update, and what this one cost."""
        assert self.layout is not None
        first, last = map(self.layout.samples_before, (self._last_step, step))
        realised_K = self.dataset.tokens_between(first, last)
        requested_K = self.dataset.schedule.mean_between(first, last) * realised_K.sum()
        self._trained_tokens += int(realised_K.sum())
        self._last_step = step
        now = time.perf_counter()
        self._measured_seconds += now - started
        return UpdateRecord(
            step=step,
            domains=self.dataset.domains.names,
            requested=requested_K,
            realised=realised_K,
            epochs=np.array(list(self.dataset.epochs_used(last).values())),
            seconds=now - started,
            time_share=self._measured_seconds / (now - self._began),
            token_share=self._measured_tokens / max(self._trained_tokens, 1),
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
