"""Domains and targets of rows that a trainer has prepared, and the losses that a run is judged by.

In: an SFTTrainer that was given one dataset of all domains, and one evaluation set for each target.
Out: what it made of them, as a recipe's `Sources`; the mean loss of rows, read by the trainer's own
collator. So whatever form of instructions TRL reads, training and measuring have the same loss.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import datasets
import numpy as np
import torch
from instructions import DOMAIN, Instructions
from run_report import result
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from tikmix_hf import Domain, Domains, InterleavedDomainDataset
from tikmix_hf.collate import IGNORED
from tikmix_hf.signals.losses import mean_losses
from tikmix_hf.sources import Sources
from tikmix_hf.updates.heldout import Portion, in_batches


def read_prepared(trainer: SFTTrainer, text: Instructions, *, heldout: float) -> Sources:
    """Takes a trainer's rows apart again.

    Args:
        trainer: its rows carry the name of their domain; of each target, every second row is to be
            measured and the rest to be reported on.
        text: what the trainer was given.
        heldout: share of each domain's rows that is kept back for measuring.

    Raises:
        ValueError: a domain that no row is left of, or that is too small to keep a row back.
    """
    prepared, evals = trainer.train_dataset, trainer.eval_dataset
    assert isinstance(prepared, datasets.Dataset)
    assert isinstance(evals, dict)
    assert isinstance(trainer.processing_class, PreTrainedTokenizerBase)
    names_N = np.array(prepared[DOMAIN])
    rows = {
        name: _tokens(prepared).select(np.flatnonzero(names_N == name)) for name in text.domains
    }
    tokens = {name: _tokens(rows) for name, rows in evals.items()}
    for kind, parts in (("domain", rows), ("target", tokens)):
        for name, part in parts.items():
            _check_losses(f"`{kind}` {name}", part, trainer.args)
    domains = Domains.from_datasets(rows, heldout=heldout, seed=trainer.args.seed)
    measured, reported = (
        {name: rows.select(range(first, len(rows), 2)) for name, rows in tokens.items()}
        for first in (0, 1)
    )
    return Sources(
        Domains(dataclasses.replace(own, description=_in_the_loss(own)) for own in domains),
        measured,
        reported,
        trainer.processing_class,
    )


def _check_losses(what: str, rows: datasets.Dataset, args: Any) -> None:
    """Refuses a part of which fewer than two rows have a loss; TRL drops those that have none."""
    with_loss = (row for row in rows["labels"] if any(label != IGNORED for label in row))
    if len(list(itertools.islice(with_loss, 2))) < 2:
        raise ValueError(
            f"{what} must have 2 rows or more that have a token with a loss within `max_length` "
            f"({args.max_length} tokens). Raise it, or give shorter prompts."
        )


def _tokens(prepared: Any) -> datasets.Dataset:
    """Rows without their text."""
    return prepared.select_columns(["input_ids", "labels"])


def _in_the_loss(domain: Domain) -> str:
    """Says how many tokens have a label: a domain's share is one of all of them."""
    labels = np.concatenate([np.array(row) for row in domain.train["labels"]])
    return (
        f"{domain.num_rows:,} rows of {domain.mean_tokens_per_row:.0f} tokens, "
        f"{np.mean(labels != IGNORED):.0%} of which have a loss"
    )


def judge(
    trainer: SFTTrainer, data: Sources, dataset: InterleavedDomainDataset, seconds: float
) -> dict[str, Any]:
    """What `metrics.json` says of a run that has ended; `seconds` is what training took.

    Losses are of the rows that nothing was measured on: means over the tokens that have labels, in
    nats per token. Every rank reads its share and gets the same numbers.
    """
    batches = in_batches(
        data.evals,
        Portion(0, max(map(len, data.evals.values()))),
        most_rows=trainer.args.per_device_eval_batch_size,
        least_batches=1,
        collate=trainer.data_collator,
        seed=0,
    )
    assert isinstance(trainer.model, torch.nn.Module)
    means = mean_losses(trainer.model, batches).means.tolist()
    losses = dict(zip(data.evals, means, strict=True))
    return result(trainer, dataset, losses, seconds=seconds)
