"""The pre-training recipe, started as the README says, at a tiny size."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))  # as running the script does

import arguments  # noqa: E402
import yaml  # noqa: E402

from tikmix_hf import InfluenceMatrix, MixtureSchedule, cli, sources  # noqa: E402

TINY = {
    "model_config": {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "block_size": 16,
    "mixture": "uniform",
    "every_steps": 2,
    "num_rows": 4,
    "num_rounds": 2,
    "noise_guard": 0,
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1.0e-2,
    "use_cpu": True,
    "report_to": "none",
    "remove_unused_columns": False,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "save_strategy": "no",
}


def launch(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "recipes/pretrain.py", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )


def write_files(folder: Path) -> dict:
    """Three domains in three formats, a target with evals, and a tokenizer."""
    texts = {
        "numbers": [" ".join(str(i * j) for j in range(40)) for i in range(60)],
        "words": [f"the {a} fox of page {i} jumps over the {a} dog. " * 4
                  for i, a in enumerate(["red", "quick", "old"] * 20)],
        "code": [f"def f{i}(x):\n    return x + {i}\n" * 3 for i in range(60)],
    }  # fmt: skip
    with gzip.open(folder / "numbers.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"body": text}) + "\n" for text in texts["numbers"])
    for i, text in enumerate(texts["words"]):
        (folder / f"words{i}.txt").write_text(text)
    from datasets import Dataset

    Dataset.from_dict({"text": texts["code"]}).to_parquet(folder / "code.parquet")
    for name in ("target", "evals"):
        lines = [json.dumps({"text": text}) for text in texts["words"][::3]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for part in texts.values() for text in part], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.save_pretrained(folder / "tokenizer")
    return {
        "tokenizer_name_or_path": str(folder / "tokenizer"),
        "domains": {
            "numbers": {"path": str(folder / "numbers.jsonl.gz"), "text_column": "body"},
            "words": {"path": str(folder / "words*.txt")},
            "code": {"path": str(folder / "code.parquet")},
        },
        "targets": {
            "foxes": {
                "path": str(folder / "target.jsonl"),
                "evals": {"path": str(folder / "evals.jsonl")},
            },
            "sums": {"path": str(folder / "numbers.jsonl.gz"), "text_column": "body"},
            "dogs": {"path": str(folder / "evals.jsonl")},
        },
    }


def write_yaml(path: Path, **settings) -> str:
    path.write_text(yaml.safe_dump({**TINY, **settings}, sort_keys=False))
    return str(path)


def test_a_run_on_ones_own_files_leaves_everything_it_promises(tmp_path):
    config = write_yaml(tmp_path / "run.yaml", **write_files(tmp_path), control=True)
    done = launch("--config", config, "--output_dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    assert (out / "model" / "model.safetensors").stat().st_size > 0
    for picture in ("mixture.png", "influence.png", "audit.png", "losses.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (out / "influence.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    schedule = json.loads((out / "schedule.json").read_text())
    changes = [line["from_sample"] for line in lines if line["from_sample"] is not None]
    assert changes[0] == 12
    assert [segment["from_sample"] for segment in schedule["segments"]] == [0, *changes]
    assert [domain["name"] for domain in schedule["domains"]] == ["numbers", "words", "code"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["runs"]) == ["tikmix_d", "static"]
    for run in metrics["runs"].values():
        assert list(run["losses"]) == ["foxes", "sums", "dogs"]
        assert run["trained_tokens"] == 6 * 4 * 16
        assert 0 < run["mean_loss"] < 7
    static = json.loads((out / "static" / "schedule.json").read_text())
    assert len(static["segments"]) == 1
    planned = sum(line["planned_tokens"] for line in lines)
    assert f"({planned:,} planned)" in done.stdout
    for words in ("foxes", "tikmix_d", "static", "2 updates cost", "is lower", "Audit: "):
        assert words in done.stdout
    assert "[tikmix] step 2: from sample 12 on" in done.stdout


def test_the_quickstart_runs_at_a_tiny_size_and_as_its_own_control(tmp_path):
    small = ["--max_steps", "3", "--per_device_train_batch_size", "2", "--num_rows", "2"]
    small += ["--num_rounds", "1"]
    small += ["--eval_rows", "4", "--every_steps", "1", "--cache_dir", str(tmp_path / "cache")]
    few = "tasks: [{task: words, kind: cloze, metric: acc, limit: 10}]"
    (tmp_path / "few.yaml").write_text(few)
    small += ["--eval_suites", str(tmp_path / "few.yaml")]
    options = ["--config", "recipes/quickstart.yaml", *small]
    done = launch(*options, "--output_dir", str(tmp_path / "a"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["num_updates"] == 1
    for run in metrics["scores"].values():
        assert run["few"]["words"]["num_questions"] == 10 * len(run["few"]["words"]["subsets"]) > 50
    done = launch(*options, "--output_dir", str(tmp_path / "b"), "--mixer", "static")
    assert done.returncode == 0, done.stderr[-3000:]
    alone = json.loads((tmp_path / "b" / "metrics.json").read_text())["runs"]
    # `--mixer static` alone is the same run as the control beside the dynamic one.
    assert list(alone) == ["static"]
    assert alone["static"]["losses"] == metrics["runs"]["static"]["losses"]

    settings = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    settings |= {"cache_dir": str(tmp_path / "cache")}
    (tmp_path / "dry.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", str(tmp_path / "dry.yaml"), "--num_rows", "1", "--num_rounds", "1"]
    words += ["--model", str(tmp_path / "a" / "model"), "--output", str(tmp_path / "dry")]
    assert cli.main(["influence", *words, "--device", "cpu", "--quiet"]) == 0
    matrix = InfluenceMatrix.load(tmp_path / "dry" / "influence.json")
    assert matrix.domains == MixtureSchedule.load(tmp_path / "a/schedule.json").domains


def test_the_quickstart_makes_four_updates():
    settings = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    last_useful = settings["max_steps"] - 2  # one batch ahead, rounded up to a step
    assert last_useful // settings["every_steps"] >= 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1e-3}, "unknown key `lerning_rate`. Did you mean `learning_rate`?"),
        ({"every_step": 4}, "unknown key `every_step`. Did you mean `every_steps`?"),
        (
            {"learning_rate": "1e-3"},
            "`learning_rate` in .* must be of type float; got '1e-3'. "
            "YAML reads that as text: write `learning_rate: 1.0e-3`",
        ),
        (
            {"max_steps": "60"},
            "`max_steps` in .* must be of type int; got '60'. Write `max_steps: 60`",
        ),
        ({"max_steps": 1.5}, "must be of type int; got 1.5"),
        ({"observe": "maybe"}, "`observe` in .* must be of type bool; got 'maybe'"),
        ({"num_rows": True}, "`num_rows` in .* must be of type int; got True"),
        ({"mixer": ["tikmix_d"]}, "`mixer` in .* must be of type str"),
        ({"benchmarks_dir": 1}, "`benchmarks_dir` in .* must be of type str; got 1"),
        ({"eval_suites": "quick"}, r"type list; got 'quick'. Write `eval_suites: \[quick\]`"),
    ],
    ids=str,
)
def test_a_wrong_key_or_type_is_an_error_with_a_suggestion(tmp_path, settings, message):
    with pytest.raises(SystemExit, match=message):
        arguments.parse(["--config", write_yaml(tmp_path / "run.yaml", **settings)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config"], "must be followed by a YAML file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml is none"),
        (["--evry_steps", "3"], "Unknown argument '--evry_steps'. Did you mean `--every_steps`"),
        (["--max_steps", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_command_line_is_an_error_of_one_line(words, message):
    with pytest.raises(SystemExit, match=message) as raised:
        arguments.parse(words)
    assert len(str(raised.value).splitlines()) == 1


def test_the_command_line_wins_over_the_file(tmp_path):
    config = write_yaml(tmp_path / "run.yaml", mixer_settings={"gamma": 0.5}, observe=False)
    words = ["--config", config, "--max_steps", "9", "--observe", "true"]
    model, _, mixture, args = arguments.parse([*words, "--output_dir", str(tmp_path)])
    assert (args.max_steps, args.learning_rate, mixture.observe) == (9, 1e-2, True)
    assert mixture.mixer_settings == {"gamma": 0.5}
    assert model.model_config["hidden_size"] == 16


def test_the_mixture_may_be_the_file_of_a_schedule(tmp_path):
    path = MixtureSchedule.constant({"web": 0.75, "code": 0.25}).save(tmp_path / "schedule.json")
    config = write_yaml(tmp_path / "run.yaml", mixture=str(path))
    _, _, mixture, _ = arguments.parse(["--config", config, "--output_dir", str(tmp_path)])
    schedule = sources.read_mixture(mixture.mixture)
    assert schedule.mixture_at(0) == {"web": 0.75, "code": 0.25}
    with pytest.raises(ValueError, match=r"no/such\.json is none"):
        sources.read_mixture("no/such.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixer_settings": {"gama": 1}}, "`mixer_settings` must be settings of TikMixD"),
        (
            {"preconditioner": "sign", "preconditioner_settings": {"damping": 1}},
            r"settings of Sign \(none\); got damping",
        ),
        ({"preconditioner_settings": {"damping": 1}}, "`preconditioner` by name; it is 'auto'"),
        ({"mixture": "no/such.json"}, "`mixture` must be the file of a schedule"),
        ({"constraints": {"capz": {"web": 0.5}}}, "`constraints` must be settings of Constraints"),
        ({"mixer": "doremi"}, "`reference_model` must be a trained model"),
        ({"num_rounds": 0}, "`num_rounds` must be"),
        ({"noise_guard": -1}, "`noise_guard` must be finite and not negative; got -1"),
        ({"noise_guard": float("nan")}, "`noise_guard` must be finite and not negative; got nan"),
        ({"model_config": {"hidden_size": 16}}, "`model_name_or_path` or `model_config` must be"),
        ({"max_steps": 0}, "`max_steps` must be set"),
        ({"eval_suites": ["ofline"]}, "`eval_suites`: .* no 'ofline'. Did you mean 'offline'"),
        ({"eval_suites": ["quick", "quick"]}, "name each suite once; got quick, quick"),
        ({"benchmarks_dir": "nowhere"}, "`benchmarks_dir` must be a folder; got 'nowhere'"),
    ],
    ids=str,
)
def test_what_could_only_fail_later_fails_before_any_text_is_read(tmp_path, settings, message):
    import pretrain

    config = write_yaml(tmp_path / "run.yaml", domains={"web": {"path": "x"}}, **settings)
    with pytest.raises(SystemExit, match=message) as raised:
        pretrain.main(["--config", config, "--output_dir", str(tmp_path / "out")])
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": {"web": {"path": "no/such/*.jsonl"}}}, "`web.path` matches no file"),
        ({"domains": {"web": {"path": "README.md"}}}, "`web.path` must be one of .jsonl"),
        ({"domains": {"web": {"pth": "x"}}}, r"`web` has unknown keys \['pth'\]"),
        ({"domains": {"web": {}}}, "`web` must have either `path` or `dataset`"),
        ({"domains": "wikipedia"}, "`domains` must be 'embedded' or name sources"),
        ({"targets": {"arc": "arc.jsonl"}}, "`targets.arc` must be `path"),
        ({"targets": "embedded"}, "bring their own tokenizer"),
    ],
    ids=str,
)
def test_a_source_that_is_not_understood_is_named(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(ROOT)
    given = {**write_files(tmp_path), **change}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given["tokenizer_name_or_path"])
    data = arguments.DataArguments(
        domains=given["domains"], targets=given["targets"], block_size=16
    )
    with pytest.raises(ValueError, match=message):
        sources.load(data, tokenizer, seed=0)
