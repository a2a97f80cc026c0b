"""Reporters: the callback's numbers in the TensorBoard and W&B of `report_to`.

The Trainer calls trackers before user callbacks and hands callbacks no Trainer, so what a callback
adds to a log comes too late for them. We therefore make the trackers' callbacks a second time, from
the same `report_to`, and give them our numbers. TensorBoard's writes to the folder of the Trainer's
own; W&B's joins the run that is open. Other trackers would open a second run: for them a warning
says where the numbers are.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import (
    TensorBoardCallback,
    WandbCallback,
    get_reporting_integration_callbacks,
)

logger = logging.getLogger(__name__)


class Reporters:
    """The trackers that `args.report_to` names, made on first use.

    Args:
        what: the numbers are, for the warning.
        where: they are written in any case.
    """

    def __init__(
        self, what: str = "the mixture and influence", where: str = "influence.jsonl"
    ) -> None:
        self._what, self._where = what, where
        self._callbacks: list[TrainerCallback] | None = None

    def log(
        self,
        scalars: dict[str, float],
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any,
    ) -> None:
        """Gives numbers to all trackers, at the state's step; call it on every rank."""
        if self._callbacks is None:
            self._callbacks = [_make(kind, args) for kind in self._kinds(args)]
        # The trackers' own rule: "eval_" becomes "eval/", all else is put below "train/".
        logs = {
            f"eval_{name[5:]}" if name.startswith("eval/") else name: value
            for name, value in scalars.items()
        }
        for callback in self._callbacks:
            callback.on_log(args, state, control, logs=dict(logs), model=model)

    def close(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Closes TensorBoard's file; other runs are the Trainer's to close."""
        for callback in self._callbacks or []:
            if isinstance(callback, TensorBoardCallback):
                callback.on_train_end(args, state, control)
        self._callbacks = None

    def _kinds(self, args: TrainingArguments) -> list[type[TrainerCallback]]:
        asked_for: list[Any] = list(get_reporting_integration_callbacks(args.report_to))
        known: list[Any] = [k for k in asked_for if k in (TensorBoardCallback, WandbCallback)]
        if others := sorted(kind.__name__ for kind in asked_for if kind not in known):
            logger.warning(
                "%s cannot be given %s; they are in %s.", others, self._what, self._where
            )
        return known


def _make(kind: type[TrainerCallback], args: TrainingArguments) -> TrainerCallback:
    callback = kind()
    if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
        # The Trainer's own opened its folder when training began; its name holds that second.
        folders = [path for path in Path(str(args.output_dir), "runs").glob("*") if path.is_dir()]
        if folders:
            callback.logging_dir = str(max(folders, key=lambda path: path.stat().st_mtime))
    return callback
