"""Pre-train a causal language model on a mixture that it chooses while it trains.

    accelerate launch recipes/pretrain.py --config recipes/quickstart.yaml

Any argument of the YAML file can also be given on the command line, which wins; `--mixer static` is
the control run. The output folder gets `model/`, `schedule.json`, `influence.jsonl`,
`metrics.json`, `mixture.png` and `influence.png`.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import sources
import torch
from arguments import MixtureArguments, ModelArguments, as_settings, parse
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from tikmix_hf import (
    InterleavedDomainDataset,
    MixtureSchedule,
    PackedCollator,
    TikMixCallback,
    last_complete_checkpoint,
    mixers,
    plots,
)
from tikmix_hf.files import write_json
from tikmix_hf.update import read_records


def main(argv: list[str]) -> None:
    """Trains, then says what changed and what it cost."""
    model_args, data_args, mixture_args, args = parse(argv)
    console = Console(quiet=args.process_index > 0)
    tokenizer = load_tokenizer(model_args)
    with args.main_process_first(desc="reading the domains"):
        started = time.perf_counter()
        data = sources.load(data_args, tokenizer, args.seed)
    console.print(describe(data, time.perf_counter() - started))

    if args.max_steps < 1:
        raise SystemExit("`max_steps` must be set: the optimizer steps of the run.")
    resumes_by_name = args.resume_from_checkpoint not in (None, "auto")
    if mixture_args.control and resumes_by_name:
        raise SystemExit(
            "`resume_from_checkpoint` names one run's checkpoint, but `control` trains two. Write "
            "resume_from_checkpoint: auto, and each run goes on from its own."
        )
    runs = {mixture_args.mixer: mixture_args}
    if mixture_args.control and mixture_args.mixer != "static":
        runs["static"] = dataclasses.replace(mixture_args, mixer="static", mixer_settings=None)
    results = {}
    for label, settings in runs.items():
        folder = Path(str(args.output_dir)) / ("" if settings is mixture_args else label)
        run_args = copy.copy(args)
        run_args.output_dir = str(folder)
        console.rule(f"{label}: {run_args.max_steps} steps")
        results[label] = train(model_args, settings, run_args, data)
    if args.process_index == 0:
        report(Path(str(args.output_dir)), data, results, console)


def train(
    model_args: ModelArguments,
    mixture_args: MixtureArguments,
    args: TrainingArguments,
    data: sources.Sources,
) -> dict[str, Any]:
    """Makes one run in `args.output_dir`, and returns its losses and costs."""
    set_seed(args.seed)
    model = make_model(model_args, data.tokenizer)
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    dataset = InterleavedDomainDataset(
        data.domains,
        mixture_args.mixture or "natural",
        num_samples=args.max_steps * step,
        seed=args.seed,
    )
    callback = TikMixCallback(
        dataset,
        targets=data.targets,
        mixer=mixers.load(mixture_args.mixer)(
            **as_settings("mixer_settings", mixture_args.mixer_settings)
        ),
        every_steps=mixture_args.every_steps,
        observe=mixture_args.observe,
        preconditioner=mixture_args.preconditioner,
        damping=mixture_args.damping,
        num_rows=mixture_args.num_rows,
        seed=args.seed,
    )
    trainer = Trainer(
        model,
        args,
        train_dataset=dataset,
        data_collator=PackedCollator(),
        processing_class=data.tokenizer,
        callbacks=[callback],
    )
    checkpoint = args.resume_from_checkpoint
    if checkpoint == "auto":
        checkpoint = last_complete_checkpoint(str(args.output_dir))
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(Path(str(args.output_dir)) / "model"))
    losses = {name: mean_loss(model, rows, args) for name, rows in data.evals.items()}
    return {
        "losses": losses,
        "mean_loss": sum(losses.values()) / len(losses),
        "seconds": outcome.metrics["train_runtime"],
        "num_samples": dataset.num_samples,
        "trained_tokens": int(dataset.tokens_between(0, dataset.num_samples).sum()),
        "num_parameters": model.num_parameters(),
        "epochs": dataset.epochs_used(dataset.num_samples),
    }


def load_tokenizer(args: ModelArguments) -> PreTrainedTokenizerBase | None:
    """Loads the tokenizer that the arguments name; None leaves it to the corpus."""
    name = args.tokenizer_name_or_path or args.model_name_or_path
    return None if name is None else AutoTokenizer.from_pretrained(name)


def make_model(args: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Loads a model to train on, or makes one from its configuration."""
    if args.model_name_or_path is not None:
        return AutoModelForCausalLM.from_pretrained(args.model_name_or_path)
    settings = as_settings("model_config", args.model_config)
    if "model_type" not in settings:
        raise SystemExit(
            "`model_name_or_path` or `model_config` must be set; got neither. For a model from "
            "scratch write model_config: {model_type: llama, hidden_size: 128, ...}."
        )
    ids = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    config = AutoConfig.for_model(
        settings.pop("model_type"), **{"vocab_size": len(tokenizer), **ids, **settings}
    )
    return AutoModelForCausalLM.from_config(config)


@torch.no_grad()
def mean_loss(model: PreTrainedModel, rows: datasets.Dataset, args: TrainingArguments) -> float:
    """Mean loss over all tokens of packed rows, in nats per token; the same on every rank."""
    model.eval()
    blocks = torch.tensor(rows["input_ids"])
    batches = blocks.split(4 * args.per_device_train_batch_size)
    sums = [
        float(model(input_ids=batch, labels=batch).loss) * len(batch)
        for batch in (batch.to(model.device) for batch in batches)
    ]
    return sum(sums) / len(blocks)


def describe(data: sources.Sources, seconds: float) -> Table:
    """Draws up what the run reads."""
    table = Table(title=f"What the run reads (ready in {seconds:.1f} s)", title_justify="left")
    for heading in ("domain", "tokens", "share", "what it is"):
        table.add_column(heading, justify="right" if heading in ("tokens", "share") else "left")
    for domain, share in zip(data.domains, data.domains.prior, strict=True):
        table.add_row(domain.name, f"{domain.num_tokens:,}", f"{share:.3f}", domain.description)
    table.add_section()
    for name, rows in data.targets.items():
        table.add_row(f"target {name}", f"{sum(map(len, rows['input_ids'])):,}", "", "")
    return table


def report(folder: Path, data: sources.Sources, results: dict[str, Any], console: Console) -> None:
    """Writes metrics and pictures, and prints what changed and what it cost."""
    records = (
        read_records(folder / "influence.jsonl") if (folder / "influence.jsonl").exists() else []
    )
    write_json(folder / "metrics.json", {"runs": results, "num_updates": len(records)})
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
    if len(results) > 1:
        # The control comes first: the picture shows how far the others are from it.
        losses = {label: results[label]["losses"] for label in reversed(results)}
        plots.plot_target_losses(losses, folder / "losses.png")
    for table in (_mixtures(schedule, data), _losses(results)):
        console.print(table)
    console.print(_costs(records, results, folder))


def _mixtures(schedule: MixtureSchedule, data: sources.Sources) -> Table:
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
    lines = []
    if records:
        seconds = sum(record["seconds"] for record in records)
        last = records[-1]
        lines.append(
            f"{len(records)} updates cost {seconds:.1f} s: {last['time_share']:.1%} of the time "
            f"and {last['token_share']:.1%} of the tokens trained by then."
        )
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


if __name__ == "__main__":
    main(sys.argv[1:])
