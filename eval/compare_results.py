"""Results of runs as `eval/run.py` writes them, with each question's scores where they were kept.

In: JSON files {"name", "seed", "tasks", "samples": a JSON-lines file or null, ...}; `tasks` is that
of `SuiteScores.to_dict`. A line of samples is {"task", "subset", "doc_id", metric: number ...}; the
file may be gzipped, and a relative path is from the result's folder. Or the `evaluations.jsonl`
that `EvalCallback` leaves: of each suite the last line counts, and the run is called like the
file's folder. Out: `Run`s.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tikmix_hf.files import read_records

KEYS = ("name", "seed", "tasks")
SAME = ("metric", "num_questions", "num_fewshot", "files", "version")
"""What must agree of a task for its scores to be compared."""
GZIPPED = b"\x1f\x8b"
"""What such a file begins with, whatever its name."""
TOLERANCE = 1e-6
"""How far the mean of samples may be from a task's score: beyond it the score is no mean over
questions, such as a perplexity, and its questions cannot be resampled one by one."""
Questions = Mapping[tuple[str, int], float]
"""A metric by question: subset and id, and how many with this id came before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run's scores."""

    name: str
    """What runs that differ in their seed alone have in common."""
    seed: int | None
    """Of the run; None: the result was written without one."""
    tasks: Mapping[str, Mapping[str, Any]]
    """By name, as `TaskScores.to_dict` gives them."""
    questions: Mapping[str, Questions] = field(default_factory=dict)
    """By task, of the task's metric; tasks without samples are not there."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """By task, after how many optimizer steps it was scored; where that is not known, nothing."""

    @property
    def title(self) -> str:
        """For people: name and, where there is one, seed."""
        return self.name if self.seed is None else f"{self.name} (seed {self.seed})"

    def value(self, task: str) -> float | None:
        """The task's score by its metric; None where it failed or was not asked."""
        own = self.tasks.get(task)
        return None if own is None else own["values"].get(own["metric"])

    @property
    def failures(self) -> dict[str, str]:
        """Why tasks have no score, by name."""
        return {name: own["failure"] for name, own in self.tasks.items() if own.get("failure")}


def read(paths: Sequence[Path], suite: str | None = None) -> list[Run]:
    """Reads results.

    Args:
        paths: of their files.
        suite: whose scores to take; None: of all suites.

    Raises:
        ValueError: there is none, a file is no result, one name has a seed twice, or only some
            results have a seed; says which.
    """
    if not paths:
        raise ValueError("`results` must name a file that eval/run.py wrote; got none.")
    runs: dict[tuple[str, int | None], Run] = {}
    found = [read_one(path, suite) for path in paths]
    without = [path for path, run in zip(paths, found, strict=True) if run.seed is None]
    if without and len(without) < len(found):
        raise ValueError(
            f"{without[0]} has no seed and others have one, so that it has no partner. Score it "
            "with --seed."
        )
    for path, run in zip(paths, found, strict=True):
        if (run.name, run.seed) in runs:
            raise ValueError(
                f"{path}: {run.title} was given twice. Give each run's result once, or another "
                "name or seed."
            )
        runs[run.name, run.seed] = run
    return list(runs.values())


def is_comparison(path: Path) -> bool:
    """Whether a file is what `compare.py` wrote, which a pattern may name beside the results."""
    if path.suffix == ".jsonl":
        return False
    try:
        record = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError:
        return False
    return isinstance(record, dict) and "best_on" in record


def read_one(path: Path, suite: str | None = None) -> Run:
    """Reads one result and its samples.

    Args:
        path: of its file.
        suite: whose scores to take; None: of all suites.

    Raises:
        ValueError: the file is no result, or of other suites, or two of its suites have a task in
            common; says which.
    """
    try:
        if path.suffix == ".jsonl":
            return _of_evaluations(path, suite)
        record = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path} must be JSON that eval/run.py wrote; {err}.") from err
    if missing := [key for key in KEYS if not isinstance(record, dict) or key not in record]:
        raise ValueError(f"{path} must be a result of eval/run.py; it lacks {', '.join(missing)}.")
    if suite is not None:
        _refuse_without(suite, path, [record.get("suite")])
    tasks, questions = record["tasks"], {}
    if record.get("samples") is not None:
        questions = read_questions(_samples(path, Path(record["samples"])), tasks)
    return Run(name=record["name"], seed=record["seed"], tasks=tasks, questions=questions)


def _of_evaluations(path: Path, suite: str | None) -> Run:
    """The last scores of each suite."""
    last = {line["suite"]: line for line in read_records(path) if "tasks" in line}
    if not last:
        raise ValueError(f"{path} must have a line of EvalCallback; it has none.")
    if suite is not None:
        _refuse_without(suite, path, list(last))
        last = {suite: last[suite]}
    for task, num in Counter(task for line in last.values() for task in line["tasks"]).items():
        if num > 1:
            having = [name for name, line in last.items() if task in line["tasks"]]
            raise ValueError(
                f"{path}: {task} is a task of the suites {', '.join(having)}. Choose one with "
                "--suite."
            )
    return Run(
        name=path.resolve().parent.name,
        seed=None,
        tasks={task: own for line in last.values() for task, own in line["tasks"].items()},
        steps={task: line["step"] for line in last.values() for task in line["tasks"]},
    )


def _refuse_without(suite: str, path: Path, known: Sequence[str | None]) -> None:
    if suite not in known:
        raise ValueError(
            f"`--suite` must be one that {path} has scores of: {', '.join(map(str, known))}; got "
            f"{suite!r}. Name one of them, or leave the file out."
        )


def _samples(result: Path, samples: Path) -> Path:
    """Where the result says, from its own folder on, or, if files were moved since, beside it."""
    places = [result.parent / samples, result.parent / samples.name]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{result} names the samples {samples}, and {places[0]} is not there. Put the file beside "
        "the result."
    )


def read_questions(
    path: Path, tasks: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[tuple[str, int], float]]:
    """Each question's score by the metric of its task, where their mean is the task's score.

    Raises:
        ValueError: the file is not whole; says which.
    """
    found: dict[str, dict[tuple[str, int], float]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for sample in _lines(path):
        task, identity = sample["task"], f"{sample.get('subset')}/{sample['doc_id']}"
        number = sample.get(tasks[task]["metric"]) if task in tasks else None
        if isinstance(number, int | float):  # bool is an int
            found.setdefault(task, {})[identity, seen[task, identity]] = float(number)
            seen[task, identity] += 1
    return {task: own for task, own in found.items() if _is_mean(tasks[task], own)}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        is_gzipped = file.read(len(GZIPPED)) == GZIPPED
    opened = gzip.open if is_gzipped else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except (json.JSONDecodeError, EOFError) as err:
        raise ValueError(
            f"{path} must be the JSON lines that eval/run.py wrote; {err}. Score the run again."
        ) from err


def _is_mean(task: Mapping[str, Any], questions: Questions) -> bool:
    value = task["values"].get(task["metric"])
    if value is None:
        return False
    return math.isclose(
        math.fsum(questions.values()) / len(questions), value, rel_tol=TOLERANCE, abs_tol=TOLERANCE
    )


def task_names(runs: Sequence[Run]) -> list[str]:
    """Every task that any run has, in the order of the first that has it."""
    return list(dict.fromkeys(task for run in runs for task in run.tasks))


def differing(runs: Sequence[Run]) -> str | None:
    """What keeps runs from being compared: a task that was not asked alike; None: nothing."""
    for task in task_names(runs):
        asked = [run for run in runs if run.value(task) is not None]
        for run in asked[1:]:
            for key in SAME:
                first, own = asked[0].tasks[task].get(key), run.tasks[task].get(key)
                if first != own:
                    return (
                        f"`results`: {task} has {key} {first!r} in {asked[0].title} and {own!r} in "
                        f"{run.title}. Score both alike, with the same suite, data and lm-eval."
                    )
        if problem := _differing_steps(task, asked):
            return problem
    return None


def _differing_steps(task: str, asked: Sequence[Run]) -> str | None:
    known = [run for run in asked if task in run.steps]
    for run in known[1:]:
        first, own = known[0].steps[task], run.steps[task]
        if first != own:
            return (
                f"`results`: {task} was scored after {first} steps in {known[0].title} and after "
                f"{own} in {run.title}. Compare runs of one length, or score checkpoints of the "
                "same step with eval/run.py."
            )
    return None
