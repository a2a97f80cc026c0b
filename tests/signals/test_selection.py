import pytest
import torch
from tiny_models import gpt2, llama

from tikmix_hf.signals import GroupInfluence
from tikmix_hf.signals.selection import select_parameters


def names(model, selection):
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(parameter)] for parameter in select_parameters(model, selection)]


def test_all_is_every_trainable_parameter_tied_weights_once():
    tied, untied = llama(), llama(tied=False)
    assert len(names(untied, "all")) == len(names(tied, "all")) + 1
    tied.model.embed_tokens.weight.requires_grad_(False)
    assert "model.embed_tokens.weight" not in names(tied, "all")


def test_the_head_is_the_output_embedding_whatever_its_name():
    assert names(llama(tied=False), "lm_head") == ["lm_head.weight"]
    assert names(llama(tied=True), "lm_head") == ["model.embed_tokens.weight"]
    assert names(gpt2(), "lm_head") == ["transformer.wte.weight"]


@pytest.mark.parametrize("model", [llama(), gpt2()], ids=["llama", "gpt2"])
def test_the_last_blocks_are_counted_from_the_output(model):
    last = names(model, "last 1 block")
    assert last
    assert all(".1." in name for name in last)
    both = names(model, "last 2 blocks")
    assert set(last) < set(both)
    assert not any("embed" in name or "wte" in name for name in both)


@pytest.mark.parametrize("model", [llama(), gpt2()], ids=["llama", "gpt2"])
def test_more_blocks_than_there_are_is_refused(model):
    with pytest.raises(
        ValueError, match=r"`parameters` must .* has 2; got 'last 3 blocks'\. Write"
    ):
        select_parameters(model, "last 3 blocks")


def test_blocks_that_are_not_trained_are_there_all_the_same():
    model = llama()
    model.model.layers[1].requires_grad_(False)
    assert names(model, "last 2 blocks") == names(model, r"layers\.0\.")


def test_a_regular_expression_is_searched_in_names():
    assert names(llama(), r"layers\.0\..*q_proj") == ["model.layers.0.self_attn.q_proj.weight"]


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(ValueError, match="'last 0 blocks' names none"):
        select_parameters(llama(), "last 0 blocks")
    with pytest.raises(ValueError, match=r"`parameters` must name trainable.*'router' names none"):
        select_parameters(llama(), "router")
    with pytest.raises(ValueError, match=r"`parameters` must be 'all'.*got '\('"):
        GroupInfluence(llama(), parameters="(")
    with pytest.raises(ValueError, match="'last 1 blocks' names none"):
        select_parameters(torch.nn.Sequential(torch.nn.Linear(2, 2)), "last 1 blocks")
