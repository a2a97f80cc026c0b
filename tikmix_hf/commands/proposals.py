"""Proposals: what each mixer would choose on the influence of a dry run.

In: an `InfluenceMatrix` with its rounds, the mixture in force, mixers. Out: a `Proposal` of each;
as files: the matrix, the proposals, and for each mixer a schedule that replays its mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf import mixers
from tikmix_hf.commands.dry_run import scales
from tikmix_hf.files import write_json
from tikmix_hf.mixers import Mixer, MixerError, Signals
from tikmix_hf.mixture import total_variation
from tikmix_hf.schedule import MixtureSchedule, Segment
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.updates.noise_guard import Verdict, cross_validate

# Shape letters: J targets, K domains, R rounds.

Array = NDArray[np.float64]

FORMAT = "tikmix-hf mixtures"
VERSION = 1


class Proposal(NamedTuple):
    """What one mixer would choose."""

    mixer: str
    settings: dict[str, Any]
    mixture: Array
    """(K,) its answer; the mixture in force where it has none."""
    notes: tuple[str, ...]
    gains: Array
    """(J,) S (w - q), 1 being what the target's strongest domain would gain (or lose) alone."""
    stderr: Array
    """(J,) standard error of `gains` over rounds, for a mixture chosen beforehand; NaN for one
    round. The mixture was chosen by the same rounds, so `gains` lean upwards."""
    verdict: Verdict | None
    """What text it was not chosen by says of it; None with one round, or nothing to judge."""


def default_mixers() -> tuple[str, ...]:
    """Names of the mixers that ask for influence and nothing else."""
    return tuple(n for n in mixers.available() if mixers.load(n).requires == {"influence"})


def propose(
    matrix: InfluenceMatrix,
    mixture: Array,
    methods: Mapping[str, Mixer[Any]],
    *,
    num_errors: float = 1.0,
) -> list[Proposal]:
    """Asks each mixer.

    Args:
        matrix: what was measured.
        mixture: (K,) the mixture in force q.
        methods: mixers by name.
        num_errors: standard errors that the noise guard asks for; 0 asks no guard.
    """
    proposals = []
    for name, mixer in methods.items():
        proposed_K, notes = _ask(mixer, matrix, mixture, matrix.values)
        gains_J, stderr_J = _gains(matrix, mixture, proposed_K)
        verdict = _judge(mixer, matrix, mixture, proposed_K, num_errors=num_errors)
        proposals.append(
            Proposal(name, mixer.describe(), proposed_K, notes, gains_J, stderr_J, verdict)
        )
    return proposals


def _ask(
    mixer: Mixer[Any], matrix: InfluenceMatrix, mixture_K: Array, values_JK: Array
) -> tuple[Array, tuple[str, ...]]:
    """A mixer's first answer to an influence, and its notes."""
    signals = Signals(
        step=0,
        domains=matrix.domains,
        targets=matrix.targets,
        mixture=mixture_K,
        influence=values_JK,
        stderr=matrix.stderr,
    )
    try:
        proposed_K, state = mixer.step(mixer.init(mixture_K), signals)
    except MixerError as err:
        return mixture_K, (f"no mixture found, kept: {err}",)
    return proposed_K, tuple(state.notes)


def _judge(
    mixer: Mixer[Any],
    matrix: InfluenceMatrix,
    mixture_K: Array,
    proposed_K: Array,
    *,
    num_errors: float,
) -> Verdict | None:
    """Cross-validates over rounds, as an update of `TikMixCallback` does."""
    rounds_RJK = matrix.rounds
    if num_errors == 0 or rounds_RJK is None or len(rounds_RJK) < 2:
        return None
    if np.array_equal(proposed_K, mixture_K):
        return None
    others_RJK = (rounds_RJK.sum(axis=0) - rounds_RJK) / (len(rounds_RJK) - 1)
    folds_RK = np.stack([_ask(mixer, matrix, mixture_K, other)[0] for other in others_RJK])
    return cross_validate(rounds_RJK, mixture_K, proposed_K, folds_RK, num_errors=num_errors)


def _gains(matrix: InfluenceMatrix, mixture_K: Array, proposed_K: Array) -> tuple[Array, Array]:
    """Gains of the move and their standard errors, (J,) each."""
    scale_J = scales(matrix, mixture_K)
    move_K = proposed_K - mixture_K
    gains_J = matrix.values @ move_K / scale_J
    if matrix.rounds is None or len(matrix.rounds) < 2:
        return gains_J, np.full(len(scale_J), np.nan)
    gains_RJ = matrix.rounds @ move_K / scale_J
    return gains_J, gains_RJ.std(axis=0, ddof=1) / len(gains_RJ) ** 0.5


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
    write_json(folder / "mixtures.json", record)
    for proposal in proposals:
        note = {"mixer": proposal.settings, "notes": list(proposal.notes), **about}
        segment = Segment(from_sample=0, mixture=proposal.mixture, update=note)
        MixtureSchedule(matrix.domains, (segment,)).save(folder / f"schedule-{proposal.mixer}.json")


def _as_record(proposal: Proposal, matrix: InfluenceMatrix, mixture_K: Array) -> dict[str, Any]:
    errors = [None if np.isnan(error) else float(error) for error in proposal.stderr]
    return {
        "settings": proposal.settings,
        "mixture": _named(matrix.domains, proposal.mixture),
        "change": total_variation(mixture_K, proposal.mixture),
        "notes": list(proposal.notes),
        "gain": _named(matrix.targets, proposal.gains),
        "gain_stderr": dict(zip(matrix.targets, errors, strict=True)),
        "noise_guard": None if proposal.verdict is None else proposal.verdict.to_dict(),
    }


def _named(names: Sequence[str], values: NDArray[Any]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
