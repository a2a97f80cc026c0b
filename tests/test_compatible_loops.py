"""Loops of one's own: any optimizer, a gradient scaler and adapters beside the measurements.

In: a loop that trains with an optimizer of its own and measures in between. Out: the same bits with
and without, and either an influence or an error that names the way out.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import as_batch, influence_by_hand
from peft import LoraConfig, get_peft_model
from tiny import assert_same_bits, make_dataset, make_model, make_targets, parameters, rows
from transformers import Adafactor

from tikmix_hf.signals import GroupInfluence


class WithoutStepCount(torch.optim.Optimizer):
    """Like Adam, with its step count in the group and not in the state: schedule-free's layout."""

    def __init__(self, params, lr=1e-3) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "k": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                v = self.state[p].setdefault("exp_avg_sq", torch.zeros_like(p))
                v.lerp_(p.grad.square(), 1 - group["betas"][1])
                p.sub_(group["lr"] * p.grad / (v.sqrt() + 1e-8))


MATRICES_ONLY = {torch.optim.Muon}  # the rest is frozen, as it would be another optimizer's

WITH_SECOND_MOMENTS = {
    "fused AdamW": functools.partial(torch.optim.AdamW, fused=True),
    "AMSGrad": functools.partial(torch.optim.AdamW, amsgrad=True),
    "NAdam": torch.optim.NAdam,
}
WITHOUT = {
    "transformers' Adafactor": Adafactor,
    "torch's Adafactor": torch.optim.Adafactor,
    "Muon": torch.optim.Muon,
    "SGD": torch.optim.SGD,
    "Adamax": torch.optim.Adamax,
    "no step count": WithoutStepCount,
}


def loop(make_optimizer, between=lambda model, optimizer: None, scaler=None):
    """Four steps, with `between` after every second; returns the model and its optimizer."""
    model = make_model(dropout=0.2)
    model.requires_grad_(make_optimizer not in MATRICES_ONLY)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad or parameter.ndim == 2)
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad])
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    batch = as_batch(rows(1, 4))
    torch.manual_seed(3)
    for step in range(4):
        with torch.autocast("cpu", torch.float16, enabled=scaler.is_enabled()):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step % 2:
            between(model, optimizer)
    return model, optimizer


def measure(model, optimizer, preconditioner):
    return GroupInfluence(model, preconditioner=preconditioner, optimizer=optimizer).measure(
        {d.name: [as_batch(d.heldout)] for d in make_dataset().domains},
        {name: [as_batch(heldout)] for name, heldout in make_targets().items()},
    )


@pytest.mark.parametrize("name", [*WITH_SECOND_MOMENTS, *WITHOUT])
def test_any_optimizer_trains_on_to_the_same_bits_and_sign_measures(name):
    make_optimizer, matrices = (WITH_SECOND_MOMENTS | WITHOUT)[name], []

    def between(model, optimizer):
        matrices.append(measure(model, optimizer, "sign"))
        if name in WITHOUT:
            with pytest.raises(ValueError, match='preconditioner="sign"'):
                measure(model, optimizer, "adam")
        else:
            matrices.append(measure(model, optimizer, "adam"))

    (alone, alone_state), (observed, state) = loop(make_optimizer), loop(make_optimizer, between)
    assert_same_bits(parameters(alone), parameters(observed))
    assert flat(alone_state) == flat(state)
    assert len(matrices) >= 2
    assert all((matrix.values != 0).all() for matrix in matrices)


def flat(optimizer) -> list[Any]:
    return [
        value.tolist() if isinstance(value, torch.Tensor) else value
        for entry in optimizer.state.values()
        for value in entry.values()
    ]


def test_a_fused_adam_measures_what_a_plain_one_with_its_state_measures():
    model, fused = loop(WITH_SECOND_MOMENTS["fused AdamW"])
    state = fused.state_dict()
    state["param_groups"][0] |= {"fused": False}
    one_by_one = torch.optim.AdamW(model.parameters())
    one_by_one.load_state_dict(state)
    assert not one_by_one.param_groups[0]["fused"]
    values = [measure(model, optimizer, "adam").values for optimizer in (fused, one_by_one)]
    np.testing.assert_array_equal(*values)


def test_a_gradient_scaler_neither_scales_the_measurement_nor_hears_of_it():
    def make_scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

    scalers, measured = [make_scaler(), make_scaler()], []

    def between(model, optimizer):
        before = scalers[1].state_dict()
        measured.append(measure(model, optimizer, "identity").values)
        assert scalers[1].state_dict() == before
        by_hand = influence_by_hand(model.eval(), make_dataset())
        model.train()
        np.testing.assert_allclose(measured[-1], by_hand, rtol=1e-4)

    alone, _ = loop(torch.optim.AdamW, scaler=scalers[0])
    observed, _ = loop(torch.optim.AdamW, between, scaler=scalers[1])
    assert_same_bits(parameters(alone), parameters(observed))
    assert scalers[0].state_dict() == scalers[1].state_dict()
    assert scalers[0].get_scale() > 2.0**10  # it was at work
    assert len(measured) == 2


def test_adapters_at_their_start_have_influence_through_one_of_their_two_matrices():
    # B is zero, so A has no gradient yet; the frozen model has none at all.
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft asks a transformers model by a name that is about to go.
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(make_model(), config).eval()
    dataset = make_dataset()
    batches = {d.name: [as_batch(d.heldout)] for d in dataset.domains}
    goals = {name: [as_batch(heldout)] for name, heldout in make_targets().items()}
    measured = GroupInfluence(model, preconditioner="identity").measure(batches, goals)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    through_B = influence_by_hand(model, dataset)
    assert (through_B > 0).any()
    np.testing.assert_allclose(measured.values, through_B, rtol=1e-4)
    signed = GroupInfluence(model, preconditioner="sign").measure(batches, goals)
    assert np.isfinite(signed.values).all()
