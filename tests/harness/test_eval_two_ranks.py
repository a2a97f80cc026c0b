"""Two processes score as one does, and fail together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmarks
import pytest
from eval_two_ranks import UNLIKE, good

from tikmix_hf.files import read_records

SCRIPT = Path(__file__).parent / "eval_two_ranks.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("ranks")
    benchmarks.write(folder / "data")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = subprocess.run(
        [sys.executable, *launch, str(SCRIPT), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    alone = json.loads(json.dumps(good(data_dir)))
    return alone, ranks, folder


def test_two_processes_give_the_scores_of_one(runs):
    alone, ranks, _ = runs
    assert alone["questions"] == [7, 7, 7]  # two ranks cannot share them evenly
    assert not alone["failures"]
    for rank in ranks:
        assert rank["good"]["questions"] == alone["questions"]
        assert rank["good"]["prompts"] == alone["prompts"]
        assert rank["good"]["texts"] == alone["texts"]
        assert rank["good"]["scores"].keys() == alone["scores"].keys()
        for name, value in alone["scores"].items():
            # In a batch of other questions a log-likelihood is summed in another order.
            is_exact = "bits_per_byte" not in name
            near = value if is_exact else pytest.approx(value, rel=1e-6)
            assert rank["good"]["scores"][name] == near, name


def test_the_texts_that_were_compared_are_none_that_are_alike(runs):
    alone, _, _ = runs
    texts = [text for (text,) in alone["texts"]]
    assert len(set(texts)) > 1
    assert all(texts)


@pytest.mark.parametrize(
    ("spoil", "task", "told_by_0", "told_by_1"),
    [
        ("missing", "arc_easy", "rank 1: FileNotFoundError", "Add test.jsonl beside them"),
        ("bad_row", "piqa", "rank 1: ValueError: the rows of piqa", "right answer 2 is not among"),
        ("other_rows", "piqa", "must be the same on every rank; ranks [1]", "ranks [1] of 2"),
    ],
)
def test_what_one_rank_fails_of_is_reported_by_both(runs, spoil, task, told_by_0, told_by_1):
    _, ranks, _ = runs
    for rank, told in zip(ranks, (told_by_0, told_by_1), strict=True):
        assert list(rank[spoil]["failures"]) == [task]
        assert told in rank[spoil]["failures"][task]
        others = {name.split("/")[1] for name in rank[spoil]["scores"]}
        assert others == {"arc_easy", "piqa", "triviaqa"} - {task}


def test_a_failure_that_is_raised_is_raised_by_both(runs):
    _, ranks, _ = runs
    assert ranks[0]["raised"].startswith("OtherRankFailed: another rank failed; rank 1: FileNotF")
    assert ranks[1]["raised"].startswith("FileNotFoundError: arc_easy is scored on the split test")


def test_a_forward_that_raises_on_one_rank_is_everybodys_failure(runs):
    _, ranks, _ = runs
    for task in ("arc_easy", "piqa", "triviaqa"):
        assert "rank 1: RuntimeError: rank 1 lost its memory" in ranks[0]["forward"][task]
        assert ranks[1]["forward"][task] == "RuntimeError: rank 1 lost its memory"


def test_after_all_these_failures_the_ranks_are_still_in_step(runs):
    _, ranks, _ = runs
    for rank in ranks:
        assert rank["afterwards"] == rank["good"]


def test_a_run_is_evaluated_by_both_and_written_down_by_one(runs):
    _, ranks, folder = runs
    first, second = (rank["trained"] for rank in ranks)
    assert first == second
    assert first["world_size"] == 2
    assert 3 in first["steps"]
    assert first["num_samples"] == [8 * step for step in first["steps"]]
    lines = read_records(folder / "run" / "evaluations.jsonl")
    assert [line["step"] for line in lines] == first["steps"]


@pytest.mark.parametrize("kind", [*UNLIKE, "ends_early"])
def test_ranks_make_the_same_number_of_passes_whatever_is_theirs(runs, kind):
    # One pass more on one rank would wait for ever where the model is sharded.
    _, ranks, _ = runs
    first, second = (rank["passes"][kind] for rank in ranks)
    assert first == second
    assert first[0] >= 3
    if kind == "ends_early":
        assert first[1][0] < first[1][1]


def test_a_sharded_model_answers_as_the_whole_one_does(runs):
    _, ranks, _ = runs
    for rank in ranks:
        whole, sharded = rank["sharded"]["whole"], rank["sharded"]["sharded"]
        assert sharded["texts"] == whole["texts"]
        assert "eval/arc_easy/acc" in sharded["scores"]
        assert sharded["scores"] == pytest.approx(whole["scores"], rel=1e-5)
        rolling = "loglikelihood_rolling"
        assert sharded[rolling] == pytest.approx(whole[rolling], rel=1e-5)
        for answer, other in zip(sharded["loglikelihood"], whole["loglikelihood"], strict=True):
            assert answer == pytest.approx(other, rel=1e-5)
