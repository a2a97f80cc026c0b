"""What a recipe's models score on suites at the end, side by side.

In: the suites that a recipe names, its domains and its trained models. Out: `SuiteScores` by run,
and of two runs the paired difference of each task: both answered the same questions, so what makes
a question hard for both cancels out. lm-eval is imported where a recipe names a suite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tikmix_hf import Domains
from tikmix_hf.recipe import DataArguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tikmix_hf.harness import Harness, Suite, SuiteScores, TaskScores

Scores = Mapping[str, "Sequence[SuiteScores]"]
"""Run to what it scored, a suite after the other."""
ARC = ("arc_easy", "arc_challenge")
LESS_IS_BETTER = ("bits_per_byte", "perplexity")


def suites(args: DataArguments) -> list[Suite]:
    """Reads the suites that a recipe names; none needs neither lm-eval nor any text.

    Raises:
        ValueError: an unknown suite, one that is there twice, or a folder that lacks a benchmark.
        FileNotFoundError: no such file.
        ImportError: lm-eval is not installed.
    """
    if not args.eval_suites and args.benchmarks_dir is None:
        return []
    try:
        import lm_eval  # noqa: F401
    except ImportError as err:
        raise ImportError(
            "`eval_suites` and `benchmarks_dir` need lm-eval, which cannot be imported "
            f'({err}): pip install "tikmix-hf[eval]", or leave them out.'
        ) from err
    from tikmix_hf.harness import Suite

    try:
        found = [Suite.load(name) for name in args.eval_suites or ()]
    except ValueError as err:
        raise ValueError(f"`eval_suites`: {err}") from err
    names = [suite.name for suite in found]
    if len(set(names)) < len(names):
        raise ValueError(f"`eval_suites` must name each suite once; got {', '.join(names)}.")
    if args.benchmarks_dir is not None:
        if not any(_folders(suite) for suite in found):
            found.append(Suite.load("quick").only(ARC))
        _check_folder(Path(args.benchmarks_dir), found)
    return found


def _check_folder(root: Path, found: Sequence[Suite]) -> None:
    if not root.is_dir():
        raise ValueError(f"`benchmarks_dir` must be a folder; got {str(root)!r}.")
    for folder in (folder for suite in found for folder in _folders(suite)):
        if not (root / folder).is_dir():
            raise ValueError(
                f"`benchmarks_dir` must hold a folder for each benchmark; {root} has no {folder}/. "
                "Put its rows there (test.jsonl, train.jsonl, ...), or choose other `eval_suites`."
            )


def _folders(suite: Suite) -> list[str]:
    from tikmix_hf.harness.suite import BENCHMARK

    return [task.folder or task.task for task in suite.tasks if task.kind == BENCHMARK]


def scorers(
    found: Sequence[Suite],
    args: DataArguments,
    domains: Domains,
    tokenizer: PreTrainedTokenizerBase,
    *,
    progress: bool,
) -> list[Harness]:
    """Makes ready to ask every run's model the same questions; call it on every rank.

    Raises:
        ValueError: a domain has too little held-out text for a suite's questions.
    """
    if not found:
        return []
    from tikmix_hf.harness import Harness

    heldout = {domain.name: domain.heldout for domain in domains}
    made = [
        Harness(
            suite,
            data_dir=args.benchmarks_dir,
            heldout=heldout,
            keep_samples=True,  # differences are taken question by question
            progress=progress,
        )
        for suite in found
    ]
    for harness in made:
        harness.prepare(tokenizer)
    return made


def differences(first: TaskScores, second: TaskScores) -> dict[str, tuple[float, float | None]]:
    """How far one run's score is above another's on the same questions, with its standard error.

    Returns:
        By subset, and under "" of all questions; empty where a task failed. Where a metric is not
        one of single questions there is a difference without subsets, and no error.
    """
    from tikmix_hf.harness.subsets import pool, weighted_mean_and_error

    if first.value is None or second.value is None:
        return {}
    metric, _, used = first.metric.partition(",")
    parts: dict[str, tuple[list[float], list[float]]] = {}
    for one, other in zip(first.samples, second.samples, strict=True):
        assert one["doc_hash"] == other["doc_hash"], "both runs are asked by one harness"
        if metric not in one:
            return {"": (first.value - second.value, None)}
        if used in ("", one["filter"]):
            (value, weight), (less, _) = _value(one[metric]), _value(other[metric])
            values, weights = parts.setdefault(one["subset"], ([], []))
            values.append(value - less)
            weights.append(weight)
    read = {name: weighted_mean_and_error(*own) for name, own in parts.items()}
    together = pool([(len(parts[name][0]), *own) for name, own in read.items()])
    return {"": together, **(read if first.subsets else {})}


def _value(logged: Any) -> tuple[float, float]:
    """A question's score and its weight; of whole texts lm-eval logs nats and bytes."""
    if isinstance(logged, (tuple, list)):
        nats, num_bytes = logged
        return -nats / math.log(2) / num_bytes, num_bytes
    return float(logged), 1.0


def record(scores: Scores) -> dict[str, Any]:
    """What `metrics.json` holds; nothing where no suite was asked."""
    if not any(scores.values()):
        return {}
    return {
        "scores": {
            label: {own.suite: own.to_dict()["tasks"] for own in found}
            for label, found in scores.items()
        },
        "score_differences": {
            f"{label} - {other}": {
                own.suite: {
                    task.task: {
                        subset or "all": {"difference": value, "standard_error": error}
                        for subset, (value, error) in differences(task, than.tasks[n]).items()
                    }
                    for n, task in enumerate(own.tasks)
                }
                for own, than in zip(scores[label], scores[other], strict=True)
            }
            for label, other in pairwise(scores)
        },
    }


def tables(scores: Scores) -> list[Table]:
    """A table for each suite: runs side by side, and the difference of two."""
    by_suite = zip(*scores.values(), strict=True)
    return [_table(dict(zip(scores, found, strict=True))) for found in by_suite]


def _table(found: Mapping[str, SuiteScores]) -> Table:
    first, *others = found.values()
    table = Table(
        title=f"Suite {first.suite}, ± standard error (↑ more is better, ↓ less is)",
        title_justify="left",
        caption="Of four choices 0.25 are right by chance. Differences are question by question: "
        "their errors are of questions, not of seeds.",
        caption_justify="left",
    )
    table.add_column("task")
    for heading in (*found, *(["difference"] if len(found) == 2 else [])):
        table.add_column(heading, justify="right")
    for n, task in enumerate(first.tasks):
        runs = [own.tasks[n] for own in found.values()]
        gaps = differences(task, others[0].tasks[n]) if len(others) == 1 else {}
        # Domains have so few questions each that only bits per byte tell them apart.
        subsets = task.subsets if task.metric == "bits_per_byte" else {}
        for subset in ("", *subsets):
            row = [_of(run, subset) for run in runs]
            gap = [_text(*gaps[subset], "+") if subset in gaps else ""] if len(runs) == 2 else []
            table.add_row(f"  {subset}" if subset else _name(task), *row, *gap)
    for label, own in found.items():
        for task, failure in own.failures.items():
            table.add_row(f"{task} of {label} failed: {failure}")
    return table


def _name(task: TaskScores) -> str:
    metric = "" if task.metric == task.task else f" {task.metric}"
    return f"{task.task}{metric} {'↓' if task.metric in LESS_IS_BETTER else '↑'}"


def _of(task: TaskScores, subset: str) -> str:
    if task.value is None:
        return "failed"
    if not subset:
        return _text(task.value, task.errors.get(task.metric))
    own = task.subsets[subset]
    return _text(own["values"][task.metric], own["standard_errors"].get(task.metric))


def _text(value: float, error: float | None, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + ("" if error is None else f" ± {error:.4f}")
