"""One process is the identity; two gloo processes over a file store agree, and fail together."""

import collections
import functools
import itertools
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from tikmix_hf import distributed
from tikmix_hf.signals import GroupInfluence
from tikmix_hf.signals.held import HeldGradients
from tikmix_hf.signals.passes import open_passes
from tikmix_hf.signals.preconditioners import kfac
from tikmix_hf.signals.walk import settle, walk

WORLD_SIZE = 2


def on_two_ranks(check, tmp_path):
    """Runs `check()` in two processes; what one of them raises fails the test."""
    multiprocessing.spawn(_enter, (check, str(tmp_path / "store")), nprocs=WORLD_SIZE, join=True)


def _enter(rank, check, store):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, WORLD_SIZE), rank=rank, world_size=WORLD_SIZE
    )
    assert (distributed.rank(), distributed.world_size()) == (rank, WORLD_SIZE)
    check()
    dist.destroy_process_group()


def in_turn(checks):
    for check in checks:
        check()


def model(dropout=0.0):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=29,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


class Batches:
    """Lazy and of unequal length; remembers which of them were asked for."""

    def __init__(self, seed, num_batches):
        self.seed, self.num_batches, self.touched = seed, num_batches, []

    def __len__(self):
        return self.num_batches

    def __getitem__(self, index):
        self.touched.append(index)
        generator = torch.Generator().manual_seed(100 * self.seed + index)
        ids = torch.randint(0, 29, (2, 8 + index % 3), generator=generator)
        labels = ids.clone()
        labels[0, :4] = -100
        return {"input_ids": ids, "labels": labels}


def domains():
    return {"web": Batches(1, 5), "code": Batches(2, 4), "books": Batches(3, 1)}


def targets():
    return {"arc": Batches(4, 3), "boolq": Batches(5, 2)}


def trained(network, num_steps=2):
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(num_steps):
        network(**Batches(9, 9)[step]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def measure(name, dtype):
    network = model().to(dtype)
    return GroupInfluence(network, preconditioner=name, optimizer=trained(network)).measure(
        domains(), targets()
    )


def check_influence_equals(expected):
    for (name, dtype), one_process in expected.items():
        two = measure(name, dtype)
        distributed.check_identical(name, two.values.tobytes() + two.stderr.tobytes())
        scale = np.abs(one_process.values).max(axis=1, keepdims=True)
        # The promise. Two ranks add the same gradients in another order.
        assert (np.abs(two.values - one_process.values) <= 1e-6 * scale).all(), (name, dtype)
        np.testing.assert_allclose(two.stderr, one_process.stderr, rtol=1e-4)
        # Losses are summed in float64; in float32 the kernels may round as they please.
        rounding = 1e-12 if dtype == torch.float64 else 1e-6
        np.testing.assert_allclose(two.domain_losses, one_process.domain_losses, rtol=rounding)
        np.testing.assert_allclose(two.target_losses, one_process.target_losses, rtol=rounding)
        assert two.num_tokens == one_process.num_tokens
        distributed.check_identical("seconds", str(two.seconds).encode())


def check_each_rank_touches_its_own_batches():
    all_batches = domains() | targets()
    GroupInfluence(model(), preconditioner="sign").measure(
        {name: all_batches[name] for name in domains()},
        {name: all_batches[name] for name in targets()},
    )
    for batches in all_batches.values():
        assert batches.touched == list(range(distributed.rank(), len(batches), WORLD_SIZE))


class Poisoned(Batches):
    """Batch 3, which is rank 1's alone, is spoilt."""

    def __init__(self, spoil):
        super().__init__(1, 5)
        self.spoil = spoil

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        return self.spoil(batch) if index == 3 else batch


class FragileModel(torch.nn.Module):
    """The loss is NaN for a batch that holds token 28 only."""

    def __init__(self):
        super().__init__()
        self.inner = model()

    def forward(self, input_ids, labels, use_cache):
        output = self.inner(input_ids=input_ids, labels=labels, use_cache=use_cache)
        if bool((input_ids == 28).all()):
            output.loss = output.loss * float("nan")
        return output


def check_a_nan_on_one_rank_raises_on_both():
    poisoned = Poisoned(
        lambda batch: (
            batch | {"input_ids": torch.full((2, 8), 28), "labels": torch.full((2, 8), 28)}
        )
    )
    for name in ("identity", "sign"):
        influence = GroupInfluence(FragileModel(), preconditioner=name)
        with pytest.raises(FloatingPointError, match="domain 'web', batch 3: the loss"):
            influence.measure({"web": poisoned}, targets())
        with pytest.raises(FloatingPointError, match="target 'arc', batch 3: the loss"):
            influence.measure(domains(), {"arc": poisoned})


def check_an_exception_on_one_rank_reaches_both():
    unlabelled = Poisoned(lambda batch: {"input_ids": batch["input_ids"]})
    error = ValueError if distributed.rank() == 1 else RuntimeError
    for name in ("identity", "sign"):
        influence = GroupInfluence(model(), preconditioner=name)
        with pytest.raises(error, match="domain 'web', batch 3: a batch must have `labels`"):
            influence.measure({"web": unlabelled}, targets())
    different = {"web" if distributed.rank() == 0 else "wob": Batches(1, 2)}
    with pytest.raises(RuntimeError, match=r"names and numbers of batches.*ranks \[1\] of 2"):
        GroupInfluence(model(), preconditioner="sign").measure(different, targets())


class Failing:
    """Stands for a function; its n-th call, counted from 1, runs out of memory on some ranks."""

    def __init__(self, function, call, ranks):
        self.function, self.call, self.ranks, self.num_calls = function, call, ranks, 0

    def __call__(self, *arguments, **settings):
        self.num_calls += 1
        if self.num_calls == self.call and distributed.rank() in self.ranks:
            raise torch.OutOfMemoryError("planted")
        return self.function(*arguments, **settings)


def check_local_work_fails_together():
    one_domain = {"web": Batches(1, 5)}
    for name, owner, function, call, domain_batches in (
        ("kfac", torch.linalg, "eigh", 2, domains()),
        ("kfac", kfac, "_rotated", 3, domains()),
        ("kfac", kfac, "_rotated", 1, one_domain),
        ("identity", HeldGradients, "put_whole", 2, domains()),
        ("identity", HeldGradients, "put_half", 1, domains()),
        ("identity", HeldGradients, "squares", 1, domains()),
        ("sign", HeldGradients, "dots", 2, domains()),
        ("sign", HeldGradients, "put_half", 2, one_domain),
    ):
        for ranks in ({1}, {0, 1}):
            influence = GroupInfluence(model().double(), preconditioner=name)
            mine = distributed.rank() in ranks
            error = torch.OutOfMemoryError if mine else distributed.OtherRankFailed
            failing = Failing(getattr(owner, function), call, ranks)
            # A plain object in a class is no method: the instance would be left out.
            stand_in = functools.partialmethod(failing) if isinstance(owner, type) else failing
            planted = mock.patch.object(owner, function, stand_in)
            with planted, pytest.raises(error, match="planted"):
                influence.measure(domain_batches, targets())
            assert failing.num_calls >= call
            distributed.check_identical("the step", f"{name} {function}".encode())


def check_a_rank_that_keeps_company_notes_its_shards_of_the_gradient():
    def squares_of_groups(passes, lanes):
        sums = collections.defaultdict(list)
        for m in range(3):
            sums[m // lanes].append(passes.gradient(Batches(3, 3)[m]).gradient)
        return [
            sum(float(torch.stack(parts).sum(0).square().sum()) for parts in zip(*own, strict=True))
            for own in sums.values()
        ]

    expected = squares_of_groups(open_passes(model().double()), WORLD_SIZE)
    passes = open_passes(fully_shard(model().double()))
    ledger = walk("it", Batches(3, 3), passes, lambda *_: None, tqdm(disable=True))
    distributed.all_reduce_sum_([ledger])
    part = settle("it", ledger, passes.lanes)
    assert part.gradient_size == pytest.approx(sum(expected) ** 0.5 / part.num_loss_tokens)
    assert part.num_tokens == sum(Batches(3, 3)[m]["input_ids"].numel() for m in range(3))


def check_ddp_training_is_bit_identical_with_measurements():
    def train(measured):
        network = model(dropout=0.2).train()
        parallel = DistributedDataParallel(network)
        # Its forward is a collective, and ranks may have unequal numbers of microbatches.
        assert GroupInfluence(parallel).model is network
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        torch.manual_seed(distributed.rank())
        for step in range(4):
            parallel(**Batches(7, 8)[2 * step + distributed.rank()]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if measured:
                GroupInfluence(parallel, preconditioner="sign").measure(domains(), targets())
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(train(False), train(True))


def check_reductions():
    mine = [torch.full((2,), 1.0 + distributed.rank()), torch.tensor(10 * distributed.rank())]
    distributed.all_reduce_sum_(mine)
    assert mine[0].tolist() == [3.0, 3.0]
    assert mine[1].item() == 10
    distributed.barrier()


def check_identity_is_checked():
    distributed.check_identical("the mixture", b"same")
    with pytest.raises(
        RuntimeError, match=r"the mixture must be the same.*ranks \[1\] of 2 differ"
    ):
        distributed.check_identical("the mixture", b"rank %d" % distributed.rank())


def check_rank_0_solves_for_all():
    ranks_that_ran = []

    def solve():
        ranks_that_ran.append(distributed.rank())
        return {"rank": distributed.rank()}

    assert distributed.solve_on_rank_0(solve) == {"rank": 0}
    assert ranks_that_ran == ([0] if distributed.rank() == 0 else [])

    def fail():
        raise KeyError("no such domain")

    with pytest.raises(KeyError, match="no such domain"):
        distributed.solve_on_rank_0(fail, (ValueError, KeyError))
    unforeseen = KeyError if distributed.rank() == 0 else RuntimeError
    with pytest.raises(unforeseen, match=r"no such domain|rank 0 failed"):
        distributed.solve_on_rank_0(fail, (ValueError,))
    assert distributed.solve_on_rank_0(lambda: 5) == 5  # the ranks are still in step


def check_ranks_fail_together():
    with distributed.FailTogether():
        pass
    error = ZeroDivisionError if distributed.rank() == 1 else RuntimeError
    with pytest.raises(error, match="by zero"), distributed.FailTogether():
        1 // (1 - distributed.rank())


def test_two_ranks_agree_and_fail_together(tmp_path):
    names, dtypes = ("identity", "adam", "adam_unit", "sign"), (torch.float32, torch.float64)
    keys = [*itertools.product(names, dtypes), *(("kfac", torch.float64), ("ggn", torch.float64))]
    expected = {key: measure(*key) for key in keys}
    # One spawn for all: importing torch and transformers takes longer than the checks.
    checks = [
        check_reductions,
        check_identity_is_checked,
        check_rank_0_solves_for_all,
        check_ranks_fail_together,
        functools.partial(check_influence_equals, expected),
        check_each_rank_touches_its_own_batches,
        check_a_nan_on_one_rank_raises_on_both,
        check_an_exception_on_one_rank_reaches_both,
        check_local_work_fails_together,
        check_a_rank_that_keeps_company_notes_its_shards_of_the_gradient,
        check_ddp_training_is_bit_identical_with_measurements,
    ]
    on_two_ranks(functools.partial(in_turn, checks), tmp_path)


def test_one_process_is_the_identity():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    tensor = torch.tensor([1.0, 2.0])
    distributed.all_reduce_sum_([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    distributed.barrier()
    distributed.check_identical("anything", b"at all")
    assert distributed.solve_on_rank_0(lambda: "result") == "result"
    with pytest.raises(ValueError, match="planted"), distributed.FailTogether():
        raise ValueError("planted")
    with pytest.raises(ValueError, match="planted"):
        distributed.solve_on_rank_0(_raise, (KeyError,))


def _raise():
    raise ValueError("planted")
