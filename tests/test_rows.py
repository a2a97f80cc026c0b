"""Documents become packed rows: the fast path against a stream cut by hand."""

import datasets
import pytest
import transformers
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tikmix_hf.domains import Domains, tokenize_and_pack

EOS = "<eos>"


@pytest.fixture(scope="module")
def tokenizer():
    """One token per letter, so that expected tokens can be written down."""
    vocabulary = {EOS: 0} | {chr(code): code - ord("a") + 1 for code in range(97, 123)}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token=EOS))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token=EOS, model_max_length=4)


def list_tokens(dataset):
    return [row["input_ids"] for row in dataset]


def pack_by_hand(texts, block_size):
    stream = [token for text in texts for token in [*(ord(c) - 96 for c in text), 0]]
    whole = len(stream) - len(stream) % block_size
    return [stream[i : i + block_size] for i in range(0, whole, block_size)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abcxyz", max_size=12), min_size=1, max_size=30), st.integers(1, 9))
def test_packing_cuts_the_joined_documents_and_drops_the_tail(tokenizer, texts, block_size):
    data, expected = Dataset.from_dict({"text": texts}), pack_by_hand(texts, block_size)
    if not expected:
        num_tokens = sum(len(text) + 1 for text in texts)
        with pytest.raises(ValueError, match=f"`block_size` {block_size} .* got {num_tokens} "):
            tokenize_and_pack(data, tokenizer, block_size=block_size)
        return
    assert list_tokens(tokenize_and_pack(data, tokenizer, block_size=block_size)) == expected


# Python 3.12 and later warn of every fork beside threads; datasets forks its workers.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_packing_carries_the_rest_across_batches_and_processes(tokenizer):
    # A map's first two batches hold 3,500 tokens each, which blocks of 8 do not divide.
    texts = ["abc", "de"] * 1_250
    for num_proc in (None, 2):
        blocks = tokenize_and_pack(
            Dataset.from_list([{"text": text} for text in texts]),
            tokenizer,
            block_size=8,
            num_proc=num_proc,
        )
        assert list_tokens(blocks) == pack_by_hand(texts, 8)


def test_text_on_disk_packs_like_text_in_memory_also_from_the_cache(tokenizer, tmp_path):
    texts = ["abcdef", "g", "hijk"] * 5
    Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "text")
    for _ in range(2):
        on_disk = Dataset.load_from_disk(tmp_path / "text")
        blocks = tokenize_and_pack(on_disk, tokenizer, block_size=4)
        assert blocks.cache_files
        assert list_tokens(blocks) == pack_by_hand(texts, 4)


def test_blocks_are_stored_as_int32_of_one_length_in_the_only_column(tokenizer):
    data = Dataset.from_dict({"body": ["abcd"] * 9, "url": ["x"] * 9})
    blocks = tokenize_and_pack(data, tokenizer, block_size=5, text_column="body")
    assert blocks.column_names == ["input_ids"]
    stored = blocks.data.column("input_ids").type
    assert (str(stored.value_type), stored.list_size) == ("int32", 5)
    assert Domains.from_datasets({"web": blocks})["web"].row_length == 5


def test_packing_is_silent_and_leaves_progress_bars_as_they_were(tokenizer, capfd, caplog):
    # A document longer than model_max_length is what a tokenizer warns of, the first time.
    fresh = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=EOS, model_max_length=4
    )
    transformers.logging.enable_propagation()
    try:
        tokenize_and_pack(Dataset.from_dict({"text": ["abcdefgh"]}), fresh, block_size=2)
    finally:
        transformers.logging.disable_propagation()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


def test_packing_refuses_what_it_cannot_pack(tokenizer):
    data = Dataset.from_dict({"text": ["abc"]})
    with pytest.raises(ValueError, match=r"`text_column` .*\(text\); got 'body'"):
        tokenize_and_pack(data, tokenizer, block_size=2, text_column="body")
    with pytest.raises(ValueError, match="`block_size` must be at least 1"):
        tokenize_and_pack(data, tokenizer, block_size=0)
    no_eos = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="EOS"):
        tokenize_and_pack(data, no_eos, block_size=2)
