"""Claim: TiKMiX-D chooses at a fifth of RegMix's cost, and its mixture trains better models.

    python eval/arena.py --config eval/arena_small.yaml && python eval/report_arena.py ...
    python eval/reproduce/regmix_cost.py

The paper (Wang et al., TiKMiX, arXiv 2508.17677, 2025) counts 7.2e17 FLOPs for choosing by TiKMiX-D
and 3.7e18 for RegMix, which is 0.19, and average scores of 45.5 and 43.9 (1B). Here both are
entries of the arena: FLOPs of choosing are those of measuring influence, and those of RegMix's
proxies; losses are the bits per byte of the targets' judged text, paired by seed. In: a report's
`_runs.jsonl`. Nothing is trained.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the programs beside this folder

import provenance
from arena_statistics import Record, Runs, group, paired
from report_arena import read_lines

from reproduce import verdict
from reproduce.study import Finding, save
from tikmix_hf import figures

PAPER_RATIO = 0.19
BAR = 0.2
"""A fifth."""


class Compared(NamedTuple):
    """An entry against RegMix."""

    entry: str
    """Ours."""
    ratio: verdict.Interval
    """Of the cost of choosing."""
    gap: verdict.Interval
    """Of the loss, less RegMix's."""
    gaps: list[float]
    """By seed."""
    parts: tuple[str, str]
    """Verdicts on cost and loss."""


def compare(
    runs: Runs, entry: str, other: str
) -> tuple[verdict.Interval, list[float], list[float]]:
    """Cost of choosing, entry's to the other's, and losses less the other's.

    Args:
        runs: of one regime.
        entry: ours.
        other: RegMix's.

    Returns:
        The mean ratio over seeds with its interval, the ratios and the differences by seed.

    Raises:
        ValueError: there are no runs of one of them, or no seed in common.
    """
    for name in (entry, other):
        if name not in runs:
            raise ValueError(f"`--runs` has no run of {name!r}; it has {', '.join(runs)}.")
    seeds, gaps = paired(runs, entry, other)
    if not seeds:
        raise ValueError(f"`--runs` must have a seed in common of {entry!r} and {other!r}.")
    ratios = [
        runs[entry][s]["choosing"]["flops"] / runs[other][s]["choosing"]["flops"] for s in seeds
    ]
    return verdict.of_mean(ratios), ratios, gaps


def report(records: Sequence[Record], *, entries: Sequence[str], other: str) -> Finding:
    """The finding of every regime that has RegMix; the first entry in the first one decides."""
    rows: list[dict[str, Any]] = []
    found: list[Compared] = []
    for regime in dict.fromkeys(record["regime"] for record in records):
        runs = group(records, regime)
        for entry in entries if other in runs else ():
            line, own = row(runs, entry, other)
            rows.append({"regime": regime, **line})
            found.append(own)
    if not found:
        raise ValueError(f"`--runs` has no run of {other!r}.")
    parts = found[0].parts
    return Finding(
        title="The cost of choosing, and the loss, against RegMix",
        verdict=verdict.Verdict(
            claim=f"TiKMiX-D chooses with less than {BAR} of RegMix's FLOPs ({parts[0]}), and the "
            f"model it trains is better ({parts[1]}).",
            paper=f"{PAPER_RATIO} of the FLOPs; average score 45.5 to 43.9",
            ours="; ".join(
                f"{own.entry}: {own.ratio} of the FLOPs, {own.gap.signed} bits per byte"
                for own in found[: len(entries)]
            ),
            held=verdict.together(parts),
        ),
        rows=rows,
        notes="FLOPs of choosing: 6 for each parameter and token, of measuring influence and of "
        "RegMix's proxies. Differences of the targets' bits per byte are paired by seed (Student "
        "t); negative: lower than RegMix's.",
        draw=lambda path: draw(found, other, path),
    )


def row(runs: Runs, entry: str, other: str) -> tuple[dict[str, Any], Compared]:
    """A line of the table, and what it is made of."""
    ratio, ratios, gaps = compare(runs, entry, other)
    gap = verdict.of_mean(gaps)
    parts = verdict.held(ratio, BAR, above=False), verdict.held(gap, 0.0, above=False)
    line = {
        "entry": entry,
        "seeds": len(gaps),
        "cost of choosing (95 % interval)": str(ratio),
        "by seed": " ".join(f"{value:.4f}" for value in ratios),
        "bits per byte less RegMix's (95 % interval)": gap.signed,
        "loss by seed": " ".join(f"{value:+.4f}" for value in gaps),
        "cheaper": parts[0],
        "better": parts[1],
    }
    return line, Compared(entry, ratio, gap, gaps, parts)


def draw(found: Sequence[Compared], other: str, path: Path) -> None:
    """Differences of the loss, by entry."""
    figure = figures.new_figure(width=5, height=1.2 + 0.4 * len(found))
    axes = figure.subplots()
    for place, own in enumerate(found):
        axes.plot([own.gap.low, own.gap.high], [place, place], color="black")
        axes.plot(own.gaps, [place] * len(own.gaps), "o", color=figures.colour(place))
    axes.set_yticks(range(len(found)), [own.entry for own in found])
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel(f"bits per byte less {other}'s; dots: seeds, line: 95 % interval")
    figures.save(figure, path)


def main() -> None:
    """Reads the runs and files the finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=provenance.RESULTS / "arena_small_runs.jsonl")
    parser.add_argument("--entries", nargs="+", default=["tikmix_d", "tikmix_d_paper"])
    parser.add_argument("--other", default="regmix")
    words = parser.parse_args()
    try:
        finding = report(read_lines(words.runs), entries=words.entries, other=words.other)
    except (ValueError, OSError) as err:
        raise SystemExit(str(err)) from err
    told = {"runs": words.runs.name, "entries": words.entries, "other": words.other}
    save("regmix_cost", finding, told, None)


if __name__ == "__main__":
    main()
