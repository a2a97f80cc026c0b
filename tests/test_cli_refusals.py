"""What `tikmix influence` refuses: one line, exit code 2, and nothing written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny_recipe import BLOCK, make_model, make_tiny, make_tokenizer, run
from transformers import LlamaConfig, PreTrainedConfig

from tikmix_hf import cli
from tikmix_hf.commands import pretrained


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SimpleNamespace:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "1", "2"], "`--weights` must be one number for each of 1 models; got 2"),
        (["--mixers", "tikmix_x"], "`mixer` must be an available mixer; got 'tikmix_x'. Did"),
        (
            ["--preconditioner", "sign", "--preconditioner_settings", '{"damping": 1}'],
            "settings of Sign (none); got damping",
        ),
        (["--preconditioner_settings", '{"damping": 1}'], "`preconditioner` by name; it is 'auto'"),
        (["--preconditioner_settings", "{damping"], "such as {\"damping\": 0.2}; got '{damping'"),
        (
            ["--mixture", '{"words": .5}'],
            "breaks at character 11 (Expecting value). Write 0.5, not",
        ),
        (["--mixture", "{'words': 1}"], 'such as {"web": 0.7, "code": 0.3}; got'),
        (["--mixture", "{'words': 1}"], "breaks at character 2"),
        (["--mixture", "{}"], "`mixture` must"),
        (["--mixture", "even"], "`mixture` must be 'natural', 'uniform'"),
        (["--mixture", "no/such.json"], "no/such.json is none"),
        (["--mixture", '{"word": 1.0}'], "Did you mean 'words'?"),
        (["--num_rows", "1"], "`num_rows` must give each of 2 rounds a row; got 1"),
        (["--num_rows", "900", "--num_rounds", "900"], "`num_rounds` must be at most"),
        (["--parameters", "("], "`parameters` must be"),
        (["--parameters", "last 3 blocks"], "has 2; got 'last 3 blocks'"),
        (["--dtype", "int8"], "`--dtype` must be one of"),
        (["--device", "abacus"], "`--device` must be cpu, cuda"),
        (["--preconditioner", "adam"], "has none. Use --preconditioner sign, which reads none"),
        (["--preconditioner", "adam_unit"], "only where `--model` is a checkpoint of the Trainer"),
        (["--noise_guard", "-1"], "`noise_guard` must be finite and not negative; got -1"),
        (["--noise_guard", "nan"], "`noise_guard` must be finite and not negative; got nan"),
        (["--weights", "-1"], "`--weights` must be finite, not negative and not all zero; got -1"),
        (["--seed", "-1"], "`seed` must be whole and at least 0; got -1"),
        (["--weights", "nan"], "`--weights` must be finite"),
        (["--weights", "0"], "not all zero; got 0"),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_line_and_exit_code_2(tiny, tmp_path, capsys, words, message):
    assert run(tiny, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("tikmix influence: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("in_file", "words", "message"),
    [
        (
            "adam",
            ["sign"],
            "does not go with the recipe's `preconditioner_settings` {'damping': 0.5}",
        ),
        ("adam", ["kfac"], "which are for 'adam'. Give --preconditioner_settings too; '{}' is the"),
        ("adam", ["auto"], "which are for 'adam'"),
        (None, ["adam"], "which are for 'auto'"),
        ("adam", ["auto", "--preconditioner_settings", '{"damping": 1}'], "it is 'auto'"),
        # These go on, to the next thing that is wrong:
        ("adam", ["adam"], "needs a model"),
        ("adam", ["sign", "--preconditioner_settings", "{}"], "needs a model"),
    ],
    ids=str,
)
def test_settings_of_another_preconditioner_are_neither_used_nor_dropped(
    tiny, tmp_path, monkeypatch, capsys, in_file, words, message
):
    def describe(name):
        raise ValueError("needs a model")

    monkeypatch.setattr(pretrained, "describe", describe)
    settings = yaml.safe_load(Path(tiny.recipe).read_text())
    settings |= {"preconditioner": in_file, "preconditioner_settings": {"damping": 0.5}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    config = ["--config", str(tmp_path / "recipe.yaml"), "--device", "cpu"]
    assert cli.main(["influence", "--model", tiny.model, *config, "--preconditioner", *words]) == 2
    assert message in capsys.readouterr().err


def broken_model(tiny, folder: Path, kind: str) -> str:
    """A model of which one thing is wrong."""
    if kind == "missing":
        return str(folder / "no" / "such" / "folder")
    if kind == "parent":
        return str(Path(tiny.checkpoint).parent)
    shutil.copytree(tiny.checkpoint, folder / "model")
    if kind == "vocabulary":
        make_tokenizer(280).save_pretrained(folder / "model")
    if kind == "no tokenizer":
        for file in (folder / "model").glob("tokenizer*"):
            file.unlink()
    if kind == "short":
        make_model(len(tiny.tokenizer)).config.save_pretrained(folder / "model")
        config = json.loads((folder / "model" / "config.json").read_text())
        config["max_position_embeddings"] = BLOCK - 1
        (folder / "model" / "config.json").write_text(json.dumps(config))
    if kind == "pickle":
        torch.save({"state": Path("x"), "param_groups": []}, folder / "model" / "optimizer.pt")
    if kind == "other optimizer":
        other = make_model(300).lm_head
        optimizer = torch.optim.AdamW(other.parameters())
        other(torch.ones(1, 16)).sum().backward()
        optimizer.step()
        torch.save(optimizer.state_dict(), folder / "model" / "optimizer.pt")
    return str(folder / "model")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "must be a folder, or a repository of the Hub"),
        ("parent", "has no config.json. Did you mean"),
        ("vocabulary", "another vocabulary"),
        ("no tokenizer", "has no tokenizer; save it beside the model"),
        ("short", f"`block_size` must be at most what .* reads, {BLOCK - 1} tokens; got {BLOCK}"),
        ("pickle", "holds no elementwise Adam state"),
        ("other optimizer", "does not fit the model's parameters one by one"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(tiny, tmp_path, capsys, kind, message):
    words = ["--preconditioner", "adam"] if kind in ("pickle", "other optimizer") else []
    # A second model is held against the text that the first one's tokenizer made.
    given = (tiny.model,) if kind == "vocabulary" else ()
    models = (*given, broken_model(tiny, tmp_path, kind))
    assert run(tiny, tmp_path / "out", *words, models=models) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_text_of_a_larger_vocabulary_than_the_embedding_is_refused(tiny):
    num_entries = len(tiny.tokenizer)

    def check(vocab_size):
        config = LlamaConfig(vocab_size=vocab_size)
        model = pretrained.Pretrained("small", None, config, None)
        pretrained.check_fits(model, None, tiny.tokenizer, block_size=BLOCK)

    check(num_entries)
    check(num_entries + 1)  # embeddings are often padded
    sizes = rf"small .*\({num_entries - 1} entries\) .*\({num_entries}\)"
    with pytest.raises(ValueError, match=sizes):
        check(num_entries - 1)


def test_what_the_hub_cannot_bring_is_named(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(tiny, tmp_path / "out", models=("nobody/no-model",)) == cli.FAILED
    assert "`--model` nobody/no-model cannot be read: We couldn't" in capsys.readouterr().err
    away = pretrained.Pretrained("nobody/no-model", None, LlamaConfig(), None)
    with pytest.raises(OSError, match="`--model` nobody/no-model cannot be read"):
        pretrained.load_tokenizer(away)
    with pytest.raises(OSError, match="`--model` nobody/no-model cannot be read"):
        pretrained.load_model(away, dtype="auto", device=torch.device("cpu"))
    with pytest.raises(OSError, match="`tokenizer_name_or_path` nobody/no-words cannot be read"):
        pretrained.load_named_tokenizer("nobody/no-words")


def test_the_embedded_corpus_asks_for_a_model_with_its_vocabulary(tiny, tmp_path, capsys):
    settings = yaml.safe_load(Path(tiny.recipe).read_text())
    settings |= {"domains": "embedded", "targets": "embedded", "cache_dir": str(tmp_path)}
    settings |= {"vocab_size": 320}
    (tmp_path / "embedded.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", str(tmp_path / "embedded.yaml"), "--device", "cpu"]
    assert cli.main(["influence", "--model", tiny.model, *words]) == 2
    assert (
        "another vocabulary (300 entries) than the text is tokenised with (320)"
        in capsys.readouterr().err
    )


def test_a_wrong_recipe_is_named(tiny, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("lerning_rate: 1.0e-3\n")
    assert cli.main(["influence", "--model", "x", "--config", str(tmp_path / "bad.yaml")]) == 2
    assert "Did you mean `learning_rate`?" in capsys.readouterr().err


def test_a_state_that_could_be_of_either_parameter_is_refused(tmp_path):
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3, bias=False) for _ in range(2)))
    optimizer = torch.optim.AdamW([{"params": [parameter]} for parameter in model.parameters()])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(ValueError, match="does not fit the model's parameters one by one"):
        pretrained.load_optimizer(
            pretrained.Pretrained("tiny", tmp_path, PreTrainedConfig(), None), model
        )
