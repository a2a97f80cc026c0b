"""Claim: the total influence of a mixture tells how models that are trained on it will score.

    python eval/reproduce/downstream.py

The paper (Wang et al., TiKMiX, arXiv 2508.17677, 2025) trains 1B models on 10 mixtures for 500B
tokens and correlates the total influence of the mixtures with the models' average downstream score:
Pearson 0.789. Here models are trained on mixtures drawn as RegMix draws them (Liu et al., arXiv
2407.01492, 2025), each from the same initialisation and with the same order of rows for
a seed. S is measured once for a seed, by `kfac`, at a checkpoint in the middle of a run on the
uniform mixture, on splits that no benchmark is scored on. The total influence is the sum over
targets of (S w)_j / max_k S_jk. The score is minus the bits per byte of right answers, mean over
benchmarks (`scored.py`).
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the programs beside this folder

import numpy as np
from arena_jobs import TEXT, Job
from arena_proxies import draw_mixtures
from fidelity_scores import pearson, spearman

from reproduce import scored, trained, verdict
from reproduce.study import Finding, Record, Setting, Study, main
from tikmix_hf import figures
from tikmix_hf.mixers._mixture_scores import linear_gains

# J targets, K domains, M mixtures, S seeds.

PAPER = 0.789


def jobs(setting: Setting) -> list[Job]:
    """Influence for each seed, and a run for each mixture and seed."""
    measured = [
        Job(name=f"influence-{seed}", kind="influence", number=seed, needs=(TEXT,))
        for seed in setting.seeds
    ]
    runs = [
        Job(name=f"mixture{m}-{seed}", kind="run", entry=str(m), number=seed, needs=(TEXT,))
        for m in range(setting.mixtures)
        for seed in setting.seeds
    ]
    return [*measured, *runs]


def do(setting: Setting, job: Job) -> Record:
    """Measures influence, or trains on a mixture and scores."""
    text = setting.text()
    if job.kind == "influence":
        half = max(setting.steps // 2, 1)
        model = trained.run(
            setting, text, "uniform", trained.Run(seed=job.number, steps=half)
        ).model
        matrix = trained.influence(model, text, setting.rows)
        return {"values": matrix.values.tolist(), "targets": list(matrix.targets)}
    mixture_K = mixtures(text.domains.prior, setting.mixtures)[int(job.entry)]
    done = trained.run(setting, text, mixture_K, trained.Run(seed=job.number))
    return {"mixture": mixture_K.tolist(), "scores": scored.score(setting, text, done.model)}


def mixtures(prior_K: np.ndarray, num: int) -> np.ndarray:
    """(num, K) mixtures, the same at every call."""
    return draw_mixtures(prior_K, num, np.random.default_rng(0))


def report(setting: Setting, records: Mapping[str, Record]) -> Finding:
    """Correlations over mixtures of total influence and scores, means over seeds."""
    values_SJK = np.array([records[f"influence-{seed}"]["values"] for seed in setting.seeds])
    runs = [
        [records[f"mixture{m}-{seed}"] for seed in setting.seeds] for m in range(setting.mixtures)
    ]
    mixtures_MK = np.array([own[0]["mixture"] for own in runs])
    influence_SM = np.array([linear_gains(v_JK, mixtures_MK).sum(axis=1) for v_JK in values_SJK])
    total_M = influence_SM.mean(axis=0)
    score_MS = np.array([[-scored.mean_bits(run["scores"]) for run in own] for own in runs])
    found = verdict.of_correlation(pearson(total_M, score_MS.mean(axis=1)), setting.mixtures)
    inside = "inside" if found.low <= PAPER <= found.high else "outside"
    return Finding(
        title=f"Total influence of {setting.mixtures} mixtures against downstream scores",
        verdict=verdict.Verdict(
            claim="A mixture's total influence predicts the downstream score of models trained on "
            "it (Pearson r above 0).",
            paper=f"r = {PAPER} over 10 mixtures",
            ours=f"r = {found} over {setting.mixtures} mixtures and {len(setting.seeds)} seeds; "
            f"the paper's figure is {inside} the interval",
            held=verdict.held(found, 0.0),
        ),
        rows=table(runs, total_M, setting.mixtures),
        notes=f"Score: minus the bits per byte of right answers, mean over benchmarks, mean over "
        f"{len(setting.seeds)} seeds; {setting.limit} questions of each benchmark, "
        f"{setting.steps} steps, S from {setting.rows} rows. Intervals over mixtures (Fisher's z). "
        "Rows without bits per byte as score: `accuracy` is at chance for models of this size, and "
        "`text` is the judged text of a target."
        + (noise(score_MS, influence_SM) if len(setting.seeds) > 1 else ""),
        draw=lambda path: draw(total_M, score_MS, path),
    )


def table(runs: list[list[Record]], total_M: np.ndarray, num: int) -> list[dict[str, Any]]:
    """A line for each benchmark and metric, the means over benchmarks first."""
    first = runs[0][0]["scores"]
    wanted = [("mean of benchmarks", scored.BITS, None)]
    wanted += [("mean of benchmarks", scored.ACCURACY, None)] if first[scored.ACCURACY] else []
    wanted += [(name, metric, name) for metric, own in first.items() for name in own]
    rows = []
    for name, metric, key in wanted:
        value_M = np.array(
            [np.mean([_value(run["scores"][metric], key) for run in own]) for own in runs]
        )
        sign = 1 if metric == scored.ACCURACY else -1
        varies = np.ptp(value_M) > 0
        rows.append(
            {
                "score": name,
                "metric": metric,
                "Pearson r (95 % interval)": str(
                    verdict.of_correlation(pearson(total_M, sign * value_M), num)
                )
                if varies
                else None,
                "Spearman": f"{spearman(total_M, sign * value_M):.3f}" if varies else None,
                "least": f"{value_M.min():.4f}",
                "most": f"{value_M.max():.4f}",
            }
        )
    return rows


def _value(scores: Mapping[str, float], key: str | None) -> float:
    return float(np.mean(list(scores.values()))) if key is None else scores[key]


def noise(score_MS: np.ndarray, influence_SM: np.ndarray) -> str:
    """What seeds leave to be predicted, in words."""
    agree = reliability(score_MS)
    return (
        f" The scores of another set of as many seeds would correlate with these by {agree:.3f} "
        "(Spearman-Brown), so that a prediction without any error would reach "
        f"{np.sqrt(max(agree, 0)):.3f}. Influence of single seeds agrees by "
        f"{_agreement(influence_SM):.3f} over mixtures."
    )


def reliability(score_MS: np.ndarray) -> float:
    """Correlation of the mean over these seeds with that over as many others.

    r S / (1 + r (S - 1)) of the mean correlation r of two seeds (Spearman 1910, Brown 1910).
    """
    r, num = _agreement(score_MS.T), score_MS.shape[1]
    return r * num / (1 + r * (num - 1))


def _agreement(values_SM: np.ndarray) -> float:
    """Mean correlation of pairs of seeds, two at least."""
    pairs = np.triu_indices(len(values_SM), k=1)
    return float(np.corrcoef(values_SM)[pairs].mean())


def draw(total_M: np.ndarray, score_MS: np.ndarray, path: Path) -> None:
    """Scores against total influence, with the spread of seeds."""
    figure = figures.new_figure(width=5, height=4)
    axes = figure.subplots()
    mean_M = score_MS.mean(axis=1)
    ends = np.abs(np.stack([score_MS.min(axis=1), score_MS.max(axis=1)]) - mean_M)
    axes.errorbar(total_M, mean_M, yerr=ends, fmt="o", color=figures.colour(0), elinewidth=0.8)
    axes.set_xlabel("total influence of the mixture")
    axes.set_ylabel("minus bits per byte of right answers; bars: seeds")
    figures.save(figure, path)


STUDY = Study(
    name="downstream",
    targets="downstream",
    defaults={"seeds": [0, 1], "steps": 500, "rows": 128, "mixtures": 24, "limit": 200},
    jobs=jobs,
    do=do,
    report=report,
    benchmarks=tuple(scored.TASKS),
)

if __name__ == "__main__":
    main(STUDY, __doc__ or "")
