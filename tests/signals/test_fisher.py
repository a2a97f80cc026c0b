"""The Fisher matrix's factors against brute force, curvlinops and kronfluence."""

from types import SimpleNamespace

import pytest
import torch
from curvature import EXACT, ORACLES, Bigram, factors, fisher_of, trainable
from tiny_models import domains, gpt2, llama, rows, split
from torch import nn
from torch.testing import assert_close

from tikmix_hf.signals import gradients
from tikmix_hf.signals.preconditioners import _fisher


def assert_same_factors(one, other):
    one, other = factors(one), factors(other)
    assert list(one) == list(other)
    for name in one:
        assert_close(one[name], other[name], **EXACT, msg=lambda m, name=name: f"{name}: {m}")


def test_the_mean_over_draws_is_the_fisher_of_the_brute_force():
    model, batch = llama(), rows(5, 2, 5)
    del batch["attention_mask"]
    parameters = trainable(model)
    names = [name for name, own in model.named_parameters() if own.requires_grad]
    norm = names.index("model.layers.1.input_layernorm.weight")
    layer = model.model.layers[1].mlp.gate_proj
    seen = {}

    def look(module, inputs, output):
        seen["input"], seen["output"] = inputs[0], output
        output.retain_grad()

    handle = layer.register_forward_hook(look)
    exact = [0.0, 0.0, 0.0]
    counted = batch["labels"][:, 1:] != -100
    log_NV = model(**batch, use_cache=False).logits[:, :-1][counted].log_softmax(-1)
    reached = 0
    for row in log_NV:
        for one in row:
            of_output, of_embedding, of_norm = torch.autograd.grad(
                -one, [seen["output"], parameters[0], parameters[norm]], retain_graph=True
            )
            by_position = of_output.flatten(0, 1)
            reached = reached + (by_position != 0).any(-1)
            likely = one.exp().detach() / len(log_NV)
            exact[0] = exact[0] + likely * by_position.T @ by_position
            exact[1] = exact[1] + likely * of_embedding.square()
            exact[2] = exact[2] + likely * of_norm.square()
    handle.remove()
    inputs = seen["input"].detach().flatten(0, 1)[reached > 0]
    num_draws = 150
    draws = [fisher_of(model, [batch], seed=seed) for seed in range(num_draws)]
    for fisher in draws[:2]:
        assert_close(fisher.layers[layer].input_sum, inputs.T @ inputs / len(inputs), **EXACT)
    for expected, estimates in zip(
        exact,
        (
            torch.stack([fisher.layers[layer].output_sum for fisher in draws]),
            torch.stack([fisher.diagonals[0] for fisher in draws]),
            torch.stack([fisher.diagonals[norm] for fisher in draws]),
        ),
        strict=True,
    ):
        assert (estimates.mean(0) - expected).norm() < 0.15 * expected.norm()
        # The trace is known better: a mean of many elements.
        stride = len(expected) + 1 if expected is exact[0] else 1
        trace, traces = expected.flatten()[::stride].sum(), estimates.flatten(1)[:, ::stride].sum(1)
        stderr = traces.std() / num_draws**0.5
        assert stderr < 0.06 * trace
        assert (traces.mean() - trace).abs() < 2.5 * stderr


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_factors_are_those_of_curvlinops():
    pytest.importorskip("curvlinops", reason=ORACLES)
    from curvlinops import KFACLinearOperator  # its own imports warn

    model, batches = Bigram(repeats=1), split(rows(7, 6, 8), 3)
    for batch in batches:  # curvlinops counts every position, so every one has a loss
        batch["labels"] = batch["input_ids"].clone()
    num_draws = 300

    def classes_second(inputs):
        return model(inputs, use_cache=False).logits.transpose(1, 2)

    outer = nn.Module()
    outer.own, outer.forward = model, classes_second
    theirs = KFACLinearOperator(
        outer,
        nn.CrossEntropyLoss(),
        trainable(model),
        [(batch["input_ids"][:, :-1], batch["input_ids"][:, 1:]) for batch in batches],
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    theirs.compute_kronecker_factors()
    draws = [fisher_of(model, batches, seed=seed) for seed in range(num_draws)]
    for module, layer in draws[0].layers.items():
        assert_close(layer.input_sum, theirs._input_covariances[f"own.{layer.name}"], **EXACT)
        mean = torch.stack([fisher.layers[module].output_sum for fisher in draws]).mean(0)
        other = theirs._gradient_covariances[f"own.{layer.name}"]
        # Theirs is the exact expectation; ours a mean over 300 draws of 42 labels.
        assert (mean - other).norm() < 0.05 * other.norm()


def test_a_layer_used_twice_adds_up_what_both_uses_saw():
    model, batch = Bigram(repeats=2), rows(9, 3)
    fisher = fisher_of(model, [batch])
    layer = fisher.layers[model.mix]
    counted = torch.cat([batch["labels"][:, 1:] != -100, torch.zeros(3, 1, dtype=bool)], dim=1)
    first = model.embed(batch["input_ids"])[counted]
    second = model.mix(first).tanh()
    inputs = nn.functional.pad(torch.cat([first, second]), (0, 1), value=1.0)
    assert_close(layer.input_sum, (inputs.T @ inputs / len(inputs)).detach(), **EXACT)
    assert layer.num_positions == 2 * fisher.num_tokens


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_give_the_same_factors(reentrant):
    model, batches = gpt2(), domains()["books"]
    with gradients.undisturbed(model):
        plain = fisher_of(model, batches)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    with gradients.undisturbed(model):
        assert_same_factors(fisher_of(model, batches), plain)
        assert all(own.grad is None for own in model.parameters())


def test_only_the_parameters_asked_for_are_looked_at():
    model = llama(tied=False)
    model.model.layers[0].requires_grad_(False)
    asked = [model.lm_head.weight, model.model.norm.weight]
    fisher = _fisher.Fisher(model, asked, 99)
    assert [layer.name for layer in fisher.layers.values()] == ["lm_head"]
    assert list(fisher.diagonals) == [1]
    # Seven Linears in the one layer that is left, and the head.
    assert len(_fisher.Fisher(model, trainable(model), 99).layers) == 7 + 1
    tied = _fisher.Fisher(gpt2(), trainable(gpt2()), 99)
    assert all(layer.name != "lm_head" for layer in tied.layers.values())


@pytest.mark.filterwarnings("ignore:`torch.cuda.amp.GradScaler:FutureWarning")
def test_factors_on_the_same_draws_are_those_of_kronfluence():
    pytest.importorskip("kronfluence", reason=ORACLES)
    from kronfluence.analyzer import prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.factor.covariance import fit_covariance_matrices_with_loader
    from kronfluence.task import Task

    class ModelTask(Task):
        def compute_train_loss(self, batch, model, sample=False):
            counted = batch["labels"][:, 1:] != -100
            logits = model(batch["input_ids"], use_cache=False).logits[:, :-1][counted]
            labels = _fisher._drawn_labels(logits.detach(), (0, batch["number"]))
            return nn.functional.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            raise NotImplementedError

        def get_attention_mask(self, batch):  # their word for the positions that count
            return batch["reached"]

    model, batches = llama(tied=False), split(rows(7, 5, 8), 2)
    for number, batch in enumerate(batches):
        row = torch.arange(len(batch["labels"]))[:, None] + 2 * number
        counts = torch.arange(8) <= 7 - row % 4
        batch["labels"] = batch["input_ids"].where(counts, -100)
        # The position before the last label that counts is the last that the loss reaches.
        batch["reached"] = counts.roll(-1, dims=1).logical_and(torch.arange(8) < 7).long()
    ours = fisher_of(
        model, [{name: batch[name] for name in ("input_ids", "labels")} for batch in batches]
    )
    for number, batch in enumerate(batches):
        batch["number"] = number
    theirs = fit_covariance_matrices_with_loader(
        model=prepare_model(model, ModelTask()),
        state=SimpleNamespace(
            device=torch.device("cpu"),
            use_distributed=False,
            is_main_process=True,
            wait_for_everyone=lambda: None,
        ),
        task=ModelTask(),
        loader=batches,
        factor_args=FactorArguments(
            activation_covariance_dtype=torch.float64, gradient_covariance_dtype=torch.float64
        ),
        disable_tqdm=True,
    )[1]
    for layer in ours.layers.values():
        if layer.name.endswith("q_proj"):
            continue  # the first position has one key to look at, and no gradient: it is left out
        num_positions = theirs["num_activation_covariance_processed"][layer.name]
        inputs = theirs["activation_covariance"][layer.name] / num_positions
        assert_close(layer.input_sum, inputs, **EXACT)
        outputs = theirs["gradient_covariance"][layer.name] / ours.num_tokens
        assert_close(layer.output_sum, outputs, **EXACT)


def test_a_layer_whose_output_is_written_to_in_place_gives_the_same_factors():
    class Clamped(Bigram):
        """Clips what a Linear gives, in place, as OLMo does to its queries."""

        in_place = True

        def forward(self, **inputs):
            hook = _clamp_in_place if self.in_place else _clamp
            layers = [m for m in self.modules() if isinstance(m, nn.Linear)]
            handles = [layer.register_forward_hook(hook) for layer in layers]
            try:
                return super().forward(**inputs)
            finally:
                for handle in handles:
                    handle.remove()

    model = Clamped()
    in_place = fisher_of(model, domains()["books"])
    model.in_place = False
    assert_same_factors(in_place, fisher_of(model, domains()["books"]))


def _clamp_in_place(module, inputs, output):
    return output.clamp_(-0.1, 0.1)


def _clamp(module, inputs, output):
    return output.clamp(-0.1, 0.1)
