"""stories15M, the negative control: a fluent model that looks back one token, and in which no head does induction.

Six layers of six heads, trained on children's stories (Karpathy 2023, llama2.c); `stories.py` reads its files.
"""

import numpy as np
import pytest
import torch

import induction_kernel as ik

pytestmark = pytest.mark.real("stories")

# What other programs that run this model at temperature 0 show: same weights, none of this code.
OPENING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the sunshine. "
    "One day, she saw a big, red ball in the sky. It was the sun! She thought it was so pretty."
)
STORY = (
    "Once upon a time, there was a boy named Tom. Tom had a dog named Max. They liked to run and play in the yard. "
    "One day, Max found a bone under a tree. He was very happy. Tom said, 'Good dog, Max!' Then Tom's mom called them "
    "for lunch. They ate soup and bread. After lunch, Tom and Max took a nap. They had a good day."
)


@pytest.fixture(scope="module")
def model(stories):
    return ik.load(stories)


@pytest.fixture(scope="module")
def scores(model):
    return ik.observe(model, None, [ik.induction, ik.prefix_matching, ik.previous_token], progress=False)


def test_it_tells_the_story_it_is_known_for(model):
    tokens = ik.as_prompts(model, OPENING).tokens
    with torch.no_grad():
        likeliest = model(tokens)[0].argmax(-1)
    assert likeliest[:-1].tolist() == tokens[0, 1:].tolist()
    assert model.tokenizer.decode(tokens[0], skip_special_tokens=True).strip() == OPENING


def test_it_is_fluent_and_lost_where_the_words_are_shuffled(model):
    told = ik.as_prompts(model, STORY).tokens
    order = 1 + torch.randperm(told.shape[1] - 1, generator=torch.Generator().manual_seed(0))
    shuffled = torch.cat([told[:, :1], told[:, order]], 1)
    assert 0.7 < ik.loss(model, told)["value"].item() < 1.5
    assert ik.loss(model, shuffled)["value"].item() > 8


@pytest.mark.parametrize("name", ["induction", "prefix_matching"])
def test_no_head_passes_the_threshold(scores, name):
    found = ik.summarise(scores.sel(scorer=name))
    assert not (found["passes"] == 1).any()
    assert float(found["mean"].max()) < 0.05


def test_one_head_looks_at_the_previous_token(scores):
    found = ik.summarise(scores.sel(scorer="previous_token"))
    first, second = ik.top_heads(found, 2)
    assert str(first) == "L2H0"
    assert 0.6 < float(found["mean"].sel(layer=first.layer, head=first.head)) < 0.9
    assert float(found["mean"].sel(layer=second.layer, head=second.head)) < 0.5


def test_a_repeat_is_hardly_worth_anything(model):
    """In nats, of 12.9; SmolLM2 gains more than 8."""
    found = ik.repeat_loss(model, ik.repeated_tokens(model, period=50, prompts=8))
    assert 12 < float(found["without"].mean()) < 14
    assert 0 < float((found["without"] - found["value"]).mean()) < 1


def test_it_is_the_same_model_as_a_bridge(model, stories):
    bridge = ik.load(stories, bridge=True)
    prompts = ik.repeated_tokens(model, period=20, prompts=2)
    for scorer in (ik.induction, ik.previous_token, ik.direct_effect):
        one, other = (scorer(each, prompts, progress=False)["score"].values for each in (model, bridge))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
