"""The methods that a recipe names, with the settings and constraints it gives them."""

from __future__ import annotations

import pytest

from tikmix_hf import Constraints, recipe_methods
from tikmix_hf.recipe import MixtureArguments


def test_a_recipes_constraints_bind_its_mixer_and_every_other_that_is_asked():
    caps = {"caps": {"code": 0.3}, "groups": {"prose": {"domains": ["web"], "at_most": 0.5}}}
    arguments = MixtureArguments(mixer_settings={"gamma": 0.5}, constraints=caps)
    mixer = recipe_methods.mixer(arguments)
    assert mixer.gamma == 0.5
    assert mixer.constraints == Constraints(**caps)
    other = recipe_methods.mixer(arguments, "odm")
    assert other.constraints == mixer.constraints  # but not the settings, which it would not know
    assert recipe_methods.mixer(MixtureArguments()).constraints is None


def test_constraints_may_stand_among_the_mixers_settings_but_not_twice():
    inside = {"constraints": {"floors": {"web": 0.2}}}
    mixer = recipe_methods.mixer(MixtureArguments(mixer_settings=inside))
    assert mixer.constraints == Constraints(floors={"web": 0.2})
    with pytest.raises(ValueError, match="`constraints` must be given once"):
        recipe_methods.mixer(
            MixtureArguments(mixer_settings=inside, constraints={"caps": {"web": 0.5}})
        )


def test_an_unknown_constraint_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"`constraints` must be settings of Constraints .*capz"):
        recipe_methods.mixer(MixtureArguments(constraints={"capz": {"web": 0.5}}))
