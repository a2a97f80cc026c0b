"""The tables of `tikmix influence`: influence, mixtures, promised gains.

In: a matrix, the mixture in force and the proposals. Out: text on the screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.commands import screen
from tikmix_hf.commands.proposals import Proposal, gains
from tikmix_hf.signals.matrix import InfluenceMatrix

# Shape letters: J targets, K domains.

_Array = NDArray[np.float64]

# Title, headings, rows.
_Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
# After a mixer's name, heads its own answer.
_OWN = " unguarded"


def show(
    matrix: InfluenceMatrix,
    mixture_K: _Array,
    proposals: Sequence[Proposal],
    num_models: int = 1,
) -> None:
    """Prints all tables, and what mixers have to say in words.

    Args:
        matrix: what was measured.
        mixture_K: (K,) the mixture in force.
        proposals: what mixers chose.
        num_models: models that `matrix` is the mean of.
    """
    screen.table(*_influence_table(matrix, num_models))
    answers = _answers(proposals)
    screen.table(*_mixture_table(matrix, mixture_K, answers))
    screen.table(*_gain_table(matrix, mixture_K, answers))
    for proposal in proposals:
        for sentence in (*proposal.notes, *_verdict(proposal)):
            screen.say(f"{proposal.mixer}: {sentence}")


def _verdict(proposal: Proposal) -> list[str]:
    """What the guard's figures are, where its note does not tell them."""
    verdict = proposal.verdict
    if verdict is None or verdict.step == 0:
        return []
    whole = "; the noise guard lets all of it through" if verdict.step == 1 else ""
    return [
        f"its own answer promises a mean gain of {verdict.promised:+.3f}; on rounds that it was "
        f"not chosen by, {verdict.confirmed:+.3f} ± {verdict.stderr:.3f}{whole}"
    ]


def _influence_table(matrix: InfluenceMatrix, num_models: int) -> _Table:
    of = f", mean of {num_models} models in units of their own" if num_models > 1 else ""
    title = (
        f"Influence of each domain (row) on each target (column){of}: value ± standard error by "
        "the domain's text ± by the target's. Positive lowers the loss; compare within a column "
        f"only. By {matrix.preconditioner}, from {matrix.num_tokens:,} tokens in "
        f"{matrix.seconds:.1f} s."
    )
    rows = []
    sizes_J = np.abs(matrix.values).max(axis=1)
    for k, domain in enumerate(matrix.domains):
        row = [domain]
        for j, size in enumerate(sizes_J):
            entries = (matrix.values, matrix.domain_stderr, matrix.target_stderr)
            row.append(" ± ".join(_number(entry[j, k], size) for entry in entries))
        rows.append(row)
    return title, ("domain", *matrix.targets), rows


def _mixture_table(
    matrix: InfluenceMatrix, mixture_K: _Array, answers: Mapping[str, _Array]
) -> _Table:
    rows = [
        [domain, f"{mixture_K[k]:.3f}", *(f"{w[k]:.3f}" for w in answers.values())]
        for k, domain in enumerate(matrix.domains)
    ]
    title = "Mixture (share of tokens): that in force, and what each mixer would make of it."
    if len(answers) > len({heading.removesuffix(_OWN) for heading in answers}):
        title += f' "{_OWN.strip()}" is the mixer\'s own answer, before the noise guard.'
    return title, ("domain", "in force", *answers), rows


def _gain_table(
    matrix: InfluenceMatrix, mixture_K: _Array, answers: Mapping[str, _Array]
) -> _Table:
    title = (
        "Gain that each mixture promises each target ± standard error over rounds. 1 is the most "
        "that moving everything to one domain would change."
    )
    rows = []
    promised = [gains(matrix, mixture_K, proposed_K) for proposed_K in answers.values()]
    for j, target in enumerate(matrix.targets):
        row = [f"{one.values[j]:+.3f} ± {_number(one.stderr[j], 1.0)}" for one in promised]
        rows.append([target, *row])
    return title, ("target", *answers), rows


def _answers(proposals: Sequence[Proposal]) -> dict[str, _Array]:
    """(K,) mixtures by heading: what would be announced, and the mixer's own where that differs."""
    answers = {}
    for proposal in proposals:
        answers[proposal.mixer] = proposal.mixture
        if not np.array_equal(proposal.mixture, proposal.unguarded):
            answers[f"{proposal.mixer}{_OWN}"] = proposal.unguarded
    return answers


def _number(value: float, size: float) -> str:
    """A number as exact as four digits of the largest beside it, `size`, are; "?" is unknown."""
    if math.isnan(value):
        return "?"
    if not 1e-4 <= size < 1e7:
        return f"{value:.3g}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}"
