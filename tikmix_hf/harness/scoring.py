"""Harness and evaluate: a model's scores on a suite, through lm-evaluation-harness.

In: a model in memory, its tokenizer, a suite, and perhaps a folder with the benchmarks' rows. Out:
`SuiteScores`, the same on every rank. lm-eval asks the questions and scores the answers; bits per
byte of the right answer and normalised accuracy (`metrics.py`) are added to every multiple-choice
task. A task that fails is reported as failed, and the others go on.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tikmix_hf import distributed
from tikmix_hf.checks import check_count
from tikmix_hf.harness import offline
from tikmix_hf.harness.answers import multiple_choice
from tikmix_hf.harness.asking import ask, fingerprint
from tikmix_hf.harness.language_model import AUTO, LiveModel, quiet, without_trace
from tikmix_hf.harness.questions import rows_named
from tikmix_hf.harness.scores import SuiteScores, TaskScores
from tikmix_hf.harness.subsets import by_subset, pooled
from tikmix_hf.harness.suite import BENCHMARK, Suite, SuiteTask
from tikmix_hf.harness.tasks import Prepared, prepare


class Harness:
    """A suite whose rows are read once, to be asked of a model as often as wanted.

    Args:
        suite: a `Suite`, or what `Suite.load` takes.
        data_dir: folder with the benchmarks' rows (`data.py`); None asks the Hub or its cache.
        heldout: held-out rows (`input_ids`) by domain, for suites with tasks made of them.
        limit: questions asked of each task; None: the suite's.
        batch_size: requests of a forward pass; "auto" fills the memory of a single GPU.
        keep_samples: keep every question with its prompts and answers.
        progress: show a bar that names the task.
        raises: whether a task that fails is raised, instead of reported.

    Raises:
        ValueError: names the argument, its value and the mend.
    """

    def __init__(
        self,
        suite: Suite | str | Path,
        *,
        data_dir: str | Path | None = None,
        heldout: Mapping[str, Any] | None = None,
        limit: int | None = None,
        batch_size: int | str = AUTO,
        keep_samples: bool = False,
        progress: bool = True,
        raises: bool = False,
    ) -> None:
        suite = suite if isinstance(suite, Suite) else Suite.load(suite)
        self.suite = suite.with_limit(limit)
        if data_dir is not None and not Path(data_dir).is_dir():
            raise ValueError(
                f"`data_dir` must be a folder; got {str(data_dir)!r}. Put each benchmark's rows "
                "into a folder of its own there, or leave `data_dir` out to ask the Hub."
            )
        if heldout is None and any(task.kind != BENCHMARK for task in self.suite.tasks):
            raise ValueError(
                f"`heldout` must be given: the suite {suite.name!r} has tasks that are made of the "
                "domains' held-out rows. Pass {domain.name: domain.heldout for domain in domains}."
            )
        self.data_dir, self.heldout = data_dir, heldout
        if batch_size != AUTO:
            check_count("batch_size", batch_size)
        self.batch_size, self.keep_samples = batch_size, keep_samples
        self.progress, self.raises = progress, raises
        self._prepared: dict[str, Prepared] = {}
        self._fingerprints: dict[str, bytes] = {}

    def prepare(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Makes the questions of held-out text now, if there are such tasks; call it on every rank.

        Otherwise the first `score` makes them, and reports those that it cannot make as failed.

        Raises:
            ValueError: a domain has too little held-out text; says which, how much, and the mend.
        """
        with distributed.FailTogether(), quiet():
            for task in self.suite.tasks:
                if task.kind != BENCHMARK:
                    self._prepare(task, tokenizer)

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteScores:
        """Asks all tasks; call it on every rank.

        Args:
            model: a causal language model; it is left as it was, whatever happens.
            tokenizer: its own.
        """
        is_quiet = not self.progress or distributed.rank() > 0
        with tqdm(unit=" answers", leave=False, disable=is_quiet) as bar:

            def live() -> LiveModel:
                return LiveModel(model, tokenizer, batch_size=self.batch_size, on_answer=bar.update)

            with without_trace(model), quiet():
                once = functools.cache(live)
                found = tuple(self._score(task, tokenizer, once, bar) for task in self.suite.tasks)
        return SuiteScores(suite=self.suite.name, tasks=found)

    def _score(
        self,
        task: SuiteTask,
        tokenizer: PreTrainedTokenizerBase,
        live: Callable[[], LiveModel],
        bar: Any,
    ) -> TaskScores:
        """Scores a task, or says why it cannot be."""
        started = time.perf_counter()
        bar.set_description(f"{self.suite.name}: {task.task}")
        try:
            # What one rank fails of alone, such as a missing file, is everybody's failure.
            with distributed.FailTogether():
                prepared = self._prepare(task, tokenizer)
                language_model = live()
            what = f"the rows of {task.task}"
            distributed.check_identical(what, self._fingerprints[task.task])
            requests = sum(len(own.instances) for own in prepared.tasks.values())
            bar.reset(total=-(-requests // distributed.world_size()))
            return self._ask(task, prepared, language_model, started)
        # Tasks are lm-eval's, their rows anybody's: what they may raise has no bound, and none of
        # it is worth a training run.
        except Exception as err:
            if self.raises:
                raise
            reason = " ".join(f"{type(err).__name__}: {err}".split())
            return TaskScores(task=task.task, metric=task.metric, failure=reason)

    def _prepare(self, task: SuiteTask, tokenizer: Any) -> Prepared:
        if task.task not in self._prepared:
            if task.kind == BENCHMARK:
                prepared = prepare(task, self.data_dir)
            else:
                assert self.heldout is not None, "checked when the harness was made"
                limited = dataclasses.replace(task, limit=self._limit(task))
                prepared = offline.prepare(limited, self.heldout, tokenizer)
            for own in prepared.tasks.values():
                with rows_named(task.task, prepared.files):
                    own.build_all_requests(limit=self._limit(task))
            self._fingerprints[task.task] = fingerprint(prepared.tasks)
            self._prepared[task.task] = prepared
        return self._prepared[task.task]

    def _limit(self, task: SuiteTask) -> int | None:
        return task.limit or self.suite.limit

    def _ask(
        self, task: SuiteTask, prepared: Prepared, language_model: LiveModel, started: float
    ) -> TaskScores:
        found = ask(language_model, prepared.tasks, limit=self._limit(task))
        answers = {
            name: list(multiple_choice(own, found["samples"][name]))
            for name, own in prepared.tasks.items()
            if own.OUTPUT_TYPE == "multiple_choice"
        }
        values, errors = pooled(found, answers)
        if task.metric not in values:
            raise ValueError(
                f"`metric` of {task.task} must be one of {', '.join(sorted(values))}; got "
                f"{task.metric!r}. Change it in the suite."
            )
        samples = [
            {"subset": name, **sample}
            for name in (prepared.tasks if self.keep_samples else ())
            for sample in found["samples"][name]
        ]
        return TaskScores(
            task=task.task,
            metric=task.metric,
            values=values,
            errors=errors,
            subsets=by_subset(found, answers) if len(prepared.tasks) > 1 else {},
            num_questions=sum(own["effective"] for own in found["n-samples"].values()),
            num_fewshot=task.num_fewshot,
            files=prepared.files,
            version=str(next(iter(found["versions"].values()), "")),
            seconds=time.perf_counter() - started,
            samples=samples,
        )


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite | str | Path,
    **settings: Any,
) -> SuiteScores:
    """Scores a model once; see `Harness` for the settings.

    Example:
        >>> evaluate(model, tokenizer, "quick", data_dir="benchmarks")["arc_easy"].value
    """
    return Harness(suite, **settings).score(model, tokenizer)
