"""What the shared tests try: every available mixer, and settings that make another of it."""

from __future__ import annotations

import pytest

from tikmix_hf import mixers

# A surrogate of few mixtures takes milliseconds; whether it is any good is another test's.
SMALL = {"tikmix_m": {"num_mixtures": 40, "num_folds": 2}}
# The defaults of all, and settings that make another method of one.
VARIANTS = [
    *((name, SMALL.get(name, {})) for name in mixers.available()),
    ("aioli", {"ema": 0.1, "eta": 2.0}),  # steps that do not add up need to be larger
    ("doge", {"mode": "average", "smoothing": 0.01}),
    ("doremi", {"mode": "average"}),
    ("odm", {"rule": "exp3", "reward_scale": 10.0}),
    ("odm", {"importance": False}),
    ("schedule", {"segments": ((0, {"near": 1.0}), (800, {"useful": 0.5, "aside": 0.5}))}),
    ("tikmix_m", {"score": "lookahead", **SMALL["tikmix_m"]}),
]
every_variant = pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)
