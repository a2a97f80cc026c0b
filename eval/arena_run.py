"""One job of an arena: its text, a few proxies, a checkpoint to start from, or a whole run.

    python eval/arena_run.py --config eval/arena_small.yaml --folder runs/arena pretrain/uniform-0

In: an arena's file and the name of a job; `arena.py` starts one such process for each. Out: the
job's JSON file, written at the end.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import arena_config
import arena_data
import numpy as np
import torch
from arena_config import Arena
from arena_data import ArenaText
from arena_entries import extra_flops, first_mixture
from arena_jobs import Job, jobs, run_name, start_name
from arena_judge import CurveCallback, answer, bits_per_byte, judged_rows
from arena_proxies import proxy_mixtures
from arena_training import make_model, train, weights_path
from provenance import provenance

from tikmix_hf import InterleavedDomainDataset, TikMixCallback, mixers
from tikmix_hf.files import write_json
from tikmix_hf.updates.measurement import Measurement

DIGITS = 6


def make_run(arena: Arena, job: Job, text: ArenaText, folder: Path) -> dict[str, Any]:
    """Trains and judges one entry with one seed; returns its record."""
    started = time.perf_counter()
    regime = arena.regimes[job.regime]
    key = (job.regime, job.entry, job.number)
    mixture = first_mixture(arena, key, text.domains, folder)
    model = make_model(arena, text, job.number)
    if regime.start_steps:
        start = torch.load(weights_path(folder, start_name(job.regime, job.number)))
        model.load_state_dict(start)
    dataset = InterleavedDomainDataset(
        text.domains,
        mixture,
        num_samples=regime.steps * arena.training.batch_rows,
        seed=job.number,
    )
    callback = make_callback(arena, job, dataset, text, folder)
    curve = CurveCallback(
        make_model(arena, text, job.number),
        judged_rows(text.judged, arena.training.curve_rows, text.token_bytes_V),
        every_steps=arena.training.curve_steps,
        average_steps=arena.training.average_steps,
    )
    training = train(
        model, dataset, arena, learning_rate=regime.learning_rate, callbacks=[callback, curve]
    )
    training["seconds"] -= curve.seconds
    if any(other.reference == job.entry for other in arena.entries.values()):
        torch.save(model.state_dict(), weights_path(folder, job.name))
    judged = judged_rows(text.judged, arena.training.judged_rows, text.token_bytes_V)
    losses = bits_per_byte(curve.averaged, judged)
    return {
        "regime": job.regime,
        "entry": job.entry,
        "seed": job.number,
        "settings": arena.settings_of(job.regime, job.entry),
        "bits_per_byte": _rounded(losses),
        "mean_bits_per_byte": round(float(np.mean(list(losses.values()))), DIGITS),
        "benchmarks": {
            name: _rounded(answer(curve.averaged, text.tokenizer, asked))
            for name, asked in text.questions.items()
        },
        "curve": {
            "tokens": [step * arena.training.batch_rows * arena.block_size for step in curve.steps],
            "mean_bits_per_byte": [
                round(float(np.mean(list(point.values()))), DIGITS) for point in curve.losses
            ],
        },
        **account(callback, dataset, extra_flops(arena, key, len(text.domains), folder), training),
        "seconds": round(time.perf_counter() - started, 1),
        **origin(),
    }


def account(
    callback: TikMixCallback,
    dataset: InterleavedDomainDataset,
    flops_of_others: float,
    training: dict[str, float],
) -> dict[str, Any]:
    """What was trained on, and what choosing it cost.

    Args:
        callback: of the finished run.
        dataset: likewise.
        flops_of_others: of training that the choice rests on.
        training: `seconds`, with the updates', `tokens`, `flops` and `num_parameters` of the run.
    """
    updates = callback.updates
    measured = sum(update.num_tokens for update in updates)
    seconds = sum(update.seconds for update in updates)
    training["seconds"] = round(training["seconds"] - seconds, 3)
    read_K = dataset.tokens_between(0, dataset.num_samples)
    per_token = training["flops"] / training["tokens"]
    return {
        "domains": list(dataset.domains.names),
        "mixtures": [
            {"from_sample": s.from_sample, "mixture": s.mixture.round(8).tolist()}
            for s in dataset.schedule.segments
        ],
        "shares": [round(float(share), DIGITS) for share in read_K / read_K.sum()],
        "epochs": [round(float(e), 3) for e in dataset.epochs_used(dataset.num_samples).values()],
        "training": training,
        "choosing": {
            "updates": len(updates),
            "tokens": measured,
            "seconds": round(seconds, 3),
            "flops": per_token * measured + flops_of_others,
            "flops_of_others": flops_of_others,
        },
        "notes": [list(update.notes) for update in updates],
    }


def make_callback(
    arena: Arena, job: Job, dataset: InterleavedDomainDataset, text: ArenaText, folder: Path
) -> TikMixCallback:
    """The callback of an entry's mixer."""
    entry = arena.entries[job.entry]
    arguments: dict[str, Any] = {**arena.callback, **entry.callback}
    measurement = {"seed": job.number, **arguments.pop("measurement", {})}
    if entry.reference is not None:
        reference = make_model(arena, text, job.number)
        path = weights_path(folder, run_name(job.regime, entry.reference, job.number))
        reference.load_state_dict(torch.load(path))
        arguments["reference_model"] = reference
    return TikMixCallback(
        dataset,
        targets=text.measured,
        mixer=mixers.load(entry.mixer)(**entry.mixer_settings),
        measurement=Measurement(**measurement),
        output_dir=folder / f"{job.name}.updates",
        progress=False,
        **arguments,
    )


def make_start(arena: Arena, job: Job, text: ArenaText, folder: Path) -> dict[str, Any]:
    """Trains the checkpoint that a regime's runs start from."""
    regime = arena.regimes[job.regime]
    shares = {domain.name: float(domain.num_tokens) for domain in text.domains}
    kept = {n: s if n in regime.start_domains else 0.0 for n, s in shares.items()}
    total = sum(kept.values())
    if not total:
        raise ValueError(
            f"`start_domains` must name domains of the text ({', '.join(shares)}); got "
            f"{', '.join(regime.start_domains)}."
        )
    dataset = InterleavedDomainDataset(
        text.domains,
        {name: share / total for name, share in kept.items()},
        num_samples=regime.start_steps * arena.training.batch_rows,
        seed=job.number + 1,
    )
    model = make_model(arena, text, job.number)
    training = train(model, dataset, arena)
    torch.save(model.state_dict(), weights_path(folder, job.name))
    return {"training": training}


def make_proxies(arena: Arena, job: Job, text: ArenaText, folder: Path) -> dict[str, Any]:
    """Trains one part of the proxies."""
    mixtures_NK = proxy_mixtures(text.domains.prior, arena.proxies.num_mixtures)
    first = job.number * arena.proxies.in_one_job
    judged = judged_rows(text.measured, arena.proxies.judged_rows, text.token_bytes_V)
    found = []
    for number, mixture_K in enumerate(mixtures_NK[first:][: arena.proxies.in_one_job], first):
        model = make_model(arena, text, number, arena.proxies.model)
        dataset = InterleavedDomainDataset(
            text.domains,
            mixture_K,
            num_samples=arena.proxies.steps * arena.training.batch_rows,
            seed=number,
        )
        training = train(model, dataset, arena)
        losses = _rounded(bits_per_byte(model, judged))
        found.append({"mixture": mixture_K.tolist(), "bits_per_byte": losses, **training})
    return {"proxies": found}


def origin() -> dict[str, Any]:
    """Versions, hardware and day; the command is the arena's."""
    return {k: v for k, v in provenance().items() if k != "command"}


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, DIGITS) for name, number in numbers.items()}


def main() -> None:
    """Does one job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data")
    parser.add_argument("--targets", default="report")
    words = parser.parse_args()
    arena = arena_config.load(words.config, words.data)
    if arena.training.device == "cpu":
        torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    do(arena, words.job, words.targets, words.folder)


def do(arena: Arena, name: str, targets: str, folder: Path) -> None:
    """Does a job and writes its file."""
    seed = int(name.rpartition("-")[2]) if "-" in name else 0
    job = jobs(arena, seeds=[seed])[name]
    cache = folder.parent
    if job.kind == "text":
        arena_data.prepare(arena, targets, cache)
        write_json(job.path(folder), {})
        return
    domain_tokens = arena.regimes[job.regime].domain_tokens
    text = arena_data.load(arena, targets, cache, domain_tokens=domain_tokens)
    make = {"run": make_run, "start": make_start, "proxies": make_proxies}[job.kind]
    job.path(folder).parent.mkdir(parents=True, exist_ok=True)
    write_json(job.path(folder), make(arena, job, text, folder))


if __name__ == "__main__":
    main()
