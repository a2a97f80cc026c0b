"""Instruction domains: prompts with their completions, by name.

In: JSON lines named on the command line, or nothing. Out: rows of text that any SFT trainer
prepares, of the domains to train on and of the targets. Without files, the rows come from what
every Python installation with our dependencies carries: functions of the standard library and their
docstrings, the language reference, PyTorch's table of operators; targets are functions of packages
that are in no domain.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import datasets
from datasets.exceptions import DatasetsError
from row_forms import check_rows

from tikmix_hf.installed_text import SKIPPED_FOLDERS, STDLIB_TARGET, locate, read_topics

Row = dict[str, str]
DOMAIN = "domain of the row"
# Longer ones would be cut in the middle by a model of a few hundred tokens.
MAX_CHARACTERS = 400
SKIPPED = SKIPPED_FOLDERS | {"idlelib", "lib2to3", "encodings", "pydoc_data"}


@dataclass(kw_only=True)
class InstructionArguments:
    """What to fine-tune on, and what for."""

    domain: list[str] = field(
        default_factory=list,
        metadata={"action": "extend", "help": "NAME=FILE.jsonl, once for each domain."},
    )
    """`name=file.jsonl` with `prompt` and `completion`, or any other form that TRL reads; none are
    the embedded domains."""
    target: list[str] = field(
        default_factory=list,
        metadata={"action": "extend", "help": "NAME=FILE.jsonl, once for each target."},
    )
    """The same for the targets; every second row is reported on and not measured."""
    heldout: float = 0.1
    """Share of each domain's rows that is kept back for measuring."""
    max_rows: int = 400
    """Rows of each embedded domain and target, at most."""


class Instructions(NamedTuple):
    """Rows of text by name; all have the same columns."""

    domains: dict[str, datasets.Dataset]
    """What is trained on."""
    targets: dict[str, datasets.Dataset]
    """What it is for."""


def load(args: InstructionArguments, seed: int, *, text_column: str = "text") -> Instructions:
    """Reads the rows that the arguments name.

    Args:
        args: files, or none.
        seed: draws which rows of an installation are used.
        text_column: of rows that are plain text.

    Raises:
        ValueError: a file that is not there, or whose columns TRL does not read or are not those of
            the others; a row without text; domains without targets.
    """
    if bool(args.domain) != bool(args.target):
        raise ValueError(
            "`domain` and `target` must be given together, as NAME=FILE.jsonl; got "
            f"{args.domain} and {args.target}. Leave both out for the embedded domains."
        )
    if args.domain:
        domains, targets = (
            _from_files(argument, words, text_column)
            for argument, words in (("domain", args.domain), ("target", args.target))
        )
    else:
        domains, targets = (
            {name: _rows(rows(seed), args.max_rows) for name, rows in table.items()}
            for table in (DOMAINS, TARGETS)
        )
    _check({**domains, **targets})
    return Instructions(domains, targets)


def joined(domains: Mapping[str, datasets.Dataset]) -> datasets.Dataset:
    """One dataset of all domains, for a trainer to prepare; a column says whose each row is."""
    return datasets.concatenate_datasets(
        [rows.add_column(DOMAIN, [name] * len(rows)) for name, rows in domains.items()]  # pyright: ignore[reportCallIssue]
    )


def _from_files(argument: str, words: list[str], text_column: str) -> dict[str, datasets.Dataset]:
    rows = {}
    for word in words:
        name, _, path = word.partition("=")
        if not name or not Path(path).is_file():
            raise ValueError(
                f"`{argument}` must be NAME=FILE.jsonl, of a file that is there; got {word!r}."
            )
        if name in rows:
            raise ValueError(f"`{argument}` must name each one once; got {name!r} twice.")
        if not Path(path).stat().st_size:
            raise ValueError(f"`{argument}` {word}: the file is empty. Leave it out.")
        try:
            rows[name] = datasets.load_dataset("json", data_files=path, split="train")
        except (DatasetsError, ValueError, OSError) as err:
            raise ValueError(
                f"`{argument}` {word}: no JSON lines ({err.__cause__ or err})."
            ) from err
        check_rows(f"`{argument}` {word}", rows[name], text_column)
    return rows


def _check(parts: dict[str, datasets.Dataset]) -> None:
    (first, other), *rest = ((name, sorted(rows.column_names)) for name, rows in parts.items())
    for name, columns in rest:
        if columns != other:
            raise ValueError(
                f"all domains and targets must have the same columns; {first!r} has {other}, "
                f"{name!r} has {columns}. Write `prompt` and `completion` in each."
            )
    if short := [name for name, rows in parts.items() if len(rows) < 4]:
        raise ValueError(f"every domain and target must have 4 rows or more; {short} have fewer.")


# What an installation carries


def _rows(rows: Iterable[Row], most: int) -> datasets.Dataset:
    """The first `most` rows that are short enough, each completion once."""
    unique: dict[str, Row] = {}
    for row in rows:
        if max(map(len, row.values())) <= MAX_CHARACTERS:
            unique.setdefault(row["completion"], row)
        if len(unique) == most:
            break
    return datasets.Dataset.from_list(list(unique.values()))


def _files(roots: Iterable[str], seed: int, skip: frozenset[str]) -> list[Path]:
    """Python files below the roots, in an order drawn from `seed` and their paths."""
    found = {
        f"{root}/{path.relative_to(folder)}": path
        for root in roots
        for folder in locate(root)
        for path in _below(folder, skip)
    }
    return [
        found[name]
        for name in sorted(found, key=lambda n: blake2b(f"{seed}/{n}".encode()).digest())
    ]


def _below(folder: Path, skip: frozenset[str]) -> Iterator[Path]:
    """Without a look into the folders to skip, which may hold all that is installed."""
    for path in folder.iterdir():
        if path.name not in skip and path.stem not in skip:
            if path.is_dir():
                yield from _below(path, skip)
            elif path.suffix == ".py":
                yield path


class Function(NamedTuple):
    """A documented function."""

    header: str
    body: str
    summary: str
    """The first paragraph of its docstring."""


@functools.cache
def functions(path: Path) -> tuple[Function, ...]:
    """Documented functions of a Python file; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ()
    found = []
    for node in ast.walk(tree):
        docstring = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if isinstance(node, ast.FunctionDef) and docstring and len(node.body) > 1:
            body = "\n".join(ast.unparse(statement) for statement in node.body[1:])
            header = f"def {node.name}({ast.unparse(node.args)}):"
            summary = " ".join(docstring.split("\n\n")[0].split())
            found.append(Function(header, body.replace("\n", "\n    "), summary))
    return tuple(found)


def _describe(found: Iterable[Function]) -> Iterator[Row]:
    for header, body, summary in found:
        prompt = f"Describe this function.\n\n{header}\n    {body}\n\nDescription:\n"
        yield {"prompt": prompt, "completion": summary}


def _write(found: Iterable[Function]) -> Iterator[Row]:
    for header, body, summary in found:
        prompt = f"Write a Python function.\n\n{summary}\n\nFunction:\n"
        yield {"prompt": prompt, "completion": f"{header}\n    {body}"}


def _stdlib(seed: int, roots: Iterable[str], skip: Iterable[str]) -> Iterator[Function]:
    for path in _files(roots, seed, SKIPPED | frozenset(skip)):
        yield from functions(path)


def _unseen(seed: int) -> Iterator[Function]:
    """Of the packages that are kept for targets."""
    return _stdlib(seed, [f"stdlib/{package}" for package in STDLIB_TARGET], ())


def _seen(seed: int) -> Iterator[Function]:
    return _stdlib(seed, ["stdlib"], STDLIB_TARGET)


def _reference(seed: int) -> Iterator[Row]:
    for folder in locate("stdlib/pydoc_data"):
        for text in read_topics(folder / "topics.py"):
            title, *paragraphs = re.split(r"\n\s*\n", text.strip())
            for number, paragraph in enumerate(paragraphs, 1):
                prompt = f"Python reference: {title.splitlines()[0]}, paragraph {number}?\n\n"
                yield {"prompt": prompt, "completion": " ".join(paragraph.split())}


def _operators(seed: int) -> Iterator[Row]:
    for folder in locate("torchgen/packaged"):
        text = (folder / "ATen/native/native_functions.yaml").read_text("utf-8")
        for name, schema in re.findall(r"^- func: (\w[\w.]*)(\(.*)$", text, re.MULTILINE):
            prompt = f"What does PyTorch's operator {name} take and return?\n\n"
            yield {"prompt": prompt, "completion": name + schema}


DOMAINS: dict[str, Callable[[int], Iterator[Row]]] = {
    "describe": lambda seed: _describe(_seen(seed)),
    "write": lambda seed: _write(_seen(seed)),
    "reference": _reference,
    "operators": _operators,
}
TARGETS: dict[str, Callable[[int], Iterator[Row]]] = {
    "describe_unseen": lambda seed: _describe(_unseen(seed)),
    "write_unseen": lambda seed: _write(_unseen(seed)),
}
