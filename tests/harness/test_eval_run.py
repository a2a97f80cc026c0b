"""eval/run.py: what a result holds, what is refused, and how it ends."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import benchmarks
import pytest
import tiny
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "eval"))  # as running a script does

import compare_results
import run

from tikmix_hf import cli, files
from tikmix_hf.commands import parser
from tikmix_hf.harness import SuiteTask

EVAL = Path(run.__file__).parent


def suite_file(folder: Path, *tasks: SuiteTask, **changes: str) -> Path:
    entries = [
        {key: value for key, value in dataclasses.asdict(task).items() if value is not None}
        for task in tasks
    ]
    path = folder / "made_up.yaml"
    path.write_text(yaml.safe_dump({"tasks": entries, **changes}))
    return path


def save_checkpoint(folder: Path, seed: int = 0) -> Path:
    tiny.make_model(seed=seed, max_position_embeddings=512).save_pretrained(folder)
    benchmarks.make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run") / "last")


@pytest.fixture
def call(checkpoint, data_dir, tmp_path):
    """Runs it on two tasks; returns the exit status."""
    suite = suite_file(tmp_path, benchmarks.ARC, benchmarks.PIQA)

    def called(*words: str, model: Path = checkpoint) -> int:
        fixed = ["--suite", str(suite), "--data-dir", str(data_dir), "--output", str(tmp_path)]
        return run.main([str(model), *fixed, *words])

    return called


def result(folder: Path, name: str = "last_made_up") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def test_a_result_says_what_was_scored_how_and_on_what(call, tmp_path, checkpoint):
    assert call("--seed", "3") == 0
    found = result(tmp_path, "last_made_up_seed3")
    assert (found["name"], found["seed"], found["checkpoint"]) == ("last", 3, str(checkpoint))
    assert found["asked"] == ["arc_easy", "piqa"]
    assert (found["suite"], found["limit"], found["samples"]) == ("made_up", None, None)
    assert found["tasks"]["piqa"]["num_questions"] == 7
    assert found["tasks"]["piqa"]["num_fewshot"] == 2
    assert "sha256" in found["tasks"]["arc_easy"]["files"]["test"]
    own = [
        found["tasks"]["arc_easy"]["values"]["acc_norm"],
        found["tasks"]["piqa"]["values"]["acc"],
    ]
    assert found["averages"] == {"all": pytest.approx(sum(own) / 2)}
    assert {"command", "versions", "hardware", "date", "fewshot_seed"} <= found.keys()
    assert "lm_eval" in found["versions"]
    page = (tmp_path / "last_made_up_seed3.md").read_text()
    assert "| arc_easy | acc_norm |" in page
    assert f"weights {found['model']['weights_sha256'][:16]}, trained with seed 3. " in page
    assert "`, 1 rank, " in page
    assert call() == 0
    page = (tmp_path / "last_made_up.md").read_text()
    assert f"weights {found['model']['weights_sha256'][:16]}. " in page


def test_each_question_is_a_line_whose_mean_is_the_score(call, tmp_path):
    path = tmp_path / "questions.jsonl"
    assert call("--samples", str(path)) == 0
    found = result(tmp_path)
    assert found["samples"] == "questions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for task, scores in found["tasks"].items():
        own = [line for line in lines if line["task"] == task]
        assert [line["doc_id"] for line in own] == list(range(7))
        for metric in ("acc", "acc_norm", "bits_per_byte"):
            mean = sum(line[metric] for line in own) / 7
            assert mean == pytest.approx(scores["values"][metric], rel=1e-12)


def test_the_same_checkpoint_may_be_scored_again_and_another_not_in_its_place(
    call, tmp_path, capsys
):
    assert call() == 0
    assert call() == 0
    before = (tmp_path / "last_made_up.json").read_bytes()
    other = save_checkpoint(tmp_path / "other" / "last", seed=1)
    assert call(model=other) == 2
    assert "holds another result; differing: model" in capsys.readouterr().err
    assert call("--limit", "2") == 2
    assert "differing: limit, settings (arc_easy, piqa)." in capsys.readouterr().err
    assert (tmp_path / "last_made_up.json").read_bytes() == before
    assert call("--name", "other", model=other) == 0
    assert call("--force", model=other) == 0
    assert result(tmp_path)["model"] == result(tmp_path, "other_made_up")["model"]


def test_other_questions_of_the_same_tasks_do_not_replace_a_result(call, tmp_path, capsys):
    assert call() == 0
    for change in ({"num_fewshot": 1}, {"limit": 3}, {"fewshot_split": "train"}):
        suite_file(tmp_path, benchmarks.ARC, dataclasses.replace(benchmarks.PIQA, **change))
        assert call() == 2
        assert "holds another result; differing: settings (piqa)." in capsys.readouterr().err


def test_other_rows_do_not_replace_a_result_and_a_copy_does(call, data_dir, tmp_path, capsys):
    assert call() == 0
    assert "test.jsonl" in "".join(result(tmp_path)["data"]["arc_easy"])
    copied = shutil.copytree(data_dir, tmp_path / "copied")
    assert call("--data-dir", str(copied)) == 0
    (path,) = (copied / "piqa").glob("validation*")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        lines = file.readlines()
    with opened(path, "wt") as file:
        file.writelines(lines[::-1])
    before = (tmp_path / "last_made_up.json").read_bytes()
    assert call("--data-dir", str(copied)) == 2
    assert "holds another result; differing: data (piqa)." in capsys.readouterr().err
    assert (tmp_path / "last_made_up.json").read_bytes() == before


def test_questions_are_gzipped_where_the_name_says_so(call, tmp_path, monkeypatch):
    path = tmp_path / "samples" / "questions.jsonl.gz"
    plain = tmp_path / "questions.jsonl"
    assert call("--samples", str(plain)) == 0
    assert call("--samples", str(path)) == 0
    assert result(tmp_path)["samples"] == "samples/questions.jsonl.gz"
    assert gzip.decompress(path.read_bytes()) == plain.read_bytes()
    assert [own.name for own in path.parent.iterdir()] == [path.name]
    monkeypatch.chdir(path.parent)  # the same file by another name
    assert call("--samples", path.name) == 0
    found = compare_results.read_one(tmp_path / "last_made_up.json").questions
    assert len(found["arc_easy"]) == 7


def test_the_example_of_the_help_runs_and_json_is_what_was_written(
    checkpoint, data_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "model").symlink_to(checkpoint)
    (tmp_path / "benchmarks").symlink_to(data_dir)
    (command,) = [command for command in parser.COMMANDS if command.name == "eval"]
    (example,) = command.examples
    words = shlex.split(example)[1:]
    assert cli.main([*words, "--tasks", "arc_easy", "--limit", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(Path("runs/scores/last_quick.json").read_text())
    assert found["asked"] == ["arc_easy"]


def test_anothers_questions_are_not_overwritten(call, tmp_path, capsys):
    path = tmp_path / "questions.jsonl"
    path.write_text("mine\n")
    assert call("--samples", str(path)) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine\n"


def test_a_task_that_fails_is_named_and_the_others_are_written(call, data_dir, tmp_path, capsys):
    suite_file(tmp_path, benchmarks.ARC, SuiteTask(task="boolq", metric="acc", lm_eval="nowhere"))
    assert call() == 1
    assert "tikmix eval: boolq failed: " in capsys.readouterr().err
    found = result(tmp_path)
    assert found["tasks"]["arc_easy"]["failure"] is None
    assert found["averages"] == {"all": None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "quik"], "`suite` has no 'quik'. Did you mean 'quick'"),
        (["--tasks", "arc"], "`names` has no 'arc'"),
        (["--data-dir", "/nowhere"], "`data_dir` must be a folder"),
        (["--batch-size", "0"], "`--batch-size` must be auto or 1 or more"),
        (["--limit", "0"], "`limit` must be"),
        (["--name", "a/b"], "`--name` must be a file's name"),
        (["--suite", "offline"], "`--suite` must be of benchmarks"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_line(call, words, message, capsys, tmp_path):
    assert call(*words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_without_a_model_is_said_in_a_line(call, tmp_path, capsys):
    assert call(model=tmp_path / "nowhere") == 2
    assert "`checkpoint` must be a folder" in capsys.readouterr().err


def test_a_full_disk_loses_no_earlier_result(call, tmp_path, capsys, monkeypatch):
    assert call() == 0
    before = (tmp_path / "last_made_up.json").read_bytes()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    assert call() == cli.FAILED
    told = capsys.readouterr().err
    path = tmp_path / "last_made_up.json"
    assert told.endswith(f"tikmix eval: {path}: No space left on device.\n")
    assert (tmp_path / "last_made_up.json").read_bytes() == before


def test_questions_that_cannot_be_written_cost_no_scores(call, tmp_path, capsys, monkeypatch):
    replace, path = os.replace, tmp_path / "questions.jsonl"

    def full(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    assert call("--samples", str(path)) == cli.FAILED
    assert f"{path}: No space left on device." in capsys.readouterr().err
    found = result(tmp_path)
    assert found["tasks"]["piqa"]["num_questions"] == 7
    assert found["samples"] is None
    assert "| piqa |" in (tmp_path / "last_made_up.md").read_text()


@pytest.mark.parametrize("option", ["--output", "--samples"])
def test_what_cannot_be_written_is_refused_before_the_model_is_read(call, tmp_path, capsys, option):
    (tmp_path / "taken").touch()
    assert call(option, str(tmp_path / "taken" / "x"), model=tmp_path / "nowhere") == cli.WRONG
    told = capsys.readouterr().err
    assert told == f"tikmix eval: `{option}` must be in a folder; {tmp_path / 'taken'} is a file.\n"


def test_two_processes_write_one_result_with_the_same_scores(call, checkpoint, data_dir, tmp_path):
    assert call() == 0
    words = [str(EVAL / "run.py"), str(checkpoint), "--suite", str(tmp_path / "made_up.yaml")]
    words += ["--data-dir", str(data_dir), "--output", str(tmp_path / "two")]
    store = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *store, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = result(tmp_path), result(tmp_path / "two")
    assert (one["num_ranks"], two["num_ranks"]) == (1, 2)
    for task, scores in one["tasks"].items():
        values = two["tasks"][task]["values"]
        assert values["acc"] == scores["values"]["acc"]
        assert values["bits_per_byte"] == pytest.approx(scores["values"]["bits_per_byte"], rel=1e-6)
