"""What tests of curvature share: a fitting, its Fisher matrix, a model without attention."""

from types import SimpleNamespace

import torch
from tiny_models import VOCABULARY, domains
from torch import nn

from tikmix_hf.signals.preconditioners import Fitting, _fisher

EXACT = {"rtol": 1e-9, "atol": 1e-13}
ORACLES = "not installed: pip install --no-deps --requirement tests/oracles.txt"


def trainable(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def fitting(model, batches=None, parameters=None, *, optimizer=None, **settings):
    return Fitting(
        model=model,
        parameters=trainable(model) if parameters is None else parameters,
        optimizer=optimizer,
        batches=domains() if batches is None else batches,
        **settings,
    )


def fisher_of(model, batches, parameters=None, *, seed=0, max_side=99):
    """The reduced sums over all the batches."""
    fisher = _fisher.Fisher(model, parameters or trainable(model), max_side)
    for number, batch in enumerate(batches):
        fisher.add(batch, (seed, number))
    fisher.reduce_()
    return fisher


def factors(fisher):
    return {layer.name: (layer.input_sum, layer.output_sum) for layer in fisher.layers.values()} | {
        place: (diagonal,) for place, diagonal in fisher.diagonals.items()
    }


class Bigram(nn.Module):
    """Logits from the current token alone: W e(token) + b, with a layer used `repeats` times."""

    def __init__(self, repeats=0, width=5):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(VOCABULARY, width, dtype=torch.float64).requires_grad_(False)
        self.mix = nn.Linear(width, width, dtype=torch.float64)
        self.head = nn.Linear(width, VOCABULARY, dtype=torch.float64)
        self.repeats = repeats
        self.mix.requires_grad_(repeats > 0)

    def forward(self, input_ids, use_cache, attention_mask=None):
        hidden = self.embed(input_ids)
        for _ in range(self.repeats):
            hidden = self.mix(hidden).tanh()
        return SimpleNamespace(logits=self.head(hidden))
