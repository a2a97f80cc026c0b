"""Tasks made of held-out text: which questions of which rows, and what a model scores."""

from __future__ import annotations

import dataclasses
import math
from unittest import mock

import numpy as np
import pytest
import torch
from eval_runs import train
from held_out import EOS, HELDOUT, TOKENIZER, documents, rows
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from transformers.modeling_outputs import CausalLMOutput

from tikmix_hf.harness import EvalCallback, Suite, SuiteTask, offline
from tikmix_hf.harness.metrics import mean_and_error
from tikmix_hf.harness.scores import SuiteScores
from tikmix_hf.harness.scoring import Harness
from tikmix_hf.harness.subsets import pool, weighted_mean_and_error

CLOZE = SuiteTask(task="cloze", kind="cloze", metric="acc")
CONTINUATION = SuiteTask(task="continuation", kind="continuation", metric="acc_norm")
BITS = SuiteTask(task="bits_per_byte", kind="bits_per_byte", metric="bits_per_byte")
KINDS = (CLOZE, CONTINUATION, BITS)


def asked(task: SuiteTask, heldout=HELDOUT) -> dict[str, list[dict]]:
    prepared = offline.prepare(task, heldout, TOKENIZER)
    return {name: list(own.eval_docs) for name, own in prepared.tasks.items()}


def test_the_other_three_endings_are_of_other_passages_of_the_domain_and_as_long():
    found = asked(CONTINUATION)
    assert {name: len(own) for name, own in found.items()} == {"red": 14, "blue": 12}
    places = []
    for name, own in found.items():
        texts = ["".join(map(chr, row)).strip(EOS) for row in HELDOUT[name]["input_ids"]]
        endings = {text.split(" ", 10)[10] for text in texts}
        for question in own:
            right = question["choices"][question["gold"]]
            assert f"{question['context']} {right}" in texts
            assert len(set(question["choices"])) == 4
            assert set(question["choices"]) <= endings
            places.append(question["gold"])
    assert set(places) == {0, 1, 2, 3}


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.kind)
def test_questions_depend_on_a_domains_rows_alone(task):
    found = asked(task)
    assert asked(task) == found
    assert asked(task, {"blue": HELDOUT["blue"], "pink": HELDOUT["red"]}) == {
        "blue": found["blue"],
        "pink": found["red"],
    }
    limited = SuiteTask(task=task.task, kind=task.kind, metric=task.metric, limit=11)
    assert asked(limited) == {name: own[:11] for name, own in found.items()}


def test_rows_are_asked_in_an_order_of_their_own():
    found = [question["passage"] for question in asked(BITS)["red"]]
    assert sorted(found) == sorted(text.strip(EOS) for text in documents(14, 1))
    assert found != [text.strip(EOS) for text in documents(14, 1)]


class KnowsByHeart(LlamaForCausalLM):
    """Gives the next character of the texts that it knows nearly all the probability."""

    def __init__(self, texts: list[str], weight: float = 40.0) -> None:
        super().__init__(LlamaConfig(vocab_size=128, hidden_size=8, intermediate_size=8,
                                     num_hidden_layers=1, num_attention_heads=2))  # fmt: skip
        self.texts, self.weight, self.longest = texts, weight, 0

    def forward(self, input_ids=None, attention_mask=None, **_):
        logits = torch.zeros((*input_ids.shape, 128))
        for b, row in enumerate(input_ids.tolist()):
            self.longest = max(self.longest, len(row))
            read = "".join(map(chr, row))
            for t in range(len(read)):
                known = read[max(0, t - 9) : t + 1].lstrip(EOS)
                after = {x[x.index(known) + len(known) :][:1] for x in self.texts if known in x}
                for letter in after - {""}:
                    logits[b, t, ord(letter)] = self.weight
        return CausalLMOutput(logits=logits)


def score(model, tasks=KINDS, heldout=HELDOUT, **options) -> SuiteScores:
    harness = Harness(
        Suite(name="held_out", tasks=tasks), heldout=heldout, progress=False, raises=True, **options
    )
    return harness.score(model, TOKENIZER)


def test_who_knows_the_text_by_heart_scores_everything_and_who_knows_it_wrong_nothing():
    texts = [text.strip(EOS) for text in [*documents(14, 1), *documents(12, 2)]]
    found = score(KnowsByHeart(texts))
    assert found["cloze"].values["acc"] == 1
    assert found["cloze"].values["bits_per_byte"] == pytest.approx(0, abs=1e-6)
    assert found["continuation"].values["acc"] == found["continuation"].values["acc_norm"] == 1
    # Of the 107 characters of a passage the first could not be known, the next two not for sure.
    first, next_two = math.log2(128), 2 * math.log2(26)
    assert first < 107 * found["bits_per_byte"].value < first + next_two
    wrong = score(KnowsByHeart(texts, weight=-40.0))
    assert wrong["cloze"].values["acc"] == 0
    assert wrong["continuation"].values["acc"] < 0.1
    assert wrong["bits_per_byte"].value > 10


def make_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        max_position_embeddings=109,
    )
    return LlamaForCausalLM(config)


def direct_nats(context: str, text: str) -> float:
    """In float64, one text at a time."""
    model = make_model().double()
    ids = torch.tensor([[ord(letter) for letter in context + text]])
    with torch.no_grad():
        log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    picked = log_p.gather(1, ids[0, 1:, None])[:, 0]
    return -float(picked[len(context) - 1 :].sum())


def test_bits_per_byte_are_those_of_a_direct_computation_in_float64():
    found = score(make_model(), (BITS, CLOZE))
    whole, cloze = asked(BITS), asked(CLOZE)
    values = {}
    for name in HELDOUT:
        texts = [question["passage"] for question in whole[name]]
        bits = sum(direct_nats(EOS, text) for text in texts) / math.log(2)
        values[name] = bits / sum(map(len, texts))
        own = found["bits_per_byte"].subsets[name]
        assert own["values"]["bits_per_byte"] == pytest.approx(values[name], abs=1e-6)
        assert own["num_questions"] == len(texts)
    # Together: a mean by passages.
    mean = (14 * values["red"] + 12 * values["blue"]) / 26
    assert found["bits_per_byte"].value == pytest.approx(mean, abs=1e-6)
    words = [
        direct_nats(one["context"], one["target"]) / math.log(2) / len(one["target"])
        for own in cloze.values()
        for one in own
    ]
    assert found["cloze"].values["bits_per_byte"] == pytest.approx(np.mean(words), abs=1e-6)


def test_each_domain_has_values_errors_and_a_curve_of_its_own():
    found = score(make_model())
    for own in found.tasks:
        assert list(own.subsets) == ["red", "blue"]
        parts = [
            (part["num_questions"], part["values"][own.metric], part["standard_errors"][own.metric])
            for part in own.subsets.values()
        ]
        assert (own.value, own.errors[own.metric]) == pytest.approx(pool(parts), rel=1e-12)
    both = found["bits_per_byte"].subsets
    scalars = found.scalars()
    assert scalars["eval/bits_per_byte/bits_per_byte/red"] == both["red"]["values"]["bits_per_byte"]
    assert SuiteScores.from_dict(found.to_dict()).to_dict() == found.to_dict()
    # One domain alone scores as it does among others, and is no subset of anything.
    alone = score(make_model(), heldout={"red": HELDOUT["red"]})
    assert alone["cloze"].subsets == {}
    red = found["cloze"].subsets["red"]["values"]
    assert alone["cloze"].values == pytest.approx(red, abs=1e-6)


def test_kept_samples_say_whose_they_are():
    samples = score(make_model(), (CLOZE,), keep_samples=True)["cloze"].samples
    assert [sample["subset"] for sample in samples] == ["red"] * 14 + ["blue"] * 12


def test_parts_count_by_their_questions_and_their_errors_add_up_as_squares():
    assert pool([(1, 2.0, 0.3), (3, 6.0, 0.4)]) == pytest.approx((5.0, math.hypot(0.3, 1.2) / 4))
    assert pool([(1, 2.0, 0.3), (3, 6.0, None)]) == (5.0, None)


def test_the_weighted_mean_of_ratios_is_all_over_all_and_its_error_that_of_resampling():
    assert weighted_mean_and_error([4.0, 1.0], [1, 3]) == pytest.approx(
        (7 / 4, math.sqrt(2 * (2.25**2 + 2.25**2)) / 4)
    )
    values = np.random.default_rng(0).normal(size=20)
    assert weighted_mean_and_error(values, np.full(20, 7)) == pytest.approx(mean_and_error(values))
    assert weighted_mean_and_error([3.0], [5]) == (3.0, 0.0)
    rng = np.random.default_rng(1)
    weights, values = rng.integers(50, 150, 200), rng.normal(2, 1, 200)
    picked = rng.integers(0, 200, (4000, 200))
    means = (values * weights)[picked].sum(1) / weights[picked].sum(1)
    # 4,000 resamples know a standard deviation to 1.1 %.
    assert weighted_mean_and_error(values, weights)[1] == pytest.approx(means.std(), rel=0.05)


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.kind)
def test_too_little_text_is_an_error_that_says_how_much_there_was(task):
    heldout = {**HELDOUT, "few": rows(*documents(9, 3)), "none": rows("nospaces" * 9, "x y")}
    with pytest.raises(
        ValueError,
        match=rf"text for 10 questions of kind {task.kind} in each domain; few gave 9 \(9 passages "
        r"of 8 words or more in 9 rows\), none gave 0 \(0 passages .* in 2 rows\)\. Hold back more",
    ):
        offline.prepare(task, heldout, TOKENIZER)


@pytest.mark.parametrize("whose", ["harness", "suite", "task"])
def test_no_more_questions_are_made_than_are_asked(whose):
    task = dataclasses.replace(CLOZE, limit=11 if whose == "task" else None)
    suite = Suite(name="s", tasks=(task,), limit=11 if whose == "suite" else None)
    limit = 11 if whose == "harness" else None
    harness = Harness(suite, heldout=HELDOUT, limit=limit, progress=False)
    with mock.patch.object(offline, "prepare", wraps=offline.prepare) as prepare:
        harness.prepare(TOKENIZER)
        found = harness.score(make_model(), TOKENIZER)
    ((asked_task, *_), _) = prepare.call_args
    assert prepare.call_count == 1
    assert asked_task.limit == 11
    assert found["cloze"].num_questions == 22


def test_too_little_text_is_told_before_anything_is_trained_or_scored(tmp_path):
    heldout = {**HELDOUT, "few": rows(*documents(9, 3))}
    harness = Harness(Suite(name="s", tasks=KINDS), heldout=heldout, progress=False)
    with pytest.raises(
        ValueError, match=r"few gave 9 \(9 passages .* in 9 rows\)\. Hold back more"
    ):
        harness.prepare(TOKENIZER)

    class Watch(TrainerCallback):
        begun = False

        def on_step_begin(self, args, state, control, **kwargs):
            self.begun = True

    watch, callback = Watch(), EvalCallback(harness, tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="text for 10 questions of kind cloze in each domain; few"):
        train(tmp_path, [callback, watch], max_steps=1)
    assert not watch.begun


def test_a_domain_without_rows_and_solved_examples_are_refused():
    with pytest.raises(ValueError, match=r"rows of every domain; none has none\. Hold some back"):
        offline.prepare(CLOZE, {**HELDOUT, "none": HELDOUT["red"].select([])}, TOKENIZER)
    shots = SuiteTask(task="cloze", kind="cloze", metric="acc", num_fewshot=2)
    with pytest.raises(ValueError, match="`num_fewshot` must be 0 for cloze; got 2"):
        offline.prepare(shots, HELDOUT, TOKENIZER)


def test_the_offline_suite_has_each_kind_once():
    suite = Suite.load("offline")
    assert [task.kind for task in suite.tasks] == ["cloze", "continuation", "bits_per_byte"]
    assert all(task.limit is not None for task in suite.tasks)


def test_no_word_of_the_documents_is_there_twice():
    words = [word for seed in (1, 2) for text in documents(14, seed) for word in text.split()]
    assert len(set(words)) == len(words) == 2 * 14 * 18
