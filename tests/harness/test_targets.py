"""Benchmarks as targets: the right rows, the right labels, and never a scored row."""

from __future__ import annotations

import dataclasses
import json
import shutil

import benchmarks
import pytest
import tiny
import torch
from benchmarks import ARC, PIQA, SUITE, TRIVIA, arc, write_rows
from datasets import Dataset

from tikmix_hf import PackedCollator, TikMixCallback
from tikmix_hf.harness import Harness, Suite, SuiteTask, benchmark_targets, check_targets_apart
from tikmix_hf.harness.language_model import LiveModel
from tikmix_hf.harness.pairs import Pair, encode

TOKENIZER = benchmarks.make_tokenizer()  # a token is a character
ONLY_ARC = Suite(name="arc", tasks=(ARC,))


def texts(rows: Dataset) -> list[tuple[str, str]]:
    """Question and answer of each row: where labels are -100, and where they are not."""
    pairs = []
    for row in rows:
        tokens, labels = row["input_ids"], row["labels"]
        start = next(place for place, label in enumerate(labels) if label != -100)
        assert labels[:start] == [-100] * start
        assert labels[start:] == tokens[start:]
        pairs.append(("".join(map(chr, tokens[:start])), "".join(map(chr, tokens[start:]))))
    return pairs


@pytest.fixture(scope="module")
def apart(data_dir, tmp_path_factory):
    """The made-up benchmarks, but for PIQA's goals in `train`, which would be the scored ones."""
    folder = tmp_path_factory.mktemp("apart") / "data"
    shutil.copytree(data_dir, folder)
    rows = [{**benchmarks.piqa(number), "goal": f"Goal {number}"} for number in range(100, 109)]
    write_rows(folder / "piqa" / "train.jsonl", rows)
    return folder


@pytest.fixture
def folder(apart, tmp_path):
    shutil.copytree(apart, tmp_path / "data")
    return tmp_path / "data"


def test_the_loss_is_on_the_right_answer_alone(apart):
    targets = benchmark_targets(SUITE, TOKENIZER, data_dir=apart)
    assert {name: len(rows) for name, rows in targets.items()} == {
        "arc_easy": 9,
        "piqa": 9,
        "triviaqa": 9,
    }
    row = arc(101)  # thing 101: choices of things 1, 4, 7, 0; the second is right
    assert texts(targets["arc_easy"])[1] == (
        "Question: Which of these is thing 101?\nAnswer:",
        f" {row['choices']['text'][1]}",
    )
    assert texts(targets["piqa"])[1] == (
        "Question: Goal 101\nAnswer:",
        " leave the bread alone",
    )
    assert texts(targets["triviaqa"])[2] == ("Question: What is number 102?\nAnswer:", " bread")


def test_a_template_says_which_of_several_right_answers_is_taken(folder):
    rows = [
        {"question": "Who", "answer": {"value": "Ann", "aliases": ["A.", "Ann"]}, "number": n}
        for n in range(2)
    ]
    write_rows(folder / "triviaqa" / "train.jsonl", rows)
    task = dataclasses.replace(TRIVIA, answer="{{answer.value}}")
    for asked, answer in ((TRIVIA, " A."), (task, " Ann")):
        found = benchmark_targets(Suite(name="t", tasks=(asked,)), TOKENIZER, data_dir=folder)
        assert [pair[1] for pair in texts(found["triviaqa"])] == [answer, answer]


def test_tokens_are_those_that_lm_eval_scores():
    live = LiveModel(tiny.make_model(), TOKENIZER, batch_size=1)
    for pair in (
        Pair("A question", " an answer"),
        Pair("A question: ", "answer"),
        Pair("\0begins a text", " so"),
    ):
        assert encode(pair, TOKENIZER) == live._encode_pair(*pair)
    assert encode(Pair("", "ab"), TOKENIZER) == ([0], [97, 98])


def test_a_rows_loss_is_what_the_harness_finds_for_the_right_answer(folder):
    # The scored rows under another name: in other words, the harness scores the targets' rows.
    (folder / "arc_easy" / "test.jsonl.gz").unlink()
    write_rows(folder / "arc_easy" / "test.jsonl", map(arc, range(20, 25)))
    rows = [arc(number) for number in range(5)]
    write_rows(folder / "arc_easy" / "train.jsonl", rows)
    targets = benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder)["arc_easy"]
    write_rows(folder / "arc_easy" / "test.jsonl", rows)
    model = tiny.make_model(max_position_embeddings=512)
    harness = Harness(ONLY_ARC, data_dir=folder, keep_samples=True, progress=False)
    samples = harness.score(model, TOKENIZER)["arc_easy"].samples
    for row, sample in zip(targets, samples, strict=True):
        batch = PackedCollator()([dict(row)])
        with torch.no_grad():
            loss = model(**batch).loss
        num_tokens = sum(label != -100 for label in row["labels"])
        nats, _ = sample["filtered_resps"][sample["target"]]
        assert -nats == pytest.approx(float(loss) * num_tokens, rel=1e-5)


def test_long_questions_lose_their_beginning_and_never_their_answer(apart):
    full = texts(benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=apart)["arc_easy"])
    cut = texts(benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=apart, max_length=20)["arc_easy"])
    for (question, answer), (short, same) in zip(full, cut, strict=True):
        assert same == answer
        assert question.endswith(short)
        assert len(short + same) == 20
    with pytest.raises(ValueError, match=r"row 0 of arc_easy's train .* Raise `max_length`"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=apart, max_length=6)


@pytest.mark.parametrize(("task", "scored"), [(ARC, "test"), (PIQA, "validation")])
def test_the_scored_split_is_refused(apart, task, scored):
    with pytest.raises(ValueError, match=f"`split` must not .*{scored}.*Choose from: train"):
        benchmark_targets(Suite(name="s", tasks=(task,)), TOKENIZER, data_dir=apart, split=scored)


def test_a_split_that_is_not_there_is_refused(apart):
    with pytest.raises(ValueError, match="`split` must be one that arc_easy has; got 'dev'"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=apart, split="dev")


def test_a_benchmark_with_nothing_but_its_scored_split_says_so(folder):
    (folder / "piqa" / "train.jsonl").unlink()
    with pytest.raises(ValueError, match=r"add train\.jsonl beside it"):
        benchmark_targets(Suite(name="s", tasks=(PIQA,)), TOKENIZER, data_dir=folder)


def test_splits_may_differ_by_task_and_must_be_named_for_each(folder):
    write_rows(folder / "arc_easy" / "validation.jsonl", map(arc, range(200, 203)))
    both = Suite(name="s", tasks=(ARC, PIQA))
    splits = {"arc_easy": "validation", "piqa": "train"}
    targets = benchmark_targets(both, TOKENIZER, data_dir=folder, split=splits)
    assert [len(rows) for rows in targets.values()] == [3, 9]
    with pytest.raises(ValueError, match="that only one of them has: boolq, piqa"):
        benchmark_targets(
            both, TOKENIZER, data_dir=folder, split={"arc_easy": "train", "boolq": "train"}
        )


def test_rows_that_are_scored_too_are_refused_or_left_out(folder):
    again = json.loads(json.dumps(arc(3)).replace("these is", "these   is"))  # white space aside
    rows = [arc(100), again, arc(101), arc(5)]
    write_rows(folder / "arc_easy" / "train.jsonl", rows)
    with pytest.raises(ValueError, match=r"; 2 of the 4 rows of .* row 1\. Pass shared='drop'"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder)
    kept = benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder, shared="drop")["arc_easy"]
    assert ["thing 100" in texts(kept)[0][0], "thing 101" in texts(kept)[1][0]] == [True, True]
    assert len(kept) == 2


def test_a_question_with_another_right_answer_is_another_row(folder):
    other = {**arc(3), "answerKey": "A"}  # D is right
    write_rows(folder / "arc_easy" / "train.jsonl", [other])
    assert len(benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder)["arc_easy"]) == 1


def test_the_scored_rows_under_another_splits_name_are_refused_even_when_dropping(folder):
    write_rows(folder / "arc_easy" / "train.jsonl", map(arc, range(7)))
    with pytest.raises(ValueError, match="7 of the 7 rows of arc_easy's train"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder)
    with pytest.raises(
        ValueError, match="must have a row that is not scored, too; arc_easy's train has none"
    ):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder, shared="drop")


def test_settings_that_are_wrong_are_refused(apart):
    with pytest.raises(ValueError, match="`shared` must be 'refuse' or 'drop'; got 'keep'"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=apart, shared="keep")
    with pytest.raises(ValueError, match="`max_length` must be"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=apart, max_length=1)
    offline = Suite(name="o", tasks=(SuiteTask(task="c", kind="cloze", metric="acc"),))
    with pytest.raises(ValueError, match="`suite` must have benchmarks alone; c is"):
        benchmark_targets(offline, TOKENIZER, data_dir=apart)


def test_a_row_without_a_right_answer_is_refused_by_its_number(folder):
    write_rows(folder / "arc_easy" / "train.jsonl", [arc(0), {**arc(1), "answerKey": "E"}])
    with pytest.raises(ValueError, match=r"arc_easy.*row 1 of train has no right answer"):
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder)


@pytest.mark.parametrize("hidden", [-1, 2])
def test_a_label_that_is_hidden_or_no_choices_is_refused(folder, hidden):
    # -1 stands for the labels of a test split that is not public.
    write_rows(folder / "piqa" / "train.jsonl", [{**benchmarks.piqa(3), "label": hidden}])
    with pytest.raises(ValueError, match="row 0 of train has no right answer"):
        benchmark_targets(Suite(name="s", tasks=(PIQA,)), TOKENIZER, data_dir=folder)


@pytest.mark.parametrize("max_length", [None, 40])
def test_targets_from_anywhere_are_held_apart_from_a_suites_scored_rows(folder, max_length):
    targets = benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder, max_length=max_length)
    check_targets_apart(targets, ONLY_ARC, TOKENIZER, data_dir=folder)
    write_rows(folder / "arc_easy" / "train.jsonl", [arc(100), arc(4), arc(2)])
    (folder / "arc_easy" / "test.jsonl.gz").rename(folder / "kept")
    write_rows(folder / "arc_easy" / "test.jsonl", [arc(300)])
    mixed = benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder, max_length=max_length)
    (folder / "arc_easy" / "test.jsonl").unlink()
    (folder / "kept").rename(folder / "arc_easy" / "test.jsonl.gz")
    with pytest.raises(ValueError, match=r"`targets\['arc_easy'\]` .* got 2, such as row 1\."):
        check_targets_apart(mixed, ONLY_ARC, TOKENIZER, data_dir=folder)


def alike(number: int) -> dict:
    """Questions whose last hundred characters and answers are all the same."""
    same = " is what the whole of this long question begins with, and here it ends like any other"
    choices = {"text": ["a tree", "rain"], "label": ["A", "B"]}
    return {**arc(0), "question": f"{number}{same}", "choices": choices, "answerKey": "A"}


@pytest.mark.parametrize(("max_length", "kept"), [(None, 3), (60, 1)])
def test_what_is_left_of_a_split_is_apart_from_what_is_scored(folder, caplog, max_length, kept):
    (folder / "arc_easy" / "test.jsonl.gz").unlink()
    write_rows(folder / "arc_easy" / "test.jsonl", [alike(1), alike(2)])
    write_rows(folder / "arc_easy" / "train.jsonl", [alike(1), alike(3), arc(100), alike(4)])
    settings = {"data_dir": folder, "max_length": max_length}
    targets = benchmark_targets(ONLY_ARC, TOKENIZER, **settings, shared="drop")
    # Rows that differ only in what was cut are the same rows.
    assert len(targets["arc_easy"]) == kept
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        f"{4 - kept} of the 4 rows of arc_easy's train are left out of the target: arc_easy is "
        "scored on them."
    )
    check_targets_apart(targets, ONLY_ARC, TOKENIZER, data_dir=folder)
    with pytest.raises(ValueError, match=f"; {4 - kept} of the 4 rows of .* such as row 0"):
        benchmark_targets(ONLY_ARC, TOKENIZER, **settings)


def test_rows_are_told_by_all_their_tokens(folder):
    (folder / "arc_easy" / "test.jsonl.gz").unlink()
    write_rows(folder / "arc_easy" / "test.jsonl", [alike(1)])
    targets = {"mine": Dataset.from_dict({"input_ids": [list(b"Answer: a tree"), list(b"tree")]})}
    with pytest.raises(ValueError, match=r"`targets\['mine'\]` .* got 2, such as row 0"):
        check_targets_apart(targets, ONLY_ARC, TOKENIZER, data_dir=folder)
    targets = {"mine": Dataset.from_dict({"input_ids": [list(b"Question: A\nAnswer: a tree")]})}
    check_targets_apart(targets, ONLY_ARC, TOKENIZER, data_dir=folder)


def test_solved_examples_before_a_scored_row_hide_nothing(folder):
    (scored,) = texts(
        benchmark_targets(ONLY_ARC, TOKENIZER, data_dir=folder)["arc_easy"].select([0])
    )
    write_rows(folder / "arc_easy" / "test.jsonl", [arc(100)])
    (folder / "arc_easy" / "test.jsonl.gz").unlink()
    row = "Question: one\nAnswer: two\n\n" + "".join(scored)
    targets = {"mine": Dataset.from_dict({"input_ids": [list(row.encode())]})}
    with pytest.raises(ValueError, match="got 1, such as row 0"):
        check_targets_apart(targets, ONLY_ARC, TOKENIZER, data_dir=folder)


def test_rows_that_another_task_of_the_suite_is_scored_on_are_refused_or_left_out(folder, caplog):
    challenge = SuiteTask(task="arc_challenge", lm_eval="arc/arc_challenge.yaml", metric="acc_norm")
    for split, row in (("test", arc(101)), ("train", arc(300))):
        write_rows(folder / "arc_challenge" / f"{split}.jsonl", [row])
    both = Suite(name="both", tasks=(ARC, challenge))
    with pytest.raises(
        ValueError, match="1 of the 9 rows of arc_easy's train are, as rows of arc_c"
    ):
        benchmark_targets(both, TOKENIZER, data_dir=folder)
    targets = benchmark_targets(both, TOKENIZER, data_dir=folder, shared="drop")
    assert {name: len(rows) for name, rows in targets.items()} == {
        "arc_easy": 8,
        "arc_challenge": 1,
    }
    assert len(caplog.records) == 1
    check_targets_apart(targets, both, TOKENIZER, data_dir=folder)


def test_a_run_measures_them(apart, tmp_path):
    targets = benchmark_targets(SUITE, TOKENIZER, data_dir=apart)
    dataset = tiny.make_dataset(48)
    callback = TikMixCallback(
        dataset, targets=targets, mixer="tikmix_d", every_steps=4, num_rows=4, on_error="raise"
    )
    model = tiny.make_model(max_position_embeddings=512)
    tiny.make_trainer(dataset, callback, tiny.make_arguments(tmp_path), model).train()
    matrix = callback.influence
    assert matrix is not None
    assert list(matrix.targets) == ["arc_easy", "piqa", "triviaqa"]
    assert (matrix.values != 0).all()
