"""One run on every rank of `torchrun`; each rank writes down what it read: `two_ranks.py
FOLDER`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from tiny import make_arguments, make_dataset, make_model, make_targets, make_trainer
from torch import distributed as dist

from tikmix_hf import TikMixCallback
from tikmix_hf.mixers.base import Mixer, State
from tikmix_hf.updates.measurement import Measurement


def run(folder: Path, batch: int, *, observe: bool = False) -> dict:
    """Trains with updates; a dropout-free model, so that ranks may share it out as they like."""
    dataset = make_dataset(num_samples=320)
    callback = TikMixCallback(
        dataset,
        targets=make_targets(),
        at_steps=[1, 5, 9, 13, 17],
        preconditioner="sign",  # of which float32 leaves more than of an inverse matrix
        num_rows=8,
        measurement=Measurement(batch_size=2),
        noise_guard=0.0,
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
        "audit": [record.audit and record.audit.to_dict() for record in callback.updates],
        "weights": [value.sum().item() for value in trainer.model.parameters()],
    }


@dataclass(frozen=True, kw_only=True)
class _OwnOpinion(Mixer):
    """Every rank would choose the domain of its own number; only rank 0 is asked."""

    def init(self, prior):
        return State()

    def propose(self, state, signals):
        return np.eye(4)[dist.get_rank()], State((f"rank {dist.get_rank()}",))


def run_own_opinion(folder: Path) -> dict:
    """A short run whose mixer's answer depends on the rank."""
    dataset = make_dataset(num_samples=64)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=_OwnOpinion(), at_steps=[2], progress=False
    )
    make_trainer(dataset, callback, make_arguments(folder), make_model()).train()
    return {
        "opinion": dataset.schedule.segments[-1].mixture.tolist(),
        "notes": callback.updates[0].notes,
    }


@dataclass(frozen=True, kw_only=True)
class _Hears(Mixer):
    """Asks for all that is measured without gradients of held-out text."""

    requires = frozenset({"train_losses", "excess_losses", "probe_losses"})
    heard: ClassVar[list] = []

    def probe_steps(self, num_domains):
        return 1, 2

    def probe_mixtures(self, state, signals):
        return 0.6 * np.eye(4)[:2] + 0.1

    def init(self, prior):
        self.heard.clear()
        return State()

    def propose(self, state, signals):
        self.heard.append({name: getattr(signals, name).tolist() for name in self.requires})
        return signals.mixture, state


def run_hearing(folder: Path, batch: int) -> dict:
    """What a mixer is told, which rank 0 alone is asked."""
    dataset = make_dataset(num_samples=160)
    callback = TikMixCallback(
        dataset,
        targets=make_targets(),
        mixer=_Hears(),
        at_steps=[2],
        num_rows=8,
        reference_model=make_model(seed=7),
        progress=False,
    )
    arguments = make_arguments(
        folder, per_device_train_batch_size=batch, gradient_accumulation_steps=2
    )
    make_trainer(dataset, callback, arguments, make_model()).train()
    return {"heard": list(_Hears.heard), "notes": callback.updates[0].notes}


def main() -> None:
    folder = Path(sys.argv[1])
    told = {
        **run(folder / "run", batch=4),
        **run_hearing(folder / "hearing", batch=4),
        **run_own_opinion(folder / "opinion"),
    }
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
