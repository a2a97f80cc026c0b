"""Audit: predicted against realised, by definition, and what is left unsaid."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from tikmix_hf.updates.audit import Prediction, compare, pearson
from tikmix_hf.updates.heldout import Portion

TARGETS = ("arc", "boolq", "piqa", "math")


def prediction(influence_JK, losses_RJ, targets=TARGETS):
    return Prediction(
        step=40,
        targets=targets,
        influence=tuple(map(tuple, np.asarray(influence_JK).tolist())),
        losses=tuple(map(tuple, np.asarray(losses_RJ).tolist())),
        portions=(Portion(3, 64, 0, 4), Portion(3, 64, 1, 4)),
    )


def interval(rng, *, earlier=(), noise=0.0, num_targets=4):
    """A prediction and what came of it; without noise the losses fall exactly as predicted."""
    influence_JK, mixture_K = rng.normal(size=(num_targets, 3)), rng.dirichlet(np.ones(3))
    then_RJ = rng.uniform(4, 6, size=(2, num_targets))
    fall_J = 0.01 * influence_JK @ mixture_K + noise * rng.normal(size=num_targets)
    # Rounds differ; only their mean is what fell.
    now_RJ = then_RJ - fall_J + np.array([[0.3], [-0.3]])
    made = prediction(influence_JK, then_RJ, TARGETS[:num_targets])
    return compare(made, now_RJ, mixture_K, earlier), influence_JK @ mixture_K, fall_J


def test_predicted_and_realised_are_what_the_definition_says():
    (comparison, _), predicted_J, fall_J = interval(np.random.default_rng(0), noise=0.01)
    np.testing.assert_allclose(comparison.predicted, predicted_J)
    np.testing.assert_allclose(comparison.realised, fall_J, atol=1e-12)
    assert comparison.spearman == pytest.approx(stats.spearmanr(predicted_J, fall_J).statistic)
    assert comparison.from_step == 40


def test_the_correlation_so_far_is_pearsons_over_all_standardised_pairs():
    rng = np.random.default_rng(1)
    earlier, predicted, realised = (), [], []
    for number in range(1, 6):
        (comparison, earlier), predicted_J, fall_J = interval(rng, earlier=earlier, noise=0.01)
        predicted += stats.zscore(predicted_J).tolist()
        realised += stats.zscore(fall_J).tolist()
        expected = stats.pearsonr(predicted, realised).statistic
        assert comparison.correlation == pytest.approx(expected)
        assert comparison.num_intervals == number
    assert abs(comparison.correlation) < 0.999


def test_a_true_prediction_has_correlation_one_and_its_opposite_minus_one():
    (comparison, correlations), predicted_J, fall_J = interval(np.random.default_rng(2))
    assert comparison.correlation == pytest.approx(1)
    assert comparison.spearman == pytest.approx(1)
    assert comparison.note == "audit: predicted order of targets r = 1.00 over 1 interval"
    made = prediction(-predicted_J[:, None], np.zeros((1, 4)))
    opposite, _ = compare(made, -fall_J[None], [1.0], correlations)
    assert opposite.spearman == pytest.approx(-1)
    assert opposite.correlation == pytest.approx(0)
    assert opposite.note == "audit: predicted order of targets r = 0.00 over 2 intervals"


def test_the_scale_of_a_prediction_does_not_matter():
    rng = np.random.default_rng(3)
    influence_JK, then_RJ, now_RJ = (
        rng.normal(size=(4, 3)),
        np.ones((1, 4)),
        rng.normal(size=(1, 4)),
    )
    mixture_K = np.full(3, 1 / 3)
    first, _ = compare(prediction(influence_JK, then_RJ), now_RJ, mixture_K, ())
    second, _ = compare(prediction(1e6 * influence_JK + 7, then_RJ), now_RJ, mixture_K, ())
    assert second.correlation == pytest.approx(first.correlation)
    assert second.spearman == first.spearman


@pytest.mark.parametrize("num_targets", [1, 2])
def test_one_or_two_targets_have_no_correlation_and_do_not_count(num_targets):
    # Of two, whatever happens, the order is as predicted or its opposite: 1 or -1.
    (few, correlations), *_ = interval(np.random.default_rng(4), num_targets=num_targets)
    assert (few.spearman, few.correlation, few.num_intervals, few.note) == (None, None, 0, None)
    assert correlations == ()
    assert not {"spearman", "correlation"} & set(few.scalars())


def test_three_targets_have_a_correlation():
    (comparison, correlations), *_ = interval(np.random.default_rng(4), num_targets=3)
    assert comparison.spearman == pytest.approx(1)
    assert correlations == pytest.approx((1.0,))


def test_no_order_has_no_correlation_and_does_not_count():
    rng = np.random.default_rng(4)
    flat, correlations = compare(
        prediction(np.ones((4, 1)), np.ones((1, 4))), rng.normal(size=(1, 4)), [1.0], (0.5,)
    )
    assert (flat.spearman, flat.correlation, flat.num_intervals) == (None, 0.5, 1)
    assert correlations == (0.5,)
    assert set(flat.scalars()) == {
        *(f"predicted/{name}" for name in TARGETS),
        *(f"realised/{name}" for name in TARGETS),
        "correlation",
    }


def test_correlations_stay_between_minus_one_and_one():
    values_J = np.array([0.1, 0.2, 0.3])
    assert pearson(values_J, values_J * (1 + 1e-16)) <= 1


def test_a_prediction_comes_back_from_json_as_it_was():
    rng = np.random.default_rng(5)
    made = prediction(rng.normal(size=(4, 3)), rng.normal(size=(2, 4)))
    assert Prediction.restore(json.loads(json.dumps(made))) == made


def test_the_record_is_json_by_target_name():
    (comparison, _), predicted_J, _ = interval(np.random.default_rng(6))
    told = json.loads(json.dumps(comparison.to_dict()))
    assert told["predicted"] == dict(zip(TARGETS, predicted_J, strict=True))
    assert set(told) == {
        *("from_step", "predicted", "realised", "spearman", "correlation", "num_intervals"),
    }
