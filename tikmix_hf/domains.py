"""Documents become domains: tokenised rows under one name, in one fixed order.

In: one Hugging Face dataset per domain with a column ``input_ids``: packed blocks, or examples of
any length. Out: :class:`Domains`, the ordered collection that every array of shape (K,) follows.

The natural prior is the domains' share of tokens (TiKMiX, Wang et al. 2025, arXiv 2508.17677, mixes
tokens, not rows), so for N_k training rows of l_ki tokens each

    prior_k = sum_i l_ki / sum_k sum_i l_ki

Each domain keeps a few rows back, because influence is measured on text that is not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike

from tikmix_hf.mixture import as_mixture
from tikmix_hf.rows import check_rows, row_lengths, split, straight, tokenize_and_pack

__all__ = ["Domain", "Domains", "tokenize_and_pack"]

# K domains, N rows of one domain, T tokens of a row or block.

FINGERPRINT_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """One domain: tokenised rows to train on, and rows that are only ever measured.

    Raises:
        TypeError: If `train` or `heldout` is not a ``datasets.Dataset``.
        ValueError: If one of them is empty, or its columns are not those of a tokenised dataset.
    """

    name: str
    """What mixtures, schedules and logs call it."""
    train: Dataset
    """Rows with a column ``input_ids``; ``labels`` and ``attention_mask`` may come along."""
    heldout: Dataset
    """Rows of the same columns that are never trained on."""
    description: str = ""
    """One line for people: what kind of text this is."""
    tags: tuple[str, ...] = ()
    """Free labels, for instance ``("code", "en")``."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"`name` must be a non-empty string; got {self.name!r}.")
        check_rows(self.train, f"domain {self.name!r}, train")
        check_rows(self.heldout, f"domain {self.name!r}, held-out")
        if sorted(self.train.column_names) != sorted(self.heldout.column_names):
            raise ValueError(
                f"Domain {self.name!r}: train and held-out rows must have the same columns; got "
                f"{self.train.column_names} and {self.heldout.column_names}."
            )

    @property
    def num_rows(self) -> int:
        """Number of training rows, N."""
        return len(self.train)

    @property
    def num_tokens(self) -> int:
        """Number of training tokens: the lengths of ``input_ids`` summed over the rows."""
        return int(self.row_lengths().sum(dtype=np.int64))

    @property
    def mean_tokens_per_row(self) -> float:
        """Training tokens divided by training rows."""
        return self.num_tokens / self.num_rows

    @property
    def row_length(self) -> int | None:
        """Tokens of every training row if all rows agree (packed blocks), else None."""
        lengths_N = self.row_lengths()
        return int(lengths_N[0]) if (lengths_N == lengths_N[0]).all() else None

    def row_lengths(self) -> np.ndarray:
        """Tokens of each training row, (N,) int32, in row order."""
        return row_lengths(self.train)

    def fingerprint(self) -> str:
        """Name the training rows by their content, alike in every process and on every machine.

        Returns:
            Hex digest (blake2b, 128 bits) of the name, the number of rows and tokens and the tokens
            of 64 rows spread evenly over the domain.
        """
        rows = np.unique(np.linspace(0, self.num_rows - 1, FINGERPRINT_ROWS).round().astype(int))
        picked = self.train.select_columns("input_ids").with_format("arrow")[rows.tolist()]
        tokens = [row.as_py() for row in picked["input_ids"]]
        content = json.dumps([self.name, self.num_rows, self.num_tokens, tokens])
        return blake2b(content.encode(), digest_size=16).hexdigest()


class Domains:
    """The domains of a run in one fixed order; every (K,) array follows this order.

    Example:
        >>> blocks = Dataset.from_dict({"input_ids": [[1, 2], [3, 4], [5, 6], [7, 8]]})
        >>> domains = Domains.from_datasets({"web": blocks, "code": blocks}, heldout=0.25)
        >>> domains.names, domains.num_tokens.tolist(), domains.prior.tolist()
        (('web', 'code'), [6, 6], [0.5, 0.5])
    """

    def __init__(
        self, domains: Iterable[Domain], *, prior: Mapping[str, float] | ArrayLike | None = None
    ) -> None:
        """Order the domains.

        Args:
            domains: At least one :class:`Domain`; names are unique and all have the same columns.
            prior: The mixture that "natural" stands for; None takes the shares of training tokens.

        Raises:
            TypeError: If an entry is not a `Domain`.
            ValueError: If there is no domain, a name occurs twice or the columns differ.
        """
        self._domains = tuple(domains)
        _check_together(self._domains)
        self._positions = {domain.name: k for k, domain in enumerate(self._domains)}
        self._num_tokens_K = np.array([domain.num_tokens for domain in self._domains], np.int64)
        self._num_tokens_K.flags.writeable = False
        natural_K = self._num_tokens_K / self._num_tokens_K.sum()
        given = natural_K if prior is None else prior
        self._prior_K = as_mixture(given, self.names, argument="prior")

    @classmethod
    def from_datasets(
        cls,
        datasets: Mapping[str, Dataset],
        *,
        heldout: float | Mapping[str, Dataset] = 0.02,
        prior: Mapping[str, float] | ArrayLike | None = None,
        seed: int = 0,
    ) -> Domains:
        """Take one tokenised dataset per domain and keep some rows of each back.

        Training rows are copied out of any indices mapping (``flatten_indices``: into a cache file
        for datasets that live on disk), because the dataset of the run reads Arrow memory directly.

        Args:
            datasets: Name to dataset, in the order that all arrays will follow.
            heldout: Share of rows in (0, 1) to keep back, at least one row per domain, drawn from
                `seed` and the domain's name alone; or a held-out dataset per name, and then all
                rows of `datasets` are trained on.
            prior: See :class:`Domains`.
            seed: Decides which rows are held out.

        Raises:
            TypeError: If `datasets` is no mapping of names to ``datasets.Dataset``.
            ValueError: If a dataset has no ``input_ids``, or one side of the split would be empty.
        """
        if not isinstance(datasets, Mapping):
            raise TypeError(
                "`datasets` must map names to datasets, for instance {'web': web, 'code': code}; "
                f"got {type(datasets).__name__}."
            )
        for name, dataset in datasets.items():
            check_rows(dataset, f"`datasets[{name!r}]`")
        if isinstance(heldout, Mapping) and set(heldout) != set(datasets):
            raise ValueError(
                f"`heldout` must have one dataset per domain ({', '.join(datasets)}); "
                f"got {', '.join(heldout)}."
            )
        domains = []
        for name, train in datasets.items():
            if isinstance(heldout, Mapping):
                kept_back = heldout[name]
            else:
                train, kept_back = split(train, heldout, name=name, seed=seed)
            domains.append(Domain(name=name, train=straight(train), heldout=kept_back))
        return cls(domains, prior=prior)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K domains in order."""
        return tuple(self._positions)

    @property
    def num_tokens(self) -> np.ndarray:
        """Training tokens of each domain, (K,) int64, read-only."""
        return self._num_tokens_K

    @property
    def prior(self) -> np.ndarray:
        """The mixture called "natural", (K,) float64, read-only: shares of training tokens."""
        return self._prior_K

    def resolve(self, mixture: str | Mapping[str, float] | ArrayLike) -> np.ndarray:
        """Turn what a user may call a mixture into the (K,) float64 array.

        Args:
            mixture: "natural" (the prior), "uniform", a dict by name or K shares in order.

        Raises:
            ValueError: If a word is unknown, or the shares are no mixture over these domains.
        """
        if not isinstance(mixture, str):
            return as_mixture(mixture, self.names)
        if mixture == "natural":
            return self._prior_K
        if mixture == "uniform":
            return as_mixture(np.full(len(self), 1.0 / len(self)), self.names)
        raise ValueError(
            f"`mixture` must be 'natural', 'uniform', a dict by name or {len(self)} shares; "
            f"got {mixture!r}."
        )

    def fingerprint(self) -> dict[str, str]:
        """Name to :meth:`Domain.fingerprint`."""
        return {domain.name: domain.fingerprint() for domain in self}

    def __len__(self) -> int:
        return len(self._domains)

    def __iter__(self) -> Iterator[Domain]:
        return iter(self._domains)

    def __getitem__(self, key: str | int) -> Domain:
        if isinstance(key, str) and key not in self._positions:
            raise KeyError(f"{key!r} is no domain; there are {', '.join(self.names)}.")
        return self._domains[self._positions[key] if isinstance(key, str) else key]

    def __repr__(self) -> str:
        return f"Domains({', '.join(f'{d.name}: {d.num_tokens:,} tokens' for d in self)})"


def _check_together(domains: Sequence[Domain]) -> None:
    if not domains:
        raise ValueError("`domains` must hold at least one domain; got none.")
    for domain in domains:
        if not isinstance(domain, Domain):
            raise TypeError(f"`domains` must hold Domain objects; got {type(domain).__name__}.")
    names = [domain.name for domain in domains]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`domains` must have unique names; got {', '.join(repeated)} twice.")
    columns = {domain.name: sorted(domain.train.column_names) for domain in domains}
    for domain in domains:
        if columns[domain.name] != columns[names[0]]:
            raise ValueError(
                f"`domains` must all have the same columns; got {columns[names[0]]} in "
                f"{names[0]!r} and {columns[domain.name]} in {domain.name!r}."
            )
        if domain.num_tokens == 0:
            raise ValueError(f"Domain {domain.name!r} must hold tokens; all its rows are empty.")
