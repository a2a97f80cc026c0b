"""The natural mixture is the supply's, and nobody else's."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals
from tikmix_hf.mixture import Supply


def test_it_is_the_supplys_prior_whatever_training_started_with():
    natural = np.array([0.9, 0.1])
    supply = Supply(natural, np.array([90.0, 10.0]), np.zeros(2), 50.0, np.ones(2))
    mixer = mixers.load("natural")()
    started_with = np.array([0.5, 0.5])
    names = {"step": 0, "domains": ("web", "code"), "targets": (), "mixture": started_with}
    mixture, _ = mixer.step(mixer.init(started_with), Signals(**names, supply=supply))
    np.testing.assert_array_equal(mixture, natural)
    with pytest.raises(MixerError, match="`supply` is not known"):
        mixer.step(mixer.init(started_with), Signals(**names))
