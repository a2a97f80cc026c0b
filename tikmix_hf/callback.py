"""TikMixCallback: when to measure, step the mixer, apply and record. No arithmetic.

In: the dataset that training reads, targets, a mixer. At chosen optimizer steps the callback
measures the group influence of every domain on every target (`signals/`), lets the mixer turn it
into a mixture (`mixers/`), announces it from the first sample that no loader has read yet
(`layout.py`), and writes down what happened (`update.py`). It is a plain `TrainerCallback`: the
Trainer stays stock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from tikmix_hf import distributed, mixers, trainer_checks
from tikmix_hf.checkpoint import (
    check_same,
    mark_complete,
    seal,
    unseal,
    warn_of_partial_checkpoint,
)
from tikmix_hf.collate import PackedCollator
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.heldout import Collator, HeldoutBatches, check_targets
from tikmix_hf.layout import BatchLayout
from tikmix_hf.mixers.base import Mixer, Signals
from tikmix_hf.mixture import as_mixture
from tikmix_hf.reporters import Reporters
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.signals.influence import GroupInfluence, InfluenceMatrix
from tikmix_hf.update import RECORDS, UpdateRecord, append_record, drop_records_after

# Shape letters: K domains.

logger = logging.getLogger(__name__)

PROVIDED = frozenset({"influence"})  # signals that mixers may require of this callback
# What an update may fail of without taking training along. MixerError is a ValueError.
FAILURES = (ValueError, FloatingPointError, torch.OutOfMemoryError, distributed.OtherRankFailed)


class TikMixCallback(TrainerCallback, ExportableState):
    """Lets the model choose the mixture of its own training data.

    Args:
        dataset: the Trainer's `train_dataset`.
        targets: tokenised validation text by name; the mixture is chosen to lower its loss. Must
            not be the text that results are reported on.
        mixer: a mixer, or the name of one of `mixers.available()` with its default settings.
        every_steps: optimizer steps from one update to the next.
        at_steps: the steps of the updates; replaces `every_steps`.
        observe: measure and log, but change nothing.
        preconditioner: stand-in for the inverse Hessian, one of `preconditioners.available()`.
        damping: of the Adam preconditioners, relative to mean(sqrt(v)).
        num_rows: held-out rows to measure of each domain and of each target, per update.
        batch_size: rows in a measured batch; None takes the training's.
        data_collator: collates measured rows; None pads and takes `input_ids` for missing labels.
        output_dir: folder of `schedule.json` and `influence.jsonl`; None takes the Trainer's.
        on_error: "keep" goes on with the mixture in force when an update fails; "raise" stops.
        progress: show a bar while measuring, and print a line per update.
        seed: decides which held-out rows each update reads.

    Attributes:
        influence: the last `InfluenceMatrix`, None before the first update.
        updates: the `UpdateRecord`s of this process.

    Raises:
        ValueError: names the argument, its value and the mend.

    Example:
        callback = TikMixCallback(train, targets={"arc": arc}, every_steps=500)
        Trainer(model, args, train_dataset=train, callbacks=[callback]).train()
    """

    def __init__(
        self,
        dataset: InterleavedDomainDataset,
        *,
        targets: Mapping[str, datasets.Dataset],
        mixer: str | Mixer[Any] = "tikmix_d",
        every_steps: int = 500,
        at_steps: Sequence[int] | None = None,
        observe: bool = False,
        preconditioner: str = "sign",
        damping: float = 0.1,
        num_rows: int = 64,
        batch_size: int | None = None,
        data_collator: Collator | None = None,
        output_dir: str | Path | None = None,
        on_error: str = "keep",
        progress: bool = True,
        seed: int = 0,
    ) -> None:
        _check_dataset(dataset)
        check_targets(targets)
        counts = [("every_steps", every_steps), ("num_rows", num_rows)]
        counts += [] if batch_size is None else [("batch_size", batch_size)]
        counts += [("at_steps", step) for step in at_steps or ()]
        for name, value in counts:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be whole and at least 1; got {value!r}.")
        if at_steps is not None and not at_steps:
            raise ValueError("`at_steps` must name a step; got none. Leave it out for every_steps.")
        if not 0 <= damping < float("inf"):
            raise ValueError(f"`damping` must be finite and not negative; got {damping}.")
        if on_error not in ("keep", "raise"):
            raise ValueError(f"`on_error` must be 'keep' or 'raise'; got {on_error!r}.")
        self.dataset, self.targets = dataset, dict(targets)
        self.mixer = mixers.load(mixer)() if isinstance(mixer, str) else mixer
        if missing := sorted(self.mixer.requires - PROVIDED):
            raise ValueError(f"`mixer` requires signals that are not measured here: {missing}.")
        self.every_steps, self.observe, self.num_rows = every_steps, observe, num_rows
        self.at_steps = None if at_steps is None else frozenset(at_steps)
        self.batch_size, self.collate = batch_size, data_collator or PackedCollator()
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.on_error, self.progress, self.seed = on_error, progress, seed
        self.preconditioner, self.damping = preconditioner, damping
        GroupInfluence(nn.Identity(), preconditioner=preconditioner)  # refuses unknown names now
        self.influence: InfluenceMatrix | None = None
        self.updates: list[UpdateRecord] = []
        self._initial_schedule = dataset.schedule
        self._data_identity = {"seed": dataset.seed, "domains": dataset.domains.fingerprint()}
        self._reporters = Reporters()
        self._layout: BatchLayout | None = None
        self._start_run()

    def _start_run(self) -> None:
        """What a run counts, at its first step."""
        self._mixer_state = self.mixer.init(self.dataset.schedule.segments[0].mixture)
        self._num_updates = 0
        self._last_step = 0
        self._measured_tokens = 0
        self._trained_tokens = 0
        self._start_clock()

    def _start_clock(self) -> None:
        self._began, self._measured_seconds = time.perf_counter(), 0.0

    # Hooks: when

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Checks the arguments and asks for samples in order, before any loader is made."""
        trainer_checks.check_arguments(args)
        args.train_sampling_strategy = "sequential"
        if state.is_world_process_zero:
            warn_of_partial_checkpoint(str(args.output_dir))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Checks the loader, and puts the schedule back where a checkpoint left it."""
        loader = kwargs["train_dataloader"]
        trainer_checks.check_arguments(args)
        trainer_checks.check_loader(loader, self.dataset)
        self._layout = trainer_checks.layout_of(args, self.dataset)
        trainer_checks.check_length(args, self._layout, state.max_steps)
        self.output_dir = self.output_dir or Path(str(args.output_dir))
        states = state.stateful_callbacks  # by class name, whatever the annotation says
        assert isinstance(states, dict)
        saved = states.get(type(self).__name__)
        if state.global_step:
            self._resume(saved, state.global_step)
        else:
            self.dataset.load_schedule(self._initial_schedule)  # nothing counts as read yet
            self._start_run()
            self._check_room(state.max_steps)
        # The Trainer looks this name up when it saves, also if the checkpoint did not have it.
        states.setdefault(type(self).__name__, self.state())
        if state.is_world_process_zero:
            drop_records_after(self.output_dir / RECORDS, state.global_step)
            self.dataset.schedule.save(self.output_dir / "schedule.json")
        self._start_clock()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Updates the mixture where it is due."""
        if not self._is_due(state):
            return
        record = self._update(state.global_step, kwargs["model"], kwargs["optimizer"])
        self.updates.append(record)
        scalars = record.scalars()
        # The rest is in influence.jsonl; a checkpoint need not repeat it.
        brief = {k: v for k, v in scalars.items() if k.count("/") == 1 or "/mixture/" in k}
        state.log_history.append({**brief, "step": state.global_step})
        self._reporters.log(scalars, args, state, control, kwargs["model"])
        if state.is_world_process_zero:
            assert self.output_dir is not None
            append_record(self.output_dir / RECORDS, record)
            self.dataset.schedule.save(self.output_dir / "schedule.json")
            if self.progress:
                tqdm.write(str(record))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes index 0 the first sample of the epoch."""
        assert self._layout is not None
        self.dataset.set_epoch(state.global_step // self._layout.steps_per_epoch)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuses to evaluate on the dataset that training reads: its epoch would be moved."""
        loader = kwargs["eval_dataloader"]
        if loader is not None and loader.dataset is self.dataset:
            raise ValueError(
                "`eval_dataset` must not be the dataset that training reads; got the same object. "
                "Evaluate on held-out rows, such as domains['web'].heldout."
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Marks the checkpoint as written to its end, once every rank has written its part."""
        distributed.barrier()
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            mark_complete(folder)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes index 0 sample 0 again, and closes what was opened."""
        self.dataset.set_epoch(0)
        self._reporters.close(args, state, control)

    def _is_due(self, state: TrainerState) -> bool:
        """Whether this step updates: it is chosen, and samples are left that it could change."""
        assert self._layout is not None
        end = self._layout.samples_before(state.max_steps)
        free = self._layout.first_free_sample(state.global_step)
        return self._is_chosen(state.global_step) and (self.observe or free < end)

    def _is_chosen(self, step: int) -> bool:
        return step % self.every_steps == 0 if self.at_steps is None else step in self.at_steps

    def _check_room(self, max_steps: int) -> None:
        """Refuses a dataset whose schedule has no room, or is not this run's to change.

        Raises:
            ValueError: names `dataset` or `max_updates`.
        """
        if self.observe or isinstance(self.mixer, mixers.load("static")):
            return
        last = self.dataset.schedule.segments[-1].from_sample
        if last:
            raise ValueError(
                f"`dataset` already changes its mixture up to sample {last}, by a replay or by "
                "another run, and the mixer would change it too. Make a new "
                "InterleavedDomainDataset, or pass mixer='static' or observe=True."
            )
        needed = sum(map(self._is_chosen, range(1, max_steps + 1)))
        if needed > self.dataset.max_updates:
            raise ValueError(
                f"`max_updates` of the dataset must cover the run's {needed} updates; got "
                f"{self.dataset.max_updates}. Construct the dataset with a larger one."
            )

    # The update: what

    def _update(self, step: int, model: nn.Module, optimizer: Any) -> UpdateRecord:
        """Measures, steps the mixer and announces its mixture."""
        assert self._layout is not None
        started = time.perf_counter()
        mixture_K = self.dataset.schedule.segments[-1].mixture
        proposed_K, notes, from_sample, matrix = mixture_K, (), None, None
        try:
            if self.observe or self.mixer.requires:
                matrix = self._measure(model, optimizer)
            proposed_K, notes = self._step_mixer(step, mixture_K, matrix)
        except FAILURES as err:
            if self.on_error == "raise":
                raise
            notes = (f"update failed, mixture kept: {err}",)
            logger.warning("step %d, mixer %s: %s", step, type(self.mixer).__name__, notes[0])
        if self.observe:
            notes = (*notes, "observed only")
        elif not np.array_equal(proposed_K, mixture_K):
            # After a resume with fewer workers, a change announced before may lie farther ahead.
            announced = self.dataset.schedule.segments[-1].from_sample
            from_sample = self._layout.first_free_sample(step, after=announced)
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

    def _measure(self, model: nn.Module, optimizer: Any) -> InfluenceMatrix:
        assert self._layout is not None
        settings = {
            "update": self._num_updates,
            "num_rows": self.num_rows,
            "batch_size": self.batch_size or self._layout.per_device,
            "collate": self.collate,
            "seed": self.seed,
        }
        influence = GroupInfluence(
            model, preconditioner=self.preconditioner, optimizer=optimizer, damping=self.damping
        )
        return influence.measure(
            {d.name: HeldoutBatches(d.heldout, d.name, **settings) for d in self.dataset.domains},
            {name: HeldoutBatches(rows, name, **settings) for name, rows in self.targets.items()},
            progress=self.progress,
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
        assert self._layout is not None
        first, last = map(self._layout.samples_before, (self._last_step, step))
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

    # State: what survives

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON types under a checksum (see `ExportableState`)."""
        content = {
            "schedule": self.dataset.schedule.to_dict(),
            "data": self._data_identity,
            "layout": None if self._layout is None else self._layout.identity(),
            "mixer": {"settings": self.mixer.describe(), "state": self._mixer_state._asdict()},
            "counters": {name: getattr(self, name) for name in _COUNTERS},
        }
        return {"args": {"dataset": "a live object"}, "attributes": seal(content)}

    def _resume(self, saved: Any, step: int) -> None:
        """Takes up the schedule and the counters of a checkpoint.

        Raises:
            ValueError: the checkpoint is damaged, or was made with other data or batches.
        """
        assert self._layout is not None
        origin = f"the checkpoint of step {step}"
        if saved is None:
            logger.warning(
                "%s has no state of TikMixCallback: the dataset's own schedule applies.", origin
            )
            return
        content = unseal(
            saved.get("attributes") if isinstance(saved, Mapping) else None, origin=origin
        )
        for what, mine in (("data", self._data_identity), ("layout", self._layout.identity())):
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


_COUNTERS = ("_num_updates", "_last_step", "_measured_tokens", "_trained_tokens")


def _check_dataset(dataset: Any) -> None:
    if not isinstance(dataset, InterleavedDomainDataset):
        raise TypeError(
            "`dataset` must be the InterleavedDomainDataset that the Trainer reads; got "
            f"{dataset!r}. If restore_callback_states_from_checkpoint is set, leave it out: the "
            "callback restores itself."
        )
