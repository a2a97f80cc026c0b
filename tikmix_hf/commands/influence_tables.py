"""The tables of `tikmix influence`: influence, mixtures, promised gains.

In: a matrix, the mixture in force and the proposals. Out: text on the screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tikmix_hf.commands.proposals import Proposal
from tikmix_hf.signals.influence import InfluenceMatrix

# Shape letters: J targets, K domains.

# What a redirected table is wide: nothing in it is cut or wrapped.
_WIDE = 400


def show(
    matrix: InfluenceMatrix,
    mixture_K: NDArray[np.float64],
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
    for table in (
        _influence_table(matrix, num_models),
        _mixture_table(matrix, mixture_K, proposals),
        _gain_table(matrix, proposals),
    ):
        console.print(table)
    for proposal in proposals:
        for sentence in (*proposal.notes, *_verdict(proposal)):
            console.print(f"{proposal.mixer}: {sentence}", markup=False, highlight=False)


def _verdict(proposal: Proposal) -> list[str]:
    verdict = proposal.verdict
    if verdict is None:
        return []
    return [
        f"mean gain {verdict.promised:+.3f} promised, {verdict.confirmed:+.3f} ± "
        f"{verdict.stderr:.3f} on rounds it was not chosen by; the noise guard would let "
        f"{verdict.step:.0%} of the move through"
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
    matrix: InfluenceMatrix, mixture_K: NDArray[np.float64], proposals: Sequence[Proposal]
) -> Table:
    table = _table("Mixture (share of tokens)", ("domain", "in force", *_names(proposals)))
    for k, domain in enumerate(matrix.domains):
        table.add_row(domain, f"{mixture_K[k]:.3f}", *(f"{p.mixture[k]:.3f}" for p in proposals))
    return table


def _gain_table(matrix: InfluenceMatrix, proposals: Sequence[Proposal]) -> Table:
    table = _table(
        "Promised gain ± standard error over rounds (1: what the strongest domain would change "
        "alone)",
        ("target", *_names(proposals)),
    )
    for j, target in enumerate(matrix.targets):
        row = (f"{p.gains[j]:+.3f} ± {_error(p.stderr[j])}" for p in proposals)
        table.add_row(target, *row)
    return table


def _names(proposals: Sequence[Proposal]) -> list[str]:
    return [proposal.mixer for proposal in proposals]


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        justify = "left" if heading == headings[0] else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    return table


def _error(error: float) -> str:
    return "?" if math.isnan(error) else f"{error:.2g}"
