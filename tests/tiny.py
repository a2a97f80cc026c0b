"""Small domains, targets and models for tests, and one training run that tells what it read.

Every row carries its own address: token 0 is the domain, tokens 1 and 2 are the row. So what
training read can be told from the batches themselves, whoever made them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from tikmix_hf import Domains, InterleavedDomainDataset, PackedCollator, TikMixCallback

VOCABULARY = 128
LENGTH = 12


def rows(domain: int, num_rows: int, *, lengths: Sequence[int] | None = None) -> Dataset:
    """Rows whose first three tokens are their address; the rest leans to tokens near the domain."""
    rng = np.random.default_rng(domain)
    lengths = lengths or [LENGTH] * num_rows
    text = [
        [
            domain,
            row // 100,
            row % 100,
            *(domain * 7 + rng.integers(0, 30, length - 3)) % VOCABULARY,
        ]
        for row, length in enumerate(lengths)
    ]
    return Dataset.from_dict({"input_ids": [np.array(row, dtype=np.int32) for row in text]})


def make_domains(num_rows: Sequence[int] = (90, 60, 75, 40), **options: Any) -> Domains:
    train = {f"d{k}": rows(k, n) for k, n in enumerate(num_rows)}
    heldout = {f"d{k}": rows(k, 12) for k in range(len(num_rows))}
    return Domains.from_datasets(train, heldout=heldout, **options)


def make_targets() -> dict[str, Dataset]:
    return {"near0": rows(0, 10), "near2": rows(2, 14)}


def make_dataset(num_samples: int = 96, **options: Any) -> InterleavedDomainDataset:
    return InterleavedDomainDataset(
        make_domains(), options.pop("mixture", "uniform"), num_samples=num_samples, **options
    )


class RecordingLlama(LlamaForCausalLM):
    """A Llama that writes down the addresses of the rows it is trained on."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.read: list[list[int]] = []

    def forward(self, input_ids=None, labels=None, attention_mask=None, **kwargs):
        # Named, so that the Trainer's removal of unused columns leaves them.
        if self.training:
            self.read += input_ids[:, :3].tolist()
        return super().forward(
            input_ids=input_ids, labels=labels, attention_mask=attention_mask, **kwargs
        )


def make_model(dropout: float = 0.0, seed: int = 0, **settings: Any) -> RecordingLlama:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=dropout,
        **{"tie_word_embeddings": True, **settings},
    )
    return RecordingLlama(config)


def make_arguments(folder: Path | str, **options: Any) -> TrainingArguments:
    defaults = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1000,
        "remove_unused_columns": False,
    }
    return TrainingArguments(str(folder), **{**defaults, **options})


def make_trainer(
    dataset: InterleavedDomainDataset,
    callback: TikMixCallback | None,
    arguments: TrainingArguments,
    model: RecordingLlama | None = None,
    extra: Sequence[Any] = (),
    **options: Any,
) -> Trainer:
    callbacks = [*([] if callback is None else [callback]), *extra]
    with warnings.catch_warnings():
        # Trainer's own: pinning without an accelerator, tokenizers it was not given.
        warnings.simplefilter("ignore")
        return Trainer(
            model or make_model(),
            arguments,
            train_dataset=dataset,
            data_collator=PackedCollator(),
            callbacks=callbacks,
            **options,
        )


def addresses(dataset: InterleavedDomainDataset, num_samples: int) -> list[list[int]]:
    """What the law says samples 0 ... num_samples - 1 are, in the form the model writes down."""
    domains_N, rows_N = dataset.locate(np.arange(num_samples))
    return [
        [domain, row // 100, row % 100]
        for domain, row in zip(domains_N.tolist(), rows_N.tolist(), strict=True)
    ]


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
