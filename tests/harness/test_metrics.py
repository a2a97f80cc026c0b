"""Bits per byte and normalised accuracy: by hand, and from logged answers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tikmix_hf.harness.answers import Answer, bits_per_byte, multiple_choice, scores
from tikmix_hf.harness.metrics import BitsPerByte, NormalizedAccuracy, mean_and_error

LN2 = math.log(2)


def bits(**inputs):
    return BitsPerByte(keep_in_memory=True).compute(**inputs)


def normalised(**inputs):
    return NormalizedAccuracy(keep_in_memory=True).compute(**inputs)


def test_bits_per_byte_is_bits_over_bytes_averaged_over_questions():
    # 4 bits over 2 bytes, and 3 over 1: 2 and 3; their spread is 1 / sqrt(2), over sqrt(2).
    found = bits(log_likelihoods=[-4 * LN2, -3 * LN2], num_bytes=[2, 1])
    assert found["bits_per_byte"] == pytest.approx(2.5, rel=1e-15)
    assert found["bits_per_byte_stderr"] == pytest.approx(0.5, rel=1e-15)


def test_normalised_accuracy_is_by_character():
    # Per character -1 and -0.5, then -0.5 and -0.6.
    found = normalised(
        log_likelihoods=[[-2.0, -4.0], [-1.0, -3.0]],
        num_characters=[[2, 8], [2, 5]],
        gold=[1, 1],
    )
    assert found["acc_norm"] == 0.5
    assert found["acc_norm_stderr"] == pytest.approx(0.5)


def test_an_empty_choice_is_never_chosen():
    found = normalised(log_likelihoods=[[-1.0, -9.0]], num_characters=[[0, 1]], gold=[1])
    assert found["acc_norm"] == 1.0


def test_a_single_question_has_no_error():
    assert mean_and_error([3.0]) == (3.0, 0.0)


def test_questions_may_have_different_numbers_of_choices_and_come_in_any_order():
    rng = np.random.default_rng(0)
    answers = [
        Answer(
            nats_C=(-rng.random(number) * 9).tolist(),
            bytes_C=rng.integers(1, 20, number).tolist(),
            characters_C=rng.integers(1, 20, number).tolist(),
            right=(int(rng.integers(number)),),
        )
        for number in (2, 3, 4, 5, 4, 3)
    ]
    values, errors = scores(answers)
    again, errors_again = scores(answers[::-1])
    assert values == pytest.approx(again, rel=1e-14)
    assert errors == pytest.approx(errors_again, rel=1e-14)
    assert set(values) == set(errors) == {"bits_per_byte", "acc_norm"}


class Task(SimpleNamespace):
    """As much of lm-eval's task as answers are read with."""

    multiple_input = False

    def doc_to_choice(self, doc):
        return doc["choices"]


def sample(target, nats=(-1.0, -3.0, -2.0), **changes):
    choices = ["é", "bb", "ccc"]
    return {
        "doc": {"choices": choices},
        "target": target,
        "filtered_resps": [(value, False) for value in nats],
        "arguments": [("Q", f" {choice}") for choice in choices],
        **changes,
    }


def test_bytes_count_the_space_before_an_answer_and_characters_do_not():
    (answer,) = multiple_choice(Task(), [sample(0)])
    assert answer.bytes_C == [3, 3, 4]
    assert answer.characters_C == [1, 2, 3]
    assert answer.gold == 0


@pytest.mark.parametrize("target", [1, "bb", [1], ["bb"]])
def test_a_right_answer_is_a_number_or_the_text_itself(target):
    (answer,) = multiple_choice(Task(), [sample(target)])
    assert answer.right == (1,)


def test_of_several_right_answers_the_likeliest_counts_and_any_is_right():
    # Raw: the first is the likelier of the two. By character -1, -1.5 and -2/3: the last.
    (answer,) = multiple_choice(Task(), [sample([0, 2])])
    assert (answer.gold, answer.gold_by_character) == (0, 2)
    values, _ = scores([answer])
    assert values["acc_norm"] == 1.0
    assert values["bits_per_byte"] == pytest.approx(1 / LN2 / 3)


def test_a_question_without_a_right_choice_is_left_out():
    assert list(multiple_choice(Task(), [sample(7), sample("dddd")])) == []


def test_bits_of_a_logged_question_are_those_of_its_right_choice():
    assert bits_per_byte(sample(2)) == pytest.approx(2 / LN2 / 4)
    assert bits_per_byte(sample([0, 2])) is None
    assert bits_per_byte(sample(3)) is None
    generated = sample(0, filtered_resps=["a text"], arguments=[("Q", {"until": ["\n"]})])
    assert bits_per_byte(generated) is None
