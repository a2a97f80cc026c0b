"""Passages and questions of held-out text, by hand: what is cut, asked and left out."""

from __future__ import annotations

import pytest
from datasets import Dataset
from held_out import EOS, TOKENIZER, rows

from tikmix_hf import corpora
from tikmix_hf.harness import offline, offline_passages


def passages(*texts: str) -> list[str]:
    return offline_passages.read(rows(*texts), TOKENIZER).texts


LONG = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        # A row of one document's middle loses the words that its edges cut through.
        (f"alf-a-word {LONG} hal", LONG),
        # Where the row's edge falls between words, none is lost.
        (f" {LONG}\n", LONG),
        # A whole document loses none, and the ends of its neighbours are left out.
        (f"of another.{EOS}{LONG}.{EOS}Next", f"{LONG}."),
        # The document's beginning is there, its end is not; and the other way round.
        (f"x{EOS}{LONG} elev", LONG),
        (f"rest {LONG}{EOS}x", LONG),
        # Spaces before commas and lines stay as they are.
        (f"{EOS}{LONG} ,\n    x{EOS}", f"{LONG} ,\n    x"),
    ],
)
def test_a_passage_is_the_longest_piece_of_one_document_in_whole_words(row, passage):
    assert passages(row) == [passage]


def test_a_passage_has_eight_words_at_least_and_comes_once():
    eight = "a b c d e f g h"
    assert passages(EOS + eight + EOS, EOS + eight + EOS, EOS + "a b c d e f g" + EOS) == [eight]


def test_a_character_that_an_edge_of_the_row_cuts_through_is_left_out():
    byte_level = corpora._wrap(corpora.train_tokenizer([["abc"]], 257))
    text = "é is a b c d e f g h i é"
    ids = byte_level(text)["input_ids"]
    assert len(ids) == len(text.encode()) == len(text) + 2
    cut = Dataset.from_dict({"input_ids": [ids[1:-1]]})
    assert offline_passages.read(cut, byte_level).texts == ["is a b c d e f g h i"]
    # A document may itself hold half a character: nobody could ask for that in text.
    eos = byte_level.eos_token_id
    broken = Dataset.from_dict({"input_ids": [[eos, *ids[1:], eos]]})
    assert offline_passages.read(broken, byte_level).texts == []


@pytest.mark.parametrize(("more", "is_kept"), [(2, True), (3, False)])
def test_a_passage_that_takes_more_tokens_than_any_row_has_is_left_out(more, is_kept):
    class Longer:
        """Encodes text into more tokens than it was in its row."""

        eos_token_id, batch_decode = 0, TOKENIZER.batch_decode

        def __call__(self, texts, verbose):
            return {"input_ids": [[1] * (len(text) + more) for text in texts]}

    found = offline_passages.read(rows(EOS + LONG + EOS), Longer())  # 2 tokens more, the ends
    assert found == ([LONG] if is_kept else [], len(LONG) + 2)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a b c d e f g h the end", " end"),
        ("a b c d e f g h the end.", " the"),  # of letters alone
        ("a b c d e f g h the is", " the"),  # of three letters or more
        ("a b c d e f g h the\nend", " the"),  # after a space: a line's end would be asked for too
        ("a b c d e f g h the  end", " the"),
        ("a b c d e f g h  the end", " end"),
    ],
)
def test_cloze_asks_for_the_last_word_and_gives_all_before_it(text, target):
    found = list(offline._cloze(offline_passages.Passages([text], 99), TOKENIZER))
    assert found == [{"context": text[: text.rindex(target)], "target": target}]


def test_cloze_asks_nothing_of_a_passage_without_such_a_word():
    texts = ["a b c d e f g the h 1", "abc the def the ghi the jkl 1 2"]
    assert not list(offline._cloze(offline_passages.Passages(texts, 99), TOKENIZER))


def test_a_continuation_is_the_last_eight_words_behind_a_space():
    before, ending = "a b c d e f g h", "1 2 3\n4 5 6 7 8"
    assert offline._split_off_ending(f"{before} {ending}") == (before, ending)
    # The last eight begin a line. The eight before the last do not: so the last is left out.
    assert offline._split_off_ending(f"{before} i j k\n{ending}") == (
        f"{before} i j",
        "k\n1 2 3\n4 5 6 7",
    )
    assert offline._split_off_ending(f"{before[2:]} {ending}") is None


def test_no_wrong_ending_reads_like_the_right_one():
    start = "a b c d e f g h"
    same = [f"{start} {n} The End of it all Is here n" for n in range(9)]
    same += [f"{start} x{n} the end  of it\nall is here n" for n in range(9)]
    other = [f"{start} {n} w x y z w x y {n}" for n in range(2)]
    found = offline_passages.Passages([*same, *other], 99)
    # Read alike, there are three endings: too few.
    assert not list(offline._continuation(found, TOKENIZER))
    found.texts.append(f"{start} x q w x y z w x y")
    questions = list(offline._continuation(found, TOKENIZER))
    assert len(questions) == 21
    for question in questions:
        assert len({" ".join(c.lower().split()) for c in question["choices"]}) == 4


def test_a_context_is_cut_alike_before_all_choices_so_that_the_longest_fits():
    choices, context = ["short", "a longer one"], "one two three four five six seven eight nine ten"
    most = len(context) + 1 + len("a longer one")
    assert offline._shortened(context, choices, most, TOKENIZER) == context
    assert offline._shortened(context, choices, most - 1, TOKENIZER) == context[4:]
    assert offline._shortened(context, choices, most - 5, TOKENIZER) == context[8:]
    assert offline._shortened(context, choices, most - 9, TOKENIZER) is None


def test_no_question_is_longer_than_the_longest_row():
    texts = [
        " ".join(["word"] * 20 + ["x" * (1 + n)] * 8)[-140:].split(" ", 1)[1] for n in range(12)
    ]
    longest = max(map(len, texts))
    questions = list(offline._continuation(offline_passages.Passages(texts, longest), TOKENIZER))
    lengths = [max(map(len, one["choices"])) + len(one["context"]) + 1 for one in questions]
    assert len(lengths) >= 8  # the shortest endings leave too little room
    assert max(lengths) <= longest
    assert min(len(one["context"].split()) for one in questions) >= 8
    # Some had to give up words.
    own = [f"{one['context']} {one['choices'][one['gold']]}" for one in questions]
    assert not set(own) <= set(texts)
