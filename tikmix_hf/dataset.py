"""InterleavedDomainDataset: sample ordinal -> (domain, row).

In: domains, a mixture or a whole schedule, a seed. Out: a map-style dataset that is read in order.
Sample k of the run gets its domain and its row from (seed, schedule, k) alone, by random access:
domains by quota (`order/quota.py`), rows by one keyed permutation per domain and epoch
(`order/permutation.py`). So ranks, workers and prefetching agree without talking, resuming is an
integer, and a change of mixture takes effect at a stated sample.

Shares are shares of tokens: domains whose rows are longer get proportionally fewer samples. The
length of the dataset is one Trainer epoch; further epochs continue the ordinals, they repeat
nothing until a domain runs out of rows.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset, get_worker_info

from tikmix_hf.arrow_rows import ArrowRows
from tikmix_hf.domains import Domains
from tikmix_hf.mixture import largest_remainder, normalise
from tikmix_hf.order.blocks import Blocks
from tikmix_hf.order.ledger import Ledger
from tikmix_hf.order.permutation import RowPermutation, derive_key
from tikmix_hf.order.quota import TOTAL
from tikmix_hf.ready_batch import as_batch, as_rows
from tikmix_hf.schedule import MixtureSchedule, Run, Segment, cards_of, counted, provenance

# Shape letters: K domains, N samples.


class InterleavedDomainDataset(Dataset[dict[str, torch.Tensor]]):
    """Domains interleaved by a mixture that may change while training runs.

    Args:
        domains: the K domains.
        mixture: "natural" (the domains' prior), "uniform", shares of tokens by name, K shares in
            order, or a `MixtureSchedule` to replay.
        num_samples: length of the dataset: the samples of one Trainer epoch.
        seed: decides the order of the rows.
        max_updates: changes of mixture to make room for.

    Raises:
        ValueError: an unknown domain, shares that are no mixture, a schedule for other domains.

    Example:
        train = InterleavedDomainDataset(domains, {"web": 0.7, "code": 0.3}, num_samples=1000)
        train.domain_of(0)  # "web": 0.7 of the first sample rounds to one
    """

    def __init__(
        self,
        domains: Domains,
        mixture: str | Mapping[str, float] | ArrayLike | MixtureSchedule = "natural",
        *,
        num_samples: int,
        seed: int = 0,
        max_updates: int = 1024,
    ) -> None:
        if not isinstance(domains, Domains):
            raise TypeError(
                f"`domains` must be a Domains; got {type(domains).__name__}. Build one with "
                "Domains.from_datasets({'web': web, 'code': code})."
            )
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be at least 1; got {num_samples}.")
        self.domains, self.num_samples, self.seed = domains, int(num_samples), int(seed)
        self._num_rows_K = np.array([domain.num_rows for domain in domains], dtype=np.int64)
        self._mean_tokens_K = domains.num_tokens / self._num_rows_K
        self._row_length_K = [domain.row_length for domain in domains]
        self._is_packed = None not in self._row_length_K and len(set(self._row_length_K)) == 1
        self._rows = ArrowRows([domain.train for domain in domains])
        self._ledger = Ledger(len(domains), max_segments=max_updates + 1)
        self._blocks = Blocks(
            self._ledger,
            [
                RowPermutation(domain.num_rows, key=derive_key(seed, domain.name))
                for domain in domains
            ],
            self._rows.addresses,
        )
        self._segments: list[Segment] = []
        self._run: Run | None = None
        self._schedule: MixtureSchedule | None = None
        self._row_lengths: dict[int, NDArray[np.int32]] = {}
        if not isinstance(mixture, MixtureSchedule):
            first = Segment(from_sample=0, mixture=domains.resolve(mixture))
            mixture = MixtureSchedule(domains.names, (first,))
        self._provenance = provenance.of_run(mixture.provenance)
        self.load_schedule(mixture)

    # The mixture

    @property
    def max_updates(self) -> int:
        """Changes of mixture that there is room for."""
        return self._ledger.max_segments - 1

    @property
    def schedule(self) -> MixtureSchedule:
        """The mixtures so far, by the sample they start at, and what the run and domains are."""
        if self._schedule is None:
            # Whoever changes mixtures beyond one Trainer epoch trains for more of them.
            is_one_epoch = self._segments[-1].from_sample < self.num_samples
            known = Run(num_samples=self.num_samples if is_one_epoch else None, seed=self.seed)
            schedule = MixtureSchedule(
                self.domains.names,
                tuple(self._segments),
                run=self._run or known,
                cards=self._cards,
                provenance=self._provenance,
            )
            self._schedule = counted(schedule, self._mean_tokens_K)
        return self._schedule

    @cached_property
    def _cards(self):
        return cards_of(self.domains)

    def describe_run(self, run: Run) -> None:
        """Tells the schedule what is known of the run, above all how many samples it reads."""
        self._run, self._schedule = replace(run, seed=self.seed), None

    @property
    def num_segments(self) -> int:
        """Mixtures so far, the first among them."""
        return len(self._segments)

    def set_mixture(
        self,
        mixture: str | Mapping[str, float] | ArrayLike,
        from_sample: int,
        *,
        update: Mapping[str, Any] | None = None,
    ) -> None:
        """Changes the mixture for all samples from `from_sample` on.

        Args:
            mixture: as in the constructor, but no schedule.
            from_sample: first sample (ordinal of the run) under the new mixture.
            update: JSON-able record that the schedule keeps beside the mixture.

        Raises:
            ValueError: no mixture, or a sample that is not after the last change or that a loader
                has asked for already.
            RuntimeError: called in a DataLoader worker, or no room for one more change.
        """
        if get_worker_info() is not None:
            raise RuntimeError(
                "`set_mixture` must be called in the process that trains, not in a worker."
            )
        from_sample = operator.index(from_sample)
        last = self._segments[-1].from_sample
        if from_sample <= last:
            raise ValueError(
                f"`from_sample` must be after the last change, at sample {last}; got {from_sample}."
            )
        if from_sample < self._ledger.high_water:
            raise ValueError(
                f"`from_sample` must not be read yet: a loader has asked for the samples before "
                f"{self._ledger.high_water}; got {from_sample}. Announce the change farther ahead."
            )
        shares_K = self.domains.resolve(mixture)
        self._append(Segment(from_sample=from_sample, mixture=shares_K, update=dict(update or {})))

    def load_schedule(self, schedule: MixtureSchedule) -> None:
        """Replaces all mixtures, for a replay or a resumed run; nothing counts as served any more.

        Raises:
            ValueError: the schedule is for other domains, or has more changes than `max_updates`.
        """
        schedule = schedule.for_domains(self.domains.names)
        self._ledger.clear()
        self._segments, self._schedule = [], None
        for segment in schedule.segments:
            self._append(segment)

    def _append(self, segment: Segment) -> None:
        if len(self._ledger) == self._ledger.max_segments:
            raise RuntimeError(
                f"`max_updates` must cover all changes of the run; got {len(self._ledger) - 1}. "
                "Construct the dataset with a larger one."
            )
        # Shares of tokens become shares of samples: a row of the domain brings its mean length.
        as_samples_K = normalise(segment.mixture / self._mean_tokens_K)
        self._ledger.append(segment.from_sample, largest_remainder(as_samples_K, TOTAL))
        self._segments.append(segment)
        self._schedule = None

    # Looking up samples

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Makes index 0 the first sample of a Trainer epoch; accelerate's loader calls it."""
        self._ledger.epoch = epoch

    def locate(self, samples: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Looks up any samples of the run.

        Args:
            samples: (N,) ordinals, in any order, not bound by the dataset's length.

        Returns:
            (N,) domains, as positions in `domains`, and (N,) rows in the domains' training rows.
        """
        samples_N = np.asarray(samples, dtype=np.int64)
        if samples_N.size and samples_N.min() < 0:
            raise ValueError(f"`samples` must be 0 or more; got {samples_N.min()}.")
        domains_N, rows_N = np.empty_like(samples_N), np.empty_like(samples_N)
        for block, start, stop in self._blocks.runs(samples_N.tolist()):
            within = samples_N[start:stop] - block.start
            domains_N[start:stop], rows_N[start:stop] = block.domains[within], block.rows[within]
        return domains_N, rows_N

    def domain_of(self, sample: int) -> str:
        """Returns the name of a sample's domain; `sample` is an ordinal of the run."""
        if sample < 0:
            raise ValueError(f"`sample` must be 0 or more; got {sample}.")
        segment = self._ledger.segment_at(sample)
        domain, _ = self._ledger.tree(segment).locate(sample - self._ledger.start(segment))
        return self.domains.names[domain]

    def num_served(self, sample: int) -> NDArray[np.int64]:
        """Returns how many of the first `sample` samples of the run each domain gives, (K,)."""
        segment = self._ledger.segment_at(max(sample - 1, 0))
        tree, start = self._ledger.tree(segment), self._ledger.start(segment)
        return self._ledger.counts(segment) + tree.counts(sample - start)

    def epochs_used(self, sample: int) -> dict[str, float]:
        """Returns how often each domain's rows were gone through by the first `sample` samples."""
        epochs_K = self.num_served(sample) / self._num_rows_K
        return dict(zip(self.domains.names, epochs_K.tolist(), strict=True))

    def tokens_between(self, start: int, stop: int) -> NDArray[np.int64]:
        """Returns the tokens that samples `start ... stop - 1` bring from each domain, (K,)."""
        tokens_K = self.num_served(stop) - self.num_served(start)
        if all(length is not None for length in self._row_length_K):
            return tokens_K * np.array(self._row_length_K, dtype=np.int64)
        tokens_K = np.zeros(len(self.domains), dtype=np.int64)
        while start < stop:
            block = self._blocks.at(start)
            piece = slice(start - block.start, min(stop, block.stop) - block.start)
            domains_N, rows_N = block.domains[piece], block.rows[piece]
            for k in np.unique(domains_N):
                tokens_K[k] += self._lengths(int(k))[rows_N[domains_N == k]].sum(dtype=np.int64)
            start = block.stop
        return tokens_K

    def _lengths(self, domain: int) -> NDArray[np.int32]:
        """Tokens of each row of a domain, read once."""
        if domain not in self._row_lengths:
            self._row_lengths[domain] = self.domains[domain].row_lengths()
        return self._row_lengths[domain]

    # Reading rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Returns one sample of the current Trainer epoch: columns as 1-d int64 tensors."""
        if not 0 <= index < self.num_samples:
            raise IndexError(f"index must be in [0, {self.num_samples}); got {index}.")
        return self._read([index + self._ledger.epoch * self.num_samples])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Returns a batch, which a DataLoader asks for instead of sample by sample.

        Rows of packed blocks carry `labels`, their own tokens unless the data has others, and come
        as a `ReadyBatch`. Rows of data of unequal lengths carry the data's columns: a collator pads
        them and makes the labels.
        """
        first = self._ledger.epoch * self.num_samples
        samples = [first + index for index in indices]
        worker = get_worker_info()
        self._ledger.note_served(max(samples), worker=0 if worker is None else worker.id)
        return self._read(samples)

    def _read(self, samples: list[int]) -> list[dict[str, torch.Tensor]]:
        chunks: list[int] = []
        within: list[int] = []
        for block, start, stop in self._blocks.runs(samples):
            places = [sample - block.start for sample in samples[start:stop]]
            chunks += [block.chunks[place] for place in places]
            within += [block.within[place] for place in places]
        columns = {name: self._rows.views(name, chunks, within) for name in self._rows.columns}
        return as_batch(columns) if self._is_packed else as_rows(columns)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_row_lengths": {}}
