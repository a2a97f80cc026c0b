"""The callback that a recipe's words ask for.

In: `MixtureArguments`, the dataset that training reads, targets. Out: a `TikMixCallback`, or one
line that names the argument, its value and the mend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import datasets
from transformers import AutoModelForCausalLM, PreTrainedModel

from tikmix_hf import (
    Domains,
    InterleavedDomainDataset,
    Measurement,
    MixtureSchedule,
    TikMixCallback,
    recipe_methods,
    sources,
)
from tikmix_hf.recipe import MixtureArguments
from tikmix_hf.updates.heldout import Collator
from tikmix_hf.updates.needs import Needs
from tikmix_hf.updates.noise_guard import check_noise_guard


def check_mixture(args: MixtureArguments, seed: int) -> None:
    """Refuses what could only fail once there is a model.

    Raises:
        ValueError: with one line that names the argument, its value and the mend.
    """
    needs = Needs.of(recipe_methods.mixer(args), 2, observe=args.observe)
    needs.check(args.reference_model_name_or_path)
    recipe_methods.preconditioner(args)
    make_measurement(args, seed)
    check_noise_guard(args.noise_guard)
    sources.read_mixture(args.mixture, revision=args.mixture_revision)


def check_one_run(args: MixtureArguments, seed: int) -> None:
    """The same where a recipe makes one run alone."""
    check_mixture(args, seed)
    if args.control:
        raise ValueError(
            "`control` must be left out here: it trains a second model. Run the recipe once more "
            "with --mixer static and another --output_dir."
        )


def check_domains(args: MixtureArguments, domains: Domains, *, num_samples: int) -> None:
    """Refuses a mixture of other domains, and bounds that name others or that nothing obeys.

    Args:
        args: the recipe's.
        domains: of the run.
        num_samples: length of the run, which a replayed schedule is cut to.

    Raises:
        ValueError: with one line that names them and the mend.
        OSError: there is no such schedule.
    """
    mixture = sources.replayed(args, domains, num_samples=num_samples)
    if isinstance(mixture, MixtureSchedule):
        mixture.for_domains(domains.names)
    else:
        domains.resolve(mixture)
    constraints = recipe_methods.mixer(args).constraints
    if constraints is not None:
        # Those that need the run's tokens are checked before its first step.
        shares = dataclasses.replace(constraints, max_epochs=None, max_kl_prior=None)
        shares.check(domains.names, in_force=domains.prior, supply=None)


def make_callback(
    args: MixtureArguments,
    dataset: InterleavedDomainDataset,
    targets: Mapping[str, datasets.Dataset],
    *,
    seed: int,
    data_collator: Collator | None = None,
) -> TikMixCallback:
    """Makes the callback; `data_collator` is as for `make_measurement`."""
    return TikMixCallback(
        dataset,
        targets=targets,
        mixer=recipe_methods.mixer(args),
        reference_model=make_reference(args),
        budget=args.budget,
        every_steps=args.every_steps,
        num_rows=args.num_rows,
        noise_guard=args.noise_guard,
        observe=args.observe,
        preconditioner=recipe_methods.preconditioner(args),
        measurement=make_measurement(args, seed, data_collator),
    )


def make_measurement(
    args: MixtureArguments, seed: int, data_collator: Collator | None = None
) -> Measurement:
    """Collects how an update's rows are measured.

    Args:
        args: the recipe's.
        seed: the training's.
        data_collator: the training's; None is the one for packed blocks.
    """
    collates: dict[str, Any] = {} if data_collator is None else {"data_collator": data_collator}
    return Measurement(
        num_rounds=args.num_rounds,
        tolerance=args.tolerance,
        parameters=args.parameters,
        offload=args.offload,
        seed=seed,
        **collates,
    )


def make_reference(args: MixtureArguments) -> PreTrainedModel | None:
    """Loads the trained model that a mixer compares with, if the recipe names one."""
    if args.reference_model_name_or_path is None:
        return None
    return AutoModelForCausalLM.from_pretrained(args.reference_model_name_or_path)
