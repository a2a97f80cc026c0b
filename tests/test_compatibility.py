"""Whatever else people train with: observing changes no bit of it, and measures the plain loss.

In: a Trainer with a precision, an adapter, a compiler or a loss of its own. Out: the same run to
the last bit with and without the measurements, and an influence that equals one taken by hand from
the logits, which know nothing of what training adds to the loss.
"""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from by_hand import influence_by_hand
from peft import LoraConfig, get_peft_model
from tiny import (
    VOCABULARY,
    assert_same_bits,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
    parameters,
    rows,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from torch._dynamo import OptimizedModule
from transformers import (
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from tikmix_hf import Measurement, PackedCollator, TikMixCallback

STEPS = 4
ALL_ROWS = 14  # no domain and no target holds out more, so every row is measured


def plain(dropout: float = 0.2) -> LlamaForCausalLM:
    """Without the record of what was read, which a compiler would break its graph at."""
    torch.manual_seed(0)
    return LlamaForCausalLM(make_model(dropout).config)


def adapted() -> nn.Module:
    """LoRA: a frozen model, and a few small trainable matrices."""
    config = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft asks a transformers model by a name that is about to go.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(make_model(dropout=0.2), config)


def experts() -> MixtralForCausalLM:
    """Trained with a loss that balances its experts, which is no loss of any token."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=3,
        num_experts_per_tok=2,
        attention_dropout=0.2,
        output_router_logits=True,
        router_aux_loss_coef=5.0,
    )
    return MixtralForCausalLM(config)


class Case(NamedTuple):
    """Something that people train with."""

    is_on: Callable[[Trainer], bool]
    """Whether the run truly had it; a test of what is off would prove nothing."""
    arguments: Mapping[str, Any] = MappingProxyType({})
    model: Callable[[], nn.Module] = functools.partial(make_model, dropout=0.2)
    rounding: float = 1e-4
    """How far the measurement may be from the one by hand, relative to the largest entry:
    float32 kernels that sum in another order, or bfloat16's eight bits."""


def has_adapters(trainer: Trainer) -> bool:
    moved = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    return bool(moved) and all("lora_" in name for name in moved)


def checkpoints(trainer: Trainer) -> bool:
    return any(m.gradient_checkpointing for m in trainer.model.modules() if is_layer(m))


def is_layer(module: nn.Module) -> bool:
    return type(module).__name__.endswith("DecoderLayer")


CASES = {
    "bf16 autocast": Case(
        lambda trainer: trainer.accelerator.native_amp, {"bf16": True}, rounding=2e-2
    ),
    "lora": Case(has_adapters, model=adapted),
    "lora, bf16, checkpointing, accumulation": Case(
        lambda trainer: has_adapters(trainer) and checkpoints(trainer),
        {"bf16": True, "activation_checkpointing": True, "gradient_accumulation_steps": 2},
        model=adapted,
        rounding=2e-2,
    ),
    "compiled": Case(
        lambda trainer: isinstance(trainer.model_wrapped, OptimizedModule),
        {"torch_compile": True, "torch_compile_backend": "eager"},
        model=plain,
    ),
    "experts": Case(lambda trainer: trainer.model.config.output_router_logits, model=experts),
    "label smoothing": Case(
        lambda trainer: trainer.label_smoother is not None, {"label_smoothing_factor": 0.3}
    ),
    # The model is told the number of tokens of both batches, and divides its sum by that.
    "untied, accumulation": Case(
        lambda trainer: trainer.model_accepts_loss_kwargs,
        {"gradient_accumulation_steps": 2},
        functools.partial(make_model, dropout=0.2, tie_word_embeddings=False),
    ),
}


class ByHand(TrainerCallback):
    """The influence from the logits, at the last step, where nothing is left to disturb."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.values = dataset, np.zeros(())

    def on_step_end(self, args, state, control, *, model, **kwargs):
        if state.global_step == STEPS:
            self.values = influence_by_hand(model.eval(), self.dataset)


def collate_with_luck(features) -> dict[str, torch.Tensor]:
    """Draws from every global generator, as collators do that mask at random."""
    torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    return PackedCollator()(features)


def observer(dataset, **options: Any) -> TikMixCallback:
    return TikMixCallback(
        dataset,
        targets=make_targets(),
        at_steps=[1, STEPS],
        observe=True,
        preconditioner="identity",
        num_rows=ALL_ROWS,
        measurement=Measurement(num_rounds=1, batch_size=5, data_collator=collate_with_luck),
        on_error="raise",
        progress=False,
        **options,
    )


def run(folder, case: Case, dataset: Any, *callbacks: Any) -> Trainer:
    """A short run on the same samples in the same order, whoever is listening."""
    options = {"train_sampling_strategy": "sequential", "max_steps": STEPS, "logging_steps": 1}
    arguments = make_arguments(folder, **{**options, **case.arguments})
    trainer = make_trainer(dataset, None, arguments, case.model(), callbacks)
    with warnings.catch_warnings():
        # torch.compile's and peft's own, on what they find in transformers.
        warnings.simplefilter("ignore")
        trainer.train()
    assert case.is_on(trainer)
    return trainer


def assert_observing_is_harmless_and_right(train: Callable[..., Trainer], rounding: float) -> None:
    alone = train(make_dataset())
    dataset = make_dataset()
    callback, expected = observer(dataset), ByHand(dataset)
    observed = train(dataset, callback, expected)
    assert [record.step for record in callback.updates] == [1, STEPS]
    assert_same_bits(parameters(alone.model), parameters(observed.model))
    assert losses(alone) == losses(observed)
    difference = np.abs(callback.influence.values - expected.values).max()
    assert difference <= rounding * np.abs(expected.values).max()


def losses(trainer: Trainer) -> list[float]:
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(found) == STEPS
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_observing_changes_no_bit_and_measures_the_plain_loss(tmp_path, case):
    train = functools.partial(run, tmp_path, case)
    assert_observing_is_harmless_and_right(train, case.rounding)


def test_trls_trainer_observed(tmp_path):
    assert_observing_is_harmless_and_right(functools.partial(run_trl, tmp_path), rounding=1e-4)


def run_trl(folder, dataset: Any, *callbacks: Any) -> Trainer:
    """SFTTrainer takes nothing but `datasets.Dataset` at first, and reads what it holds later."""
    vocabulary = {f"t{token}": token for token in range(VOCABULARY)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="t0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl's own
        arguments = SFTConfig(
            str(folder),
            per_device_train_batch_size=4,
            max_steps=STEPS,
            learning_rate=1e-2,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = SFTTrainer(
            make_model(dropout=0.2),
            arguments,
            train_dataset=rows(0, 1),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=words, pad_token="t1", eos_token="t2"
            ),
            data_collator=collate_with_mask,
            callbacks=list(callbacks),
        )
        trainer.train_dataset = dataset
        trainer.train()
    assert checkpoints(trainer)  # its default
    return trainer


def collate_with_mask(features) -> dict[str, torch.Tensor]:
    """SFTTrainer counts tokens by the mask, which a batch without padding has no need of."""
    batch = dict(PackedCollator()(features))
    return {"attention_mask": torch.ones_like(batch["input_ids"]), **batch}
