"""What every mixer is: frozen settings, an explicit state, a pure step.

In go `Signals`, what training told between two updates; out come a mixture and the next state:
`state = mixer.init(prior)`, then `mixture, state = mixer.step(state, signals)` at each update. A
step does no I/O and reads no clock. One that cannot answer raises `MixerError`, and whoever called
it keeps the mixture in force.

A state is a NamedTuple of JSON values (tuples for lists) whose `notes` say in words what the last
step did. `state._asdict()` goes into a checkpoint, `mixer.restore` brings it back.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray


class MixerError(ValueError):
    """A step found no mixture; the message says why. The mixture in force is to be kept."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
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
    mixture: NDArray[np.float64]
    """(K,) the mixture in force."""
    influence: NDArray[np.float64] | None = None
    """(J, K) influence; positive: more of the domain lowers the target's loss."""
    stderr: NDArray[np.float64] | None = None
    """(J, K) standard error of `influence` in its unit; NaN where unknown."""

    def __post_init__(self) -> None:
        _check_shape("mixture", self.mixture, (len(self.domains),))
        for argument, values_JK in (("influence", self.influence), ("stderr", self.stderr)):
            if values_JK is not None:
                _check_shape(argument, values_JK, (len(self.targets), len(self.domains)))

    def usable_influence(self) -> NDArray[np.float64]:
        """The (J, K) influence, once it is known to say something.

        Raises:
            MixerError: It is missing, not finite, or zero everywhere.
        """
        if self.influence is None:
            raise MixerError("`influence` was not measured, and this mixer requires it.")
        for j, k in np.argwhere(~np.isfinite(self.influence))[:1]:
            raise MixerError(
                f"`influence` must be finite; got {self.influence[j, k]} of domain "
                f"{self.domains[k]!r} on target {self.targets[j]!r}."
            )
        if not self.influence.any():
            raise MixerError("`influence` is zero everywhere: no domain moves any target.")
        return self.influence


class State(NamedTuple):
    """The state of a mixer that remembers nothing but what it did."""

    notes: tuple[str, ...] = ()
    """What the last step did, one sentence each; empty where there is nothing to tell."""


StateT = TypeVar("StateT", bound=tuple[Any, ...])


class Mixer(ABC, Generic[StateT]):
    """One method, signals in and a mixture out; a subclass is a frozen dataclass of settings."""

    __slots__ = ()

    requires: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Signals` that must be measured, for example {"influence"}."""
    state_type: ClassVar[type[Any]] = State
    """The NamedTuple this mixer's state is."""

    @abstractmethod
    def init(self, prior: NDArray[np.float64]) -> StateT:
        """The state before the first step; `prior` (K,) is the mixture training starts with."""

    @abstractmethod
    def step(self, state: StateT, signals: Signals) -> tuple[NDArray[np.float64], StateT]:
        """The next mixture (K,) and the next state.

        Raises:
            MixerError: The signals do not determine a mixture.
        """

    def allows(self, mixture: NDArray[np.float64], domains: Sequence[str]) -> bool:
        """Whether a mixture (K,) keeps this mixer's constraints, such as floors and caps.

        Whoever alters an answer, by going only part of the way to it, asks first.
        """
        return True

    def describe(self) -> dict[str, Any]:
        """The method's name and settings, as they come back from JSON."""
        settings = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return json.loads(json.dumps({"mixer": name, **settings}))

    def restore(self, saved: Mapping[str, Any]) -> StateT:
        """The state whose `_asdict()` went through JSON.

        Raises:
            ValueError: `saved` is not a state of this mixer.
        """
        if set(saved) != set(self.state_type._fields):
            raise ValueError(
                f"`saved` must have the fields {', '.join(self.state_type._fields)} of "
                f"{type(self).__name__}; got {', '.join(saved) or 'none'}."
            )
        return self.state_type(**{name: _as_tuples(value) for name, value in saved.items()})


def _as_tuples(value: Any) -> Any:
    """JSON knows lists alone; states hold tuples."""
    return tuple(_as_tuples(entry) for entry in value) if isinstance(value, list) else value


def _check_shape(argument: str, values: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"`{argument}` must have shape {shape}; got {values.shape}.")
