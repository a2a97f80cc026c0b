"""Claim: influence is a better signal than loss, from a tenth of the tokens.

    python eval/reproduce/loss_signal.py

The paper (Wang et al., TiKMiX, arXiv 2508.17677, 2025) puts loss in the place of influence: average
scores of 44.3 (from 5B tokens) and 44.1 (10B) against 45.5 with influence (0.1B). It does not say
how. Here only the signal differs: TiKMiX-D, with the paper's settings, is given either the matrix S
of group influence, or the matrix of what targets' losses really fell by while a copy of the model
trained on each domain alone, for ten times the tokens that measuring S read. Losses of domains, as
ADO and DoReMi follow them, know no target, so they would change the method, not its signal; Aioli's
probes are such losses of targets, too, but with a solver of their own.

For each seed a checkpoint is trained on the uniform mixture; from there both mixtures, and uniform
as the control, are trained on, with the same order of rows.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the programs beside this folder

import arena_judge
import numpy as np
import torch
from arena_data import ArenaText
from arena_jobs import TEXT, Job
from arena_training import make_model

from reproduce import scored, trained, verdict
from reproduce.study import Finding, Record, Setting, Study, main
from reproduce.trained import Weights
from tikmix_hf import figures, mixers

# J targets, K domains.

FACTOR = 10
"""Tokens that losses are read from, for each that influence is."""
INFLUENCE, LOSS, CONTROL = "influence", "loss", "uniform"


def jobs(setting: Setting) -> list[Job]:
    """For each seed the signals, and then a run for each mixture."""
    signals = {
        seed: Job(name=f"signals-{seed}", kind="signals", number=seed, needs=(TEXT,))
        for seed in setting.seeds
    }
    runs = [
        Job(name=f"{way}-{seed}", kind="run", entry=way, number=seed, needs=(f"signals-{seed}",))
        for seed in setting.seeds
        for way in (INFLUENCE, LOSS, CONTROL)
    ]
    return [*signals.values(), *runs]


def do(setting: Setting, job: Job) -> Record:
    """Measures both signals at a checkpoint, or trains on from it and scores."""
    text = setting.text()
    path = setting.folder / f"checkpoint-{job.number}.pt"
    if job.kind == "signals":
        steps = max(setting.steps // 3, 1)
        done = trained.run(
            setting, text, "uniform", trained.Run(seed=job.number, steps=steps, keep=[steps])
        )
        torch.save(done.kept[steps], path)
        return signals(setting, text, job.number, done.kept[steps])
    kept = trained_mixtures(setting, job.number)
    start = torch.load(path, weights_only=True)
    done = trained.run(setting, text, kept[job.entry], trained.Run(seed=job.number, start=start))
    return {"scores": scored.score(setting, text, done.model)}


def trained_mixtures(setting: Setting, seed: int) -> dict[str, Any]:
    """What a seed's runs train on: the mixtures by signal, and uniform."""
    record = json.loads((setting.folder / f"signals-{seed}.json").read_text("utf-8"))
    return {**{way: np.array(own) for way, own in record["mixtures"].items()}, CONTROL: CONTROL}


def signals(setting: Setting, text: ArenaText, seed: int, start: Weights) -> Record:
    """Both matrices at a checkpoint, and TiKMiX-D's answers to them."""
    model = make_model(setting.arena, text, seed)
    model.load_state_dict(start)
    matrix = trained.influence(model, text, setting.rows)
    steps = probe_steps(setting, matrix.num_tokens, len(text.domains))
    values = {INFLUENCE: matrix.values, LOSS: probed(setting, text, seed, start, steps)}
    uniform_K = text.domains.resolve(CONTROL)
    return {
        "tokens": {
            INFLUENCE: matrix.num_tokens,
            LOSS: steps * len(text.domains) * _step_tokens(setting),
        },
        "probe_steps": steps,
        "domains": list(text.domains.names),
        "values": {way: own.tolist() for way, own in values.items()},
        "mixtures": {
            way: mixers.tikmix_d.solve(own, uniform_K).tolist() for way, own in values.items()
        },
    }


def probe_steps(setting: Setting, num_tokens: int, num_domains: int) -> int:
    """Steps on each domain that together read FACTOR times as many tokens as influence did."""
    return max(1, round(FACTOR * num_tokens / (num_domains * _step_tokens(setting))))


def probed(setting: Setting, text: ArenaText, seed: int, start: Weights, steps: int) -> np.ndarray:
    """(J, K) decrease of each target's loss, in bits per byte, by training on one domain."""
    rows = setting.arena.training.judged_rows
    judged = arena_judge.judged_rows(text.measured, rows, text.token_bytes_V)
    model = make_model(setting.arena, text, seed)
    model.load_state_dict(start)
    before = arena_judge.bits_per_byte(model, judged)
    columns = []
    for name in text.domains.names:
        done = trained.run(
            setting,
            text,
            {name: 1.0},
            trained.Run(seed=seed, steps=steps, start=start, keep=[steps]),
        )
        model.load_state_dict(done.kept[steps])
        after = arena_judge.bits_per_byte(model, judged)
        columns.append([before[target] - after[target] for target in judged])
    return np.array(columns).T


def _step_tokens(setting: Setting) -> int:
    return setting.arena.training.batch_rows * setting.arena.block_size


def report(setting: Setting, records: Mapping[str, Record]) -> Finding:
    """Differences of the scores, paired by seed."""
    bits = {
        way: np.array(
            [scored.mean_bits(records[f"{way}-{seed}"]["scores"]) for seed in setting.seeds]
        )
        for way in (INFLUENCE, LOSS, CONTROL)
    }
    found = verdict.of_mean(bits[INFLUENCE] - bits[LOSS])
    own = [records[f"signals-{seed}"] for seed in setting.seeds]
    tokens = {way: np.mean([record["tokens"][way] for record in own]) for way in (INFLUENCE, LOSS)}
    pairs = [(INFLUENCE, LOSS), (INFLUENCE, CONTROL), (LOSS, CONTROL)]
    return Finding(
        title="Influence against loss as the signal",
        verdict=verdict.Verdict(
            claim="TiKMiX-D trains a better model from influence than from losses read from "
            f"{FACTOR} times the tokens (bits per byte of right answers are lower).",
            paper="45.5 (0.1B tokens) against 44.3 (5B) and 44.1 (10B), average score",
            ours=f"{found.signed} bits per byte, {len(setting.seeds)} seeds",
            held=verdict.held(found, 0.0, above=False),
        ),
        rows=[row(records, setting, *pair) for pair in pairs],
        notes=f"Means over benchmarks of the bits per byte of right answers ({setting.limit} "
        f"questions of each), {setting.steps} steps after the checkpoint; differences are paired "
        f"by seed (Student t), negative: the first is better. Influence read "
        f"{tokens[INFLUENCE]:,.0f} tokens, losses {tokens[LOSS]:,.0f} ({own[0]['probe_steps']} "
        "steps on each domain). `text`: the same of the targets' judged text. `apart`: half the "
        "sum of absolute differences of the shares, mean over seeds.",
        draw=lambda path: draw(own, path),
    )


def row(records: Mapping[str, Record], setting: Setting, first: str, second: str) -> dict[str, Any]:
    """A line of the table: one mixture's runs less another's."""
    one, other = (
        [records[f"{way}-{seed}"]["scores"] for seed in setting.seeds] for way in (first, second)
    )
    gaps = {
        "bits per byte": [
            scored.mean_bits(a) - scored.mean_bits(b) for a, b in zip(one, other, strict=True)
        ],
        "text": [
            float(np.mean([a["text"][t] - b["text"][t] for t in a["text"]]))
            for a, b in zip(one, other, strict=True)
        ],
    }
    return {
        "first less second": f"{first} less {second}",
        **{name: verdict.of_mean(gap).signed for name, gap in gaps.items()},
        "by seed": " ".join(f"{gap:+.4f}" for gap in gaps["bits per byte"]),
        "accuracies": None
        if not one[0][scored.ACCURACY]
        else " and ".join(f"{_accuracy(own):.1%}" for own in (one, other)),
        "apart": f"{_apart(records, setting, first, second):.2f}",
    }


def _accuracy(scores: list[dict[str, dict[str, float]]]) -> float:
    return float(np.mean([list(own[scored.ACCURACY].values()) for own in scores]))


def _apart(records: Mapping[str, Record], setting: Setting, first: str, second: str) -> float:
    """Total variation of two ways' mixtures, mean over seeds."""
    found = []
    for seed in setting.seeds:
        own = records[f"signals-{seed}"]
        num = len(own["domains"])
        one, other = (
            np.array(own["mixtures"].get(way, np.full(num, 1 / num))) for way in (first, second)
        )
        found.append(np.abs(one - other).sum() / 2)
    return float(np.mean(found))


def draw(own: list[Record], path: Path) -> None:
    """The mixtures by signal, mean over seeds; dots: seeds."""
    domains = own[0]["domains"]
    figure = figures.new_figure(width=6, height=0.8 + 0.35 * len(domains))
    axes = figure.subplots()
    for k, way in enumerate((INFLUENCE, LOSS)):
        shares_SK = np.array([record["mixtures"][way] for record in own])
        places = np.arange(len(domains)) + 0.4 * k - 0.2
        axes.barh(places, shares_SK.mean(axis=0), height=0.36, color=figures.colour(k), label=way)
        for shares_K in shares_SK:
            axes.plot(shares_K, places, ".", color="black", markersize=3)
    axes.set_yticks(range(len(domains)), domains)
    axes.invert_yaxis()
    axes.set_xlabel("share; dots: seeds")
    axes.legend(fontsize="small")
    figures.save(figure, path)


STUDY = Study(
    name="loss_signal",
    targets="downstream",
    defaults={"seeds": [0, 1, 2, 3], "steps": 600, "rows": 64, "mixtures": 0, "limit": 200},
    jobs=jobs,
    do=do,
    report=report,
    benchmarks=tuple(scored.TASKS),
)

if __name__ == "__main__":
    main(STUDY, __doc__ or "")
