"""Standard errors against the spread of many repetitions, which is what they claim to be."""

import numpy as np
import pytest
import torch
from tiny_models import Quadratic, llama, quadratic_batch, rows

from tikmix_hf.signals import GroupInfluence, gradients, preconditioners
from tikmix_hf.signals.preconditioners import Fitting
from tikmix_hf.signals.sampling_error import half_weight, pooled, ratio_estimate
from tikmix_hf.signals.selection import select_parameters


def test_the_estimates_agree_with_a_calculation_by_hand():
    values, errors = ratio_estimate(np.array([[1.0], [3.0]]), np.array([1, 1]))
    assert (values[0], errors[0]) == (2.0, 1.0)
    # Relative differences 1 and 3 of names with sizes 1 and 10: their root mean square is sqrt(5).
    errors = pooled(np.array([[1.0, 30.0]]), np.array([1.0, 10.0]))
    np.testing.assert_allclose(errors, [[5**0.5, 10 * 5**0.5]])
    assert half_weight(10, 10, linear=True) == 0.5
    assert half_weight(30, 10, linear=True) == pytest.approx(300**0.5 / 40)
    assert half_weight(30, 10, linear=False) == 0.5**0.5


def test_batches_without_tokens_and_names_without_size_carry_no_error():
    with_empty = ratio_estimate(np.array([[1.0], [0.0], [3.0]]), np.array([1, 0, 1]))
    assert (with_empty[0][0], with_empty[1][0]) == (2.0, 1.0)
    errors = pooled(np.array([[0.0, 1.0]]), np.array([0.0, 1.0]))[0]
    assert errors[0] == 0
    assert errors[1] > 0
    assert np.isnan(half_weight(7, 0, linear=True))
    assert np.isnan(half_weight(0, 7, linear=False))


def test_ratio_errors_match_the_spread_of_repetitions_with_unequal_batches():
    generator = np.random.default_rng(0)
    num_repetitions, num_batches = 4_000, 12
    estimates, squared_errors = [], []
    for _ in range(num_repetitions):
        tokens = generator.integers(20, 60, num_batches)
        dots = tokens * (0.7 + generator.normal(size=num_batches))
        value, error = ratio_estimate(dots[:, None], tokens)
        estimates.append(value[0])
        squared_errors.append(error[0] ** 2)
    # The variance of 4,000 draws is known to 2 %; the ratio's own bias is about 1 / num_batches.
    assert np.mean(squared_errors) == pytest.approx(np.var(estimates), rel=0.12)


def pool_of_gradients(num_rows):
    """(N, P) gradients of one row each, of a model that has learnt a little, and 3 targets."""
    model = llama(torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(20):
        model(**rows(step, 4)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    parameters = select_parameters(model)

    def flat(batch):
        gradient = gradients.batch_gradient(model, parameters, batch).gradient
        return torch.cat([one.flatten() for one in gradient])

    pool = torch.stack(
        [flat({k: v[i : i + 1] for k, v in rows(100, num_rows).items()}) for i in range(num_rows)]
    )
    parameter = torch.nn.Parameter(torch.zeros(pool.shape[1]))
    optimizer_of_all = torch.optim.AdamW([parameter])
    parameter.grad = pool.mean(0)
    optimizer_of_all.step()
    targets = torch.stack([flat(rows(200 + j, 8)) for j in range(3)])
    return pool, targets, parameter, optimizer_of_all


def spread_and_stated(values_RAB, errors_RAB, sizes_B):
    """Root mean squares over repetitions and names, relative to the sizes."""
    spread = np.sqrt((np.var(values_RAB, axis=0) / sizes_B**2).mean())
    stated = np.sqrt((np.square(errors_RAB) / sizes_B**2).mean())
    return spread, stated


@pytest.mark.parametrize("name", ["sign", "adam_unit"])
def test_half_errors_are_conservative_by_at_most_the_square_root_of_two(name):
    pool, targets, parameter, optimizer = pool_of_gradients(200)
    fitting = Fitting(
        model=torch.nn.Module(), parameters=[parameter], optimizer=optimizer, batches={}
    )
    precondition = preconditioners.load(name)().fit(fitting)
    norms = targets.norm(dim=1).numpy()
    weight = half_weight(1, 1, linear=False)
    generator = np.random.default_rng(0)
    for num_batches in (4, 32):
        values, errors = [], []
        for _ in range(200):
            drawn = generator.integers(0, len(pool), num_batches)
            even, odd = pool[drawn[::2]].sum(0), pool[drawn[1::2]].sum(0)
            whole_J, even_J, odd_J = (
                (targets @ precondition([one.clone()])[0]).numpy()
                for one in (even + odd, even, odd)
            )
            values.append(whole_J)
            errors.append(pooled(weight * (even_J - odd_J)[None], norms)[0])
        spread, stated = spread_and_stated(values, errors, norms)
        # Bounds 1 and sqrt(2); 200 repetitions know the ratio of deviations to about 10 %.
        assert 0.9 < stated / spread < 1.1 * 2**0.5


def noisy(mean_P, generator, num_batches=8, *, scale=1.0):
    """Microbatches whose gradients, of a Quadratic at 0 with curvature 1, are mean + noise."""
    noise = generator.normal(size=(num_batches, len(mean_P)))
    return [quadratic_batch(-scale * (mean_P + one)) for one in noise]


@pytest.mark.parametrize("num_targets", [1, 3], ids=["targets held", "domains held"])
@pytest.mark.parametrize("name", ["sign", "identity"])
def test_stated_errors_of_either_side_match_the_spread_of_repetitions(name, num_targets):
    generator = np.random.default_rng(0)
    num_parameters = 60
    influence = GroupInfluence(Quadratic(np.zeros(num_parameters), 1.0), preconditioner=name)
    means = {n: generator.normal(size=num_parameters) for n in ("web", "code", *range(num_targets))}
    text = {n: noisy(mean, generator) for n, mean in means.items()}
    for side, drawn in (("target", range(num_targets)), ("domain", ("web", "code"))):
        values, errors = [], []
        for _ in range(120):
            text |= {n: noisy(means[n], generator) for n in drawn}
            matrix = influence.measure(
                {n: text[n] for n in ("web", "code")}, {j: text[j] for j in range(num_targets)}
            )
            values.append(matrix.values)
            errors.append(getattr(matrix, f"{side}_stderr"))
        spread, stated = spread_and_stated(values, errors, np.ones(2))
        # 120 repetitions know the ratio of deviations to about 10 %; `sign` states the larger of
        # its bounds on the domain side.
        most = 2**0.5 if (name, side) == ("sign", "domain") else 1.0
        assert 0.85 < stated / spread < 1.15 * most, side


@pytest.mark.parametrize("num_targets", [2, 3], ids=["targets held", "domains held"])
@pytest.mark.parametrize("name", ["sign", "identity"])
def test_stated_errors_match_the_spread_of_each_name_where_sizes_differ_widely(name, num_targets):
    generator = np.random.default_rng(0)
    num_parameters, num_repetitions = 200, 80
    influence = GroupInfluence(Quadratic(np.zeros(num_parameters), 1.0), preconditioner=name)
    scales = {"web": 1.0, "code": 100.0, 0: 100.0, 1: 1.0, 2: 0.01}
    targets = range(num_targets)
    means = {n: generator.normal(size=num_parameters) for n in scales}

    def text_of(n):
        return noisy(means[n], generator, scale=scales[n])

    text = {n: text_of(n) for n in scales}
    for side, drawn in (("target", targets), ("domain", ("web", "code"))):
        values, errors = [], []
        for _ in range(num_repetitions):
            text |= {n: text_of(n) for n in drawn}
            matrix = influence.measure(
                {n: text[n] for n in ("web", "code")}, {j: text[j] for j in targets}
            )
            values.append(matrix.values)
            errors.append(getattr(matrix, f"{side}_stderr"))
        ratios_JK = np.sqrt(np.square(errors).mean(axis=0)) / np.std(values, axis=0)
        # 80 repetitions know a deviation to 8 %, and a few differences in common its estimate to
        # as much; sizes left out of it would be wrong by several times.
        most = 2**0.5 if (name, side) == ("sign", "domain") else 1.0
        assert (ratios_JK > 0.7).all(), (side, ratios_JK)
        assert (ratios_JK < 1.4 * most).all(), (side, ratios_JK)
