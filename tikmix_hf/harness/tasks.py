"""lm-eval's tasks, on rows of ours where there are any.

In: a `SuiteTask` and perhaps a data folder. Out: lm-eval task objects, whose prompts, choices and
metrics are lm-eval's own to the letter; only where the rows come from differs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import lm_eval
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import OfflineModeIsEnabled
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from tikmix_hf.harness.data import Benchmark, hub_error, read_folder
from tikmix_hf.harness.questions import FEWSHOT_SEED, CheckedTask, rows_named
from tikmix_hf.harness.suite import SuiteTask

_NOT_TASK_CONFIG = ("tag", "group", "task_list")


class Prepared(NamedTuple):
    """A suite's task, ready to be asked."""

    tasks: dict[str, ConfigurableTask]
    """By lm-eval's names: one, or one for each subset."""
    files: Mapping[str, str]
    """Split to file, if the rows came from a folder."""


class GivenRowsTask(CheckedTask):
    """A task of lm-eval's that reads rows it is given instead of downloading them."""

    def __init__(self, config: dict[str, Any], splits: Mapping[str, datasets.Dataset]) -> None:
        self._splits = splits
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Takes the rows."""
        self.dataset = self._splits


def prepare(task: SuiteTask, data_dir: str | Path | None) -> Prepared:
    """Makes lm-eval's tasks for one of a suite's.

    Args:
        task: of kind "benchmark".
        data_dir: folder of `data.read_folder`; None asks the Hub or its cache.

    Raises:
        FileNotFoundError: the rows are nowhere; says what to put where.
        ValueError: the task is unknown to lm-eval, or its rows do not fit it.
    """
    folder = task.folder or task.task
    rows = None if data_dir is None else read_folder(data_dir, folder)
    made = {}
    for name, config in configs(task):
        own = rows
        if rows is not None and task.subset_column is not None:
            own = rows.subset(task.subset_column, config["dataset_name"])
        made[name] = _make(task, {**config}, own, folder)
    return Prepared(made, {} if rows is None else rows.files)


def configs(task: SuiteTask) -> Iterator[tuple[str, dict[str, Any]]]:
    """lm-eval's definitions of a task: name and settings, one or one for each subset."""
    if task.lm_eval is None:
        index = _all_tasks()
        if task.task not in index:
            raise ValueError(
                f"`task` must be one of lm-eval's; got {task.task!r}. Give the file that defines "
                "it as `lm_eval`, or the name that `lm-eval ls tasks` prints."
            )
        paths = [Path(str(index[task.task].yaml_path))]
    else:
        root = Path(lm_eval.__file__).parent / "tasks"
        path = root / task.lm_eval
        if not path.exists():
            raise ValueError(
                f"`lm_eval` must be below lm-eval's tasks; got {task.lm_eval!r}. Choose a file or "
                f"a folder of {root}, such as arc/arc_easy.yaml."
            )
        # Files that begin with an underscore are groups and templates.
        paths = sorted(path.glob("[!_]*.yaml")) if path.is_dir() else [path]
    for path in paths:
        config = load_yaml(path)
        for key in _NOT_TASK_CONFIG:
            config.pop(key, None)
        yield config["task"], config


def _make(
    task: SuiteTask, config: dict[str, Any], rows: Benchmark | None, folder: str
) -> ConfigurableTask:
    config["num_fewshot"] = task.num_fewshot
    if task.fewshot_split is not None:
        config["fewshot_split"] = task.fewshot_split
    _keep_asked_question_out(config)
    if rows is None:
        try:
            made = CheckedTask(config=config)
        except (ConnectionError, OfflineModeIsEnabled, DatasetNotFoundError) as err:
            raise hub_error(err, config, folder) from err
    else:
        kept = _without_missing_splits(config, rows)
        with rows_named(config["task"], rows.files):
            made = GivenRowsTask(kept, rows.splits)
    made.set_fewshot_seed(seed=FEWSHOT_SEED)
    return made


def scored_split(config: Mapping[str, Any]) -> str:
    """The split whose questions lm-eval asks: test, or validation where there is no test.

    Raises:
        ValueError: the task has neither.
    """
    split = config.get("test_split") or config.get("validation_split")
    if split is None:
        raise ValueError(
            f"{config['task']} must have a test or validation split; it has neither. Leave it out "
            "of the suite."
        )
    return split


def _keep_asked_question_out(config: dict[str, Any]) -> None:
    """Keeps a question from being among its own solved examples.

    lm-eval sees to that only where it knows the scored split as `test_split` and as
    `fewshot_split`.
    """
    scored = scored_split(config)
    others = ("fewshot_split", "fewshot_config", "training_split", "validation_split")
    if config["num_fewshot"] and not any(config.get(key) for key in others):
        config["fewshot_split"] = scored
    if config.get("fewshot_split") == scored:
        config["test_split"] = scored


def _without_missing_splits(config: dict[str, Any], rows: Benchmark) -> dict[str, Any]:
    """Leaves out the splits that a folder does not have, if nothing depends on them."""
    kept = dict(config)
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if kept.get(key) is not None and kept[key] not in rows.splits:
            kept[key] = None
    scored = scored_split(config)
    if scored not in rows.splits:
        raise FileNotFoundError(
            f"{config['task']} is scored on the split {scored}; the data folder has only "
            f"{', '.join(rows.files.values())}. Add {scored}.jsonl beside them."
        )
    if config["num_fewshot"]:
        wanted = config.get("fewshot_split") or config.get("training_split") or scored
        if wanted not in rows.splits:
            raise FileNotFoundError(
                f"{config['task']} takes its {config['num_fewshot']} solved examples from the "
                f"split {wanted}, which the data folder does not have. Add {wanted}.jsonl, or set "
                "`num_fewshot: 0` or another `fewshot_split` in the suite."
            )
    return kept


@functools.cache
def _all_tasks() -> dict[str, Any]:
    """lm-eval's index of its tasks by name; reading 12,000 files takes seconds."""
    return TaskManager().task_index
