"""What a measurement of influence says, and its file.

`GroupInfluence.measure` makes an `InfluenceMatrix`; mixers, report and plots read it. The file is
JSON with a format tag; unknown standard errors (NaN) are null there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_hf.files import write_json

FORMAT = "tikmix-hf influence"
VERSION = 3
_STDERRS = ("domain_stderr", "target_stderr")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InfluenceMatrix:
    """S[j, k] = f_j^T H^-1 g_k: how much a share of domain k would lower the loss on target j.

    Differences within a row carry the signal, absolute values do not: all gradients of a language
    model share a direction, so nearly every entry is positive. Compare with the mixture in force
    (`centred`). Shapes: J targets, K domains.

    Raises:
        ValueError: if names and shapes do not match, or something but a standard error is not
            finite.
    """

    values: np.ndarray
    """(J, K) float64; nats per unit of mixture share, times the preconditioner's scale."""
    domain_stderr: np.ndarray
    """(J, K) float64, standard error of `values` by the domains' finite text; NaN if unknown."""
    target_stderr: np.ndarray
    """(J, K) float64, standard error of `values` by the targets' finite text; NaN if unknown."""
    targets: tuple[str, ...]
    domains: tuple[str, ...]
    preconditioner: str
    seconds: float
    """Wall-clock time of the measurement on rank 0."""
    num_tokens: int
    """Tokens (padding included) in all forward and backward passes of all ranks."""
    domain_losses: np.ndarray
    """(K,) mean loss in nats per token."""
    target_losses: np.ndarray
    """(J,) mean loss in nats per token."""
    rounds: np.ndarray | None = None
    """(R, J, K) of each round whose mean this is, on text of its own; None for one measurement."""
    gradient_norms: np.ndarray | None = None
    """(K,) root mean square, over batches, of the norm of the gradient of a batch's mean loss; None
    where it was not noted."""

    def __post_init__(self) -> None:
        for name in ("targets", "domains"):
            names = tuple(getattr(self, name))
            if not names or len(set(names)) < len(names):
                raise ValueError(f"`{name}` must be distinct names, at least one; got {names}.")
            object.__setattr__(self, name, names)
        num_targets, num_domains = len(self.targets), len(self.domains)
        matrix = (num_targets, num_domains)
        shapes = {
            "values": matrix,
            "domain_stderr": matrix,
            "target_stderr": matrix,
            "domain_losses": (num_domains,),
            "target_losses": (num_targets,),
        }
        for name, shape in shapes.items():
            self._freeze(name, shape)
        if self.rounds is not None:
            if not len(self.rounds):
                raise ValueError("`rounds` must hold at least one; got none.")
            self._freeze("rounds", (len(self.rounds), *matrix))
        if self.gradient_norms is not None:
            self._freeze("gradient_norms", (num_domains,))

    def _freeze(self, name: str, shape: tuple[int, ...]) -> None:
        """Makes a field a read-only float64 array of that shape, and checks its entries."""
        array = np.array(getattr(self, name), dtype=np.float64)
        if array.shape != shape:
            raise ValueError(f"`{name}` must have the shape {shape}; got {array.shape}.")
        array.flags.writeable = False
        object.__setattr__(self, name, array)
        if name in _STDERRS:
            if not np.all(np.isnan(array) | ((array >= 0) & np.isfinite(array))):
                raise ValueError(f"`{name}` must be >= 0 or NaN; got {array.tolist()}.")
        elif not np.isfinite(array).all():
            raise ValueError(f"`{name}` must be finite; got {array.tolist()}.")

    @property
    def stderr(self) -> np.ndarray:
        """(J, K) of both sides' text together; NaN where a side is unknown.

        Where a side is unknown and there are rounds, it is their spread, over the root of their
        number.
        """
        both_JK = np.hypot(self.domain_stderr, self.target_stderr)
        if self.rounds is None or len(self.rounds) < 2:
            return both_JK
        spread_JK = self.rounds.std(axis=0, ddof=1) / np.sqrt(len(self.rounds))
        return np.where(np.isnan(both_JK), spread_JK, both_JK)

    @classmethod
    def mean(
        cls, matrices: Sequence[InfluenceMatrix], weights: Sequence[float] | None = None
    ) -> InfluenceMatrix:
        """The mean of measurements of the same targets and domains.

        Without weights the measurements are rounds: of one model, each on text of its own. With
        weights they are of several checkpoints, as AutoMixer (arXiv 2506.21910, 2025) combines
        them; a checkpoint whose gradients are larger then counts for more, as its text would.

        Args:
            matrices: at least one.
            weights: one per matrix, not negative, not all zero; scaled to sum to 1.

        Raises:
            ValueError: if names or preconditioners differ, or weights do not fit.
        """
        if not matrices:
            raise ValueError("`matrices` must hold at least one; got none.")
        for field in ("targets", "domains", "preconditioner"):
            values = {getattr(matrix, field) for matrix in matrices}
            if len(values) > 1:
                raise ValueError(f"`matrices` must agree on {field}; got {sorted(values)}.")
        shares_R = np.full(len(matrices), 1 / len(matrices))
        if weights is not None:
            shares_R = np.asarray(weights, dtype=np.float64)
            if shares_R.shape != (len(matrices),) or not (
                np.isfinite(shares_R).all() and (shares_R >= 0).all() and shares_R.any()
            ):
                raise ValueError(
                    f"`weights` must be {len(matrices)} numbers, not negative and not all zero; "
                    f"got {list(weights)}."
                )
            shares_R = shares_R / shares_R.sum()

        def combined(field: str) -> np.ndarray:
            return np.tensordot(shares_R, [getattr(matrix, field) for matrix in matrices], axes=1)

        def error(field: str) -> np.ndarray:
            squares = [np.square(getattr(matrix, field)) for matrix in matrices]
            return np.sqrt(np.tensordot(shares_R**2, squares, axes=1))

        norms = [None if m.gradient_norms is None else True for m in matrices]
        return cls(
            values=combined("values"),
            domain_stderr=error("domain_stderr"),
            target_stderr=error("target_stderr"),
            targets=matrices[0].targets,
            domains=matrices[0].domains,
            preconditioner=matrices[0].preconditioner,
            seconds=sum(matrix.seconds for matrix in matrices),
            num_tokens=sum(matrix.num_tokens for matrix in matrices),
            domain_losses=combined("domain_losses"),
            target_losses=combined("target_losses"),
            rounds=None if weights is not None else np.stack([m.values for m in matrices]),
            gradient_norms=None if None in norms else combined("gradient_norms"),
        )

    def centred(self, mixture: np.ndarray) -> np.ndarray:
        """Influence beyond that of the mixture in force: S - (S w) 1^T.

        With S = [[1, 3]] and w = [0.5, 0.5]: [[-1, 1]].

        Args:
            mixture: (K,) shares in the order of `domains`.

        Returns:
            (J, K), a new array; `mixture`'s average of each row is 0.

        Raises:
            ValueError: if `mixture` has another shape.
        """
        shares_K = np.asarray(mixture, dtype=np.float64)
        if shares_K.shape != (len(self.domains),):
            raise ValueError(
                f"`mixture` must have one share per domain ({len(self.domains)}: "
                f"{', '.join(self.domains)}); got the shape {shares_K.shape}."
            )
        return self.values - (self.values @ shares_K)[:, None]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the format's tag and version."""
        fields: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = value.tolist()
            fields[field.name] = list(value) if isinstance(value, tuple) else value
        for name in _STDERRS:
            fields[name] = [
                [None if math.isnan(error) else error for error in row] for row in fields[name]
            ]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> InfluenceMatrix:
        """The inverse of `to_dict`.

        Raises:
            ValueError: on another format or version, missing or unknown fields, and as the class.
        """
        tag = (fields.get("format"), fields.get("version"))
        if tag != (FORMAT, VERSION):
            raise ValueError(
                f"expected an influence matrix ({FORMAT!r}, version {VERSION}); got format "
                f"{tag[0]!r}, version {tag[1]!r}."
            )
        rest = {name: value for name, value in fields.items() if name not in ("format", "version")}
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(rest) != expected:
            raise ValueError(
                f"an influence matrix has the fields {sorted(expected)}; "
                f"missing {sorted(expected - set(rest))}, unknown {sorted(set(rest) - expected)}."
            )
        # None becomes NaN on its way into a float array.
        return cls(**rest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file; a reader sees the old one or the whole new one."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> InfluenceMatrix:
        """Reads a file of `save`.

        Raises:
            ValueError: naming the file, where it is not an influence matrix.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"cannot read an influence matrix from {os.fspath(path)!r}: {error}"
            ) from error

    def __str__(self) -> str:
        """A table: one row per target, value and standard error per domain."""
        cells = [["target", *self.domains]]
        for target, values, errors in zip(self.targets, self.values, self.stderr, strict=True):
            cells.append(
                [target, *(f"{v:.3g} ± {e:.1g}" for v, e in zip(values, errors, strict=True))]
            )
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in cells
        ]
        return "\n".join([f"influence ({self.preconditioner}), {self.num_tokens:,} tokens", *lines])
