"""`tikmix influence`: from options to measured matrices, proposals, files and tables.

In: the parsed options of `cli`. Out: the files of `proposals.save`, `influence.png`, for several
models `influence-1.json` and so on, and tables on the screen. Everything that can be wrong is
checked in the order of what it costs: words, files, configurations, text, weights.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from transformers.utils import logging as hf_logging

from tikmix_hf import distributed, plots, recipe, recipe_methods, sources
from tikmix_hf.commands import dry_run, influence_tables, pretrained, proposals, screen
from tikmix_hf.commands.dry_run import Reading
from tikmix_hf.commands.pretrained import Pretrained
from tikmix_hf.domains import Domains
from tikmix_hf.mixers import Mixer
from tikmix_hf.mixture import as_mixture
from tikmix_hf.recipe import MixtureArguments, Recipe
from tikmix_hf.schedule import MixtureSchedule
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.influence import GroupInfluence, InfluenceMatrix
from tikmix_hf.signals.preconditioners import Preconditioner
from tikmix_hf.signals.selection import check_selection
from tikmix_hf.updates.noise_guard import check_noise_guard

# Shape letters: J targets, K domains.

NUM_ROWS = 64
_RECIPE_OPTIONS = (
    *("mixture", "num_rows", "num_rounds", "seed", "preconditioner", "preconditioner_settings"),
    *("parameters", "offload", "noise_guard"),
)


class _Settings(NamedTuple):
    """What is known before any model is read."""

    recipe: Recipe
    mixture: Mapping[str, float] | str | MixtureSchedule
    preconditioner: Preconditioner
    mixers: dict[str, Mixer[Any]]
    reading: Reading
    folder: Path


def run(options: argparse.Namespace) -> None:
    """Measures, proposes, saves and prints; `first_checks.influence` went before.

    Raises:
        ValueError: whatever is wrong with options, recipe, text or models.
        OSError: a model is not there.
        FloatingPointError: as `GroupInfluence.measure`.
    """
    with _bars(not options.quiet):
        _run(options, _settings(options), _device(options.device))


def _run(options: argparse.Namespace, settings: _Settings, device: torch.device) -> None:
    models = [pretrained.describe(name) for name in options.model]
    for model in models:
        _check_optimizer(model, settings.preconditioner)
    data = _read_text(settings.recipe, models)
    mixture_K = _mixture(settings.mixture, data.domains)
    matrices = [_measure(model, options, settings, data, device=device) for model in models]
    if distributed.rank() > 0:
        return
    matrix = dry_run.aggregate(matrices, options.weights, mixture_K)
    chosen = proposals.propose(
        matrix, mixture_K, settings.mixers, num_errors=settings.recipe.mixture.noise_guard
    )
    about = {
        "models": options.model,
        "weights": options.weights,
        "steps": [model.step for model in models],
        "preconditioner": matrix.preconditioner,
        "num_tokens": matrix.num_tokens,
    }
    proposals.save(settings.folder, matrix, mixture_K, chosen, about)
    if len(matrices) > 1:
        for number, each in enumerate(matrices, 1):
            each.save(settings.folder / f"influence-{number}.json")
    hint = _draw(settings.folder, models, matrices, mixture_K)
    if options.json:
        screen.document(json.loads((settings.folder / proposals.FILE).read_text("utf-8")))
        return
    if not options.quiet:
        influence_tables.show(matrix, mixture_K, chosen, len(models))
    screen.say(f"Everything is in {settings.folder}/{hint}")


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Silences the bars of the libraries for as long as they are not wanted."""
    were = hf_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    if not shown:
        hf_logging.disable_progress_bar()
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown and were[0]:
            hf_logging.enable_progress_bar()
        if not shown and were[1]:
            datasets.enable_progress_bars()


def _settings(options: argparse.Namespace) -> _Settings:
    """Everything that words and small files decide."""
    given = {name: getattr(options, name) for name in _RECIPE_OPTIONS}
    for name in ("mixture", "preconditioner_settings"):
        if (given[name] or "").startswith("{"):
            given[name] = recipe.parse_json(name, given[name])
    read = recipe.load(options.config, **given)
    arguments = read.mixture
    check_noise_guard(arguments.noise_guard)
    check_selection(arguments.parameters)
    if options.dtype not in pretrained.DTYPES:
        raise ValueError(f"`--dtype` must be one of {pretrained.DTYPES}; got {options.dtype!r}.")
    for name in options.model:
        pretrained.locate(name)
    mixture = sources.read_mixture(arguments.mixture, revision=arguments.mixture_revision)
    _check_mixture(mixture, read.data.domains)
    return _Settings(
        recipe=read,
        mixture=mixture,
        preconditioner=preconditioners.choose(
            recipe_methods.preconditioner(arguments), sharded=False
        ),
        mixers=_mixers(options.mixers, arguments),
        reading=Reading(
            num_rows=NUM_ROWS if arguments.num_rows is None else arguments.num_rows,
            num_rounds=arguments.num_rounds,
            batch_size=read.batch_size if options.batch_size is None else options.batch_size,
            seed=read.seed,
            progress=not options.quiet,
        ),
        folder=Path(options.output),
    )


def _check_mixture(
    mixture: Mapping[str, float] | str | MixtureSchedule, domains: Mapping[str, Any] | str | None
) -> None:
    """Refuses a mixture of other domains, where their names are known before their text is."""
    if not isinstance(domains, Mapping) or isinstance(mixture, str):
        return
    if isinstance(mixture, MixtureSchedule):
        mixture.for_domains(tuple(domains))
    else:
        as_mixture(mixture, tuple(domains))


def _mixers(names: Sequence[str] | None, arguments: MixtureArguments) -> dict[str, Mixer[Any]]:
    """The mixers to ask; the recipe's settings are its own mixer's."""
    methods = {}
    for name in names or proposals.default_mixers():
        mixer = recipe_methods.mixer(arguments, name)
        if missing := sorted(mixer.requires - {"influence"}):
            raise ValueError(
                f"`--mixers` must need influence alone, which is what is measured here; {name} "
                f"needs {', '.join(missing)}."
            )
        methods[name] = mixer
    return methods


def _device(name: str) -> torch.device:
    """The device of this process; under a launcher, the one that is this rank's."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        state = PartialState(cpu=name == "cpu")
        assert state.device is not None  # it was just set
        return state.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise ValueError(f"`--device` must be cpu, cuda, cuda:1 or auto; got {name!r}.") from err
    num_devices = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= num_devices:
        raise ValueError(
            f"`--device` must be there; got {name!r}, and the number of CUDA devices is "
            f"{num_devices}."
        )
    return device


def _check_optimizer(model: Pretrained, preconditioner: Preconditioner) -> None:
    """Refuses a preconditioner that cannot do without the optimizer that a model came without."""
    if pretrained.optimizer_file(model) is not None:
        return
    try:
        preconditioner.check(sharded=False, optimizer=None)
    except ValueError as err:
        raise ValueError(
            f"`--preconditioner {preconditioner.name}` reads the state of the optimizer, which a "
            "dry run has only where `--model` is a checkpoint of the Trainer, with its "
            f"optimizer.pt; {model.name} has none. Use --preconditioner sign, which reads none."
        ) from err


def _read_text(read: Recipe, models: Sequence[Pretrained]) -> sources.Sources:
    """Tokenises with the first model's tokenizer; every model must fit the text."""
    own = [pretrained.load_tokenizer(model) for model in models]
    tokenizer = own[0]
    if "embedded" in (read.data.domains, read.data.targets):
        tokenizer = None
        for model, brought in zip(models, own, strict=True):
            pretrained.check_size(model, brought, read.data.vocab_size)
    elif tokenizer is None and read.model.tokenizer_name_or_path is not None:
        tokenizer = pretrained.load_named_tokenizer(read.model.tokenizer_name_or_path)
    elif tokenizer is None:
        raise ValueError(
            f"{models[0].name} has no tokenizer; save it beside the model, or set "
            "`tokenizer_name_or_path` in the recipe."
        )
    if tokenizer is not None:
        _check_models(models, own, tokenizer, read.data.block_size)
    data = sources.load(read.data, tokenizer, read.seed)
    _check_models(models, own, data.tokenizer, read.data.block_size)
    return data


def _check_models(
    models: Sequence[Pretrained], own: Sequence[Any], used: Any, block_size: int
) -> None:
    for model, tokenizer in zip(models, own, strict=True):
        pretrained.check_fits(model, tokenizer, used, block_size=block_size)


def _mixture(
    mixture: Mapping[str, float] | str | MixtureSchedule, domains: Domains
) -> NDArray[np.float64]:
    """(K,) the mixture in force; of a schedule, its last."""
    if isinstance(mixture, MixtureSchedule):
        return mixture.for_domains(domains.names).segments[-1].mixture
    return domains.resolve(mixture)


def _measure(
    model: Pretrained,
    options: argparse.Namespace,
    settings: _Settings,
    data: sources.Sources,
    *,
    device: torch.device,
) -> InfluenceMatrix:
    """Measures one model, which is let go afterwards."""
    loaded = pretrained.load_model(model, dtype=options.dtype, device=device)
    optimizer = None
    # Its state is twice as large as the model.
    if settings.preconditioner.reads_optimizer:
        optimizer = pretrained.load_optimizer(model, loaded)
    engine = GroupInfluence(
        loaded,
        preconditioner=settings.preconditioner,
        optimizer=optimizer,
        parameters=settings.recipe.mixture.parameters,
        offload=settings.recipe.mixture.offload,
    )
    return dry_run.measure(engine, data.domains, data.targets, settings.reading)


def _draw(
    folder: Path,
    models: Sequence[Pretrained],
    matrices: Sequence[InfluenceMatrix],
    mixture_K: NDArray[np.float64],
) -> str:
    """Draws `influence.png`; returns what to say where there is nothing to draw with."""
    mixture = dict(zip(matrices[0].domains, mixture_K.tolist(), strict=True))
    records = [
        {**matrix.to_dict(), "step": model.step or 0, "mixture": mixture}
        for model, matrix in zip(models, matrices, strict=True)
    ]
    try:
        plots.plot_influence(records, folder / "influence.png")
    except ImportError as err:
        return f" (influence.png is not: {err})"
    return ""
