"""Does influence predict what training really does? Every preconditioner against real runs.

    python eval/influence_fidelity.py                        # everything that is not on disk yet
    python eval/influence_fidelity.py --size small --seed 0 --no-report

At each checkpoint influence is measured once (64 rows of each domain and target in 4 rounds), and
from it training goes on for 5, 20 and 80 steps on each domain alone, on 12 random mixtures and on
the mixture in force. Compared are the predicted and the real decreases of the targets' losses, on
rows that influence was not measured on. The ceiling is a repetition of the real runs: other order
of rows, other rows of the targets. They take most of the time and are repeated at one checkpoint.

Everything is kept under `--folder`; a killed run goes on where it stopped, and a preconditioner
that is new reuses checkpoints and real runs. Written are `eval/results/influence_fidelity*`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fidelity_report as report
import fidelity_text
import numpy as np
import torch
from fidelity_predictions import (
    BUDGET,
    OWN_BUDGET,
    OWN_CHECKPOINTS,
    budgets,
    default,
    parts,
    predict,
)
from fidelity_scores import mixture_influence, pearson, repeatability, scores
from fidelity_text import JUDGED_ROWS, Text
from fidelity_truth import HORIZONS, IN_FORCE, NUM_MIXTURES, SIZES, Setting, measure_truth
from provenance import RESULTS, save_result

from tikmix_hf.signals import InfluenceMatrix, preconditioners

CHECKPOINTS = {"small": (300, 1200), "quickstart": (300,)}
"""Steps to the checkpoints of each size."""
REPEATED = (("small", 300),)
"""Checkpoints (of every seed) whose real runs are repeated, and where other budgets are tried."""
VARIED = report.DEFAULT
"""The preconditioner whose budget is varied, and its parameters at every checkpoint."""


def settings(args: argparse.Namespace) -> Iterator[Setting]:
    """All checkpoints that the command line selects."""
    for size in args.size:
        for steps in CHECKPOINTS[size]:
            for seed in args.seed:
                yield Setting(size=size, steps=steps, seed=seed, root=args.folder)


def is_repeated(setting: Setting) -> bool:
    """Whether this checkpoint's real runs are repeated, and other budgets tried."""
    return (setting.size, setting.steps) in REPEATED


def decreases(truth: dict[str, Any], horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real decreases of the losses by a horizon.

    Returns:
        Of all runs but the one on the mixture in force (J, R), their mixtures (R, K), and the
        decreases of that one (J,), in nats per token.
    """
    position = list(truth["horizons"]).index(horizon)
    change = {
        name: np.subtract(run["losses"][0], run["losses"][position])
        for name, run in truth["runs"].items()
    }
    in_force_J = change.pop(IN_FORCE)
    mixtures_RK = np.array([truth["runs"][name]["mixture"] for name in change])
    return np.stack(list(change.values()), axis=1), mixtures_RK, in_force_J


def score_rows(
    setting: Setting, truth: dict[str, Any], predictor: str, predictions: Any
) -> Iterator[dict[str, Any]]:
    """Scores of one predictor at one checkpoint.

    Args:
        setting: the checkpoint.
        truth: record of its real runs.
        predictor: what to call it.
        predictions: a matrix, or the record of a repetition.
    """
    rounds = predictions.rounds if isinstance(predictions, InfluenceMatrix) else None
    repeats = None if rounds is None or len(rounds) < 2 else repeatability(rounds)
    for horizon in HORIZONS[1:]:
        real_JR, mixtures_RK, real_in_force_J = decreases(truth, horizon)
        if isinstance(predictions, InfluenceMatrix):
            force_K = np.array(truth["runs"][IN_FORCE]["mixture"])
            predicted_JR = mixture_influence(predictions.values, mixtures_RK)
            predicted_in_force_J = predictions.values @ force_K
        else:
            predicted_JR, _, predicted_in_force_J = decreases(predictions, horizon)
        for kind, runs in _runs_by_kind(len(mixtures_RK)).items():
            yield {
                "checkpoint": f"{setting.size}, {setting.steps} steps",
                "seed": setting.seed,
                "predictor": predictor,
                "runs": kind,
                "steps": horizon,
                "repeats": repeats,
                **scores(
                    predicted_JR[:, runs],
                    real_JR[:, runs],
                    predicted_in_force_J=predicted_in_force_J,
                    real_in_force_J=real_in_force_J,
                ),
            }


def _runs_by_kind(num_runs: int) -> dict[str, slice]:
    """Domains alone come first, then mixtures."""
    num_domains = num_runs - NUM_MIXTURES
    return {"domains": slice(num_domains), "mixtures": slice(num_domains, None)}


def variant_rows(setting: Setting, text: Text, truth: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Scores of the default measurement and its variants, with how well they agree with it."""
    usual = predict(setting, text, default(VARIED))
    ways = [*parts(VARIED), *(budgets(VARIED) if is_repeated(setting) else [])]
    for measurement in [default(VARIED), *ways]:
        matrix = predict(setting, text, measurement)
        pairs = zip(matrix.values, usual.values, strict=True)
        extra = {
            "agreement": float(np.mean([pearson(*pair) for pair in pairs])),
            "rows": sum(measurement.rows_by_round),
        }
        for row in score_rows(setting, truth, measurement.name, matrix):
            yield row | extra


def compare(args: argparse.Namespace) -> None:
    """Scores every prediction, prints the tables and files them."""
    text = fidelity_text.load()
    rows: list[dict[str, Any]] = []
    varied: list[dict[str, Any]] = []
    harmful, positive = [], []
    for setting in settings(args):
        truth = measure_truth(setting, text, 0)
        for name in args.preconditioner:
            here = (setting.size, setting.steps)
            if here not in OWN_CHECKPOINTS.get(name, (here,)):
                continue
            matrix = predict(setting, text, default(name))
            rows += score_rows(setting, truth, name, matrix)
            positive.append(np.mean(matrix.values > 0))
        harmful += [np.mean(decreases(truth, horizon)[0] < 0) for horizon in HORIZONS[1:]]
        if is_repeated(setting):
            rows += score_rows(setting, truth, report.AGAIN, measure_truth(setting, text, 1))
        varied += variant_rows(setting, text, truth)
    costly = [name for name in args.preconditioner if name in OWN_BUDGET]
    told = {name: value for name, value in vars(args).items() if name != "folder"}
    told |= {"checkpoints": CHECKPOINTS, "horizons": HORIZONS, "judged_rows": JUDGED_ROWS}
    notes = (
        f"`pearson` and `spearman` are within a target, across runs (the same for S and for S "
        f"centred), mean over targets, ± standard error over checkpoints and seeds; `less "
        f"{report.BASELINE}` is paired; `repeats`: agreement with another measurement of as much "
        f"text, from the rounds of this one. The others pool targets and runs, raw or beyond the "
        f"mixture in force. `{report.AGAIN}` is the agreement r of two repetitions, at the "
        f"checkpoints that were repeated; a predictor without any error would agree with one of "
        f"them by the root of r. "
        f"In truth {np.mean(harmful):.0%} of runs raised a target's loss; {np.mean(positive):.0%} "
        f"of the entries of S are positive."
        + "".join(
            f" `{name}` is measured in one round, and only at "
            + ", ".join(f"{size}, {steps} steps" for size, steps in OWN_CHECKPOINTS[name])
            + "; compare it by checkpoint."
            for name in costly
        )
    )
    save_result(
        "influence_fidelity",
        title="Predicted against real decrease of targets' losses",
        rows=report.summary(rows),
        settings=told,
        notes=notes,
    )
    save_result(
        "influence_fidelity_checkpoints",
        title="The same by checkpoint: Pearson within targets, 20 steps",
        rows=report.by_checkpoint(rows, steps=20),
        settings=told,
        notes="Mean ± standard error over seeds.",
    )
    save_result(
        "influence_fidelity_variants",
        title=f"Other rows, budgets and parameters: `{VARIED}`",
        rows=report.of_variants(varied, VARIED),
        settings=told,
        notes=f"Pearson within targets by steps trained, in brackets less the default, {BUDGET} "
        "rows in rounds, paired over checkpoints. `agrees with default`: Pearson within targets "
        "with the default measurement, across domains. Rows of a domain that has too few held out "
        "are of its training split.",
    )
    save_result(
        "influence_fidelity_parts",
        title=f"Parts of the model, by checkpoint: `{VARIED}`, Pearson within targets, 20 steps",
        rows=report.by_checkpoint(
            [row for row in varied if row["predictor"] in {way.name for way in parts(VARIED)}]
            + [row for row in varied if row["predictor"] == VARIED],
            steps=20,
        ),
        settings=told,
        notes="Mean ± standard error over seeds.",
    )
    report.draw(rows, RESULTS / "influence_fidelity.png")


def main() -> None:
    """Runs what is missing and, unless told otherwise, reports on all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--preconditioner", nargs="+", default=[*preconditioners.available()],
        choices=preconditioners.available(),
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=RESULTS.parents[1] / "runs" / "fidelity")
    parser.add_argument("--no-report", action="store_true", help="only real runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.no_report:
        text = fidelity_text.load()
        for setting in settings(args):
            for repetition in range(1 + is_repeated(setting)):
                measure_truth(setting, text, repetition)
    else:
        compare(args)


if __name__ == "__main__":
    main()
