"""A run's folder of any size, with the files that the callbacks and the recipes leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_hf.schedule import MixtureSchedule, Segment

TOKENS = 6400


def write_run(
    folder: Path,
    *,
    domains: tuple[str, ...] = ("web", "code", "books"),
    targets: tuple[str, ...] = ("arc", "piqa", "boolq"),
    num_updates: int = 3,
    seed: int = 0,
) -> Path:
    """Writes schedule, updates, evaluations, metrics and the Trainer's log."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    mixtures = rng.dirichlet(np.full(len(domains), 4.0), size=num_updates + 1)
    starts = [0, *(10 * 4 * i + 8 for i in range(1, num_updates + 1))]
    segments = [
        Segment(from_sample=start, mixture=mixture, update={"mixer": {"mixer": "a.TikMixD"}})
        for start, mixture in zip(starts, mixtures, strict=True)
    ]
    MixtureSchedule(domains, tuple(segments)).save(folder / "schedule.json")
    lines = [_update(i, starts, mixtures, (domains, targets), rng) for i in range(1, len(starts))]
    write_lines(folder / "influence.jsonl", lines)
    write_lines(folder / "evaluations.jsonl", [_evaluation(10 * i, rng) for i in range(4)])
    results = {
        label: {
            "losses": {name: 3 + gap + j / 10 for j, name in enumerate(targets)},
            "mean_loss": 3 + gap + (len(targets) - 1) / 20,
            "seconds": 65.0,
            "num_samples": starts[-1] + 40,
            "trained_tokens": 123456,
            "num_parameters": 1_066_112,
            "epochs": {name: 0.5 + k for k, name in enumerate(domains)},
        }
        for label, gap in (("tikmix_d", 0.0), ("static", 0.0421))
    }
    (folder / "metrics.json").write_text(json.dumps({"runs": results}))
    log = [{"step": 5 * i, "loss": 6.0 / (i + 1) ** 0.3} for i in range(1, 21)]
    (folder / "checkpoint-100").mkdir()
    state = {"max_steps": 100, "log_history": log}
    (folder / "checkpoint-100" / "trainer_state.json").write_text(json.dumps(state))
    config = {"model_type": "llama", "transformers_version": "5.0.0"}
    (folder / "checkpoint-100" / "config.json").write_text(json.dumps(config))
    return folder


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _update(
    i: int,
    starts: list[int],
    mixtures: np.ndarray,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    domains, targets = names
    shape = len(targets), len(domains)

    def named(values: Any) -> dict[str, float]:
        return dict(zip(domains, np.asarray(values).tolist(), strict=True))

    audit = {
        "from_step": 10 * (i - 1),
        "predicted": dict(zip(targets, rng.normal(50, 5, len(targets)).tolist(), strict=True)),
        "realised": dict(zip(targets, rng.normal(0.2, 0.1, len(targets)).tolist(), strict=True)),
        "spearman": 0.5,
        "correlation": 0.25,
        "num_intervals": i - 1,
    }
    return {
        "step": 10 * i,
        "from_sample": starts[i],
        "mixture": named(mixtures[i - 1]),
        "proposed": named(mixtures[i]),
        "change": float(np.abs(mixtures[i] - mixtures[i - 1]).sum() / 2),
        "notes": ["61% of the move, as far as fresh text bears it out"],
        "requested_tokens": named(TOKENS * mixtures[i - 1]),
        "realised_tokens": named(np.round(TOKENS * mixtures[i - 1] / 64) * 64),
        "epochs": named(i * mixtures[i - 1]),
        "tokens": 15360,
        "costs": {"influence": {"tokens": 15360, "seconds": 7.5}, "mixer": {"seconds": 0.5}},
        "planned_tokens": 17408,
        "seconds": 8.0,
        "planned_seconds": 2.5 if i > 1 else None,
        "time_share": 0.125,
        "token_share": 0.0625,
        "audit": audit if i > 1 else None,
        "influence": {
            "format": "tikmix-hf influence",
            "version": 3,
            "values": rng.normal(300, 90, shape).tolist(),
            "domain_stderr": rng.uniform(20, 60, shape).tolist(),
            "target_stderr": [[None] * shape[1]] * shape[0],
            "targets": list(targets),
            "domains": list(domains),
            "preconditioner": "kfac",
            "seconds": 7.5,
            "num_tokens": 15360,
            "domain_losses": rng.uniform(2, 3, shape[1]).tolist(),
            "target_losses": rng.uniform(2, 3, shape[0]).tolist(),
            "rounds": rng.normal(300, 90, (4, *shape)).tolist(),
            "gradient_norms": None,
        },
    }


def _evaluation(step: int, rng: np.random.Generator) -> dict[str, Any]:
    tasks = {}
    for task, metric in (("arc_easy", "acc"), ("cloze", "bits_per_byte")):
        tasks[task] = {
            "metric": metric,
            "values": {metric: float(rng.uniform(0.25, 0.75))},
            "standard_errors": {metric: 0.025},
            "num_questions": 400,
            "failure": None,
        }
    return {"step": step, "suite": "quick", "num_samples": 4 * step, "tasks": tasks}
