import numpy as np
import pytest
import torch
from tiny_models import (
    Quadratic,
    domains,
    gpt2,
    llama,
    mean_token_gradient,
    quadratic_batch,
    reference,
    rows,
    split,
    targets,
)

from tikmix_hf.signals import GroupInfluence, influence, preconditioners

MODELS = {
    "llama tied": lambda dtype: llama(dtype),
    "llama untied": lambda dtype: llama(dtype, tied=False),
    "gpt2": gpt2,
}
ELEMENTWISE = ("adam", "adam_unit", "identity", "sign")
UNIT_OF_ROUNDING = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}


def trained(model, num_steps=3):
    """The optimizer after a few real steps, so that its second moments are biased."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(num_steps):
        model(**rows(step, 3)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def inverse_hessians(model, optimizer, damping):
    """The four formulas on the whole flat gradient."""
    parameters = list(dict.fromkeys(model.parameters()))
    beta2 = optimizer.param_groups[0]["betas"][1]
    v_hat = torch.cat(
        [
            (state["exp_avg_sq"].double() / (1 - beta2 ** float(state["step"]))).flatten()
            for state in map(optimizer.state.get, parameters)
        ]
    )
    denominator = v_hat.sqrt() + damping * v_hat.sqrt().mean()
    return {
        "identity": lambda g: g,
        "adam": lambda g: g / denominator,
        "adam_unit": lambda g: g / denominator / (g / denominator).norm(),
        "sign": torch.sign,
    }


def damped(name, damping=0.2):
    settings = {"damping": damping} if name.startswith("adam") else {}
    return preconditioners.load(name)(**settings)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("model_name", MODELS)
def test_influence_equals_the_sample_by_sample_reference(model_name, name):
    model = MODELS[model_name](torch.float64)
    optimizer = trained(model)
    matrix = GroupInfluence(model, preconditioner=damped(name), optimizer=optimizer).measure(
        domains(), targets()
    )
    expected = reference(
        model, domains(), targets(), inverse_hessians(model, optimizer, damping=0.2)[name]
    )
    # All is float64, and a sign flips only where a gradient is zero: far below the promised 1e-6.
    error = (matrix.values - expected) / np.abs(expected).max(axis=1, keepdims=True)
    assert np.abs(error).max() < 1e-9
    assert abs(error.mean()) < 1e-10


@pytest.mark.parametrize("name", ["identity", "adam", "adam_unit"])
def test_float32_influence_equals_the_float64_reference_up_to_rounding(name):
    model = llama(torch.float32)
    optimizer = trained(model)
    matrix = GroupInfluence(model, preconditioner=name, optimizer=optimizer).measure(
        domains(), targets()
    )
    expected = reference(
        model.double(), domains(), targets(), inverse_hessians(model, optimizer, 0.1)[name]
    )
    # Some hundred roundings on the way through two layers and back, each of one unit.
    tolerance = 300 * UNIT_OF_ROUNDING[torch.float32] * np.abs(expected).max(1, keepdims=True)
    assert (np.abs(matrix.values - expected) <= tolerance).all()


def test_float32_sign_differs_from_float64_only_where_the_gradient_is_rounding():
    model = llama(torch.float32)
    matrix = GroupInfluence(model, preconditioner="sign").measure(domains(), targets())
    model.double()
    for j, target_batches in enumerate(targets().values()):
        f = mean_token_gradient(model, target_batches)
        for k, domain_batches in enumerate(domains().values()):
            g = mean_token_gradient(model, domain_batches)
            undecided = g.abs() < 300 * UNIT_OF_ROUNDING[torch.float32] * g.abs().max()
            tolerance = 2 * f[undecided].abs().sum() + 300 * 2.0**-24 * f.abs().sum()
            assert abs(matrix.values[j, k] - float(f @ g.sign())) <= tolerance
            assert tolerance < 0.05 * np.abs(matrix.values[j]).max()  # else it proves nothing


def test_positive_influence_lowers_the_target_and_by_that_much_on_a_known_hessian():
    centres = {"near": [1.0, 0.0], "far": [-2.0, 1.0], "side": [0.0, 3.0]}
    target_centre = torch.tensor([2.0, -1.0], dtype=torch.float64)
    curvature, upweight = 3.0, 1e-6
    shares = torch.full((3,), 1 / 3, dtype=torch.float64)
    centres_K = torch.tensor(list(centres.values()), dtype=torch.float64)

    def target_loss_at_the_optimum(shares):
        optimum = shares @ centres_K / shares.sum()
        return curvature / 2 * (optimum - target_centre).square().sum()

    model = Quadratic(shares @ centres_K, curvature)
    matrix = GroupInfluence(model, preconditioner="identity").measure(
        {name: [quadratic_batch(centre)] for name, centre in centres.items()},
        {"task": [quadratic_batch(target_centre)]},
    )
    for k in range(3):
        more = shares.clone()
        more[k] += upweight
        change = target_loss_at_the_optimum(more) - target_loss_at_the_optimum(shares)
        # d optimum / d eps = -H^-1 g_k with H = curvature * 1; the next order is O(upweight).
        assert float(change / upweight) == pytest.approx(-matrix.values[0, k] / curvature, abs=1e-4)
    assert matrix.values[0, 0] > 0 > matrix.values[0, 1]
    by_sign = GroupInfluence(model, preconditioner="sign").measure(
        {name: [quadratic_batch(centre)] for name, centre in centres.items()},
        {"task": [quadratic_batch(target_centre)]},
    )
    f = curvature * (model.theta.detach() - target_centre)
    signs = torch.sign(model.theta.detach() - centres_K)
    np.testing.assert_allclose(by_sign.values[0], (signs @ f).numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_another_split_into_microbatches_changes_nothing_but_the_standard_error(name):
    model = llama()
    optimizer = trained(model)
    influence = GroupInfluence(model, preconditioner=name, optimizer=optimizer)
    twos, threes = (
        influence.measure(domains(2), targets(2)),
        influence.measure(domains(3), targets(3)),
    )
    # Sums of float64 in another order.
    np.testing.assert_allclose(threes.values, twos.values, rtol=1e-9)
    np.testing.assert_allclose(threes.domain_losses, twos.domain_losses, rtol=1e-12)
    np.testing.assert_allclose(threes.target_losses, twos.target_losses, rtol=1e-12)
    assert threes.num_tokens == twos.num_tokens == 9 * 18 + 5 * 7 + 4 * 12
    assert not np.allclose(threes.domain_stderr, twos.domain_stderr)
    assert not np.allclose(threes.target_stderr, twos.target_stderr)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_reordering_domains_and_targets_only_permutes(name):
    model = llama()
    influence = GroupInfluence(model, preconditioner=name, optimizer=trained(model))
    forward = influence.measure(domains(), targets())
    backward = influence.measure(
        dict(reversed(domains().items())), dict(reversed(targets().items()))
    )
    assert backward.domains == ("books", "code", "web")
    assert backward.targets == ("boolq", "arc")
    np.testing.assert_array_equal(backward.values, forward.values[::-1, ::-1])
    # Pooling over targets sums in another order.
    for side in ("domain_stderr", "target_stderr"):
        np.testing.assert_allclose(
            getattr(backward, side), getattr(forward, side)[::-1, ::-1], rtol=1e-12
        )


def test_losses_are_means_over_all_tokens_and_not_over_batches():
    model = llama()
    matrix = GroupInfluence(model, preconditioner="sign").measure(domains(), targets())
    for name, loss in zip(matrix.targets, matrix.target_losses, strict=True):
        loss_sum, num_tokens = 0.0, 0
        for batch in targets(size=1)[name]:
            counted = int((batch["labels"][:, 1:] != -100).sum())
            loss_sum += model(**batch).loss.item() * counted
            num_tokens += counted
        assert loss == pytest.approx(loss_sum / num_tokens, rel=1e-12)


def test_standard_errors_of_a_linear_preconditioner_are_those_of_the_ratio_of_its_batches():
    model = llama()
    matrix = GroupInfluence(model, preconditioner="identity").measure(domains(), targets())
    f = mean_token_gradient(model, targets()["arc"])
    tokens = np.array([int((b["labels"][:, 1:] != -100).sum()) for b in domains()["web"]])
    ratios = np.array([float(f @ mean_token_gradient(model, [b])) for b in domains()["web"]])
    residuals = tokens * (ratios - matrix.values[0, 0])
    num = len(tokens)
    expected = np.sqrt(num / (num - 1) * (residuals**2).sum()) / tokens.sum()
    assert matrix.domain_stderr[0, 0] == pytest.approx(expected, rel=1e-9)


def test_standard_errors_of_sign_come_from_even_and_odd_batches():
    model = llama()
    matrix = GroupInfluence(model, preconditioner="sign").measure(domains(), targets())
    halves = [
        reference(model, {"web": domains()["web"][half::2]}, targets(), torch.sign)[:, 0]
        for half in (0, 1)
    ]
    norms = np.array([float(mean_token_gradient(model, b).norm()) for b in targets().values()])
    expected = norms * np.sqrt((((halves[0] - halves[1]) / norms) ** 2).mean() / 2)
    np.testing.assert_allclose(matrix.domain_stderr[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["identity", "sign"])
def test_a_single_microbatch_has_no_standard_error(name):
    matrix = GroupInfluence(llama(), preconditioner=name).measure(
        {"one": domains()["web"][:1], "two": domains()["web"][:2]}, targets()
    )
    assert np.isnan(matrix.domain_stderr[:, 0]).all()
    assert (matrix.domain_stderr[:, 1] > 0).all()


def test_a_batch_without_loss_tokens_counts_for_nothing():
    masked = rows(3, 2)
    masked["labels"][:] = -100
    model = llama()
    plain = GroupInfluence(model, preconditioner="sign").measure(domains(), targets())
    web = domains()["web"]
    # At the end, so that no other batch changes its half.
    padded = GroupInfluence(model, preconditioner="sign").measure(
        domains() | {"web": [*web, masked]}, targets()
    )
    np.testing.assert_array_equal(padded.values, plain.values)
    np.testing.assert_array_equal(padded.stderr, plain.stderr)
    assert padded.num_tokens == plain.num_tokens
    with pytest.raises(ValueError, match="domain 'web' has no loss token in its 1 batches"):
        GroupInfluence(model, preconditioner="sign").measure({"web": [masked]}, targets())
    with pytest.raises(ValueError, match="target 'arc' has no loss token in its 0 batches"):
        GroupInfluence(model, preconditioner="sign").measure(domains(), {"arc": []})


def test_frozen_and_unreached_parameters_have_no_influence():
    model = llama(tied=False)
    model.unreached = torch.nn.Parameter(torch.ones(5))
    model.model.embed_tokens.requires_grad_(False)
    matrix = GroupInfluence(model, preconditioner="sign").measure(domains(), targets())
    del model.unreached
    expected = reference(model, domains(), targets(), torch.sign)
    np.testing.assert_allclose(matrix.values, expected, rtol=1e-9)


class LazyBatches:
    def __init__(self, batches):
        self.batches, self.touched = batches, []

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        self.touched.append(index)
        return self.batches[index]


def test_lazy_sequences_are_read_once_in_order():
    lazy = LazyBatches(domains()["web"])
    GroupInfluence(llama(), preconditioner="sign").measure({"web": lazy}, targets())
    assert lazy.touched == [0, 1, 2, 3]


def test_bfloat16_gradients_are_summed_in_float32():
    model = llama(torch.bfloat16)
    num_batches = 64
    batches = split(rows(5, num_batches), 1)
    by_sixty_four = GroupInfluence(model, preconditioner="identity").measure(
        {"web": batches[:1]}, {"all": batches}
    )
    sums, num_tokens = 0.0, 0
    parameters = list(dict.fromkeys(model.parameters()))
    for batch in batches:
        counted = int((batch["labels"][:, 1:] != -100).sum())
        gradient = torch.autograd.grad(model(**batch).loss * counted, parameters)
        if batch is batches[0]:
            g = torch.cat([one.double().flatten() for one in gradient]) / counted
        sums = sums + torch.cat([one.double().flatten() for one in gradient])
        num_tokens += counted
    # The same bfloat16 gradients summed in float64; 64 float32 roundings.
    assert by_sixty_four.values[0, 0] == pytest.approx(
        float(sums @ g) / num_tokens, abs=64 * 2.0**-24 * float(sums.norm() * g.norm()) / num_tokens
    )


def test_the_progress_bar_counts_batches_and_is_gone_in_the_end(capsys, monkeypatch):
    bars = []

    class Bar(influence.tqdm):
        def close(self):
            bars.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(influence, "tqdm", Bar)
    GroupInfluence(llama(), preconditioner="sign").measure(domains(), targets(), progress=True)
    assert bars[0] == (14, 14)
    shown = capsys.readouterr().err
    assert "influence" in shown
    assert shown.endswith("\r")
    GroupInfluence(llama(), preconditioner="sign").measure(domains(), targets())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_fewer_domains_than_targets_swap_roles_and_change_nothing_but_errors(name):
    model = llama()
    influence = GroupInfluence(model, preconditioner=name, optimizer=trained(model))
    whole = influence.measure(domains(), targets())
    one = influence.measure({"code": domains()["code"]}, targets())
    np.testing.assert_allclose(one.values[:, 0], whole.values[:, 1], rtol=1e-9)
    np.testing.assert_allclose(one.target_losses, whole.target_losses, rtol=1e-12)
    np.testing.assert_allclose(one.domain_losses, whole.domain_losses[1:2], rtol=1e-12)
    assert (one.domain_stderr > 0).all()
    assert (one.target_stderr > 0).all()


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("num_domains", [1, 3])
def test_offloading_changes_no_number(name, num_domains):
    model = llama()
    optimizer = trained(model)
    chosen = dict(list(domains().items())[:num_domains])
    plain, offloaded = (
        GroupInfluence(model, preconditioner=name, optimizer=optimizer, offload=offload).measure(
            chosen, targets()
        )
        for offload in (False, True)
    )
    np.testing.assert_array_equal(offloaded.values, plain.values)
    np.testing.assert_array_equal(offloaded.stderr, plain.stderr)


def test_a_selection_of_parameters_equals_the_reference_on_them_alone():
    model = gpt2(torch.float64)
    chosen = [p for name, p in model.named_parameters() if name.startswith("transformer.h.1.")]
    matrix = GroupInfluence(model, preconditioner="identity", parameters="last 1 block").measure(
        domains(), targets()
    )
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is one for one in chosen))
    expected = reference(model, domains(), targets(), lambda g: g)
    np.testing.assert_allclose(matrix.values, expected, rtol=1e-9)


def test_the_last_fit_serves_until_a_new_one_is_asked_for():
    model = llama()
    optimizer = trained(model)
    influence = GroupInfluence(model, preconditioner="adam", optimizer=optimizer)
    before = influence.measure(domains(), targets())
    for state in optimizer.state.values():
        state["exp_avg_sq"] = 9 * state["exp_avg_sq"]
    kept = influence.measure(domains(), targets(), refit=False)
    fresh = influence.measure(domains(), targets(), refit=True)
    np.testing.assert_array_equal(kept.values, before.values)
    np.testing.assert_allclose(fresh.values, before.values / 3, rtol=1e-9)


def test_auto_is_kfac_where_the_model_is_whole():
    matrices = [
        GroupInfluence(llama(), preconditioner=name).measure(domains(), targets())
        for name in ("auto", "kfac")
    ]
    assert [matrix.preconditioner for matrix in matrices] == ["kfac", "kfac"]
    np.testing.assert_array_equal(matrices[0].values, matrices[1].values)
    assert GroupInfluence(llama()).preconditioner == preconditioners.load("kfac")()


@pytest.mark.parametrize("fewer", ["targets", "domains"])
@pytest.mark.parametrize("name", [*preconditioners.available(), "ggn without an Adam"])
def test_all_text_that_is_read_is_counted(name, fewer):
    # In forward passes: with each comes a backward pass, or, for ggn, what takes as long.
    model, read = llama(), []
    optimizer = trained(model)
    if name == "ggn without an Adam":
        name, optimizer = "ggn", None
    model.register_forward_pre_hook(
        lambda _, __, batch: read.append(batch["input_ids"].numel()), with_kwargs=True
    )
    few = {"web": domains()["web"]} if fewer == "domains" else domains()
    engine = GroupInfluence(model, preconditioner=name, optimizer=optimizer)
    first = engine.measure(few, targets())
    assert first.num_tokens == sum(read)
    read.clear()
    assert engine.measure(few, targets(), refit=False).num_tokens == sum(read)
    assert len(read) == 5 + (4 if fewer == "domains" else 9) or name == "ggn"


def test_where_a_new_fit_fails_the_old_one_is_not_used_again():
    model = llama()
    engine = GroupInfluence(model, preconditioner="kfac")
    engine.measure(domains(), targets())
    weight = model.lm_head.weight.data
    kept = weight.clone()
    weight[0] = torch.nan
    with pytest.raises(FloatingPointError):
        engine.measure(domains(), targets())
    weight.copy_(kept).mul_(2)
    fresh = GroupInfluence(model, preconditioner="kfac").measure(domains(), targets())
    np.testing.assert_array_equal(
        engine.measure(domains(), targets(), refit=False).values, fresh.values
    )
