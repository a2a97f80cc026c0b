"""Training loss by domain, against the losses of the rows themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import make_arguments, make_dataset, make_model, make_targets, make_trainer
from transformers import TrainerCallback

from tikmix_hf import TikMixCallback
from tikmix_hf.mixers.base import About, Mixer, MixerError, State
from tikmix_hf.signals import train_losses
from tikmix_hf.signals.train_losses import TrainLossMeter, row_losses


class Listening(Mixer):
    """Keeps what it was told, and moves nothing."""

    about = About("", "", "")
    requires = frozenset({"train_losses"})
    heard: list = []  # noqa: RUF012 - shared on purpose: a mixer has no other way to tell

    def init(self, prior):
        self.heard.clear()
        return State()

    def propose(self, state, signals):
        self.heard.append(signals)
        return signals.mixture, state


class _ByHand(TrainerCallback):
    """The loss of every row of a step, from the parameters that the step started with."""

    def __init__(self, dataset, rows_per_step):
        self.dataset, self.rows_per_step, self.steps = dataset, rows_per_step, []

    def on_step_begin(self, args, state, control, **kwargs):
        model, first = kwargs["model"], state.global_step * self.rows_per_step
        losses = {name: [] for name in self.dataset.domains.names}
        for k in range(first, first + self.rows_per_step):
            ids = self.dataset[k]["input_ids"][None]
            with torch.no_grad():  # no dropout in this model, so training mode does not matter
                model.eval()
                losses[self.dataset.domain_of(k)].append(float(model(ids, labels=ids).loss))
                model.train()
        self.steps.append([np.mean(own) if own else np.nan for own in losses.values()])


def train(tmp_path, *, at_steps=(3, 8), accumulation=1, **options):
    rows_per_step = 4 * accumulation
    dataset = make_dataset(
        num_samples=12 * rows_per_step, mixture={"d0": 0.6, "d1": 0.3, "d2": 0.1}
    )
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=Listening(), at_steps=at_steps, progress=False
    )
    by_hand = _ByHand(dataset, rows_per_step)
    arguments = make_arguments(tmp_path, gradient_accumulation_steps=accumulation, **options)
    make_trainer(dataset, callback, arguments, extra=[by_hand]).train()
    return callback, by_hand.steps


@pytest.mark.parametrize("accumulation", [1, 3])
def test_each_step_tells_each_domains_mean_loss_before_the_step(tmp_path, accumulation):
    callback, steps = train(tmp_path, accumulation=accumulation)
    first, second = Listening.heard
    # A row has 12 tokens, 11 of them predicted, so a mean over rows is a mean over tokens.
    np.testing.assert_allclose(first.train_losses, steps[:3], rtol=1e-5)
    np.testing.assert_allclose(second.train_losses, steps[3:8], rtol=1e-5)
    assert np.isnan(first.train_losses).all(axis=0).tolist() == [False, False, False, True]
    assert first.train_tokens.sum() == 3 * 4 * accumulation * 11
    assert callback.updates[0].costs["train_losses"]["tokens"] == 0
    assert callback.plan.tokens_per_update == 0


def test_measuring_and_evaluating_are_not_training(tmp_path):
    dataset, heard = make_dataset(num_samples=48), []
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=Listening(), at_steps=(4, 8), observe=True,
        num_rows=8, progress=False,
    )  # fmt: skip
    arguments = make_arguments(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer = make_trainer(dataset, callback, arguments, eval_dataset=make_targets()["near0"])
    trainer.train()
    heard = [signals.train_tokens.sum() for signals in Listening.heard]
    assert heard == [4 * 4 * 11] * 2
    assert not trainer.model._forward_hooks


def test_listening_leaves_no_trace(tmp_path):
    def trained(mixer):
        dataset, model = make_dataset(num_samples=48), make_model(dropout=0.1)
        callback = TikMixCallback(dataset, targets=make_targets(), mixer=mixer, at_steps=(4,))
        callback.progress = False
        make_trainer(dataset, callback, make_arguments(tmp_path), model).train()
        return [parameter.detach().clone() for parameter in model.parameters()]

    for listened, plain in zip(trained(Listening()), trained("static"), strict=True):
        assert torch.equal(listened, plain)


@pytest.mark.parametrize(
    "options", [{"label_smoothing_factor": 0.1}], ids=["labels kept from the model"]
)
def test_a_model_that_is_given_no_labels_is_refused_with_the_mend(tmp_path, options):
    with pytest.raises(ValueError, match="Switch off label_smoothing_factor"):
        train(tmp_path, **options)


def test_rows_that_are_not_those_of_the_step_are_refused():
    meter, model = TrainLossMeter(2), make_model()
    meter.attach(model)
    ids = torch.arange(24).view(2, 12)
    model.train()(ids, labels=ids)
    with pytest.raises(ValueError, match=r"\[3\] rows; heard \[2\]"):
        meter.end_step([np.array([0, 1, 1])])


def test_rows_are_summed_over_their_loss_tokens_alone():
    torch.manual_seed(0)
    logits_BTV, labels_BT = torch.randn(2, 4, 5), torch.tensor([[1, 2, -100, 3], [0, 4, 4, -100]])
    losses_B, tokens_B = row_losses(logits_BTV, labels_BT)
    logs = logits_BTV.log_softmax(-1)
    by_hand = [-logs[0, 0, 2] - logs[0, 2, 3], -logs[1, 0, 4] - logs[1, 1, 4]]
    assert losses_B.tolist() == pytest.approx([float(loss) for loss in by_hand])
    assert tokens_B.tolist() == [2, 2]


def test_long_intervals_are_told_in_stretches_and_a_checkpoint_keeps_them(monkeypatch):
    monkeypatch.setattr(train_losses, "MOST_STRETCHES", 4)
    model, whole, first = make_model(), TrainLossMeter(2), TrainLossMeter(2)
    ids = torch.arange(48).view(4, 12)
    resumed = TrainLossMeter(2)
    for step in range(11):
        meters = [whole, first if step < 6 else resumed]
        if step == 6:
            resumed.resume(json.loads(json.dumps(first.state())))
        for meter in meters:
            meter.attach(model)
            model.train()(ids, labels=ids)
            meter.end_step([np.array([step % 2] * 4)])
            meter.detach()
    told = whole.read()
    # 4 stretches of 1, of 2, then of 4 steps: 4 + 4 + 3.
    assert (told.tokens.sum(axis=1) / (4 * 11)).tolist() == [4, 4, 3]
    assert told.steps.tolist() == [4, 4, 3]
    again = resumed.read()
    np.testing.assert_array_equal(told.means, again.means)
    np.testing.assert_array_equal(told.tokens, again.tokens)
    whole.clear()
    assert not whole.has_heard


class _Hesitant(Listening):
    """Cannot answer the first time."""

    def propose(self, state, signals):
        super().propose(state, signals)
        if len(self.heard) == 1:
            raise MixerError("not yet")
        return signals.mixture, state


def test_what_a_failed_update_has_heard_is_told_again_at_the_next(tmp_path):
    dataset = make_dataset(num_samples=48)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=_Hesitant(), at_steps=(3, 8, 10), progress=False
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    first, second, third = Listening.heard
    assert [len(signals.train_losses) for signals in (first, second, third)] == [3, 8, 2]
    np.testing.assert_array_equal(second.train_losses[:3], first.train_losses)
    assert "update failed: not yet" in callback.updates[0].notes
