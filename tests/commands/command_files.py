"""The files that the examples of the help texts name: runs, matrices, schedules, constraints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_hf import InfluenceMatrix, MixtureSchedule
from tikmix_hf.schedule import DomainCard, Run, Segment

DOMAINS, TARGETS = ("web", "code"), ("arc", "math")
NUM_SAMPLES = 1000
# What commands that only read files do without.
HEAVY = ("torch", "transformers", "datasets", "accelerate", "matplotlib", "lightgbm", "rich")


def make_matrix() -> InfluenceMatrix:
    """Two rounds in which web helps both targets more than code does."""
    rounds_RJK = np.array([[[3.0, 1.0], [2.0, 1.5]], [[3.2, 0.8], [2.1, 1.6]]])
    zeros_JK = np.zeros((2, 2))
    return InfluenceMatrix(
        values=rounds_RJK.mean(axis=0),
        domain_stderr=zeros_JK + 0.1,
        target_stderr=zeros_JK,
        targets=TARGETS,
        domains=DOMAINS,
        preconditioner="sign",
        seconds=1.0,
        num_tokens=100,
        domain_losses=np.ones(2),
        target_losses=np.ones(2),
        rounds=rounds_RJK,
    )


def make_schedule(*webs: float, num_samples: int | None = NUM_SAMPLES) -> MixtureSchedule:
    """Segments of 100 samples, each with a share of web."""
    segments = tuple(
        Segment(from_sample=100 * s, mixture=[web, 1 - web], update={"mixer": "tikmix_d"})
        for s, web in enumerate(webs)
    )
    return MixtureSchedule(
        DOMAINS,
        segments,
        run=Run(num_samples=num_samples),
        cards={"web": DomainCard(description="pages", num_tokens=5000)},
    )


def make_record(step: int, matrix: InfluenceMatrix | None) -> dict[str, Any]:
    """A line of influence.jsonl."""
    shares = {"web": 0.75, "code": 0.25}
    return {
        "step": step,
        "from_sample": None,
        "mixture": shares,
        "proposed": shares,
        "change": 0.0,
        "requested_tokens": shares,
        "realised_tokens": shares,
        "epochs": shares,
        "influence": None if matrix is None else matrix.to_dict(),
        "audit": None,
        "tokens": 40,
        "seconds": 1.5,
        "token_share": 0.01 * step,
        "time_share": 0.02 * step,
    }


def make_run(folder: Path, *webs: float) -> Path:
    """A run of two updates, the second of which measured nothing."""
    folder.mkdir(parents=True)
    make_schedule(*webs).save(folder / "schedule.json")
    records = [make_record(1, make_matrix()), make_record(2, None)]
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "influence.jsonl").write_text("".join(lines))
    return folder


def make_files(folder: Path) -> Path:
    """Everything, under the names that the examples use."""
    make_run(folder / "runs" / "quickstart", 0.5, 0.75)
    make_run(folder / "runs" / "other", 0.5, 0.5, 0.25)
    make_schedule(0.625).save(folder / "mixture.json")
    (folder / "runs" / "dry").mkdir()
    make_matrix().save(folder / "runs" / "dry" / "influence.json")
    mixtures = {"mixture": {"web": 0.4, "code": 0.6}}
    (folder / "runs" / "dry" / "mixtures.json").write_text(json.dumps(mixtures))
    (folder / "matrix.csv").write_text("target,web,code\narc,3,1\nmath,2,1.5\n")
    (folder / "constraints.yaml").write_text("caps: {code: 0.6}\nmax_change: 0.2\n")
    return folder
