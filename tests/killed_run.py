"""A run that is killed (SIGKILL) at a step, or inside a save: `python killed_run.py '{...}'`."""

from __future__ import annotations

import json
import os
import signal
import sys

from tiny import (
    RecordingLlama,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
)
from transformers import TrainerCallback

from tikmix_hf import TikMixCallback
from tikmix_hf.updates.measurement import Measurement


class _Kill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class _DiesWhileSaving(RecordingLlama):
    num_saves = 0

    def save_pretrained(self, *args, **kwargs):
        super().save_pretrained(*args, **kwargs)
        self.num_saves += 1
        if self.num_saves == 2:  # weights are written, the rest of the checkpoint is not
            os.kill(os.getpid(), signal.SIGKILL)


def run_parts(options: dict, folder: str, *, model=None, extra=()):
    """One run with a save every 8 steps and an update every 4."""
    dataset = make_dataset(num_samples=options.pop("num_samples", 96), seed=options.pop("seed", 0))
    callback = TikMixCallback(
        dataset,
        targets=make_targets(),
        every_steps=4,
        num_rows=8,
        measurement=Measurement(num_rounds=2),
        noise_guard=0.0,  # on so little text it would keep the mixture
        progress=False,
    )
    arguments = make_arguments(
        folder,
        **{"save_strategy": "steps", "save_steps": 8, "gradient_accumulation_steps": 1, **options},
    )
    return dataset, callback, make_trainer(dataset, callback, arguments, model, extra)


def main() -> None:
    options = json.loads(sys.argv[1])
    folder, step = options.pop("folder"), options.pop("kill_at")
    model = make_model(dropout=0.1)
    if step == "save":
        dying = _DiesWhileSaving(model.config)
        dying.load_state_dict(model.state_dict())
        model, step = dying, 10**9
    run_parts(options, folder, model=model, extra=[_Kill(step)])[2].train()


if __name__ == "__main__":
    main()
