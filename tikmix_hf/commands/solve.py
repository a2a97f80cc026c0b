"""`tikmix solve`: from influence that was measured before to the next mixture.

In: the parsed options, which name a matrix, the mixture in force, constraints and a mixer. Out:
tables, or JSON, with shares before and after, what the move promises each target and which
constraints bind; with `--output` a schedule that replays the mixture.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import tikmix_hf
from tikmix_hf import mixers
from tikmix_hf.commands import measured, screen, words
from tikmix_hf.commands.binding import Binding, binding
from tikmix_hf.commands.gains import Gains, gains
from tikmix_hf.commands.measured import Measured
from tikmix_hf.configuring import configure
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.mixture import Constraints, Supply, as_mixture, total_variation
from tikmix_hf.schedule import MixtureSchedule, Segment
from tikmix_hf.updates.decision import Decision, decide, with_gradients
from tikmix_hf.updates.noise_guard import check_noise_guard

# Shape letters: J targets, K domains.

Array = NDArray[np.float64]


class _Answer(NamedTuple):
    """What was asked, and what came out."""

    found: Measured
    mixer: Mixer[Any]
    current: Array
    """(K,) the mixture in force."""
    current_origin: str
    """Where it comes from, in words."""
    decision: Decision
    gains: Gains
    binding: tuple[Binding, ...]


def run(options: argparse.Namespace) -> None:
    """Solves, writes and prints.

    Raises:
        ValueError: a file or word that is wrong, names that do not bind, constraints that no
            mixture obeys, or a matrix that determines none.
        FileNotFoundError: a file is not there.
    """
    check_noise_guard(options.noise_guard)
    answer = _answer(options)
    if options.output is not None:
        _schedule(answer).save(options.output)
    if options.json:
        screen.document(_record(answer))
        return
    _show(answer)
    if options.output is not None:
        screen.say(f"Written to {options.output}: tikmix show {options.output}")


def _answer(options: argparse.Namespace) -> _Answer:
    found = measured.read(options.matrix)
    current_K, origin = _current(options.current, found)
    constraints = _constraints(options)
    mixer = _mixer(options, constraints)
    prior_K = current_K
    if options.prior is not None:
        prior_K = words.mixture("--prior", options.prior, found.domains)
    signals = _signals(found, current_K, _supply(constraints, prior_K))
    if constraints is not None:
        constraints.check(found.domains, in_force=current_K, supply=signals.supply)
    state = mixer.init(prior_K)
    decision = decide(mixer, state, signals, signals.rounds, num_errors=options.noise_guard)
    return _Answer(
        found=found,
        mixer=mixer,
        current=current_K,
        current_origin=origin,
        decision=decision,
        gains=gains(found.values, signals.rounds, current_K, decision.mixture),
        binding=binding(constraints, found.domains, decision.mixture, current_K, prior_K),
    )


def _current(given: Sequence[str] | None, found: Measured) -> tuple[Array, str]:
    """The mixture in force (K,), and where it comes from."""
    if given is not None:
        return words.mixture("--current", given, found.domains), "as given"
    if found.mixture is not None:
        shares_K = as_mixture(found.mixture, found.domains, argument="the mixture of MATRIX")
        return shares_K, "in force when it was measured"
    return words.mixture("--current", ["uniform"], found.domains), "uniform, for none was given"


def _constraints(options: argparse.Namespace) -> Constraints | None:
    """The file's, and those of the command line, which win domain by domain."""
    settings: dict[str, Any] = {}
    if options.constraints is not None:
        settings = words.settings_file("--constraints", options.constraints)
    if settings.get("max_epochs") is not None:
        raise ValueError(
            "`max_epochs` counts the run's tokens, which a matrix does not tell. Leave it out, or "
            "give caps (--cap)."
        )
    for name, option in (("floors", "floor"), ("caps", "cap")):
        if given := getattr(options, option):
            bounds = words.numbers_by_name(f"--{option}", given)
            of_file = settings.get(name) or {}
            if not isinstance(of_file, Mapping):
                raise ValueError(
                    f"`{name}` of --constraints must be shares by name; got {of_file!r}."
                )
            settings[name] = {**of_file, **bounds}
    if options.max_change is not None:
        settings["max_change"] = options.max_change
    return configure("--constraints", Constraints, settings) if settings else None


def _mixer(options: argparse.Namespace, constraints: Constraints | None) -> Mixer[Any]:
    method = mixers.load(options.mixer)
    settings = words.by_name("--mixer_settings", options.mixer_settings or [])
    if "constraints" in settings:
        raise ValueError("`--mixer_settings` must not have constraints; give --constraints FILE.")
    mixer = configure("--mixer_settings", method, {**settings, "constraints": constraints})
    missing = sorted(mixer.requires - {"influence"})
    if missing or not mixer.requires:
        needs = ", ".join(missing) or "none"
        raise ValueError(
            f"`--mixer` must need influence, and nothing else; {options.mixer} needs {needs}. "
            "See: tikmix mixers."
        )
    return mixer


def _supply(constraints: Constraints | None, prior_K: Array) -> Supply | None:
    """Tells the prior to `max_kl_prior`; what a matrix does not know of the run is NaN."""
    if constraints is None or constraints.max_kl_prior is None:
        return None
    unknown_K = np.full(len(prior_K), np.nan)
    return Supply(prior_K, unknown_K, unknown_K, np.nan, unknown_K)


def _signals(found: Measured, current_K: Array, supply: Supply | None) -> Signals:
    signals = Signals(
        step=0, domains=found.domains, targets=found.targets, mixture=current_K, supply=supply
    )
    if found.matrix is not None:
        return with_gradients(signals, found.matrix, "influence")
    return Signals(
        step=0,
        domains=found.domains,
        targets=found.targets,
        mixture=current_K,
        supply=supply,
        influence=found.values,
    )


def _schedule(answer: _Answer) -> MixtureSchedule:
    found, decision = answer.found, answer.decision
    update = {
        "mixer": answer.mixer.describe(),
        "notes": list(decision.notes),
        "influence": {
            "targets": list(found.targets),
            "domains": list(found.domains),
            "values": found.values.tolist(),
        },
    }
    segment = Segment(from_sample=0, mixture=decision.mixture, update=update)
    return MixtureSchedule(
        found.domains,
        (segment,),
        provenance={
            "written_by": f"tikmix_hf {tikmix_hf.__version__}",
            "command": "tikmix solve",
            "influence": Path(found.origin).name,  # where it lies is nobody else's business
        },
    )


def _record(answer: _Answer) -> dict[str, Any]:
    found, decision = answer.found, answer.decision

    def named(names: Sequence[str], values: Array) -> dict[str, float | None]:
        numbers = [None if np.isnan(value) else float(value) for value in values]
        return dict(zip(names, numbers, strict=True))

    return {
        "mixture": named(found.domains, decision.mixture),
        "before": named(found.domains, answer.current),
        "before_origin": answer.current_origin,
        "change": total_variation(answer.current, decision.mixture),
        "unguarded": named(found.domains, decision.proposal),
        "gain": named(found.targets, answer.gains.values),
        "gain_stderr": named(found.targets, answer.gains.stderr),
        "binding": [one._asdict() for one in answer.binding],
        "notes": list(decision.notes),
        "mixer": answer.mixer.describe(),
        "influence": found.origin,
    }


def _show(answer: _Answer) -> None:
    found, before_K, after_K = answer.found, answer.current, answer.decision.mixture
    most = float(max(before_K.max(), after_K.max()))
    rows = [
        (name, f"{q:.3f}", f"{w:.3f}", f"{w - q:+.3f}", screen.change_bar(q, w, most=most))
        for name, q, w in zip(found.domains, before_K.tolist(), after_K.tolist(), strict=True)
    ]
    moved = total_variation(before_K, after_K)
    title = (
        f"Mixture (share of tokens) on {found.origin}: {moved:.1%} of tokens move. Before: "
        f"{answer.current_origin}. Bars: █ kept, ▓ gained, ░ lost."
    )
    screen.table(title, ("domain", "before", "after", "change", "bar"), rows, left=("bar",))
    errors = ["" if np.isnan(error) else f"± {error:.3f}" for error in answer.gains.stderr.tolist()]
    screen.table(
        "Gain that it promises each target; 1 is the most that one domain alone would change.",
        ("target", "gain", "error"),
        [
            (name, f"{gain:+.3f}", error)
            for name, gain, error in zip(
                found.targets, answer.gains.values.tolist(), errors, strict=True
            )
        ],
    )
    bound = [one.sentence() for one in answer.binding]
    screen.say(f"Constraints that bind: {', '.join(bound) or 'none'}.")
    screen.say(*(f"Note: {note}" for note in answer.decision.notes))
