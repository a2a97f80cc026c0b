"""The wheel and the sdist: what is in them, and that they work where there is no repository.

In: archives that `python -m build` makes of a copy of the repository. Out: commands and a training
run in an environment that has the wheel and what its metadata say it depends on, and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tikmix_hf import MixtureSchedule

REPOSITORY = Path(__file__).parents[1]
BUILT = ("tikmix_hf", "recipes", "eval/suites", "pyproject.toml", "MANIFEST.in")
BUILT += ("README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE")


def run(*words: object, cwd: Path, status: int = 0) -> str:
    """What a command printed; it must end with this status."""
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def needed(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """Adds to `found` what a distribution needs without extras, and what that needs."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        marker, key = requirement.marker, canonicalize_name(requirement.name)
        wanted = not marker or any(marker.evaluate({"extra": e}) for e in ("", *requirement.extras))
        if wanted and key not in found:
            found[key] = distribution(key)
            needed(key, found)
    return found


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """An sdist, and the wheel that is built from it."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("archives")
    for name in BUILT:
        source, place = REPOSITORY / name, copy / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, place, symlinks=True)
        else:
            shutil.copy2(source, place, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=copy)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory) -> Path:
    """The folder of commands of an environment with the wheel and its dependencies alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    python, here = Path(paths["scripts"], "python"), Path(paths["purelib"])
    _, wheel = archives
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    for own in needed("tikmix-hf", {}).values():
        for name in {file.parts[0] for file in own.files or []} - {"..", "__pycache__"}:
            if not (here / name).exists():
                (here / name).symlink_to(own.locate_file(name))
    return python.parent


def files_of(archive: Path) -> set[str]:
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as members:
        return {name.partition("/")[2] for name in members.getnames()}


def test_both_archives_have_all_of_the_package_and_the_recipes(archives):
    package = REPOSITORY / "tikmix_hf"
    wanted = {
        f"tikmix_hf/{path.relative_to(package)}"
        for path in [*package.rglob("*"), *(package / "recipes").iterdir()]
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    assert {"tikmix_hf/recipes/quickstart.yaml", "tikmix_hf/report/script.js"} <= wanted
    sdist, wheel = map(files_of, archives)
    assert wanted <= wheel
    assert wanted <= sdist
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} <= sdist
    beside = {name.partition("/")[0] for name in wheel}
    assert {re.sub(r"-[\d.]+\.", ".", name) for name in beside} == {
        "tikmix_hf",
        "tikmix_hf.dist-info",
    }


def test_the_wheel_trains_outside_the_repository_without_extras(installed, tmp_path):
    script = shutil.copy(REPOSITORY / "tests" / "installed_run.py", tmp_path)
    shown = run(installed / "python", "-W", "ignore", script, tmp_path / "run", cwd=tmp_path)
    assert "[tikmix] step 2: " in shown
    assert "'web'" in shown
    where = run(
        installed / "python", "-c", "import tikmix_hf; print(tikmix_hf.__file__)", cwd=tmp_path
    )
    assert installed.parent in Path(where.strip()).parents


def test_the_command_line_is_there_without_extras(installed, tmp_path):
    assert "tikmix COMMAND --help" in run(installed / "tikmix", "--help", cwd=tmp_path)
    assert "tikmix_d" in run(installed / "tikmix", "mixers", cwd=tmp_path)
    run(installed / "tikmix", "recipes", "copy", "quickstart", "mine", cwd=tmp_path)
    assert (tmp_path / "mine" / "pretrain.py").read_bytes() == (
        REPOSITORY / "recipes" / "pretrain.py"
    ).read_bytes()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["plot", "schedule.json", "--num_samples", "100"], "recipes"),
        (["completion", "bash"], "cli"),
        (["eval", "model", "--suite", "quick", "--name", "a"], "eval"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_needs_an_extra_names_it(installed, tmp_path, words, extra):
    MixtureSchedule.constant({"web": 0.5, "code": 0.5}).save(tmp_path / "schedule.json")
    shown = run(installed / "tikmix", *words, cwd=tmp_path, status=1)
    assert f"tikmix-hf[{extra}]" in shown
    assert "Traceback" not in shown


def test_public_names_need_no_extra(installed, tmp_path):
    names = "import tikmix_hf; [getattr(tikmix_hf, name) for name in tikmix_hf.__all__]"
    run(installed / "python", "-c", names, cwd=tmp_path)
