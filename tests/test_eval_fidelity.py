"""The scripts that compare influence with real training: their arithmetic, and what they keep."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy import stats

from tikmix_hf import Domains
from tikmix_hf.corpora import Embedded
from tikmix_hf.signals import GroupInfluence, InfluenceMatrix, preconditioners
from tikmix_hf.signals.preconditioners import Fitting

sys.path.insert(0, str(Path(__file__).parent.parent / "eval"))  # as running a script does

import additivity
import fidelity_predictions
import fidelity_report
import fidelity_text
import fidelity_truth
import influence_fidelity
from fidelity_scores import (
    mean_and_error,
    mixture_influence,
    pearson,
    repeatability,
    scores,
    spearman,
)

HALF_PRECISION_OF_SUMS = 1e-4  # fp32 sums in another order, relative to the largest entry


def blocks(num_rows: int, seed: int) -> Dataset:
    tokens = np.random.default_rng(seed).integers(0, 2048, (num_rows, 16))
    return Dataset.from_dict({"input_ids": tokens.tolist()})


@pytest.fixture
def text(monkeypatch) -> fidelity_text.Text:
    names = ("web", "code", "books")
    domains = Domains.from_datasets(
        {name: blocks(60, k) for k, name in enumerate(names)}, heldout=0.4
    )
    targets = {name: blocks(100, 10 + j) for j, name in enumerate(("arc", "boolq"))}
    corpus = Embedded(domains, targets, {}, None)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(fidelity_text.corpora, "load", lambda: corpus)
    return fidelity_text.load()


@pytest.fixture
def setting(tmp_path, monkeypatch) -> fidelity_truth.Setting:
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    monkeypatch.setitem(fidelity_truth.SIZES, "tiny", tiny)
    monkeypatch.setattr(fidelity_truth, "HORIZONS", (0, 1, 2))
    monkeypatch.setattr(fidelity_truth, "NUM_MIXTURES", 2)
    return fidelity_truth.Setting(size="tiny", steps=3, seed=0, root=tmp_path)


def random_changes(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "predicted_JR": rng.normal(size=(3, 7)),
        "real_JR": rng.normal(size=(3, 7)),
        "predicted_in_force_J": rng.normal(size=3),
        "real_in_force_J": rng.normal(size=3),
    }


def score(changes: dict[str, np.ndarray]) -> dict[str, float]:
    rest = dict(changes)
    return scores(rest.pop("predicted_JR"), rest.pop("real_JR"), **rest)


def test_correlations_are_those_of_scipy_with_ties():
    one = np.array([1.0, 2.0, 2.0, 5.0, 3.0])
    other = np.array([2.0, 1.0, 4.0, 4.0, 9.0])
    assert pearson(one, other) == pytest.approx(stats.pearsonr(one, other).statistic)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)


def test_within_target_scores_are_the_mean_over_targets_and_pooled_ones_take_all_pairs():
    changes = random_changes()
    predicted, real = changes["predicted_JR"], changes["real_JR"]
    found = score(changes)
    own = [stats.pearsonr(*pair).statistic for pair in zip(predicted, real, strict=True)]
    assert found["pearson"] == pytest.approx(np.mean(own))
    pooled = stats.spearmanr(predicted.ravel(), real.ravel()).statistic
    assert found["raw spearman"] == pytest.approx(pooled)
    predicted = predicted - changes["predicted_in_force_J"][:, None]
    real = real - changes["real_in_force_J"][:, None]
    assert found["centred pearson"] == pytest.approx(
        stats.pearsonr(predicted.ravel(), real.ravel()).statistic
    )


def test_centring_changes_nothing_within_a_target_and_something_where_targets_are_pooled():
    changes = random_changes()
    shifted = dict(changes, predicted_JR=changes["predicted_JR"] + np.array([[5.0], [-3.0], [0.5]]))
    before, after = score(changes), score(shifted)
    for name in ("pearson", "spearman"):
        assert after[name] == pytest.approx(before[name])
    assert abs(after["raw pearson"] - before["raw pearson"]) > 0.01


def test_signs_of_what_is_always_positive_agree_with_half_the_truth_until_centred():
    real_JR = np.array([[1.0, -1.0, 2.0, -2.0]])
    found = scores(
        real_JR + 3, real_JR, predicted_in_force_J=np.array([3.0]), real_in_force_J=np.zeros(1)
    )
    assert (found["raw signs"], found["centred signs"]) == (0.5, 1.0)


def test_a_mixture_is_predicted_share_by_share():
    values_JK, mixtures_RK = np.array([[1.0, 3.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])
    assert mixture_influence(values_JK, mixtures_RK).tolist() == [[2.0, 3.0]]


def test_scores_refuse_other_shapes_and_what_does_not_vary():
    changes = random_changes()
    with pytest.raises(ValueError, match="`predicted_JR` must have the shape"):
        score(changes | {"predicted_JR": np.zeros((3, 6))})
    with pytest.raises(ValueError, match="`predicted_JR` must vary"):
        score(changes | {"predicted_JR": np.ones((3, 7))})


def test_repeatability_of_halves_foretells_the_agreement_of_whole_measurements():
    rng = np.random.default_rng(0)
    truth_JK = rng.normal(size=(2, 2000))
    whole, again = (truth_JK + rng.normal(size=(4, 2, 2000)) for _ in range(2))
    agreement = np.mean([pearson(a, b) for a, b in zip(whole.mean(0), again.mean(0), strict=True)])
    assert agreement == pytest.approx(0.8, abs=0.02)  # 1 / (1 + 1 / 4)
    assert repeatability(whole) == pytest.approx(agreement, abs=0.02)


def test_mean_and_standard_error_of_two_and_of_one():
    assert mean_and_error(np.array([1.0, 3.0])) == (2.0, 1.0)
    assert np.isnan(mean_and_error(np.array([1.0]))[1])


def test_no_row_that_a_run_is_judged_by_is_measured_on(text):
    for name, judged_NT in text.judged.items():
        assert len(judged_NT) == 64
        judged, measured = (
            set(map(tuple, r.tolist())) for r in (judged_NT, text.target_pools[name])
        )
        assert not judged & measured
        assert len(judged | measured) == 100


def test_heldout_rows_are_measured_before_any_of_the_training_split(text):
    for domain in text.domains:
        first = text.domain_pools[domain.name][: len(domain.heldout)].tolist()
        assert sorted(first) == sorted(domain.heldout["input_ids"])


def test_rounds_take_fresh_rows_and_too_many_are_refused(text):
    rounds = fidelity_text.pools_of_rounds(text.domain_pools, 2, (9, 4))
    taken = [torch.cat([batch["input_ids"] for batch in part["web"]]) for part in rounds]
    assert torch.equal(torch.cat(taken), text.domain_pools["web"][2:15])
    assert [len(part["web"]) for part in rounds] == [2, 1]
    with pytest.raises(ValueError, match="rows 50 to 61 of 'web', which has 60"):
        fidelity_text.pools_of_rounds(text.domain_pools, 50, (11,))


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(text, setting, tmp_path, monkeypatch):
    whole = fidelity_truth.measure_truth(setting, text, 0)
    other = fidelity_truth.Setting(size="tiny", steps=3, seed=0, root=tmp_path / "killed")
    real_step, calls = fidelity_truth.train_step, []

    def dies_in_the_third_run(*args):
        calls.append(args)
        if len(calls) == 3 + 2 * 2 + 2:  # to the checkpoint, two runs, a step more
            raise KeyboardInterrupt
        real_step(*args)

    monkeypatch.setattr(fidelity_truth, "train_step", dies_in_the_third_run)
    with pytest.raises(KeyboardInterrupt):
        fidelity_truth.measure_truth(other, text, 0)
    kept = json.loads((other.folder / "truth-0.json").read_text("utf-8"))
    assert len(kept["runs"]) == 2
    again = fidelity_truth.measure_truth(other, text, 0)
    assert again["runs"] == whole["runs"]
    assert len(calls) == 3 + 2 * 2 + 2 + 2 * 4  # neither the checkpoint nor the two runs again
    assert fidelity_truth.measure_truth(other, text, 0)["runs"] == whole["runs"]
    assert len(calls) == 3 + 2 * 2 + 2 + 2 * 4


def test_a_repetition_is_judged_by_other_rows_and_starts_from_the_same_weights(text, setting):
    first, second = (fidelity_truth.measure_truth(setting, text, r)["runs"] for r in (0, 1))
    assert [run["mixture"] for run in first.values()] == [run["mixture"] for run in second.values()]
    for runs in (first, second):
        befores = [run["losses"][0] for run in runs.values()]
        assert all(losses == befores[0] for losses in befores)
    assert first["in force"]["losses"][0] != second["in force"]["losses"][0]


def test_a_repetition_trains_on_rows_in_another_order(text, setting):
    twice = {name: torch.cat([rows_NT[:32]] * 2) for name, rows_NT in text.judged.items()}
    same = text._replace(judged=twice)
    first, second = (fidelity_truth.measure_truth(setting, same, r)["runs"] for r in (0, 1))
    for name, run in first.items():
        assert run["losses"][0] == second[name]["losses"][0]
        assert run["losses"][2] != second[name]["losses"][2]


def test_decreases_leave_out_the_mixture_in_force_and_count_from_the_start():
    record = {
        "horizons": [0, 5],
        "runs": {
            "in force": {"mixture": [0.5, 0.5], "losses": [[5.0, 4.0], [4.5, 4.0]]},
            "only web": {"mixture": [1.0, 0.0], "losses": [[5.0, 4.0], [4.0, 4.5]]},
        },
    }
    real_JR, mixtures_RK, in_force_J = influence_fidelity.decreases(record, 5)
    assert real_JR.tolist() == [[1.0], [-0.5]]
    assert mixtures_RK.tolist() == [[1.0, 0.0]]
    assert in_force_J.tolist() == [0.5, 0.0]


def test_a_prediction_is_the_mean_of_its_rounds_and_is_measured_once(text, setting, monkeypatch):
    way = fidelity_predictions.Measurement(preconditioner="adam", rows_by_round=(8, 8), first_row=4)
    matrix = fidelity_predictions.predict(setting, text, way)
    model, optimizer = fidelity_truth.checkpoint(setting, text)
    engine = GroupInfluence(model, preconditioner="adam", optimizer=optimizer)
    expected = [
        engine.measure(
            {n: fidelity_text.batches(rows[s : s + 8]) for n, rows in text.domain_pools.items()},
            {n: fidelity_text.batches(rows[s : s + 8]) for n, rows in text.target_pools.items()},
        ).values
        for s in (4, 12)
    ]
    np.testing.assert_allclose(matrix.values, np.mean(expected, axis=0), rtol=1e-6)
    monkeypatch.setattr(fidelity_predictions, "GroupInfluence", None)
    kept = fidelity_predictions.predict(setting, text, way)
    assert isinstance(kept, InfluenceMatrix)
    np.testing.assert_array_equal(kept.values, matrix.values)


def test_the_baseline_leads_itself_by_nothing_and_others_by_their_difference():
    same = {"checkpoint": "small", "seed": 0, "runs": "domains", "steps": 5, "repeats": None}
    rows = [
        same | {"predictor": name, **dict.fromkeys(fidelity_report.SCORES, r)}
        for name, r in (("sign", 0.5), ("adam", 0.7))
    ]
    own, other = fidelity_report.summary(rows)
    assert (own["less sign"][:4], other["less sign"][:4]) == ("0.00", "0.20")


def test_quotas_add_up_and_round_the_largest_remainders():
    assert additivity.quotas(np.array([0.5, 0.26, 0.24]), 10).tolist() == [5, 3, 2]
    for num_rows in (1, 7, 512):
        counts = additivity.quotas(np.random.default_rng(0).dirichlet(np.ones(8)), num_rows)
        assert counts.sum() == num_rows


def test_perturbed_mixtures_stay_within_their_factors():
    anchor = np.array([0.5, 0.3, 0.2])
    mixtures = additivity.perturbed(anchor, 50, np.random.default_rng(0))
    assert mixtures.shape == (50, 3)
    np.testing.assert_allclose(mixtures.sum(1), 1)
    assert (mixtures >= 0.5 * anchor).all()
    assert (mixtures <= 2 * anchor).all()


def test_a_drawn_text_has_each_domains_quota_of_distinct_rows():
    mixtures = np.array([[0.5, 0.5], [0.25, 0.75]])
    weights = additivity.drawn(mixtures, 8, 10, np.random.default_rng(0)).reshape(2, 2, 10)
    assert (weights > 0).sum(-1).tolist() == [[4, 4], [2, 6]]
    assert set(weights.ravel().tolist()) == {0.0, 1 / 8}


@pytest.mark.parametrize("name", ["identity", "adam", "adam_unit", "sign"])
def test_influence_from_row_gradients_is_the_engines(text, setting, name):
    model, optimizer = fidelity_truth.checkpoint(setting, text)
    model.eval()
    targets_JP, domains_KP = (
        additivity.means(model, pools, 8) for pools in (text.target_pools, text.domain_pools)
    )
    sides = [
        {n: fidelity_text.batches(rows[:8]) for n, rows in pools.items()}
        for pools in (text.domain_pools, text.target_pools)
    ]
    own = preconditioners.load(name)()
    fitting = Fitting(
        model=model, parameters=[*model.parameters()], optimizer=optimizer, batches=sides[0]
    )
    apply = additivity.fitted(own, fitting)
    values_JK = additivity.influence(domains_KP, targets_JP, own.side, apply)
    engine = GroupInfluence(model, preconditioner=name, optimizer=optimizer)
    expected = engine.measure(*sides).values
    limit = HALF_PRECISION_OF_SUMS * np.abs(expected).max()
    np.testing.assert_allclose(values_JK, expected, rtol=0, atol=limit)


def test_a_linear_influence_adds_up_exactly_over_the_same_rows(text, setting):
    model, _ = fidelity_truth.checkpoint(setting, text)
    model.eval()
    rows_NT = torch.cat([rows[:4] for rows in text.domain_pools.values()])
    mixtures_RK = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    weights_RN = np.repeat(mixtures_RK / 4, 4, axis=1).astype(np.float32)
    targets_JP = additivity.means(model, text.target_pools, 4)
    found = [
        targets_JP @ gradients.T
        for gradients in (
            additivity.text_gradients(model, rows_NT, weights_RN),
            additivity.means(model, text.domain_pools, 4),
        )
    ]
    measured_JR, values_JK = (values.double().numpy() for values in found)
    result = additivity.correlations(values_JK, measured_JR, measured_JR, mixtures_RK)
    for name in ("r", "again", "linear"):
        np.testing.assert_allclose(result[name], 1, atol=1e-4)


def test_a_checkpoint_of_other_text_is_refused(text, setting):
    fidelity_truth.checkpoint(setting, text)
    other = dict(text.target_pools)
    other["arc"] = other["arc"].flip(0)
    with pytest.raises(ValueError, match="was trained on other text"):
        fidelity_truth.checkpoint(setting, text._replace(target_pools=other))
