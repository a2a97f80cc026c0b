"""The recipe's scoring on two ranks: one process gives the same scores of the model they trained.

The launcher's `--cpu --num_processes 2` starts a single process without a word; `--multi_gpu` with
`use_cpu` starts two.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_recipe_scores import benchmarks
from tiny_recipe import make_tokenizer
from tokenizers import decoders
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent  # recipes/ is on the path since test_recipe_scores

import arguments  # noqa: E402
import run_scores  # noqa: E402

from tikmix_hf import sources  # noqa: E402

MAX_STEPS, BATCH = 2, 4


def write_domain(path: Path, words: list[str], num_documents: int) -> dict[str, str]:
    rng = random.Random(path.name)
    texts = (" ".join(rng.choices(words, k=20)) for _ in range(num_documents))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"path": str(path)}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()  # questions are made of its text
    tokenizer.save_pretrained(folder / "tokenizer")
    tales = ["the", "red", "quick", "old", "fox", "jumps", "over", "dog", "sleeps", "page"]
    code = ["def", "return", "page", "import", "lambda", "yield", "class", "assert", "while"]
    settings = {
        "model_config": {
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        "tokenizer_name_or_path": str(folder / "tokenizer"),
        "domains": {
            "tales": write_domain(folder / "tales.jsonl", tales, 200),
            "code": write_domain(folder / "code.jsonl", code, 200),
        },
        "targets": {"fables": write_domain(folder / "fables.jsonl", tales, 30)},
        "heldout": 0.3,
        "block_size": 128,
        "mixer": "static",
        "eval_suites": ["offline"],
        "benchmarks_dir": benchmarks(folder / "data", "arc_easy", "arc_challenge"),
        "max_steps": MAX_STEPS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1.0e-2,
        "output_dir": str(folder / "out"),
        "use_cpu": True,
        "report_to": "none",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


def test_two_ranks_score_what_one_process_does(recipe):
    config = ["--config", str(recipe / "run.yaml")]
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    done = subprocess.run(
        [*launch, "recipes/pretrain.py", *config],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((recipe / "out" / "metrics.json").read_text())
    assert metrics["runs"]["static"]["num_samples"] == MAX_STEPS * BATCH * 2  # there were two
    _, data_args, _, args = arguments.parse(config)
    data = sources.load(data_args, AutoTokenizer.from_pretrained(recipe / "tokenizer"), args.seed)
    model = AutoModelForCausalLM.from_pretrained(recipe / "out" / "model")
    suites = run_scores.suites(data_args)
    scorers = run_scores.scorers(suites, data_args, data.domains, data.tokenizer, progress=False)
    assert list(metrics["scores"]["static"]) == ["offline", "quick"]
    for scorer, (suite, found) in zip(scorers, metrics["scores"]["static"].items(), strict=True):
        alone = scorer.score(model, data.tokenizer)
        assert (alone.suite, list(found)) == (suite, [own.task for own in alone.tasks])
        for own in alone.tasks:
            assert found[own.task]["failure"] is None
            assert found[own.task]["num_questions"] == own.num_questions
            assert found[own.task]["values"] == pytest.approx(own.values, rel=1e-5)
            # Printed once, by the first rank.
            assert done.stdout.count(f"{own.task} ") == 1
