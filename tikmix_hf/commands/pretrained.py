"""Models to measure: from the Hub, from a folder, from a Trainer's checkpoint.

In: what a user calls a model. Out: its configuration, tokenizer and weights, and Adam's state where
the folder has it; or one clear error, before anything large is read where that is possible. No code
comes from the Hub, and no pickle: weights are safetensors, an optimizer's state is tensors alone.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

DTYPES = ("auto", "float32", "bfloat16", "float16")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class Pretrained(NamedTuple):
    """Where a model is, once it is known to be there."""

    name: str
    """A folder, or a repository of the Hub."""
    folder: Path | None
    """None for a repository."""
    config: PreTrainedConfig
    step: int | None
    """Optimizer steps that a Trainer's checkpoint had done; None for other models."""


def locate(name: str) -> Path | None:
    """Returns the folder of a model, None for a repository of the Hub; reads next to nothing.

    Raises:
        ValueError: it can be neither; names it, and the folder that was probably meant.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return folder
        near = [path.parent for path in sorted(folder.glob("*/config.json"))]
        mend = f"Did you mean {near[0]}?" if near else "Save it with model.save_pretrained(folder)."
        raise ValueError(f"`--model` must hold a model; {folder} has no config.json. {mend}")
    try:
        validate_repo_id(name)
    except HFValidationError as err:
        raise ValueError(
            f"`--model` must be a folder, or a repository of the Hub such as user/model; "
            f"{name!r} is neither."
        ) from err
    return None


def describe(name: str) -> Pretrained:
    """Reads a model's configuration, and the step of a Trainer's checkpoint.

    Raises:
        ValueError: as `locate`.
        OSError: the Hub has no such model, or cannot be reached.
    """
    folder = locate(name)
    with _naming("--model", name):
        config = AutoConfig.from_pretrained(folder or name, trust_remote_code=False)
    step = None
    if folder is not None and (folder / "trainer_state.json").is_file():
        step = json.loads((folder / "trainer_state.json").read_text("utf-8"))["global_step"]
    return Pretrained(name, folder, config, step)


def load_tokenizer(model: Pretrained) -> PreTrainedTokenizerBase | None:
    """Loads a model's own tokenizer; None where its folder has none.

    Raises:
        OSError: as `load_named_tokenizer`.
    """
    folder = model.folder
    if folder is not None and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    return load_named_tokenizer(str(folder or model.name), argument="--model")


def load_named_tokenizer(
    name: str, *, argument: str = "tokenizer_name_or_path"
) -> PreTrainedTokenizerBase:
    """Loads a tokenizer of the Hub or a folder.

    Args:
        name: where it is.
        argument: what the error calls `name`.

    Raises:
        OSError: it is not there, or the Hub cannot be reached.
    """
    with _naming(argument, name):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


@contextmanager
def _naming(argument: str, name: str) -> Iterator[None]:
    """Says what it was that could not be read: a library may speak of the connection alone."""
    try:
        yield
    except OSError as err:
        raise OSError(f"`{argument}` {name} cannot be read: {err}") from err


def check_fits(
    model: Pretrained,
    own: PreTrainedTokenizerBase | None,
    used: PreTrainedTokenizerBase,
    *,
    block_size: int,
) -> None:
    """Refuses text that does not mean to the model what it was tokenised as.

    Args:
        model: what is to read the text.
        own: the tokenizer that came with it, if one did.
        used: the tokenizer that the text was, or will be, tokenised with.
        block_size: tokens in a row.

    Raises:
        ValueError: naming both vocabularies, or both lengths, and the mend.
    """
    config = model.config.get_text_config()
    if own is not None and own is not used and own.get_vocab() != used.get_vocab():
        raise ValueError(_other_vocabulary(model, len(own), len(used)))
    if len(used) > config.vocab_size:  # fewer are well: embeddings are often padded
        raise ValueError(_other_vocabulary(model, config.vocab_size, len(used)))
    longest = config.to_dict().get(_length_key(config))
    if isinstance(longest, int) and block_size > longest:
        raise ValueError(
            f"`block_size` must be at most what {model.name} reads, {longest} tokens; got "
            f"{block_size}."
        )


def check_size(model: Pretrained, own: PreTrainedTokenizerBase | None, num_entries: int) -> None:
    """Refuses a vocabulary of another size than the model's tokenizer, or embedding, has.

    Raises:
        ValueError: naming both and the mend.
    """
    size = model.config.get_text_config().vocab_size if own is None else len(own)
    if size != num_entries:
        raise ValueError(_other_vocabulary(model, size, num_entries))


def _other_vocabulary(model: Pretrained, mine: int, used: int) -> str:
    return (
        f"{model.name} has another vocabulary ({mine} entries) than the text is tokenised with "
        f"({used}). Use the tokenizer that the model was trained with; the embedded corpus brings "
        "its own, so for other models name sources of yours as `domains` and `targets`."
    )


def _length_key(config: PreTrainedConfig) -> str:
    """What this architecture calls the length of its context."""
    return config.attribute_map.get("max_position_embeddings", "max_position_embeddings")


def load_model(model: Pretrained, *, dtype: str, device: torch.device) -> PreTrainedModel:
    """Loads the weights.

    Args:
        model: what to load.
        dtype: one of `DTYPES`; "auto" is what the weights were saved in.
        device: where they go.

    Raises:
        OSError: there are no safetensors in a repository of the Hub, or no weights in a folder; or
            the Hub cannot be reached.
    """
    with _naming("--model", model.name):
        loaded = AutoModelForCausalLM.from_pretrained(
            model.folder or model.name,
            dtype=dtype,
            trust_remote_code=False,
            # A folder's .bin file is read too, by a loader that admits tensors alone.
            use_safetensors=True if model.folder is None else None,
        )
    return loaded.to(device)  # pyright: ignore[reportArgumentType]


def optimizer_file(model: Pretrained) -> Path | None:
    """Where the Trainer saved the optimizer's state; None where it did not."""
    path = None if model.folder is None else model.folder / "optimizer.pt"
    return path if path is not None and path.is_file() else None


def load_optimizer(source: Pretrained, model: nn.Module) -> torch.optim.Optimizer | None:
    """Loads the Adam state that a Trainer's checkpoint kept; None where there is none.

    The file numbers parameters within groups (with and without weight decay) and does not name
    them. The groups keep the order of the model, so each parameter in turn belongs to the group
    whose next entry has its shape; where two have, nobody can tell, and that is an error.

    Raises:
        ValueError: the file holds more than tensors, no Adam state, or another model's.
    """
    path = optimizer_file(source)
    if path is None:
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        groups, states = saved["param_groups"], saved["state"]
        shapes_G = [[states[i]["exp_avg_sq"].shape for i in group["params"]] for group in groups]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as err:
        raise ValueError(_refusal(path, "holds no elementwise Adam state")) from err
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    members_G = _in_groups(trained, shapes_G)
    if members_G is None:
        raise ValueError(_refusal(path, "does not fit the model's parameters one by one"))
    optimizer = torch.optim.AdamW([{"params": members} for members in members_G])
    optimizer.load_state_dict(saved)
    return optimizer


def _in_groups(
    parameters: Sequence[nn.Parameter], shapes_G: Sequence[Sequence[torch.Size]]
) -> list[list[nn.Parameter]] | None:
    """Deals parameters out to G groups by the shapes these expect; None where that is not clear."""
    members_G: list[list[Any]] = [[] for _ in shapes_G]
    for parameter in parameters:
        fitting = [
            members
            for members, shapes in zip(members_G, shapes_G, strict=True)
            if len(members) < len(shapes) and shapes[len(members)] == parameter.shape
        ]
        if len(fitting) != 1:
            return None
        fitting[0].append(parameter)
    return members_G if [*map(len, members_G)] == [*map(len, shapes_G)] else None


def _refusal(path: Path, fact: str) -> str:
    return f"{path} {fact}. Use --preconditioner sign, which needs no optimizer."
