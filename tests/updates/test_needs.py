"""What is measured for a mixer, and what it costs."""

from __future__ import annotations

import pytest
from tiny import make_arguments, make_dataset, make_targets, make_trainer

from tikmix_hf import TikMixCallback, mixers
from tikmix_hf.mixers.base import About, Mixer, State
from tikmix_hf.updates.needs import Needs


class Asks(Mixer):
    about = About("", "", "")
    requires = frozenset()

    def init(self, prior):
        return State()

    def propose(self, state, signals):
        return signals.mixture, state


def asking(*names, **more):
    return type("Asks", (Asks,), {"requires": frozenset(names), **more})()


@pytest.mark.parametrize(
    ("names", "domain_passes", "target_passes"),
    [
        ((), 0, 0),
        (("train_losses",), 0, 0),
        (("excess_losses",), 2 / 3, 0),
        (("influence",), 1 + 0.5, 1 + 1 / 3),
        (("alignment",), 1 + 0.5, 1 + 1 / 3),
    ],
)
def test_a_signal_costs_the_passes_it_takes_and_nothing_else_is_measured(
    names, domain_passes, target_passes
):
    needs = Needs.of(asking(*names), 4, observe=False)
    assert needs.domain_passes(0.5, 4) == pytest.approx(domain_passes)
    assert needs.target_passes(4, audit=True) == pytest.approx(target_passes)


def test_probes_and_steps_ahead_read_the_targets_forward():
    probing = asking("probe_losses", probe_steps=lambda self, num_domains: (3,) * num_domains)
    needs = Needs.of(probing, 4, observe=False)
    assert needs.probe_steps == (3, 3, 3, 3)
    assert needs.target_passes(4, audit=True) == pytest.approx(5 / 3)
    ahead = Needs.of(asking("influence", "lookahead_losses", num_lookahead=30), 4, observe=False)
    # One round of four: the domains' gradients once more, the targets 30 times forward.
    assert ahead.domain_passes(0.0, 4) == pytest.approx(1 + 1 / 4)
    assert ahead.target_passes(4, audit=False) == pytest.approx(1 + 30 / 3 / 4)


def test_a_signal_that_nobody_measures_is_refused():
    with pytest.raises(ValueError, match="signals that nobody measures: horoscope"):
        TikMixCallback(make_dataset(), targets=make_targets(), mixer=asking("horoscope"))


def test_who_looks_ahead_must_require_influence():
    with pytest.raises(ValueError, match="must require influence to look ahead"):
        Needs.of(asking("lookahead_losses", num_lookahead=3), 4, observe=False)


def test_influence_and_alignment_are_two_measurements():
    with pytest.raises(ValueError, match="only one of influence and alignment"):
        Needs.of(asking("influence", "alignment"), 4, observe=False)


def test_alignment_is_of_plain_gradients(tmp_path):
    with pytest.raises(ValueError, match="`preconditioner` must be left out, or 'identity'"):
        TikMixCallback(make_dataset(), targets=make_targets(), mixer="doge", preconditioner="kfac")
    dataset = make_dataset()
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer="doge", at_steps=(8,), num_rows=8, progress=False
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    assert callback.influence.preconditioner == "identity"
    assert set(callback.updates[0].costs) == {"alignment", "mixer"}
    assert (callback.influence.gradient_norms > 0).all()


@pytest.mark.parametrize("name", mixers.available())
def test_every_mixer_that_there_is_asks_for_what_can_be_measured(name):
    Needs.of(mixers.load(name)(), 4, observe=False)
