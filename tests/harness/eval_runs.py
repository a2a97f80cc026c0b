"""Short runs of the stock Trainer with an EvalCallback, shared by its tests."""

from __future__ import annotations

import benchmarks
from tiny import make_arguments, make_dataset, make_targets, make_trainer

from tikmix_hf import TikMixCallback
from tikmix_hf.files import read_records
from tikmix_hf.harness import EvalCallback, Harness, Suite
from tikmix_hf.harness.evaluations import EVALUATIONS
from tikmix_hf.updates.measurement import Measurement

ARC = Suite(name="arc_only", tasks=(benchmarks.ARC,))
BATCH = 4


def make_callback(data_dir, suite=ARC, **options) -> EvalCallback:
    harness = Harness(suite, data_dir=data_dir, progress=options.pop("progress", False))
    return EvalCallback(harness, tokenizer=benchmarks.make_tokenizer(), **options)


def make_updates(dataset, **options) -> TikMixCallback:
    settings = {"targets": make_targets(), "every_steps": 2, "num_rows": 8, "noise_guard": 0.0}
    measurement = Measurement(num_rounds=2)
    return TikMixCallback(
        dataset, measurement=measurement, progress=False, **{**settings, **options}
    )


def train(folder, callbacks, *, dataset=None, model=None, resume=None, **options):
    options = {"max_steps": 6, "train_sampling_strategy": "sequential", **options}
    dataset = dataset or make_dataset()
    arguments = make_arguments(folder, **options)
    trainer = make_trainer(dataset, None, arguments, model, callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder) -> list[dict]:
    return list(read_records(folder / EVALUATIONS))
