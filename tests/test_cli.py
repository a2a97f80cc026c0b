"""`tikmix influence` on a tiny saved model and tiny files: what it measures, writes and refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tikmix_hf import GroupInfluence, InfluenceMatrix, MixtureSchedule, cli, mixers, recipe, sources
from tikmix_hf.collate import PackedCollator
from tikmix_hf.dry_run import aggregate
from tikmix_hf.heldout import HeldoutBatches, Portion
from tikmix_hf.signals import preconditioners

BLOCK = 16
ROWS, ROUNDS = 8, 2


def texts() -> dict[str, list[str]]:
    return {
        "numbers": [" ".join(str(i * j) for j in range(40)) for i in range(60)],
        "words": [f"the {a} fox of page {i} jumps over the {a} dog. " * 4
                  for i, a in enumerate(["red", "quick", "old"] * 20)],
        "code": [f"def f{i}(x):\n    return x + {i}\n" * 3 for i in range(60)],
        "tales": [f"the {a} dog sleeps on page {i}. " * 4
                  for i, a in enumerate(["red", "old"] * 9)],
        "sums": [" ".join(str(i + j) for j in range(30)) for i in range(18)],
    }  # fmt: skip


def make_tokenizer(vocabulary: int = 300) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for part in texts().values() for text in part], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def make_model(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def train_a_little(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Three AdamW steps in the Trainer's groups: matrices decay, norms do not."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for seed in range(3):
        ids = torch.randint(0, 290, (4, BLOCK), generator=torch.Generator().manual_seed(seed))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SimpleNamespace:
    """Sources, a recipe with training keys in it, a model, and a checkpoint as Trainer saves it."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, documents in texts().items():
        lines = [json.dumps({"text": text}) for text in documents]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    settings = {
        "domains": {n: {"path": str(folder / f"{n}.jsonl")} for n in ("numbers", "words", "code")},
        "targets": {n: {"path": str(folder / f"{n}.jsonl")} for n in ("tales", "sums")},
        "heldout": 0.2,
        "block_size": BLOCK,
        "mixture": {"numbers": 0.5, "words": 0.3, "code": 0.2},
        "mixer": "tikmix_d",
        "mixer_settings": {"gamma": 0.5},
        "num_rows": ROWS,
        "num_rounds": ROUNDS,
        "seed": 3,
        # Of the training, and nothing that measuring reads:
        "model_config": {"model_type": "llama"},
        "max_steps": 10,
        "learning_rate": 1.0e-3,
        "output_dir": "nowhere",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    make_model(len(tokenizer)).save_pretrained(folder / "model")
    trained = make_model(len(tokenizer))
    optimizer = train_a_little(trained)
    checkpoint = folder / "run" / "checkpoint-3"
    tokenizer.save_pretrained(checkpoint)
    trained.save_pretrained(checkpoint)
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 3}))
    return SimpleNamespace(
        folder=folder,
        recipe=str(folder / "recipe.yaml"),
        model=str(folder / "model"),
        checkpoint=str(checkpoint),
        trained=trained,
        optimizer=optimizer,
        tokenizer=tokenizer,
    )


def run(tiny, folder: Path, *words: str, models: tuple[str, ...] = ()) -> int:
    options = ["--config", tiny.recipe, "--output", str(folder), "--device", "cpu", "--quiet"]
    return cli.main(["influence", "--model", *(models or (tiny.model,)), *options, *words])


def measured_directly(tiny, engine: GroupInfluence, num_rounds: int = ROUNDS) -> InfluenceMatrix:
    """The same rows, by hand: round r reads the r-th share of each part's rows."""
    read = recipe.load(tiny.recipe)
    data = sources.load(read.data, tiny.tokenizer, read.seed)
    heldout = {domain.name: domain.heldout for domain in data.domains}

    def batches(parts, round_):
        made = {}
        for name, rows in parts.items():
            size = min(read.batch_size, max(1, min(ROWS, len(rows)) // num_rounds // 2))
            portion = Portion(0, ROWS, round_, num_rounds)
            made[name] = HeldoutBatches(
                rows,
                name,
                portion=portion,
                batch_size=size,
                collate=PackedCollator(),
                seed=read.seed,
            )
        return made

    rounds = [
        engine.measure(batches(heldout, r), batches(data.targets, r), refit=r == 0)
        for r in range(num_rounds)
    ]
    return InfluenceMatrix.mean(rounds)


def test_the_whole_command_says_what_the_engine_and_the_mixers_say(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--config", tiny.recipe, "--output", str(out), "--device", "cpu"]
    assert cli.main(["influence", "--model", tiny.model, *words]) == 0
    matrix = InfluenceMatrix.load(out / "influence.json")
    loaded = AutoModelForCausalLM.from_pretrained(tiny.model)
    direct = measured_directly(tiny, GroupInfluence(loaded, preconditioner="sign"))
    np.testing.assert_array_equal(matrix.values, direct.values)
    np.testing.assert_array_equal(matrix.rounds, direct.rounds)
    np.testing.assert_array_equal(matrix.domain_stderr, direct.domain_stderr)
    np.testing.assert_array_equal(matrix.target_stderr, direct.target_stderr)
    assert (matrix.domains, matrix.targets) == (("numbers", "words", "code"), ("tales", "sums"))

    record = json.loads((out / "mixtures.json").read_text())
    in_force = {"numbers": 0.5, "words": 0.3, "code": 0.2}
    assert record["mixture"] == pytest.approx(in_force)
    assert record["models"] == [tiny.model]
    q = np.array(list(in_force.values()))
    w = mixers.tikmix_d.solve(direct.values, q, gamma=0.5)
    chosen = record["mixers"]["tikmix_d"]
    np.testing.assert_allclose(list(chosen["mixture"].values()), w, rtol=0, atol=1e-9)
    scale = np.abs(direct.centred(q)).max(axis=1)
    gain = direct.values @ (w - q) / scale
    np.testing.assert_allclose(list(chosen["gain"].values()), gain, rtol=0, atol=1e-9)
    of_rounds = direct.rounds @ (w - q) / scale
    np.testing.assert_allclose(
        list(chosen["gain_stderr"].values()),
        np.abs(of_rounds[0] - of_rounds[1]) / 2,  # std(ddof=1) / sqrt(2), of two
        rtol=1e-6,
    )
    asked = {n for n in mixers.available() if mixers.load(n).requires == {"influence"}}
    assert set(record["mixers"]) == asked
    for name in asked:
        assert (out / f"schedule-{name}.json").is_file()
    schedule = MixtureSchedule.load(out / "schedule-tikmix_d.json")
    assert schedule.mixture_at(0) == pytest.approx(chosen["mixture"])
    assert (out / "influence.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    for words in ("numbers", "tales", "tikmix_d", "in force", "0.500", f"{w[0]:.3f}", str(out)):
        assert words in shown
    assert f"{direct.values[0, 0]:.4g} ± {direct.domain_stderr[0, 0]:.2g}" in shown


def test_options_win_over_the_recipe(tiny, tmp_path):
    words = ["--num_rows", "4", "--num_rounds", "1", "--mixers", "static", "--preconditioner"]
    assert run(tiny, tmp_path, *words, "identity", "--mixture", '{"words": 1.0}') == 0
    matrix = InfluenceMatrix.load(tmp_path / "influence.json")
    assert matrix.preconditioner == "identity"
    assert len(matrix.rounds) == 1
    assert matrix.num_tokens == 5 * 4 * BLOCK  # three domains and two targets, four rows each
    record = json.loads((tmp_path / "mixtures.json").read_text())
    assert record["mixture"] == {"numbers": 0.0, "words": 1.0, "code": 0.0}
    static = record["mixers"]["static"]
    assert static["mixture"] == record["mixture"]
    assert static["gain_stderr"] == {"tales": None, "sums": None}


def test_a_schedule_that_it_wrote_is_a_mixture_that_it_reads(tiny, tmp_path):
    assert run(tiny, tmp_path / "first") == 0
    schedule = str(tmp_path / "first" / "schedule-tikmix_d.json")
    assert run(tiny, tmp_path / "second", "--mixture", schedule) == 0
    first, second = (
        json.loads((tmp_path / name / "mixtures.json").read_text()) for name in ("first", "second")
    )
    assert second["mixture"] == first["mixers"]["tikmix_d"]["mixture"]


def test_adam_reads_the_state_that_the_trainer_saved(tiny, tmp_path):
    settings = ["--preconditioner", "adam", "--preconditioner_settings", '{"damping": 0.5}']
    assert run(tiny, tmp_path, *settings, models=(tiny.checkpoint,)) == 0
    matrix = InfluenceMatrix.load(tmp_path / "influence.json")
    adam = preconditioners.load("adam")(damping=0.5)
    live = GroupInfluence(tiny.trained, preconditioner=adam, optimizer=tiny.optimizer)
    np.testing.assert_array_equal(matrix.values, measured_directly(tiny, live).values)
    assert json.loads((tmp_path / "mixtures.json").read_text())["steps"] == [3]


def test_several_checkpoints_are_weighted_in_units_of_their_own(tiny, tmp_path):
    both = (tiny.model, tiny.checkpoint)
    assert run(tiny, tmp_path, "--weights", "1", "3", models=both) == 0
    first, second, mean = (
        InfluenceMatrix.load(tmp_path / f"influence{n}.json") for n in ("-1", "-2", "")
    )
    q = np.array([0.5, 0.3, 0.2])
    parts = [
        m.centred(q) / np.abs(m.centred(q)).max(axis=1, keepdims=True) for m in (first, second)
    ]
    np.testing.assert_allclose(mean.centred(q), 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-9)
    np.testing.assert_allclose(mean.rounds.mean(axis=0), mean.values, rtol=1e-9)
    louder = InfluenceMatrix.from_dict(
        {**second.to_dict(), "values": second.values * 7, "rounds": second.rounds * 7}
    )
    again = aggregate([first, louder], [1, 3], q)
    np.testing.assert_allclose(again.values, mean.values, rtol=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "1", "2"], "`--weights` must be one number for each of 1 models; got 2"),
        (["--mixers", "tikmix_x"], "must be an available mixer; got 'tikmix_x'. Did you mean"),
        (["--preconditioner", "sgn"], "got 'sgn'"),
        (["--preconditioner_settings", '{"damping": 1}'], "settings of Sign (none); got damping"),
        (["--preconditioner_settings", "{damping"], "must be JSON on the command line"),
        (["--mixture", "even"], "`mixture` must be 'natural', 'uniform'"),
        (["--mixture", "no/such.json"], "no/such.json is none"),
        (["--mixture", '{"word": 1.0}'], "Did you mean 'words'?"),
        (["--num_rows", "1"], "`num_rows` must give each of 2 rounds a row; got 1"),
        (["--num_rows", "900", "--num_rounds", "900"], "`num_rounds` must be at most"),
        (["--parameters", "("], "`parameters` must be"),
        (["--dtype", "int8"], "`--dtype` must be one of"),
        (["--device", "abacus"], "`--device` must be cpu, cuda"),
        (["--preconditioner", "adam"], 'preconditioner="sign"'),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_line_and_exit_code_2(tiny, tmp_path, capsys, words, message):
    assert run(tiny, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("tikmix influence: ")
    assert message in line
    assert not (tmp_path / "out").exists()


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


def test_help_has_an_example_and_needs_no_torch():
    check = "assert not {'torch', 'transformers'} & set(sys.modules)"
    code = f"import sys; from tikmix_hf import cli\ntry: cli.main(sys.argv[1:])\nfinally: {check}"
    for words in (["--help"], ["influence", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert "example: tikmix influence --model" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "tikmix_hf.cli", "influence"], capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--model" in line
