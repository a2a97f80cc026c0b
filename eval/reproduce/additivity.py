"""Claim: the influence of a mixture's text is the sum of its domains' influences, share by share.

    python eval/reproduce/additivity.py

The paper (Wang et al., TiKMiX, arXiv 2508.17677, 2025) perturbs a mixture 254 times by factors of
0.5 to 2 and correlates the predicted influence, S w, with the measured influence of text drawn from
each: Pearson 0.845 (ARC), 0.848 (HellaSwag), 0.931 (TriviaQA). Here on the same three targets, with
`kfac`, at the end of a run on the uniform mixture: S from `--rows` rows of each domain, a mixture's
text as many rows as all domains together, of other rows. Text drawn a second time gives the
ceiling: what noise of the measured side leaves for any prediction to reach.

`eval/additivity.py` asks the same on the embedded text, for every preconditioner and three budgets.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (`additivity` is the program beside this folder, which pyright takes for this file)

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the programs beside this folder

import numpy as np
import torch
from additivity import correlations, drawn, fitted, means, perturbed, text_gradients
from additivity import influence as influence_of
from arena_jobs import TEXT, Job
from torch import Tensor

from reproduce import trained, verdict
from reproduce.study import Finding, Record, Setting, Study, main
from tikmix_hf import figures
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.preconditioners import Fitting

# J targets, K domains, R mixtures, P parameters.

PAPER = {"arc": 0.845, "hellaswag": 0.848, "triviaqa": 0.931}
R, REACHABLE, DECIDABLE = "r (95 % interval)", "reachable", "decidable"
DRAWS = 2
POOL_FACTOR = 3
"""Rows of a domain that a draw's texts are made of, in units of `--rows`; a perturbed share is at
most twice the uniform one."""


def jobs(setting: Setting) -> list[Job]:
    """A run for each seed."""
    return [
        Job(name=f"seed-{seed}", kind="measure", number=seed, needs=(TEXT,))
        for seed in setting.seeds
    ]


def do(setting: Setting, job: Job) -> Record:
    """Trains, and measures S and the mixtures' influence twice."""
    text = setting.text()
    model = trained.run(setting, text, "uniform", trained.Run(seed=job.number)).model.eval()
    rows = setting.rows
    pools = trained.domain_pools(text, rows * (1 + DRAWS * POOL_FACTOR))
    own = {name: pool[:rows] for name, pool in pools.items()}
    anchor_K = text.domains.resolve("uniform")
    mixtures_RK = perturbed(anchor_K, setting.mixtures, np.random.default_rng(0))
    fitting = Fitting(
        model=model,
        parameters=[*model.parameters()],
        optimizer=None,
        batches={name: trained.batches(pool) for name, pool in own.items()},
    )
    preconditioner = preconditioners.load(trained.PRECONDITIONER)()
    apply = fitted(preconditioner, fitting)
    targets_JP = means(model, trained.target_pools(text, rows), rows)
    values_JK = influence_of(means(model, own, rows), targets_JP, preconditioner.side, apply)
    measured = []
    for number in range(DRAWS):
        pooled = torch.cat([*text_rows(pools, rows, number).values()])
        rng = np.random.default_rng([job.number, number])
        weights = drawn(mixtures_RK, rows * len(pools), rows * POOL_FACTOR, rng)
        texts_RP = text_gradients(model, pooled, weights)
        measured.append(influence_of(texts_RP, targets_JP, preconditioner.side, apply))
    found = correlations(values_JK, *measured, mixtures_RK)
    return {
        "targets": list(text.measured),
        **{name: r_J.tolist() for name, r_J in found.items()},
        "predicted": (values_JK @ mixtures_RK.T).tolist(),
        "measured": measured[0].tolist(),
    }


def text_rows(pools: Mapping[str, Tensor], rows: int, number: int) -> dict[str, Tensor]:
    """What a draw's texts are made of: rows of each domain that no other draw and no S has.

    Args:
        pools: rows of each domain, of which S has the first ones.
        rows: that S has.
        number: of the draw.
    """
    size = rows * POOL_FACTOR
    first = rows + number * size
    return {name: pool[first : first + size] for name, pool in pools.items()}


def report(setting: Setting, records: Mapping[str, Record]) -> Finding:
    """Correlations by target, mean over seeds, against the paper's."""
    own = [records[job.name] for job in jobs(setting)]
    rows = [row(own, j, target, setting.mixtures) for j, target in enumerate(own[0]["targets"])]
    return Finding(
        title=f"Additivity: predicted against measured influence of {setting.mixtures} mixtures",
        verdict=verdict.Verdict(
            claim="Influence is additive: on every target the predicted and the measured influence "
            "of mixtures correlate by more than the paper's r.",
            paper=", ".join(f"{target} {r}" for target, r in PAPER.items()),
            ours=", ".join(f"{own['target']} {own[R]}{undecided(own)}" for own in rows),
            held=verdict.together([own["verdict"] for own in rows]),
        ),
        rows=rows,
        notes=f"{setting.rows} rows of {setting.arena.block_size} tokens of each of "
        f"{len(setting.arena.domains)} domains for S; a mixture's text has as many as all domains "
        f"together, of other rows. Intervals are over mixtures (Fisher's z), of the mean over "
        f"{len(setting.seeds)} seeds; they do not shrink with seeds, which share the mixtures. "
        "`reachable`: root of the correlation of two draws of the same mixtures' text, which is "
        "what a prediction without any error would have; where it is not above the bar, the target "
        "is open, whatever r is. `linear in w`: the measured influence's "
        "least-squares fit by the mixture. A target that the paper has no figure for must exceed "
        f"{min(PAPER.values())}.",
        draw=lambda path: draw(own[0], path),
    )


def row(own: list[Record], j: int, target: str, num_mixtures: int) -> dict[str, Any]:
    """The j-th target's line of the table."""
    found = verdict.of_correlation([record["r"][j] for record in own], num_mixtures)
    again = np.mean([record["again"][j] for record in own])
    reachable, paper = float(np.sqrt(max(again, 0))), PAPER.get(target)
    least = bar(target)
    return {
        "target": target,
        "paper": paper,
        R: str(found),
        "by seed": " ".join(f"{record['r'][j]:.3f}" for record in own),
        REACHABLE: f"{reachable:.3f}",
        "linear in w": f"{np.mean([record['linear'][j] for record in own]):.3f}",
        # A bar out of reach can neither be cleared nor missed.
        "verdict": verdict.held(found, least) if reachable > least else verdict.OPEN,
        DECIDABLE: "yes" if reachable > least else "no",
    }


def bar(target: str) -> float:
    """The paper's r, which ours must exceed; the least of them where it has none."""
    return PAPER.get(target, min(PAPER.values()))


def undecided(own: Mapping[str, Any]) -> str:
    """What the verdict's line says of a target whose bar is out of reach; of others nothing."""
    if own[DECIDABLE] == "yes":
        return ""
    return (
        f" [not decidable: noise lets a perfect prediction reach {own[REACHABLE]}, "
        f"the bar is {bar(own['target'])}]"
    )


def draw(record: Record, path: Path) -> None:
    """Predicted against measured influence of the first seed, a panel for each target."""
    targets = record["targets"]
    figure = figures.new_figure(width=3.2 * len(targets), height=3.2)
    panels = figure.subplots(1, len(targets), squeeze=False)[0]
    for j, (panel, target) in enumerate(zip(panels, targets, strict=True)):
        panel.plot(record["predicted"][j], record["measured"][j], ".", color=figures.colour(j))
        panel.set_title(f"{target}, r = {record['r'][j]:.3f}")
        panel.set_xlabel("predicted influence, S w")
    panels[0].set_ylabel("measured influence of the text")
    figures.save(figure, path)


STUDY = Study(
    name="additivity",
    targets="paper",
    defaults={"seeds": [0, 1, 2], "steps": 500, "rows": 192, "mixtures": 254, "limit": 0},
    jobs=jobs,
    do=do,
    report=report,
)

if __name__ == "__main__":
    main(STUDY, __doc__ or "")
