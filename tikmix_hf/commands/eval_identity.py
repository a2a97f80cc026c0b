"""What makes a result of `tikmix eval` that result: the model, the questions, the seed.

In: a checkpoint's model, a suite, a data folder. Out: what the result carries of them, as plain
JSON types, and what of it differs from an earlier result's, which is then not replaced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tikmix_hf.harness import Suite
from tikmix_hf.harness.data import ENDINGS

SAME = ("model", "suite", "limit", "asked", "settings", "data", "seed")
"""What must be the same for a result to be replaced by a later one."""
_BY_TASK = ("settings", "data")
# Transformers writes them by itself; they say nothing of the model.
_NOT_OF_THE_MODEL = ("_name_or_path", "transformers_version")
# Of a suite's task: what averages it is in, and what it is as a target.
_NOT_OF_THE_QUESTIONS = ("task", "group", "answer")


def of_model(model: PreTrainedModel) -> dict[str, Any]:
    """Hashes of settings and weights, and what people ask first."""
    return {
        "config_sha256": _config_hash(model.config.to_diff_dict()),
        "weights_sha256": weights_hash(model),
        "num_parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _config_hash(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def weights_hash(model: PreTrainedModel) -> str:
    """Tells apart two checkpoints of a run, whose settings are the same."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weights.shape)} {weights.dtype}".encode())
        flat = weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()


def of_questions(suite: Suite, data_dir: str | Path | None) -> dict[str, Any]:
    """Which questions are asked, and how.

    Args:
        suite: with the limit in force.
        data_dir: folder of the rows; None: the Hub's.

    Returns:
        `suite`, `limit`, `asked` (names), `settings` (by task: shots, limit, metric ...) and `data`
        (by task: SHA-256 of each file of rows; None: the Hub's).
    """
    settings = {
        task.task: {
            key: value
            for key, value in dataclasses.asdict(task).items()
            if key not in _NOT_OF_THE_QUESTIONS
        }
        | {"limit": task.limit or suite.limit}
        for task in suite.tasks
    }
    data = {
        task.task: None if data_dir is None else _files(Path(data_dir) / (task.folder or task.task))
        for task in suite.tasks
    }
    return {
        "suite": suite.name,
        "limit": suite.limit,
        "asked": [task.task for task in suite.tasks],
        "settings": settings,
        "data": data,
    }


def _files(folder: Path) -> dict[str, str]:
    """None of them where there is no folder: the harness says so."""
    found = sorted(path for path in folder.glob("*") if path.name.endswith(ENDINGS))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two results do not have in common, for people; tasks are named where they are asked.

    Example:
        >>> differing({"data": {"a": {}, "b": None}}, {"data": {"a": {}, "b": {}}})
        ['data (b)']
    """
    found = []
    for key in SAME:
        one, other = old.get(key), new.get(key)
        if one == other:
            continue
        if key not in _BY_TASK or one is None or other is None:
            found.append(key)
        elif tasks := [task for task in one if task in other and one[task] != other[task]]:
            found.append(f"{key} ({', '.join(tasks)})")
    return found
