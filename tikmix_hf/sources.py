"""Where a recipe's text comes from: the embedded corpus, files, or datasets of the Hub.

In: the `domains`, `targets` and `mixture` of a recipe. Out: tokenised `Domains`, targets to
optimise for and rows to report on, the tokenizer, and the mixture to start with.
"""

from __future__ import annotations

import glob
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets.exceptions import DatasetsError
from transformers import PreTrainedTokenizerBase

from tikmix_hf import corpora
from tikmix_hf.domains import Domains, tokenize_and_pack
from tikmix_hf.recipe import DataArguments, MixtureArguments
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
# What the readers of `datasets` fail with; an empty file is a StopIteration there.
_UNREADABLE = (DatasetsError, ValueError, OSError, RuntimeError, EOFError, StopIteration)
# What the Hub's refusals are.
_REFUSED = (FileNotFoundError, PermissionError, ConnectionError)
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
    mixture: Mapping[str, float] | str | None, *, revision: str | None = None
) -> Mapping[str, float] | str | MixtureSchedule:
    """Returns what a recipe calls its mixture; a schedule is read.

    Args:
        mixture: None, where the recipe names none, is the natural mixture. Words with a "/" are
            folders, or repositories of the Hub.
        revision: of the Hub.

    Raises:
        ValueError: it is empty; the file is not there, or is no schedule; a revision of what is not
            on the Hub.
        OSError: the folder has no schedule; the Hub has none, or cannot be reached.
    """
    if mixture is None:
        return "natural"
    if not mixture:
        raise ValueError(
            "`mixture` must be a word, a schedule's .json file or shares, such as {web: 0.7, "
            f"code: 0.3}}; got {mixture!r}. Leave the key out for the natural mixture."
        )
    if not isinstance(mixture, str):
        return mixture
    if mixture.endswith(".json"):
        if not Path(mixture).is_file():
            raise ValueError(f"`mixture` must be the file of a schedule; {mixture} is none.")
        return MixtureSchedule.from_pretrained(mixture, revision=revision)
    if "/" in mixture:
        try:
            return MixtureSchedule.from_pretrained(mixture, revision=revision)
        except _REFUSED as err:
            if Path(mixture).exists() or type(err) not in _REFUSED:
                raise
            raise type(err)(f"there is no folder {mixture} (from {Path.cwd()}), and {err}") from err
    return mixture


def replayed(
    args: MixtureArguments, domains: Domains, *, num_samples: int
) -> Mapping[str, float] | str | MixtureSchedule:
    """Returns the mixture that a run of some length starts with, a schedule cut to that length.

    Raises:
        ValueError: as `read_mixture`; the schedule does not say what `replay_by` needs.
        OSError: as `read_mixture`.
    """
    mixture = read_mixture(args.mixture, revision=args.mixture_revision)
    if not isinstance(mixture, MixtureSchedule) or args.replay_by == "sample":
        return mixture
    num_rows = sum(domain.num_rows for domain in domains)
    return mixture.rescale(
        num_samples=num_samples,
        by=args.replay_by,
        tokens_per_sample=float(domains.num_tokens.sum() / num_rows),
    )


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
    files = [] if "dataset" in source else _files(name, source["path"])
    try:
        rows = _loaded(name, source, files)
    except _UNREADABLE as err:
        if fault := _fault(files, column):
            raise ValueError(f"`{name}.path`: {fault}") from err
        what = f"`{name}.path` {_shown(files)}" if files else f"`{name}.dataset`"
        cause = err.__cause__ or err
        raise ValueError(f"{what} cannot be read: {cause or type(cause).__name__}") from err
    _check_text(name, rows, column, files)
    return rows, column


def _files(name: str, path: Any) -> list[str]:
    """Returns the files that a path, or each of several, stands for."""
    files = set()
    for pattern in path if isinstance(path, list) else [path]:
        found = glob.glob(str(pattern), recursive=True)
        if not found:
            raise ValueError(f"`{name}.path` matches no file: {pattern} (from {Path.cwd()}).")
        files.update(found)
    readers = {_reader(name, file) for file in files}
    if len(readers) > 1:
        raise ValueError(f"`{name}.path` must be files of one kind; got {sorted(readers)}.")
    return sorted(files)


def _loaded(name: str, source: Mapping[str, Any], files: list[str]) -> datasets.Dataset:
    split = source.get("split") or "train"
    if not files:
        rows = datasets.load_dataset(source["dataset"], source.get("config"), split=split)
    else:
        reader = _reader(name, files[0])
        options: dict[str, Any] = {"sample_by": "document"} if reader == "text" else {}
        rows = datasets.load_dataset(reader, data_files=files, split="train", **options)
    assert isinstance(rows, datasets.Dataset)
    return rows


def _check_text(name: str, rows: datasets.Dataset, column: str, files: list[str]) -> None:
    """Refuses rows without text, which a tokenizer would not name."""
    if column not in rows.column_names:
        raise ValueError(
            f"`{name}.text_column` must name a column of {_shown(files) or 'the dataset'} "
            f"({', '.join(rows.column_names)}); got {column!r}."
        )
    kind = rows.features[column]
    is_text = isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string")
    if is_text and not rows.data.column(column).null_count:
        return
    for number, value in enumerate(rows[column], 1):
        if not isinstance(value, str):
            fault = f"row {number} {_no_text(column, value)}"
            raise ValueError(f"`{name}`: {_fault(files, column) or fault}")


def _no_text(column: str, value: Any) -> str:
    return (
        f"has {json.dumps(value, default=repr)} in the column {column!r}, and no text. Mend or "
        "drop it, or name the column of the documents as `text_column`."
    )


def _fault(files: list[str], column: str) -> str | None:
    """Says which line of which file is the first without text; None where none is found."""
    for file in files:
        if not Path(file).stat().st_size:
            return f"{file} is empty. Leave it out."
        if file.endswith(".parquet"):
            continue
        opened = gzip.open if file.endswith(".gz") else open
        try:
            with opened(file, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    if number == 1 and line.lstrip().startswith(b"["):
                        break  # one list, and not a line for each document
                    if fault := _line_fault(line, column, is_json=".json" in file):
                        return f"line {number} of {file} {fault}"
        except (gzip.BadGzipFile, EOFError, zlib.error) as err:
            return f"{file} is no whole gzip file ({err}). Compress it anew."
    return None


def _line_fault(line: bytes, column: str, *, is_json: bool) -> str | None:
    try:
        text = line.decode("utf-8")
        content = json.loads(text) if is_json and text.strip() else {column: text}
    except UnicodeDecodeError:
        return "is no UTF-8 text. Convert the file to UTF-8."
    except json.JSONDecodeError as err:
        return f"is no JSON ({err.msg}, at character {err.pos + 1}). Mend or drop that line."
    if not isinstance(content, dict):
        return 'is no JSON object such as {"text": "..."}. Mend or drop that line.'
    value = content.get(column)
    return None if isinstance(value, str) else _no_text(column, value)


def _shown(files: list[str]) -> str:
    return ", ".join(files[:1]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _reader(name: str, file: str) -> str:
    suffixes = Path(file).suffixes
    ending = "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])
    if ending not in _READERS:
        raise ValueError(
            f"`{name}.path` must be one of {', '.join(_READERS)}; got {file}. Convert it to JSON "
            "lines."
        )
    return _READERS[ending]
