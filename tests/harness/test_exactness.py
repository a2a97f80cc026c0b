"""Scores equal those of lm-eval's own command line on the same files, to the last digit.

One command scores a tiny model on made-up questions, and on the real ARC sets where the folder with
them is there. Bits per byte are compared with a direct computation in float64.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import benchmarks
import lm_eval
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tikmix_hf.harness import Harness, Suite, SuiteTask, TaskScores
from tikmix_hf.harness.answers import multiple_choice, scores
from tikmix_hf.harness.tasks import prepare

REAL = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
TASKS = Path(lm_eval.__file__).parent / "tasks"
CHALLENGE = SuiteTask(task="arc_challenge", lm_eval="arc/arc_challenge.yaml", metric="acc_norm")
BATCH, LIMIT = 16, 300

MADE_UP = {"made_up_arc": benchmarks.ARC, "made_up_piqa": benchmarks.PIQA}
ON_REAL = {"real_arc_easy": benchmarks.ARC, "real_arc_challenge": CHALLENGE}
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real benchmarks in {REAL}")
CASES = [
    *MADE_UP,
    *(pytest.param(name, marks=needs_real) for name in ON_REAL),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that prefers some letters to others, or all choices would be alike to it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        pad_token_id=None,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    benchmarks.make_tokenizer().save_pretrained(folder)
    return folder


def definition(name: str, task: SuiteTask, folder: Path) -> dict[str, Any]:
    """lm-eval's own, with files for rows."""
    assert task.lm_eval is not None
    files = {
        split: str(next(folder.glob(f"{split}*")))
        for split in ("train", "validation", "test")
        if any(folder.glob(f"{split}*"))
    }
    missing = {} if "validation" in files else {"validation_split": None}
    return {
        "include": str(TASKS / task.lm_eval),
        "task": name,
        "tag": f"tag_of_{name}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "num_fewshot": task.num_fewshot,
        **missing,
    }


@pytest.fixture(scope="module")
def printed(
    checkpoint: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Mapping[str, Any]]:
    """What `python -m lm_eval run` finds, by task."""
    work = tmp_path_factory.mktemp("command_line")
    cases = [(name, task, data_dir) for name, task in MADE_UP.items()]
    cases += [(name, task, REAL) for name, task in ON_REAL.items() if REAL.is_dir()]
    for name, task, root in cases:
        text = yaml.safe_dump(definition(name, task, root / task.task))
        (work / f"{name}.yaml").write_text(text)
    words = ["--model", "hf", "--model_args", f"pretrained={checkpoint}", "--device", "cpu"]
    words += ["--tasks", *(name for name, _, _ in cases), "--include_path", str(work)]
    words += ["--batch_size", str(BATCH), "--limit", str(LIMIT)]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", *words, "--output_path", str(work / "out")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (work / "out").rglob("results_*.json")
    return json.loads(found.read_text())["results"]


def ours(task: SuiteTask, checkpoint: Path, data_dir: Path, limit: int = LIMIT) -> TaskScores:
    harness = Harness(
        Suite(name="one", tasks=(task,)),
        data_dir=data_dir,
        limit=limit,
        batch_size=BATCH,
        keep_samples=True,
        progress=False,
        raises=True,
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    return harness.score(model, AutoTokenizer.from_pretrained(checkpoint))[task.task]


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_lm_evals_command_line_to_the_last_digit(
    name, printed, checkpoint, data_dir
):
    task, root = (MADE_UP[name], data_dir) if name in MADE_UP else (ON_REAL[name], REAL)
    found = ours(task, checkpoint, root)
    assert found.num_questions == (7 if name in MADE_UP else LIMIT)
    theirs = printed[name]
    for metric in ("acc", "acc_norm"):
        assert found.values[metric] == theirs[f"{metric},none"]
        assert found.errors[metric] == theirs[f"{metric}_stderr,none"]
    assert 0 < found.values["acc"] < 1  # a score that anything could give shows nothing

    own = prepare(task, root).tasks[task.task]
    added, errors = scores(list(multiple_choice(own, found.samples)))
    assert added["acc_norm"] == pytest.approx(found.values["acc_norm"], rel=1e-15)
    assert errors["acc_norm"] == pytest.approx(found.errors["acc_norm"], rel=1e-12)


def bits_by_hand(rows: list[dict[str, Any]], checkpoint: Path) -> float:
    """Mean over ARC's rows of the right answer's bits per byte, one row at a time."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    found = []
    for row in rows:
        labels, texts = row["choices"]["label"], row["choices"]["text"]
        question = f"Question: {row['question']}\nAnswer:"
        answer = f" {texts[labels.index(row['answerKey'])]}"
        tokens = tokenizer.encode(question + answer)
        start = len(tokenizer.encode(question))
        with torch.no_grad():
            logits_TV = model(torch.tensor([tokens])).logits[0]
        nats_TV = torch.log_softmax(logits_TV.double(), dim=-1)
        nats = sum(float(nats_TV[t - 1, tokens[t]]) for t in range(start, len(tokens)))
        found.append(-nats / math.log(2) / len(answer.encode()))
    return sum(found) / len(found)


def test_bits_per_byte_are_those_of_a_direct_computation(checkpoint, data_dir):
    found = ours(benchmarks.ARC, checkpoint, data_dir)
    expected = bits_by_hand([benchmarks.arc(number) for number in range(7)], checkpoint)
    assert found.values["bits_per_byte"] == pytest.approx(expected, rel=1e-6)


@needs_real
@pytest.mark.parametrize("task", ON_REAL.values(), ids=ON_REAL)
def test_bits_per_byte_of_real_questions_are_those_of_a_direct_computation(task, checkpoint):
    with gzip.open(REAL / task.task / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(40), strict=False)]
    found = ours(task, checkpoint, REAL, limit=40)
    expected = bits_by_hand(rows, checkpoint)
    assert found.values["bits_per_byte"] == pytest.approx(expected, rel=1e-6)


@needs_real
def test_every_task_of_the_paper_can_be_asked_on_real_rows(checkpoint):
    suite = Suite.load("paper")
    # One subject stands for MMLU's 57, which are of one form.
    subject = SuiteTask(
        task="mmlu_anatomy_continuation",
        lm_eval="mmlu/continuation/mmlu_anatomy.yaml",
        folder="mmlu",
        subset_column="subject",
        metric="acc_norm",
    )
    tasks = tuple(subject if task.task == "mmlu" else task for task in suite.tasks)
    harness = Harness(
        dataclasses.replace(suite, tasks=tasks), data_dir=REAL, limit=2, progress=False
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    found = harness.score(model, AutoTokenizer.from_pretrained(checkpoint))
    assert found.failures == {}
    assert [task.num_questions for task in found.tasks] == [2] * 9
    with_bits = [task.task for task in found.tasks if "bits_per_byte" in task.values]
    assert len(with_bits) == 8  # all but the one that is written, not chosen
