"""Previous-token scores on English where the tokenizer reads it: what QK-trace and K-composition are weighted with."""

import naive
import numpy as np
import pytest
import torch
from english import english_model
from zoo import tiny

import induction_kernel as ik
from induction_kernel.evidence._circuit_scores import scores_of
from induction_kernel.prompts import ordinary_text
from induction_kernel.prompts._passages import PASSAGES, english_passages


@pytest.fixture(scope="module")
def model():
    return english_model()


def test_the_passages_are_read_as_any_text(model):
    found = english_passages(model)
    assert len(found) == len(PASSAGES) == 16
    assert [text.removeprefix("<|endoftext|>") for text in found.text(model)] == list(PASSAGES)
    assert found.bos


@pytest.mark.parametrize(
    "other",
    [
        lambda: tiny("attention-only"),  # no tokenizer
        lambda: ik.load("tiny"),  # one of other words
        lambda: english_model(merges=0, n_ctx=400),  # one of single letters
        lambda: english_model(n_ctx=30),  # too short a context
        lambda: english_model(d_vocab=300),  # ids that the model has not
    ],
)
def test_elsewhere_there_are_none(other):
    assert english_passages(other()) is None


def test_qk_trace_is_weighted_with_the_scores_on_text(model):
    found = ik.qk_trace(model, draws=1)
    assert found.attrs["previous_token"] == "on shipped prose"
    text = ordinary_text(model)
    patterns = naive.all_patterns(model, text.tokens)
    weights = np.stack([naive.previous(each, text.lengths, text.scored, True).mean(0) for each in patterns])
    for head in range(4):
        twin = naive.qk_trace(model, weights, 1, head)
        assert float(found["score"].sel(layer=1, head=head)) == pytest.approx(twin, rel=1e-9)
    other = ik.qk_trace(model, torch.tensor([[5, 6, 7, 8]]), draws=1)
    assert other.attrs["previous_token"] == "on the prompts given"
    own = ik.previous_token(model, torch.tensor([[5, 6, 7, 8]]))["score"].mean("prompt").values
    assert float(other["score"].sel(layer=1, head=0)) == pytest.approx(
        naive.qk_trace(model, own, 1, 0), rel=1e-5
    )


def test_k_composition_is_weighted_with_the_scores_on_text(model):
    scores, _ = scores_of(model, None, 0, False)
    assert scores.attrs["previous_token"] == "on shipped prose"
    previous = ik.previous_token(model, ordinary_text(model))["score"].mean("prompt").sel(layer=0).values
    np.testing.assert_allclose(scores["previous_token"].sel(layer=0), previous, rtol=1e-6)
    found = ik.composition(model)["score"].sel(layer=0, receiver="L1H3").values
    mean = (previous * found).sum() / previous.sum()
    assert float(scores["k_composition"].sel(layer=1, head=3)) == pytest.approx(mean, rel=1e-6)
    given, _ = scores_of(model, ["Bees find their way home by the sun."], 0, False)
    assert given.attrs["previous_token"] == "on the prompts given"
    assert not np.allclose(given["k_composition"].sel(layer=1), scores["k_composition"].sel(layer=1))
