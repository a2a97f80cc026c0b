"""EvalCallback: a suite's scores while the Trainer trains.

In: a `Harness` and when to ask it. Out: `eval/TASK/METRIC` with standard errors in the Trainer's
trackers and its log history, and `evaluations.jsonl` in the run's folder, joined to the schedule of
the `InterleavedDomainDataset` that training reads. All ranks share the work. Training goes on bit
for bit as if nothing had been asked (`language_model.without_trace`).
"""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from tikmix_hf import distributed, trainer_checks
from tikmix_hf.checks import check_count
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.harness.evaluations import EVALUATIONS, Evaluation, EvaluationFile, Progress
from tikmix_hf.harness.language_model import without_trace
from tikmix_hf.harness.scoring import Harness
from tikmix_hf.harness.suite import Suite
from tikmix_hf.reporters import Reporters

logger = logging.getLogger(__name__)


class EvalCallback(TrainerCallback):
    """Scores the model in training on a suite of benchmarks.

    A task that fails (a missing file, a bad row) is reported; neither the other tasks nor training
    stop. Several of these callbacks, with a suite each, may share a run and its file.

    Args:
        harness: a `Harness`; or a suite, by name, path or itself, whose rows come from the Hub.
        every_steps: optimizer steps from one evaluation to the next.
        at_updates: evaluate whenever a mixture has been announced, with the weights that it was
            chosen for, wherever `TikMixCallback` stands in the list of callbacks.
        at_end: evaluate when training ends.
        tokenizer: the model's; None takes the Trainer's `processing_class`.
        output_dir: folder of `evaluations.jsonl`; None takes the Trainer's.
        on_error: "keep" goes on when a task fails; "raise" stops training.

    Attributes:
        evaluations: the `Evaluation`s of this process.

    Raises:
        ValueError: names the argument, its value and the mend. Also when training begins: of a
            domain with too little held-out text for its questions, whatever `on_error` says.

    Example:
        harness = Harness("quick", data_dir="benchmarks")
        Trainer(model, args, callbacks=[EvalCallback(harness, every_steps=500)], ...).train()
    """

    def __init__(
        self,
        harness: Harness | Suite | str | Path,
        *,
        every_steps: int | None = None,
        at_updates: bool = False,
        at_end: bool = True,
        tokenizer: PreTrainedTokenizerBase | None = None,
        output_dir: str | Path | None = None,
        on_error: str = "keep",
    ) -> None:
        if every_steps is not None:
            check_count("every_steps", every_steps)
        if every_steps is None and not at_updates and not at_end:
            raise ValueError("`every_steps` must be given where `at_updates` and `at_end` are off.")
        if on_error not in ("keep", "raise"):
            raise ValueError(f"`on_error` must be 'keep' or 'raise'; got {on_error!r}.")
        # A copy, which shares the rows: whether it is quiet and raises is this callback's to say.
        self._harness = copy.copy(harness if isinstance(harness, Harness) else Harness(harness))
        self._progress, self._harness.raises = self._harness.progress, on_error == "raise"
        self.every_steps, self.at_updates, self.at_end = every_steps, at_updates, at_end
        self.tokenizer = tokenizer
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.evaluations: list[Evaluation] = []
        self._reporters = Reporters(what="scores", where=EVALUATIONS)

    # Hooks: when

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finds the tokenizer, the dataset and the run's earlier evaluations."""
        self._tokenizer = self._find_tokenizer(kwargs["processing_class"])
        self._harness.progress = self._progress and not args.disable_tqdm
        with without_trace(kwargs["model"]):
            self._harness.prepare(self._tokenizer)
        self._join = _join(args, kwargs["train_dataloader"])
        self._dataset = self._updated_dataset(kwargs["train_dataloader"])
        self._num_segments = 0 if self._dataset is None else self._dataset.num_segments
        self._file = EvaluationFile((self.output_dir or Path(str(args.output_dir))) / EVALUATIONS)
        self._first_step, self._last_step = state.global_step, None
        self._resume(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluates where a callback that stands later in the list has announced a mixture."""
        if self._has_new_mixture(state.global_step):
            self._evaluate(args, state, kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluates where it is due."""
        step = state.global_step
        is_due = self.every_steps is not None and step % self.every_steps == 0
        # Before the Trainer saves, or brings back the best checkpoint if it is asked to.
        is_last = self.at_end and step >= state.max_steps
        if self._has_new_mixture(step) or is_due or is_last:
            self._evaluate(args, state, kwargs["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluates where training is stopped early: no step begins that would do it."""
        # Not when training ends: the Trainer may have brought back the best checkpoint by then.
        if not control.should_training_stop:
            return
        if self._has_new_mixture(state.global_step) or self.at_end:
            self._evaluate(args, state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluates where no step was left to do, and closes what was opened."""
        if self.at_end and state.global_step:
            self._evaluate(args, state, kwargs["model"])
        self._reporters.close()

    def _has_new_mixture(self, step: int) -> bool:
        """Whether mixtures have been announced since this was last asked."""
        if self._dataset is None:
            return False
        before, self._num_segments = self._num_segments, self._dataset.num_segments
        is_new = self._num_segments > before
        if step > self._first_step:
            return is_new
        # Before its first step a callback that stands later has put back a checkpoint's schedule.
        # The mixture that was announced last before the save may not have been evaluated.
        last = self._dataset.schedule.segments[-1]
        return is_new and last.update.get("step") == step

    # What one evaluation does

    def _evaluate(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        """Scores, logs and writes, once a step."""
        step = state.global_step
        if step == self._last_step:
            return
        self._last_step = step
        started = time.perf_counter()
        scores = self._harness.score(model, self._tokenizer)
        evaluation = Evaluation(
            step=step,
            scores=scores,
            progress=None if self._join is None else self._join.progress(step),
            seconds=time.perf_counter() - started,
        )
        self.evaluations.append(evaluation)
        scalars = scores.scalars()
        state.log_history.append({**scalars, "step": step})
        self._reporters.show(scalars, {}, args, state)
        if state.is_world_process_zero:
            for task, failure in scores.failures.items():
                logger.warning("step %d, suite %s, %s: %s", step, scores.suite, task, failure)
            self._file.add(evaluation)
            if self._harness.progress:
                tqdm.write(str(evaluation))

    def _resume(self, state: TrainerState) -> None:
        """Drops lines that will be made anew, and takes up what has been scored at this step."""
        step, suite = state.global_step, self._harness.suite.name
        scores = distributed.solve_on_rank_0(lambda: self._file.resume(step, suite))
        if scores is None:
            return
        self._last_step = step
        # The checkpoint's history has no evaluation that came after it was saved.
        scalars, history = scores.scalars(), state.log_history
        if not any(own["step"] == step and scalars.keys() <= own.keys() for own in history):
            history.append({**scalars, "step": step})

    def _find_tokenizer(self, processing_class: Any) -> PreTrainedTokenizerBase:
        found = self.tokenizer or processing_class
        if not isinstance(found, PreTrainedTokenizerBase):
            raise ValueError(
                f"`tokenizer` must be the model's; got {type(found).__name__}. Pass it to "
                "EvalCallback, or to the Trainer as `processing_class`."
            )
        return found

    def _updated_dataset(self, loader: DataLoader[Any]) -> InterleavedDomainDataset | None:
        """The dataset whose updates are waited for."""
        if not self.at_updates:
            return None
        if not isinstance(loader.dataset, InterleavedDomainDataset):
            raise ValueError(
                "`at_updates` must be False unless the Trainer reads an InterleavedDomainDataset; "
                f"its train_dataset is a {type(loader.dataset).__name__}. Pass `every_steps`."
            )
        return loader.dataset


class _Join:
    """What training had read at a step, and under which mixture.

    Args:
        args: the Trainer's.
        dataset: that training reads in order.
    """

    def __init__(self, args: TrainingArguments, dataset: InterleavedDomainDataset) -> None:
        self._dataset, self._layout = dataset, trainer_checks.layout_of(args, dataset)
        self._num_samples = 0
        self._tokens_K = np.zeros(len(dataset.domains), dtype=np.int64)

    def progress(self, step: int) -> Progress:
        """At the end of a step; steps come in ascending order."""
        dataset, num_samples = self._dataset, self._layout.samples_before(step)
        self._tokens_K = self._tokens_K + dataset.tokens_between(self._num_samples, num_samples)
        self._num_samples = num_samples
        last = max(num_samples - 1, 0)
        schedule = dataset.schedule
        starts = [segment.from_sample for segment in schedule.segments]
        return Progress(
            num_samples=num_samples,
            tokens=dict(zip(dataset.domains.names, self._tokens_K.tolist(), strict=True)),
            segment=sum(start <= last for start in starts) - 1,
            mixture=schedule.mixture_at(last),
        )


def _join(args: TrainingArguments, loader: DataLoader[Any]) -> _Join | None:
    """None where there is no schedule to join scores to."""
    if not isinstance(loader.dataset, InterleavedDomainDataset):
        return None
    try:
        trainer_checks.check_arguments(args)
        trainer_checks.check_loader(loader, loader.dataset)
    except ValueError as err:
        logger.warning("Scores are not joined to the schedule, which is not followed: %s", err)
        return None
    return _Join(args, loader.dataset)
