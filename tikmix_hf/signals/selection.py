"""Which parameters influence is measured on: all of them, or a part that costs less.

In: a model and a selection in words. Out: the trainable parameters it names, tied weights once, in
the model's order. A part near the output saves the backward pass through everything below it, and
the memory of its gradients; how much accuracy it costs is measured in `eval/influence_fidelity.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

ALL, HEAD = "all", "lm_head"
_LAST_BLOCKS = re.compile(r"last (\d+) blocks?")
_BLOCK = re.compile(r"\.(?:layers|h|blocks|layer)\.(\d+)\.")


def check_selection(selection: str) -> None:
    """Refuses what is no selection, without a model.

    Raises:
        ValueError: names `parameters`.
    """
    if selection in (ALL, HEAD) or _LAST_BLOCKS.fullmatch(selection):
        return
    try:
        re.compile(selection)
    except re.error as error:
        raise ValueError(
            f"`parameters` must be {ALL!r}, {HEAD!r}, 'last N blocks' or a regular expression for "
            f"parameter names; got {selection!r}: {error}."
        ) from error


def select_parameters(model: nn.Module, selection: str = ALL) -> list[nn.Parameter]:
    """The trainable parameters that a selection names.

    Args:
        model: the live model.
        selection: "all"; "lm_head", the output embedding (with tied weights the input's, too);
            "last N blocks", the N last blocks of a transformer and nothing else; or a regular
            expression that is searched in parameter names.

    Raises:
        ValueError: if nothing is trainable, nothing trainable is named, or the model has fewer
            blocks than N.
    """
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("`model` has no trainable parameter, so nothing can have an influence.")
    chosen = _chosen(model, list(trainable), selection)
    if not chosen:
        some = ", ".join(list(trainable)[-4:])
        raise ValueError(
            f"`parameters` must name trainable parameters; {selection!r} names none of "
            f"{len(trainable)} such as {some}."
        )
    return [parameter for name, parameter in trainable.items() if name in chosen]


def _chosen(model: nn.Module, names: list[str], selection: str) -> set[str]:
    if selection == ALL:
        return set(names)
    if selection == HEAD:
        return _head(model)
    if match := _LAST_BLOCKS.fullmatch(selection):
        _check_blocks(model, selection, int(match[1]))
        blocks = _blocks(names)
        first = max(blocks.values(), default=-1) + 1 - int(match[1])
        return {name for name, block in blocks.items() if block >= first}
    return {name for name in names if re.search(selection, name)}


def _check_blocks(model: nn.Module, selection: str, num_wanted: int) -> None:
    """Refuses more blocks than there are, trained or not; a model without any names nothing."""
    blocks = _blocks(name for name, _ in model.named_parameters())
    num_blocks = max(blocks.values(), default=-1) + 1
    if num_wanted > num_blocks > 0:
        raise ValueError(
            f"`parameters` must name blocks of the model, which has {num_blocks}; got "
            f"{selection!r}. Write 'last {num_blocks} blocks', or {ALL!r}."
        )


def _blocks(names: Iterable[str]) -> dict[str, int]:
    """The number of its block, of each name that belongs to one."""
    return {name: int(found[1]) for name in names if (found := _BLOCK.search(f".{name}"))}


def _head(model: nn.Module) -> set[str]:
    """Names of the output embedding's parameters; a tied one goes by its first name."""
    own: set[int] = set()
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and (head := module.get_output_embeddings()):
            own |= {id(parameter) for parameter in head.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}
