"""What a job's file depends on beside its settings: code, versions and data.

In: the script of a reproduction, and the data files that it reads. Out: short digests, by which a
file that was left by other code, other versions or other data is not taken for this one's. Comments
and docstrings do not count, nor does what only reports, so that editing them costs no run.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import ast
import platform
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from provenance import PACKAGES

import tikmix_hf

EVAL = Path(__file__).parents[1]
PACKAGE = Path(tikmix_hf.__file__).parent
DECIDING = (*PACKAGES, "tokenizers", "lm_eval")
"""Packages whose version may change an outcome; those that are not installed are noted as such."""
REPORTING = frozenset({"arena.py", "compare_tables.py", "provenance.py", "verdict.py"})
"""Programs of `eval` that only start jobs or report on them."""
ASIDE = frozenset({"cli.py", "commands", "figures.py", "plots.py"})
"""Files and folders of the package that neither train nor measure."""
SUFFIXES = (".py", ".yaml")
CHUNK = 1 << 20


def versions(packages: Iterable[str] = DECIDING) -> dict[str, str]:
    """Of Python and of packages, by name."""
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def sources(script: Path) -> list[Path]:
    """Files whose code decides what a script's jobs find.

    The script, what it imports of `eval`, directly or not, and the package, all of it: mixers and
    preconditioners are found by name, not imported.
    """
    own = [path for path in imported(script, EVAL) if path.name not in REPORTING]
    package = [
        path
        for path in sorted(PACKAGE.rglob("*"))
        if path.suffix in SUFFIXES and path.relative_to(PACKAGE).parts[0] not in ASIDE
    ]
    return [*own, *package]


def imported(script: Path, folder: Path) -> list[Path]:
    """The script, and every module of a folder that it imports, directly or not, sorted."""
    found, left = set(), [script]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [folder.joinpath(*name.split(".")) for name in _names(node)]
            files = [name.with_suffix(".py") for name in names]
            files += [name / "__init__.py" for name in names]
            left += [file for file in files if file.is_file()]
    return sorted(found)


def _names(node: ast.AST) -> list[str]:
    """What an import names; `from a import b` may mean the module a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def of_code(paths: Sequence[Path]) -> str:
    """Digest of files' code; not of comments, docstrings and layout."""
    digest = blake2b(digest_size=8)
    for path in paths:
        text = path.read_text("utf-8")
        kept = _without_docstrings(text) if path.suffix == ".py" else text
        digest.update(f"{path.name}\n{len(kept)}\n{kept}".encode())
    return digest.hexdigest()


def _without_docstrings(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(part: ast.stmt) -> bool:
    """A text by itself does nothing, whether it documents a function or a constant."""
    return (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )


def of_data(folder: Path, names: Iterable[str]) -> str:
    """Digest of what is in files, and of which of them are not there.

    Args:
        folder: the data folder; where it is does not count.
        names: of files below it, or of folders, whose files then all count.
    """
    digest = blake2b(digest_size=8)
    for name in sorted(set(names)):
        place = folder / name
        inside = sorted(path for path in place.rglob("*") if path.is_file())
        for path in inside or [place]:
            relative = path.relative_to(folder).as_posix()
            digest.update(f"{relative}\n{_of_file(path)}\n".encode())
    return digest.hexdigest()


def _of_file(path: Path) -> str:
    if not path.is_file():
        return "none"
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
