"""What an arena compares, and how: the keys of its YAML file.

In: a file such as `eval/arena_small.yaml`. Out: an `Arena`; an unknown key, or a name that nothing
else defines, is an error that says what was probably meant. Whatever decides a run's outcome is in
`Arena.settings_of`, which every run's record keeps.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MIXTURES = ("uniform", "natural", "best_single", "regmix", "final", "shuffled")
"""What an entry's `mixture` may be; the last two are made of the finished run of another entry."""
NEED_PROXIES = ("best_single", "regmix")
NEED_A_RUN = ("final", "shuffled")
ROWS = ("all", "even", "odd")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """Documents of one benchmark file."""

    path: str
    """Below the data folder; the folder's name says what the rows are (`arena_text.FORMATS`)."""
    rows: str = "all"
    """`even` and `odd` are two halves without a common passage; "all" takes both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What mixers lower the loss of, and what they are judged by."""

    measured: tuple[TextFile, ...]
    """Read by mixers."""
    judged: tuple[TextFile, ...]
    """Read by nobody before a run is judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One way of choosing the mixture."""

    mixture: str = "uniform"
    """Of the first step: one of MIXTURES."""
    mixer: str = "static"
    """One of `tikmix_hf.mixers.available()`."""
    mixer_settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the mixer; its defaults otherwise."""
    callback: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of TikMixCallback that go before `Arena.callback`."""
    of: str | None = None
    """Entry whose finished run `final` and `shuffled` are made of."""
    reference: str | None = None
    """Entry whose trained model is the mixer's reference model, and is counted as its cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Regime:
    """Under which circumstances entries meet."""

    steps: int
    """Optimizer steps of a run."""
    entries: tuple[str, ...]
    """Names of those that take part."""
    learning_rate: float | None = None
    """Of AdamW, after the warm-up; None takes that of `Arena.training`."""
    domain_tokens: int | None = None
    """Tokens that each domain is cut to, so that rows repeat; None keeps them all."""
    start_domains: tuple[str, ...] = ()
    """Domains of the checkpoint that runs start from; none: they start from scratch."""
    start_steps: int = 0
    """Steps that this checkpoint was trained for, on the domains' natural mixture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What all runs have in common."""

    batch_rows: int = 16
    """Packed rows of a step."""
    learning_rate: float = 2e-3
    """Of AdamW, after the warm-up."""
    warmup_steps: int = 25
    """After which the learning rate stays: a loss at a step then does not depend on how many more
    are to come, and tokens to reach a loss can be read off the curve."""
    weight_decay: float = 0.1
    """Of AdamW."""
    curve_steps: int = 25
    """Steps from one point of the loss curve to the next."""
    curve_rows: int = 24
    """Rows of each target that a point of the curve is judged by."""
    average_steps: int = 50
    """Last steps over which the weights are averaged that a run is judged by."""
    judged_rows: int = 256
    """Rows of each target that the finished run is judged by."""
    benchmark_items: int = 200
    """Questions of each benchmark that the finished run is asked."""
    device: str = "cpu"
    """"cpu", or "cuda": one GPU in bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxies:
    """The small runs that RegMix, and the choice of the best single domain, are made from."""

    num_mixtures: int = 64
    """Mixtures that RegMix trains on; the best single domain takes one more for each domain."""
    steps: int = 150
    """Optimizer steps of each."""
    in_one_job: int = 8
    """Proxies trained by one process, one after the other."""
    judged_rows: int = 64
    """Rows of each target's measured text that a proxy is scored by."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """LlamaConfig settings that differ from `Arena.model`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arena:
    """All of it."""

    data: str
    """Folder with `text/` and `benchmarks/`, relative to the project; "embedded" for the text that
    every installation carries, whose own targets then stand for every set of targets."""
    domains: tuple[str, ...]
    """Names of `text/<domain>.{train,heldout}.jsonl.gz`."""
    off_target: str | None
    """Domain that no target is like."""
    block_size: int = 128
    """Tokens of a packed row."""
    vocab_size: int = 2048
    """Of the byte-level BPE trained on the domains."""
    domain_characters: int = 4_000_000
    """Of a domain's training text, at the most; a tenth as many of what is held out."""
    model: Mapping[str, Any]
    """LlamaConfig settings."""
    training: Training
    """Common to all runs."""
    callback: Mapping[str, Any]
    """Arguments of TikMixCallback, common to all mixers."""
    targets: Mapping[str, Mapping[str, Target]]
    """Sets of targets by name, such as `dev` to tune on and `report` to report."""
    seeds: Mapping[str, tuple[int, ...]]
    """Seeds by set of targets."""
    benchmarks: Mapping[str, str]
    """Multiple-choice files by name, below the data folder."""
    entries: Mapping[str, Entry]
    """By name."""
    regimes: Mapping[str, Regime]
    """By name."""
    proxies: Proxies
    """Of every regime that has an entry in need of them."""

    def settings_of(self, regime: str, entry: str) -> dict[str, Any]:
        """Whatever decides the outcome of a run, as plain JSON types."""
        kept = ("data", "domains", "block_size", "vocab_size", "domain_characters", "model")
        common = {name: _plain(getattr(self, name)) for name in kept}
        regime_settings = _plain(self.regimes[regime])
        del regime_settings["entries"]
        return {
            **common,
            "training": _plain(self.training),
            "callback": {**self.callback, **self.entries[entry].callback},
            "regime": regime_settings,
            "entry": _plain(self.entries[entry]),
            "proxies": _plain(self.proxies)
            if self.entries[entry].mixture in NEED_PROXIES
            else None,
        }


def load(path: str | Path, data: str | None = None) -> Arena:
    """Reads an arena's file.

    Args:
        path: YAML.
        data: goes before the file's own `data`.

    Raises:
        ValueError: an unknown key or a name that is not defined; says which.
    """
    raw = yaml.safe_load(Path(path).read_text("utf-8"))
    if data is not None:
        raw["data"] = data
    raw["training"] = _build(Training, raw.get("training", {}), "training")
    raw["proxies"] = _build(Proxies, raw.get("proxies", {}), "proxies")
    raw["targets"] = {
        name: {target: _target(files, f"targets.{name}.{target}") for target, files in own.items()}
        for name, own in raw["targets"].items()
    }
    raw["entries"] = {
        name: _build(Entry, own or {}, f"entries.{name}") for name, own in raw["entries"].items()
    }
    raw["regimes"] = {
        name: _build(Regime, {"entries": list(raw["entries"]), **own}, f"regimes.{name}")
        for name, own in raw["regimes"].items()
    }
    raw["seeds"] = {name: tuple(seeds) for name, seeds in raw["seeds"].items()}
    arena = _build(Arena, raw, str(path))
    _check(arena)
    return arena


def _target(files: Mapping[str, Any], where: str) -> Target:
    sides = {
        side: tuple(_build(TextFile, file, f"{where}.{side}") for file in own)
        for side, own in files.items()
    }
    return _build(Target, sides, where)


def _build(cls: type[Any], settings: Mapping[str, Any], where: str) -> Any:
    """Makes a dataclass of a mapping; lists become tuples."""
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in settings:
        refuse_unknown(f"{where}", name, known)
    required = {name for name, f in known.items() if _is_required(f)}
    if missing := sorted(required - set(settings)):
        raise ValueError(f"`{where}` must have the keys {missing}; got {sorted(settings)}.")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def refuse_unknown(argument: str, name: str, known: Any) -> None:
    """Raises ValueError where `name` is not among `known`, with the nearest of them."""
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        mend = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(known)}."
        raise ValueError(f"`{argument}` has no {name!r}. {mend}")


def _check(arena: Arena) -> None:
    """Refuses names that nothing defines."""
    for name, entry in arena.entries.items():
        refuse_unknown(f"entries.{name}.mixture", entry.mixture, MIXTURES)
        if (entry.of is None) == (entry.mixture in NEED_A_RUN):
            raise ValueError(
                f"`entries.{name}.of` must name an entry if `mixture` is one of {NEED_A_RUN}, and "
                f"only then; got {entry.of!r} with mixture {entry.mixture!r}."
            )
        for key in ("of", "reference"):
            if (other := getattr(entry, key)) is not None:
                refuse_unknown(f"entries.{name}.{key}", other, arena.entries)
    for name, regime in arena.regimes.items():
        for entry in regime.entries:
            refuse_unknown(f"regimes.{name}.entries", entry, arena.entries)
        for domain in regime.start_domains:
            refuse_unknown(f"regimes.{name}.start_domains", domain, arena.domains)
    for name, targets in arena.targets.items():
        refuse_unknown("seeds", name, arena.seeds)
        for target, sides in targets.items():
            for file in (*sides.measured, *sides.judged):
                refuse_unknown(f"targets.{name}.{target}.rows", file.rows, ROWS)


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as dicts and lists, as they come back from JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
