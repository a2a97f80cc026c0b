"""Reporters: a callback's numbers and images in the trackers of `report_to`.

The Trainer calls trackers before user callbacks and hands callbacks no Trainer, so what a callback
adds to a log comes too late for them. We therefore write to the same places ourselves, from rank 0
(`trackers.py`): beside the Trainer's event file of TensorBoard, into the open run of W&B and of
trackio. Of other trackers a warning says where the numbers are. A tracker that fails is named in
one warning, and neither training nor the other trackers stop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import (
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
    get_reporting_integration_callbacks,
    rewrite_logs,
)

from tikmix_hf.trackers import Images, TensorBoard, Tracker, Trackio, Wandb

logger = logging.getLogger(__name__)


class Reporters:
    """The trackers that `args.report_to` names, made on first use.

    Args:
        what: the numbers are, for the warnings.
        where: they are written in any case.
    """

    def __init__(
        self, what: str = "the mixture and influence", where: str = "influence.jsonl"
    ) -> None:
        self._what, self._where = what, where
        self._trackers: dict[str, Tracker] | None = None
        self._failed: set[str] = set()

    def has_trackers(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether anybody on this rank takes numbers and images."""
        return bool(self._opened(args, state))

    def show(
        self,
        scalars: Mapping[str, float],
        images: Images,
        args: TrainingArguments,
        state: TrainerState,
    ) -> None:
        """Gives numbers and images to all trackers, at the state's step; every rank may call it.

        Names follow the trackers' own rule: "eval/" stays, all else is put below "train/".
        """
        scalars, images, step = _rename(scalars), _rename(images), state.global_step
        for name, tracker in self._opened(args, state).items():
            self._try(name, lambda to=tracker: to.log(scalars, images, step))

    def close(self) -> None:
        """Closes TensorBoard's file; other runs are the Trainer's to close."""
        for name, tracker in (self._trackers or {}).items():
            self._try(name, tracker.close)
        self._trackers, self._failed = None, set()

    def _opened(self, args: TrainingArguments, state: TrainerState) -> dict[str, Tracker]:
        if self._trackers is None:
            self._trackers = {}
            for name, make in self._makers(args).items() if state.is_world_process_zero else ():
                self._try(name, lambda name=name, make=make: self._add(name, make()))
        return self._trackers

    def _add(self, name: str, tracker: Tracker) -> None:
        assert self._trackers is not None
        self._trackers[name] = tracker

    def _makers(self, args: TrainingArguments) -> dict[str, Callable[[], Tracker]]:
        known: dict[type[TrainerCallback], tuple[str, Callable[[], Tracker]]] = {
            TensorBoardCallback: ("TensorBoard", lambda: TensorBoard(_event_folder(args))),
            WandbCallback: ("W&B", Wandb),
            TrackioCallback: ("trackio", Trackio),
        }
        asked_for: list[Any] = list(get_reporting_integration_callbacks(args.report_to))
        if others := sorted(kind.__name__ for kind in asked_for if kind not in known):
            logger.warning(
                "%s cannot be given %s; they are in %s.", others, self._what, self._where
            )
        return dict(known[kind] for kind in asked_for if kind in known)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Does it; a failure is told once for each tracker."""
        try:
            action()
        # Networks, disks, servers, anybody's code: what may be raised has no bound, and none of it
        # is worth a training run.
        except Exception as err:
            if name not in self._failed:
                self._failed.add(name)
                reason = " ".join(f"{type(err).__name__}: {err}".split())
                logger.warning(
                    "%s could not be given %s (%s); they are in %s. Training goes on, and this is "
                    "said once.",
                    *(name, self._what, reason, self._where),
                )


def _rename(named: Mapping[str, Any]) -> dict[str, Any]:
    """Names as the trackers' own callbacks write them."""
    return rewrite_logs(
        {f"eval_{k[5:]}" if k.startswith("eval/") else k: value for k, value in named.items()}
    )


def _event_folder(args: TrainingArguments) -> Path:
    """Where the Trainer's TensorBoard writes."""
    if chosen := TensorBoardCallback().logging_dir:  # from the environment
        return Path(chosen)
    # The Trainer's own opened its folder when training began; its name holds that second.
    runs = Path(str(args.output_dir), "runs")
    folders = [path for path in runs.glob("*") if path.is_dir()]
    return max(folders, key=lambda path: path.stat().st_mtime, default=runs / "tikmix")
