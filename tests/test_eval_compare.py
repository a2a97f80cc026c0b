"""Scores of several runs: pairing, intervals, and who is best."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "eval"))  # as running a script does

import compare
import compare_results
import compare_statistics
from compare_results import Run


def task(value, metric="acc", failure=None, **changes):
    return {
        "metric": metric,
        "values": {} if value is None else {metric: value},
        "standard_errors": {},
        "num_questions": 4,
        "num_fewshot": 0,
        "files": {},
        "version": "1.0",
        "seconds": 1.0,
        "failure": failure,
        **changes,
    }


def run(name, seed, tasks, questions=None):
    return Run(name=name, seed=seed, tasks=tasks, questions=questions or {})


def answers(*numbers):
    return {(str(n), 0): float(number) for n, number in enumerate(numbers)}


def test_differences_are_paired_by_seed_and_only_common_seeds_count():
    # Seeds spread by 0.3, the paired differences are 0.1, 0.2 and 0.3; seed 9 has no partner.
    values = {0: (0.1, 0.2), 1: (0.4, 0.6), 2: (0.5, 0.8)}
    runs = [run("old", seed, {"arc": task(a)}) for seed, (a, _) in values.items()]
    runs += [run("new", seed, {"arc": task(b)}) for seed, (_, b) in reversed(values.items())]
    runs += [run("new", 9, {"arc": task(1.0)})]
    line = compare_statistics.compare(runs, "arc", "old")
    found = line.differences["new"]
    assert found.value == pytest.approx(0.2)
    assert found.seeds == (0, 1, 2)
    assert found.over == "seeds"
    # Three equally likely values: a resample is all lowest with chance 1/27, over 2.5 %.
    assert (found.low, found.high) == pytest.approx((0.1, 0.3))
    assert line.means == pytest.approx({"old": 1 / 3, "new": 1.6 / 3})
    assert line.seeds == (0, 1, 2)
    assert line.best == ("new",)


def test_questions_are_resampled_with_their_answers_by_all_seeds():
    # Differences by question, mean over seeds: 1, 0.5, 0, -0.5; mean 0.25.
    sides = {0: ((0, 0, 0, 1), (1, 1, 0, 0)), 1: ((0, 1, 0, 0), (1, 1, 0, 0))}
    runs = []
    for seed, (old, new) in sides.items():
        for name, own in (("old", old), ("new", new)):
            runs.append(run(name, seed, {"arc": task(np.mean(own))}, {"arc": answers(*own)}))
    pairs = [(runs[1], runs[0]), (runs[3], runs[2])]
    differences = compare_statistics.by_question(pairs, "arc")
    assert differences.tolist() == [1, 0.5, 0, -0.5]
    found = compare_statistics.compare(runs, "arc", "old").differences["new"]
    assert found.over == "questions"
    assert found.value == pytest.approx(0.25)
    drawn = np.random.default_rng(5).choice(differences, size=(200_000, 4)).mean(axis=1)
    expected = np.percentile(drawn, [2.5, 97.5])
    # Means of four are multiples of 1/8, and 10,000 resamples may end on the next one.
    np.testing.assert_allclose([found.low, found.high], expected, atol=1 / 8)


def test_a_bootstrap_of_many_questions_is_the_normal_interval():
    values = np.random.default_rng(1).normal(3.0, 2.0, 4_000)
    low, high = compare_statistics.bootstrap(values, np.random.default_rng(0))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_one_run_without_samples_makes_all_of_its_task_resample_seeds():
    tasks = {"arc": task(0.5)}
    old = run("old", 0, tasks, {"arc": answers(0, 1, 0, 1)})
    assert compare_statistics.by_question([(run("new", 0, tasks), old)], "arc") is None
    other = run("new", 0, tasks, {"arc": answers(0, 1, 1)})  # another number of questions
    assert compare_statistics.by_question([(other, old)], "arc") is None


def test_one_seed_without_samples_has_no_interval():
    runs = [run("old", 0, {"arc": task(0.5)}), run("new", 0, {"arc": task(0.75)})]
    found = compare_statistics.compare(runs, "arc", "old").differences["new"]
    assert (found.value, found.low, found.high, found.over) == (0.25, None, None, "nothing")


def test_fewer_bits_per_byte_are_better():
    runs = [
        run(name, 0, {"arc": task(value, "bits_per_byte")})
        for name, value in (("old", 2.0), ("new", 1.5))
    ]
    line = compare_statistics.compare(runs, "arc", "old")
    assert line.best == ("new",)
    assert line.better == "lower"


def test_best_counts_tasks_that_all_were_scored_on_and_ties_for_all():
    tasks = {
        "old": {"a": task(0.5), "b": task(0.5), "c": task(0.9)},
        "new": {"a": task(0.5), "b": task(0.6), "c": task(None, failure="no file")},
    }
    runs = [run(name, 0, own) for name, own in tasks.items()]
    lines = [compare_statistics.compare(runs, name, "old") for name in "abc"]
    assert compare.best_counts(lines, ["old", "new"]) == (2, {"old": 1, "new": 2})
    rows = compare.table(lines, ["old", "new"])
    assert rows[2]["new"] == "failed"
    assert (rows[3]["old"], rows[3]["new"]) == ("1/2", "2/2")


def test_the_best_is_best_on_the_seeds_that_all_have():
    # On seed 0, which both have, old is better; new has two good seeds of its own.
    runs = [run("old", 0, {"arc": task(0.5)}), run("new", 0, {"arc": task(0.4)})]
    runs += [run("new", seed, {"arc": task(0.9)}) for seed in (1, 2)]
    line = compare_statistics.compare(runs, "arc", "old")
    assert line.best == ("old",)
    assert line.means == {"old": 0.5, "new": 0.4}
    assert compare.best_counts([line], ["old", "new"]) == (1, {"old": 1, "new": 0})
    assert compare.left_out([line], runs) == [
        "Not all runs have the same seeds: arc: without new (seed 1), new (seed 2)."
    ]
    # A third run that lacks a seed takes it from the means, and not from the others' difference.
    runs = [
        run(name, seed, {"arc": task(0.5 + seed)}) for name in ("old", "new") for seed in (0, 1)
    ]
    line = compare_statistics.compare([*runs, run("third", 1, {"arc": task(1.0)})], "arc", "old")
    assert line.means == {"old": 1.5, "new": 1.5, "third": 1.0}
    assert line.differences["new"].seeds == (0, 1)


def test_nobody_is_best_without_a_seed_in_common():
    runs = [run("old", 0, {"arc": task(0.5)}), run("new", 1, {"arc": task(0.75)})]
    line = compare_statistics.compare(runs, "arc", "old")
    assert (line.best, line.differences, line.seeds) == ((), {}, ())
    assert line.means == {"old": 0.5, "new": 0.75}
    assert compare.best_counts([line], ["old", "new"]) == (0, {"old": 0, "new": 0})
    assert "arc: no seed that all have" in compare.left_out([line], runs)[0]


def test_the_picture_has_the_better_to_the_right_interval_and_all(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare.figures, "save", lambda figure, path: drawn.append(figure))

    def line(name, metric, low, value, high):
        found = compare_statistics.Difference(
            value=value, low=low, high=high, over="seeds", seeds=(0, 1)
        )
        return compare_statistics.Line(
            task=name,
            metric=metric,
            means={"old": 1.0, "new": 1.0 + value},
            differences={"new": found},
            best=(),
            seeds=(0, 1),
        )

    lines = [line("arc", "acc", -0.5, 0.25, 0.75), line("piqa", "bits_per_byte", -3, -2, 0.5)]
    compare.draw(lines, ["old", "new"], "old", tmp_path / "x.png")
    axes = drawn[0].axes[0]
    found = {
        (tuple(map(float, own.get_xdata())), float(own.get_ydata()[0])) for own in axes.get_lines()
    }
    # Bits per byte that fell by 2 are better by 2, in from -0.5 to 3.
    expected = {((-0.5, 0.75), 0.0), ((0.25,), 0.0), ((3.0, -0.5), 1.0), ((2.0,), 1.0)}
    assert expected <= found
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "arc, acc",
        "piqa, bits_per_byte",
    ]


def write_result(folder, name, seed, tasks, lines=None):
    record = {"name": name, "seed": seed, "checkpoint": "x", "suite": "quick", "tasks": tasks}
    record["samples"] = None
    if lines is not None:
        record["samples"] = f"{name}-{seed}.jsonl"
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / record["samples"]).write_text(text)
    path = folder / f"{name}-{seed}.json"
    path.write_text(json.dumps(record))
    return path


def test_samples_pair_by_id_and_by_how_often_it_came_before(tmp_path):
    # Two subsets of a task, each with a question 0.
    lines = [{"task": "mmlu", "doc_id": 0, "acc": 1.0}, {"task": "mmlu", "doc_id": 0, "acc": 0.0}]
    path = write_result(tmp_path, "old", 0, {"mmlu": task(0.5)}, lines)
    assert compare_results.read_one(path).questions == {
        "mmlu": {("None/0", 0): 1.0, ("None/0", 1): 0.0}
    }
    lines = [{**line, "subset": subset} for line, subset in zip(lines, "ab", strict=True)]
    path = write_result(tmp_path, "old", 0, {"mmlu": task(0.5)}, lines)
    assert compare_results.read_one(path).questions["mmlu"].keys() == {("a/0", 0), ("b/0", 0)}


def test_samples_whose_mean_is_not_the_score_are_not_resampled(tmp_path):
    lines = [{"task": "arc", "doc_id": n, "acc": float(n)} for n in range(2)]
    path = write_result(tmp_path, "old", 0, {"arc": task(0.5001)}, lines)
    assert compare_results.read_one(path).questions == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"name": "old", "tasks": {}}', "lacks seed"), ("[]", "lacks name"), ("{", "must be JSON")],
)
def test_a_file_that_is_no_result_is_named(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        compare_results.read([path])
    assert "other.json" in str(error.value)


def test_a_seed_given_twice_is_refused(tmp_path):
    path = write_result(tmp_path, "old", 0, {"arc": task(0.5)})
    with pytest.raises(ValueError, match=r"old \(seed 0\) was given twice"):
        compare_results.read([path, path])


def test_results_without_a_seed_are_paired_with_one_another_only(tmp_path):
    tasks = {"arc": task(0.5)}
    paths = [write_result(tmp_path, name, None, tasks) for name in ("old", "new")]
    runs = compare_results.read(paths)
    assert compare_statistics.compare(runs, "arc", "old").differences["new"].value == 0
    paths.append(write_result(tmp_path, "other", 1, tasks))
    with pytest.raises(ValueError, match=r"old-None\.json has no seed and others have one"):
        compare_results.read(paths)


def test_of_evaluations_in_training_the_last_of_each_suite_counts(tmp_path):
    lines = [
        {"step": 1, "suite": "quick", "tasks": {"arc": task(0.25)}},
        {"step": 1, "suite": "offline", "tasks": {"cloze": task(0.5)}},
        {"step": 2, "suite": "quick", "tasks": {"arc": task(0.75)}},
    ]
    path = tmp_path / "dynamic" / "evaluations.jsonl"
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = compare_results.read_one(path)
    assert found.name == "dynamic"
    assert (found.value("arc"), found.value("cloze")) == (0.75, 0.5)


def write_evaluations(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_evaluations_at_different_steps_are_not_compared(tmp_path):
    paths = [
        write_evaluations(
            tmp_path / name / "evaluations.jsonl",
            {"step": step, "suite": "quick", "tasks": {"arc": task(0.5)}},
        )
        for name, step in (("static", 100), ("dynamic", 200), ("short", 100))
    ]
    runs = compare_results.read(paths)
    with pytest.raises(ValueError, match="arc was scored after 100 steps in static and after 200"):
        compare.write(runs, "static", tmp_path / "comparison")
    page = compare.write([runs[0], runs[2]], "static", tmp_path / "comparison")
    assert "Scored after steps: static: 100; short: 100." in page
    result = compare_results.read_one(write_result(tmp_path, "other", None, {"arc": task(0.5)}))
    page = compare.write([runs[0], result], "static", tmp_path / "comparison")
    assert "Scored after steps: static: 100; other: not told." in page


def test_suites_that_share_a_task_are_told_apart(tmp_path):
    path = write_evaluations(
        tmp_path / "dynamic" / "evaluations.jsonl",
        {"step": 1, "suite": "quick", "tasks": {"arc": task(0.25)}},
        {"step": 1, "suite": "paper", "tasks": {"arc": task(0.75), "piqa": task(0.5)}},
    )
    with pytest.raises(ValueError, match=r"arc is a task of the suites quick, paper.*--suite"):
        compare_results.read_one(path)
    assert compare_results.read_one(path, "quick").value("arc") == 0.25
    assert compare_results.read_one(path, "paper").value("arc") == 0.75
    with pytest.raises(ValueError, match=r"has scores of: quick, paper; got 'offline'"):
        compare_results.read_one(path, "offline")
    result = write_result(tmp_path, "old", 0, {"arc": task(0.5)})  # of the suite quick
    assert compare_results.read_one(result, "quick").value("arc") == 0.5
    with pytest.raises(ValueError, match=r"has scores of: quick; got 'paper'"):
        compare_results.read_one(result, "paper")


def test_a_page_of_results_without_a_seed_names_none(tmp_path):
    runs = [run("old", None, {"arc": task(0.5)}), run("new", None, {"arc": task(0.75)})]
    runs[1].tasks["piqa"] = task(None, failure="no file")
    page = compare.write(runs, "old", tmp_path / "comparison")
    assert "Seeds: old: not told; new: not told." in page
    assert "* new: piqa failed: no file" in page
    assert "seed -1" not in page
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert record["seeds"] == {"old": [], "new": []}
    assert record["tasks"][0]["differences"]["new"]["seeds"] == []
    with pytest.raises(ValueError, match=": new was given twice"):
        compare_results.read([write_result(tmp_path, "new", None, {"arc": task(0.5)})] * 2)


def test_samples_are_found_from_the_results_folder_on(tmp_path, monkeypatch):
    lines = [{"task": "arc", "doc_id": n, "acc": float(n)} for n in range(2)]
    (tmp_path / "scores").mkdir()
    path = write_result(tmp_path / "scores", "old", 0, {"arc": task(0.5)}, lines)
    record = json.loads(path.read_text())
    here = tmp_path / "elsewhere" / "deeper"
    here.mkdir(parents=True)
    for folder in (here, here.parent):
        (folder / "questions.jsonl").write_text("of another result")
    monkeypatch.chdir(here)
    (tmp_path / "scores" / "old-0.jsonl").rename(tmp_path / "questions.jsonl")
    path.write_text(json.dumps({**record, "samples": "../questions.jsonl"}))
    assert compare_results.read_one(path).questions["arc"] == answers_of(0, 1)
    # Moved since: beside the result.
    (tmp_path / "questions.jsonl").rename(tmp_path / "scores" / "questions.jsonl")
    assert compare_results.read_one(path).questions["arc"] == answers_of(0, 1)
    (tmp_path / "scores" / "questions.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="Put the file beside"):
        compare_results.read_one(path)


def answers_of(*numbers):
    return {(f"None/{n}", 0): float(number) for n, number in enumerate(numbers)}


@pytest.mark.parametrize("name", ["samples.jsonl", "samples.jsonl.gz"])
def test_samples_are_read_gzipped_or_not_whatever_their_name(tmp_path, name):
    lines = "".join(
        f"{json.dumps({'task': 'arc', 'doc_id': n, 'acc': float(n)})}\n" for n in range(2)
    )
    path, tasks = tmp_path / name, {"arc": task(0.5)}
    for content in (lines.encode(), gzip.compress(lines.encode())):
        path.write_bytes(content)
        assert compare_results.read_questions(path, tasks)["arc"] == answers_of(0, 1)
    path.write_bytes(gzip.compress(lines.encode())[:-12])
    with pytest.raises(ValueError, match=r"samples\.jsonl.* must be the JSON lines"):
        compare_results.read_questions(path, tasks)


def test_an_earlier_comparison_beside_the_results_is_left_out_and_said(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    own = [write_result(tmp_path, name, 0, {"arc": task(0.5)}) for name in ("old", "new")]
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, own)])
    compare.main()
    scores = tmp_path / "runs" / "scores"
    names = {"comparison.json", "comparison.md", "comparison.png"}
    assert {path.name for path in scores.iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"old-0.json", "new-0.json", "runs"}
    before = (scores / "comparison.md").read_text()
    again = [*own, scores / "comparison.json"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, again)])
    compare.main()
    assert "comparison.json is a comparison and no result: left out." in capsys.readouterr().err
    assert (scores / "comparison.md").read_text().splitlines()[:8] == before.splitlines()[:8]
    monkeypatch.setattr(sys, "argv", ["compare.py", str(scores / "comparison.json")])
    with pytest.raises(SystemExit, match="`results` must name a file"):
        compare.main()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_fewshot": 5}, r"num_fewshot 0 in old \(seed 0\) and 5 in new \(seed 0\)"),
        ({"files": {"test": "other rows"}}, "arc has files"),
        ({"num_questions": 3}, "num_questions"),
        ({"version": "2.0"}, "version '1.0' in old"),
    ],
)
def test_scores_of_different_questions_are_not_compared(tmp_path, change, words):
    runs = [run("old", 0, {"arc": task(0.5)}), run("new", 0, {"arc": task(0.5, **change)})]
    with pytest.raises(ValueError, match=words):
        compare.write(runs, "old", tmp_path / "comparison")
    assert not list(tmp_path.iterdir())


def test_an_unknown_baseline_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one of old; got 'older'"):
        compare.write([run("old", 0, {"arc": task(0.5)})], "older", tmp_path / "comparison")


def test_the_program_leaves_a_page_data_and_a_picture(tmp_path, monkeypatch, capsys):
    paths = []
    for seed in (0, 1):
        for name, right in (("static", (0, 1, 0, 1)), ("dynamic", (1, 1, 1, seed))):
            lines = [{"task": "arc", "doc_id": n, "acc": float(r)} for n, r in enumerate(right)]
            tasks = {"arc": task(np.mean(right)), "piqa": task(2.0 + seed, "bits_per_byte")}
            paths.append(write_result(tmp_path, name, seed, tasks, lines))
    output = tmp_path / "results" / "comparison"
    words = [*map(str, paths), "--baseline", "static", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    compare.main()
    page = (tmp_path / "results" / "comparison.md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert "| arc | acc (higher) | 0.5000 | **0.8750** (+0.3750, " in page
    assert "| questions |" in page
    assert "| piqa | bits_per_byte (lower) | **2.5000** | **2.5000** (+0.0000, +0.0000 ... " in page
    assert "| best on |  | 1/2 | 2/2 |" in page
    record = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert record["best_on"] == {"of": 2, "static": 1, "dynamic": 2}
    assert record["seeds"] == {"static": [0, 1], "dynamic": [0, 1]}
    assert record["tasks"][0]["differences"]["dynamic"]["over"] == "questions"
    assert output.with_suffix(".png").stat().st_size > 1000
