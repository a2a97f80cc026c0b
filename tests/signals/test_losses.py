"""mean_losses: the losses a measurement reports, without its backward passes, leaving no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import domains, gpt2, llama, targets

from tikmix_hf import GroupInfluence
from tikmix_hf.signals.losses import mean_losses


def by_hand(model, batches):
    """Token by token from the logits."""
    losses = []
    for batch in batches:
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits.log_softmax(-1)
        for row, labels in enumerate(batch["labels"]):
            losses += [
                -logits[row, place - 1, labels[place]].item()
                for place in range(1, len(labels))
                if labels[place] != -100
            ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_they_are_means_over_loss_tokens(make):
    model = make().eval()
    losses = mean_losses(model, targets())
    assert losses.means == pytest.approx([by_hand(model, part) for part in targets().values()])
    assert losses.num_tokens == 5 * 7 + 4 * 12


def test_they_are_what_a_measurement_reports_for_the_same_batches():
    model = llama(torch.float32, dropout=0.5).train()
    matrix = GroupInfluence(model).measure(domains(), targets())
    np.testing.assert_array_equal(mean_losses(model, targets()).means, matrix.target_losses)


@pytest.mark.parametrize("reentrant", [False, True])
def test_nothing_is_left_behind_and_no_gradient_is_taken(reentrant):
    model = llama(dropout=0.5).train()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    random_state = torch.get_rng_state()
    model.model.norm.weight.grad = torch.ones_like(model.model.norm.weight)
    gradient = model.model.norm.weight.grad
    first = mean_losses(model, targets())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in model.modules())
    assert model.model.norm.weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    np.testing.assert_array_equal(mean_losses(model, targets()).means, first.means)


def test_the_cut_into_batches_does_not_matter():
    model = llama()
    whole, cut = (mean_losses(model, targets(size)).means for size in (5, 1))
    np.testing.assert_allclose(cut, whole, rtol=1e-12)


def test_what_cannot_be_measured_is_named():
    model = llama()
    batches = targets()["arc"]
    silent = [{**batch, "labels": torch.full_like(batch["labels"], -100)} for batch in batches]
    with pytest.raises(ValueError, match="'arc' has no loss token in its 3 batches"):
        mean_losses(model, {"arc": silent})
    # A batch without a loss token adds nothing where others have some.
    assert mean_losses(model, {"arc": [*silent, *batches]}).means == pytest.approx(
        mean_losses(model, {"arc": batches}).means
    )
    with pytest.raises(ValueError, match="'arc', batch 0: a batch must have `labels`"):
        mean_losses(model, {"arc": [{"input_ids": batches[0]["input_ids"]}]})
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="'boolq', batch 0: the loss is not finite"):
        mean_losses(model, {"boolq": targets()["boolq"]})
