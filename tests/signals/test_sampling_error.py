"""Standard errors against the spread of many repetitions, which is what they claim to be."""

import numpy as np
import pytest
import torch
from tiny_models import llama, rows

from tikmix_hf.signals import gradients, preconditioners
from tikmix_hf.signals.sampling_error import ratio_estimate, split_half
from tikmix_hf.signals.target_gradients import TargetGradients


def test_both_estimates_agree_with_a_calculation_by_hand():
    values, errors = ratio_estimate(np.array([[1.0], [3.0]]), np.array([1, 1]))
    assert (values[0], errors[0]) == (2.0, 1.0)
    one = np.ones(1)
    assert split_half(one, 3 * one, one, np.ones(2))[0] == pytest.approx(2**0.5)
    # Relative differences 1 and 1 of targets with norms 1 and 10.
    pooled = split_half(
        np.array([0.0, 0.0]), np.array([1.0, 10.0]), np.array([1, 10.0]), np.ones(2)
    )
    np.testing.assert_allclose(pooled, [0.5**0.5, 10 * 0.5**0.5])


def test_batches_without_tokens_and_targets_without_gradient_carry_no_error():
    with_empty = ratio_estimate(np.array([[1.0], [0.0], [3.0]]), np.array([1, 0, 1]))
    assert (with_empty[0][0], with_empty[1][0]) == (2.0, 1.0)
    errors = split_half(np.zeros(2), np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.ones(2))
    assert errors[0] == 0
    assert errors[1] > 0
    assert np.isnan(split_half(np.zeros(2), np.ones(2), np.ones(2), np.array([3, 0, 4]))).all()


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
    parameters = gradients.trainable_parameters(model)

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
    targets = TargetGradients([parameter], 3)
    for j in range(3):
        targets[j][0].copy_(flat(rows(200 + j, 8)))
    return pool, targets, parameter, optimizer_of_all


@pytest.mark.parametrize("name", ["sign", "adam_unit"])
def test_split_half_errors_are_conservative_by_at_most_the_square_root_of_two(name):
    pool, targets, parameter, optimizer = pool_of_gradients(200)
    precondition = preconditioners.load(name)([parameter], optimizer, 0.1)
    norms = targets.norms().numpy()
    generator = np.random.default_rng(0)
    for num_batches in (4, 32):
        values, errors = [], []
        for _ in range(200):
            drawn = generator.integers(0, len(pool), num_batches)
            even, odd = pool[drawn[::2]].sum(0), pool[drawn[1::2]].sum(0)
            whole, *halves = targets.dots_of_updates(precondition, [even], [odd]).numpy()
            values.append(whole)
            errors.append(split_half(*halves, norms, np.ones(num_batches)))
        spread = np.sqrt((np.var(values, axis=0) / norms**2).mean())
        stated = np.sqrt((np.square(errors) / norms**2).mean())
        # Bounds 1 and sqrt(2); 200 repetitions know the ratio of deviations to about 10 %.
        assert 0.9 < stated / spread < 1.1 * 2**0.5
