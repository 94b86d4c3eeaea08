"""Ordinary text: the prose and the stories that ship, windows of them, and what stands in where they cannot be read."""

import naive
import numpy as np
import pytest
import torch
from english import english_model, english_tokenizer
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.evidence._circuit_scores import scores_of
from induction_kernel.prompts import ordinary_text
from induction_kernel.prompts._prose import ASSETS, shipped, what_is_read
from induction_kernel.scorers._attention import previous_token_on_text


@pytest.fixture(scope="module")
def model():
    return english_model()


def windows(prompts):
    return [tuple(row) for row in prompts.tokens[:, 1:].tolist()]


def test_the_prose_is_a_few_thousand_words_and_says_where_it_is_from():
    chapters = shipped("prose.txt")
    assert len(chapters) == 6
    assert 9_000 < sum(len(chapter.split()) for chapter in chapters) < 11_000
    head = (ASSETS / "prose.txt").read_text().split("\n= ")[0]
    assert all(said in head for said in ("Jane Austen (1775-1817)", "public domain", "r-cran-janeaustenr"))
    assert not any(mark in "".join(chapters) for mark in "_#=")


def test_the_stories_are_those_of_the_embedded_models_language():
    from induction_kernel.training._stories import stories
    from induction_kernel.training._vocabulary import VOCABULARY

    drawn = stories(np.random.default_rng(0), 64, 96)
    assert shipped("stories.txt") == tuple(" ".join(VOCABULARY[i] for i in row[1:]) for row in drawn)


def test_windows_are_parts_of_the_text_and_do_not_overlap(model):
    found = ordinary_text(model)
    assert found.tokens.shape == (32, 65)
    assert (found.bos, bool(found.scored.all()), found.control) == (True, True, None)
    text = "\n".join(shipped("prose.txt"))
    assert all(each.removeprefix("<|endoftext|>") in text for each in found.text(model))
    ids = [
        model.tokenizer(chapter, add_special_tokens=False)["input_ids"] for chapter in shipped("prose.txt")
    ]
    every = [tuple(row[at : at + 64]) for row in ids for at in range(0, len(row) - 63, 64)]
    assert len(set(windows(found))) == 32
    assert set(windows(found)) <= set(every)
    assert set(windows(ordinary_text(model, prompts=len(every)))) == set(every)


def test_the_draw_depends_on_the_seed_alone(model):
    state = torch.get_rng_state()
    one, same, other = (windows(ordinary_text(model, seed=seed)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert torch.equal(torch.get_rng_state(), state)


def test_ones_own_text_is_cut_as_it_is(model):
    text = "The sea was calm, and nobody on board had slept. " * 6
    found = ordinary_text(model, [text, "No more."], prompts=3, length=10, bos=False)
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert {tuple(row) for row in found.tokens.tolist()} <= {
        tuple(ids[at : at + 10]) for at in range(0, len(ids) - 9, 10)
    }
    assert not found.bos
    with pytest.raises(ValueError, match="text given has 0 windows of 64 tokens, wanted 32"):
        ordinary_text(model, "No more.")


def test_a_text_beyond_the_tokenizers_length_is_read_without_a_warning(caplog):
    long = english_tokenizer(model_max_length=60)
    assert len(ordinary_text(fresh("attention-only", tokenizer=long, d_vocab=len(long), n_ctx=80))) == 32
    assert not caplog.records


@pytest.mark.parametrize(
    ("other", "read"),
    [
        (english_model, "shipped prose"),
        (lambda: ik.load("tiny"), "shipped stories"),
        (lambda: tiny("attention-only"), "random tokens"),  # no tokenizer
        (lambda: english_model(merges=0, n_ctx=400), "random tokens"),  # one of single letters
        (lambda: english_model(d_vocab=300), "random tokens"),  # ids that the model has not
    ],
)
def test_each_model_reads_what_it_can_and_the_result_says_so(other, read):
    model = other()
    assert what_is_read(model) == read
    default = ordinary_text(model)
    for scorer in (ik.first_token, ik.current_token, ik.scorers.head_sizes):
        found = scorer(model, progress=False)
        assert found.attrs["text"] == read
        assert found.sizes["prompt"] == len(default)
        assert scorer(model, default[:2], progress=False).attrs["text"] == "the prompts given"
    assert ik.observe(model, None, [ik.first_token, ik.current_token]).attrs["text"] == read
    assert ik.previous_token(model).attrs["text"] == "random tokens"
    on_text = previous_token_on_text(model).attrs["text"]
    assert on_text == (read if read == "shipped prose" else "random tokens")


def test_the_embedded_model_reads_its_own_language_well():
    """Its loss on the shipped stories is near that on stories in training, 1.9 nats, not that of a guess, 5.6."""
    model = ik.load("tiny")
    loss = float(ik.loss(model, ordinary_text(model))["value"].mean())
    assert 1.5 < loss < 2.5


def test_prompts_fit_a_short_context():
    assert ordinary_text(english_model(n_ctx=30)).tokens.shape == (32, 30)


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
