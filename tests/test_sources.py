"""A recipe's files: what cannot be read is named, with the line and the mend."""

from __future__ import annotations

import pytest
from tiny_recipe import make_tokenizer

from tikmix_hf import sources
from tikmix_hf.recipe import DataArguments

GOOD = '{"text": "one"}\n'


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "a.jsonl",
            GOOD + '{"text": "b"\n',
            r"line 2 of \S*a.jsonl is no JSON \(.*at character 14",
        ),
        ("a.jsonl", '"one"\n', r"line 1 of \S*a.jsonl is no JSON object"),
        (
            "a.jsonl",
            GOOD + "\n" + '{"text": 7}\n',
            r"line 3 of \S*a.jsonl has 7 in .* 'text', and no",
        ),
        (
            "a.jsonl",
            '{"text": 1}\n',
            r"line 1 of \S*a.jsonl has 1 in the column 'text', and no text",
        ),
        ("a.jsonl", GOOD + '{"text": null}\n', r"line 2 of \S*a.jsonl has null in"),
        ("a.jsonl", GOOD + '{"body": "b"}\n', r"line 2 of \S*a.jsonl has null in"),
        (
            "a.jsonl",
            '{"body": "b"}\n',
            r"`web.text_column` must name a column of \S*a.jsonl \(body\)",
        ),
        ("a.jsonl", "", r"a.jsonl is empty. Leave it out"),
        ("a.jsonl.gz", GOOD, r"a.jsonl.gz is no whole gzip file"),
        ("a.json", '[{"text": "one"}', r"`web.path` \S*a.json cannot be read: .*\w"),
        ("a.json", '[{"text": "one"}, {"text": 7}]', r"`web`: row 2 has 7 in the column 'text'"),
        ("a.txt", b"caf\xe9\n", r"line 1 of \S*a.txt is no UTF-8 text"),
        ("a.parquet", "nothing", r"`web.path` \S*a.parquet cannot be read: .*\w"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path, file, content, message, tokenizer
):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / file).write_bytes(content)
    data = DataArguments(domains={"web": {"path": str(tmp_path / file)}}, targets={})
    with pytest.raises(ValueError, match=message):
        sources.load(data, tokenizer, seed=0)


@pytest.mark.parametrize("empty", [{}, ""], ids=repr)
def test_an_empty_mixture_is_refused_and_a_missing_one_is_natural(empty):
    with pytest.raises(ValueError, match=rf"`mixture` must .*; got {empty!r}\. Leave the key out"):
        sources.read_mixture(empty)
    assert sources.read_mixture(None) == "natural"


def test_each_of_several_paths_must_be_there(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text(GOOD)
    paths = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    data = DataArguments(domains={"web": {"path": paths}}, targets={})
    with pytest.raises(ValueError, match=r"`web.path` matches no file: \S*b.jsonl"):
        sources.load(data, tokenizer, seed=0)
