"""How much text does the ranking of the domains take?

    python eval/ranking.py                # checkpoints of eval/influence_fidelity.py

At checkpoints that `fidelity_truth` trained, influence is measured as an update does it, on so many
rows of each domain and target in four rounds, and compared with a measurement of 640 rows, or as
many as there are, of other text. Compared is the ranking of the domains by Kendall's tau: by their
gain over the uniform mixture, averaged over targets each in its own scale, which is what the mixer
sees; and within each target. `swaps`: pairs of neighbours whose order differs, of 28 pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import fidelity_text
import numpy as np
import torch
from fidelity_text import Text, pools_of_rounds
from fidelity_truth import Setting, checkpoint
from provenance import RESULTS, save_result
from scipy import stats
from tqdm.auto import tqdm

from tikmix_hf import GroupInfluence, InfluenceMatrix
from tikmix_hf.signals import preconditioners

NUM_ROUNDS = 4
ROWS = (16, 32, 64, 128)
REFERENCE_ROWS = 640
TIMES = 10
CHECKPOINTS = (("small", 300), ("small", 1200), ("quickstart", 300))


def scores(matrix: InfluenceMatrix, mixture_K: np.ndarray) -> np.ndarray:
    """(K,) gain of each domain over the mixture in force, mean over targets in their own scale."""
    centred_JK = matrix.centred(mixture_K)
    return (centred_JK / np.abs(centred_JK).max(axis=1, keepdims=True)).mean(axis=0)


def tau(first: InfluenceMatrix, second: InfluenceMatrix, mixture_K: np.ndarray) -> dict[str, float]:
    """Kendall's tau of the domains, over all targets and as a mean of single targets."""
    kendalltau: Any = stats.kendalltau  # SciPy's result has no types
    single = [
        float(kendalltau(one, other).statistic)
        for one, other in zip(first.values, second.values, strict=True)
    ]
    both = kendalltau(scores(first, mixture_K), scores(second, mixture_K)).statistic
    return {"overall": float(both), "single targets": float(np.mean(single))}


def measure(
    setting: Setting, text: Text, name: str, *, first_row: int, num_rows: int
) -> InfluenceMatrix:
    """The mean of four rounds, kept on disk; pools that are too short give what they have."""
    last_row = first_row + num_rows
    path = setting.folder / "predictions" / f"{name} rows {first_row} to {last_row}.json"
    if path.exists():
        return InfluenceMatrix.load(path)
    model, optimizer = checkpoint(setting, text)
    engine = GroupInfluence(model, preconditioner=name, optimizer=optimizer)
    sides = [
        _rounds(pools, first_row, last_row) for pools in (text.domain_pools, text.target_pools)
    ]
    rounds = [
        engine.measure(domains, targets, refit=not number)
        for number, (domains, targets) in enumerate(zip(*sides, strict=True))
    ]
    matrix = InfluenceMatrix.mean(rounds)
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix.save(path)
    return matrix


def _rounds(
    pools: dict[str, torch.Tensor], first_row: int, last_row: int
) -> list[dict[str, fidelity_text.Batches]]:
    rounds: list[dict[str, fidelity_text.Batches]] = [{} for _ in range(NUM_ROUNDS)]
    for name, rows_NT in pools.items():
        own = {name: rows_NT[first_row:last_row]}
        sizes = [len(part) for part in torch.tensor_split(own[name], NUM_ROUNDS)]
        for round_, batches in zip(rounds, pools_of_rounds(own, 0, sizes), strict=True):
            round_ |= batches
    return rounds


def main() -> None:
    """Measures what is missing and files the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--preconditioner", default="kfac", choices=preconditioners.available())
    parser.add_argument("--folder", type=Path, default=RESULTS.parents[1] / "runs" / "fidelity")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = fidelity_text.load()
    settings = [
        Setting(size=size, steps=steps, seed=seed, root=arguments.folder)
        for size, steps in CHECKPOINTS
        for seed in arguments.seed
    ]
    rows = []
    for setting in tqdm(settings, desc="checkpoints"):
        name = arguments.preconditioner
        reference = measure(setting, text, name, first_row=max(ROWS), num_rows=REFERENCE_ROWS)
        uniform_K = np.full(len(reference.domains), 1 / len(reference.domains))
        for num_rows in ROWS:
            own = measure(setting, text, name, first_row=0, num_rows=num_rows)
            agreement = tau(own, reference, uniform_K)
            rows.append({"checkpoint": setting.size, "rows": num_rows, **agreement})
    num_pairs = len(text.domain_pools) * (len(text.domain_pools) - 1) // 2
    save_result(
        "ranking",
        title="The ranking of the domains, by the rows that are measured",
        rows=[
            _summary(rows, size, num_rows, num_pairs)
            for size in dict(CHECKPOINTS)
            for num_rows in ROWS
        ],
        settings={"preconditioner": arguments.preconditioner, "seeds": arguments.seed},
        notes=f"Kendall's tau against {REFERENCE_ROWS} other rows of each domain and target, "
        "or as many as there are; mean ± standard error over checkpoints and seeds.",
    )


def _summary(
    rows: list[dict[str, Any]], size: str, num_rows: int, num_pairs: int
) -> dict[str, Any]:
    own = [row for row in rows if (row["checkpoint"], row["rows"]) == (size, num_rows)]
    line: dict[str, Any] = {"model": size, "rows": num_rows}
    for kind in ("overall", "single targets"):
        values = np.array([row[kind] for row in own])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        line[f"tau, {kind}"] = f"{values.mean():.3f} ± {error:.3f}"
    overall = np.array([row["overall"] for row in own])
    line["swaps"] = f"{(1 - overall.mean()) / 2 * num_pairs:.1f}"
    line["tau >= 0.9"] = f"{int((overall > 0.9).sum())} of {len(overall)}"
    return line


if __name__ == "__main__":
    main()
