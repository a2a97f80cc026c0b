"""TiKMiX-M as a mixer: where it looks, what it finds, what it says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import linprog

from tikmix_hf.mixers import MixerError, Signals
from tikmix_hf.mixers.tikmix_d import solve
from tikmix_hf.mixers.tikmix_m import MState, TikMixM
from tikmix_hf.mixture import Constraints, Group, Supply

# Small enough for a test and large enough to find what there is.
QUICK = {"num_mixtures": 64, "num_draws": 128, "top_k": 8}


def signals(mixture, values, **more):
    num_targets, num_domains = np.shape(values)
    return Signals(
        step=1,
        domains=tuple(f"d{k:02d}" for k in range(num_domains)),
        targets=tuple(f"t{j}" for j in range(num_targets)),
        mixture=np.array(mixture, dtype=np.float64),
        influence=np.array(values, dtype=np.float64),
        **more,
    )


def random_signals(num_domains, num_targets=3, seed=0, **more):
    rng = np.random.default_rng(seed)
    values_JK = rng.standard_normal((num_targets, num_domains)) + 0.5
    return signals(rng.dirichlet(np.full(num_domains, 3.0)), values_JK, **more)


def stepped(given, num_updates=0, **settings):
    mixer = TikMixM(**{**QUICK, **settings})
    return mixer.step(MState(num_updates), given)


def score(given, mixture_K):
    values_JK = given.influence / given.influence.max(axis=1, keepdims=True)
    return float((values_JK @ mixture_K).sum())


@pytest.mark.parametrize("num_domains", [2, 3, 12])
def test_the_answer_stays_within_half_and_twice_every_share(num_domains):
    for seed in range(3):
        given = random_signals(num_domains, seed=seed)
        mixture_K, _ = stepped(given, seed=seed)
        assert mixture_K.sum() == pytest.approx(1, abs=1e-12)
        assert (mixture_K >= 0.5 * given.mixture * (1 - 1e-12)).all()
        assert (mixture_K <= 2 * given.mixture * (1 + 1e-12)).all()
        assert np.abs(mixture_K - given.mixture).max() > 0.01


@pytest.mark.parametrize("num_domains", [3, 12])
def test_of_a_linear_score_the_best_of_the_box_is_found(num_domains):
    """The linear program's vertex is out of a mean's reach, most of the way to it is not."""
    for seed in range(3):
        given = random_signals(num_domains, seed=seed)
        best = -linprog(
            -(given.influence / given.influence.max(axis=1, keepdims=True)).sum(axis=0),
            A_eq=np.ones((1, num_domains)),
            b_eq=[1],
            bounds=np.column_stack([0.5 * given.mixture, 2 * given.mixture]),
        ).fun
        now = score(given, given.mixture)
        mixture_K, _ = stepped(given, seed=seed)
        assert score(given, mixture_K) > now + 0.9 * (best - now)


def test_two_domains_go_to_the_end_of_the_box():
    """0.3 may become 0.6 and 0.7 may become 0.4, so the first can have 0.6 and no more."""
    mixture_K, _ = stepped(signals([0.3, 0.7], [[1.0, 0.0]]))
    assert mixture_K[0] == pytest.approx(0.6, abs=0.01)


def quadratic_losses(mixtures_NK):
    """Two targets, both best at (0.42, 0.33, 0.25), in units a million apart."""
    distance_N = ((mixtures_NK - [0.42, 0.33, 0.25]) ** 2).sum(axis=1)
    return np.column_stack([2 + distance_N, 1e6 * (3 + np.sqrt(distance_N))])


def test_lookahead_finds_the_best_mixture_of_losses_that_no_influence_could_know():
    given = signals([0.3, 0.3, 0.4], [[0.0, 0.0, 1.0], [0.0, 0.1, 1.0]])
    mixer = TikMixM(score="lookahead", num_mixtures=256)
    assert mixer.requires == {"influence", "lookahead_losses"}
    ahead = mixer.lookahead(MState(3), given)
    assert mixer.num_lookahead == len(ahead.mixtures) == 256
    given = dataclasses.replace(given, lookahead_losses=quadratic_losses(ahead.mixtures))
    mixture_K, state = mixer.step(MState(3), given)
    np.testing.assert_allclose(mixture_K, [0.42, 0.33, 0.25], atol=0.02)
    assert "the search follows LightGBM" in state.notes
    assert state.num_updates == 4


def test_losses_are_read_in_the_order_in_which_the_mixtures_were_given():
    """The best domain is the last by name, the first of the run."""
    given = dataclasses.replace(
        signals([0.4, 0.3, 0.3], [[1.0, 1.1, 1.0]]), domains=("z", "b", "a")
    )
    mixer = TikMixM(score="lookahead")
    mixtures_NK = mixer.lookahead(MState(), given).mixtures
    given = dataclasses.replace(given, lookahead_losses=-mixtures_NK[:, :1])
    mixture_K, _ = mixer.step(MState(), given)
    assert mixture_K[0] > 0.65


def test_losses_of_other_mixtures_are_a_mixer_error():
    given = signals([0.5, 0.5], [[1.0, 0.5]], lookahead_losses=np.ones((5, 1)))
    with pytest.raises(MixerError, match="each of the 64 mixtures that were asked for; got 5"):
        TikMixM(score="lookahead").step(MState(), given)


def test_the_same_state_gives_the_same_answer_and_the_next_update_other_mixtures():
    given = random_signals(6, rounds=np.random.default_rng(0).standard_normal((4, 3, 6)))
    first, again, later = stepped(given), stepped(given), stepped(given, num_updates=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert later[1].num_updates == 2
    assert later[1].notes != first[1].notes
    assert stepped(given, seed=1)[1].notes != first[1].notes


@pytest.mark.parametrize("mode", ["influence", "lookahead"])
def test_renumbering_the_domains_renumbers_candidates_and_answer(mode):
    order_K = np.array([2, 0, 4, 1, 3])
    given = random_signals(5)
    noise_RJK = 0.1 * np.random.default_rng(0).standard_normal((4, 3, 5))
    bounds = Constraints(
        floors={"d01": 0.2}, groups={"g": Group(domains=("d00", "d04"), at_most=0.5)}
    )
    mixer = TikMixM(**QUICK, score=mode, num_pieces=10_000, constraints=bounds)
    answers, candidates = [], []
    for order in (np.arange(5), order_K):
        own = dataclasses.replace(
            given,
            domains=tuple(given.domains[k] for k in order),
            mixture=given.mixture[order],
            influence=given.influence[:, order],
            rounds=(given.influence + noise_RJK)[:, :, order],
        )
        if mode == "lookahead":
            mixtures_NK = mixer.lookahead(MState(), own).mixtures
            candidates.append(mixtures_NK)
            losses_NJ = -np.log(mixtures_NK[:, np.argsort(order)][:, :3])
            own = dataclasses.replace(own, lookahead_losses=losses_NJ)
        answer_K, state = mixer.step(MState(), own)
        assert any("the search follows" in note for note in state.notes)
        answers.append(answer_K)
    np.testing.assert_allclose(answers[1], answers[0][order_K], atol=1e-9)
    if mode == "lookahead":
        np.testing.assert_allclose(candidates[1], candidates[0][:, order_K], atol=1e-9)


def test_every_update_looks_ahead_at_other_mixtures():
    given, mixer = random_signals(4), TikMixM(score="lookahead")
    first, again, later = (mixer.lookahead(MState(n), given).mixtures for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(later, first).any()


def test_two_losses_that_are_far_off_do_not_turn_the_search():
    """The score rises with the first share, but for two mixtures that have little of it."""
    given = signals([0.5, 0.5], [[1.0, 1.0]])
    mixer = TikMixM(score="lookahead", surrogate="linear")
    mixtures_NK = mixer.lookahead(MState(), given).mixtures
    losses_NJ = -mixtures_NK[:, :1]
    losses_NJ[np.argsort(mixtures_NK[:, 0])[:2]] = -1e3
    given = dataclasses.replace(given, lookahead_losses=losses_NJ)
    assert mixer.step(MState(), given)[0][0] > 0.7
    everything = dataclasses.replace(mixer, num_outliers=0)
    assert everything.step(MState(), given)[0][0] < 0.5


def test_text_of_several_rounds_is_drawn_and_its_noise_shows_in_the_notes():
    given = random_signals(8)
    rounds_RJK = given.influence + np.random.default_rng(0).standard_normal((4, 3, 8))
    alone = stepped(given)[1].notes
    drawn = stepped(dataclasses.replace(given, rounds=rounds_RJK))[1].notes
    assert "a single round of text, so gains are linear in the mixture" in alone
    assert any(note.endswith("linear R2 1.00, Spearman 1.00") for note in alone)
    assert not any("a single round" in note or "linear R2 1.00" in note for note in drawn)
    assert alone[0].startswith("64 mixtures in the box, ")
    assert "% of draws kept (by plain rejection " in alone[0]
    assert "LightGBM predicts worse than the linear model" in alone
    assert alone[-1].startswith("predicted score: ")


def test_the_balanced_objective_gives_up_some_of_the_sum_for_balance_and_entropy():
    given = random_signals(6, seed=3)
    prices = {"alpha": 1.0, "beta": 1.0, "gamma": 0.5}

    def worth(mixture_K):
        gains_J = given.influence / given.influence.max(axis=1, keepdims=True) @ mixture_K
        entropy = -(mixture_K * np.log(mixture_K)).sum()
        return gains_J.sum() - gains_J.std() + 0.5 * entropy

    summed_K, balanced_K = (
        stepped(given, objective=objective, num_mixtures=256, **prices)[0]
        for objective in ("sum", "balanced")
    )
    assert score(given, summed_K) > score(given, balanced_K) + 0.01
    assert worth(balanced_K) > worth(summed_K) + 0.01


def test_where_scores_are_noise_the_answer_is_tikmix_ds_within_the_box():
    """Rounds that differ a thousandfold: what is drawn says nothing."""
    given = random_signals(5)
    rng = np.random.default_rng(1)
    rounds_RJK = given.influence + 1e3 * rng.standard_normal((2, 3, 5))
    mixture_K, state = stepped(dataclasses.replace(given, rounds=rounds_RJK), num_outliers=0)
    assert state.notes[-1] == "neither predicts the scores: the answer is TiKMiX-D's within the box"
    box = (0.5 * given.mixture, np.minimum(2 * given.mixture, 1.0))
    expected_K = solve(given.influence, given.mixture, constraints=box)
    np.testing.assert_allclose(mixture_K, expected_K, atol=1e-6)


def test_a_domain_without_a_share_stays_without_one_until_a_floor_gives_it_one():
    given = signals([0.5, 0.0, 0.3, 0.2], [[0.2, 1.0, 0.4, 0.1]])
    mixture_K, _ = stepped(given)
    assert mixture_K[1] == 0
    mixture_K, _ = stepped(given, constraints=Constraints(floors={"d01": 0.05}))
    assert mixture_K[1] == pytest.approx(0.05)


@pytest.mark.parametrize("shares", [[1.0], [1.0, 0.0], [0.0, 0.0, 1.0]])
def test_a_single_domain_in_force_leaves_nothing_to_choose(shares):
    given = signals(shares, [np.arange(1.0, 1 + len(shares))])
    mixture_K, state = stepped(given)
    np.testing.assert_array_equal(mixture_K, shares)
    assert state.notes == ("the box and the constraints leave a single mixture",)
    ahead = TikMixM(score="lookahead").lookahead(MState(), given)
    np.testing.assert_array_equal(ahead.mixtures, np.tile(shares, (64, 1)))


BOUNDS = Constraints(
    floors={"d00": 0.3},
    caps={"d01": 0.1},
    groups={"even": Group(domains=("d02", "d04"), at_most=0.2)},
)


def test_candidates_and_answer_are_within_floors_caps_and_groups():
    given = signals(np.full(6, 1 / 6), [[0.1, 1.0, 1.0, 0.3, 0.9, 0.2], [0.2, 0.9, 1, 0, 1, 0.3]])
    mixer = TikMixM(**QUICK, score="lookahead", constraints=BOUNDS)
    mixtures_NK = mixer.lookahead(MState(), given).mixtures
    answer_K, state = mixer.step(
        MState(), dataclasses.replace(given, lookahead_losses=-mixtures_NK[:, [2, 4]])
    )
    for mixture_K in (*mixtures_NK, answer_K):
        assert mixture_K.sum() == pytest.approx(1, abs=1e-9)
        assert mixture_K[0] >= 0.3 - 1e-9
        assert mixture_K[1] <= 0.1 + 1e-9
        assert mixture_K[2] + mixture_K[4] <= 0.2 + 2e-6
        assert (mixture_K >= 1 / 12 - 1e-9).all()
    assert answer_K[2] + answer_K[4] == pytest.approx(0.2, abs=1e-3)
    assert "brought into the groups" in state.notes[0]


def test_candidates_are_within_epochs_where_rows_differ_in_length():
    row_tokens_K = np.array([5.0, 10.0, 20.0, 40.0, 10.0, 5.0])
    supply = Supply(np.full(6, 1 / 6), np.full(6, 600.0), np.zeros(6), 200.0, row_tokens_K)
    given = signals(np.full(6, 1 / 6), [[0.1, 1.0, 1.0, 0.3, 0.9, 0.2]], supply=supply)
    mixer = TikMixM(**QUICK, score="lookahead", constraints=Constraints(max_epochs=1.2))
    mixtures_NK = mixer.lookahead(MState(), given).mixtures
    parts_NK = mixtures_NK / row_tokens_K
    parts_NK /= parts_NK.sum(axis=1, keepdims=True)
    epochs_NK = 200.0 * parts_NK * row_tokens_K / 600.0
    assert (epochs_NK <= 1.2 + 1e-4).all()
    assert (epochs_NK > 1.1).any()  # the bound is met, not only kept


def test_constraints_that_do_not_meet_the_box_widen_it():
    """The pair has 0.2 in force and at most 0.4 in the box, but at most 0.8 in the next."""
    given = signals([0.1, 0.1, 0.4, 0.4], [[1.0, 0.5, 0.2, 0.1]])
    pair = Constraints(groups={"pair": Group(domains=("d00", "d01"), at_least=0.6)})
    mixture_K, state = stepped(given, constraints=pair)
    assert "the constraints widen the box to factors 0.25 to 4" in state.notes
    assert mixture_K[:2].sum() >= 0.6 - 1e-9
    assert mixture_K[0] <= 0.4 + 1e-9


def test_constraints_that_no_mixture_obeys_are_a_mixer_error():
    given = signals([0.5, 0.5], [[1.0, 0.5]])
    both = Constraints(floors={"d00": 0.5}, groups={"most": Group(domains=("d01",), at_least=0.6)})
    with pytest.raises(MixerError):
        stepped(given, constraints=both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "loss"}, "`score` must be one of influence, lookahead; got 'loss'"),
        ({"surrogate": "forest"}, "`surrogate` must be one of better, lightgbm, linear"),
        ({"box": (1.0, 2.0)}, r"`box` must be a factor in \[0, 1\) and one above 1"),
        ({"box": (0.5, 0.9)}, r"`box` must be a factor in \[0, 1\) and one above 1"),
        ({"concentration": (10.0, 1.0)}, "`concentration` must be positive and not fall"),
        ({"num_mixtures": 8}, "`num_mixtures` must be finite and at least 12; got 8"),
        ({"top_k": 600}, "`num_draws` must be finite and at least 600; got 512"),
        ({"lookahead_steps": 0.0}, "`lookahead_steps` must be positive; got 0.0"),
        ({"num_folds": 1}, "`num_folds` must be finite and at least 2; got 1"),
        ({"gamma": -1.0}, "`gamma` must be finite and at least 0; got -1.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TikMixM(**settings)
