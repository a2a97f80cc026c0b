"""What a Trainer must be set to so that samples are read in order, each of them once.

In: TrainingArguments, the loader that the Trainer made, the dataset. Out: nothing, or one clear
error that names the argument, its value and the mend.
"""

from __future__ import annotations

from typing import Any

from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.order.layout import BatchLayout


def check_dataset(dataset: Any) -> None:
    """Refuses what is no InterleavedDomainDataset (TypeError)."""
    if not isinstance(dataset, InterleavedDomainDataset):
        raise TypeError(
            "`dataset` must be the InterleavedDomainDataset that the Trainer reads; got "
            f"{dataset!r}. If restore_callback_states_from_checkpoint is set, leave it out: the "
            "callback restores itself."
        )


def check_arguments(args: TrainingArguments) -> None:
    """Refuses arguments under which training would not follow the dataset's order.

    Raises:
        ValueError: names the argument, its value and what to set it to.
    """
    config = args.accelerator_config
    assert isinstance(config, AcceleratorConfig)  # TrainingArguments made it one
    checks: dict[str, tuple[object, tuple[object, ...], str]] = {
        "accelerator_config.split_batches": (
            config.split_batches,
            (False,),
            "every rank reads whole batches",
        ),
        "accelerator_config.dispatch_batches": (
            config.dispatch_batches,
            (None, False),
            "every rank reads for itself",
        ),
        "ignore_data_skip": (args.ignore_data_skip, (False,), "a resumed run goes on where it was"),
        "auto_find_batch_size": (
            args.auto_find_batch_size,
            (False,),
            "a step reads a fixed number of samples",
        ),
        "dataloader_in_order": (
            args.dataloader_in_order,
            (True,),
            "batches arrive in the order of samples",
        ),
        "restore_callback_states_from_checkpoint": (
            args.restore_callback_states_from_checkpoint,
            (False,),
            "the callback restores itself, around your live dataset",
        ),
        "parallelism_config": (
            args.parallelism_config,
            (None,),
            "every process reads batches of its own (tensor and context parallelism: not yet)",
        ),
        "train_sampling_strategy": (
            args.train_sampling_strategy,
            ("sequential", "random"),  # "random" is the default, which the callback replaces
            "the order of samples is the dataset's",
        ),
    }
    for name, (value, allowed, reason) in checks.items():
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be {allowed[0]!r} with TikMixCallback, so that {reason}; got "
                f"{value!r}. Leave it out of the TrainingArguments."
            )


def layout_of(args: TrainingArguments, dataset: InterleavedDomainDataset) -> BatchLayout:
    """Reads off how this run cuts the dataset into batches."""
    return BatchLayout(
        num_samples=len(dataset),
        per_device=args.train_batch_size,
        world_size=args.world_size,
        accumulation=args.gradient_accumulation_steps,
        drop_last=args.dataloader_drop_last,
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor or 2,
    )


def check_loader(loader: DataLoader, dataset: InterleavedDomainDataset) -> None:
    """Refuses a loader that reads other data, or in another order.

    Raises:
        ValueError: names `train_dataset` or `train_sampling_strategy`.
    """
    if loader.dataset is not dataset:
        raise ValueError(
            "`train_dataset` of the Trainer must be the dataset of TikMixCallback; got another "
            f"object, a {type(loader.dataset).__name__}. Pass the same one to both."
        )
    batches = loader.batch_sampler
    if isinstance(batches, BatchSamplerShard):
        batches = batches.batch_sampler
    sampler = batches.sampler if isinstance(batches, BatchSampler) else batches
    if not isinstance(sampler, SequentialSampler):
        raise ValueError(
            "`train_sampling_strategy` must be 'sequential' when the Trainer is made; its loader "
            f"has a {type(sampler).__name__}. Pass the callback as Trainer(callbacks=[callback]), "
            "which sets it, or set it in the TrainingArguments yourself."
        )


def check_length(args: TrainingArguments, layout: BatchLayout, max_steps: int) -> None:
    """Refuses a run that the dataset is too short for, or whose last batches would repeat samples.

    Raises:
        ValueError: names `num_samples` and the least value that will do.
    """
    step = layout.batch * layout.accumulation
    needed = args.max_steps * step
    if args.max_steps > 0 and layout.num_samples < needed:
        raise ValueError(
            f"`num_samples` must cover the run: max_steps={args.max_steps} steps of {step} samples "
            f"({layout.per_device} per device x {layout.world_size} processes x accumulation "
            f"{layout.accumulation}) are {needed}; got {layout.num_samples}. Pass "
            f"num_samples={needed} or lower max_steps."
        )
    rest = layout.num_samples % layout.batch
    ends_epoch = max_steps >= layout.steps_per_epoch
    if rest and layout.world_size > 1 and not layout.drop_last and ends_epoch:
        raise ValueError(
            f"`num_samples` must be a multiple of {layout.batch} ({layout.per_device} per device x "
            f"{layout.world_size} processes), or accelerate fills the last batch of an epoch with "
            f"repeated samples; got {layout.num_samples}. Pass "
            f"num_samples={layout.num_samples - rest} or set dataloader_drop_last=True."
        )
