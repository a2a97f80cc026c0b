import random

import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, domains, gpt2, llama, rows, targets
from transformers import OPTConfig, OPTForCausalLM

from tikmix_hf.signals import GroupInfluence, gradients
from tikmix_hf.signals.selection import select_parameters

CHECKPOINTING = [None, {"use_reentrant": False}, {"use_reentrant": True}]


def flat(gradient):
    return torch.cat([one.flatten() for one in gradient])


def draws():
    """One number of every global generator that a model on the CPU can draw from."""
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def test_every_random_state_is_put_back():
    model = llama()
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    undisturbed_draws = [draws(), draws()]
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    first = draws()
    with gradients.undisturbed(model):
        draws()
    assert [first, draws()] == undisturbed_draws


def state_of(model):
    return (
        [(p.grad, p.requires_grad) for p in model.parameters()],
        [m.training for m in model.modules()],
        [vars(m).get("_gradient_checkpointing_func") for m in model.modules()],
    )


def assert_same_state(model, before):
    gradients_before, *rest_before = before
    gradients_after, *rest_after = state_of(model)
    assert rest_after == rest_before
    for (old, required), (new, requires) in zip(gradients_before, gradients_after, strict=True):
        assert new is old
        assert requires == required


@pytest.mark.parametrize("settings", CHECKPOINTING)
def test_gradients_flags_and_checkpoint_functions_are_put_back_even_after_an_exception(settings):
    model = gpt2(dropout=0.1).train()
    model.transformer.h[0].mlp.eval()  # a part the user keeps in evaluation mode
    model.transformer.wpe.requires_grad_(False)
    if settings:
        model.activation_checkpointing_enable(settings)
    model(**rows(0, 2)).loss.backward()
    before = state_of(model)
    GroupInfluence(model, preconditioner="sign").measure(domains(), targets())
    assert_same_state(model, before)
    torch_state = torch.get_rng_state()
    out_of_vocabulary = rows(0, 2)
    out_of_vocabulary["input_ids"][1, 1] = VOCABULARY
    with pytest.raises(IndexError):
        GroupInfluence(model, preconditioner="sign").measure(
            {"web": [rows(0, 2), out_of_vocabulary]}, targets()
        )
    assert_same_state(model, before)
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("settings", CHECKPOINTING)
@pytest.mark.parametrize("training", [True, False])
def test_gradient_checkpointing_stays_on(settings, training):
    model = gpt2(dropout=0.3).train(training)
    if settings:
        model.activation_checkpointing_enable(settings)
    forwards = []
    model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: forwards.append(1))
    GroupInfluence(model, preconditioner="sign").measure(
        {"web": [rows(0, 2)]}, {"arc": [rows(1, 2)]}
    )
    # Two batches; checkpointing computes every layer once more on the way back.
    assert len(forwards) == (4 if settings else 2)


@pytest.mark.parametrize("settings", CHECKPOINTING)
def test_the_gradient_is_the_same_with_and_without_checkpointing(settings):
    plain = gpt2().eval()
    parameters = select_parameters(plain)
    loss_sum = plain(**rows(0, 3)).loss * gradients.num_loss_tokens(rows(0, 3))
    expected = flat(torch.autograd.grad(loss_sum, parameters))
    model = gpt2(dropout=0.5).train()
    if settings:
        model.activation_checkpointing_enable(settings)
    with gradients.undisturbed(model):
        measured = gradients.batch_gradient(model, select_parameters(model), rows(0, 3))
        assert all(parameter.grad is None for parameter in model.parameters())
    assert measured.loss_sum.item() == loss_sum.item()
    # Recomputation repeats the same kernels; accumulation of the tied weight may differ in order.
    torch.testing.assert_close(flat(measured.gradient), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("settings", CHECKPOINTING[1:])
def test_dropout_that_a_checkpointed_layer_draws_in_its_own_forward_is_off(settings):
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        dropout=0.5,
    )
    model = OPTForCausalLM(config)
    parameters = select_parameters(model)
    with gradients.undisturbed(model):
        expected = gradients.batch_gradient(model, parameters, rows(0, 2))
    model.train()
    model.activation_checkpointing_enable(settings)
    with gradients.undisturbed(model):
        measured = gradients.batch_gradient(model, parameters, rows(0, 2))
    assert measured.loss_sum.item() == expected.loss_sum.item()
    torch.testing.assert_close(flat(measured.gradient), flat(expected.gradient))


@pytest.mark.parametrize("settings", CHECKPOINTING)
def test_training_after_a_measurement_is_bit_identical_to_training_without(settings):
    def train(measured):
        model = gpt2(torch.float32, dropout=0.2).train()
        if settings:
            model.activation_checkpointing_enable(settings)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(7)
        for step in range(4):
            for micro in range(2):
                model(**rows(10 * step + micro, 2)).loss.backward()
                if measured and step == 2:  # in the middle of accumulation, too
                    for name in ("adam", "sign"):
                        GroupInfluence(model, preconditioner=name, optimizer=optimizer).measure(
                            domains(), targets()
                        )
            optimizer.step()
            optimizer.zero_grad()
        return model.state_dict()

    without, with_measurement = train(False), train(True)
    assert without.keys() == with_measurement.keys()
    assert all(torch.equal(without[name], with_measurement[name]) for name in without)


def test_measuring_works_where_the_caller_switched_gradients_off():
    with torch.no_grad():
        matrix = GroupInfluence(llama(), preconditioner="sign").measure(domains(), targets())
    np.testing.assert_array_equal(
        matrix.values,
        GroupInfluence(llama(), preconditioner="sign").measure(domains(), targets()).values,
    )


def test_tied_weights_are_one_parameter():
    model = llama(tied=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = [id(parameter) for parameter in select_parameters(model)]
    assert ids.count(id(model.lm_head.weight)) == 1
    untied = select_parameters(llama(tied=False))
    assert len(untied) == len(ids) + 1


def test_loss_tokens_leave_out_the_first_label_and_masked_ones():
    batch = {
        "input_ids": torch.ones(2, 4),
        "labels": torch.tensor([[5, 6, -100, 7], [-100, 1, 1, 1]]),
    }
    assert gradients.num_loss_tokens(batch) == 2 + 3


def test_narrow_gradients_accumulate_in_float32():
    parameters = [torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))]
    sums = gradients.accumulator(parameters)
    for value in [1.0] + [2.0**-9] * 512:  # each of them vanishes beside 1 in bfloat16
        gradients.add_(sums, [torch.full((2,), value, dtype=torch.bfloat16)])
    gradients.add_(sums, [None])
    assert sums[0].tolist() == [2.0, 2.0]
    wide = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))]
    assert gradients.accumulator(wide)[0].dtype == torch.float64
