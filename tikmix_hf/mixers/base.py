"""What every mixer is: frozen settings, an explicit state, a pure step.

In go `Signals`, what training told between two updates; out come a mixture and the next state:
`state = mixer.init(prior)`, then `mixture, state = mixer.step(state, signals)` at each update. A
step is the method's own answer, `propose`, brought into the mixer's `Constraints`. It does no I/O
and reads no clock. One that cannot answer raises `MixerError`, and whoever called it keeps the
mixture in force.

A mixer says what it needs: signals by name (`requires`), mixtures to train on for a few steps
before it answers (`probe_steps`, `probe_mixtures`), mixtures to score by a step ahead
(`lookahead`). Nothing else is measured.

A state is a NamedTuple of JSON values (tuples for lists) whose `notes` say in words what the last
step did. `state._asdict()` goes into a checkpoint, `mixer.restore` brings it back.
"""

# Shape letters: J targets, K domains, R rounds, S optimizer steps, N mixtures.

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._settings import settle
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import Constraints, as_mixture

__all__ = ["About", "Lookahead", "Mixer", "MixerError", "Signals", "State"]

Array = NDArray[np.float64]


class State(NamedTuple):
    """The state of a mixer that remembers nothing but what it did."""

    notes: tuple[str, ...] = ()
    """What the last step did, one sentence each; empty where there is nothing to tell."""


class About(NamedTuple):
    """What the table of mixers says of a method, for people."""

    paper: str
    """Authors, title or name, arXiv number, year; "" for a control."""
    cost: str
    """Of an update, in passes over text; "nothing" where nothing is measured."""
    deviations: str
    """Where it differs from the paper; "none" where it does not."""
    constraints: str = "its answer is brought into them"
    """How it keeps them."""


class Lookahead(NamedTuple):
    """Mixtures to be scored by the losses after a step ahead."""

    mixtures: Array
    """(N, K)."""
    num_steps: float
    """Length of the step, in typical optimizer steps."""


StateT = TypeVar("StateT", bound=tuple[Any, ...])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mixer(ABC, Generic[StateT]):
    """One method, signals in and a mixture out; a subclass is a frozen dataclass of settings."""

    about: ClassVar[About]
    """For the table of mixers."""
    state_type: ClassVar[type[Any]] = State
    """The NamedTuple this mixer's state is; it has a field `notes`."""
    at_start: ClassVar[bool] = False
    """Whether it is asked before the first sample, with no signal that is measured."""
    at_updates: ClassVar[bool] = True
    """Whether it is asked again at updates."""

    constraints: Constraints | None = None
    """What every answer obeys; None: any mixture will do."""

    def __post_init__(self) -> None:
        """Settings of the kinds that their fields declare, else a ValueError.

        A subclass with ranges to check calls `Mixer.__post_init__(self)` first.
        """
        settle(self)

    @property
    def requires(self) -> frozenset[str]:
        """Fields of `Signals` that must be measured, of `signals.MEASURED`."""
        return frozenset()

    def init(self, prior: Array) -> StateT:
        """The state before the first step; `prior` (K,) is the mixture training starts with.

        Here a state that starts empty, for methods that depend on the signals alone.
        """
        return self.state_type()

    @abstractmethod
    def propose(self, state: StateT, signals: Signals) -> tuple[Array, StateT]:
        """The method's own answer (K,), whatever the constraints, and the next state.

        Raises:
            MixerError: The signals do not determine a mixture.
        """

    def step(self, state: StateT, signals: Signals) -> tuple[Array, StateT]:
        """The next mixture (K,), within the constraints, and the next state.

        Raises:
            MixerError: The signals do not determine a mixture, or no mixture obeys the constraints.
        """
        proposal_K, after = self.propose(state, signals)
        if self.constraints is None:
            return proposal_K, after
        try:
            mixture_K, notes = self.constraints.apply(
                proposal_K, signals.domains, in_force=signals.mixture, supply=signals.supply
            )
        except ValueError as err:
            raise MixerError(str(err)) from err
        return mixture_K, _with_notes(after, notes)

    def allows(self, mixture: Array, signals: Signals) -> bool:
        """Whether a mixture (K,) obeys the constraints, but for rounding.

        Whoever alters an answer, by going only part of the way to it, asks first.
        """
        return self.constraints is None or self.constraints.holds(
            mixture, signals.domains, in_force=signals.mixture, supply=signals.supply
        )

    def probe_steps(self, num_domains: int) -> tuple[int, ...]:
        """Optimizer steps to train on each mixture of `probe_mixtures`; empty asks for none.

        The mixer is asked once all of them are over, with `signals.probe_losses`.
        """
        return ()

    def probe_mixtures(self, state: StateT, signals: Signals) -> Array:
        """(N, K) mixtures to train on, one after the other, before the next `step`."""
        return np.zeros((0, len(signals.domains)))

    @property
    def num_lookahead(self) -> int:
        """N of `lookahead`, which must be known before training to plan what it costs."""
        return 0

    def lookahead(self, state: StateT, signals: Signals) -> Lookahead:
        """Mixtures whose losses a step ahead the next `step` wants, as `lookahead_losses`."""
        return Lookahead(np.zeros((0, len(signals.domains))), 0.0)

    def describe(self) -> dict[str, Any]:
        """The method's name and settings, as they come back from JSON."""
        settings = dataclasses.asdict(self)
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


def check_settings(least: float = 0.0, most: float = np.inf, /, **settings: float) -> None:
    """Refuses a setting outside [least, most] or not finite (ValueError)."""
    for name, value in settings.items():
        if not (least <= value <= most and np.isfinite(value)):
            limit = f"at least {least:g}" if most == np.inf else f"in [{least:g}, {most:g}]"
            raise ValueError(f"`{name}` must be finite and {limit}; got {value}.")


def normalised(weights: Any, signals: Signals) -> Array:
    """(K,) weights that are not negative, divided by their sum.

    Raises:
        MixerError: They are not finite, or all zero.
    """
    weights_K = np.asarray(weights, dtype=np.float64)
    total = weights_K.sum()
    if not (np.isfinite(weights_K).all() and (weights_K >= 0).all() and total > 0):
        shown = dict(zip(signals.domains, weights_K.tolist(), strict=True))
        raise MixerError(f"the signals determine no mixture: the shares came out as {shown}.")
    return as_mixture(weights_K / total, signals.domains)


def _with_notes(state: Any, notes: tuple[str, ...]) -> Any:
    """The same NamedTuple with more to say."""
    return state._replace(notes=(*state.notes, *notes)) if notes else state


def _as_tuples(value: Any) -> Any:
    """JSON knows lists alone; states hold tuples."""
    return tuple(_as_tuples(entry) for entry in value) if isinstance(value, list) else value
