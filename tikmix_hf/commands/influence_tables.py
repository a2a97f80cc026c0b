"""The tables of `tikmix influence`: influence, mixtures, promised gains.

In: a matrix, the mixture in force and the proposals. Out: text on the screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tikmix_hf.commands.proposals import Proposal, gains
from tikmix_hf.signals.influence import InfluenceMatrix

# Shape letters: J targets, K domains.

_Array = NDArray[np.float64]

# What a redirected table is wide: nothing in it is cut or wrapped.
_WIDE = 400


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
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    answers = _answers(proposals)
    for table in (
        _influence_table(matrix, num_models),
        _mixture_table(matrix, mixture_K, answers),
        _gain_table(matrix, mixture_K, answers),
    ):
        console.print(table)
    for proposal in proposals:
        for sentence in (*proposal.notes, *_verdict(proposal)):
            console.print(f"{proposal.mixer}: {sentence}", markup=False, highlight=False)


def _verdict(proposal: Proposal) -> list[str]:
    """What the guard's figures are, where its note does not tell them."""
    verdict = proposal.verdict
    if verdict is None or verdict.step == 0:
        return []
    whole = "; the noise guard lets the whole move through" if verdict.step == 1 else ""
    return [
        f"mean gain {verdict.promised:+.3f} promised, {verdict.confirmed:+.3f} ± "
        f"{verdict.stderr:.3f} on rounds it was not chosen by{whole}"
    ]


def _influence_table(matrix: InfluenceMatrix, num_models: int) -> Table:
    of = f"mean of {num_models} models in units of their own, " if num_models > 1 else ""
    table = _table(
        f"Influence ({matrix.preconditioner}, {of}{matrix.num_tokens:,} tokens, "
        f"{matrix.seconds:.1f} s): value ± standard error of the domain's text ± of the target's. "
        "Compare within a target.",
        ("domain", *matrix.targets),
    )
    for k, domain in enumerate(matrix.domains):
        cells = zip(
            matrix.values[:, k],
            matrix.domain_stderr[:, k],
            matrix.target_stderr[:, k],
            strict=True,
        )
        row = (f"{value:.4g} ± {_error(ours)} ± {_error(theirs)}" for value, ours, theirs in cells)
        table.add_row(domain, *row)
    return table


def _mixture_table(
    matrix: InfluenceMatrix, mixture_K: _Array, answers: Mapping[str, _Array]
) -> Table:
    table = _table("Mixture (share of tokens)", ("domain", "in force", *answers))
    for k, domain in enumerate(matrix.domains):
        table.add_row(domain, f"{mixture_K[k]:.3f}", *(f"{w[k]:.3f}" for w in answers.values()))
    return table


def _gain_table(matrix: InfluenceMatrix, mixture_K: _Array, answers: Mapping[str, _Array]) -> Table:
    table = _table(
        "Promised gain ± standard error over rounds (1: what the strongest domain would change "
        "alone)",
        ("target", *answers),
    )
    promised = [gains(matrix, mixture_K, proposed_K) for proposed_K in answers.values()]
    for j, target in enumerate(matrix.targets):
        row = (f"{one.values[j]:+.3f} ± {_error(one.stderr[j])}" for one in promised)
        table.add_row(target, *row)
    return table


def _answers(proposals: Sequence[Proposal]) -> dict[str, _Array]:
    """(K,) mixtures by heading: what would be announced, and the mixer's own where that differs."""
    answers = {}
    for proposal in proposals:
        answers[proposal.mixer] = proposal.mixture
        if not np.array_equal(proposal.mixture, proposal.unguarded):
            answers[f"{proposal.mixer} unguarded"] = proposal.unguarded
    return answers


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        justify = "left" if heading == headings[0] else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    return table


def _error(error: float) -> str:
    return "?" if math.isnan(error) else f"{error:.2g}"
