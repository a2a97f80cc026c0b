"""Where an installation keeps text: the files behind each embedded domain and target.

In: nothing but the installed standard library and packages. Out: `DOMAINS` and `TARGETS`, tables of
:class:`TextFiles`, each of which yields one list of documents per file. Files are found by path and
parsed, never imported or run; what an installation lacks is left out.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

# Larger files are mostly generated; a whole one would also overshoot any cap.
MAX_FILE_BYTES = 150_000
# Tests repeat the same few lines thousands of times; vendored packages are somebody else's text.
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "_vendor"})
# A table's entries are joined until they make a document of this many characters.
TABLE_CHARACTERS = 1_000
# Licences and comments in front of code are one text in thousands of files.
LEADING_COMMENTS = re.compile(r"\A(?:\s*(?:#[ !][^\n]*|#\n|//[^\n]*|/\*.*?\*/))+", re.DOTALL)
# The part of the standard library whose docstrings are a target; its code is in no domain.
STDLIB_TARGET = (
    *("asyncio", "concurrent", "email", "http", "importlib", "json", "logging"),
    *("multiprocessing", "tkinter", "unittest", "urllib", "wsgiref", "xml"),
)

Reader = Callable[[Path], list[str]]


def read_docstrings(path: Path) -> list[str]:
    """Docstrings of a Python file in order of appearance; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    return list(_docstrings(tree))


def _docstrings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
        text := ast.get_docstring(node)
    ):
        yield text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):  # expressions hold no docstrings and are most of the tree
            yield from _docstrings(child)


def read_code(path: Path) -> list[str]:
    """One document: the file without the comments in front of its first line of code."""
    return [LEADING_COMMENTS.sub("", path.read_text("utf-8", errors="ignore")).strip()]


def read_paragraphs(path: Path) -> list[str]:
    """Paragraphs, each a document of its own: licences share most of theirs."""
    return re.split(r"\n\s*\n", path.read_text("utf-8", errors="ignore").strip())


def read_table(path: Path) -> list[str]:
    """Entries between blank lines, joined in order to documents of at least 1,000 characters."""
    documents = [""]
    for entry in re.split(r"\n\s*\n", path.read_text("utf-8", errors="ignore").strip()):
        if len(documents[-1]) >= TABLE_CHARACTERS:
            documents.append("")
        documents[-1] = f"{documents[-1]}\n\n{entry}".lstrip()
    return documents


def read_topics(path: Path) -> list[str]:
    """Values of the dictionary of strings that the help files of Python consist of."""
    values = [n.value for n in ast.parse(path.read_bytes()).body if isinstance(n, ast.Assign)]
    topics = [ast.literal_eval(value) for value in values if isinstance(value, ast.Dict)]
    return [text for topic in topics for text in topic.values()]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFiles:
    """Files of one kind of text, and how documents are read from them."""

    description: str
    """One line for people."""
    tags: tuple[str, ...]
    """What a mixer or a reader may group by."""
    roots: tuple[str, ...]
    """Packages or folders in them, as in "torch/nn"; "stdlib" and "licences" are places as well."""
    read: Reader
    """File to documents."""
    pattern: str = "*.py"
    """Which files under the roots."""
    skip: frozenset[str] = frozenset()
    """Names of folders and files that belong to another table entry or are boilerplate."""
    is_collection: bool = False
    """The few files are collections of independent entries: each counts as a file of its own."""

    def units(self, seed: str) -> Iterator[list[str]]:
        """Documents file by file, in an order drawn from `seed` and the paths alone."""
        files = {name: path for root in self.roots for name, path in self._files(root)}
        shuffled = sorted(files, key=lambda name: blake2b(f"{seed}/{name}".encode()).digest())
        if self.is_collection:
            documents = [text for name in shuffled for text in self.read(files[name])]
            documents.sort(key=lambda text: blake2b(f"{seed}/{text}".encode()).digest())
            yield from ([text] for text in documents)
        else:
            yield from (self.read(files[name]) for name in shuffled)

    def _files(self, root: str) -> Iterator[tuple[str, Path]]:
        skipped = SKIPPED_FOLDERS | self.skip
        for folder in locate(root):
            for path in folder.rglob(self.pattern):
                inside = path.relative_to(folder)
                unwanted = not skipped.isdisjoint(inside.parts) or not path.is_file()
                if unwanted or (path.stat().st_size > MAX_FILE_BYTES and not self.is_collection):
                    continue
                yield f"{root}/{folder.name}/{inside.as_posix()}", path


def locate(root: str) -> list[Path]:
    """Folders that a root stands for; empty if this installation does not have them."""
    package, _, inside = root.partition("/")
    if package == "stdlib":
        places = [Path(sysconfig.get_path("stdlib"))]
    elif package == "licences":
        # Licences of packages behind the targets stay out: a target's package is in no domain.
        foreign = {root.partition("/")[0] for files in TARGETS.values() for root in files.roots}
        return [p for p in metadata_folders() if p.name.partition("-")[0] not in foreign]
    else:
        spec = find_spec(package)
        places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    return [place / inside for place in places if (place / inside).is_dir()]


def metadata_folders() -> list[Path]:
    """The ``name-version.dist-info`` folders beside our own dependencies, in order of name."""
    parents = {path.parent for package in ("numpy", "torch") for path in locate(package)}
    return sorted(path for parent in parents for path in parent.glob("*.dist-info"))


DOMAINS = {
    "python_code": TextFiles(
        description="Source code of the Python standard library",
        tags=("code", "python"),
        roots=("stdlib",),
        read=read_code,
        skip=frozenset({*STDLIB_TARGET, "encodings", "idlelib", "lib2to3", "pydoc_data"}),
    ),
    "python_reference": TextFiles(
        description="The Python language reference, as the interpreter's help shows it",
        tags=("prose", "python"),
        roots=("stdlib/pydoc_data",),
        read=read_topics,
        pattern="topics.py",
        is_collection=True,
    ),
    "science_docs": TextFiles(
        description="Docstrings of NumPy and SciPy",
        tags=("docs", "science"),
        roots=("numpy", "scipy"),
        read=read_docstrings,
    ),
    "learning_docs": TextFiles(
        description="Docstrings of PyTorch and Transformers",
        tags=("docs", "machine learning"),
        roots=(
            *(f"torch/{part}" for part in ("nn", "optim", "distributions", "distributed", "fx")),
            *(f"torch/{part}" for part in ("utils", "autograd", "cuda", "jit", "export")),
            "transformers",
        ),
        read=read_docstrings,
        skip=frozenset({"models"}),
    ),
    "algebra_docs": TextFiles(
        description="Docstrings of SymPy: algebra with worked examples",
        tags=("docs", "mathematics"),
        roots=("sympy",),
        read=read_docstrings,
    ),
    "cpp_headers": TextFiles(
        description="C++ headers of PyTorch",
        tags=("code", "c++"),
        roots=("torch/include/ATen", "torch/include/c10", "torch/include/torch"),
        read=read_code,
        pattern="*.h",
        skip=frozenset({"ops"}),
    ),
    "operator_tables": TextFiles(
        description="YAML tables of PyTorch's operators and their derivatives",
        tags=("data", "yaml"),
        roots=("torchgen/packaged",),
        read=read_table,
        pattern="*.yaml",
        is_collection=True,
    ),
    "licences": TextFiles(
        description="Licence texts of installed packages, every paragraph once",
        tags=("prose", "law"),
        roots=("licences",),
        read=read_paragraphs,
        pattern="*LICEN*",
    ),
}

TARGETS = {
    "graph_docs": TextFiles(
        description="Docstrings of NetworkX",
        tags=("docs", "mathematics"),
        roots=("networkx",),
        read=read_docstrings,
    ),
    "numerics_docs": TextFiles(
        description="Docstrings of mpmath: arbitrary-precision numerics",
        tags=("docs", "mathematics"),
        roots=("mpmath",),
        read=read_docstrings,
    ),
    "table_docs": TextFiles(
        description="Docstrings of pandas",
        tags=("docs", "data"),
        roots=("pandas",),
        read=read_docstrings,
    ),
    "stdlib_docs": TextFiles(
        description="Docstrings of standard-library packages that are in no domain",
        tags=("docs", "python"),
        roots=tuple(f"stdlib/{package}" for package in STDLIB_TARGET),
        read=read_docstrings,
    ),
    "hub_code": TextFiles(
        description="Source code of huggingface_hub, accelerate and datasets",
        tags=("code", "python"),
        roots=("huggingface_hub", "accelerate", "datasets"),
        read=read_code,
    ),
    "arrow_headers": TextFiles(
        description="C++ headers of Apache Arrow",
        tags=("code", "c++"),
        roots=("pyarrow/include/arrow",),
        read=read_code,
        pattern="*.h",
    ),
}
