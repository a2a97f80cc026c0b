"""Pre-train a causal language model on a mixture that it chooses while it trains.

    accelerate launch recipes/pretrain.py --config recipes/quickstart.yaml

Any argument of the YAML file can also be given on the command line, which wins; `--mixer static` is
the control run. The output folder gets `model/`, `schedule.json`, `influence.jsonl`,
`metrics.json`, `mixture.png`, `influence.png` and `audit.png`. With `eval_suites` the trained
models are scored on suites, which needs the extra `eval`.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import datasets
import run_scores
import torch
from arguments import parse
from mixing import check_domains, check_mixture, make_callback
from rich.console import Console
from run_report import describe, report, result
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
    PackedCollator,
    last_complete_checkpoint,
    sources,
)
from tikmix_hf.recipe import MixtureArguments, ModelArguments, as_settings


def main(argv: list[str]) -> None:
    """Trains, then says what changed and what it cost."""
    model_args, data_args, mixture_args, args = parse(argv)
    console = Console(quiet=args.process_index > 0)
    try:
        check(model_args, mixture_args, args)
        suites = run_scores.suites(data_args)
        tokenizer = load_tokenizer(model_args)
        with args.main_process_first(desc="reading the domains"):
            started = time.perf_counter()
            data = sources.load(data_args, tokenizer, args.seed)
        check_domains(mixture_args, data.domains, num_samples=length(args))
        scorers = run_scores.scorers(
            suites, data_args, data.domains, data.tokenizer, progress=not args.disable_tqdm
        )
    except (ValueError, OSError, ImportError) as err:
        raise SystemExit(str(err)) from err
    console.print(describe(data, time.perf_counter() - started))
    runs = {mixture_args.mixer: mixture_args}
    if mixture_args.control and mixture_args.mixer != "static":
        runs["static"] = dataclasses.replace(mixture_args, mixer="static", mixer_settings=None)
    results, scores = {}, {}
    for label, settings in runs.items():
        folder = Path(str(args.output_dir)) / ("" if settings is mixture_args else label)
        run_args = copy.copy(args)
        run_args.output_dir = str(folder)
        console.rule(f"{label}: {run_args.max_steps} steps")
        model, results[label] = train(model_args, settings, run_args, data)
        scores[label] = [scorer.score(model, data.tokenizer) for scorer in scorers]
    if args.process_index == 0:
        report(Path(str(args.output_dir)), data, results, scores, console)


def check(
    model_args: ModelArguments, mixture_args: MixtureArguments, args: TrainingArguments
) -> None:
    """Refuses what could only fail later, before any text is read.

    Raises:
        ValueError: with one line that names the argument, its value and the mend.
    """
    if model_args.model_name_or_path is None:
        settings = as_settings("model_config", model_args.model_config)
        if "model_type" not in settings:
            raise ValueError(
                "`model_name_or_path` or `model_config` must be set; got neither. For a model from "
                "scratch write model_config: {model_type: llama, hidden_size: 128, ...}."
            )
    check_mixture(mixture_args, args.seed)
    if args.max_steps < 1:
        raise ValueError("`max_steps` must be set: the optimizer steps of the run.")
    resumes_by_name = args.resume_from_checkpoint not in (None, "auto")
    if mixture_args.control and resumes_by_name:
        raise ValueError(
            "`resume_from_checkpoint` names one run's checkpoint, but `control` trains two. Write "
            "resume_from_checkpoint: auto, and each run goes on from its own."
        )


def length(args: TrainingArguments) -> int:
    """Samples that a run reads."""
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return args.max_steps * step


def train(
    model_args: ModelArguments,
    mixture_args: MixtureArguments,
    args: TrainingArguments,
    data: sources.Sources,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Makes one run in `args.output_dir`; returns the model, and its losses and costs."""
    set_seed(args.seed)
    model = make_model(model_args, data.tokenizer)
    num_samples = length(args)
    dataset = InterleavedDomainDataset(
        data.domains,
        sources.replayed(mixture_args, data.domains, num_samples=num_samples),
        num_samples=num_samples,
        seed=args.seed,
    )
    callback = make_callback(mixture_args, dataset, data.targets, seed=args.seed)
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
    check_sharding(trainer)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if plugin is not None:  # shards are for checkpoints; the model at the end is one
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(Path(str(args.output_dir)) / "model"))
    losses = {name: mean_loss(model, rows, args) for name, rows in data.evals.items()}
    return model, result(trainer, dataset, losses, seconds=outcome.metrics["train_runtime"])


def check_sharding(trainer: Trainer) -> None:
    """Says so where FSDP is asked for and not given, which accelerate does not."""
    is_asked = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if is_asked and not trainer.is_fsdp_enabled and trainer.args.process_index == 0:
        device = trainer.args.device.type
        warnings.warn(
            f"FSDP is asked for and not given, because the device is {device!r}: every process "
            "holds the whole model. Start this on GPUs.",
            stacklevel=2,
        )


def load_tokenizer(args: ModelArguments) -> PreTrainedTokenizerBase | None:
    """Loads the tokenizer that the arguments name; None leaves it to the corpus."""
    name = args.tokenizer_name_or_path or args.model_name_or_path
    return None if name is None else AutoTokenizer.from_pretrained(name)


def make_model(args: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Loads a model to train on, or makes one from its configuration."""
    if args.model_name_or_path is not None:
        return AutoModelForCausalLM.from_pretrained(args.model_name_or_path)
    settings = as_settings("model_config", args.model_config)
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


if __name__ == "__main__":
    main(sys.argv[1:])
