"""Products against dense Jacobians and curvlinops, the solution against dense solves."""

import pytest
import torch
from curvature import EXACT, ORACLES, Bigram, fitting, trainable
from tiny_models import domains, gpt2, llama, rows, split
from torch import nn
from torch.testing import assert_close

from tikmix_hf import distributed
from tikmix_hf.signals import gradients, preconditioners
from tikmix_hf.signals.preconditioners import ggn
from tikmix_hf.signals.preconditioners._gauss_newton import GaussNewton, mean_diagonal

WEB = {"web": split(rows(5, 3, 7), 2)}


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def random_like(parameters, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(own.shape, dtype=own.dtype, generator=generator) for own in parameters]


def dense(model, batches, parameters):
    """(P, P) J^T (diag(p) - p p^T) J over the loss tokens, divided by their number."""
    total, num_tokens = 0.0, 0
    for batch in batches:
        counted = batch["labels"][:, 1:] != -100
        inputs = {name: column for name, column in batch.items() if name != "labels"}
        logits_NV = model(**inputs, use_cache=False).logits[:, :-1][counted]
        for logits in logits_NV:
            rows_VP = torch.stack(
                [
                    flat(torch.autograd.grad(logit, parameters, retain_graph=True))
                    for logit in logits
                ]
            )
            shares = logits.detach().softmax(0)
            hessian = torch.diag(shares) - torch.outer(shares, shares)
            total = total + rows_VP.T @ hessian @ rows_VP
        num_tokens += len(logits_NV)
    return total / num_tokens


def llama_and_some():
    """A norm, a projection, and the embedding that is the head too."""
    model = llama()
    layer = model.model.layers[1]
    return model, [
        layer.self_attn.q_proj.weight,
        layer.input_layernorm.weight,
        model.lm_head.weight,
    ]


def gpt2_and_some():
    model = gpt2()
    layer = model.transformer.h[0]
    return model, [layer.attn.c_attn.weight, layer.attn.c_attn.bias, layer.ln_1.weight]


def test_the_product_is_the_one_with_the_dense_matrix():
    for model, parameters in (llama_and_some(), gpt2_and_some()):
        before = [own.clone() for own in model.parameters()]
        vector_P = random_like(parameters)
        product_P = GaussNewton(model, parameters, WEB["web"])(vector_P)
        expected = dense(model, WEB["web"], parameters) @ flat(vector_P)
        assert_close(flat(product_P), expected, rtol=1e-8, atol=1e-12)
        assert all(
            torch.equal(own, old) for own, old in zip(model.parameters(), before, strict=True)
        )
        assert all(own.grad is None for own in model.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_the_product_is_that_of_curvlinops():
    pytest.importorskip("curvlinops", reason=ORACLES)
    from curvlinops import GGNLinearOperator  # its own imports warn

    model = llama(tied=False)
    model.set_attn_implementation("eager")  # curvlinops differentiates twice
    batches = split(rows(7, 4, 8), 2)
    for batch in batches:  # curvlinops counts every position, so every one has a loss
        batch["labels"] = batch["input_ids"].clone()
    outer = nn.Module()
    outer.own = model
    outer.forward = lambda ids: model(input_ids=ids, use_cache=False).logits.transpose(1, 2)
    theirs = GGNLinearOperator(
        outer,
        nn.CrossEntropyLoss(),
        trainable(model),
        [(batch["input_ids"][:, :-1], batch["input_ids"][:, 1:]) for batch in batches],
        check_deterministic=False,
    )
    vector_P = random_like(trainable(model))
    product_P = GaussNewton(model, trainable(model), batches)(vector_P)
    # Eager attention takes its softmax in float32.
    assert_close(flat(product_P), theirs @ flat(vector_P), rtol=1e-4, atol=1e-9)


def test_enough_products_solve_what_a_dense_solve_does():
    model = Bigram(repeats=1)
    parameters = trainable(model)
    matrix = dense(model, WEB["web"], parameters)
    product = GaussNewton(model, parameters, WEB["web"])
    scale = float(matrix.diagonal().mean())
    damping_P = [scale * (own.abs() + 0.1) for own in random_like(parameters, seed=1)]
    gradient_P = random_like(parameters, seed=2)
    damped = matrix + torch.diag(flat(damping_P))
    expected = torch.linalg.solve(damped, flat(gradient_P))
    errors = []
    for num_products in (1, 3, 12, 200):
        given_P = [own.clone() for own in gradient_P]
        solved_P = ggn.conjugate_gradients(product, damping_P, given_P, num_products=num_products)
        error = flat(solved_P) - expected
        errors.append(float((error @ damped @ error) / (expected @ damped @ expected)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-18
    assert errors[2] < 0.1 * errors[0]


def stepped_adam(parameters):
    optimizer = torch.optim.AdamW(parameters, lr=0.0)  # moments, and nothing moves
    for seed in range(2):
        for own, gradient in zip(parameters, random_like(parameters, seed), strict=True):
            own.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_adam_sets_the_damping_and_a_short_horizon_leaves_adam_alone():
    model = Bigram(repeats=1)
    parameters = trainable(model)
    optimizer = stepped_adam(parameters)
    optimizer.param_groups[0]["lr"] = 0.02
    settings = fitting(model, WEB, parameters, optimizer=optimizer)
    gradient_P = random_like(parameters, seed=5)

    def applied(preconditioner):
        return flat(preconditioner.fit(settings)([own.clone() for own in gradient_P]))

    steps = applied(preconditioners.load("adam")(damping=0.2))
    short = applied(ggn.Ggn(damping=0.2, horizon_steps=1e-7, share=1.0))
    assert_close(short, steps * 0.02 * 1e-7, rtol=1e-5, atol=0)
    far = applied(ggn.Ggn(damping=0.2, horizon_steps=1e4, share=1.0, num_products=300))
    root = [(optimizer.state[own]["exp_avg_sq"] / (1 - 0.999**2)).sqrt() for own in parameters]
    damped = dense(model, WEB["web"], parameters) + torch.diag(
        (flat(root) + 0.2 * flat(root).mean()) / (0.02 * 1e4)
    )
    assert_close(far, torch.linalg.solve(damped, flat(gradient_P)), rtol=1e-6, atol=1e-9)
    assert (far / 1e4 - short / 1e-7).norm() > 0.05 * (short / 1e-7).norm()


def test_without_an_adam_the_damping_is_relative_to_the_mean_diagonal():
    model = Bigram(repeats=1)
    parameters = trainable(model)
    matrix = dense(model, WEB["web"], parameters)
    product = GaussNewton(model, parameters, WEB["web"])
    estimates = torch.tensor([mean_diagonal(product, seed) for seed in range(30)])
    exact = matrix.diagonal().mean()
    assert (estimates.mean() - exact).abs() < 3 * estimates.std() / 30**0.5
    assert estimates.std() < 0.5 * exact
    gradient_P = random_like(parameters, seed=5)
    damped = matrix + 0.3 * float(estimates[4]) * torch.eye(len(matrix), dtype=matrix.dtype)
    expected = torch.linalg.solve(damped, flat(gradient_P))
    for optimizer in (None, torch.optim.SGD(parameters, lr=0.1)):
        apply = ggn.Ggn(damping=0.3, share=1.0, num_products=300, seed=4).fit(
            fitting(model, WEB, parameters, optimizer=optimizer)
        )
        solved = flat(apply([own.clone() for own in gradient_P]))
        assert_close(solved, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_and_either_attention_give_the_same_product(reentrant):
    model = llama()
    parameters = trainable(model)
    vector_P = random_like(parameters)
    product = GaussNewton(model, parameters, WEB["web"])
    plain = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        plain[attention] = product(vector_P)
    # Eager attention takes its softmax in float32.
    assert_close(plain["eager"], plain["sdpa"], rtol=1e-4, atol=1e-7)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        with gradients.undisturbed(model):
            assert_close(product(vector_P), plain[attention], **EXACT)
            assert all(own.grad is None for own in model.parameters())
            assert model.model.layers[0].training


def test_products_of_two_ranks_add_up_to_that_of_one(monkeypatch):
    model, parameters = llama_and_some()
    vector_P = random_like(parameters)

    def sum_later(tensors):
        if tensors[0].dtype == torch.float64 and tensors[0].dim() == 0:
            tensors[0].fill_(100.0)  # the loss tokens of all ranks

    monkeypatch.setattr(distributed, "all_reduce_sum_", sum_later)
    for batches in (domains(), {"web": domains()["web"][:1]}):  # of the latter, rank 1 has nothing
        found = []
        for rank, world_size in ((0, 1), (0, 2), (1, 2)):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            monkeypatch.setattr(distributed, "world_size", lambda size=world_size: size)
            monkeypatch.setattr(distributed.FailTogether, "__exit__", lambda *_: None)
            settings = fitting(model, batches, parameters, optimizer=None)
            own = ggn.batches_of_this_rank(settings, 1.0)
            product = GaussNewton(model, parameters, [batch for _, batch in own])
            found.append(flat(product(vector_P)))
        assert_close(found[1] + found[2], found[0], **EXACT)


def test_the_probes_leave_the_random_state_alone():
    before = torch.get_rng_state()
    model, parameters = llama_and_some()
    torch.set_rng_state(before)
    ggn.Ggn().fit(fitting(model, WEB, parameters))(random_like(parameters))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_solved_is_refused():
    model, parameters = llama_and_some()
    adam = stepped_adam(parameters)
    fit = ggn.Ggn().fit
    with pytest.raises(ValueError, match=r"'ggn' .*sharded.*preconditioner=\"sign\""):
        ggn.Ggn().check(sharded=True, optimizer=adam)
    with pytest.raises(ValueError, match="has not stepped yet"):
        fit(fitting(model, WEB, optimizer=torch.optim.AdamW(trainable(model))))
    with pytest.raises(ValueError, match="one is not in it"):
        fit(fitting(model, WEB, optimizer=adam))
    with pytest.raises(ValueError, match="learning rate, which must be positive; got 0"):
        fit(fitting(model, WEB, parameters, optimizer=adam))
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match='attn_implementation="eager"'):
        fit(fitting(model, WEB, parameters))
    silent = {"web": [rows(3, 1) | {"labels": torch.full((1, 9), -100)}]}
    with pytest.raises(ValueError, match="no loss token"):
        fit(fitting(Bigram(), silent))
    dead = Bigram(repeats=1)
    dead.head.requires_grad_(False).weight.data.zero_()
    with pytest.raises(ValueError, match="is zero"):
        fit(fitting(dead, WEB))
    broken = Bigram()
    apply = fit(fitting(broken, WEB))
    with pytest.raises(FloatingPointError, match="is not finite"):
        apply([torch.full_like(own, torch.inf) for own in trainable(broken)])
    for settings in (
        {"num_products": 0},
        {"horizon_steps": 0.0},
        {"damping": -1.0},
        {"share": 2.0},
        {"seed": 0.5},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
            ggn.Ggn(**settings)


def test_an_optimizer_without_second_moments_is_damped_by_a_scalar():
    model = Bigram()
    parameters = trainable(model)
    adamax = torch.optim.Adamax(parameters)  # betas and eps, as an Adam's groups
    for own in parameters:
        own.grad = torch.zeros_like(own)
    adamax.step()
    gradients = [[torch.ones_like(own) for own in parameters] for _ in range(2)]
    with_it = ggn.Ggn().fit(fitting(model, WEB, optimizer=adamax))(gradients[0])
    without = ggn.Ggn().fit(fitting(model, WEB))(gradients[1])
    torch.testing.assert_close(with_it, without)
