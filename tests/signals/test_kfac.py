"""The damped inverse against dense solves, and what a fit reads."""

import pytest
import torch
from curvature import EXACT, Bigram, factors, fisher_of, fitting, trainable
from tiny_models import domains, gpt2, llama, rows
from torch import nn
from torch.testing import assert_close

from tikmix_hf import distributed
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.preconditioners import _fisher, _predictions, kfac


def token_gradients(model, batch, by):
    """(N, V, P) of each loss token's loss, were its label v; (N, V) how likely that is."""
    counted = batch["labels"][:, 1:] != -100
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1][counted]
    log_NV = logits.log_softmax(-1)
    gradient_NVP = [
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(-one, by, retain_graph=True)])
            for one in row
        ]
        for row in log_NV
    ]
    return torch.stack([torch.stack(row) for row in gradient_NVP]), log_NV.detach().exp()


def test_the_inverse_is_the_dense_solve_with_one_damping_for_all_blocks():
    for model, max_side in ((gpt2(), 99), (llama(tied=False), 30)):
        damping, parameters = 0.3, trainable(model)
        fisher = fisher_of(model, domains()["web"], max_side=max_side)
        generator = torch.Generator().manual_seed(1)
        gradient_P = [
            torch.randn(own.shape, dtype=own.dtype, generator=generator) for own in parameters
        ]
        blocks = []  # dense block, the parameters' gradient and solution in its order
        solve = preconditioners.load("kfac")(damping=damping, share=1.0, max_side=max_side).fit(
            fitting(model, {"web": domains()["web"]})
        )
        solved_P = solve([gradient.clone() for gradient in gradient_P])
        for module, layer in fisher.layers.items():
            input_, output = (
                torch.diag(own) if own.dim() == 1 else own
                for own in (layer.input_sum, layer.output_sum)
            )
            pair = []
            for given_P in (gradient_P, solved_P):
                given = given_P[layer.weight]
                given = given.T if not isinstance(module, nn.Linear) else given
                if layer.bias is not None:
                    given = torch.cat([given, given_P[layer.bias][:, None]], dim=1)
                pair.append(given.flatten())
            blocks.append((torch.kron(output, input_), *pair))
        for place, diagonal in fisher.diagonals.items():
            pair = (gradient_P[place].flatten(), solved_P[place].flatten())
            blocks.append((torch.diag(diagonal.flatten()), *pair))
        num_rows = sum(len(dense) for dense, *_ in blocks)
        assert num_rows == sum(own.numel() for own in parameters)
        damp = damping * sum(float(dense.trace()) for dense, *_ in blocks) / num_rows
        for dense, gradient, solved in blocks:
            expected = torch.linalg.solve(
                dense + damp * torch.eye(len(dense), dtype=dense.dtype), gradient
            )
            assert_close(solved, expected, rtol=1e-10, atol=1e-10)
        is_diagonal = [layer.output_sum.dim() == 1 for layer in fisher.layers.values()]
        assert any(is_diagonal) == (max_side == 30)  # the untied head has 31 outputs


def test_where_kronecker_is_exact_so_is_the_inverse():
    # One input for all tokens: its outer product is a constant, and F = A (x) G.
    model, generator = Bigram(), torch.Generator().manual_seed(0)
    ids = torch.full((50, 101), 4)
    batch = {"input_ids": ids, "labels": ids}
    apply = preconditioners.load("kfac")(share=1.0).fit(fitting(model, {"web": [batch]}))
    gradient_P = [
        torch.randn(own.shape, dtype=own.dtype, generator=generator) for own in trainable(model)
    ]
    one = {name: column[:1, :2] for name, column in batch.items()}
    gradient_NVP, likely_NV = token_gradients(model, one, trainable(model))
    fisher = torch.einsum("nv,nvp,nvq->pq", likely_NV, gradient_NVP, gradient_NVP)
    damped = fisher + 0.1 * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=fisher.dtype)
    expected = torch.linalg.solve(damped, torch.cat([own.flatten() for own in gradient_P]))
    solved = torch.cat([own.flatten() for own in apply([own.clone() for own in gradient_P])])
    # 5,000 draws of 31 labels: a label's share is known to about 8 %.
    assert (solved - expected).norm() < 0.05 * expected.norm()
    plain = expected.norm() / torch.cat([own.flatten() for own in gradient_P]).norm()
    naive = torch.cat([own.flatten() for own in gradient_P]) * plain
    assert (naive - expected).norm() > 0.3 * expected.norm()


def test_factors_of_two_ranks_add_up_to_those_of_one(monkeypatch):
    model, few = llama(), {"web": domains()["web"][:1]}

    class Stop(Exception):
        pass

    def stop_before_the_sum(fisher):
        runs.append(fisher)
        raise Stop

    monkeypatch.setattr(distributed.FailTogether, "__exit__", lambda *_: None)
    monkeypatch.setattr(_fisher.Fisher, "reduce_", stop_before_the_sum)
    for batches in (domains(), few):  # of `few`, rank 1 has nothing
        runs = []
        for rank, world_size in ((0, 1), (0, 2), (1, 2)):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            monkeypatch.setattr(distributed, "world_size", lambda size=world_size: size)
            with pytest.raises(Stop):
                kfac.Kfac(share=0.5).fit(fitting(model, batches))
        whole, *parts = [
            torch.cat([tensor.flatten() for pair in factors(run).values() for tensor in pair])
            for run in runs
        ]
        assert_close(sum(parts), whole, **EXACT)


def test_the_draws_depend_on_the_seed_and_not_on_the_random_state():
    model, results = llama(), []
    for state, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        apply = kfac.Kfac(seed=seed).fit(fitting(model))
        assert torch.equal(torch.get_rng_state(), before)
        results.append(apply([torch.ones_like(own) for own in trainable(model)])[3])
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_share_takes_evenly_spaced_batches_of_every_domain():
    class Asked(list):
        def __getitem__(self, place):
            asked.append(place)
            return super().__getitem__(place)

    asked, batch = [], rows(3, 1)
    batches = {"web": Asked([batch] * 8), "code": Asked([batch])}
    kfac.Kfac(share=0.5).fit(fitting(Bigram(), batches))
    assert asked == [0, 2, 4, 6, 0]


def test_of_each_run_the_first_batch_with_loss_tokens_is_taken_by_any_number_of_ranks(monkeypatch):
    masked = rows(3, 1) | {"labels": torch.full((1, 9), -100)}
    text = [rows(seed, 1) for seed in range(8)]
    web = [masked, text[1], text[2], masked, masked, masked, masked, text[7]]
    settings = fitting(Bigram(), {"web": web, "code": [masked, masked, text[0]]})
    expected = [(0, text[1]), (1, text[2]), (3, text[7]), (5, text[0])]
    for world_size in (1, 2, 3):
        monkeypatch.setattr(distributed, "world_size", lambda size=world_size: size)
        taken = []
        for rank in range(world_size):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            taken += _predictions.batches_of_this_rank(settings, 0.5)
        taken.sort(key=lambda pair: pair[0])
        assert [number for number, _ in taken] == [number for number, _ in expected]
        for (_, batch), (_, other) in zip(taken, expected, strict=True):
            assert batch is other


def test_what_cannot_be_fitted_is_refused():
    empty = {"web": [rows(3, 1) | {"labels": torch.full((1, 9), -100)}]}
    with pytest.raises(ValueError, match="no loss token"):
        kfac.Kfac().fit(fitting(Bigram(), empty))
    with pytest.raises(ValueError, match=r"'kfac' .*sharded.*preconditioner=\"sign\""):
        kfac.Kfac().check(sharded=True, optimizer=None)
    broken = Bigram()
    broken.head.weight.data[0, 0] = 1e200
    with pytest.raises(FloatingPointError, match="not finite"):
        kfac.Kfac().fit(fitting(broken.float()))
    dead = Bigram(repeats=1)
    dead.head.requires_grad_(False).weight.data.zero_()
    with pytest.raises(ValueError, match="is zero"):
        kfac.Kfac().fit(fitting(dead))
    for settings in (
        {"damping": 0.0},
        {"share": 0.0},
        {"share": 1.5},
        {"refresh_every": 0},
        {"refresh_every": 1.5},
        {"seed": -1},
        {"max_side": 0},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
            kfac.Kfac(**settings)
    assert kfac.Kfac(refresh_every=3).refresh_updates == 3
