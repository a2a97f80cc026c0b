"""Results of runs as `eval/run.py` writes them, with each question's scores where they were kept.

In: JSON files {"name", "seed", "tasks", "samples": a JSON-lines file or null, ...}; `tasks` is that
of `SuiteScores.to_dict`. A line of samples is {"task", "subset", "doc_id", metric: number ...}.
Or the `evaluations.jsonl` that `EvalCallback` leaves: of each suite the last line counts, and the
run is called like the file's folder. Out: `Run`s.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEYS = ("name", "seed", "tasks")
SAME = ("metric", "num_questions", "num_fewshot", "files")
"""What must agree of a task for its scores to be compared."""
NO_SEED = -1
"""Of results that were written without one."""
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
    seed: int
    """Of the run."""
    tasks: Mapping[str, Mapping[str, Any]]
    """By name, as `TaskScores.to_dict` gives them."""
    questions: Mapping[str, Questions] = field(default_factory=dict)
    """By task, of the task's metric; tasks without samples are not there."""

    def value(self, task: str) -> float | None:
        """The task's score by its metric; None where it failed or was not asked."""
        own = self.tasks.get(task)
        return None if own is None else own["values"].get(own["metric"])

    @property
    def failures(self) -> dict[str, str]:
        """Why tasks have no score, by name."""
        return {name: own["failure"] for name, own in self.tasks.items() if own.get("failure")}


def read(paths: Sequence[Path]) -> list[Run]:
    """Reads results.

    Where no result has a seed all have the same one.

    Raises:
        ValueError: a file is no result, one name has a seed twice, or only some results have a
            seed; says which.
    """
    runs: dict[tuple[str, int], Run] = {}
    found = [read_one(path) for path in paths]
    without = [path for path, run in zip(paths, found, strict=True) if run.seed == NO_SEED]
    if without and len(without) < len(found):
        raise ValueError(
            f"{without[0]} has no seed and others have one, so that it has no partner. Score it "
            "with --seed."
        )
    for path, run in zip(paths, found, strict=True):
        if (run.name, run.seed) in runs:
            raise ValueError(
                f"{path}: {run.name!r} with seed {run.seed} was given twice. Give each run's "
                "result once, or another name."
            )
        runs[run.name, run.seed] = run
    return list(runs.values())


def read_one(path: Path) -> Run:
    """Reads one result and its samples.

    Raises:
        ValueError: the file is no result; says which keys it lacks.
    """
    try:
        record = _record(path)
    except json.JSONDecodeError as err:
        raise ValueError(f"{path} must be JSON that eval/run.py wrote; {err}.") from err
    if missing := [key for key in KEYS if not isinstance(record, dict) or key not in record]:
        raise ValueError(f"{path} must be a result of eval/run.py; it lacks {', '.join(missing)}.")
    tasks, questions = record["tasks"], {}
    if record.get("samples") is not None:
        questions = read_questions(_samples(path, Path(record["samples"])), tasks)
    seed = NO_SEED if record["seed"] is None else record["seed"]
    return Run(name=record["name"], seed=seed, tasks=tasks, questions=questions)


def _record(path: Path) -> Any:
    if path.suffix != ".jsonl":
        return json.loads(path.read_text("utf-8"))
    tasks: dict[str, Any] = {}
    for line in path.read_text("utf-8").splitlines():
        tasks |= json.loads(line).get("tasks", {})
    return {"name": path.resolve().parent.name, "seed": None, "tasks": tasks} if tasks else {}


def _samples(result: Path, samples: Path) -> Path:
    """Where it was written from, or, where files were moved since, beside the result."""
    return samples if samples.is_file() else result.parent / samples.name


def read_questions(
    path: Path, tasks: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[tuple[str, int], float]]:
    """Each question's score by the metric of its task, where their mean is the task's score.

    Raises:
        FileNotFoundError: the samples that a result names are not there.
    """
    found: dict[str, dict[tuple[str, int], float]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            task, identity = sample["task"], f"{sample.get('subset')}/{sample['doc_id']}"
            number = sample.get(tasks[task]["metric"]) if task in tasks else None
            if isinstance(number, int | float):  # bool is an int
                found.setdefault(task, {})[identity, seen[task, identity]] = float(number)
                seen[task, identity] += 1
    return {task: own for task, own in found.items() if _is_mean(tasks[task], own)}


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
                        f"`results`: {task} has {key} {first!r} in {asked[0].name!r} and {own!r} "
                        f"in {run.name!r} (seed {run.seed}). Score both alike, with the same suite "
                        "and data."
                    )
    return None
