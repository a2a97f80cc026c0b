"""Training itself, the same for all runs, checkpoints and proxies of an arena.

In: a dataset with its mixture, the settings. Out: a trained Llama, and what that cost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arena_config import Arena
from arena_data import ArenaText
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tikmix_hf import InterleavedDomainDataset, PackedCollator

FLOPS_PER_PARAMETER = 6
"""Of a token's forward and backward pass (Kaplan et al. 2020, arXiv 2001.08361, table 1)."""


def make_model(arena: Arena, text: ArenaText, seed: int, changes: Any = None) -> LlamaForCausalLM:
    """A Llama of the arena's size, the same for the same seed."""
    set_seed(seed)
    ids = dict.fromkeys(("eos_token_id", "pad_token_id"), text.tokenizer.eos_token_id)
    settings = {**arena.model, **(changes or {})}
    config = LlamaConfig(vocab_size=len(text.tokenizer), bos_token_id=None, **ids, **settings)
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    dataset: InterleavedDomainDataset,
    arena: Arena,
    *,
    learning_rate: float | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Trains on the whole dataset once; returns the cost."""
    settings, on_cpu = arena.training, arena.training.device == "cpu"
    arguments = TrainingArguments(
        "unused",
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch_rows,
        learning_rate=learning_rate or settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=dataset.seed,
    )
    started = time.perf_counter()
    Trainer(
        model,
        arguments,
        train_dataset=dataset,
        data_collator=PackedCollator(),
        callbacks=list(callbacks),
    ).train()
    num_tokens = int(dataset.tokens_between(0, dataset.num_samples).sum())
    return {
        "seconds": time.perf_counter() - started,
        "tokens": num_tokens,
        "num_parameters": model.num_parameters(),
        "flops": float(FLOPS_PER_PARAMETER * model.num_parameters() * num_tokens),
    }


def weights_path(folder: Path, name: str) -> Path:
    """Where a job keeps the weights that others need."""
    return folder / f"{name}.pt"
