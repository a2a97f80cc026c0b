"""Claim: which domains help changes while a model trains, and differs by the model's size.

    python eval/reproduce/drift.py

The paper (Wang et al., TiKMiX, arXiv 2508.17677, 2025) shows it in pictures, without a figure. Here
models of two sizes train on the uniform mixture; at four checkpoints influence is measured twice,
on rows of which none is in both. Domains are ranked by influence, and rankings compared by
Spearman's correlation within each target. Noise alone makes two measurements differ, so every
correlation is of measurements on different rows, and drift is what is lost against the ceiling:
against two measurements at one checkpoint for training time, and for size against models of the
same size and another seed at the same step. Without a ceiling drift would mean nothing.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the programs beside this folder

import numpy as np
from arena_config import Arena
from arena_jobs import TEXT, Job
from arena_training import make_model
from fidelity_scores import spearman

from reproduce import trained, verdict
from reproduce.study import Finding, Record, Setting, Study, main
from tikmix_hf import figures

# J targets, K domains, C checkpoints, S seeds; two measurements of each.

SIZES = {"small": 1, "double": 2}
"""Times width and depth."""
PARTS = (0, 1)


def checkpoints(steps: int) -> tuple[int, ...]:
    """An eighth, a quarter, a half and all of the steps; each later than the one before."""
    return tuple(sorted({max(1, steps // part) for part in (8, 4, 2, 1)}))


def changes(arena: Arena, times: int) -> dict[str, Any]:
    """LlamaConfig settings of a model so many times as wide and deep."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    return {name: times * arena.model[name] for name in names}


def jobs(setting: Setting) -> list[Job]:
    """A run for each size and seed, the longer ones first."""
    return [
        Job(name=f"{size}-{seed}", kind="run", entry=size, number=seed, needs=(TEXT,))
        for size in reversed(SIZES)
        for seed in setting.seeds
    ]


def do(setting: Setting, job: Job) -> Record:
    """Trains a model and measures it twice at each checkpoint."""
    text, own = setting.text(), changes(setting.arena, SIZES[job.entry])
    at = checkpoints(setting.steps)
    done = trained.run(setting, text, "uniform", trained.Run(seed=job.number, keep=at, changes=own))
    model = make_model(setting.arena, text, job.number, own)
    values = []
    for step in at:
        model.load_state_dict(done.kept[step])
        pair = [trained.influence(model, text, setting.rows, part=part) for part in PARTS]
        values.append([matrix.values.tolist() for matrix in pair])
    return {
        "steps": list(at),
        "targets": list(text.measured),
        "num_parameters": done.cost["num_parameters"],
        "values": values,
    }


def agreement(one_JK: np.ndarray, other_JK: np.ndarray) -> float:
    """Spearman's correlation of the domains' ranks, mean over targets."""
    pairs = zip(one_JK, other_JK, strict=True)
    return float(np.mean([spearman(one_K, other_K) for one_K, other_K in pairs]))


def crossed(one_PJK: np.ndarray, other_PJK: np.ndarray) -> float:
    """Agreement of two places, of each with the other's rows, so that noise is the same."""
    first, second = PARTS
    return (
        agreement(one_PJK[first], other_PJK[second]) + agreement(one_PJK[second], other_PJK[first])
    ) / 2


def over_time(values_CPJK: np.ndarray) -> np.ndarray:
    """(C, C) agreement of a run's checkpoints; the diagonal is the ceiling."""
    num = len(values_CPJK)
    found = np.zeros((num, num))
    for one, other in itertools.product(range(num), repeat=2):
        found[one, other] = crossed(values_CPJK[one], values_CPJK[other])
    return found


def ceiling(one: float, other: float) -> float:
    """What two noisy measurements of the same thing agree to, from how far each repeats itself.

    The geometric mean (Spearman 1904): noise divides each side's share of the covariance by the
    root of its own reliability. 0 where a measurement does not repeat itself at all.
    """
    return math.sqrt(max(one, 0.0) * max(other, 0.0))


def drift(agreement_CC: np.ndarray) -> float:
    """What the first and the last checkpoint lose against what noise leaves of them."""
    return ceiling(agreement_CC[0, 0], agreement_CC[-1, -1]) - float(agreement_CC[0, -1])


def size_gaps(values: Mapping[str, np.ndarray]) -> list[float]:
    """What other sizes lose against the same size and another seed, mean over steps.

    Args:
        values: size to (S, C, P, J, K) of the same seeds and checkpoints.

    Returns:
        One number for each two seeds, of which none is in two pairs, so that they are independent;
        a seed that is left over is not used.
    """
    small, large = (values[size] for size in SIZES)
    num_seeds, num_checkpoints = small.shape[:2]
    gaps = []
    for one in range(0, num_seeds - 1, 2):
        lost = []
        for c in range(num_checkpoints):
            first, second = ((small[seed, c], large[seed, c]) for seed in (one, one + 1))
            same = [crossed(a, b) for a, b in zip(first, second, strict=True)]
            across = [crossed(first[0], second[1]), crossed(first[1], second[0])]
            lost.append(ceiling(*same) - np.mean(across))
        gaps.append(float(np.mean(lost)))
    return gaps


def report(setting: Setting, records: Mapping[str, Record]) -> Finding:
    """Drift over time and across sizes, each against its ceiling."""
    values = {
        size: np.array([records[f"{size}-{seed}"]["values"] for seed in setting.seeds])
        for size in SIZES
    }
    times = {size: [over_time(run) for run in own] for size, own in values.items()}
    # Two sizes of a seed saw the same text in the same order: they are one run here.
    over_runs = verdict.of_mean(
        [float(np.mean([drift(run) for run in runs])) for runs in zip(*times.values(), strict=True)]
    )
    gaps = size_gaps(values)
    across = verdict.of_mean(gaps) if gaps else verdict.Interval(*3 * [float("nan")])
    parts = verdict.held(over_runs, 0.0), verdict.held(across, 0.0)
    at = checkpoints(setting.steps)
    return Finding(
        title="Which domains help: over training time, and by size",
        verdict=verdict.Verdict(
            claim=f"The ranking of domains by influence changes while training ({parts[0]}) and "
            f"differs by the model's size ({parts[1]}): agreement falls below that of two "
            "measurements.",
            paper="pictures, no figure",
            ours=f"Spearman lost from step {at[0]} to {at[-1]}: {over_runs}; lost across sizes: "
            f"{across if gaps else 'not measured, with one seed'}",
            held=verdict.together(parts),
        ),
        rows=table(setting, records, times),
        notes="Spearman's correlation of domains' ranks within a target, mean over "
        f"{len(records[f'small-{setting.seeds[0]}']['targets'])} targets and "
        f"{len(setting.seeds)} seeds, always of measurements on different rows ({setting.rows} of "
        "each domain and target). Where a step meets itself is the ceiling that noise leaves. "
        "`lost` is the geometric mean of both ends' ceilings less their agreement, with its "
        "interval over seeds (Student t; in the verdict of the mean over sizes). Across sizes, "
        "at the same step, the ceiling is that of two seeds of one size, so that what differs by "
        "chance between two models is no difference of size; intervals are over pairs of seeds, "
        "none of them in two.",
        draw=lambda path: draw(times, at, path),
    )


def table(
    setting: Setting, records: Mapping[str, Record], times: Mapping[str, list[np.ndarray]]
) -> list[dict[str, Any]]:
    """A line for each size and checkpoint: its agreement with all checkpoints."""
    at, rows = checkpoints(setting.steps), []
    for size, own in times.items():
        parameters = records[f"{size}-{setting.seeds[0]}"]["num_parameters"]
        mean_CC, lost = np.mean(own, axis=0), verdict.of_mean([drift(run) for run in own])
        for c, step in enumerate(at):
            rows.append(
                {
                    "size": f"{size} ({parameters:,.0f})",
                    "step": step,
                    **{f"with step {other}": f"{mean_CC[c, n]:.3f}" for n, other in enumerate(at)},
                    "lost from first to last": str(lost) if not c else None,
                }
            )
    return rows


def draw(times: Mapping[str, list[np.ndarray]], at: tuple[int, ...], path: Path) -> None:
    """Agreement with the last checkpoint, and the ceiling, by size."""
    figure = figures.new_figure(width=5, height=3.6)
    axes = figure.subplots()
    for k, (size, own) in enumerate(times.items()):
        mean_CC = np.mean(own, axis=0)
        axes.plot(at, mean_CC[:, -1], "o-", color=figures.colour(k), label=f"{size}: with the last")
        ceiling = np.diag(mean_CC)
        axes.plot(at, ceiling, ":", color=figures.colour(k), label=f"{size}: ceiling")
    axes.set_xscale("log")
    axes.set_xticks(at, [str(step) for step in at], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("step of the checkpoint")
    axes.set_ylabel("Spearman's correlation of domains")
    axes.legend(fontsize="small")
    figures.save(figure, path)


STUDY = Study(
    name="drift",
    targets="paper",
    defaults={"seeds": [0, 1, 2, 3], "steps": 600, "rows": 96, "mixtures": 0, "limit": 0},
    jobs=jobs,
    do=do,
    report=report,
)

if __name__ == "__main__":
    main(STUDY, __doc__ or "")
