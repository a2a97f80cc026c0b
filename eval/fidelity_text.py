"""The text of the fidelity experiments: the embedded corpus, with its rows dealt out once.

In: nothing. Out: the domains to train on; for each domain the rows that influence is measured on;
for each target the rows that a real run is judged by, and others that influence is measured on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from tikmix_hf import Domains, corpora
from tikmix_hf.order.permutation import RowPermutation, derive_key

# J targets, K domains, N rows, T tokens of a row.

JUDGED_ROWS = 32
"""Rows of each target that one repetition of a run is judged by."""
MAX_REPETITIONS = 2
BATCH_ROWS = 8

Batches = list[dict[str, Tensor]]


class Text(NamedTuple):
    """Rows by name, (N, T) int64 each, in a fixed random order."""

    domains: Domains
    """To train on."""
    domain_pools: dict[str, Tensor]
    """To measure on: the held-out rows, and after the last of them rows of the training split."""
    target_pools: dict[str, Tensor]
    """To measure on."""
    judged: dict[str, Tensor]
    """JUDGED_ROWS per repetition to judge real runs by; none is in `target_pools`."""

    def fingerprint(self) -> str:
        """Tells texts apart: of all that is measured on, and so of the tokenizer, too."""
        digest = hashlib.blake2b(digest_size=16)
        for name, rows_NT in {**self.domain_pools, **self.target_pools}.items():
            digest.update(name.encode() + rows_NT.numpy().tobytes())
        return digest.hexdigest()


def load() -> Text:
    """Reads the embedded corpus and deals out its rows, the same at every call."""
    corpus = corpora.load()
    targets = {name: _shuffled(rows, name) for name, rows in corpus.targets.items()}
    num_judged = JUDGED_ROWS * MAX_REPETITIONS
    return Text(
        domains=corpus.domains,
        domain_pools={
            domain.name: torch.cat(
                [_shuffled(domain.heldout, domain.name), _shuffled(domain.train, domain.name)]
            )
            for domain in corpus.domains
        },
        target_pools={name: rows_NT[num_judged:] for name, rows_NT in targets.items()},
        judged={name: rows_NT[:num_judged] for name, rows_NT in targets.items()},
    )


def batches(rows_NT: Tensor) -> Batches:
    """Collated batches of BATCH_ROWS rows, the last one perhaps shorter."""
    return [{"input_ids": part, "labels": part} for part in rows_NT.split(BATCH_ROWS)]


def pools_of_rounds(
    pools: dict[str, Tensor], first_row: int, rows_by_round: Sequence[int]
) -> list[dict[str, Batches]]:
    """Fresh rows for each round, from `first_row` of every pool on.

    Raises:
        ValueError: if a pool has too few rows.
    """
    stops = first_row + np.cumsum(rows_by_round)
    for name, rows_NT in pools.items():
        if len(rows_NT) < stops[-1]:
            raise ValueError(
                f"`rows_by_round` asks for rows {first_row} to {stops[-1]} of {name!r}, which has "
                f"{len(rows_NT)}; ask for fewer."
            )
    return [
        {name: batches(rows_NT[stop - num : stop]) for name, rows_NT in pools.items()}
        for stop, num in zip(stops.tolist(), rows_by_round, strict=True)
    ]


def _shuffled(rows: Dataset, name: str) -> Tensor:
    positions_N = np.arange(len(rows))
    order = RowPermutation(len(rows), key=derive_key("fidelity", name))
    order_N = order.rows(positions_N, np.zeros_like(positions_N))
    return torch.from_numpy(np.array(rows["input_ids"], np.int64)[order_N])
