"""Where a recipe's text comes from: the embedded corpus, files, or datasets of the Hub.

In: the `domains`, `targets` and `mixture` of a recipe. Out: tokenised `Domains`, targets to
optimise for and rows to report on, the tokenizer, and the mixture to start with.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from transformers import PreTrainedTokenizerBase

from tikmix_hf import corpora
from tikmix_hf.domains import Domains, tokenize_and_pack
from tikmix_hf.recipe import DataArguments
from tikmix_hf.schedule import MixtureSchedule

_READERS = {
    ".jsonl": "json",
    ".jsonl.gz": "json",
    ".json": "json",
    ".json.gz": "json",
    ".txt": "text",
    ".txt.gz": "text",
    ".parquet": "parquet",
}
_KEYS = {"path", "dataset", "config", "split", "text_column"}


class Sources(NamedTuple):
    """What a run reads."""

    domains: Domains
    targets: dict[str, datasets.Dataset]
    evals: dict[str, datasets.Dataset]
    """Rows that the run is judged by; the targets themselves where no others are named."""
    tokenizer: PreTrainedTokenizerBase


def load(args: DataArguments, tokenizer: PreTrainedTokenizerBase | None, seed: int) -> Sources:
    """Reads, tokenises and packs everything.

    Raises:
        ValueError: a source that is not there or not understood; names the domain and the mend.
    """
    embedded = None
    if args.domains == "embedded" or args.targets == "embedded":
        if tokenizer is not None:
            raise ValueError(
                "`domains: embedded` and `targets: embedded` bring their own tokenizer; give both "
                "as sources of yours to use another."
            )
        embedded = corpora.load(
            block_size=args.block_size,
            vocab_size=args.vocab_size,
            cache_dir=args.cache_dir,
            seed=seed,
        )
        tokenizer = embedded.tokenizer
    if tokenizer is None:
        raise ValueError("`tokenizer_name_or_path` or `model_name_or_path` must be set.")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer must have an end-of-text token; set its `eos_token`.")

    def packed(name: str, source: Mapping[str, Any]) -> datasets.Dataset:
        text, column = _read(name, source)
        try:
            return tokenize_and_pack(
                text, tokenizer, block_size=args.block_size, text_column=column
            )
        except ValueError as err:
            raise ValueError(f"`{name}`: {err}") from err

    if args.domains == "embedded":
        assert embedded is not None
        domains = embedded.domains
    else:
        rows = {name: packed(name, source) for name, source in _table("domains", args.domains)}
        domains = Domains.from_datasets(rows, heldout=args.heldout, seed=seed)
    if args.targets == "embedded":
        assert embedded is not None
        return Sources(domains, embedded.targets, _capped(embedded.target_evals, args), tokenizer)
    targets, evals = {}, {}
    for name, source in _table("targets", args.targets):
        used = {key: value for key, value in source.items() if key != "evals"}
        targets[name] = packed(name, used)
        evals[name] = packed(name, source["evals"]) if "evals" in source else targets[name]
    return Sources(domains, targets, _capped(evals, args), tokenizer)


def read_mixture(
    mixture: Mapping[str, float] | str | None,
) -> Mapping[str, float] | str | MixtureSchedule:
    """Returns what a recipe calls its mixture; the file of a schedule is read.

    Raises:
        ValueError: the file is not there, or is no schedule.
    """
    if not (isinstance(mixture, str) and mixture.endswith(".json")):
        return mixture or "natural"
    if not Path(mixture).is_file():
        raise ValueError(f"`mixture` must be the file of a schedule; {mixture} is none.")
    return MixtureSchedule.load(mixture)


def _capped(evals: dict[str, datasets.Dataset], args: DataArguments) -> dict[str, datasets.Dataset]:
    """Keeps the first `eval_rows` rows of each."""
    return {
        name: rows.select(range(min(len(rows), args.eval_rows))) for name, rows in evals.items()
    }


def _table(argument: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"`{argument}` must be 'embedded' or name sources, such as "
            f"{{web: {{path: web.jsonl}}}}; got {value!r}."
        )
    for name, source in value.items():
        if not isinstance(source, Mapping):
            raise ValueError(
                f"`{argument}.{name}` must be `path: ...` or `dataset: ...`; got {source!r}."
            )
    return [(str(name), dict(source)) for name, source in value.items()]


def _read(name: str, source: Mapping[str, Any]) -> tuple[datasets.Dataset, str]:
    """Returns the documents of a source and the name of their text column."""
    if unknown := set(source) - _KEYS:
        raise ValueError(f"`{name}` has unknown keys {sorted(unknown)}; known are {sorted(_KEYS)}.")
    if ("path" in source) == ("dataset" in source):
        raise ValueError(f"`{name}` must have either `path` or `dataset`; got {dict(source)}.")
    column = source.get("text_column", "text")
    split = source.get("split", "train")
    if "dataset" in source:
        rows = datasets.load_dataset(source["dataset"], source.get("config"), split=split)
        assert isinstance(rows, datasets.Dataset)
        return rows, column
    patterns = source["path"] if isinstance(source["path"], list) else [source["path"]]
    files = sorted(file for pattern in patterns for file in glob.glob(str(pattern), recursive=True))
    if not files:
        raise ValueError(f"`{name}.path` matches no file: {source['path']}.")
    readers = {_reader(name, file) for file in files}
    if len(readers) > 1:
        raise ValueError(f"`{name}.path` must be files of one kind; got {sorted(readers)}.")
    options: dict[str, Any] = {"sample_by": "document"} if readers == {"text"} else {}
    rows = datasets.load_dataset(readers.pop(), data_files=files, split="train", **options)
    assert isinstance(rows, datasets.Dataset)
    return rows, column


def _reader(name: str, file: str) -> str:
    suffixes = Path(file).suffixes
    ending = "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])
    if ending not in _READERS:
        raise ValueError(
            f"`{name}.path` must be one of {', '.join(_READERS)}; got {file}. Convert it to JSON "
            "lines."
        )
    return _READERS[ending]
