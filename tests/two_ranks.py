"""One run on every rank of `torchrun`; each rank writes down what it read: `two_ranks.py
FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tiny import make_arguments, make_dataset, make_model, make_targets, make_trainer
from torch import distributed as dist

from tikmix_hf import TikMixCallback


def run(folder: Path, batch: int, *, observe: bool = False) -> dict:
    """Trains with updates; a dropout-free model, so that ranks may share it out as they like."""
    dataset = make_dataset(num_samples=320)
    callback = TikMixCallback(
        dataset,
        targets=make_targets(),
        at_steps=[1, 5, 9, 13, 17],
        num_rows=8,
        batch_size=2,
        observe=observe,
        progress=False,
    )
    arguments = make_arguments(
        folder, per_device_train_batch_size=batch, gradient_accumulation_steps=2
    )
    trainer = make_trainer(dataset, callback, arguments, make_model())
    trainer.train()
    return {
        "world_size": arguments.world_size,
        "read": trainer.model.read,
        "starts": [segment.from_sample for segment in dataset.schedule.segments],
        "mixtures": [segment.mixture.tolist() for segment in dataset.schedule.segments],
        "influence": [record.influence.values.tolist() for record in callback.updates],
        "stderr": [record.influence.stderr.tolist() for record in callback.updates],
        "num_tokens": [record.influence.num_tokens for record in callback.updates],
        "realised": [record.realised.tolist() for record in callback.updates],
        "weights": [value.sum().item() for value in trainer.model.parameters()],
    }


def main() -> None:
    folder = Path(sys.argv[1])
    told = run(folder / "run", batch=4)
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
