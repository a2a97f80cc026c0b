"""Harness and evaluate: a model's scores on a suite, through lm-evaluation-harness.

In: a model in memory, its tokenizer, a suite, and perhaps a folder with the benchmarks' rows. Out:
`SuiteScores`, the same on every rank. lm-eval asks the questions and scores the answers; bits per
byte of the right answer and normalised accuracy (`metrics.py`) are added to every multiple-choice
task. A task that fails is reported as failed, and the others go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tikmix_hf import distributed
from tikmix_hf.harness import offline
from tikmix_hf.harness.answers import multiple_choice, scores
from tikmix_hf.harness.language_model import AUTO, LiveModel, quiet, without_trace
from tikmix_hf.harness.scores import SuiteScores, TaskScores
from tikmix_hf.harness.suite import BENCHMARK, Suite, SuiteTask
from tikmix_hf.harness.tasks import FEWSHOT_SEED, Prepared, prepare

# lm-eval says it of metrics without a standard error.
_NO_ERROR = "N/A"


class Harness:
    """A suite whose rows are read once, to be asked of a model as often as wanted.

    Args:
        suite: a `Suite`, or what `Suite.load` takes.
        data_dir: folder with the benchmarks' rows (`data.py`); None asks the Hub or its cache.
        heldout: held-out rows (`input_ids`) by domain, for suites with tasks made of them.
        limit: questions asked of each task; None: the suite's.
        batch_size: requests of a forward pass; "auto" fills the memory of a single GPU.
        keep_samples: keep every question with its prompts and answers.
        progress: show bars.
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
            raise ValueError(f"`data_dir` must be a folder; got {str(data_dir)!r}.")
        if heldout is None and any(task.kind != BENCHMARK for task in self.suite.tasks):
            raise ValueError(
                f"`heldout` must be given: the suite {suite.name!r} has tasks that are made of the "
                "domains' held-out rows. Pass {domain.name: domain.heldout for domain in domains}."
            )
        self.data_dir, self.heldout = data_dir, heldout
        self.batch_size, self.keep_samples = batch_size, keep_samples
        self.progress, self.raises = progress, raises
        self._prepared: dict[str, Prepared] = {}

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteScores:
        """Asks all tasks; call it on every rank.

        Args:
            model: a causal language model; it is left as it was, whatever happens.
            tokenizer: its own.
        """
        bar = tqdm(
            self.suite.tasks,
            desc=f"suite {self.suite.name}",
            disable=not self.progress or distributed.rank() > 0,
        )
        with without_trace(model), quiet():
            language_model = LiveModel(
                model, tokenizer, batch_size=self.batch_size, progress=self.progress
            )
            found = tuple(self._score(task, tokenizer, language_model) for task in bar)
        return SuiteScores(suite=self.suite.name, tasks=found)

    def _score(
        self, task: SuiteTask, tokenizer: PreTrainedTokenizerBase, language_model: LiveModel
    ) -> TaskScores:
        """Scores a task, or says why it cannot be."""
        started = time.perf_counter()
        try:
            # What one rank fails of alone, such as a missing file, is everybody's failure.
            with distributed.FailTogether():
                prepared = self._prepare(task, tokenizer)
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
                self._prepared[task.task] = prepare(task, self.data_dir)
            else:
                assert self.heldout is not None, "checked when the harness was made"
                self._prepared[task.task] = offline.prepare(task, self.heldout, tokenizer)
        return self._prepared[task.task]

    def _ask(
        self, task: SuiteTask, prepared: Prepared, language_model: LiveModel, started: float
    ) -> TaskScores:
        for own in prepared.tasks.values():
            own.set_fewshot_seed(seed=FEWSHOT_SEED)  # the same examples each time
        wanted: Any = {"tasks": prepared.tasks, "groups": {}, "group_map": {}}
        found: Any = lm_eval.evaluate(
            language_model,
            wanted,
            limit=task.limit or self.suite.limit,
            log_samples=True,
        )
        assert found is not None, "every rank is rank 0 of 1 to lm-eval"
        values, errors = _lm_eval_scores(found)
        samples = [sample for name in prepared.tasks for sample in found["samples"][name]]
        answers = [
            answer
            for name, own in prepared.tasks.items()
            if own.OUTPUT_TYPE == "multiple_choice"
            for answer in multiple_choice(own, found["samples"][name])
        ]
        if answers:
            added, added_errors = scores(answers)
            # Where lm-eval has a metric of the same name, lm-eval's stands.
            values, errors = {**added, **values}, {**added_errors, **errors}
        if task.metric not in values:
            raise ValueError(
                f"`metric` must be one of {', '.join(sorted(values))}; got {task.metric!r}."
            )
        return TaskScores(
            task=task.task,
            metric=task.metric,
            values=values,
            errors=errors,
            num_questions=sum(own["effective"] for own in found["n-samples"].values()),
            num_fewshot=task.num_fewshot,
            files=prepared.files,
            version=str(next(iter(found["versions"].values()), "")),
            seconds=time.perf_counter() - started,
            samples=samples if self.keep_samples else (),
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


def _lm_eval_scores(found: Any) -> tuple[dict[str, float], dict[str, float]]:
    """lm-eval's own metrics and standard errors; of several subsets, over all their questions."""
    by_subset: dict[str, dict[str, tuple[float, float | None]]] = {}
    for subset, results in found["results"].items():
        filters = {key.partition(",")[2] for key in results if "," in key}
        for key, value in results.items():
            name, comma, used = key.partition(",")
            if not comma or name.endswith("_stderr"):
                continue
            error = results.get(f"{name}_stderr,{used}", _NO_ERROR)
            label = name if len(filters) == 1 else key
            by_subset.setdefault(label, {})[subset] = (
                float(value),
                None if error == _NO_ERROR else float(error),
            )
    sizes = {subset: own["effective"] for subset, own in found["n-samples"].items()}
    values, errors = {}, {}
    for label, own in by_subset.items():
        parts = [(sizes[subset], value, error) for subset, (value, error) in own.items()]
        total = sum(size for size, _, _ in parts)
        values[label] = sum(size * value for size, value, _ in parts) / total
        if all(error is not None for _, _, error in parts):
            squares = [(size * (error or 0.0)) ** 2 for size, _, error in parts]
            errors[label] = math.sqrt(sum(squares)) / total
    return values, errors
