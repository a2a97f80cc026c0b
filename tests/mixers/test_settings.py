"""Settings of every mixer: of the kinds that they declare, in Python's own numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from variants import every_variant

from tikmix_hf import mixers

WRONG = {
    "int": [2.5, 2.0, True, "2", np.array([2])],
    "float": ["x", math.nan, np.float32("nan"), True, 1j],
    "bool": ["no", 1, None],
    "tuple[float, float]": [0.5, (0.5,), (0.5, "x"), (math.nan, 2.0)],
    "Constraints": [{"floors": {"near": 0.1}}, 0.1],
}
NUMPY = {
    "int": np.int32,
    "float": np.float32,
    "bool": np.bool_,
    "tuple[float, float]": np.float32,
}


def settings_of(mixer):
    """Name, kind and value of every setting of a kind that is checked; kinds without "| None"."""
    for field in dataclasses.fields(mixer):
        kind = str(field.type).partition(" | ")[0]
        if kind in WRONG:
            yield field.name, kind, getattr(mixer, field.name)


@every_variant
def test_a_setting_of_another_kind_is_refused(name, settings):
    for setting, kind, _ in settings_of(mixers.load(name)(**settings)):
        for wrong in WRONG[kind]:
            with pytest.raises(ValueError, match=f"`{setting}` must be "):
                mixers.load(name)(**{**settings, setting: wrong})


@every_variant
def test_numpy_scalars_are_taken_for_numbers(name, settings):
    """0.5, 2 and the like, of every default that is a number."""
    kept = mixers.load(name)(**settings)
    scalars = {}
    for setting, kind, value in settings_of(kept):
        if value is not None and kind in NUMPY:
            pair = kind.startswith("tuple")
            scalars[setting] = [*map(NUMPY[kind], value)] if pair else NUMPY[kind](value)
    taken = mixers.load(name)(**{**settings, **scalars})
    for setting in scalars:
        found, value = getattr(taken, setting), getattr(kept, setting)
        assert type(found) is type(value)
        assert found == pytest.approx(value, rel=1e-6)
    assert set(json.loads(json.dumps(taken.describe()))) == set(kept.describe())


def test_every_kind_of_setting_is_tried():
    tried = {kind for name in mixers.available() for _, kind, _ in settings_of(mixers.load(name)())}
    assert tried == set(WRONG)
    counts = {"steps_per_point", "lp_rounds", "lp_steps", "top_k", "num_mixtures", "num_pieces"}
    counts |= {"num_folds", "num_search_rounds", "num_draws", "num_outliers", "seed"}
    counts |= {"least_points", "domain_interval", "task_interval"}
    assert counts == {
        setting
        for name in mixers.available()
        for setting, kind, _ in settings_of(mixers.load(name)())
        if kind == "int"
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OfOthers(mixers.load("static")):
    """A method whose annotations are objects, as without `from __future__ import annotations`."""

    rest: list[int] = dataclasses.field(default_factory=list)
    limit: Any = None


def test_a_method_of_others_is_checked_as_well_whatever_else_it_declares():
    kinds = {"count": int, "rate": float | None}
    defaults = [(name, kind, dataclasses.field(default=1)) for name, kind in kinds.items()]
    made = dataclasses.make_dataclass("Made", defaults, bases=(OfOthers,), frozen=True)
    assert made(rest=["x"], rate=None).rest == ["x"]
    with pytest.raises(ValueError, match=r"`count` must be a whole number; got 1\.5"):
        made(count=1.5)
    with pytest.raises(ValueError, match="`rate` must be a number; got 'x'"):
        made(rate="x")
    with pytest.raises(ValueError, match="`rate` must be a number; got nan"):
        made(rate=math.nan)
