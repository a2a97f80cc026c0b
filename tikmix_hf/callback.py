"""TikMixCallback: when to measure, step the mixer, apply and record. No arithmetic.

In: the dataset that training reads, targets, a mixer. At chosen optimizer steps the callback has
its `MixtureUpdater` measure the group influence of every domain on every target (`signals/`), turn
it into a mixture (`mixers/`) and announce that from the first sample that no loader has read yet
(`order/layout.py`); it writes down what happened (`updates/record.py`). It is a plain
`TrainerCallback`: the Trainer stays stock.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from tikmix_hf import distributed, mixers, trainer_checks
from tikmix_hf.checkpoint import mark_complete, warn_of_partial_checkpoint
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.files import drop_records_after, write_json
from tikmix_hf.live import LiveView
from tikmix_hf.mixers.base import Mixer
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.signals.preconditioners import Preconditioner
from tikmix_hf.updates import resuming
from tikmix_hf.updates.heldout import check_targets
from tikmix_hf.updates.measurement import Measurement
from tikmix_hf.updates.measurer import Measurer
from tikmix_hf.updates.needs import Needs
from tikmix_hf.updates.noise_guard import check_noise_guard
from tikmix_hf.updates.plan import Plan
from tikmix_hf.updates.record import RECORDS, UpdateRecord, append_record
from tikmix_hf.updates.schedule_entries import run_of
from tikmix_hf.updates.schedule_file import ScheduleFile
from tikmix_hf.updates.updater import MixtureUpdater
from tikmix_hf.updates.wishes import Wishes

logger = logging.getLogger(__name__)


class TikMixCallback(TrainerCallback, ExportableState):
    """Lets the model choose the mixture of its own training data.

    Args:
        dataset: the Trainer's `train_dataset`.
        targets: tokenised validation text by name; the mixture is chosen to lower its loss. Must
            not be the text that results are reported on.
        mixer: a mixer, or the name of one of `mixers.available()` with its default settings.
        budget: share of the run's tokens that all measurements together may take. What of
            `every_steps` and `num_rows` is None is chosen for it to hold (`updates/plan.py`).
        every_steps: optimizer steps from one update to the next.
        at_steps: the steps of the updates; replaces `every_steps`.
        num_rows: held-out rows to measure of each domain and of each target, per update.
        preconditioner: stand-in for the inverse Hessian: "auto" is `kfac` or, for a sharded model,
            `sign`; one of `preconditioners.available()`; or, with settings,
            `preconditioners.load("adam")(damping=0.2)`.
        measurement: everything else about how rows are measured.
        reference_model: a trained model with the same tokenizer, for a mixer that compares with one
            (`doremi`).
        noise_guard: standard errors by which the gain of a new mixture must stand out on text that
            it was not chosen by (`updates/noise_guard.py`); 0 takes every proposal as it is.
        observe: measure and log, but change nothing.
        output_dir: folder of `schedule.json`, `influence.jsonl` and `plan.json`; None takes the
            Trainer's.
        on_error: "keep" goes on with the mixture in force when an update fails; "raise" stops.
        progress: show a bar while measuring, and print a line per update.
        images: draw one per update in the trackers of `report_to` (`live.py`).

    Attributes:
        influence: the last `InfluenceMatrix`, None before the first update.
        plan: when this run updates and how much it measures, None before training.
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
        budget: float = 0.01,
        every_steps: int | None = None,
        at_steps: Sequence[int] | None = None,
        num_rows: int | None = None,
        preconditioner: str | Preconditioner = "auto",
        measurement: Measurement | None = None,
        reference_model: nn.Module | None = None,
        noise_guard: float = 1.0,
        observe: bool = False,
        output_dir: str | Path | None = None,
        on_error: str = "keep",
        progress: bool = True,
        images: bool = True,
    ) -> None:
        trainer_checks.check_dataset(dataset)
        check_targets(targets)
        if on_error not in ("keep", "raise"):
            raise ValueError(f"`on_error` must be 'keep' or 'raise'; got {on_error!r}.")
        check_noise_guard(noise_guard)
        self.dataset = dataset
        self.mixer = mixers.load(mixer)() if isinstance(mixer, str) else mixer
        needs = Needs.of(self.mixer, len(dataset.domains), observe=observe)
        needs.check(reference_model)
        self.wishes = Wishes(
            budget=budget, every_steps=every_steps, at_steps=at_steps, num_rows=num_rows
        )
        self.observe, self.progress = observe, progress
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.plan: Plan | None = None
        self.updates: list[UpdateRecord] = []
        self._updater = MixtureUpdater(
            dataset,
            Measurer(
                measurement or Measurement(),
                dataset.domains,
                targets,
                preconditioner=needs.preconditioner(preconditioner),
                needs=needs,
                reference=reference_model,
                progress=progress,
            ),
            mixer=self.mixer,
            noise_guard=noise_guard,
            observe=observe,
            raises=on_error == "raise",
        )
        self._initial_schedule = dataset.schedule
        self._live = LiveView(images=images)

    @property
    def influence(self) -> InfluenceMatrix | None:
        """The last measurement, None before the first update."""
        return self._updater.influence

    @property
    def _layout(self) -> BatchLayout:
        assert self._updater.layout is not None, "training has not begun"
        return self._updater.layout

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
        trainer_checks.check_arguments(args)
        trainer_checks.check_loader(kwargs["train_dataloader"], self.dataset)
        self._updater.measurer.progress = self.progress and not args.disable_tqdm
        self._check_measurement(kwargs)
        self._is_checked = False
        self._updater.layout = trainer_checks.layout_of(args, self.dataset)
        trainer_checks.check_length(args, self._layout, state.max_steps)
        self._folder = self.output_dir or Path(str(args.output_dir))
        states = state.stateful_callbacks  # by class name, whatever the annotation says
        assert isinstance(states, dict)
        saved = states.get(type(self).__name__)
        if state.global_step:
            self._resume(saved, state.global_step)
        else:
            if not self.updates:  # otherwise train() is called once more
                self._initial_schedule = self.dataset.schedule
            self.dataset.load_schedule(self._initial_schedule)  # nothing counts as read yet
            self._updater.start()
        self.plan = self._make_plan(state)
        self.dataset.describe_run(run_of(self._layout, state.max_steps, kwargs["model"]))
        if not self.observe:
            self._say(self._updater.begin(state.global_step), state)
        # The Trainer looks this name up when it saves, also if the checkpoint did not have it.
        states.setdefault(type(self).__name__, self.state())
        self._schedule_file = ScheduleFile(self._folder, is_writer=state.is_world_process_zero)
        self._schedule_file.write(self.dataset.schedule)
        if state.is_world_process_zero:
            drop_records_after(self._folder / RECORDS, state.global_step)
            write_json(self._folder / "plan.json", self.plan.to_dict())
        self._updater.start_clock()
        self._updater.gatherer.attach(kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Updates the mixture where it is due."""
        if not self._is_checked:  # now that the optimizer has stepped
            self._check_measurement(kwargs)
            self._is_checked = True
        num_segments = self.dataset.num_segments
        record = self._updater.end_step(state.global_step, kwargs["model"], kwargs["optimizer"])
        if self.dataset.num_segments > num_segments:
            self._schedule_file.update(self.dataset.schedule)
        if record is None:
            return
        self.updates.append(record)
        # The rest is in influence.jsonl; a checkpoint need not repeat it.
        brief = {k: v for k, v in record.scalars().items() if k.count("/") == 1 or "/mixture/" in k}
        state.log_history.append({**brief, "step": state.global_step})
        if state.is_world_process_zero:
            append_record(self._folder / RECORDS, record)
        self._updater.account.clock.add_to_updates(self._live.show(record, args, state))
        self._say(str(record), state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes index 0 the first sample of the epoch."""
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
        self._schedule_file.write(self.dataset.schedule)
        if state.is_world_process_zero and folder.is_dir():
            mark_complete(folder)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes index 0 sample 0 again, and closes what was opened."""
        self._schedule_file.write(self.dataset.schedule)
        self.dataset.set_epoch(0)
        self._updater.gatherer.detach()
        self._live.close()

    def _check_measurement(self, live: Mapping[str, Any]) -> None:
        """Refuses what no update could measure, whatever `on_error` says."""
        self._updater.measurer.check(live["model"], live["optimizer"])

    def _say(self, line: str, state: TrainerState) -> None:
        """Prints a line, once for all ranks."""
        if line and self.progress and state.is_world_process_zero:
            tqdm.write(line)

    def _make_plan(self, state: TrainerState) -> Plan:
        """Plans the run's measurements, says what they cost, and warns where they cost too much."""
        plan = self._updater.make_plan(
            self.wishes, step=state.global_step, max_steps=state.max_steps
        )
        logger.info("%s", plan)
        if state.is_world_process_zero:
            fewer = self._updater.measurer.warning  # rounds than asked for
            for warning in filter(None, (self.wishes.objection(plan) or plan.warning, fewer)):
                logger.warning("%s", warning)
        self._say(str(plan), state)
        return plan

    # State: what survives

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types (see `ExportableState`)."""
        # Nobody can build the callback from JSON; whoever tries is told so by the constructor.
        live = {"dataset": "a live object", "targets": None}
        return {"args": live, "attributes": resuming.state(self._updater)}

    def _resume(self, saved: Any, step: int) -> None:
        """Hands the updater what a checkpoint kept, if it kept anything."""
        if saved is None:
            logger.warning(
                "The checkpoint of step %d has no state of TikMixCallback: the dataset's own "
                "schedule applies.",
                step,
            )
            return
        attributes = saved.get("attributes") if isinstance(saved, dict) else None
        resuming.resume(self._updater, attributes, step)
