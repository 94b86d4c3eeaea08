"""Token and concept copying: prompts, values by hand, lists copied without heads, refusals."""

import numpy as np
import pytest
import torch
import xarray as xr
from english import english_model
from hand_model import ARCHITECTURE, GAIN, VOCAB, hand_weights
from transformers import PreTrainedTokenizerFast
from zoo import fresh

import induction_kernel as ik
from induction_kernel.head_census._concept_ablation import TASKS, list_prompts
from induction_kernel.head_census._concept_copying import _copying
from induction_kernel.head_census._concept_prompts import entity_prompts, several_tokens, shuffled_text
from induction_kernel.head_census._concept_words import LONG_WORDS, TRANSLATED
from induction_kernel.loading import build
from induction_kernel.prompts import ordinary_text
from induction_kernel.prompts._prose import shipped

OPTIONS = {"heads": None, "layers": None, "max_tokens": None, "progress": False}


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def letters(n_ctx=200, **changes):
    """A model whose tokenizer writes each character as a token, and a small letter with the space before it."""
    from tokenizers import Tokenizer, decoders, models

    vocab = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95, "[UNK]": 96}
    small = [chr(code) for code in range(97, 123)]
    vocab |= {f" {letter}": 97 + i for i, letter in enumerate(small)}
    merges = [(" ", letter) for letter in small]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="[UNK]"))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    return fresh("attention-only", dtype=torch.float32, tokenizer=fast, n_ctx=n_ctx, d_vocab=123, **changes)


def test_prompts_differ_where_they_should():
    """Source and other differ in the entity alone, source and into in the first part alone."""
    model = fresh("attention-only")
    groups = entity_prompts(model, None, prompts=10, length=9, seed=1)
    assert [group.entities.shape for group in groups] == [(3, 2), (3, 3), (2, 4), (2, 5)]
    for group in groups:
        n, size = group.entities.shape
        source, other, into = group.source.tokens, group.other.tokens, group.into.tokens
        kept = 9 - size
        assert source.shape == (n, 9 + kept + 1)
        assert torch.equal(source[:, kept:9], group.entities)
        assert torch.equal(other[:, kept:9], group.entities.roll(-1, 0))
        assert torch.equal(source[:, :kept], source[:, 9:-1])  # the random part comes again
        assert torch.equal(source[:, -1], group.entities[:, 0])
        assert torch.equal(source[:, 9:], into[:, 9:])
        assert torch.equal(source[:, :kept], other[:, :kept])
        assert not torch.equal(source[:, :kept], into[:, :kept])
        assert torch.equal(group.source.answers[:, 0], group.entities[:, 1])
        assert torch.equal(group.source.answers[:, 1], group.entities[:, 1].roll(-1))
    again = entity_prompts(model, None, prompts=10, length=9, seed=1)
    assert torch.equal(again[0].into.tokens, groups[0].into.tokens)


def test_the_tokens_around_an_entity_are_those_of_the_prose():
    model = english_model()
    pool = shuffled_text(model, torch.zeros(0, dtype=torch.long))
    words = " ".join(shipped("prose.txt")).split()
    assert model.tokenizer.decode(pool.tolist()).split() == words
    assert not any("\n" in text for text in model.tokenizer.batch_decode(pool[:, None]))
    letters = english_model(merges=0)  # does not read it
    assert len(shuffled_text(letters, torch.zeros(0, dtype=torch.long))) <= letters.cfg.d_vocab


def test_the_induction_head_by_hand_copies_tokens_and_no_concepts(by_hand):
    """With its z the next token has e^GAIN / (e^GAIN + 63); for the token after next it is put in too early."""
    found = _copying(by_hand, None, "token", prompts=24, length=12, seed=0, **OPTIONS)
    groups = entity_prompts(by_hand, None, prompts=24, length=12, seed=0)
    last = torch.cat([group.source.tokens[:, -2] for group in groups])
    clear = np.array(  # where the last random token came once alone in the first part
        [
            int((row[:12] == end).sum()) == 1
            for row, end in zip([row for g in groups for row in g.source.tokens], last, strict=True)
        ]
    )
    assert clear.sum() > 12
    values = (found["score"] + found["baseline"]).sel(layer=1, head=0).values[clear]
    np.testing.assert_allclose(values, np.exp(GAIN) / (np.exp(GAIN) + VOCAB - 1), rtol=1e-5)
    assert ik.top_heads(found, 1) == [(1, 0)]
    assert (
        float(abs(found["score"].sel(layer=0)).max()) < 1e-6
    )  # what they write there is the same in both runs
    words = [[i, i + 20] for i in range(12)]
    concepts = _copying(by_hand, words, "concept", prompts=24, length=12, seed=0, **OPTIONS)
    assert float(abs(concepts["score"]).max()) < 1e-6


def test_the_embedded_models_induction_heads_copy_tokens():
    model = ik.load("tiny")
    found = ik.head_census.token_copying(model, prompts=24)
    table = ik.head_table(found, 2)
    assert table.index[0] == "L1H7"
    assert table["excess"].iloc[0] > 0.4
    assert bool((found["clean"] > found["baseline"]).mean() > 0.8)
    one = ik.head_census.token_copying(model, prompts=24, heads="L1H7")
    np.testing.assert_allclose(
        one["score"].sel(layer=1, head=7), found["score"].sel(layer=1, head=7), rtol=0, atol=1e-5
    )
    assert int(one["score"].notnull().any("prompt").sum()) == 1


def test_words_are_entities_where_the_tokenizer_writes_them_as_several_tokens():
    model = letters()
    words = ["cat", "dog", "hen", "sow", "elephant"]  # three tokens, and the last one eight
    assert sorted(several_tokens(model, words)) == ["cat", "dog", "hen", "sow"]
    found = ik.head_census.concept_copying(model, words=words, prompts=8, length=12)
    assert set(found["entity"].values) <= {f" {word}" for word in words}
    assert found["n_tokens"].values.tolist() == [3, 3]
    assert found.attrs["method"] == "concept_copying"


def test_lists_are_written_as_in_the_paper():
    model = letters(n_ctx=400)
    prompts = list_prompts(model, "French", prompts=3, words=4, seed=0)
    text = prompts[0].text()[0]
    first, second = text.split("English translation:\n")
    lines = first.split("\n")
    assert lines[0] == "French vocab:"
    assert [line[:2] for line in lines[1:5]] == ["1.", "2.", "3.", "4."]
    english = dict(TRANSLATED["French"])
    listed = [line[3:] for line in lines[1:5]]
    assert [line[3:] for line in second.split("\n")[:3]] == [english[word] for word in listed[:3]]
    assert second.endswith("\n4.")
    assert model.tokenizer.decode([int(prompts.answers[0, 0])]) == f" {english[listed[3]][0]}"
    nonsense = list_prompts(model, "nonsense", prompts=2, words=3, seed=0)
    copied = nonsense[0].text()[0].split("Vocab:\n")
    assert copied[1].startswith(copied[2][:-2])


def test_without_heads_lists_have_the_values_of_ablate():
    model = letters(n_ctx=400)
    asked = {"tasks": ["nonsense", "words"], "prompts": 4, "words": 3, "n_controls": 2, "seed": 5}
    found = ik.head_census.list_ablation(model, "L1H0", ["L0H1", "L1H2"], **asked)
    assert found["row"].values.tolist() == ["nonsense", "words"]
    prompts = list_prompts(model, "words", prompts=4, words=3, seed=5)
    edit = ik.Mean(ordinary_text(model, seed=5), by_position=False)
    alone = ik.ablate(model, prompts, ["L0H1", "L1H2"], edit=edit, metric=ik.probability)
    np.testing.assert_allclose(
        found["value"].sel(row="words", mode="without concept heads"), alone["value"], rtol=1e-5
    )
    np.testing.assert_allclose(found["baseline"].sel(row="words"), alone["baseline"], rtol=1e-5)
    assert found["like"].values.tolist() == ["without token heads"] * 2 + ["without concept heads"] * 2
    assert found.attrs["token_heads"] == "L1H0"


def test_each_set_of_heads_has_random_heads_of_its_own_layers():
    """Of four heads a layer two are taken, so the random ones are known: the other two of the layer."""
    model = fresh("attention-only", dtype=torch.float32)
    asked = {"tasks": ["nonsense"], "prompts": 3, "words": 3, "n_controls": 1, "seed": 5}
    found = ik.head_census.list_ablation(model, ["L0H0", "L0H1"], ["L1H0", "L1H1"], **asked)
    assert found["like"].values.tolist() == found["mode"].values.tolist()
    others = ik.head_census.list_ablation(model, ["L0H2", "L0H3"], ["L1H2", "L1H3"], **asked)
    np.testing.assert_allclose(found["random"].values, others["value"].values, rtol=1e-5)
    assert float(abs(found["random"][:, 0] - found["random"][:, 1]).max()) > 1e-4


def test_one_list_of_nonsense_can_be_written():
    prompts = list_prompts(fresh("attention-only", n_ctx=80), "nonsense", prompts=1)
    assert prompts.tokens.shape == (1, 38)
    found = ik.head_census.list_ablation(ik.load("tiny"), "L1H7", "L1H2", prompts=1, n_controls=1)
    assert found["value"].shape[::2] == (len(found["row"]), 1)


def test_the_lists_of_words_are_sound():
    assert len(LONG_WORDS) == len(set(LONG_WORDS)) > 200
    for pairs in TRANSLATED.values():
        assert len(pairs) > 50
        assert len({english for _, english in pairs}) == len(pairs)
    assert TASKS == ("nonsense", "words", "French", "German", "Spanish")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: ik.head_census.concept_copying(model), "no tokenizer"),
        (lambda model: ik.head_census.list_ablation(model, "L1H0", "L1H1", tasks=["words"]), "no tokenizer"),
        (
            lambda _: ik.head_census.list_ablation(fresh("attention-only", d_vocab=1), "L1H0", "L1H1"),
            "none of nonsense, words",
        ),
        (lambda model: ik.head_census.token_copying(model, prompts=3), "at least two entities of one number"),
    ],
)
def test_what_has_no_meaning_on_a_model_says_so(call, message):
    with pytest.raises(ik.errors.NotDefined, match=message):
        call(fresh("attention-only", n_ctx=80))


def test_lists_without_heads_are_drawn_with_each_random_set():
    """`[row, prompt]` of the untouched model and of both sets; of two random sets for each, whose mean is a dot."""
    base, modes = (
        np.array([[0.8, 0.9, 0.7], [0.5, 0.4, 0.3]]),
        ["without token heads", "without concept heads"],
    )
    draws = base[:, None] - np.array([0.0, 0.1, 0.2, 0.4])[None, :, None]
    found = xr.Dataset(
        {
            "value": (("row", "mode", "prompt"), np.stack([base / 2, base / 4], 1)),
            "baseline": (("row", "prompt"), base),
            "random": (("row", "draw", "prompt"), draws),
        },
        {"row": ["words", "French"], "mode": modes, "like": ("draw", np.repeat(modes, 2))},
    )
    figure = ik.plots.list_plot(found)
    said = [trace.name for trace in figure.data]
    random = ["random for token heads", "random for concept heads"]
    assert said == ["untouched", *modes, *random, "each set", "each set"]
    expected = (base, base / 2, base / 4, base - 0.05, base - 0.3)
    for trace, values in zip(figure.data, expected, strict=False):
        np.testing.assert_allclose(trace.x, values.mean(1))
    for at in (0, 1):
        points, mean = figure.data[5 + at], figure.data[3 + at]
        np.testing.assert_allclose(points.x, draws[:, 2 * at : 2 * at + 2].mean(2).ravel())
        assert list(points.y) == np.repeat(mean.y, 2).tolist()
    assert list(figure.layout.yaxis.ticktext) == ["words", "French"]
