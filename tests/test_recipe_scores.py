"""What a recipe's models score at the end: which suites, which differences, and what is printed."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))  # as running the script does

import run_scores

from tikmix_hf.harness.scores import SuiteScores, TaskScores
from tikmix_hf.recipe import DataArguments

ROOT = Path(__file__).parent.parent


def suites_of(**settings):
    return [(own.name, *(t.task for t in own.tasks)) for own in find(**settings)]


def find(**settings):
    return run_scores.suites(DataArguments(**settings))


def benchmarks(folder: Path, *names: str) -> str:
    """Three questions each, whose right answer comes first."""
    row = {
        "id": "q",
        "question": "Which of these barks?",
        "choices": {"text": ["a dog", "a cat", "a tree", "rain"], "label": ["A", "B", "C", "D"]},
        "answerKey": "A",
    }
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "test.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    return str(folder)


def test_a_recipe_without_suites_asks_nothing_and_needs_no_lm_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert find() == []
    assert run_scores.scorers([], DataArguments(), None, None, progress=False) == []
    assert run_scores.record({"tikmix_d": [], "static": []}) == {}
    assert run_scores.tables({"tikmix_d": [], "static": []}) == []


@pytest.mark.parametrize("settings", [{"eval_suites": ["offline"]}, {"benchmarks_dir": "x"}])
def test_a_missing_lm_eval_is_named_before_any_text_is_read(tmp_path, monkeypatch, settings):
    import pretrain

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    recipe = {
        "model_config": {"model_type": "llama"},
        "domains": {"web": {"path": "x"}},
        "max_steps": 1,
        "use_cpu": True,
        **settings,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe))
    words = ["--config", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match=r'pip install "tikmix-hf\[eval\]"'):
        pretrain.main(words)


def test_a_folder_of_benchmarks_adds_arc_where_no_suite_has_a_benchmark(tmp_path):
    folder = benchmarks(tmp_path, "arc_easy", "arc_challenge")
    arc = ("quick", "arc_easy", "arc_challenge")
    offline = ("offline", "cloze", "continuation", "bits_per_byte")
    assert suites_of(benchmarks_dir=folder) == [arc]
    assert suites_of(eval_suites=["offline"], benchmarks_dir=folder) == [offline, arc]
    assert suites_of(eval_suites=["offline"]) == [offline]
    (tmp_path / "mine.yaml").write_text(
        "tasks: [{task: arc_easy, lm_eval: arc/arc_easy.yaml, metric: acc}]"
    )
    mine = str(tmp_path / "mine.yaml")
    assert suites_of(eval_suites=[mine], benchmarks_dir=folder) == [("mine", "arc_easy")]
    with pytest.raises(ValueError, match=r"a folder for each benchmark; .* has no piqa/\. Put"):
        find(eval_suites=["quick"], benchmarks_dir=folder)


def task(samples, metric="acc", **settings) -> TaskScores:
    return TaskScores(task="t", metric=metric, values={metric: 0.5}, samples=samples, **settings)


def sample(subset: str, number: int, value, **fields) -> dict:
    own = {"subset": subset, "doc_hash": f"{subset}{number}", "filter": "none", "acc": value}
    return {**own, **fields}


def test_a_difference_is_taken_question_by_question_and_its_error_is_that_of_pairs():
    parts = {"a": {}, "b": {}}
    first = [sample("a", 0, 1.0), sample("a", 1, 1.0), sample("b", 0, 0.0)]
    second = [sample("a", 0, 1.0), sample("a", 1, 0.0), sample("b", 0, 1.0)]
    found = run_scores.differences(task(first, subsets=parts), task(second, subsets=parts))
    # Of a: 0 and 1, mean 1/2, standard error sqrt(1/2) / sqrt(2). Of b: -1, one question alone.
    assert found["a"] == pytest.approx((0.5, 0.5))
    assert found["b"] == (-1.0, 0.0)
    assert found[""] == pytest.approx((0.0, 2 * 0.5 / 3))
    assert list(run_scores.differences(task(first), task(second))) == [""]


def test_a_difference_of_bits_per_byte_is_of_all_bits_over_all_bytes():
    nats = [(-8 * math.log(2), 4), (-3 * math.log(2), 1)]
    less = [(-4 * math.log(2), 4), (-3 * math.log(2), 1)]
    first, second = (
        task([sample("a", n, pair) for n, pair in enumerate(pairs)]) for pairs in (nats, less)
    )
    value, error = run_scores.differences(first, second)[""]
    assert value == pytest.approx(11 / 5 - 7 / 5)
    # Residuals 4 (1 - 0.8) and 1 (0 - 0.8), of two.
    assert error == pytest.approx(math.sqrt(2 * (0.8**2 + 0.8**2)) / 5)


def test_what_cannot_be_paired_has_no_error_and_what_failed_no_difference():
    bleu = task([sample("a", 0, 1.0)], metric="bleu")
    assert run_scores.differences(bleu, bleu) == {"": (0.0, None)}
    failed = TaskScores(task="t", metric="acc", failure="no rows")
    assert run_scores.differences(failed, task([])) == {}
    strict = [sample("a", 0, 1.0, filter="strict"), sample("a", 0, 0.0, filter="loose")]
    other = [sample("a", 0, 0.0, filter="strict"), sample("a", 0, 0.0, filter="loose")]
    assert run_scores.differences(
        task(strict, metric="acc,strict"), task(other, metric="acc,strict")
    ) == {"": (1.0, 0.0)}


def test_the_table_puts_runs_side_by_side_and_says_what_failed():
    own = {"values": {"bits_per_byte": 2.0}, "standard_errors": {}, "num_questions": 1}
    bits = TaskScores(
        task="bits_per_byte",
        metric="bits_per_byte",
        values={"bits_per_byte": 2.0},
        errors={"bits_per_byte": 0.25},
        subsets={"web": own, "code": own},
        samples=[
            sample(name, 0, 0.0, bits_per_byte=(-8 * math.log(2), 4)) for name in ("web", "code")
        ],
    )
    failed = TaskScores(task="arc_easy", metric="acc_norm", failure="ValueError: no rows")
    found = [SuiteScores(suite="all", tasks=(bits, failed))]
    scores = {"tikmix_d": found, "static": found}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(*run_scores.tables(scores))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    cells = [line.strip("│ ").replace(" │ ", "|") for line in lines]
    assert "bits_per_byte ↓|2.0000 ± 0.2500|2.0000 ± 0.2500|+0.0000 ± 0.0000" in cells
    assert "code|2.0000|2.0000|+0.0000 ± 0.0000" in cells
    assert any("arc_easy of static failed: ValueError: no rows" in line for line in lines)
    record = run_scores.record(scores)
    assert record["scores"]["static"]["all"]["arc_easy"]["failure"] == "ValueError: no rows"
    assert record["score_differences"] == {
        "tikmix_d - static": {
            "all": {
                "bits_per_byte": {
                    name: {"difference": 0.0, "standard_error": 0.0}
                    for name in ("all", "web", "code")
                },
                "arc_easy": {},
            }
        }
    }


def test_the_quickstart_ends_with_the_offline_suite():
    settings = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    assert settings["eval_suites"] == ["offline"]
