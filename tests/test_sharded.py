"""FSDP2's shards on two gloo processes give the influence of one process, and train on unharmed."""

import functools
import itertools

import numpy as np
import pytest
import torch
from test_distributed import Batches, in_turn, on_two_ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from transformers import LlamaConfig, LlamaForCausalLM

from tikmix_hf import distributed
from tikmix_hf.signals import GroupInfluence

NAMES = ("identity", "adam", "adam_unit", "sign")
NUM_DOMAINS = (1, 3)  # held, streamed


def model(dropout=0.0, *, checkpointing=False):
    """No dimension of 0 is even, so that shards are of unequal length; embeddings are tied."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=29,
        hidden_size=14,
        intermediate_size=15,
        num_hidden_layers=2,
        num_attention_heads=1,
        head_dim=14,
        attention_dropout=dropout,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    network = LlamaForCausalLM(config)
    if checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    return network


def sharded(network, mesh=None):
    for layer in network.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def replicated(network):
    """Hybrid sharding: a replica on each of the two ranks, in one shard."""
    return sharded(network, init_device_mesh("cpu", (2, 1), mesh_dim_names=("replica", "shard")))


def domains(num_domains):
    every = {"web": Batches(1, 5), "code": Batches(2, 4), "books": Batches(3, 1)}
    return dict(list(every.items())[:num_domains])


def targets():
    return {"arc": Batches(4, 3), "boolq": Batches(5, 4)}


def trained(network):
    """AdamW after two steps on batches that every rank shares, so that S can be compared."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(2):
        network(**Batches(9, 9)[step]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def measure(network, name, num_domains):
    influence = GroupInfluence(network, preconditioner=name, optimizer=trained(network))
    return influence.measure(domains(num_domains), targets())


def check_influence_equals(expected, shard):
    for (name, num_domains), one_process in expected.items():
        two = measure(shard(model()), name, num_domains)
        distributed.check_identical(name, two.values.tobytes() + two.stderr.tobytes())
        scale = np.abs(one_process.values).max(axis=1, keepdims=True)
        # The promise is 1e-5. A sign flips where a gradient is nothing but rounding.
        assert (np.abs(two.values - one_process.values) <= 1e-5 * scale).all(), (name, num_domains)
        np.testing.assert_allclose(two.domain_losses, one_process.domain_losses, rtol=1e-6)
        np.testing.assert_allclose(two.target_losses, one_process.target_losses, rtol=1e-6)
        assert two.num_tokens == one_process.num_tokens
        # Two microbatches are one group here: other halves, other errors, of the same size.
        assert np.isfinite(two.target_stderr).all()


def check_training_is_bit_identical_with_measurements(shard, *, checkpointing):
    def train(measured):
        network = shard(model(dropout=0.2, checkpointing=checkpointing)).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        torch.manual_seed(distributed.rank())
        for step in range(4):
            for half in range(2):  # accumulation
                network(**Batches(7, 16)[4 * step + 2 * half + distributed.rank()]).loss.backward()
                if measured and step == 1:  # in the middle of it, too
                    GroupInfluence(network).measure(domains(1), targets())
            optimizer.step()
            optimizer.zero_grad()
            if measured and step != 1:
                GroupInfluence(network).measure(domains(3), targets())
        return torch.cat([p.to_local().detach().flatten() for p in network.parameters()])

    assert torch.equal(train(False), train(True))


def check_a_bad_batch_on_one_rank_fails_both():
    class Unlabelled(Batches):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            return {"input_ids": batch["input_ids"]} if index == 3 else batch

    error = ValueError if distributed.rank() == 1 else RuntimeError
    with pytest.raises(error, match="domain 'web', batch 3: a batch must have `labels`"):
        GroupInfluence(sharded(model())).measure({"web": Unlabelled(1, 5)}, targets())


def check_a_batch_without_loss_tokens_counts_for_nothing():
    class Masked(Batches):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            if index == 4:
                batch["labels"] = torch.full_like(batch["labels"], -100)
            return batch

    masked = GroupInfluence(sharded(model())).measure({"web": Masked(1, 5)}, targets())
    without = GroupInfluence(sharded(model())).measure({"web": Batches(1, 4)}, targets())
    np.testing.assert_allclose(masked.values, without.values, rtol=1e-5)
    assert masked.num_tokens == without.num_tokens


def check_other_shardings_are_refused():
    flat = FullyShardedDataParallel.__new__(FullyShardedDataParallel)  # refuses to be made on a CPU
    nn.Module.__init__(flat)
    flat.inner = model()
    with pytest.raises(ValueError, match=r"FSDP1.*`fsdp_version: 2`"):
        GroupInfluence(nn.Sequential(flat)).measure(domains(3), targets())
    mesh = init_device_mesh("cpu", (2,))
    tensor_parallel = nn.Sequential(nn.Linear(4, 4))
    parallelize_module(tensor_parallel, mesh, {"0": ColwiseParallel()})
    with pytest.raises(ValueError, match="DTensors that FSDP2 did not make"):
        GroupInfluence(tensor_parallel).measure(domains(3), targets())
    for name in ("kfac", "ggn"):
        with pytest.raises(ValueError, match="sign"):
            GroupInfluence(sharded(model()), preconditioner=name).measure(domains(3), targets())


def check_auto_is_sign():
    matrix = GroupInfluence(sharded(model())).measure(domains(3), targets())
    assert matrix.preconditioner == "sign"


def test_shards_of_two_ranks_give_the_influence_of_one_process(tmp_path):
    expected = {
        (name, num): measure(model(), name, num)
        for name, num in itertools.product(NAMES, NUM_DOMAINS)
    }
    identical = check_training_is_bit_identical_with_measurements
    checks = [
        functools.partial(check_influence_equals, expected, sharded),
        functools.partial(check_influence_equals, expected, replicated),
        functools.partial(identical, sharded, checkpointing=False),
        functools.partial(identical, sharded, checkpointing=True),
        functools.partial(identical, replicated, checkpointing=False),
        check_a_bad_batch_on_one_rank_fails_both,
        check_a_batch_without_loss_tokens_counts_for_nothing,
        check_other_shardings_are_refused,
        check_auto_is_sign,
    ]
    on_two_ranks(functools.partial(in_turn, checks), tmp_path)
