"""The methods that a recipe names: its mixer with constraints, its preconditioner.

In: the recipe's words and settings. Out: live objects, or one line that names the key, its value
and the mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tikmix_hf import configuring, mixers
from tikmix_hf.mixers import Mixer
from tikmix_hf.mixture import Constraints
from tikmix_hf.recipe import MixtureArguments, as_settings
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.preconditioners import Preconditioner


def configure(argument: str, method: type[Any], value: Mapping[str, Any] | str | None) -> Any:
    """Makes a mixer, a preconditioner or constraints from the settings of a recipe.

    Raises:
        ValueError: an unknown setting, or a value that the method refuses.
    """
    return configuring.configure(argument, method, as_settings(argument, value))


def mixer(arguments: MixtureArguments, name: str | None = None) -> Mixer[Any]:
    """Makes a mixer within the recipe's constraints.

    Args:
        arguments: the recipe's.
        name: of the mixer; None takes the recipe's, whose settings no other has.

    Raises:
        ValueError: an unknown name, and as `configure`.
    """
    name = arguments.mixer if name is None else name
    settings = as_settings("mixer_settings", arguments.mixer_settings)
    settings = settings if name == arguments.mixer else {}
    if arguments.constraints:
        if "constraints" in settings:
            raise ValueError(
                "`constraints` must be given once; got them in `mixer_settings` too. Leave these "
                "out there."
            )
        settings["constraints"] = configure("constraints", Constraints, arguments.constraints)
    elif isinstance(settings.get("constraints"), Mapping):
        settings["constraints"] = configure("constraints", Constraints, settings["constraints"])
    return configure("mixer_settings", mixers.load(name), settings)


def preconditioner(arguments: MixtureArguments) -> str | Preconditioner:
    """Makes the preconditioner from its name and settings; "auto" stays a word.

    Raises:
        ValueError: an unknown name, settings without a name, and as `configure`.
    """
    if arguments.preconditioner == preconditioners.AUTO:
        if arguments.preconditioner_settings:
            raise ValueError(
                "`preconditioner_settings` must go with a `preconditioner` by name; it is 'auto'."
            )
        return preconditioners.AUTO
    method = preconditioners.load(arguments.preconditioner)
    return configure("preconditioner_settings", method, arguments.preconditioner_settings)
