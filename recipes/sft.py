"""Fine-tune with TRL and LoRA on instructions whose mixture the model chooses while it trains.

    accelerate launch recipes/sft.py --config recipes/sft.yaml
    accelerate launch recipes/sft.py --config recipes/sft.yaml --model_name_or_path NAME \
        --domain math=math.jsonl --domain code=code.jsonl --target exam=exam.jsonl

A plain TRL script; what is marked `# tikmix` is ours, and without it the script still runs. TRL
prepares all rows, and its collator makes the batches of training and of measuring alike: both have
the loss of the completions alone, and influence is taken over the adapters, which are all that is
trained. A domain's share is one of all tokens of its rows, prompts among them; the first table says
how many of them have a loss. `--mixer static` is the control run.
"""

from __future__ import annotations

import sys
import warnings  # tikmix
from pathlib import Path
from typing import Any

from instructions import InstructionArguments, Instructions, joined, load
from mixing import check_domains, check_one_run, make_callback  # tikmix
from prepared import judge, read_prepared  # tikmix
from rich.console import Console  # tikmix
from run_report import describe, report  # tikmix
from scratch import make_model
from transformers import set_seed
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config  # pyright: ignore
from trl_arguments import parse

from tikmix_hf import InterleavedDomainDataset, last_complete_checkpoint  # tikmix
from tikmix_hf.recipe import MixtureArguments  # tikmix
from tikmix_hf.sources import Sources, replayed  # tikmix


def main(argv: list[str]) -> SFTTrainer:
    """Fine-tunes, then says what changed and what it cost."""
    topics: list[Any] = [InstructionArguments, SFTConfig, ModelConfig]
    topics.append(MixtureArguments)  # tikmix
    text_args, args, model_args, *others = parse(topics, argv)
    mixture_args = others[0]  # tikmix
    try:
        check_one_run(mixture_args, args.seed)  # tikmix
        text = load(text_args, args.seed, text_column=args.dataset_text_field)
        set_seed(args.seed)
        model, tokenizer = make_model(model_args.model_name_or_path, text.domains)
    except (ValueError, OSError) as err:
        raise SystemExit(str(err)) from err
    args.train_sampling_strategy = "sequential"  # tikmix: the dataset decides the order
    trainer = SFTTrainer(
        model,
        args,
        train_dataset=joined(text.domains),
        eval_dataset={**text.targets},
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )
    try:  # tikmix
        data, dataset = mix(trainer, mixture_args, text, text_args.heldout)  # tikmix
    except (ValueError, OSError) as err:  # tikmix
        raise SystemExit(str(err)) from err  # tikmix
    if args.resume_from_checkpoint == "auto":  # tikmix
        args.resume_from_checkpoint = last_complete_checkpoint(str(args.output_dir))  # tikmix
    outcome = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    folder = Path(str(args.output_dir))
    trainer.save_model(str(folder / "model"))
    results = judge(trainer, data, dataset, outcome.metrics["train_runtime"])  # tikmix
    if args.process_index == 0:  # tikmix
        report(folder, data, {mixture_args.mixer: results}, {}, Console())  # tikmix
    return trainer


# tikmix: from here
def mix(
    trainer: SFTTrainer, mixture_args: MixtureArguments, text: Instructions, heldout: float
) -> tuple[Sources, InterleavedDomainDataset]:
    """Has the trainer read the rows that it has prepared in the order of a mixture.

    Raises:
        ValueError: too few rows are left, or a mixture or bounds of other domains.
        OSError: there is no such schedule.
    """
    args, data = trainer.args, read_prepared(trainer, text, heldout=heldout)
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    num_rows = sum(domain.num_rows for domain in data.domains)
    num_samples = args.max_steps * step if args.max_steps > 0 else num_rows // step * step
    check_domains(mixture_args, data.domains, num_samples=num_samples)
    dataset = InterleavedDomainDataset(
        data.domains,
        replayed(mixture_args, data.domains, num_samples=num_samples),
        num_samples=num_samples,
        seed=args.seed,
    )
    # Our rows are tensors, which TRL's collator copies in a way that torch warns of.
    warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
    collator = trainer.data_collator
    trainer.train_dataset = dataset  # SFTTrainer takes other kinds than its own only now
    trainer.add_callback(
        make_callback(mixture_args, dataset, data.targets, seed=args.seed, data_collator=collator)
    )
    Console(quiet=args.process_index > 0).print(describe(data))
    return data, dataset


# tikmix: to here


if __name__ == "__main__":
    main(sys.argv[1:])
