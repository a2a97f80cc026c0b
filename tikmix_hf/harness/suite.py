"""Suite: which benchmarks a model is scored on, with how many shots, and which metric counts.

In: a YAML file, or the name of one that the package carries (`suites/`). Out: a `Suite` of
`SuiteTask`s. A task is either one of lm-eval's own, whose prompt and metrics are lm-eval's, or one
made of held-out text of the run's own domains (`offline.py`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tikmix_hf.checks import check_count

SUITES = resources.files("tikmix_hf.harness") / "suites"
BENCHMARK = "benchmark"
OFFLINE = ("cloze", "continuation", "bits_per_byte")
"""Kinds of tasks that are made of the domains' held-out text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteTask:
    """One benchmark of a suite."""

    task: str
    """Name under which it is reported; lm-eval's own, unless `lm_eval` says otherwise."""
    metric: str
    """The metric that stands for the task where there is room for one."""
    kind: str = BENCHMARK
    """"benchmark": one of lm-eval's; or one of OFFLINE."""
    lm_eval: str | None = None
    """File below lm-eval's `tasks` that defines it, such as `arc/arc_easy.yaml`, or a folder, all
    of whose tasks are one here. None searches all of lm-eval's tasks for the name, which takes
    seconds."""
    num_fewshot: int = 0
    """Solved examples before each question."""
    fewshot_split: str | None = None
    """Split that they are drawn from; None: lm-eval's own choice."""
    limit: int | None = None
    """Questions asked, the first ones of each subset; None: the suite's."""
    group: str | None = None
    """Tasks of one group have an average of their own, such as those in domain."""
    folder: str | None = None
    """Below the data folder: where SPLIT.jsonl[.gz] lie; None: named like the task."""
    subset_column: str | None = None
    """Column that tells which of the folder's rows belong to which of lm-eval's subsets."""
    answer: str | None = None
    """Template of the answer that stands for several right ones where the task becomes a target,
    such as `{{answer.value}}`; None: the first that lm-eval lists."""

    def __post_init__(self) -> None:
        for name in _TEXTS:
            self._check_text(name)
        if self.kind not in (BENCHMARK, *OFFLINE):
            raise ValueError(
                f"`kind` must be one of {', '.join((BENCHMARK, *OFFLINE))}; got {self.kind!r}."
            )
        check_count("num_fewshot", self.num_fewshot, least=0)
        if self.limit is not None:
            check_count("limit", self.limit)

    def _check_text(self, name: str) -> None:
        """YAML makes numbers and lists of what was not meant so."""
        value, is_path = getattr(self, name), name in _PATHS
        if value is None and name not in ("task", "metric", "kind"):
            return
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`{name}` must be a text; got {value!r}.")
        if is_path and (Path(value).is_absolute() or ".." in Path(value).parts):
            raise ValueError(f"`{name}` must stay below its folder; got {value!r}.")


_TEXTS = (
    *("task", "metric", "kind", "lm_eval", "fewshot_split", "group", "folder", "subset_column"),
    "answer",
)
_PATHS = ("task", "lm_eval", "folder")  # a task's name is its folder's unless `folder` is given


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """Benchmarks that are scored together."""

    name: str
    """Of the file."""
    tasks: tuple[SuiteTask, ...]
    """In the order of the report."""
    description: str = ""
    """What it is for, in a sentence."""
    limit: int | None = None
    """Questions asked of each task that has no limit of its own; None: all."""

    def __post_init__(self) -> None:
        names = [task.task for task in self.tasks]
        if not names:
            raise ValueError("`tasks` must name at least one task; got none.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"`tasks` must have each name once; twice: {', '.join(twice)}.")
        if self.limit is not None:
            check_count("limit", self.limit)

    @staticmethod
    def available() -> tuple[str, ...]:
        """Names of the suites that the package carries."""
        files = SUITES.iterdir()
        return tuple(sorted(f.name.removesuffix(".yaml") for f in files if _is_yaml(f.name)))

    @classmethod
    def load(cls, name: str | Path) -> Suite:
        """Reads a suite.

        Args:
            name: one of `available()`, or a path that ends in .yaml.

        Raises:
            ValueError: an unknown suite, key or kind; says which.
            FileNotFoundError: no such file.
        """
        if _is_yaml(str(name)):
            return cls.read(Path(name).stem, Path(name).read_text("utf-8"), str(name))
        _refuse_unknown("suite", str(name), cls.available())
        text = SUITES.joinpath(f"{name}.yaml").read_text("utf-8")
        return cls.read(str(name), text, f"{name}.yaml")

    @classmethod
    def read(cls, name: str, text: str, where: str) -> Suite:
        """Makes a suite of YAML text; errors begin with `where`."""
        try:
            raw = yaml.safe_load(text)
            if not isinstance(raw, dict) or not isinstance(raw.get("tasks"), list):
                raise ValueError("a suite must be a mapping with a list of `tasks`.")
            tasks = tuple(_build(SuiteTask, task) for task in raw.pop("tasks"))
            return _build(cls, {"name": name, **raw, "tasks": tasks})
        except (ValueError, yaml.YAMLError) as err:
            raise ValueError(f"{where}: {err}") from err

    def with_limit(self, limit: int | None) -> Suite:
        """The same tasks with another limit for all of them; None changes nothing."""
        if limit is None:
            return self
        tasks = tuple(dataclasses.replace(task, limit=None) for task in self.tasks)
        return dataclasses.replace(self, tasks=tasks, limit=limit)

    def only(self, names: Collection[str]) -> Suite:
        """Some of the tasks, in the suite's order.

        Raises:
            ValueError: a name that the suite has not, or a text instead of several.
        """
        if isinstance(names, str):
            raise ValueError(f"`names` must be a list of names; got {names!r}. Write [{names!r}].")
        for name in names:
            _refuse_unknown("names", name, [task.task for task in self.tasks])
        return dataclasses.replace(
            self, tasks=tuple(task for task in self.tasks if task.task in names)
        )


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _build(cls: type[Any], settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        raise ValueError(f"each of `tasks` must be a mapping; got {settings!r}.")
    known = [field.name for field in dataclasses.fields(cls)]
    for key in settings:
        _refuse_unknown("suite", str(key), known)
    required = {
        field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING
    }
    if missing := sorted(required - set(settings)):
        raise ValueError(f"`{missing[0]}` must be given; got {sorted(settings)}.")
    return cls(**settings)


def _refuse_unknown(argument: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        mend = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(known)}."
        raise ValueError(f"`{argument}` has no {name!r}. {mend}")
