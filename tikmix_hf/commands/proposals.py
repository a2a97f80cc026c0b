"""Proposals: what each mixer would choose on the influence of a dry run.

In: an `InfluenceMatrix` with its rounds, the mixture in force, mixers. Out: a `Proposal` of each;
as files: the matrix, the proposals, and for each mixer a schedule that replays its mixture. What is
proposed is what `TikMixCallback` would announce, noise guard included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf import mixers
from tikmix_hf.commands.gains import Gains
from tikmix_hf.commands.gains import gains as move_gains
from tikmix_hf.files import write_json
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.mixture import total_variation
from tikmix_hf.schedule import MixtureSchedule, Segment
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.updates.decision import Decision, decide, with_gradients
from tikmix_hf.updates.noise_guard import Verdict

# Shape letters: J targets, K domains, R rounds.

Array = NDArray[np.float64]

FORMAT = "tikmix-hf mixtures"
VERSION = 1
FILE = "mixtures.json"


class Proposal(NamedTuple):
    """What one mixer would choose, and what training would announce of it."""

    mixer: str
    settings: dict[str, Any]
    mixture: Array
    """(K,) what training would announce: the answer as far as the noise guard bears it out, and the
    mixture in force where there is no answer."""
    unguarded: Array
    """(K,) the mixer's own answer, before the noise guard."""
    notes: tuple[str, ...]
    verdict: Verdict | None
    """What text it was not chosen by says of it; None where nothing was judged."""


def default_mixers() -> tuple[str, ...]:
    """Names of the mixers that ask for influence and nothing else."""
    return tuple(n for n in mixers.available() if mixers.load(n)().requires == {"influence"})


def propose(
    matrix: InfluenceMatrix,
    mixture: Array,
    methods: Mapping[str, Mixer[Any]],
    *,
    num_errors: float = 1.0,
) -> list[Proposal]:
    """Asks each mixer for its first step, and decides as training would.

    Args:
        matrix: what was measured.
        mixture: (K,) the mixture in force q.
        methods: mixers by name.
        num_errors: standard errors that the noise guard asks for; 0 asks no guard.
    """
    signals = Signals(
        step=0,
        domains=matrix.domains,
        targets=matrix.targets,
        mixture=mixture,
    )
    signals = with_gradients(signals, matrix, "influence")
    proposals = []
    for name, mixer in methods.items():
        start = mixer.init(mixture)
        try:
            decision = decide(mixer, start, signals, matrix.rounds, num_errors=num_errors)
        except ValueError as err:  # what was measured, and other mixers' answers, are still good
            notes = (f"no mixture found, that in force is kept: {err}",)
            decision = Decision(mixture, mixture, start, notes, None)
        proposals.append(
            Proposal(
                mixer=name,
                settings=mixer.describe(),
                mixture=decision.mixture,
                unguarded=decision.proposal,
                notes=decision.notes,
                verdict=decision.verdict,
            )
        )
    return proposals


def gains(matrix: InfluenceMatrix, mixture: Array, proposed: Array) -> Gains:
    """Returns what a move from `mixture` (K,) to `proposed` (K,) promises."""
    return move_gains(matrix.values, matrix.rounds, mixture, proposed)


def save(
    folder: Path,
    matrix: InfluenceMatrix,
    mixture: Array,
    proposals: Sequence[Proposal],
    about: Mapping[str, Any],
) -> None:
    """Writes `influence.json`, `mixtures.json` and a `schedule-MIXER.json` of each proposal.

    Args:
        folder: made where it is not there.
        matrix: what was measured.
        mixture: (K,) the mixture in force.
        proposals: what mixers chose.
        about: JSON-able account of the models and settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matrix.save(folder / "influence.json")
    record = {
        "format": FORMAT,
        "version": VERSION,
        **about,
        "mixture": _named(matrix.domains, mixture),
        "mixers": {p.mixer: _as_record(p, matrix, mixture) for p in proposals},
    }
    write_json(folder / FILE, record)
    for proposal in proposals:
        note = {"mixer": proposal.settings, "notes": list(proposal.notes), **about}
        segment = Segment(from_sample=0, mixture=proposal.mixture, update=note)
        MixtureSchedule(matrix.domains, (segment,)).save(folder / f"schedule-{proposal.mixer}.json")


def _as_record(proposal: Proposal, matrix: InfluenceMatrix, mixture_K: Array) -> dict[str, Any]:
    gained = gains(matrix, mixture_K, proposal.mixture)
    errors = [None if np.isnan(error) else float(error) for error in gained.stderr]
    return {
        "settings": proposal.settings,
        "mixture": _named(matrix.domains, proposal.mixture),
        "change": total_variation(mixture_K, proposal.mixture),
        "unguarded": _named(matrix.domains, proposal.unguarded),
        "notes": list(proposal.notes),
        "gain": _named(matrix.targets, gained.values),
        "gain_stderr": dict(zip(matrix.targets, errors, strict=True)),
        "noise_guard": None if proposal.verdict is None else proposal.verdict.to_dict(),
    }


def _named(names: Sequence[str], values: NDArray[Any]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
