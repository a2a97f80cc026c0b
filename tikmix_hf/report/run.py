"""Run: what a run's folder tells, as plain data.

In: the folder that `TikMixCallback`, `EvalCallback`, the Trainer and the recipes write to. Out:
`Run`. Every file may be missing or cut short; what could not be read is a line of `Run.faults`,
and the rest is shown. Nothing is unpickled or executed.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tikmix_hf.report import records, values
from tikmix_hf.report.records import Score, Shares, Update
from tikmix_hf.schedule import MixtureSchedule

SCHEDULE, UPDATES, EVALUATIONS = "schedule.json", "influence.jsonl", "evaluations.jsonl"
METRICS, TRAINER = "metrics.json", "trainer_state.json"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a model came to, as `metrics.json` has it."""

    label: str
    losses: Shares
    """By target, nats per token."""
    mean_loss: float | None
    epochs: Shares
    numbers: Mapping[str, float]
    """Of the run: num_samples, trained_tokens, seconds, num_parameters."""
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far one model's score is above another's on the same questions."""

    pair: str
    suite: str
    task: str
    value: float
    error: float | None


@dataclass(kw_only=True, slots=True)
class Run:
    """A run, as far as its folder tells."""

    folder: Path
    label: str
    schedule: MixtureSchedule | None = None
    updates: Sequence[Update] = ()
    scores: Sequence[Score] = ()
    """Of evaluations during training, in their order."""
    results: Sequence[Result] = ()
    """At the end; the first is this run's, others are its controls."""
    differences: Sequence[Difference] = ()
    """Of its models, question by question."""
    losses: Sequence[tuple[int, float]] = ()
    """(step, training loss)."""
    max_steps: int | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    """The model's configuration."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What the schedule's file says of its making."""
    stated_samples: int | None = None
    """Samples of the run, as the schedule's file says."""
    written: tuple[float, float] | None = None
    """Seconds since 1970 of the oldest and the newest file."""
    lost_updates: int = 0
    """Lines of updates that could not be read; sums over updates are without them."""
    faults: list[str] = field(default_factory=list)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names, in the order of the schedule."""
        if self.schedule is not None:
            return self.schedule.domains
        return tuple(self.updates[0].mixture) if self.updates else ()

    @property
    def result(self) -> Result | None:
        """This run's own."""
        return self.results[0] if self.results else None

    @property
    def num_samples(self) -> int | None:
        """Of the whole run; None where nothing tells."""
        if self.result is not None and "num_samples" in self.result.numbers:
            return round(self.result.numbers["num_samples"])
        if self.stated_samples is not None:
            return self.stated_samples
        starts = [(u.step, u.from_sample) for u in self.updates if u.from_sample is not None]
        if self.max_steps is None or len(starts) < 2:
            return None
        (first_step, first), (last_step, last) = starts[0], starts[-1]
        # Announcements keep one distance ahead, so their differences are whole steps.
        return round((last - first) / max(last_step - first_step, 1) * self.max_steps)


def read_run(folder: str | Path, label: str | None = None) -> Run:
    """Reads a run's folder.

    Args:
        folder: of the run.
        label: how the report calls it; None takes the folder's name.

    Raises:
        ValueError: there is no such folder, or nothing of a run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`RUN` must be the folder of a run; {folder} is none.")
    run = Run(folder=folder, label=label or folder.resolve().name)
    _read_schedule(run)
    run.updates, run.lost_updates = _lines(run, UPDATES, records.update)
    evaluations, _ = _lines(run, EVALUATIONS, records.evaluation)
    run.scores = [score for line in evaluations for score in line]
    _attempt(run, METRICS, lambda: _read_metrics(run, _with_gaps(folder / METRICS)))
    _read_trainer(run)
    if not (run.schedule or run.updates or run.scores or run.results or run.losses):
        faults = "".join(f" {fault}" for fault in run.faults)
        raise ValueError(
            f"`RUN` must be a folder with {SCHEDULE}, {UPDATES}, {EVALUATIONS}, {METRICS} or "
            f"{TRAINER}; {folder} has none that can be read.{faults} Give a run's `output_dir`."
        )
    return run


def _read_schedule(run: Run) -> None:
    path = run.folder / SCHEDULE
    _attempt(run, SCHEDULE, lambda: setattr(run, "schedule", MixtureSchedule.load(path)))
    if run.schedule is None:
        return
    written = _json(path)
    provenance, size = written.get("provenance"), written.get("run")
    run.provenance = provenance if isinstance(provenance, dict) else {}
    samples = size.get("num_samples") if isinstance(size, dict) else None
    run.stated_samples = samples if isinstance(samples, int) and samples > 0 else None


def _read_metrics(run: Run, metrics: Any) -> None:
    results = []
    for label, own in metrics["runs"].items():
        suites = metrics.get("scores", {}).get(label, {}).items()
        results.append(
            Result(
                label=label,
                losses=values.known(own["losses"], "losses"),
                mean_loss=values.optional(own, "mean_loss"),
                epochs=values.named(own.get("epochs", {}), "epochs"),
                numbers={
                    key: values.finite(own[key], key)
                    for key in ("num_samples", "trained_tokens", "seconds", "num_parameters")
                    if own.get(key) is not None
                },
                scores=tuple(
                    score for suite, tasks in suites for score in records.scores(suite, tasks, None)
                ),
            )
        )
    run.results = results
    run.differences = [
        Difference(
            pair=pair,
            suite=suite,
            task=task,
            value=values.finite(own["all"]["difference"], f"{task}.difference"),
            error=values.optional(own["all"], "standard_error"),
        )
        for pair, suites in metrics.get("score_differences", {}).items()
        for suite, tasks in suites.items()
        for task, own in tasks.items()
        if "all" in own
    ]


def _read_trainer(run: Run) -> None:
    """The Trainer's own log, of the run or its last checkpoint; the model's configuration."""
    numbered = {
        int(path.name[11:]): path
        for path in run.folder.glob("checkpoint-*")
        if path.name[11:].isascii() and path.name[11:].isdigit()
    }
    folders = [run.folder, *(numbered[step] for step in sorted(numbered, reverse=True))]
    for folder in folders:
        if (folder / TRAINER).is_file():
            _attempt(run, TRAINER, lambda path=folder / TRAINER: _read_log(run, _with_gaps(path)))
            break
    for folder in (run.folder / "model", *folders):
        if (folder / "config.json").is_file():
            path = folder / "config.json"
            _attempt(run, "config.json", lambda path=path: setattr(run, "model", dict(_json(path))))
            break
    files = [run.folder / name for name in ("plan.json", SCHEDULE, UPDATES, EVALUATIONS, METRICS)]
    times = [path.stat().st_mtime for path in files if path.is_file()]
    run.written = (min(times), max(times)) if times else None


def _read_log(run: Run, state: Any) -> None:
    steps = values.optional(state, "max_steps")
    run.max_steps = None if steps is None else round(steps)
    run.losses = [
        (round(values.finite(entry["step"], "step")), float(entry["loss"]))
        for entry in state["log_history"]
        if isinstance(entry.get("loss"), (int, float)) and np.isfinite(entry["loss"])
    ]


def _lines(run: Run, name: str, read: Callable[[Any], T]) -> tuple[list[T], int]:
    """Reads what can be read of a file of JSON lines; how many lines could not."""
    path, found, faults = run.folder / name, [], []
    if not path.is_file():
        return found, 0
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(read(_parse(line)))
        except (ValueError, RecursionError) as err:
            is_cut = number == len(lines) and isinstance(err, json.JSONDecodeError)
            why = "is cut short" if is_cut else f"cannot be read ({_short(err)})"
            faults.append(f"Line {number} of {name} {why} and is left out.")
    more = [f"{len(faults) - 3:,} more lines of {name} are left out."] if len(faults) > 3 else []
    run.faults += [*faults[:3], *more]
    return found, len(faults)


def _attempt(run: Run, name: str, read: Callable[[], None]) -> None:
    """Reads a file, if it is there; says where it cannot be read."""
    try:
        read()
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as err:
        why = f"KeyError: {err}" if isinstance(err, KeyError) else err
        run.faults.append(f"{name} cannot be read ({_short(why)}) and is left out.")


def _short(why: object) -> str:
    return textwrap.shorten(str(why), 160, placeholder=" …")


def _json(path: Path) -> Any:
    return _parse(path.read_bytes().decode("utf-8", "replace"))


def _with_gaps(path: Path) -> Any:
    """What the Trainer and the recipes wrote, who write NaN as it is: None stands for it."""
    text = path.read_bytes().decode("utf-8", "replace")
    return json.loads(text, parse_constant=lambda _: None)


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
