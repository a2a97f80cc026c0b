"""Stand-ins for the inverse Hessian: gradients in, preconditioned gradients out.

One file per method, and the file's name is the method's name: adding one is adding a file.

| name        | H^-1 g                                               | acts on | linear in g |
|-------------|------------------------------------------------------|---------|-------------|
| `identity`  | g                                                    | target  | yes         |
| `adam`      | g / (sqrt(v) + d mean(sqrt(v)))                      | target  | yes         |
| `adam_unit` | the same, scaled to global norm 1                    | domain  | no          |
| `sign`      | sign(g)                                              | domain  | no          |
| `kfac`      | Kronecker-factored Fisher, damped, per Linear layer  | target  | yes         |
| `ggn`       | conjugate gradients on the damped Gauss-Newton matrix | target  | yes         |

On the target side the J target gradients are preconditioned once and S is linear in the domain's
gradient, so dots may be taken batch by batch. On the domain side they may not: the domain's whole
gradient is summed, over ranks too, before it is preconditioned.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from tikmix_hf.signals.preconditioners.base import Apply, Fitting, Preconditioner, Side

__all__ = [
    "AUTO",
    "Apply",
    "Fitting",
    "Preconditioner",
    "Side",
    "available",
    "choose",
    "load",
]


AUTO = "auto"
"""`kfac`, which predicts training best (`eval/results/influence_fidelity.md`), where every rank
holds the whole model; `sign`, which works shard by shard, where it does not."""


def available() -> tuple[str, ...]:
    """The names that `load` takes."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if name != "base" and not name.startswith("_")))


def load(name: str) -> type[Preconditioner]:
    """The preconditioner of that name; call it with its settings.

    Raises:
        ValueError: if there is none.

    Example:
        preconditioners.load("adam")(damping=0.2)
    """
    if name not in available():
        close = difflib.get_close_matches(str(name), available(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`preconditioner` must be one of {available()}; got {name!r}.{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Preconditioner)
        and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module.__name__} must define exactly one Preconditioner"
    return own[0]


def choose(preconditioner: str | Preconditioner, *, sharded: bool) -> Preconditioner:
    """The preconditioner that a name, "auto" or an object stands for.

    Args:
        preconditioner: as users give it.
        sharded: whether a rank holds only a shard of the model.

    Raises:
        ValueError: for an unknown name.
        TypeError: for what is neither a name nor a preconditioner, such as a class.
    """
    if preconditioner == AUTO:
        preconditioner = "sign" if sharded else "kfac"
    if isinstance(preconditioner, str):
        return load(preconditioner)()
    if not isinstance(preconditioner, Preconditioner):
        raise TypeError(
            "`preconditioner` must be a name or a Preconditioner with its settings, such as "
            f"preconditioners.load('kfac')(); got {preconditioner!r}."
        )
    return preconditioner
