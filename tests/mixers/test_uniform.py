"""The uniform mixture is the same share for everybody."""

from __future__ import annotations

import numpy as np

from tikmix_hf import Constraints, mixers
from tikmix_hf.mixers import Signals


def test_every_domain_has_one_share_of_k():
    prior = np.array([0.7, 0.3, 0.0])
    mixer = mixers.load("uniform")()
    signals = Signals(step=0, domains=("web", "code", "books"), targets=(), mixture=prior)
    mixture, _ = mixer.step(mixer.init(prior), signals)
    np.testing.assert_allclose(mixture, [1 / 3, 1 / 3, 1 / 3], rtol=1e-15)


def test_a_cap_leaves_the_others_equal():
    mixer = mixers.load("uniform")(constraints=Constraints(caps={"web": 0.2}))
    prior = np.full(3, 1 / 3)
    signals = Signals(step=0, domains=("web", "code", "books"), targets=(), mixture=prior)
    mixture, _ = mixer.step(mixer.init(prior), signals)
    np.testing.assert_allclose(mixture, [0.2, 0.4, 0.4], rtol=1e-12)
