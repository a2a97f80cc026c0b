"""Excess loss, against the losses of single tokens."""

from __future__ import annotations

import pytest
import torch
from tiny import make_arguments, make_dataset, make_model, make_targets, make_trainer, rows

from tikmix_hf import PackedCollator, TikMixCallback
from tikmix_hf.signals.excess import mean_excess_losses


def batches(domain, *, ignored=0):
    text = [row["input_ids"] for row in rows(domain, 6)]
    collated = [
        PackedCollator()([{"input_ids": ids} for ids in text[i : i + 2]]) for i in (0, 2, 4)
    ]
    for batch in collated:
        batch["labels"] = batch["labels"].clone()
        batch["labels"][:, 1 : 1 + ignored] = -100
    return collated


@torch.no_grad()
def by_hand(model, reference, collated):
    excess = []
    for batch in collated:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            logs = [one.eval()(ids[None]).logits[0].log_softmax(-1) for one in (model, reference)]
            for t in range(1, len(ids)):
                if labels[t] != -100:
                    mine, known = (-float(log[t - 1, labels[t]]) for log in logs)
                    excess.append(max(mine - known, 0.0))
    return sum(excess) / len(excess)


def test_it_is_the_mean_of_clipped_differences_over_loss_tokens():
    model, reference = make_model(seed=1), make_model(seed=2)
    parts = {"a": batches(0), "b": batches(3, ignored=4)}
    found = mean_excess_losses(model, reference, parts)
    expected = [by_hand(model, reference, part) for part in parts.values()]
    assert found.means.tolist() == pytest.approx(expected, rel=1e-5)
    assert all(expected)
    assert found.num_tokens == 2 * 2 * 6 * 12
    assert mean_excess_losses(model, model, parts).means.tolist() == [0, 0]


def test_both_models_are_left_as_they_were():
    model, reference = make_model(dropout=0.5, seed=1).train(), make_model(seed=2)
    before = torch.get_rng_state()
    mean_excess_losses(model, reference, {"a": batches(0)})
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_text_that_the_reference_cannot_read_is_refused():
    with pytest.raises(ValueError, match="`reference_model` must know the tokens"):
        mean_excess_losses(make_model(), _small_vocabulary(), {"a": batches(3)})


class _Narrow(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        output = self.model(**inputs)
        output.logits = output.logits[..., :20]
        return output


def _small_vocabulary():
    return _Narrow(make_model())


def test_text_without_a_loss_token_is_refused():
    with pytest.raises(ValueError, match="'a' has no loss token in its 3 batches"):
        mean_excess_losses(make_model(), make_model(), {"a": batches(0, ignored=11)})


def test_a_mixer_that_needs_a_reference_model_is_refused_without_one():
    with pytest.raises(ValueError, match=r"`reference_model` must be a trained model"):
        TikMixCallback(make_dataset(), targets=make_targets(), mixer="doremi")


def test_doremi_reads_both_models_at_each_update_and_says_what_it_cost(tmp_path):
    dataset, reference = make_dataset(num_samples=96), make_model(seed=3)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer="doremi", at_steps=(4, 8), num_rows=8,
        reference_model=reference, progress=False,
    )  # fmt: skip
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    tokens = 2 * 4 * 8 * 12 / 3  # two models, four domains, forward alone
    assert callback.plan.tokens_per_update == pytest.approx(tokens)
    assert [r.costs["excess_losses"]["tokens"] for r in callback.updates] == [tokens, tokens]
    assert all(record.from_sample for record in callback.updates)
