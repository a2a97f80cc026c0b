"""How long does one update of TiKMiX-M take, and how good is its answer to a known question?

    python eval/tikmix_m_speed.py

Influence is made up: 26 domains, 9 targets, four rounds, each the true influence plus noise of its
size. Timed is the mixer's step alone, 256 mixtures and both models included, LightGBM on one
thread: what was measured before is not counted. `gain` is how much of what a linear program gets
inside the box, by the true influence, the answer gets over the mixture in force; TiKMiX-D's is that
of its optimum within the box, which trades some of it for entropy.
"""

# Shape letters: J targets, K domains, R rounds.

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from provenance import save_result
from scipy.optimize import linprog
from tqdm.auto import tqdm

from tikmix_hf.mixers import Signals
from tikmix_hf.mixers.tikmix_d import solve
from tikmix_hf.mixers.tikmix_m import TikMixM

Array = NDArray[np.float64]

NUM_TARGETS, NUM_ROUNDS = 9, 4
SIZES = (8, 26, 100)
GOAL_SECONDS = 30.0
"""For an update at 26 domains."""


def question(num_domains: int, seed: int) -> tuple[Signals, Array]:
    """Signals of an update, and the true influence (J, K)."""
    rng = np.random.default_rng(seed)
    truth_JK = rng.standard_normal((NUM_TARGETS, num_domains)) + 0.5
    rounds_RJK = truth_JK + rng.standard_normal((NUM_ROUNDS, *truth_JK.shape))
    signals = Signals(
        step=1,
        domains=tuple(f"domain {k:03d}" for k in range(num_domains)),
        targets=tuple(f"target {j}" for j in range(NUM_TARGETS)),
        mixture=rng.dirichlet(np.full(num_domains, 3.0)),
        influence=rounds_RJK.mean(axis=0),
        rounds=rounds_RJK,
    )
    return signals, truth_JK


def gain(mixture_K: Array, anchor_K: Array, truth_JK: Array) -> float:
    """Part of what is to be had inside the box, by the sum of normalised true influence."""
    worth_K = (truth_JK / truth_JK.max(axis=1, keepdims=True)).sum(axis=0)
    best = linprog(
        -worth_K,
        A_eq=np.ones((1, len(worth_K))),
        b_eq=[1],
        bounds=np.column_stack([0.5 * anchor_K, np.minimum(2 * anchor_K, 1)]),
    )
    now = float(worth_K @ anchor_K)
    return (float(worth_K @ mixture_K) - now) / (-float(best.fun) - now)


def measure(num_domains: int, settings: dict[str, Any], seeds: range) -> dict[str, Any]:
    """A row of the table."""
    seconds, gains, starts, follows = [], [], [], []
    for seed in seeds:
        signals, truth_JK = question(num_domains, seed)
        mixer = TikMixM(**settings)
        begin = time.perf_counter()
        mixture_K, state = mixer.step(mixer.init(signals.mixture), signals)
        seconds.append(time.perf_counter() - begin)
        gains.append(gain(mixture_K, signals.mixture, truth_JK))
        box = (0.5 * signals.mixture, np.minimum(2 * signals.mixture, 1))
        assert signals.influence is not None
        start_K = solve(signals.influence, signals.mixture, constraints=box)
        starts.append(gain(start_K, signals.mixture, truth_JK))
        follows.append(any("follows LightGBM" in note for note in state.notes))
    pieces = settings.get("num_pieces", NUM_ROUNDS * num_domains)
    return {
        "domains": num_domains,
        "pieces of text": pieces,
        "surrogate": settings.get("surrogate", "better"),
        "seconds, median": f"{np.median(seconds):.2f}",
        "seconds, most": f"{max(seconds):.2f}",
        "gain": f"{np.mean(gains):.2f} ± {np.std(gains, ddof=1) / len(gains) ** 0.5:.2f}",
        "gain, TiKMiX-D": f"{np.mean(starts):.2f} ± "
        f"{np.std(starts, ddof=1) / len(starts) ** 0.5:.2f}",
        "followed LightGBM": f"{sum(follows)} of {len(follows)}",
    }


def main() -> None:
    """Measures, prints a table and files it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    measure(8, {}, range(2))  # LightGBM is imported once in a run
    variants = [(num_domains, {}) for num_domains in SIZES]
    many, trees = {"num_pieces": 10_000}, {"surrogate": "lightgbm"}
    variants += [(26, trees), (26, many), (26, {**many, **trees})]
    rows = [measure(*variant, seeds) for variant in tqdm(variants, desc="variants")]
    slowest = float(rows[SIZES.index(26)]["seconds, most"])
    save_result(
        "tikmix_m_speed",
        title="TiKMiX-M: an update's time",
        rows=rows,
        settings={
            "seeds": arguments.seeds,
            "targets": NUM_TARGETS,
            "rounds": NUM_ROUNDS,
            "mixtures": 256,
        },
        notes=f"256 mixtures, {NUM_TARGETS} targets, {NUM_ROUNDS} rounds, made-up influence, "
        "LightGBM on one thread; mean ± standard error. Gain: part of what a linear program gets "
        "inside the box, by the true influence. Goal: an update at 26 domains in less than "
        f"{GOAL_SECONDS:.0f} s; the slowest took {slowest:.2f} s, so it is "
        f"{'held' if slowest < GOAL_SECONDS else 'missed'}.",
        packages=("lightgbm", "numpy", "scipy"),
    )


if __name__ == "__main__":
    main()
