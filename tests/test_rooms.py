"""The house: imports go one way, and mixers are found by their file names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tikmix_hf

PACKAGE = Path(tikmix_hf.__file__).parent
NUMERICS = {"numpy", "scipy"}
# What one method needs, imported where it is used and nowhere else.
ONE_METHOD_NEEDS = {"_surrogate": {"lightgbm"}}
# Room -> the rooms of ours it may know. A room that is not here may know every room below it.
KNOWS = {
    "mixture": {"mixture"},
    "checks": set(),
    "configuring": set(),
    "files": set(),
    "rows": set(),
    "arrow_rows": set(),
    "installed_text": set(),
    "distributed": set(),
    "domains": {"mixture", "rows"},
    "schedule": {"files", "mixture", "plots", "schedule"},
    "order": {"order"},
    "mixers": {"mixers", "mixture"},
    "signals": {"checks", "signals", "distributed", "files"},
    "corpora": {"domains", "installed_text"},
    "figures": set(),
    "provenance": set(),
    "plots": {"figures"},
    "update_picture": {"figures"},
    "trackers": set(),
    "reporters": {"trackers"},
    "live": {"figures", "reporters", "trackers", "update_picture", "updates"},
    "checkpoint": {"files"},
    "dataset": {"arrow_rows", "domains", "mixture", "order", "ready_batch", "schedule"},
    "collate": {"ready_batch"},
    "harness": {
        *("checks", "dataset", "distributed", "domains", "files", "harness", "reporters"),
        *("rows", "schedule", "signals", "trainer_checks"),
    },
    "ready_batch": set(),
    # It meets training through files alone.
    "report": {"files", "plots", "report", "schedule"},
    "updates": {
        *("checkpoint", "checks", "collate", "dataset", "distributed", "domains", "files"),
        *("mixers", "mixture", "order", "rows", "schedule", "signals", "updates"),
    },
    "commands": {
        *("checkpoint", "checks", "collate", "commands", "configuring", "distributed", "domains"),
        *("files", "harness", "mixers", "mixture", "plots", "provenance", "recipe"),
        *("recipe_methods", "report", "schedule", "signals", "sources", "updates"),
    },
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, those for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_knows_only_the_rooms_below_it(path):
    mine = room(path)
    known = {name.split(".")[1] for name in imports(path) if name.startswith("tikmix_hf.")}
    known -= {"__version__"}
    if mine in KNOWS:
        assert known <= KNOWS[mine]
    if mine != "__init__":
        assert not known & {"callback"}, "nobody looks up to the callback"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_rooms(path):
    mine, outside = room(path), {name.split(".")[0] for name in imports(path)}
    if mine in ("mixture", "mixers") or path.stem in ("quota", "permutation"):
        allowed = {*NUMERICS, "tikmix_hf", *sys.stdlib_module_names}
        assert outside <= allowed | ONE_METHOD_NEEDS.get(path.stem, set())
    if mine not in ("plots", "figures", "update_picture"):
        assert "matplotlib" not in outside
    trainers = ("Trainer", "TrainerCallback", "TrainingArguments", "TrainerControl", "TrainerState")
    if mine not in ("callback", "trainer_checks", "reporters", "live", "recipe", "harness"):
        assert not imports(path) & {f"transformers.{name}" for name in trainers}


def test_mixers_can_be_used_without_torch_and_listed_without_lightgbm():
    code = "import sys; from tikmix_hf import Constraints, mixers; "
    code += "[mixers.load(name)() for name in mixers.available()]"
    heavy = {"torch", "transformers", "datasets", "matplotlib", "lightgbm"}
    check = f"; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code + check], check=True)


def test_every_public_name_is_there():
    for name in tikmix_hf.__all__:
        assert getattr(tikmix_hf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Mixer'"):
        tikmix_hf.Mixer  # noqa: B018
