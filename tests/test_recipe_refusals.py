"""What the recipes refuse: one line with the mend, before a step is made, and never a trace."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_recipe_sft import run, sft
from test_recipes import write_yaml
from tiny_recipe import make_tiny

from tikmix_hf import MixtureSchedule, recipe, sources

ROOT = Path(__file__).parent.parent

import arguments  # noqa: E402  # pyright: ignore[reportMissingImports]
import pretrain  # noqa: E402  # pyright: ignore[reportMissingImports]

pytestmark = pytest.mark.filterwarnings("ignore")  # trl's and peft's own


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def lines(path: Path, *rows: dict, times: int = 4) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * times))
    return str(path)


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    long = {"prompt": "word " * 500, "completion": "b"}
    rows = {
        "ok": [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}],
        "long": [long],
        "once": [long, long, long, {"prompt": "a", "completion": "b"}],
        "foo": [{"foo": "a", "bar": "b"}],
        "number": [{"prompt": 0, "completion": 0}],
        "null": [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}],
        "silent": [{"prompt": "a", "completion": ""}],
    }
    found = {name: lines(tmp_path / f"{name}.jsonl", *own) for name, own in rows.items()}
    lines(tmp_path / "once.jsonl", *rows["once"], times=1)
    (tmp_path / "empty").touch()
    (tmp_path / "broken").write_text("domains: [a\n")
    (tmp_path / "typo").write_text("lerning_rate: 1.0\n")
    (tmp_path / "kind").write_text("learning_rate: 1e-4x\n")
    path = MixtureSchedule.constant({"web": 0.5, "code": 0.5}).save(tmp_path / "web.json")
    others = {name: str(tmp_path / name) for name in ("empty", "broken", "typo", "kind")}
    return {**found, **others, "web": str(path)}


def refusal(main, *words: Any) -> str:
    with pytest.raises(SystemExit) as raised:
        main(*words)
    (line,) = str(raised.value).splitlines()
    return line


def told(folder: Path, files: dict[str, str], words: str) -> str:
    filled = [re.sub(r"\{(\w+)\}$", lambda found: files[found[1]], word) for word in words.split()]
    return refusal(run, folder, *filled)


TO_CAPS = '{"caps":{"describe":0.1,"write":0.1,"reference":0.1,"operators":0.1}}'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mixture {web} --mixer static", r"schedule is for the domains \['web', 'code'\]"),
        ('--mixture {"web":1}', "`mixture` has no domain to bind 'web' to"),
        ('--constraints {"caps":{"web":0.3}}', "`caps` has no domain to bind 'web' to"),
        (f"--constraints {TO_CAPS}", "cannot hold together"),
        ("--heldout 1.5", r"`heldout` must be a share of rows in \(0, 1\); got 1.5"),
        ("--heldout 0", r"`heldout` must be a share of rows in \(0, 1\); got 0"),
        ("--domain a={ok} --target t={long}", "`target` t must have 2 rows or more .* loss within"),
        ("--domain a={long} b={ok} --target t={ok}", "`domain` a must have 2 rows or more"),
        ("--domain a={ok} --target t={once}", r"within `max_length` \(96 tokens\)"),
    ],
)
def test_what_only_the_prepared_rows_show_is_told_in_a_line(tmp_path, files, words, message):
    assert re.search(message, told(tmp_path, files, words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--domain a={foo} --target t={foo}", "`domain` a=.*foo.jsonl: .* `completion`.*; got "),
        ("--domain a={ok} --target t={empty}", "`target` t=.*empty: the file is empty"),
        ("--domain a={number} --target t={ok}", "row 1 has 0 in the column `prompt`"),
        ("--domain a={ok} --target t={null}", "row 2 has null in the column `completion`"),
        ("--domain a={silent} --target t={ok}", "every `completion` is empty"),
        ("--config nowhere.yaml", "`--config` must be a file; nowhere.yaml is none"),
        ("--config", "`--config` must be followed by a YAML file"),
        ("--config=nowhere.yaml", "nowhere.yaml is none"),
        ("--mixture runs/nothere", "there is no folder runs/nothere .*, and The Hub may not"),
        ("--learning_rat 3", "'--learning_rat'. Did you mean `--learning_rate`?"),
        ("--lora-rank 3", "Unknown argument '--lora-rank'."),
        ("--learning_rate 1e-4x", "invalid float value: '1e-4x'"),
    ],
)
def test_what_the_words_or_the_files_show_is_told_before_there_is_a_model(
    tmp_path, files, monkeypatch, words, message
):
    monkeypatch.setattr(sft, "make_model", lambda *_: pytest.fail("too late"))
    if words.startswith("--config"):
        line = refusal(sft.main, words.split())
    else:
        line = told(tmp_path, files, words)
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("broken", "broken is not YAML: while parsing"),
        ("typo", "unknown key `lerning_rate`. Did you mean `learning_rate`?"),
        ("kind", "invalid float value: '1e-4x'"),
    ],
)
def test_a_file_of_arguments_that_is_not_understood_is_told_in_a_line(files, file, message):
    line = refusal(sft.main, ["--config", files[file], "--output_dir", "x"])
    assert message in line
    assert "fail_with_unknown_args" not in line


def test_plain_text_may_have_a_column_of_ones_own(tmp_path):
    mine = lines(tmp_path / "mine.jsonl", {"body": "a"})
    args = sft.InstructionArguments(domain=[f"a={mine}"], target=[f"t={mine}"])
    with pytest.raises(ValueError, match="`messages`, or `text`; got body"):
        sft.load(args, 0)
    assert sft.load(args, 0, text_column="body").domains["a"].column_names == ["body"]


@pytest.mark.filterwarnings("default")
def test_completions_that_are_empty_are_counted(tmp_path):
    rows = {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}
    mine = lines(tmp_path / "mine.jsonl", *rows)
    args = sft.InstructionArguments(domain=[f"a={mine}"], target=[f"t={mine}"])
    with pytest.warns(UserWarning, match="`domain` a=.*: 4 of 8 rows have an empty"):
        sft.load(args, 0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict:
    """A recipe for `pretrain.py` of three small domains."""
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    names = ("domains", "targets", "heldout", "block_size")
    read = yaml.safe_load(Path(made.recipe).read_text())
    return {**{name: read[name] for name in names}, "tokenizer_name_or_path": made.model}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mixture {web} --mixer static", "schedule is for the domains"),
        ('--mixture {"web":1}', "`mixture` has no domain to bind 'web' to"),
        ('--constraints {"caps":{"web":0.3}}', "`caps` has no domain to bind 'web' to"),
        ("--learning_rat 3", "'--learning_rat'. Did you mean `--learning_rate`?"),
    ],
)
def test_pretraining_refuses_the_same(tmp_path, files, tiny, words, message):
    config = write_yaml(tmp_path / "run.yaml", **tiny)
    filled = words.replace("{web}", files["web"]).split()
    line = refusal(pretrain.main, ["--config", config, "--output_dir", str(tmp_path), *filled])
    assert message in line


def test_a_refusal_of_the_training_arguments_is_told_with_the_mend(monkeypatch):
    def refuse(self):
        raise ValueError("Your setup doesn't support\nbf16/gpu.")

    monkeypatch.setattr(recipe.TrainingArguments, "__post_init__", refuse)
    line = refusal(arguments.parse, ["--output_dir", "x"])
    assert (
        line == "Your setup doesn't support bf16/gpu. On a CPU, give --use_cpu true --bf16 false."
    )


def test_a_folder_that_is_not_there_is_told_before_the_hub_and_one_that_is_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder user/none") as raised:
        sources.read_mixture("user/none")
    assert os.getcwd() in str(raised.value)
    (tmp_path / "run").mkdir()
    with pytest.raises(FileNotFoundError) as raised:
        sources.read_mixture(f"{tmp_path}/run")
    assert "there is no folder" not in str(raised.value)
