"""Losses a step ahead, against a step taken by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny import make_arguments, make_dataset, make_model, make_targets, make_trainer, rows

from tikmix_hf import PackedCollator, TikMixCallback, mixers
from tikmix_hf.mixers.base import About, Lookahead, Mixer, State
from tikmix_hf.signals.influence import GroupInfluence
from tikmix_hf.signals.lookahead import StepsAhead
from tikmix_hf.signals.losses import mean_losses


def batches(domain, num_rows=4):
    text = [{"input_ids": row["input_ids"]} for row in rows(domain, num_rows)]
    return [PackedCollator()(text[i : i + 2]) for i in range(0, num_rows, 2)]


DOMAINS = {f"d{k}": batches(k) for k in range(3)}
TARGETS = {"near0": batches(0, 2), "near2": batches(2, 2)}
MIXTURES = np.array([[1.0, 0, 0], [0.2, 0.3, 0.5], [0, 0, 1.0]])
Q = np.array([0.5, 0.25, 0.25])


@pytest.mark.parametrize("preconditioner", ["identity", "sign", "kfac"])
def test_it_is_the_loss_after_the_step_and_the_parameters_have_their_bits_back(preconditioner):
    model = make_model(seed=1)
    before = copy.deepcopy(model.state_dict())
    engine = GroupInfluence(model, preconditioner=preconditioner)
    matrix = engine.measure(DOMAINS, TARGETS)
    ahead = StepsAhead(MIXTURES, Q, num_steps=4.0, learning_rate=0.01)
    found = engine.losses_ahead(DOMAINS, TARGETS, ahead)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert found.gradient_tokens == 3 * 4 * 12
    assert found.forward_tokens == 3 * 2 * 2 * 12
    if preconditioner == "kfac":  # its first derivative is influence
        tiny = StepsAhead(MIXTURES, Q, num_steps=0.01, learning_rate=0.01)
        drops_NJ = matrix.target_losses - engine.losses_ahead(DOMAINS, TARGETS, tiny).means
        expected_NJ = MIXTURES @ matrix.values.T
        np.testing.assert_allclose(
            drops_NJ / np.abs(drops_NJ).max(), expected_NJ / np.abs(expected_NJ).max(), atol=0.02
        )
        return
    np.testing.assert_allclose(found.means, stepped_by_hand(model, preconditioner), rtol=1e-5)


def stepped_by_hand(model, preconditioner):
    parameters = [p for p in dict.fromkeys(model.parameters()) if p.requires_grad]
    updates_K = []
    for part in DOMAINS.values():
        ids = torch.cat([batch["input_ids"] for batch in part])
        gradient = torch.autograd.grad(model.eval()(ids, labels=ids).loss, parameters)
        updates_K.append([g.sign() if preconditioner == "sign" else g for g in gradient])
    length = 4.0 * 0.01 * 0.2 * sum(p.numel() for p in parameters) ** 0.5
    under_q = [
        sum(q * u for q, u in zip(Q, parts, strict=True)) for parts in zip(*updates_K, strict=True)
    ]
    scale = length / float(sum(u.square().sum() for u in under_q)) ** 0.5
    losses_NJ = []
    for mixture_K in MIXTURES:
        stepped = copy.deepcopy(model)
        moved = [p for p in dict.fromkeys(stepped.parameters()) if p.requires_grad]
        with torch.no_grad():
            for p, parts in zip(moved, zip(*updates_K, strict=True), strict=True):
                p -= scale * sum(w * u for w, u in zip(mixture_K, parts, strict=True))
        losses_NJ.append(mean_losses(stepped, TARGETS).means)
    return losses_NJ


def test_a_rate_of_zero_has_no_length():
    engine = GroupInfluence(make_model(), preconditioner="sign")
    with pytest.raises(ValueError, match=r"needs the learning rate .* got 0\.0"):
        engine.losses_ahead(DOMAINS, TARGETS, StepsAhead(MIXTURES, Q, 1.0, 0.0))


class LooksAhead(Mixer):
    """Takes the corner that is best a step ahead."""

    about = About("", "", "")
    requires = frozenset({"influence", "lookahead_losses"})
    num_lookahead = 4

    def init(self, prior):
        return State()

    def lookahead(self, state, signals):
        return Lookahead(0.9 * np.eye(4) + 0.025, 2.0)

    def propose(self, state, signals):
        best = signals.usable("lookahead_losses").mean(axis=1).argmin()
        return self.lookahead(state, signals).mixtures[best], State((f"{best}",))


def test_a_mixer_is_told_the_losses_of_its_mixtures_and_what_they_cost(tmp_path):
    dataset = make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=LooksAhead(), at_steps=(4,), num_rows=8,
        preconditioner="sign", progress=False,
    )  # fmt: skip
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    (record,) = callback.updates
    assert record.proposed.max() == pytest.approx(0.925)
    # Of the first of four rounds of 8 rows: 4 domains' gradients, 4 mixtures x 2 targets forward.
    tokens = 4 * 2 * 12 + 4 * 2 * 2 * 12 / 3
    assert record.costs["lookahead_losses"]["tokens"] == pytest.approx(tokens, abs=1)
    assert callback.plan.tokens_per_update == pytest.approx(
        4 * 8 * 12 + 2 * 8 * 12 * 4 / 3 + tokens
    )


def test_tikmix_m_looks_ahead_on_the_stock_trainer(tmp_path):
    dataset = make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=mixers.load("tikmix_m")(score="lookahead"),
        at_steps=(4,), num_rows=8, preconditioner="sign", progress=False,
    )  # fmt: skip
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    assert callback.updates[0].from_sample
