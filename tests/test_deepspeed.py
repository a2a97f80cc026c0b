"""ZeRO-2 and ZeRO-3 on two gloo processes give the influence of one, and train on unharmed."""

import functools
import gc
import importlib.util
import itertools
import logging
import os
from unittest import mock

import numpy as np
import pytest
import torch
from test_distributed import Batches, in_turn, on_two_ranks
from tiny import make_arguments, make_dataset, make_model, make_targets, make_trainer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from zero_state import moved_by_passes, unmoved

from tikmix_hf import Measurement, TikMixCallback, distributed
from tikmix_hf.signals import GroupInfluence
from tikmix_hf.signals.losses import mean_losses
from tikmix_hf.updates.measurer import Measurer

if importlib.util.find_spec("deepspeed") is None:
    pytest.skip("needs deepspeed: pip install deepspeed", allow_module_level=True)

from accelerate.utils import DeepSpeedOptimizerWrapper  # only where there is deepspeed

NAMES = ("identity", "sign")
NUM_DOMAINS = (1, 3)  # held, streamed
# A few parameters stay gathered between steps, others do not.
ZERO = {
    "zero2": {"stage": 2},
    "zero3": {"stage": 3, "stage3_param_persistence_threshold": 20},
    "zero3 offloaded": {
        "stage": 3,
        "stage3_param_persistence_threshold": 20,
        "offload_optimizer": {"device": "cpu"},
    },
}


class Model(LlamaForCausalLM):
    """Has parameters that only training's loss reaches, if any."""

    def __init__(self, config, helped):
        super().__init__(config)
        self.idle, self.helped = nn.Linear(3, 5), helped

    def forward(self, **inputs):
        output = super().forward(**inputs)
        if self.training and self.helped:
            output.loss = output.loss + self.idle(torch.ones(1, 3)).square().sum()
        return output


def model(*, helped=False, reentrant=None):
    """Dropout, tied embeddings, odd dimensions, and parameters of one element."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=29,
        hidden_size=15,
        intermediate_size=1,
        num_hidden_layers=2,
        num_attention_heads=1,
        head_dim=14,
        attention_dropout=0.2,
        mlp_bias=True,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    network = Model(config, helped)
    if reentrant is not None:
        network.activation_checkpointing_enable({"use_reentrant": reentrant})
    return network.train()


def domains(num_domains=3):
    every = {"web": Batches(1, 5), "code": Batches(2, 4), "books": Batches(3, 1)}
    return dict(list(every.items())[:num_domains])


def targets():
    return {"arc": Batches(4, 3), "boolq": Batches(5, 4)}


def measure(network, name, num_domains=3, optimizer=None):
    influence = GroupInfluence(network, preconditioner=name, optimizer=optimizer)
    return influence.measure(domains(num_domains), targets())


def engine(zero, network):
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "zero_optimization": ZERO[zero],
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    return deepspeed.initialize(model=network, optimizer=optimizer, config=config)[0]


def in_deepspeed(checks):
    os.environ.update(
        DS_ACCELERATOR="cpu",
        RANK=str(distributed.rank()),
        LOCAL_RANK=str(distributed.rank()),
        WORLD_SIZE="2",
        LOCAL_SIZE="2",
        LOCAL_WORLD_SIZE="2",
    )
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would need a compiler
    deepspeed.init_distributed("gloo")
    gc.collect()
    gc.freeze()  # DeepSpeed collects garbage in every engine
    in_turn(checks)
    gc.unfreeze()


def step(parallel, number, before_step):
    """One microbatch of training; every second one is followed by an optimizer step."""
    batch = Batches(7, 99)[2 * number + distributed.rank()]
    parallel.set_gradient_accumulation_boundary(number % 2 == 1)  # as accelerate does
    parallel.backward(parallel(**batch).loss)
    if number % 2 == 1:
        before_step(parallel)
        parallel.step()


def evaluate(parallel):
    """Through the engine, which takes it for a microbatch and counts on."""
    parallel.eval()
    with torch.no_grad():
        parallel(**Batches(8, 1)[0])
    parallel.train()


def state(parallel):
    """All ranks' parameters and moments; what pads the shards is anything."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    parameters = list(parallel.module.parameters())
    held = [safe_get_full_fp32_param(parameter) for parameter in parameters]
    for moment in ("exp_avg", "exp_avg_sq"):
        held += [safe_get_full_optimizer_state(parameter, moment) for parameter in parameters]
    return torch.cat([tensor.flatten() for tensor in held])


def check_influence_equals(expected, parallel):
    for (name, num_domains), one_process in expected.items():
        two = measure(parallel, name, num_domains)
        distributed.check_identical(name, two.values.tobytes() + two.stderr.tobytes())
        scale = np.abs(one_process.values).max(axis=1, keepdims=True)
        # The promise is 1e-5. A sign flips where a gradient is nothing but rounding.
        assert (np.abs(two.values - one_process.values) <= 1e-5 * scale).all(), (name, num_domains)
        np.testing.assert_allclose(two.domain_losses, one_process.domain_losses, rtol=1e-6)
        assert two.num_tokens == one_process.num_tokens
        losses = mean_losses(parallel, targets())
        np.testing.assert_allclose(losses.means, one_process.target_losses, rtol=1e-6)


def losses_alone(parallel):
    mean_losses(parallel, targets())


def check_training_is_bit_identical_with_measurements(expected, zero, **kind):
    before_steps = {1: losses_alone, 3: functools.partial(measure, name="sign")}
    after_microbatches = {
        0: functools.partial(check_influence_equals, expected),  # in the middle of accumulation
        2: losses_alone,
        3: functools.partial(measure, name="sign"),
        5: losses_alone,
    }

    def train(measured):
        def observe(plan, parallel):
            if measured and number in plan:
                with unmoved(parallel):
                    plan[number](parallel)

        parallel = engine(zero, model(**kind))
        torch.manual_seed(distributed.rank())
        for number in range(6):
            step(parallel, number, functools.partial(observe, before_steps))
            if number == 0:
                evaluate(parallel)
            observe(after_microbatches, parallel)
        return parallel

    plain = state(train(False))
    parallel = train(True)
    assert torch.equal(plain, state(parallel)), zero
    check_what_needs_more_is_refused(parallel, sharded=zero != "zero2")


def check_what_needs_more_is_refused(parallel, *, sharded):
    # As the Trainer hands it over; its constructor asks for an Accelerator.
    optimizer = DeepSpeedOptimizerWrapper.__new__(DeepSpeedOptimizerWrapper)
    optimizer.optimizer = parallel.optimizer
    for name in ("adam", "adam_unit"):
        with pytest.raises(ValueError, match=r'every trainable parameter in.*"sign"'):
            measure(parallel, name, optimizer=optimizer)
    for name in ("kfac", "ggn") if sharded else ():
        with pytest.raises(ValueError, match=f"'{name}' needs whole parameters.*\"sign\""):
            measure(parallel, name)


def check_other_states_of_zero_are_refused():
    parallel = engine("zero2", model(reentrant=True))
    with pytest.raises(ValueError, match=r"checkpoints reentrantly.*'use_reentrant': False"):
        measure(parallel, "sign")
    parallel = engine("zero3", model())
    parallel.optimizer.zenflow = True
    with pytest.raises(ValueError, match="ZenFlow"):
        measure(parallel, "sign")
    del parallel.optimizer.micro_step_id
    with pytest.raises(ValueError, match=r"lacks `micro_step_id`\. Known to work"):
        measure(parallel, "sign")
    del parallel.module.lm_head.weight._z3_optimizer
    with pytest.raises(ValueError, match="ZeRO-3 without an optimizer"):
        measure(parallel, "sign")


def check_the_stock_trainer_checks_first_and_trains_to_the_same_bits(folder):
    settings = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": ZERO["zero3"]}
    settings |= {"zero_allow_untested_optimizer": True, "gradient_accumulation_steps": "auto"}
    checked, check = [], Measurer.check

    def checks(measurer, network, optimizer):
        def found():
            shards = [(p.ds_status, p.ds_tensor.tolist()) for p in network.parameters()]
            return shards, moved_by_passes(network)

        before = found()
        check(measurer, network, optimizer)
        assert found() == before
        checked.append(len(network.read))

    def train(**observing):
        dataset = make_dataset()
        rounds = Measurement(num_rounds=1, batch_size=4)
        options = {"targets": make_targets(), "num_rows": 8, "measurement": rounds}
        callback = TikMixCallback(dataset, progress=False, **options, **observing)
        arguments = make_arguments(
            folder,
            deepspeed=settings,
            max_steps=2,
            gradient_accumulation_steps=2,
            train_sampling_strategy="sequential",
        )
        trainer = make_trainer(
            dataset, callback if observing else None, arguments, make_model(dropout=0.2)
        )
        trainer.train()
        assert (arguments.world_size, trainer.model_wrapped.zero_optimization_stage()) == (2, 3)
        return state(trainer.model_wrapped), callback.updates

    plain, _ = train()
    with mock.patch.object(Measurer, "check", checks):
        observed, updates = train(observe=True, at_steps=[1, 2], on_error="raise")
        with pytest.raises(ValueError, match="'kfac' needs whole parameters"):
            train(observe=True, at_steps=[1], preconditioner="kfac")
    assert checked == [0, 2 * 4]  # before a row was read, and after a step of two microbatches
    assert [update.step for update in updates] == [1, 2]
    assert torch.equal(plain, observed)


def test_two_ranks_under_zero_give_the_influence_of_one_process(tmp_path):
    expected = {
        (name, num_domains): measure(model(), name, num_domains)
        for name, num_domains in itertools.product(NAMES, NUM_DOMAINS)
    }
    identical = functools.partial(check_training_is_bit_identical_with_measurements, expected)
    checks = [
        functools.partial(identical, "zero2", reentrant=False),
        functools.partial(identical, "zero3"),
        functools.partial(identical, "zero3 offloaded", reentrant=True, helped=True),
        check_other_states_of_zero_are_refused,
        functools.partial(
            check_the_stock_trainer_checks_first_and_trains_to_the_same_bits, tmp_path
        ),
    ]
    on_two_ranks(functools.partial(in_deepspeed, checks), tmp_path)
