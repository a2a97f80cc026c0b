"""What a recipe leaves and prints at the end of its runs.

In: the folder of a run, what it read, its results and scores by label. Out: `metrics.json`,
pictures, and tables on the screen: mixtures, losses on the targets, scores on suites, what
measuring cost and how well it foretold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import run_scores
from rich.console import Console
from rich.table import Table
from transformers import Trainer

from tikmix_hf import InterleavedDomainDataset, MixtureSchedule, plots
from tikmix_hf.files import finite, read_records, write_json
from tikmix_hf.sources import Sources


def describe(data: Sources, seconds: float | None = None) -> Table:
    """Draws up what the run reads, and the seconds that reading it took where they are given."""
    took = "" if seconds is None else f" (ready in {seconds:.1f} s)"
    table = Table(title=f"What the run reads{took}", title_justify="left")
    for heading in ("domain", "tokens", "share", "what it is"):
        table.add_column(heading, justify="right" if heading in ("tokens", "share") else "left")
    for domain, share in zip(data.domains, data.domains.prior, strict=True):
        table.add_row(domain.name, f"{domain.num_tokens:,}", f"{share:.3f}", domain.description)
    table.add_section()
    for name, rows in data.targets.items():
        table.add_row(f"target {name}", f"{sum(map(len, rows['input_ids'])):,}", "", "")
    return table


def result(
    trainer: Trainer, dataset: InterleavedDomainDataset, losses: dict[str, float], *, seconds: float
) -> dict[str, Any]:
    """What `metrics.json` says of one run that has ended; `seconds` is what training took."""
    args, model = trainer.args, cast(Any, trainer.model)
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    num_samples = trainer.state.global_step * step
    return {
        "losses": losses,
        "mean_loss": sum(losses.values()) / len(losses),
        "seconds": seconds,
        "num_samples": num_samples,
        "trained_tokens": int(dataset.tokens_between(0, num_samples).sum()),
        "num_parameters": model.num_parameters(),
        "epochs": dataset.epochs_used(num_samples),
    }


def report(
    folder: Path,
    data: Sources,
    results: dict[str, Any],
    scores: run_scores.Scores,
    console: Console,
) -> None:
    """Writes metrics and pictures, and prints what changed and what it cost."""
    records = (
        read_records(folder / "influence.jsonl") if (folder / "influence.jsonl").exists() else []
    )
    write_json(
        folder / "metrics.json",
        finite({"runs": results, "num_updates": len(records), **run_scores.record(scores)}),
    )
    schedule = MixtureSchedule.load(folder / "schedule.json")
    main_run = next(iter(results.values()))
    plots.plot_mixture(
        [segment.from_sample for segment in schedule.segments],
        np.stack([segment.mixture for segment in schedule.segments]),
        schedule.domains,
        num_samples=main_run["num_samples"],
        path=folder / "mixture.png",
    )
    if measured := [record for record in records if record["influence"]]:
        plots.plot_influence(
            [
                {**record["influence"], "step": record["step"], "mixture": record["mixture"]}
                for record in measured
            ],
            folder / "influence.png",
        )
    audited = [record for record in records if record["audit"]]
    if any(len(record["audit"]["predicted"]) > 2 for record in audited):
        plots.plot_audit(audited, folder / "audit.png")
    if len(results) > 1:
        # The control comes first: the picture shows how far the others are from it.
        losses = {label: results[label]["losses"] for label in reversed(results)}
        plots.plot_target_losses(losses, folder / "losses.png")
    for table in (_mixtures(schedule, data), _losses(results), *run_scores.tables(scores)):
        console.print(table)
    console.print(_costs(records, results, folder))


def _mixtures(schedule: MixtureSchedule, data: Sources) -> Table:
    table = Table(title="Mixture (share of tokens) from each sample on", title_justify="left")
    table.add_column("domain")
    for segment in schedule.segments:
        table.add_column(f"{segment.from_sample:,}", justify="right")
    for k, name in enumerate(schedule.domains):
        table.add_row(name, *(f"{segment.mixture[k]:.3f}" for segment in schedule.segments))
    return table


def _losses(results: dict[str, Any]) -> Table:
    table = Table(title="Loss on targets, nats per token (lower is better)", title_justify="left")
    table.add_column("target")
    labels = list(results)
    for label in labels:
        table.add_column(label, justify="right")
    if len(labels) == 2:
        table.add_column("difference", justify="right")
    rows = {name: [results[label]["losses"][name] for label in labels] for name in
            results[labels[0]]["losses"]}  # fmt: skip
    rows["mean"] = [results[label]["mean_loss"] for label in labels]
    for name, losses in rows.items():
        if name == "mean":
            table.add_section()
        difference = [f"{losses[0] - losses[1]:+.4f}"] if len(labels) == 2 else []
        table.add_row(name, *(f"{loss:.4f}" for loss in losses), *difference)
    return table


def _costs(records: Sequence[dict[str, Any]], results: dict[str, Any], folder: Path) -> str:
    lines = _measuring(records) if records else []
    if len(results) == 2:
        first, second = results
        gap = results[first]["mean_loss"] - results[second]["mean_loss"]
        verdict = f"{first} is lower" if gap < 0 else f"{second} is lower" if gap > 0 else "a tie"
        lines.append(
            f"Mean loss on the targets: {verdict}, by {abs(gap):.4f} nats per token. This is one "
            "seed; seeds differ by as much, so compare several."
        )
    lines.append(f"Everything is in {folder}/")
    return "\n".join(lines)


def _measuring(records: Sequence[dict[str, Any]]) -> list[str]:
    """What measuring cost, against the plan, and how well it foretold."""
    last = records[-1]
    cost = {
        name: sum(record[name] or 0 for record in records)
        for name in ("seconds", "planned_seconds", "tokens", "planned_tokens")
    }
    lines = [
        f"{len(records)} updates cost {cost['seconds']:.1f} s ({cost['planned_seconds']:.1f} "
        f"planned) and {cost['tokens']:,} tokens ({cost['planned_tokens']:,} planned): "
        f"{last['time_share']:.1%} of the time and {last['token_share']:.1%} of the tokens trained "
        "by then."
    ]
    audits = [record["audit"] for record in records if record["audit"]]
    if audits and audits[-1]["correlation"] is not None:
        lines.append(
            "Audit: the order in which targets would gain was foretold with a correlation of "
            f"{audits[-1]['correlation']:.2f} over {audits[-1]['num_intervals']} intervals."
        )
    return lines
