"""Generality: the prompts are what they say, planted heads are found, and every number can be had another way."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, TOKEN, VOCAB, hand_weights
from naive import all_patterns
from zoo import fresh

import induction_kernel as ik
from induction_kernel.evidence._pattern_task import pattern_lines, repeated_passages
from induction_kernel.evidence._translation_task import (
    TRANSLATIONS,
    Translation,
    aligned_words,
    translation_attention,
    unreadable,
)
from induction_kernel.evidence._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE
from induction_kernel.loading import build
from induction_kernel.prompts._word_task import TOPICS

ENDS = ("", "_low", "_high")


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def found(model):
    return ik.evidence.generality(model, controls=4, progress=False)


def words_known(*texts):
    """A tokenizer with one token for every word of these texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<bos>", "<unk>", *dict.fromkeys(" ".join(texts).replace(":", " : ").split())]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", unk_token="<unk>")


def spoken(translations):
    return words_known(*(f"{':'.join(each.languages)}: {each.source} {each.target}" for each in translations))


SHORT = [
    Translation(("A", "B"), "one two three four", "un deux trois quatre"),
    Translation(("A", "B"), "two four one five three", "deux quatre un cinq trois"),
    Translation(("A", "B"), "five three four two", "cinq trois quatre deux"),
    Translation(("A", "B"), "three one two five four", "trois un cinq deux quatre", (0, 1, 3, 2, 4)),
    Translation(("A", "B"), "four five two one", "quatre cinq deux un"),
    Translation(("A", "B"), "one five four three", "un cinq quatre trois"),
]


def test_a_line_s_label_says_of_what_kind_its_two_words_are(model):
    prompts = pattern_lines(model, prompts=6)
    kind = {word: i for i, topic in enumerate(TOPICS) for word in topic}
    maps = []
    for row, prompt in zip(prompts.strings(), prompts, strict=True):
        assert max(Counter(row[1:-2])[word] for word in kind) <= 1  # nothing is copied literally
        shots = [tuple(row[i : i + 3]) for i in range(1, len(row) - 2, 4)]
        categories = {label: (kind[first], kind[second]) for first, second, label in shots}
        assert all(categories[label] == (kind[a], kind[b]) for a, b, label in shots)
        assert set(Counter(label for *_, label in shots).values()) == {4}
        right = prompt.demonstrations.labels[int(prompt.demonstrations.target)]
        assert categories[right] == (kind[row[-2]], kind[row[-1]])
        assert not {row[-2], row[-1]} & set(row[:-2])
        maps.append(tuple(sorted(categories.items())))
    assert len(set(maps)) > 1  # drawn anew in every prompt


def test_passages_come_twice_and_in_the_control_another_follows(model):
    words = " ".join(word for topic in TOPICS for word in topic)
    prompts = repeated_passages(model, words, prompts=4, length=10)
    assert prompts.tokens.shape == (4, 21)
    first, second = prompts.tokens[:, 1:11], prompts.tokens[:, 11:]
    assert torch.equal(first, second)
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert torch.equal(prompts.control[:, :11], prompts.tokens[:, :11])
    assert torch.equal(prompts.control[:, 11:], first.roll(1, 0))
    assert prompts.scored.sum(1).tolist() == [10] * 4
    listed = repeated_passages(model, ["fox wolf bear horse", "apple pear plum grape mango"])
    assert listed.tokens.shape == (2, 9)


def test_what_is_read_is_the_word_after_the_translation():
    tokenizer = spoken(SHORT)
    model = fresh("attention-only", tokenizer=tokenizer)
    prompts, entries = aligned_words(model, SHORT)
    rows, meaning = prompts.strings(), {}
    for pair in SHORT:
        for at, word in zip(pair.order, pair.target.split(), strict=True):
            meaning[word] = pair.source.split()[at]
    pairs = list(zip(*(index.tolist() for index in entries), strict=True))
    assert len(pairs) == 17
    for prompt, query, key in pairs:
        assert rows[prompt][key - 1] == meaning[rows[prompt][query]]
        assert rows[prompt][key] == meaning[rows[prompt][query + 1]]
    for own, turned in zip(prompts.tokens.tolist(), prompts.control.tolist(), strict=True):
        assert own != turned
        assert sorted(own) == sorted(turned)
    assert prompts[3].strings()[0][5:] != prompts[3].strings()[0]


def test_a_word_that_is_the_same_in_both_languages_is_not_read():
    same = [Translation(("A", "B"), "one taxi three", "un taxi trois")]
    model = fresh("attention-only", tokenizer=spoken(same))
    prompts, entries = aligned_words(model, same)
    assert [prompts.strings()[0][at] for at in entries.query] == ["un"]


def test_translation_attention_is_what_a_loop_over_patterns_gives():
    model = fresh("attention-only", tokenizer=spoken(SHORT))
    scores = translation_attention(model, SHORT)
    prompts, entries = aligned_words(model, SHORT)
    for key, tokens in (("score", prompts.tokens), ("control", prompts.control)):
        patterns = all_patterns(model, tokens)
        for prompt, layer, head in np.ndindex(*scores[key].shape):
            read = [
                float(patterns[layer][prompt, head, query, at])
                for row, query, at in zip(*(index.tolist() for index in entries), strict=True)
                if row == prompt
            ]
            assert float(scores[key][prompt, layer, head]) == pytest.approx(np.mean(read), abs=1e-12)


def test_a_planted_translator_is_found_and_heads_of_position_are_not():
    """L1H0 looks for the key after the *translation* of its query, by weights written by hand."""
    tokenizer, weights = spoken(SHORT), hand_weights()
    meaning = torch.eye(VOCAB)
    for pair in SHORT:
        for at, word in zip(pair.order, pair.target.split(), strict=True):
            row = torch.zeros(VOCAB)
            row[tokenizer.convert_tokens_to_ids(pair.source.split()[at])] = 1
            meaning[tokenizer.convert_tokens_to_ids(word)] = row
    w_q = weights["blocks.1.attn.W_Q"]
    w_q[0, TOKEN] = meaning @ w_q[0, TOKEN]
    model = build(ARCHITECTURE, weights, tokenizer=tokenizer, name="translator")
    scores = translation_attention(model, SHORT)
    assert scores["score"].sel(layer=1, head=0).values == pytest.approx(1, abs=1e-6)
    assert float(scores["control"].sel(layer=1, head=0).mean()) < 0.2
    assert scores["score"].sel(layer=0).values == pytest.approx(
        scores["control"].sel(layer=0).values, abs=1e-6
    )
    found = ik.evidence.generality(
        model, "L1H0", pattern=shots_of(model), translations=SHORT, controls=2, progress=False
    )
    assert bool(found["chosen_passes"].sel(behaviour="translation", layer=1, head=0))
    check = found.sel(check=[name for name in found["check"].values if "translation" in name])
    assert check.sizes["check"] == 2
    assert check["verdict"].values.tolist() == [HOLDS] * 2
    assert float(check["value"].isel(check=0)) > 0.8


def shots_of(model):
    """Any prompts with labels, of the words that SHORT has."""
    return ik.few_shot_prompts(
        model, [("one", "un"), ("two", "deux")] * 2, [("five", 0), ("four", 1)] * 4,
        template="{x} {y} :", labels=["un", "deux"], separator=" ",
    )  # fmt: skip


def test_the_translations_that_come_with_it_can_be_read():
    model = fresh("attention-only", n_ctx=64, d_vocab=250, tokenizer=spoken(TRANSLATIONS))
    assert unreadable(model, TRANSLATIONS) == ""
    prompts, entries = aligned_words(model, TRANSLATIONS)
    assert len(prompts) == 24
    assert torch.bincount(entries.prompt).min() >= 2


@pytest.mark.parametrize(("tokenizer", "why"), [
    (words_known("one two"), "does not know the words"),
    (lambda text, **_: {"input_ids": list(range(len(text.encode())))}, "tokens of 1.0 letters"),
])  # fmt: skip
def test_a_tokenizer_without_the_words_is_said_to_be_so(tokenizer, why):
    if not hasattr(tokenizer, "unk_token_id"):
        tokenizer.unk_token_id = None
    assert why in unreadable(SimpleNamespace(tokenizer=tokenizer), TRANSLATIONS)


def test_an_alignment_to_a_word_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="a word of the source from 0 to 1"):
        Translation(("A", "B"), "one two", "un deux", (0, 2))


def test_the_verdict_on_the_embedded_model_follows_from_its_checks(found):
    each = set(found["verdict"].values)
    assert found.attrs["verdict"] == next(
        word for word in (CONTRADICTED, INCONCLUSIVE, HOLDS) if word in each
    )
    assert found.attrs["argument"] == "generality"
    assert "does not know the words" in found.attrs["translation"]
    assert "translation" not in found["behaviour"]
    assert not [name for name in found["check"].values if "translation" in name]


def test_heads_are_chosen_on_other_prompts_than_they_are_scored_on(model, found):
    given = ik.repeated_tokens(model, repeats=4, prompts=16)
    scores = ik.prefix_matching(model, given, progress=False)
    chosen = ik.top_heads(scores, 10, passing=True)
    assert found.attrs["heads"] == " ".join(map(str, chosen))
    assert int(found["chosen"].sum()) == len(chosen)
    reported = found["score"].sel(behaviour="prefix_matching").dropna("prompt").values
    assert not np.allclose(reported, scores["score"].values, atol=1e-3)


def test_the_embedded_model_s_induction_heads_read_labels_of_the_right_category(model, found):
    labels = ik.label_attention(model, pattern_lines(model), progress=False)
    for key, other in (("score", "right"), ("control", "right_control")):
        ours = found[key].sel(behaviour="pattern").transpose("prompt", "layer", "head").values
        np.testing.assert_allclose(ours, labels[other].values, atol=1e-6)
    summary = ik.summarise(labels, variable="right")
    pattern = found.sel(behaviour="pattern")
    np.testing.assert_allclose(pattern["excess"].values, summary["excess"].values, atol=1e-9)
    strongest = found.attrs["heads"].split()[:2]
    is_strongest = np.isin(found["name"].values, strongest)
    assert bool((pattern["passes"].values[is_strongest] == 1).all())
    assert float(pattern["chosen_excess"]) > 0.1
    assert int(pattern["n_passing"]) == int(pattern["chosen_passes"].sum()) >= 2
    assert not bool(((pattern["chosen_passes"] == 1) & ~found["chosen"]).any())


def test_literal_copying_is_lost_with_the_heads_as_ablate_says(model, found):
    prompts = ik.repeated_tokens(model, prompts=16, seed=2)
    alone = ik.ablate(model, prompts, found.attrs["heads"], progress=False)
    np.testing.assert_allclose(found["copy_loss_without"], alone["value"], atol=1e-5)
    np.testing.assert_allclose(found["copy_loss"], alone["baseline"], atol=1e-5)
    np.testing.assert_allclose(found["first_loss"], ik.repeat_loss(model, prompts)["without"], atol=1e-5)
    lost = [float(found[f"share_lost{end}"]) for end in ENDS]
    assert lost == pytest.approx([float(alone[f"share{end}"]) for end in ENDS], abs=1e-4)
    assert lost[0] > 0.9
    # of the layers of these heads there is one other set, which has no interval over draws
    assert found["random_share"].sizes == {"draw": 1}
    spared = found.sel(check="the same without random heads")
    assert spared["low"] < spared["value"] < spared["high"] < 0.25
    assert spared["value"].item() == pytest.approx(found["random_share"].item())


def test_correlations_over_heads_are_scipy_s(found):
    from scipy.stats import spearmanr

    first, *others = (
        found["excess"].sel(behaviour=name).values.ravel() for name in ("prefix_matching", "pattern")
    )
    ours = found["correlation"].sel(behaviour=["prefix_matching", "pattern"]).values
    assert ours == pytest.approx([1.0, spearmanr(first, others[0])[0]])


def test_a_model_that_is_not_trained_gives_no_ground():
    found = ik.evidence.generality(ik.load("tiny", checkpoint=0), progress=False)
    assert found.attrs["verdict"] == "not defined on this model"
    assert "no induction head" in found.attrs["reason"]


def test_layers_without_other_heads_are_compared_with_other_layers(model):
    found = ik.evidence.generality(model, [(1, head) for head in range(5)], controls=2, progress=False)
    assert found.attrs["random_heads"] == "any layer"
    assert [name for name in found["check"].values if "random" in name]


def test_a_model_without_other_heads_leaves_out_the_control(model):
    heads = [(layer, head) for layer in range(2) for head in range(5)]
    found = ik.evidence.generality(model, heads, controls=2, progress=False)
    assert found.attrs["random_heads"] == "none"
    assert "random_share" not in found
    assert not [name for name in found["check"].values if "random" in name]


def test_a_tokenizer_without_the_words_of_the_lines_gives_no_ground():
    model = fresh("attention-only", tokenizer=words_known("one two three"))
    found = ik.evidence.generality(model, "L0H0", progress=False)
    assert found.attrs["verdict"] == "not defined on this model"
    assert "this task cannot be written for the model" in found.attrs["reason"]


def test_the_model_and_the_random_state_are_left_as_they_were(model, found):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, hooks = torch.get_rng_state(), hooks_of(model)
    again = ik.evidence.generality(model, controls=4, progress=False)
    xr.testing.assert_identical(again, found)
    assert torch.equal(torch.get_rng_state(), state)
    assert hooks_of(model) == hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def hooks_of(model):
    return sum(len(part._forward_hooks) + len(part._backward_hooks) for part in model.modules())


def test_it_comes_back_from_a_file_as_it_was(found, tmp_path):
    found.to_netcdf(tmp_path / "found.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "found.nc", engine="h5netcdf") as back:
        xr.testing.assert_allclose(back.load(), found)
        assert back.attrs == found.attrs
