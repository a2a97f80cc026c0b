"""Rows from a folder: which file is which split, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib

import benchmarks
import pytest
from benchmarks import ARC, PIQA, arc, write_rows

from tikmix_hf.harness import Harness, SuiteTask
from tikmix_hf.harness.data import read_folder
from tikmix_hf.harness.tasks import configs, prepare

MMLU = SuiteTask(
    task="mmlu", lm_eval="mmlu/continuation", metric="acc_norm", subset_column="subject"
)


def test_a_files_name_says_its_split_whatever_part_of_it_and_however_packed(data_dir):
    found = read_folder(data_dir, "triviaqa")
    assert {split: len(rows) for split, rows in found.splits.items()} == {
        "train": 9,
        "validation": 7,
    }
    path = data_dir / "triviaqa" / "validation_7.jsonl.gz"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert found.files["validation"] == (f"triviaqa/validation_7.jsonl.gz, 7 rows, sha256 {digest}")


def test_rows_come_back_as_they_were_written(data_dir):
    read = read_folder(data_dir, "arc_easy").splits["test"]
    assert [dict(row) for row in read] == [arc(number) for number in range(7)]


def test_a_folder_without_rows_is_refused_with_what_to_put_there(tmp_path):
    (tmp_path / "arc_easy").mkdir()
    for folder in ("arc_easy", "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"{folder} has no rows. Put train.jsonl, "):
            read_folder(tmp_path, folder)


def test_files_that_are_no_split_are_left_alone(tmp_path):
    write_rows(tmp_path / "a" / "trainer.jsonl", [arc(0)])
    write_rows(tmp_path / "a" / "test.jsonl", [arc(1)])
    (tmp_path / "a" / "train.txt").write_text("notes")
    assert list(read_folder(tmp_path, "a").splits) == ["test"]


@pytest.mark.parametrize("second", ["test.jsonl.gz", "test_100.jsonl"])
def test_two_files_for_one_split_are_refused(tmp_path, second):
    write_rows(tmp_path / "a" / "test.jsonl", [arc(1)])
    write_rows(tmp_path / "a" / second, [arc(2)])
    with pytest.raises(ValueError, match="one file of the split test; got test"):
        read_folder(tmp_path, "a")


@pytest.mark.parametrize("text", ["no JSON\n", '{"a": 1}\n{"a": \n', ""])
def test_what_is_no_json_lines_is_refused_by_name(tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"test\.jsonl must be JSON lines"):
        read_folder(tmp_path, "a")


def test_half_a_compressed_file_is_refused_by_name(tmp_path):
    path = write_rows(tmp_path / "a" / "test.jsonl.gz", map(arc, range(50)))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"test\.jsonl\.gz must be JSON lines"):
        read_folder(tmp_path, "a")


def test_the_scored_split_must_be_there(tmp_path):
    write_rows(tmp_path / "arc_easy" / "train.jsonl", [arc(0)])
    with pytest.raises(FileNotFoundError, match=r"scored on the split test; .* Add test\.jsonl"):
        prepare(ARC, tmp_path)


def test_the_split_of_solved_examples_must_be_there(tmp_path):
    write_rows(tmp_path / "piqa" / "validation.jsonl", map(benchmarks.piqa, range(3)))
    with pytest.raises(FileNotFoundError, match="2 solved examples from the split train, which"):
        prepare(PIQA, tmp_path)
    prepare(dataclasses.replace(PIQA, num_fewshot=0), tmp_path)


def test_rows_with_other_fields_are_refused_by_task_and_file(tmp_path):
    write_rows(tmp_path / "arc_easy" / "test.jsonl", map(benchmarks.piqa, range(3)))
    with pytest.raises(ValueError, match=r"arc_easy .*test\.jsonl.* do not fit"):
        prepare(ARC, tmp_path)


def test_a_data_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`data_dir` must be a folder"):
        Harness("quick", data_dir=tmp_path / "nowhere")


def mmlu(subject: str, number: int) -> dict[str, object]:
    return {
        "question": f"Which is thing {number}?",
        "subject": subject,
        "choices": ["a", "b", "c", "d"],
        "answer": number % 4,
    }


def test_a_column_tells_the_subsets_of_one_file_apart(tmp_path):
    names = [config["dataset_name"] for _, config in configs(MMLU)]
    rows = [mmlu(name, number) for number in range(2) for name in names]
    write_rows(tmp_path / "mmlu" / "test.jsonl", rows)
    made = prepare(MMLU, tmp_path).tasks
    assert len(made) == 57
    own = made["mmlu_anatomy_continuation"]
    assert [row["subject"] for row in own.eval_docs] == ["anatomy", "anatomy"]


def test_a_subset_without_rows_and_a_missing_column_are_refused(tmp_path):
    write_rows(tmp_path / "mmlu" / "test.jsonl", [mmlu("anatomy", 0)])
    with pytest.raises(ValueError, match="must have rows with subject 'abstract_algebra'; it"):
        prepare(MMLU, tmp_path)
    other = dataclasses.replace(MMLU, subset_column="topic")
    with pytest.raises(ValueError, match="must have the column 'topic'; it has"):
        prepare(other, tmp_path)
