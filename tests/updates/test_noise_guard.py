"""The noise guard: against its definition, on noise, on signal, and under renaming and scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tikmix_hf.updates.noise_guard import check_noise_guard, cross_validate


def softmax_mixer(influence_JK, current_K):
    """Proposes more of what helps, in parts of each row's spread."""
    centred_JK = influence_JK - (influence_JK @ current_K)[:, None]
    gains_K = (centred_JK / np.abs(centred_JK).max(axis=1, keepdims=True)).mean(axis=0)
    shares_K = current_K * np.exp(2 * gains_K)
    return shares_K / shares_K.sum()


def judge(rounds_RJK, current_K, *, num_errors=1.0):
    proposal_K = softmax_mixer(rounds_RJK.mean(axis=0), current_K)
    folds_RK = np.stack(
        [
            softmax_mixer(np.delete(rounds_RJK, r, axis=0).mean(axis=0), current_K)
            for r in range(len(rounds_RJK))
        ]
    )
    verdict = cross_validate(rounds_RJK, current_K, proposal_K, folds_RK, num_errors=num_errors)
    return verdict, proposal_K, folds_RK


def measurement(rng, *, signal=1.0, noise=1.0, num_rounds=4, num_targets=3, num_domains=6):
    truth_JK = signal * rng.normal(size=(num_targets, num_domains)) + 5.0
    return truth_JK + noise * rng.normal(size=(num_rounds, num_targets, num_domains))


def test_the_verdict_is_what_its_definition_says_entry_by_entry():
    rng = np.random.default_rng(0)
    rounds_RJK, current_K = measurement(rng), rng.dirichlet(np.ones(6))
    verdict, proposal_K, folds_RK = judge(rounds_RJK, current_K)

    mean_JK = sum(rounds_RJK) / 4
    scale_J = [max(abs(s - row @ current_K) for s in row) for row in mean_JK]

    def gain(influence_JK, mixture_K):
        return (
            sum(
                sum(row[k] * (mixture_K[k] - current_K[k]) for k in range(6)) / scale
                for row, scale in zip(influence_JK, scale_J, strict=True)
            )
            / 3
        )

    gains = [gain(rounds_RJK[r], folds_RK[r]) for r in range(4)]
    mean = sum(gains) / 4
    assert verdict.promised == pytest.approx(gain(mean_JK, proposal_K))
    assert verdict.confirmed == pytest.approx(mean)
    variance = sum((g - mean) ** 2 for g in gains) / 3
    assert verdict.stderr == pytest.approx((variance / 4) ** 0.5)
    assert verdict.step == pytest.approx(mean / verdict.promised)
    assert 0 < verdict.step < 1


def test_pure_noise_promises_much_confirms_nothing_and_mostly_stays():
    rng = np.random.default_rng(1)
    num_trials = 400
    verdicts = [
        judge(measurement(rng, signal=0.0), np.full(6, 1 / 6))[0] for _ in range(num_trials)
    ]
    assert min(verdict.promised for verdict in verdicts) > 0
    confirmed = np.array([verdict.confirmed for verdict in verdicts])
    # Zero or a little less; a mean of independent trials is within four of its standard errors.
    assert confirmed.mean() < 4 * confirmed.std() / num_trials**0.5
    assert confirmed.mean() < np.mean([verdict.promised for verdict in verdicts]) / 10
    num_passed = sum(verdict.step > 0 for verdict in verdicts)
    # Simulated: 22 to 23 % of 2,000; the bound of one in 10,000 around a little more.
    assert num_passed < stats.binom.ppf(1 - 1e-4, num_trials, 0.25)
    assert np.mean([verdict.step for verdict in verdicts]) < 0.2
    stricter = [judge(measurement(rng, signal=0.0), np.full(6, 1 / 6), num_errors=3.0)[0].step > 0
                for _ in range(num_trials)]  # fmt: skip
    assert sum(stricter) < num_passed / 2


def test_a_strong_signal_lets_nearly_the_whole_move_through():
    rng = np.random.default_rng(2)
    steps = [judge(measurement(rng, noise=0.05), np.full(6, 1 / 6))[0].step for _ in range(20)]
    assert min(steps) > 0.95
    exact, *_ = judge(measurement(rng, noise=0.0), np.full(6, 1 / 6))
    assert exact.step == 1  # the folds propose what all rounds do
    assert exact.note is None


def test_more_noise_means_a_smaller_step():
    def mean_step(noise):
        seeds = map(np.random.default_rng, range(40))
        verdicts = [judge(measurement(rng, noise=noise), np.full(6, 1 / 6))[0] for rng in seeds]
        return np.mean([verdict.step for verdict in verdicts])

    steps = [mean_step(noise) for noise in (0.1, 1.0, 3.0)]
    assert steps[0] > steps[1] > steps[2]


def test_units_of_a_target_and_what_its_domains_share_do_not_matter():
    rng = np.random.default_rng(3)
    rounds_RJK, current_K = measurement(rng), rng.dirichlet(np.ones(6))
    verdict, proposal_K, folds_RK = judge(rounds_RJK, current_K)
    units_J1 = np.array([[1e-6], [1.0], [1e6]])
    shifts_J1 = np.array([[-3.0], [0.0], [7.0]])
    other = cross_validate(
        (rounds_RJK + shifts_J1) * units_J1, current_K, proposal_K, folds_RK, num_errors=1.0
    )
    np.testing.assert_allclose(other, verdict, rtol=1e-6)


def test_renaming_domains_and_reordering_targets_and_rounds_changes_nothing():
    rng = np.random.default_rng(4)
    rounds_RJK, current_K = measurement(rng), rng.dirichlet(np.ones(6))
    verdict, proposal_K, folds_RK = judge(rounds_RJK, current_K)
    k, j, r = rng.permutation(6), rng.permutation(3), rng.permutation(4)
    other = cross_validate(
        rounds_RJK[r][:, j][:, :, k], current_K[k], proposal_K[k], folds_RK[r][:, k], num_errors=1.0
    )
    np.testing.assert_allclose(other, verdict, rtol=1e-9)


def test_a_target_that_tells_nothing_has_no_vote():
    rng = np.random.default_rng(5)
    rounds_RJK, current_K = measurement(rng), np.full(6, 1 / 6)
    verdict, proposal_K, folds_RK = judge(rounds_RJK, current_K)
    flat = np.concatenate([rounds_RJK, np.zeros((4, 1, 6))], axis=1)
    other = cross_validate(flat, current_K, proposal_K, folds_RK, num_errors=1.0)
    np.testing.assert_allclose(other, verdict)


def test_a_proposal_that_promises_nothing_is_not_the_guards_business():
    rng = np.random.default_rng(6)
    rounds_RJK, current_K = measurement(rng), np.full(6, 1 / 6)
    verdict, proposal_K, folds_RK = judge(rounds_RJK, current_K)
    worse_K = 2 * current_K - proposal_K
    other = cross_validate(rounds_RJK, current_K, worse_K, folds_RK, num_errors=1.0)
    assert other.promised == pytest.approx(-verdict.promised)
    assert other.step == 1
    nothing = cross_validate(np.zeros((2, 1, 6)), current_K, proposal_K, folds_RK[:2], num_errors=1)
    assert nothing.step == 1


def test_notes_say_what_the_guard_did():
    rng = np.random.default_rng(7)
    verdict, *_ = judge(measurement(rng), np.full(6, 1 / 6))
    assert verdict._replace(step=0.62).note == "62% of the move, as far as fresh text bears it out"
    kept = verdict._replace(promised=0.5, confirmed=-0.01, stderr=0.2, step=0.0)
    assert kept.note == ("signal below its noise (gain -0.010 ± 0.200, 0.500 promised)")


@pytest.mark.parametrize("value", [True, "1.0", None, np.True_, [1.0]])
def test_what_is_no_number_of_standard_errors_is_refused(value):
    with pytest.raises(TypeError, match="`noise_guard` must be a number"):
        check_noise_guard(value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), np.float32(-0.5)])
def test_a_number_that_is_no_threshold_is_refused(value):
    with pytest.raises(ValueError, match="`noise_guard` must be finite and not negative; got"):
        check_noise_guard(value)
    check_noise_guard(abs(value) if np.isfinite(value) else 0)
