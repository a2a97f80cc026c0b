"""Signals: what training tells a mixer at one update.

In go numbers by domain and target, from whoever measured them; out come the same, checked for shape
when made and for sense when used (`Signals.usable`). A signal that no mixer asked for is None.
"""

# Shape letters: J targets, K domains, R rounds, S stretches of steps, N mixtures.

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture import Supply

Array = NDArray[np.float64]

# What a mixer may require, and what its axes are. "-" is an axis without names.
MEASURED: dict[str, tuple[str, ...]] = {
    "influence": ("targets", "domains"),
    "alignment": ("targets", "domains"),
    "train_losses": ("-", "domains"),
    "excess_losses": ("domains",),
    "probe_losses": ("-", "targets"),
    "lookahead_losses": ("-", "targets"),
}
# What comes along with them.
_WITH_THEM: dict[str, tuple[str, ...]] = {
    "stderr": ("targets", "domains"),
    "rounds": ("-", "targets", "domains"),
    "gradient_norms": ("domains",),
    "domain_losses": ("domains",),
    "target_losses": ("targets",),
    "train_tokens": ("-", "domains"),
    "train_steps": ("-",),
    "probe_mixtures": ("-", "domains"),
}
_NOUNS = {"targets": "target", "domains": "domain"}


class MixerError(ValueError):
    """A step found no mixture; the message says why. The mixture in force is to be kept."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Signals:
    """What training tells a mixer at one update.

    Raises:
        ValueError: A shape that does not fit the names.
    """

    step: int
    """Optimizer steps done."""
    domains: tuple[str, ...]
    """K names, in the order of every axis K."""
    targets: tuple[str, ...]
    """J names, in the order of every axis J."""
    mixture: Array
    """(K,) the mixture in force."""
    supply: Supply | None = None
    """Tokens that there are, were read and are still to be read; always known in training."""
    sample: int = 0
    """First sample that the answer will govern."""
    learning_rate: float = np.nan
    """Of the optimizer's first group, at this step."""

    influence: Array | None = None
    """(J, K) influence; positive: more of the domain lowers the target's loss."""
    stderr: Array | None = None
    """(J, K) standard error of `influence` in its unit; NaN where unknown."""
    rounds: Array | None = None
    """(R, J, K) `influence` of each round, on text of its own; None where there was one."""

    alignment: Array | None = None
    """(J, K) dot products <f_j, g_k> of the gradients of the mean loss per token on target j and on
    held-out text of domain k: influence without a preconditioner."""
    gradient_norms: Array | None = None
    """(K,) root mean square, over batches of held-out text, of the norm of a batch's gradient.
    Comes with `alignment`."""
    domain_losses: Array | None = None
    """(K,) loss on held-out text of each domain, nats per token. Comes with `influence` and
    `alignment`."""
    target_losses: Array | None = None
    """(J,) loss on each target, nats per token. Comes with `influence` and `alignment`."""

    train_losses: Array | None = None
    """(S, K) loss of the training batches, nats per token, in each of S stretches of steps since
    the last update; NaN where a stretch had no token of the domain. A stretch is one step, unless
    there are more than 512 of them."""
    train_tokens: Array | None = None
    """(S, K) loss tokens that `train_losses` is the mean of."""
    train_steps: Array | None = None
    """(S,) optimizer steps in each stretch."""

    excess_losses: Array | None = None
    """(K,) mean over held-out tokens of max(loss - loss of the reference model, 0), nats."""

    probe_losses: Array | None = None
    """(N + 1, J) losses on the targets before the first of the N probes and after each of them."""
    probe_mixtures: Array | None = None
    """(N, K) the mixtures that were trained on: those asked for, within floors, caps, epochs and
    groups."""

    lookahead_losses: Array | None = None
    """(N, J) losses on the targets, a step ahead under each mixture that was asked for."""

    def __post_init__(self) -> None:
        sizes = {"domains": len(self.domains), "targets": len(self.targets)}
        _check_shape("mixture", self.mixture, (sizes["domains"],))
        for name, axes in {**MEASURED, **_WITH_THEM}.items():
            values = getattr(self, name)
            if values is not None:
                own = values.shape if len(values.shape) == len(axes) else (-1,) * len(axes)
                shape = tuple(sizes.get(axis, n) for axis, n in zip(axes, own, strict=True))
                _check_shape(name, values, shape)

    def usable(self, name: str) -> Array:
        """A signal, once it is known to be there and to be finite.

        Of `train_losses` a NaN is no news of a domain that had no token; all other entries must be
        finite.

        Raises:
            MixerError: It is missing, or an entry is not finite, or all are zero.
        """
        values = getattr(self, name)
        if values is None:
            raise MixerError(f"`{name}` was not measured, and this mixer requires it.")
        broken = ~np.isfinite(values)
        if name == "train_losses":
            unread = np.ones_like(broken) if self.train_tokens is None else self.train_tokens == 0
            broken &= ~(np.isnan(values) & unread)
        for entry in np.argwhere(broken)[:1]:
            where = self._where(name, entry.tolist())
            raise MixerError(f"`{name}` must be finite; got {values[tuple(entry)]} {where}.")
        if name in ("influence", "alignment") and not values.any():
            raise MixerError(f"`{name}` is zero everywhere: no domain moves any target.")
        return values

    def usable_supply(self) -> Supply:
        """The supply.

        Raises:
            MixerError: It is not known.
        """
        if self.supply is None:
            raise MixerError("`supply` is not known, and this mixer requires it.")
        return self.supply

    def _where(self, name: str, entry: list[int]) -> str:
        """Names an entry: "of domain 'web' on target 'arc'"."""
        axes = {**MEASURED, **_WITH_THEM}[name]
        words = []
        for axis, i in zip(reversed(axes), reversed(entry), strict=True):
            if axis in _NOUNS:
                link = "on" if words else "of"
                words.append(f"{link} {_NOUNS[axis]} {getattr(self, axis)[i]!r}")
            else:
                words.append(f"in row {i}")
        return " ".join(words)


def _check_shape(argument: str, values: Array, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"`{argument}` must have shape {shape}; got {values.shape}.")


assert {*MEASURED, *_WITH_THEM} <= {field.name for field in fields(Signals)}
