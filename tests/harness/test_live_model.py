"""LiveModel by hand: answers do not depend on the rest of a batch, and nothing stays changed."""

from __future__ import annotations

import benchmarks
import pytest
import torch
from lm_eval.api.instance import Instance
from tiny import RecordingLlama, make_model

from tikmix_hf.harness import Harness, Suite
from tikmix_hf.harness.language_model import LiveModel, without_trace

TOKENIZER = benchmarks.make_tokenizer()
ARC = Suite(name="arc_only", tasks=(benchmarks.ARC,))
TEXTS = ("Q:", "What is", "a much longer text than all the others", "abc")


def model(**settings) -> RecordingLlama:
    return make_model(initializer_range=0.3, **settings).eval()


def ask(kind: str, arguments: list, live: LiveModel) -> list:
    requests = [
        Instance(request_type=kind, doc={}, arguments=own, idx=n) for n, own in enumerate(arguments)
    ]
    return getattr(live, kind)(requests)


def ids(text: str) -> torch.Tensor:
    return torch.tensor([list(text.encode())])


def by_hand(network, prompt: str, most: int) -> str:
    """The greedy continuation, one token after the other, without padding or cache."""
    text = prompt
    while len(text) < len(prompt) + most and not text.endswith(TOKENIZER.eos_token):
        text += chr(network(input_ids=ids(text), use_cache=False).logits[0, -1].argmax())
    return text[len(prompt) :].removesuffix(TOKENIZER.eos_token)


@torch.no_grad()
def test_prompts_of_any_lengths_are_continued_in_a_batch_as_each_would_be_alone():
    network = model()
    # The padding token, too: so which tokens are padding is known by the mask alone.
    network.generation_config.eos_token_id = TOKENIZER.eos_token_id
    live = LiveModel(network, TOKENIZER, batch_size=4)
    asked = [(text, {"until": ["~~~"], "max_gen_toks": 8}) for text in TEXTS]
    expected = [by_hand(network, text, 8) for text in TEXTS]
    assert len(set(expected)) == 4
    assert ask("generate_until", asked, live) == expected


@torch.no_grad()
def test_texts_of_any_lengths_are_scored_in_a_batch_as_each_would_be_alone():
    network = model()
    live = LiveModel(network, TOKENIZER, batch_size=4)
    found = ask("loglikelihood", [(text, " so it is") for text in TEXTS], live)
    for text, (nats, _) in zip(TEXTS, found, strict=True):
        whole = ids(f"{text} so it is")
        log_p = network(input_ids=whole).logits[0, :-1].double().log_softmax(-1)
        picked = log_p.gather(1, whole[0, 1:, None])[len(text) - 1 :]
        assert nats == pytest.approx(float(picked.sum()), rel=1e-5)


@torch.no_grad()
def test_a_long_text_is_read_in_windows_each_token_once():
    network = model(max_position_embeddings=16)
    live = LiveModel(network, TOKENIZER, batch_size=2)
    text = TEXTS[2]
    whole = ids(TOKENIZER.eos_token + text)
    nats = 0.0
    for start in range(0, len(text), 16):
        # A window predicts 16 tokens at most; the last one looks back as far as it may.
        stop = min(start + 16, len(text))
        begin = stop - 16
        seen = whole[:, max(begin, 0) : stop + 1]
        log_p = network(input_ids=seen[:, :-1]).logits[0].double().log_softmax(-1)
        nats += float(log_p.gather(1, seen[0, 1:, None])[-(stop - start) :].sum())
    short, long, empty = ask("loglikelihood_rolling", [("a",), (text,), ("",)], live)
    assert long == pytest.approx(nats, rel=1e-5)
    assert short < 0
    assert empty == 0


class Rows(RecordingLlama):
    """Counts the rows that are read."""

    num_rows = 0

    def forward(self, input_ids=None, **kwargs):
        self.num_rows += len(input_ids)
        return super().forward(input_ids=input_ids, **kwargs)


def test_answers_of_one_token_share_a_row_where_no_other_rank_waits():
    network = Rows(model().config)
    found = ask("loglikelihood", [("Q:", one) for one in "abcd"], LiveModel(network, TOKENIZER))
    assert network.num_rows == 1
    assert len(set(found)) == 4


def test_every_answer_of_this_process_is_heard_of():
    for kind, arguments in (
        ("loglikelihood", [("Q:", one) for one in "abc"]),
        ("loglikelihood_rolling", [(text,) for text in TEXTS]),
        ("generate_until", [(text, {"until": ["~"], "max_gen_toks": 2}) for text in TEXTS]),
    ):
        heard = []
        live = LiveModel(model(), TOKENIZER, on_answer=lambda heard=heard: heard.append(1))
        ask(kind, arguments, live)
        assert len(heard) == len(arguments)


class Switches(RecordingLlama):
    """Has its key-value cache switched by whoever asks it, and fails if it is told to."""

    fails = False

    def forward(self, *args, **kwargs):
        self.config.use_cache = not self.config.use_cache
        self.generation_config.max_length = 3
        if self.fails:
            raise RuntimeError("out of memory")
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_cache_switch_and_generation_settings_come_back(data_dir, use_cache, fails):
    network = Switches(model().config)
    network.config.use_cache, network.fails = use_cache, fails
    settings = network.generation_config
    before = settings.to_dict()
    found = Harness(ARC, data_dir=data_dir, limit=1, progress=False).score(network, TOKENIZER)
    assert bool(found.failures) == fails
    assert network.config.use_cache == use_cache
    assert network.generation_config is settings
    assert settings.to_dict() == before


def test_a_model_without_that_switch_is_none_the_worse():
    network = model()
    del network.config.use_cache
    with without_trace(network):
        pass
    assert "use_cache" not in network.config.to_dict()
