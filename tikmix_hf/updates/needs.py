"""Needs: what a mixer asks to be measured, and in how many passes over text.

In: a mixer and the number of domains. Out: which signals to measure, and what a row of a domain or
of a target costs at an update.
"""

# Shape letters: J targets, K domains, N probes or mixtures.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tikmix_hf.mixers import MEASURED, Mixer
from tikmix_hf.signals.preconditioners import AUTO, Preconditioner
from tikmix_hf.updates.plan import FORWARD_ONLY

IDENTITY = "identity"
# Signals that the gradients of domains and targets give.
_BY_GRADIENTS = ("influence", "alignment")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What is measured for one mixer."""

    gradients: str | None = None
    """"influence" or "alignment": which dot products of gradients; None for none."""
    train_losses: bool = False
    """Whether training's own passes are listened to."""
    excess_losses: bool = False
    """Whether a reference model reads the domains' rows."""
    probe_steps: tuple[int, ...] = ()
    """Optimizer steps to train on each of N mixtures before an answer."""
    num_lookahead: int = 0
    """Mixtures whose losses a step ahead are wanted."""

    @classmethod
    def of(cls, mixer: Mixer[Any], num_domains: int, *, observe: bool) -> Needs:
        """What a mixer needs.

        Args:
            mixer: whom to measure for.
            num_domains: K.
            observe: measure influence whatever the mixer asks for.

        Raises:
            ValueError: it requires what nobody measures, or what does not go together.
        """
        name = type(mixer).__name__
        requires = mixer.requires
        if unknown := sorted(requires - set(MEASURED)):
            raise ValueError(
                f"`mixer` {name} requires signals that nobody measures: {', '.join(unknown)}. "
                f"There are {', '.join(MEASURED)}."
            )
        both = [signal for signal in _BY_GRADIENTS if signal in requires]
        if len(both) > 1:
            raise ValueError(f"`mixer` {name} must require only one of {' and '.join(both)}.")
        if mixer.num_lookahead and "influence" not in requires:
            raise ValueError(
                f"`mixer` {name} must require influence to look ahead, which takes its step; it "
                f"requires {', '.join(sorted(requires)) or 'nothing'}."
            )
        probe_steps = mixer.probe_steps(num_domains)
        if observe and probe_steps:
            raise ValueError(
                f"`observe` must be False with {name}, which changes the mixture for a few steps "
                "to see what happens; got True."
            )
        return cls(
            gradients=both[0] if both else ("influence" if observe else None),
            train_losses="train_losses" in requires,
            excess_losses="excess_losses" in requires,
            probe_steps=probe_steps,
            num_lookahead=mixer.num_lookahead,
        )

    def check(self, reference: Any) -> None:
        """Refuses a run without the model that excess losses are taken against (ValueError)."""
        if self.excess_losses and reference is None:
            raise ValueError(
                "`reference_model` must be a trained model for this mixer, which asks how much "
                "better it knows each domain; got None. Pass TikMixCallback(reference_model=...)."
            )

    def preconditioner(self, asked: str | Preconditioner) -> str | Preconditioner:
        """What gradients are preconditioned with: nothing, where their plain alignment is asked.

        Raises:
            ValueError: the user asked for something else.
        """
        if self.gradients != "alignment" or asked == IDENTITY:
            return asked
        if asked != AUTO:
            raise ValueError(
                f"`preconditioner` must be left out, or {IDENTITY!r}, for a mixer that compares "
                f"plain gradients; got {asked!r}."
            )
        return IDENTITY

    def domain_passes(self, preconditioner_passes: float, num_rounds: int) -> float:
        """Passes over a domain's rows of an update."""
        passes = 2 * FORWARD_ONLY * self.excess_losses
        if self.gradients:
            passes += 1 + preconditioner_passes
        if self.num_lookahead:  # of the first round
            passes += 1 / num_rounds
        return passes

    def target_passes(self, num_rounds: int, *, audit: bool) -> float:
        """Passes over a target's rows of an update."""
        passes = self.num_lookahead * FORWARD_ONLY / num_rounds
        if self.probe_steps:
            passes += (len(self.probe_steps) + 1) * FORWARD_ONLY
        if self.gradients:
            passes += 1 + FORWARD_ONLY * audit
        return passes


INFLUENCE = Needs(gradients="influence")
