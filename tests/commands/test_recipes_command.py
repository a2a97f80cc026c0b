"""`tikmix recipes`, `tikmix completion`, and every example of every help text."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_files import make_files, make_schedule
from tiny_recipe import make_tiny

from tikmix_hf import MixtureSchedule, cli
from tikmix_hf.commands import parser, recipes, setup_options

REPOSITORY = Path(__file__).parents[2]
# It scores a benchmark: tests/harness/test_eval_run.py runs it.
LONG = ("eval",)
EXAMPLES = [
    example
    for command in parser.COMMANDS
    if command.name not in LONG
    for example in command.examples
]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipes_of_the_package_are_those_of_the_repository():
    assert recipes.FOLDER.resolve() == REPOSITORY / "recipes"
    configured = {path.stem for path in (REPOSITORY / "recipes").glob("*.yaml")}
    assert {recipe.name for recipe in recipes.available()} <= configured


def test_list_names_each_recipe_its_script_and_what_it_does(place, capsys):
    assert cli.main(["recipes", "list", "--json"]) == 0
    (quickstart,) = [r for r in json.loads(capsys.readouterr().out) if r["name"] == "quickstart"]
    assert quickstart["about"].startswith("A small Llama")
    assert quickstart["files"][:2] == ["quickstart.yaml", "pretrain.py"]
    # What accelerate reads is copied beside its recipe, and is none itself.
    assert "fsdp2" not in [recipe.name for recipe in recipes.available()]
    assert cli.main(["recipes", "list"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^quickstart +pretrain\.py +A small Llama, .*\.$", shown, re.MULTILINE)


def test_a_copy_has_every_file_that_its_script_imports(place, capsys):
    for recipe in recipes.available():
        assert cli.main(["recipes", "copy", recipe.name, f"copies/{recipe.name}"]) == 0
        folder = place / "copies" / recipe.name
        copied = {path.name for path in folder.iterdir()}
        assert {f"{recipe.name}.yaml", recipe.files[1].name} <= copied
        beside = {path.stem for path in (REPOSITORY / "recipes").glob("*.py")}
        mentioned = re.findall(r"recipes/(\w+\.yaml)", recipe.files[0].read_text("utf-8"))
        assert set(mentioned) <= copied
        for path in folder.glob("*.py"):
            assert path.read_bytes() == (REPOSITORY / "recipes" / path.name).read_bytes()
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                assert {f"{n}.py" for n in names if n in beside} <= copied
    shown = capsys.readouterr().out
    script, config = "copies/quickstart/pretrain.py", "copies/quickstart/quickstart.yaml"
    assert f"Run it: accelerate launch {script} --config {config}" in shown


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("sft", "accelerate launch mine/sft.py --config mine/sft.yaml"),
        ("transfer", "accelerate launch mine/pretrain.py --config mine/transfer.yaml"),
        (
            "continue_pretrain",
            "accelerate launch --config_file mine/fsdp2.yaml mine/pretrain.py "
            "--config mine/continue_pretrain.yaml",
        ),
    ],
)
def test_a_copy_is_started_as_the_head_comment_says(place, capsys, name, command):
    assert cli.main(["recipes", "copy", name, "mine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == command
    assert set(re.findall(r"mine/[\w.]+", command)) <= set(told["files"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["copy"], "`copy` needs the name of a recipe: "),
        (["copy", "quickstrat"], "there is no recipe 'quickstrat'. Did you mean 'quickstart'?"),
        (["copy", "fine_tuning_of_things"], "Choose from: "),
        (["list", "quickstart"], "`list` takes no name"),
        (["copy", "quickstart", "file"], "`DEST` must be a folder; file is a file."),
        (["copy", "quickstart", "mine"], "mine/quickstart.yaml would be overwritten. Name another"),
    ],
    ids=str,
)
def test_what_cannot_be_copied_is_said_in_a_line(place, capsys, words, told):
    (place / "file").touch()
    (place / "mine").mkdir()
    (place / "mine" / "quickstart.yaml").write_text("changed\n")
    assert cli.main(["recipes", *words]) == cli.WRONG
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert (place / "mine" / "quickstart.yaml").read_text() == "changed\n"
    assert len(list((place / "mine").iterdir())) == 1


def test_force_overwrites(place):
    (place / "mine").mkdir()
    (place / "mine" / "quickstart.yaml").write_text("changed\n")
    assert cli.main(["recipes", "copy", "quickstart", "mine", "--force"]) == 0
    assert (place / "mine" / "quickstart.yaml").read_text() != "changed\n"


def completion(shell: str, capsys) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", setup_options.SHELLS)
def test_a_shell_completes_every_command_and_option(shell, capsys):
    script = completion(shell, capsys)
    for word in (*(command.name for command in parser.COMMANDS), "max_change", "exit-code"):
        assert word in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_bash_completes_in_fact(place, capsys):
    (place / "done.bash").write_text(completion("bash", capsys))
    (place / "matrix.csv").touch()
    asked = """
source done.bash
complete() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _shtab_tikmix
  echo "${COMPREPLY[@]}"
}
complete tikmix sh
complete tikmix solve --mixer_
complete tikmix completion f
complete tikmix solve mat
"""
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash], input=asked, capture_output=True, text=True)
    assert done.stdout.split("\n")[:4] == ["show", "--mixer_settings", "fish", "matrix.csv"]


def test_without_shtab_completion_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == cli.FAILED
    assert "pip install tikmix-hf[cli]" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_runs(example, tiny, place, monkeypatch, capsys):
    make_files(place)
    (place / "gpt2").symlink_to(tiny.model)
    (place / "my_run.yaml").symlink_to(tiny.recipe)

    def push_to_hub(self, repo_id, **given):
        return repo_id

    def from_pretrained(repo_id, *, revision=None):
        return make_schedule(0.5)

    monkeypatch.setattr(MixtureSchedule, "push_to_hub", push_to_hub, raising=False)
    monkeypatch.setattr(MixtureSchedule, "from_pretrained", from_pretrained, raising=False)
    program, *words = shlex.split(example.partition(" > ")[0])
    assert program == "tikmix"
    # What the example compares differs, and it asks to be told by the status.
    assert cli.main(words) == int("--exit-code" in words)
    assert capsys.readouterr().out
