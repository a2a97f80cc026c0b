"""What training really does: from one checkpoint on, each domain alone and random mixtures.

In: a size, a seed and a number of steps. Out, under a folder of its own: `checkpoint.pt` (model and
AdamW state after so many steps on the uniform mixture), and for each repetition `truth-R.json` with
every target's loss before and after 5, 20 and 80 more steps on each mixture, AdamW going on from
its state. A repetition trains on rows in another order and is judged by other rows.

Whatever is on disk is not computed again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fidelity_text import BATCH_ROWS, JUDGED_ROWS, Text
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from tikmix_hf import Domains, InterleavedDomainDataset
from tikmix_hf.files import write_json

HORIZONS = (0, 5, 20, 80)
"""Steps after the checkpoint at which the targets are judged."""
IN_FORCE = "in force"
NUM_MIXTURES = 12
MAX_SEEDS = 1000
"""Seeds are below it, so that no repetition has the order of rows of another seed."""
LEARNING_RATE, WARMUP_STEPS = 1e-3, 20
SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2},
    "quickstart": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4},
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One checkpoint, and where everything about it is kept."""

    size: str
    """One of SIZES."""
    steps: int
    """Optimizer steps to the checkpoint."""
    seed: int
    """Of the initialisation and of the order of rows."""
    root: Path
    """Folder of all settings."""

    @property
    def folder(self) -> Path:
        """This setting's own."""
        return self.root / f"{self.size}-{self.steps}-seed{self.seed}"


def build(size: str, seed: int) -> tuple[LlamaForCausalLM, torch.optim.AdamW]:
    """A Llama from scratch, and AdamW that has not stepped."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=2048,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        max_position_embeddings=128,
        **SIZES[size],
    )
    model = LlamaForCausalLM(config)
    return model, torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)


def checkpoint(setting: Setting, text: Text) -> tuple[LlamaForCausalLM, torch.optim.AdamW]:
    """The model and optimizer at the checkpoint, read or trained.

    Raises:
        ValueError: the checkpoint was trained on other text.
    """
    model, optimizer = build(setting.size, setting.seed)
    path = setting.folder / "checkpoint.pt"
    if not path.exists():
        rows = dataset(text.domains, None, num_steps=setting.steps, seed=setting.seed)
        for step in tqdm(range(setting.steps), desc=setting.folder.name, leave=False):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS)
            train_step(model, optimizer, rows, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"text": text.fingerprint()}, unfinished)
        unfinished.rename(path)
    state = torch.load(path, weights_only=True)
    if state["text"] != text.fingerprint():
        raise ValueError(
            f"{path} was trained on other text: the embedded corpus is what an installation "
            "carries. Pass another --folder, or run in the environment that trained it."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return model, optimizer


def mixtures(domains: Domains) -> dict[str, np.ndarray]:
    """Every run's name and its (K,) mixture: the one in force, domains alone, random ones."""
    num_domains = len(domains)
    runs = {IN_FORCE: domains.resolve("uniform")}
    for name, alone_K in zip(domains.names, np.eye(num_domains), strict=True):
        runs[f"only {name}"] = alone_K
    draws = np.random.default_rng(0).dirichlet(np.ones(num_domains), NUM_MIXTURES)
    return runs | {f"mixture {i}": draw_K for i, draw_K in enumerate(draws)}


def measure_truth(setting: Setting, text: Text, repetition: int) -> dict[str, Any]:
    """Trains every run that is not on disk; returns the record of all.

    Returns:
        `horizons`, `targets`, and `runs`: name to `mixture` (K,) and `losses`, one (J,) list per
        horizon, in nats per token.
    """
    path = setting.folder / f"truth-{repetition}.json"
    record: dict[str, Any] = {"horizons": HORIZONS, "targets": list(text.judged), "runs": {}}
    if path.exists():
        record = json.loads(path.read_text("utf-8"))
    first = repetition * JUDGED_ROWS
    judged = {name: rows[first : first + JUDGED_ROWS] for name, rows in text.judged.items()}
    missing = {n: w for n, w in mixtures(text.domains).items() if n not in record["runs"]}
    before = judge(checkpoint(setting, text)[0], judged) if missing else []
    for name, mixture_K in tqdm(missing.items(), desc=path.parent.name, disable=not missing):
        model, optimizer = checkpoint(setting, text)
        # Another order of rows than before the checkpoint, and the same for every mixture.
        order = MAX_SEEDS * (1 + repetition) + setting.seed
        rows = dataset(text.domains, mixture_K, num_steps=HORIZONS[-1], seed=order)
        losses = [before]
        for step in range(HORIZONS[-1]):
            train_step(model, optimizer, rows, step)
            if step + 1 in HORIZONS:
                losses.append(judge(model, judged))
        record["runs"][name] = {"mixture": mixture_K.tolist(), "losses": losses}
        write_json(path, record)
    return record


def dataset(
    domains: Domains, mixture_K: np.ndarray | None, *, num_steps: int, seed: int
) -> InterleavedDomainDataset:
    """Rows to train on; the uniform mixture if none is given."""
    mixture = "uniform" if mixture_K is None else mixture_K
    return InterleavedDomainDataset(domains, mixture, num_samples=num_steps * BATCH_ROWS, seed=seed)


def train_step(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    rows: InterleavedDomainDataset,
    step: int,
) -> None:
    """One optimizer step on the rows of that step."""
    samples = rows.__getitems__(range(step * BATCH_ROWS, (step + 1) * BATCH_ROWS))
    batch_BT = torch.stack([sample["input_ids"] for sample in samples]).long()
    model(input_ids=batch_BT, labels=batch_BT).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def judge(model: LlamaForCausalLM, judged: dict[str, Tensor]) -> list[float]:
    """(J,) mean loss of each target in nats per token."""
    losses = []
    for rows_NT in judged.values():
        parts = rows_NT.split(BATCH_ROWS)
        sums = [float(model(input_ids=part, labels=part).loss) * len(part) for part in parts]
        losses.append(sum(sums) / len(rows_NT))
    return losses
