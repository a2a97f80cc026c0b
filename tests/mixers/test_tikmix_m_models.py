"""TiKMiX-M's parts: scores of mixtures, and models of the scores."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf.mixers import MixerError
from tikmix_hf.mixers._mixture_scores import (
    balanced,
    drawn_gains,
    linear_gains,
    lookahead_gains,
    target_weights,
)
from tikmix_hf.mixers._surrogate import choose, fit_linear, fit_trees, skill, without_outliers
from tikmix_hf.mixers.tikmix_d import solve


def test_targets_are_divided_by_their_largest_influence_and_those_not_helped_by_its_size():
    values_JK = np.array([[2.0, -8.0], [-1.0, -4.0], [0.0, 0.0], [1e-9, 5e-10]])
    np.testing.assert_allclose(target_weights(values_JK), [0.5, 0.25, 0.0, 1e9])
    np.testing.assert_allclose(
        linear_gains(values_JK, np.array([[0.75, 0.25]])),
        [[0.5 * (1.5 - 2), 0.25 * (-0.75 - 1), 0, 0.75 + 0.125]],
    )


def test_text_of_one_domain_scores_what_its_rounds_do():
    """Two rounds give domain 0 the gains 1 and 3: a piece of it is worth one of the two."""
    rounds_RJK = np.array([[[1.0, 0.0]], [[3.0, 0.0]]])
    values_JK = np.array([[2.0, 0.0]])
    mixtures_NK = np.tile([1.0, 0.0], (4000, 1))
    one_N, four_N = (
        drawn_gains(values_JK, rounds_RJK, mixtures_NK, num_pieces=n, rng=np.random.default_rng(0))[
            :, 0
        ]
        for n in (1, None)  # None: 2 rounds of 2 domains
    )
    assert set(one_N) == {0.5, 1.5}
    assert one_N.mean() == pytest.approx(1, abs=0.03)
    assert four_N.std() == pytest.approx(0.5 / 2, rel=0.05)


def test_text_drawn_without_end_scores_linearly():
    rng = np.random.default_rng(0)
    rounds_RJK = rng.standard_normal((3, 2, 5)) + 2
    values_JK = rounds_RJK.mean(axis=0)
    mixtures_NK = rng.dirichlet(np.ones(5), 20)
    found_N = drawn_gains(values_JK, rounds_RJK, mixtures_NK, num_pieces=10**8, rng=rng)
    np.testing.assert_allclose(found_N, linear_gains(values_JK, mixtures_NK), atol=2e-3)


def test_lookahead_gains_give_every_target_the_same_say():
    """Deviations from the mean over the spread: (1, 0, -1) sqrt(3 / 2) for falling losses."""
    step = np.sqrt(1.5)
    losses_NJ = np.array([[3.0, 100.0, 7.0], [2.0, 200.0, 7.0], [1.0, 500.0, 7.0]])
    second_N = (800 / 3 - losses_NJ[:, 1]) / losses_NJ[:, 1].std()
    np.testing.assert_allclose(
        lookahead_gains(losses_NJ, 3),
        np.stack([step * np.array([-1, 0, 1]), second_N, np.zeros(3)], axis=1),
    )


def test_the_balanced_objective_is_the_one_that_tikmix_d_maximises():
    rng = np.random.default_rng(0)
    values_JK = rng.standard_normal((3, 5)) + 1
    prices = {"alpha": 0.7, "beta": 1.3, "gamma": 0.4}
    nowhere_K = np.full(5, 0.2)
    best_K = solve(values_JK, nowhere_K, **prices)
    others_NK = [
        w for w in rng.dirichlet(np.ones(5), 4000) if (values_JK @ (w - nowhere_K) >= 0).all()
    ]
    near_NK = [0.99 * best_K + 0.01 * w for w in others_NK]
    mixtures_NK = np.array([best_K, nowhere_K, *others_NK, *near_NK])
    worth_N = balanced(linear_gains(values_JK, mixtures_NK), mixtures_NK, **prices)
    assert len(others_NK) > 20
    assert worth_N.argmax() == 0


def test_losses_that_tell_nothing_are_a_mixer_error():
    with pytest.raises(MixerError, match="are the same for all mixtures"):
        lookahead_gains(np.ones((3, 2)), 3)
    with pytest.raises(MixerError, match="each of the 4 mixtures that were asked for; got 3"):
        lookahead_gains(np.ones((3, 2)), 4)


def test_outliers_on_either_side_are_left_out():
    scores_N = np.array([0.0, 1.0, 2.0, -50.0, 3.0, 90.0])
    assert without_outliers(scores_N, 2).tolist() == [0, 1, 2, 4]
    assert without_outliers(scores_N, 1).tolist() == [0, 1, 2, 3, 4]
    assert without_outliers(scores_N, 0).tolist() == [0, 1, 2, 3, 4, 5]


def mixtures(number, num_domains=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(num_domains, 4.0), number)


def test_a_linear_function_is_found_and_a_share_that_never_varies_does_no_harm():
    def with_constants(mixtures_NK):
        constants_NK = np.tile([0.1, 0.0], (len(mixtures_NK), 1))
        return np.column_stack([0.9 * mixtures_NK, constants_NK])

    mixtures_NK = with_constants(mixtures(200))
    slope_K = np.array([3.0, -1.0, 0.5, 2.0, 100.0, 100.0])
    predict = fit_linear(mixtures_NK, mixtures_NK @ slope_K)
    others_NK = with_constants(mixtures(50, seed=1))
    # The ridge takes a 257th, of differences up to 2.
    np.testing.assert_allclose(predict(others_NK), others_NK @ slope_K, atol=0.02)


def test_a_linear_model_answers_where_there_are_more_domains_than_mixtures():
    mixtures_NK = mixtures(20, num_domains=60)
    scores_N = mixtures_NK[:, 0]
    assert np.isfinite(fit_linear(mixtures_NK, scores_N)(mixtures_NK)).all()


def test_trees_are_the_same_twice_and_in_every_unit():
    mixtures_NK = mixtures(100)
    scores_N = np.where(mixtures_NK[:, 0] > 0.25, 1.0, 0.0) + mixtures_NK[:, 1]
    first, again = (fit_trees(mixtures_NK, scores_N)(mixtures_NK) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    tiny = fit_trees(mixtures_NK, 1e-9 * scores_N - 5e-9)(mixtures_NK)
    np.testing.assert_allclose(1e9 * tiny + 5, first, atol=1e-5)


def test_trees_of_a_constant_are_the_constant():
    np.testing.assert_allclose(fit_trees(mixtures(30), np.full(30, 7.0))(mixtures(3)), 7.0)


def test_skill_is_of_scores_that_were_left_out():
    """A model that knows what it saw and answers 0 elsewhere: errors are the scores themselves."""
    mixtures_NK, scores_N = mixtures(6), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    def memory(seen_NK, seen_N):
        known = {tuple(m): s for m, s in zip(seen_NK.tolist(), seen_N.tolist(), strict=True)}
        return lambda others_NK: np.array([known.get(tuple(m), 0.0) for m in others_NK.tolist()])

    found = skill(memory, mixtures_NK, scores_N, np.array([0, 1, 2, 0, 1, 2]))
    assert found.r2 == pytest.approx(1 - 91 / 17.5)
    assert found.spearman == 0.0


def test_skill_of_ranks_alone():
    """Every fold is predicted 10 too high, the same for all: ranks are right and R2 is not."""
    mixtures_NK, scores_N = mixtures(4), np.array([1.0, 2.0, 3.0, 4.0])
    scores = {tuple(m): s for m, s in zip(mixtures_NK.tolist(), scores_N.tolist(), strict=True)}

    def shifted(_seen_NK, _seen_N):
        return lambda others_NK: np.array([scores[tuple(m)] + 10 for m in others_NK.tolist()])

    found = skill(shifted, mixtures_NK, scores_N, np.array([0, 1, 0, 1]))
    assert found.spearman == pytest.approx(1)
    assert found.r2 == pytest.approx(1 - 400 / 5)
    assert str(found) == "R2 -79.00, Spearman 1.00"


WORSE = "LightGBM predicts worse than the linear model"


@pytest.mark.parametrize(
    ("name", "follows"),
    [("better", "the linear model"), ("linear", "the linear model"), ("lightgbm", "LightGBM")],
)
def test_where_scores_are_linear_the_notes_say_that_the_trees_are_worse(name, follows):
    mixtures_NK = mixtures(100)
    scores_N = mixtures_NK @ [1.0, 2.0, 3.0, 4.0]
    predict, notes = choose(name, mixtures_NK, scores_N, num_folds=5, rng=np.random.default_rng(0))
    assert notes[0].startswith("cross-validated: LightGBM R2 0.")
    assert notes[0].endswith("linear R2 1.00, Spearman 1.00")
    assert notes[1:] == (WORSE, f"the search follows {follows}")
    fit = fit_trees if follows == "LightGBM" else fit_linear
    np.testing.assert_array_equal(predict(mixtures_NK), fit(mixtures_NK, scores_N)(mixtures_NK))


def test_where_scores_jump_the_search_follows_the_trees():
    mixtures_NK = mixtures(200)
    scores_N = (np.abs(mixtures_NK[:, 0] - 0.25) < 0.08).astype(float)
    _, notes = choose("better", mixtures_NK, scores_N, num_folds=5, rng=np.random.default_rng(0))
    assert notes[1:] == ("the search follows LightGBM",)


def test_where_scores_are_noise_nothing_is_followed():
    scores_N = np.random.default_rng(3).standard_normal(100)
    predict, notes = choose(
        "better", mixtures(100), scores_N, num_folds=5, rng=np.random.default_rng(0)
    )
    assert predict is None
    assert notes[-1] == "neither predicts the scores: the answer is TiKMiX-D's within the box"
