"""Suites: what they may say, the two that are about benchmarks, and where rows come from."""

from __future__ import annotations

import benchmarks
import pytest

import tikmix_hf.harness
from tikmix_hf.harness import Harness, Suite, SuiteTask
from tikmix_hf.harness.tasks import configs, prepare, scored_split

IN_DOMAIN = ["mmlu", "hellaswag", "arc_easy", "arc_challenge", "triviaqa"]
OUT_OF_DOMAIN = ["piqa", "openbookqa", "boolq", "mathqa"]


def read(text: str) -> Suite:
    return Suite.read("mine", text, "mine.yaml")


def test_the_paper_suite_is_the_nine_of_the_paper_in_its_order_and_its_two_groups():
    suite = Suite.load("paper")
    assert [task.task for task in suite.tasks] == IN_DOMAIN + OUT_OF_DOMAIN
    groups = {task.task: task.group for task in suite.tasks}
    assert groups == dict.fromkeys(IN_DOMAIN, "in_domain") | dict.fromkeys(
        OUT_OF_DOMAIN, "out_of_domain"
    )


@pytest.mark.parametrize("name", ["paper", "quick"])
def test_every_task_of_a_suite_is_one_that_lm_eval_defines(name):
    for task in Suite.load(name).tasks:
        found = dict(configs(task))
        assert len(found) == (57 if task.task == "mmlu" else 1)
        assert task.task == "mmlu" or list(found) == [task.task]


def test_solved_examples_are_asked_for_of_one_task_alone():
    assert {t.task: t.num_fewshot for t in Suite.load("paper").tasks if t.num_fewshot} == {
        "triviaqa": 5
    }


def test_an_asked_question_is_never_among_its_own_solved_examples(data_dir):
    task = SuiteTask(
        task="triviaqa",
        lm_eval="triviaqa/default.yaml",
        metric="exact_match",
        num_fewshot=6,  # of seven questions: all but the asked one
        fewshot_split="validation",
    )
    own = prepare(task, data_dir).tasks["triviaqa"]
    own.build_all_requests(limit=None)
    for number, request in enumerate(own.instances):
        mine = f"What is number {number}?"
        assert request.args[0].count(mine) == 1
        assert request.args[0].endswith(f"Question: {mine}\nAnswer:")


def test_a_task_with_a_test_split_is_scored_on_it_and_others_on_validation():
    scored = {
        task.task: {scored_split(config) for _, config in configs(task)}
        for task in Suite.load("paper").tasks
    }
    on_validation = {"hellaswag", "triviaqa", "piqa", "boolq"}
    assert scored == {
        name: {"validation"} if name in on_validation else {"test"}
        for name in IN_DOMAIN + OUT_OF_DOMAIN
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("papre", "`suite` has no 'papre'. Did you mean 'paper'"),
        ("zzz", "Choose from: .*paper.*quick"),
    ],
)
def test_an_unknown_suite_is_refused_with_a_hint(name, message):
    with pytest.raises(ValueError, match=message):
        Suite.load(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [{task: a, metric: acc, shots: 3}]", "has no 'shots'"),
        ("tasks: [{task: a, metric: acc}]\nlimits: 3", "`suite` has no 'limits'. Did you mean"),
        ("tasks: [{task: a}]", "`metric` must be given"),
        ("tasks: [{task: 3, metric: acc}]", "`task` must be a text; got 3"),
        ("tasks: [{task: a, metric: [acc]}]", "`metric` must be a text"),
        ("tasks: [{task: a, metric: acc, group: ''}]", "`group` must be a text"),
        ("tasks: [a]", "must be a mapping"),
        ("tasks: []", "at least one task"),
        ("tasks: 3", "a list of `tasks`"),
        ("[]", "must be a mapping"),
        ("tasks: [{task: a, metric: acc}, {task: a, metric: acc}]", "twice: a"),
        ("tasks: [{task: a, metric: acc, kind: cloz}]", "`kind` must be one of"),
        ("tasks: [{task: a, metric: acc, num_fewshot: -1}]", "`num_fewshot` must be"),
        ("tasks: [{task: a, metric: acc}]\nlimit: 0", "`limit` must be"),
        ("tasks: [{task: ../a, metric: acc}]", "`task` must stay below"),
        ("tasks: [{task: a, metric: acc, folder: /etc}]", "`folder` must stay below"),
        ("tasks: [{task: a, metric: acc, lm_eval: b/../../c}]", "`lm_eval` must stay below"),
        ("tasks: [", "mine.yaml: while parsing"),
    ],
)
def test_a_suite_that_is_wrong_is_refused_by_what_is_wrong_in_it(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith("mine.yaml: ")


def test_some_of_the_tasks_keep_the_order_of_the_suite():
    suite = Suite.load("paper").only(["piqa", "arc_easy"])
    assert [task.task for task in suite.tasks] == ["arc_easy", "piqa"]
    with pytest.raises(ValueError, match=r"`names` has no 'arc_esay'\. Did you mean 'arc_easy'"):
        suite.only(["arc_esay"])


def test_a_definition_that_lm_eval_does_not_have_is_refused():
    task = SuiteTask(task="a", lm_eval="arc/arc_medium.yaml", metric="acc")
    with pytest.raises(ValueError, match="`lm_eval` must be below lm-eval's tasks"):
        list(configs(task))


def test_offline_without_files_the_error_says_what_to_put_where():
    with pytest.raises(FileNotFoundError) as caught:
        prepare(benchmarks.ARC, None)
    text = str(caught.value)
    assert "allenai/ai2_arc" in text
    assert "DATA_DIR/arc_easy/" in text
    assert "`data_dir`" in text


@pytest.mark.parametrize("missing", ["lm_eval", "lm_eval.api.task", "yaml"])
def test_without_what_the_extra_brings_the_error_names_the_extra(monkeypatch, missing):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(tikmix_hf.harness, "import_module", absent)
    with pytest.raises(ImportError, match=r'pip install "tikmix-hf\[eval\]"'):
        tikmix_hf.harness.__getattr__("Harness")


def test_an_error_of_our_own_is_not_taken_for_a_missing_extra(monkeypatch):
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'typo'", name="typo")

    monkeypatch.setattr(tikmix_hf.harness, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="typo"):
        tikmix_hf.harness.__getattr__("Harness")


def test_one_name_where_several_belong_is_refused_with_the_mend():
    with pytest.raises(ValueError, match=r"`names` must be a list .* Write \['arc_easy'\]"):
        Suite.load("quick").only("arc_easy")


@pytest.mark.parametrize("batch_size", ["many", 0])
def test_a_batch_size_that_is_none_is_refused_before_anything_is_asked(batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be whole and at least 1"):
        Harness("quick", batch_size=batch_size)
