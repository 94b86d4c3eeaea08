"""Every fault ever reported, by its kind, with the right value: out of a computation that is not the package's.

One case a fault. Kinds: A text means the same however it comes in; B models that are not causal, or not language
models; C labelled data; D what zero means; E threads, devices, files.
"""

import base64
import copy
import functools
import gc
import gzip
import inspect
import json
import re
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from encoders import BIDIRECTIONAL, CLASSIFIERS, bidirectional, classifier
from folders import BRIDGES
from naive import composition
from pretend import cards, place_parameters
from shots import random_shots
from typer.testing import CliRunner
from verbs import VERBS
from worded import FAMILIES, alone, worded_model
from zoo import folded, fresh, fresh_of, hooked_with, model_of, tiny

import induction_kernel as ik
from induction_kernel.cli import app
from induction_kernel.kernel import resuming
from induction_kernel.loading.building import has_hooked_transformer
from induction_kernel.metrics import as_metric
from induction_kernel.model import all_modules
from induction_kernel.prompts import Demonstrations, concat
from induction_kernel.prompts.fewshot import TOPICS

TEXTS = ["fox dax ; apple wug ; fox", "apple wug ; fox dax ; wolf dax ; plum"]


@pytest.fixture(scope="module")
def embedded():
    return ik.load("tiny")


hooked_only = pytest.mark.skipif(
    not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4"
)


# A. Text means the same however it comes in ------------------------------------------------------------------------


def forms(model, texts):
    """The same texts in every form that users have."""
    right, left = (model.to_tokens(texts, padding_side=side) for side in ("right", "left"))
    output = model.tokenizer(texts, padding=True, return_tensors="pt")
    rows = [model.to_tokens(text)[0] for text in texts]
    width = right.shape[1] + 4
    return {
        "strings": texts,
        "a tuple": tuple(texts),
        "an array of strings": np.array(texts, dtype=object),
        "a pandas column": pd.Series(texts),
        "to_tokens, padded on the right": right,
        "to_tokens, padded on the left": left,
        "an array of ids": left.numpy().astype(np.uint16),
        "a tokenizer's output": output,
        "a tokenizer's lists": model.tokenizer(texts),
        "a dict of lists": {"input_ids": right.tolist(), "attention_mask": (right != 2).tolist()},
        "lists of ids": [row.tolist() for row in rows],
        "a list of tensors": rows,
        "lists padded alike": right.tolist(),
        "padded at both ends": torch.nn.functional.pad(right, (2, 2), value=model.tokenizer.pad_token_id),
        "padded beyond the context": torch.nn.functional.pad(
            right, (0, 200 - width), value=model.tokenizer.pad_token_id
        ),
    }


@pytest.mark.parametrize("form", list(forms(ik.load("tiny"), TEXTS)))
def test_padding_is_no_text(embedded, form):
    given = forms(embedded, TEXTS)[form]
    np.testing.assert_allclose(
        ik.loss(embedded, given)["value"], [alone(embedded, text) for text in TEXTS], atol=1e-5
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_moves_nothing_that_is_measured(embedded, side):
    """Scores, effects and patterns of padded tokens are those of each text alone, by the model's own passes."""
    tokens = embedded.to_tokens(TEXTS, padding_side=side)
    answers = [(" dax", " wug"), (" wug", " dax")]
    asked = ik.with_answers(embedded, tokens, answers)
    found = ik.logit_difference(embedded, asked)["value"]
    heads = ik.sweep(embedded, asked, edit=ik.Mean(tokens[:1]), metric=ik.logit_difference)
    heads = heads.sel(layer=1, head=7)
    shown = ik.patterns(embedded, tokens, ["L1H7", "L0H2"])
    mean = _mean_z(embedded, TEXTS[0])
    for i, (text, pair) in enumerate(zip(TEXTS, answers, strict=True)):
        ids = embedded.to_tokens(text)
        right, wrong = (embedded.to_tokens(word, prepend_bos=False).item() for word in pair)
        with torch.no_grad():
            logits, cache = embedded.run_with_cache(ids)
            edited = embedded.run_with_hooks(ids, fwd_hooks=[("blocks.1.attn.hook_z", _put(7, mean))])
        clean, changed = (float(each[0, -1, right] - each[0, -1, wrong]) for each in (logits, edited))
        assert float(found[i]) == pytest.approx(clean, abs=1e-4)
        assert float(heads["value"][i]) == pytest.approx(changed, abs=1e-4)
        n = ids.shape[1]
        for head, (layer, number) in enumerate([(1, 7), (0, 2)]):
            own = cache[f"blocks.{layer}.attn.hook_pattern"][0, number]
            np.testing.assert_allclose(shown["pattern"].values[i, head, :n, :n], own, atol=1e-5)


def _mean_z(model, text):
    """L1H7's mean over the positions of a text but its first."""
    with torch.no_grad():
        _, cache = model.run_with_cache(model.to_tokens(text))
    return cache["blocks.1.attn.hook_z"][0, 1:, 7].mean(0)


def _put(head, value):
    def hook(z, hook):
        z = z.clone()
        z[:, :, head] = value
        return z

    return hook


@pytest.mark.parametrize(
    ("family", "bridge"),
    [(family, bridge) for family in FAMILIES for bridge in BRIDGES if bridge or family != "BERT"],
)
@pytest.mark.parametrize("prepend", [True, False])
def test_text_is_what_the_model_makes_of_it(family, prepend, bridge):
    """Ids and loss of a string are those of `model.to_tokens`; the result says whether BOS stands in front."""
    model = worded_model(family, bridge=bridge, prepend_bos=prepend)
    for text in ("fox dax ; pear wug", "plum"):
        assert ik.as_prompts(model, text).tokens.tolist() == model.to_tokens(text).tolist()
    text = "fox dax ; pear wug"
    found = ik.loss(model, text)
    assert found["value"].item() == pytest.approx(alone(model, text), abs=1e-9)
    first, bos = int(model.to_tokens(text)[0, 0]), model.tokenizer.bos_token_id
    assert found.attrs["bos"] == (model.tokenizer.bos_token if first == bos else "none")
    assert (first == bos) is (prepend and family != "BERT")


@pytest.mark.parametrize("family", ["GPT-2", "Llama", "Llama 3"])
def test_bos_is_overridden_and_never_doubled(family):
    model = worded_model(family, prepend_bos=False)
    bos, start = FAMILIES[family][0]["bos"], model.tokenizer.bos_token_id
    plain = ik.as_prompts(model, "fox dax").tokens[0].tolist()
    assert start not in plain
    assert ik.as_prompts(model, "fox dax", bos=True).tokens[0].tolist() == [start, *plain]
    assert ik.as_prompts(model, "fox dax", bos=3).tokens[0].tolist() == [3, *plain]
    model.cfg.default_prepend_bos = True
    assert ik.as_prompts(model, "fox dax", bos=False).tokens[0].tolist() == plain
    assert ik.as_prompts(model, f"{bos} fox dax").tokens[0].tolist() == [start, *plain]
    shots = [("fox", "dax"), ("pear", "wug")]
    options = {"labels": ["dax", "wug"], "separator": " "}
    once = ik.few_shot(model, shots, ["plum"], template="{x} : {y} ;", **options)
    twice = ik.few_shot(model, shots, ["plum"], template=f"{bos} {{x}} : {{y}} ;", **options)
    assert once.tokens[0].tolist().count(start) == 1
    assert twice.tokens[0].tolist().count(start) == 3  # one a line, as the template says
    for prompts in (once, twice):
        words = prompts.strings(model)[0]
        assert [words[i] for i in prompts.demonstrations.label_positions[0]] == ["dax", "wug"]


@pytest.mark.parametrize("bos", [True, False])
def test_every_result_says_what_stood_in_front(embedded, bos):
    words = ik.repeated_tokens(embedded, period=5, prompts=2, bos=bos)
    shots = ik.word_episodes(embedded, shots=4, prompts=4)
    topics = [("fox", "dax"), ("apple", "wug")]
    options = {"template": "{x} {y} ;", "labels": ["dax", "wug"], "separator": " ", "bos": bos}
    few = ik.few_shot(embedded, topics, [("wolf", "dax"), ("plum", "wug")], **options)
    assert shots.bos
    results = [
        *(verb(embedded, words) for verb in (ik.induction, ik.loss, ik.loss_by_position, ik.copying)),
        ik.direct_effect(embedded, words),
        ik.patterns(embedded, words, "L1H7"),
        ik.sweep(embedded, words),
        ik.ablate(embedded, words, "L1H7"),
        ik.ablation_curve(embedded, words, ["L1H7"], ks=[1], controls=2),
        ik.attribution(embedded, words, edit=ik.Zero()),
        *(verb(embedded, few) for verb in (ik.in_context, ik.demonstration_weights, ik.label_flow)),
        ik.label_knock_out(embedded, few, "L1H7"),
    ]
    assert {result.attrs["bos"] for result in results} == {"<bos>" if bos else "none"}
    assert {result.attrs["n_prompts"] for result in results} == {2}


def test_prompts_made_by_default_follow_the_model_too():
    model = worded_model("Llama", prepend_bos=False)
    for prompts in (ik.repeated_tokens(model, period=3), ik.word_episodes(ik.load("tiny"))):
        assert prompts.bos is (prompts.tokenizer is not model.tokenizer)
    assert ik.induction(model).attrs["bos"] == "none"
    assert ik.repeated_tokens(model, period=3, bos=True).bos


def test_repeated_tokens_and_the_scorer_agree_on_a_model_without_bos():
    model = tiny("attention-only")
    prompts = ik.repeated_tokens(model)
    assert not prompts.bos
    np.testing.assert_array_equal(ik.induction(model)["score"], ik.induction(model, prompts)["score"])


PADS = {  # rows as ids, 0 the padding token; what is read of each, None where it is refused
    "GPT-2": {
        "plain": ([[1, 2, 3], [2, 3, 1]], [[1, 2, 3], [2, 3, 1]]),
        "BOS first": ([[0, 2, 3], [0, 3, 1]], [[0, 2, 3], [0, 3, 1]]),
        "BOS alone": ([[0]], [[0]]),
        "padded on the right": ([[0, 2, 3, 0], [0, 3, 1, 2]], None),
        "padded on the left": ([[0, 0, 2, 3], [0, 3, 1, 2]], None),
        "one begins with it": ([[0, 2, 3], [1, 3, 1]], None),
        "one ends in it": ([[1, 2, 0]], None),
    },
    "Qwen": {
        "padded on the right": (
            [[2, 3, 0, 0], [3, 1, 2, 4]],
            None,
        ),  # TransformerLens makes one token all three
    },
}


@pytest.mark.parametrize(("family", "case"), [(family, case) for family in PADS for case in PADS[family]])
def test_padding_that_may_be_text_is_refused(family, case):
    model = worded_model(family)
    assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id == 0
    rows, wanted = PADS[family][case]
    tokens = torch.tensor(rows)
    if wanted is None:
        with pytest.raises(ValueError, match=r"lengths="):
            ik.loss(model, tokens)
        lengths = [len(row) for row in rows]
        assert ik.as_prompts(model, tokens, lengths=lengths).tokens.tolist() == rows
        mask = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        assert ik.as_prompts(model, mask).tokens.tolist() == rows
    else:
        assert ik.as_prompts(model, tokens).tokens.tolist() == wanted


def test_padding_by_an_end_token_that_begins_nothing():
    """Llama's: BOS is another token, so a run of end tokens is padding unless every prompt ends in one."""
    model = worded_model("Llama")
    end = model.tokenizer.eos_token_id
    assert model.tokenizer.pad_token_id == end != model.tokenizer.bos_token_id
    texts = ["fox dax", "pear wug ; plum"]
    for side in ("right", "left"):
        found = ik.loss(model, model.to_tokens(texts, padding_side=side))["value"]
        np.testing.assert_allclose(found, [alone(model, text) for text in texts], atol=1e-9)
    with pytest.raises(ValueError, match=r"end-of-text token.*lengths="):
        ik.loss(model, torch.tensor([[0, 4, 5, end], [0, 5, 4, end]]))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 0, 1]], "hides tokens between"),
        ([[0, 0, 0]], "padding alone"),
        ([[1, 1]], "as large as the tokens"),
        ([[1, 2, 1]], "0 and 1"),
    ],
)
def test_a_mask_that_is_none(embedded, mask, message):
    with pytest.raises(ValueError, match=message):
        ik.loss(embedded, {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.tensor(mask)})


def test_unknown_words_are_named_with_known_ones_near_them(embedded):
    for verb in (
        lambda: ik.loss(embedded, "fox hello"),
        lambda: ik.induction(embedded, ["fox dax", "helo appel"]),
        lambda: ik.pairs(embedded, clean="fox hello", corrupted="fox dax"),
        lambda: ik.with_answers(embedded, "fox", [("appel", "wug")]),
        lambda: ik.edited(embedded, ik.Mean("appel fox"), heads="L1H7").__enter__(),
    ):
        with pytest.raises(ValueError, match=r"does not know '(hello|helo|appel)'"):
            verb()
    with pytest.raises(ValueError, match="near: 'apple'"):
        ik.loss(embedded, "appel")
    assert ik.as_prompts(embedded, "<unk> fox").tokens.tolist() == [[0, 1, 111]]  # written out, it is meant


def test_files_with_a_byte_order_mark(tmp_path):
    """What a Windows editor writes: the same prompts, the same answers, the effect where it was."""
    from typer.testing import CliRunner

    from induction_kernel.cli import app

    clean, corrupted, answers = ("fox dax ; apple wug ; fox", "apple dax ; fox wug ; fox", " dax, wug")
    effects = {}
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        files = [tmp_path / f"{encoding}-{name}.txt" for name in ("clean", "corrupted", "answers")]
        for file, text in zip(files, (clean, corrupted, answers), strict=True):
            file.write_text(f"{text}\r\n", encoding=encoding, newline="")
        out = tmp_path / f"{encoding}.csv"
        said = CliRunner().invoke(
            app, ["patch", str(files[0]), str(files[1]), "--answers", str(files[2]), "--out", str(out)]
        )
        assert said.exit_code == 0, said.output
        effects[encoding] = pd.read_csv(out)
    pd.testing.assert_frame_equal(effects["utf-8"], effects["utf-8-sig"])
    pd.testing.assert_frame_equal(effects["utf-8"], effects["utf-16"])
    right = _patched(ik.load("tiny"), clean, corrupted)
    found = effects["utf-8"].set_index(["layer", "position"])["effect"]
    for (layer, position), effect in right.items():
        assert found[layer, position] == pytest.approx(effect, abs=1e-4)


def _patched(model, clean, corrupted):
    """The effect of every layer and position of the stream, by the model's own hooks."""
    right, wrong = (model.to_tokens(word, prepend_bos=False).item() for word in ("dax", "wug"))
    ids = model.to_tokens(corrupted)

    def difference(hooks):
        with torch.no_grad():
            logits = model.run_with_hooks(ids, fwd_hooks=hooks)[0, -1]
        return float(logits[right] - logits[wrong])

    with torch.no_grad():
        _, cache = model.run_with_cache(model.to_tokens(clean))

    def at(layer, position):
        def hook(stream, hook):
            stream = stream.clone()
            stream[:, position] = cache[f"blocks.{layer}.hook_resid_pre"][:, position]
            return stream

        return [(f"blocks.{layer}.hook_resid_pre", hook)]

    start = difference([])
    places = [(layer, position) for layer in range(2) for position in range(ids.shape[1])]
    return {place: difference(at(*place)) - start for place in places}


# B. Models that are not causal, or not language models -------------------------------------------------------------


B_LENGTHS = [7, 4, 5]


def unequal(model):
    """Three prompts as tokens `[3, 7]`, padded by words, and as `Prompts`."""
    tokens = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    return tokens, ik.as_prompts(model, tokens, lengths=torch.tensor(B_LENGTHS))


def each_alone(model, tokens, hooks=()):
    """Logits `[1, position, output]` of every prompt run by itself, by the model alone."""
    with torch.no_grad(), model.hooks(fwd_hooks=list(hooks)):
        return [model(row[None, :length]) for row, length in zip(tokens, B_LENGTHS, strict=True)]


def last_and_first(logits, prompts):
    """Reads at the first position too, which a bidirectional model lets depend on all that follow."""
    rows = torch.arange(len(logits))
    return logits[rows, prompts.lengths - 1, 3] - logits[:, 0, 2]


def numbers_alone(model, tokens, hooks=()):
    return np.array([float(each[0, -1, 3] - each[0, 0, 2]) for each in each_alone(model, tokens, hooks)])


def attention_alone(model, tokens, layer):
    """The pattern `[1, head, query, key]` of every prompt run by itself."""
    seen = []
    each_alone(model, tokens, [(f"blocks.{layer}.attn.hook_pattern", lambda rows, hook: seen.append(rows))])
    return seen


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_bidirectional_model_does_not_see_padding(kind):
    """Every reading verb gives each prompt what it has alone."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    alone = [attention_alone(model, tokens, layer) for layer in (0, 1)]
    shown = ik.patterns(model, prompts, ["L0H1", "L1H2"])["pattern"].values
    measured = as_metric(last_and_first)(model, prompts)["value"].values
    np.testing.assert_allclose(measured, numbers_alone(model, tokens), atol=1e-10)
    scores = ik.previous_token(model, prompts)
    for i, length in enumerate(B_LENGTHS):
        for choice, (layer, head) in enumerate([(0, 1), (1, 2)]):
            rows = alone[layer][i][0, head].numpy()
            np.testing.assert_allclose(shown[i, choice, :length, :length], rows, atol=1e-6)
            expected = np.diagonal(rows, -1).mean()
            np.testing.assert_allclose(scores["score"].values[i, layer, head], expected, atol=1e-6)
        assert np.isclose(float(scores["chance"][i]), 1 / length)  # uniform over all of the prompt


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_effects_in_a_bidirectional_model_are_those_of_each_prompt_alone(kind):
    """Effects of sweeps, ablation, estimates and knock-out, from whole runs of the model with plain hooks."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    add = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def moved(z, hook):
        z = z.clone()
        z[:, :, 1] += add
        return z

    def moved_at_two(z, hook):
        return torch.cat([z[:, :2], z[:, 2:3] + add * torch.tensor([0, 1, 0, 0])[:, None], z[:, 3:]], 1)

    options = {"edit": ik.Add(add), "metric": last_and_first, "progress": False}
    whole = numbers_alone(model, tokens, [("blocks.0.attn.hook_z", moved)])
    at_two = numbers_alone(model, tokens, [("blocks.0.attn.hook_z", moved_at_two)])
    np.testing.assert_allclose(ik.sweep(model, prompts, **options)["value"].values[:, 0, 1], whole, atol=1e-9)
    by = ("layer", "head", "position")
    np.testing.assert_allclose(
        ik.sweep(model, prompts, by=by, **options)["value"].values[:, 0, 1, 2], at_two, atol=1e-9
    )
    np.testing.assert_allclose(ik.ablate(model, prompts, "L0H1", **options)["value"].values, whole, atol=1e-9)
    tiny_add = {**options, "edit": ik.Add(1e-6 * add)}
    estimate = ik.attribution(model, prompts, **tiny_add)["estimate"].values
    exact = ik.sweep(model, prompts, **tiny_add)["effect"].values
    np.testing.assert_allclose(estimate, exact, rtol=1e-3, atol=1e-11)


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_knock_out_of_later_keys_acts_in_a_bidirectional_model(kind):
    """The last key is taken from the first query, alone or padded: pattern rows by hand, put into z."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    mask = torch.zeros(3, 7, 7, dtype=torch.bool)
    for i, length in enumerate(B_LENGTHS):
        mask[i, 0, length - 1] = True
    found = ik.knock_out(model, prompts, mask, by=("layer",), metric=last_and_first, progress=False)
    expected = []
    for i, length in enumerate(B_LENGTHS):
        row = tokens[i : i + 1, :length]
        kept = {}

        def keep(site, kept=kept):
            return f"blocks.1.attn.hook_{site}", lambda values, hook: kept.update({site: values})

        def put(z, hook, kept=kept):
            rows = kept["pattern"].clone()
            rows[:, :, 0, -1] = 0
            return torch.einsum("phqk,pkhd->pqhd", rows / rows.sum(-1, keepdim=True), kept["v"])

        with torch.no_grad(), model.hooks(fwd_hooks=[keep("pattern"), keep("v")]):
            model(row)
        with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", put)]):
            logits = model(row)
        expected.append(float(logits[0, -1, 3] - logits[0, 0, 2]))
    np.testing.assert_allclose(found["value"].values[:, 1], expected, atol=1e-9)


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_query_of_a_bidirectional_model_may_lose_its_past(kind):
    """It is not left with nothing, as it would be in a causal model."""
    model = bidirectional(kind)
    _, prompts = unequal(model)
    no_past = torch.ones(7, 7, dtype=torch.bool).tril()
    no_past[:, -4:] = False
    with pytest.raises(ValueError, match="left with nothing to attend to"):
        ik.knock_out(model, prompts, torch.ones(7, 7, dtype=torch.bool), metric=last_and_first)
    first = torch.zeros(7, 7, dtype=torch.bool)
    first[0, 0] = True
    assert np.isfinite(ik.knock_out(model, prompts, first, metric=last_and_first)["value"]).all()


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_mask_of_later_keys_is_read_in_a_bidirectional_model(kind):
    model = bidirectional(kind)
    tokens, prompts = unequal(model)

    def next_key(tokens, lengths):
        mask = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
        mask[:, torch.arange(6), torch.arange(1, 7)] = True
        return mask

    found = ik.AttentionScorer("next key", next_key)(model, prompts)["score"].values
    for i, rows in enumerate(attention_alone(model, tokens, 1)):
        np.testing.assert_allclose(found[i, 1], rows[0].diagonal(1, 1, 2).mean(-1), atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in BIDIRECTIONAL if kind in ("hooked", "native")])
def test_direct_effects_of_answers_in_a_bidirectional_model(kind):
    """Through the frozen final norm, from each prompt's own run: z W_O along a difference of unembeddings."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    answers = [(3, 4), (5, 6), (7, 8)]
    found = ik.direct_effect(model, ik.with_answers(model, prompts, answers))["score"].values
    moved = []
    for head in (0, 1):
        z_of, end_of = [], []
        hooks = [
            ("blocks.1.attn.hook_z", lambda z, hook, z_of=z_of: z_of.append(z)),
            ("blocks.1.hook_resid_post", lambda x, hook, end_of=end_of: end_of.append(x)),
        ]
        each_alone(model, tokens, hooks)
        for z, end, (right, wrong) in zip(z_of, end_of, answers, strict=True):
            from_head = (z[0, -1, head] - value_bias(model, 1, head)) @ model.blocks[1].attn.W_O[head]
            scale = (end[0, -1].var(unbiased=False) + model.cfg.eps).sqrt()
            weight = next(p for n, p in model.ln_final.named_parameters() if n.endswith(("w", "weight")))
            normed = (from_head - from_head.mean()) / scale * weight
            moved.append(float(normed.detach() @ (model.W_U[:, right] - model.W_U[:, wrong]).detach()))
    np.testing.assert_allclose(found[:, 1, :2], np.reshape(moved, (2, 3)).T, atol=1e-9)


def value_bias(model, layer, head):
    """What the head adds whatever the prompt: its bias, and the first norm's bias through W_V."""
    block = model.blocks[layer]
    shift = next(p for n, p in block.ln1.named_parameters() if n.endswith(("b", "bias")))
    return block.attn.b_V[head] + shift @ block.attn.W_V[head]


NEXT_TOKENS = {
    "loss": lambda model, tokens: ik.loss(model, tokens),
    "repeat_loss": lambda model, tokens: ik.repeat_loss(model),
    "sweep": lambda model, tokens: ik.sweep(model, tokens, metric=ik.loss),
    "ablate": lambda model, tokens: ik.ablate(model, None, "L0H0"),
    "attribution": lambda model, tokens: ik.attribution(model, None, edit=ik.Scale(0.5)),
    "loss_by_position": lambda model, tokens: ik.loss_by_position(model, tokens),
    "icl_score": lambda model, tokens: ik.icl_score(model, tokens, early=1, late=4),
    "direct_effect": lambda model, tokens: ik.direct_effect(model, tokens),
}


@pytest.mark.parametrize("verb", NEXT_TOKENS)
def test_next_tokens_that_a_model_sees_are_not_predicted(verb):
    model = bidirectional("native")
    with pytest.raises(ValueError, match="a model that attends to them"):
        NEXT_TOKENS[verb](model, torch.arange(12).view(2, 6))


OWN_TOKENS = {
    **NEXT_TOKENS,
    "copying": lambda model, tokens: ik.copying(model, tokens),
    "ov_eigenvalues": lambda model, tokens: ik.ov_eigenvalues(model),
    "label_accuracy": lambda model, tokens: ik.label_accuracy(model, few_shots()),
    "probability": lambda model, tokens: ik.probability(model, few_shots()),
    "in_context": lambda model, tokens: ik.in_context(model, few_shots()),
    "label_writing": lambda model, tokens: ik.label_writing(model, few_shots()),
    "label_flow": lambda model, tokens: ik.label_flow(model, few_shots()),
    "label_knock_out": lambda model, tokens: ik.label_knock_out(model, few_shots(), "L0H0"),
    "fit_label_weights": lambda model, tokens: ik.fit_label_weights(model, few_shots()),
    "function_vectors": lambda model, tokens: ik.function_vectors(model, few_shots()),
}


def few_shots():
    """Two prompts of two demonstrations, whose labels are tokens 1 and 2: also numbers of classes."""
    tokens = torch.tensor([[10, 1, 11, 2, 12], [13, 2, 14, 1, 15]])
    spans = torch.tensor([[[0, 2], [2, 4]]] * 2)
    found = Demonstrations(
        spans, torch.tensor([[1, 3]] * 2), torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 2, dtype=torch.bool),
        torch.tensor([1, 2]), torch.tensor([0, 1]), ("one", "two"),
    )  # fmt: skip
    return ik.Prompts(tokens, torch.tensor([5, 5]), torch.ones(2, 5, dtype=torch.bool), found)


@pytest.mark.parametrize("verb", OWN_TOKENS)
def test_what_reads_tokens_is_not_read_off_classes(verb):
    with pytest.raises(
        ValueError, match=r"whose 5 outputs are others \(d_vocab_out\): give answers by number"
    ):
        OWN_TOKENS[verb](classifier("native"), torch.arange(12).view(2, 6) % 5)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classes_are_answers(kind):
    """Metrics and direct effects of classes, against the model's own logits."""
    model = classifier(kind)
    tokens = torch.arange(14).view(2, 7)
    prompts = ik.with_answers(model, tokens, [(4, 0), (1, 3)])
    with torch.no_grad():
        last = model(tokens)[:, -1]
    difference = last[[0, 1], [4, 1]] - last[[0, 1], [0, 3]]
    np.testing.assert_allclose(ik.logit_difference(model, prompts)["value"], difference, atol=1e-10)
    expected = last.softmax(-1)[[0, 1], [4, 1]]
    np.testing.assert_allclose(ik.probability(model, prompts)["value"], expected, atol=1e-10)
    np.testing.assert_allclose(ik.kl_to(last)(model, prompts)["value"], 0, atol=1e-10)
    swept = ik.sweep(model, prompts, edit=ik.Scale(1.0), metric=ik.probability, progress=False)
    np.testing.assert_allclose(swept["value"][:, 0, 0], expected, atol=1e-10)
    assert np.isfinite(ik.direct_effect(model, prompts)["score"]).all()


@pytest.mark.parametrize("verb", ["with_answers", "direct_effect", "logit_difference"])
def test_a_class_that_is_none_is_refused(verb):
    model = classifier("native")
    tokens = torch.arange(7)[None]
    if verb == "with_answers":
        with pytest.raises(ValueError, match="wanted answers as numbers from 0 to 4"):
            ik.with_answers(model, tokens, [("good", "bad")])
        return
    prompts = replace(ik.as_prompts(model, tokens), answers=torch.tensor([[1, 30]]))
    with pytest.raises(ValueError, match=r"from 0 to 4|0 to 4"):
        getattr(ik, verb)(model, prompts)


@pytest.mark.parametrize("by", [("layer", "head"), ("layer",), ()], ids=str)
def test_one_cell_is_verified(by):
    """The one head of a model, by hand: z without its mean over the prompts, exactly."""
    model = fresh("attention-only", n_layers=1, n_heads=1)
    tokens = torch.arange(15).view(3, 5)
    found = ik.attribution(
        model, tokens, edit=ik.Add(torch.ones(4, dtype=torch.float64)), by=by, metric=ik.loss, verify=2
    )
    with torch.no_grad():
        before = model(tokens, return_type="loss")
        with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z + 1)]):
            after = model(tokens, return_type="loss")
    np.testing.assert_allclose(found["exact"].values, [float(after - before)], atol=1e-10)
    np.testing.assert_allclose(found.attrs["worst_miss"], abs(found["exact"] - found["estimated"]).values[0])
    assert np.isnan(found.attrs["correlation"])


def test_attention_to_later_tokens_is_drawn():
    """The whole square travels to the page where there is anything above the diagonal."""
    model = bidirectional("native")
    tokens = torch.arange(5)[None]
    seen = []
    with (
        torch.no_grad(),
        model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda x, hook: seen.append(x))]),
    ):
        model(tokens)
    html = ik.attention_view(ik.patterns(model, tokens, "L0H2")).fragment()
    data = json.loads(re.search(r"const data = (.*);\n", html)[1])
    sent = np.frombuffer(base64.b64decode(data["heads"][0]), np.uint8) / 250
    np.testing.assert_allclose(sent.reshape(5, 5), seen[0][0, 2], atol=0.0021)


def test_a_model_that_heeds_no_mask_refuses_unequal_lengths(monkeypatch):
    """Rather than let padding in; prompts of one length run."""
    model = bidirectional("native")
    inner = model.original_model
    forward = inner.forward
    monkeypatch.setattr(
        inner, "forward", lambda *args, attention_mask=None, **kwargs: forward(*args, **kwargs)
    )
    tokens, prompts = unequal(model)
    with pytest.raises(ValueError, match="heeds no mask"):
        ik.patterns(model, prompts, "L0H0")
    assert ik.patterns(model, tokens, "L0H0").sizes["query"] == 7


@pytest.mark.parametrize("family", ["GPT-2", "Llama"])
def test_the_epsilon_of_a_norm_may_be_large(family):
    """It moves a norm's scale, not what its weights say: such models were refused where norms are folded."""
    model = fresh(family, eps=0.02)
    found = ik.composition(model, by="v", progress=False)
    right = [[composition(model, 0, head, 1, to, "v") for to in range(4)] for head in range(4)]
    np.testing.assert_allclose(found["score"][0], right, rtol=1e-9)
    assert ik.direct_effect(model, torch.tensor([[3, 9, 3, 9]]))["score"].notnull().all()


@pytest.mark.skipif(not has_hooked_transformer(), reason="Bridges have a norm before every MLP")
def test_a_stream_is_edited_where_no_norm_reads_it():
    """One prompt, several cells, no norm: torch could not view the stream that the MLP was given."""
    model = hooked_with(
        normalization_type=None, positional_embedding_type="shortformer", parallel_attn_mlp=True
    )
    tokens, vector = torch.tensor([[3, 9, 4, 7]]), torch.linspace(-1, 1, 16, dtype=torch.float64)
    found = ik.sweep(
        model, tokens, edit=ik.Add(vector), site="resid_post", by=("layer", "position"), metric=ik.loss, progress=False
    )  # fmt: skip
    for layer, position in [(0, 1), (1, 2)]:

        def add(resid, hook, position=position):
            resid[:, position] += vector
            return resid

        hooks = [(f"blocks.{layer}.hook_resid_post", add)]
        with torch.no_grad():
            right = float(model.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks))
        assert float(found["value"][0, layer, position]) == pytest.approx(right, rel=1e-9)


# C. Labelled data --------------------------------------------------------------------------------------------------

REVIEWS = (
    'Title,Review Text,Stars?,"Text, {raw}"\n'
    'Good,"fine, {x}",1.0,a\nBad,"{Title} and {{y}}",0.0,b\nNA,null,1.0,c\nNone,NaN,0.0,d\n'
)
LIKED = [1, 0, 1, 0]


def file_in(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("Review Text", ["fine, {x}", "{Title} and {{y}}", "null", "NaN"]),
        ("{Review Text}", ["fine, {x}", "{Title} and {{y}}", "null", "NaN"]),
        ("{Title}: {Review Text}", ["Good: fine, {x}", "Bad: {Title} and {{y}}", "NA: null", "None: NaN"]),
        ("Text, {raw}", ["a", "b", "c", "d"]),
        ("{Text, {raw}}/{Stars?}", ["a/1.0", "b/0.0", "c/1.0", "d/0.0"]),
        ("{{Title}} {Title}", ["{Title} Good", "{Title} Bad", "{Title} NA", "{Title} None"]),
        ("{{{Title}}}", ["{Good}", "{Bad}", "{NA}", "{None}"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "frame", "jsonl", "parquet"])
def test_columns_of_any_name_and_words_that_look_like_missing_values(tmp_path, text, texts, kind):
    table = pd.read_csv(StringIO(REVIEWS), keep_default_na=False, dtype=str)
    source = table if kind == "frame" else tmp_path / f"A.{kind.upper()}"
    if kind == "csv":
        file_in(tmp_path, source.name, REVIEWS)
    elif kind == "jsonl":
        table.to_json(source, orient="records", lines=True)
    elif kind == "parquet":
        table.to_parquet(source)
    found = ik.classification(source, text=text, label="Stars?")
    assert list(found.texts) == texts
    assert (found.classes.tolist(), found.labels) == (LIKED, ("0", "1"))


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("{Titel}: {Review Text}", "Stars?", r"without a column 'Titel': did you mean 'Title'\?"),
        ("review text", "Stars?", r"did you mean 'Review Text'\?"),
        ("review_text", "stars", r"text='review_text': did you mean 'Review Text'\?"),
        ("Title", "stars?", r"label='stars\?': did you mean 'Stars\?'\?"),
        ("{Title", "Stars?", "written twice, {{ or }}"),
        ("{{Title}}", "Stars?", "wanted text= one of the columns"),
        ("Summary", "Stars?", r"got text='Summary'$"),
    ],
)
def test_unknown_columns_are_named_with_the_nearest(tmp_path, text, label, message):
    with pytest.raises(ValueError, match=message):
        ik.classification(file_in(tmp_path, "a.csv", REVIEWS), text=text, label=label)


def test_a_column_that_occurs_twice_is_not_chosen_silently(tmp_path):
    file = file_in(tmp_path, "a.csv", "text,label,text\nfox,0,pear\nwolf,1,plum\n")
    with pytest.raises(ValueError, match="several columns 'text'"):
        ik.classification(file)


STARS = [-2, -1, 0, 1, 2]
WORDS = ["awful", "bad", "fair", "good", "great"]


@pytest.mark.parametrize("kind", ["float", "Int64", "object", "strings", "category", "csv", "jsonl"])
def test_whole_classes_are_numbers_however_they_are_written(tmp_path, kind):
    """Sorted by size and matched by value, where pandas made them float for a missing one."""
    values = [*STARS, None]
    frame = pd.DataFrame({"text": list("abcdef"), "label": pd.Series(values, dtype="float64")})
    made = {
        "Int64": lambda: frame.assign(label=pd.array(values, dtype="Int64")),
        "object": lambda: frame.assign(
            label=pd.Series(["-2", -1, -0.0, np.float32(1), np.int8(2), None], dtype=object)
        ),
        "strings": lambda: frame.assign(label=["-2.0", "-1", "-0", "+1", "2.", " "]),
        "category": lambda: frame.assign(label=frame["label"].astype("category")),
        "csv": lambda: file_in(tmp_path, "a.csv", frame.to_csv(index=False)),
        "jsonl": lambda: file_in(tmp_path, "a.jsonl", frame.to_json(orient="records", lines=True)),
    }
    source = made.get(kind, lambda: frame)()
    with pytest.warns(UserWarning, match="1 of 6 rows"):
        plain = ik.classification(source, missing="drop")
    assert (plain.classes.tolist(), plain.labels) == ([0, 1, 2, 3, 4], ("-2", "-1", "0", "1", "2"))
    for labels in (WORDS, dict(zip([-2, "-1", 0.0, "1.0", np.int64(2)], WORDS, strict=True))):
        with pytest.warns(UserWarning, match="1 of 6 rows"):
            found = ik.classification(source, labels=labels, missing="drop")
        assert (found.classes.tolist(), found.labels) == ([0, 1, 2, 3, 4], tuple(WORDS))


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (["0.5", "3", "10", "1.5"], ("0.5", "1.5", "3", "10")),
        (["01", "02", "10", "9"], ("01", "02", "9", "10")),
        (["3.10", "3.9", "3.1", "4"], ("3.1", "3.10", "3.9", "4")),
        (["1e3", "20", "-7", "5.25"], ("-7", "5.25", "20", "1e3")),
        (["True", "False", "maybe", "no"], ("False", "True", "maybe", "no")),
        (["--1", "-", "-x", "²"], ("-", "--1", "-x", "²")),
        (["nan", "inf", "1_000", "2"], ("2", "1_000", "inf", "nan")),
    ],
)
def test_other_classes_keep_their_names_and_numbers_are_sorted_by_size(tmp_path, written, labels):
    file = file_in(
        tmp_path, "a.csv", "\n".join(["text,label", *(f"t{i},{y}" for i, y in enumerate(written))])
    )
    found = ik.classification(file)
    assert found.labels == labels
    assert [found.labels[y] for y in found.classes] == written


def test_an_ordered_categorical_has_its_own_order():
    kind = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    frame = pd.DataFrame({"text": list("abc"), "label": pd.Series(["high", "low", "mid"], dtype=kind)})
    found = ik.classification(frame, labels=["few", "some", "many"])
    assert (found.classes.tolist(), found.labels) == ([2, 0, 1], ("few", "some", "many"))


def test_classes_may_share_a_word_and_those_that_differ_in_capitals_must(tmp_path):
    file = file_in(tmp_path, "a.csv", "text,label\nfox,Good\npear,good\nfig,bad\n")
    with pytest.raises(ValueError, match="differ in capitals alone"):
        ik.classification(file)
    found = ik.classification(file, labels={"bad": "no", "Good": "yes", "good": "yes"})
    assert (found.classes.tolist(), found.labels) == ([1, 1, 0], ("no", "yes"))


GONE = {
    "csv": "text,label\nfox,0\n,1\n  ,1\npear,\nfig,1\n",
    "tsv": "text\tlabel\nfox\t0\n\t1\n \t1\npear\t \nfig\t1\n",
    "jsonl": '{"text": "fox", "label": 0}\n{"text": null, "label": 1}\n{"text": " ", "label": 1}\n'
    '{"text": "pear", "label": NaN}\n{"text": "fig", "label": 1}\n',
    "json": '[{"text": "fox", "label": 0}, {"label": 1}, {"text": "", "label": 1}, {"text": "pear", "label": null},\n'
    '{"text": "fig", "label": 1}]',
    "frame": [("fox", 0), (None, 1), (np.nan, 1), ("pear", pd.NA), ("fig", 1)],
}


@pytest.mark.parametrize("kind", GONE)
def test_missing_values_are_no_texts_and_no_classes(tmp_path, kind):
    frame = pd.DataFrame(GONE["frame"], columns=["text", "label"])
    source = frame if kind == "frame" else file_in(tmp_path, f"a.{kind}", GONE[kind])
    for missing in (None, "refuse"):
        with pytest.raises(
            ValueError, match=r"wanted a text in every row of .*, got none in rows 1, 2 \(counted from 0\)"
        ):
            ik.classification(source, missing=missing)
    with pytest.warns(UserWarning, match=r"3 of 5 rows of .* are left out: rows 1, 2, 3"):
        found = ik.classification(source, missing="drop")
    assert (found.texts, found.classes.tolist(), found.labels) == (("fox", "fig"), [0, 1], ("0", "1"))


def test_a_template_with_a_missing_part_is_missing(tmp_path):
    file = file_in(tmp_path, "a.csv", "Title,text,label\nA,fox,0\n,pear,1\nC,fig,1\n")
    with pytest.raises(ValueError, match="got none in row 1"):
        ik.classification(file, text="{Title}: {text}", label="label")
    assert len(ik.classification(file)) == 3  # the title is not asked for


def test_known_data_sets_are_read_as_published(tmp_path, monkeypatch):
    """Tweet hate has texts of blanks alone; the pair, the folder and the hub have the same rows."""
    texts, values = ["so it is", " ", "not so", "\u00a0"], [0, 1, 1, 0]
    folder = tmp_path / "hate"
    folder.mkdir()
    file_in(folder, "val_text.txt", "\n".join(texts) + "\n")
    file_in(folder, "val_labels.txt", "\n".join(map(str, values)) + "\n")
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": texts, "label": values})
    table = table.cast_column("label", datasets.ClassLabel(names=["non-hate", "hate"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    for source in (folder, "tweet_eval/hate"):
        with pytest.warns(UserWarning, match=r"2 of 4 rows of .*hate .* are left out: rows 1, 3"):
            found = ik.classification(source)
        assert (found.texts, found.classes.tolist()) == (("so it is", "not so"), [0, 1])
        with pytest.raises(ValueError, match="got none in rows 1, 3"):
            ik.classification(source, missing="refuse")


TABLE = 'text,label\n"A fine, dull film",0\nCafé,1\nbad;,1\n'
TABS = "text\tlabel\nA fine, dull film\t0\nCafé\t1\nbad;\t1\n"
RECORDS = [
    '{"text": "A fine, dull film", "label": 0}', '{"text": "Caf\\u00e9", "label": 1}', '{"text": "bad;", "label": "1"}'
]  # fmt: skip
CLASS_FIRST = "0 A fine, dull film\n1 Café\n1 bad;\n0\n1 well\n0 so , so\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.CSV", TABLE.encode()),
        ("a.data", TABLE.encode()),
        ("a.csv", b"\xef\xbb\xbf" + TABLE.encode()),
        ("a.csv", TABLE.encode("utf-16")),
        ("a.csv", TABLE.replace("\n", "\r\n").encode()),
        ("a.csv.gz", gzip.compress(TABLE.encode())),
        ("a.csv", 'text;label\nA fine, dull film;0\nCafé;1\n"bad;";1\n'.encode()),
        ("a.all", TABS.encode()),
        ("a.txt", TABS.encode("utf-16")),
        ("a.ndjson", "\n\n".join(RECORDS).encode()),
        ("a.json", f"[{', '.join(RECORDS)}]".encode()),
        ("a.all", CLASS_FIRST.replace("0\n1 well\n0 so , so\n", "").encode() * 2),
    ],
    ids=["capitals", "by content", "mark", "UTF-16", "Windows", "gzip", "semicolons", "tabs", "tabs in UTF-16",
         "JSON lines", "JSON list", "class first"],
)  # fmt: skip
def test_files_are_read_by_ending_content_and_mark(tmp_path, name, content):
    found = ik.classification(file_in(tmp_path, name, content))
    assert found.texts[:3] == ("A fine, dull film", "Café", "bad;")
    assert found.classes[:3].tolist() == [0, 1, 1]


def test_reviews_with_the_class_first_and_a_blank_one(tmp_path):
    """As customer reviews and MPQA are published: no ending that says what they are, a line without a text."""
    file = file_in(tmp_path, "custrev.all", CLASS_FIRST.encode("latin-1"))
    with pytest.raises(ValueError, match="is not utf-8: give encoding="):
        ik.classification(file)
    with pytest.raises(ValueError, match="got none in row 3"):
        ik.classification(file, encoding="latin-1")
    with pytest.warns(UserWarning, match="1 of 6 rows"):
        found = ik.classification(file, encoding="latin-1", missing="drop")
    assert found.texts[1:] == ("Café", "bad;", "well", "so , so")
    assert found.classes.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nfox,0\n".encode("utf-16-le"), "holds null bytes: give encoding="),
        ("a.xlsx", b"PK\x03\x04\x14", "Excel workbook"),
        ("a.parquet", b"PAR1 no more", "cannot read a.parquet as Parquet"),
        ("a.csv.gz", b"\x1f\x8b\x08\x00", "cannot unpack a.csv.gz"),
        ("a.json", b"[1, 2]", "a list of objects in a.json"),
        ("a.jsonl", b'{"text": ["fox"], "label": 1}\n', "got a list in row 0"),
        (
            "a.txt",
            b"".join(b"word%d of a text\n" % i for i in range(20)),
            "or a table and its columns text= and label=",
        ),
    ],
)
def test_what_is_no_labelled_data_is_told_in_a_sentence(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        ik.classification(file_in(tmp_path, name, content))


def test_parquet_without_an_engine_says_what_to_install(tmp_path, monkeypatch):
    def without(*_, **__):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", without)
    with pytest.raises(ImportError, match=r"induction-kernel\[datasets\]"):
        ik.classification(file_in(tmp_path, "a.parquet", b"PAR1"))


def test_fewshot_reads_what_its_advice_names(tmp_path):
    """`--encoding`, `--split`, `--missing`, a column of two words, and classes that begin with a dash."""
    words = [f"{word},{y}" for y, topic in ((-1, TOPICS[0]), (1, TOPICS[1])) for word in topic]
    file = file_in(tmp_path, "a.csv", "\n".join(["A Wört,Like?", *words, ",1"]).encode("latin-1"))
    options = ["fewshot", "tiny", str(file), "--text", "{A Wört}", "--label", "Like?", "--labels", "dax, wug"]
    options += ["--template", "{x} {y} ;", "--queries", "8", "--shots", "4"]
    refused = CliRunner().invoke(app, options)
    assert refused.exit_code == 2
    assert "give encoding=" in refused.output
    read = CliRunner().invoke(app, [*options, "--encoding", "latin-1"])
    assert read.exit_code == 2
    assert "got none in row 24" in read.output
    done = CliRunner().invoke(app, [*options, "--encoding", "latin-1", "--missing", "drop"])
    assert done.exit_code == 0, done.output
    assert "labels dax, wug" in done.output
    assert "note: 1 of 25 rows of a.csv have no text or no class" in done.output
    folder = CliRunner().invoke(app, ["fewshot", "tiny", str(tmp_path), "--split", "dev"])
    assert "wanted dev_text.txt and dev_labels.txt" in folder.output


@pytest.mark.parametrize("spans", [[], ["--span", "words"]])
def test_label_words_on_the_command_line_may_begin_with_a_dash(tmp_path, spans):
    file = file_in(tmp_path, "a.csv", "text,label\nfox,0\npear,1\n")
    said = CliRunner().invoke(app, ["fewshot", "tiny", str(file), "--labels", "-1,1,2", *spans]).output
    assert "got ['-1', '1', '2']" in said


PAIRS = [("fox", "dax"), ("apple", "wug")]
ROWS = pd.DataFrame(PAIRS, columns=["text", "label"])


@pytest.mark.parametrize(
    "given",
    [
        [("fox", np.int64(0)), ("apple", np.uint8(1))],
        [(np.str_("fox"), np.str_("dax")), (np.str_("apple"), "wug")],
        [row for _, row in ROWS.iterrows()],
        ROWS.to_numpy(),
        ROWS.itertuples(index=False),
        zip(ROWS["text"], [0, 1], strict=True),
        [[row for _, row in ROWS.iterrows()]],
        (tuple(pair) for pair in PAIRS),
    ],
    ids=["NumPy numbers", "NumPy strings", "rows", "array", "tuples of a table", "zip", "for one query", "generator"],
)  # fmt: skip
def test_demonstrations_come_as_tables_have_them(given):
    model = ik.load("tiny")
    options = {"template": "{x} {y} ;", "labels": np.array(["dax", "wug"]), "separator": " "}
    found = ik.few_shot(model, given, pd.Series(["wolf"]), **options)
    assert (
        found.tokens.tolist()[0][1:]
        == model.tokenizer("fox dax ; apple wug ; wolf", add_special_tokens=False)["input_ids"]
    )
    assert found.demonstrations.classes.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("demonstrations", "queries", "labels", "message"),
    [
        (ROWS, ["wolf"], ["dax", "wug"], "itertuples"),
        (PAIRS, ROWS, ["dax", "wug"], "itertuples"),
        (PAIRS, {"wolf": "dax"}, ["dax", "wug"], "wanted a list of queries"),
        (ROWS.to_dict("records"), ["wolf"], ["dax", "wug"], r"demonstrations \(x, y\), got {'text'"),
        (5, ["wolf"], ["dax", "wug"], "wanted a list of demonstrations"),
        (PAIRS, ["wolf"], {"dax", "wug"}, "labels as a list"),
        ([("fox", 0.5), ("apple", 1)], ["wolf"], ["dax", "wug"], "label word or its index"),
    ],
)
def test_what_few_shot_cannot_tell_apart_it_refuses(demonstrations, queries, labels, message):
    with pytest.raises(TypeError, match=message):
        ik.few_shot(
            ik.load("tiny"), demonstrations, queries, labels=labels, template="{x} {y} ;", separator=" "
        )


def test_a_label_in_other_capitals_is_named():
    with pytest.raises(ValueError, match=r"got 'Dax': did you mean 'dax'\?"):
        ik.few_shot(ik.load("tiny"), [("fox", "Dax")], ["wolf"], labels=["dax", "wug"], template="{x} {y} ;")


def test_texts_and_classes_come_as_pandas_has_them():
    frame = pd.DataFrame({"text": ["fox", "pear", "fox"], "label": [0.0, 1.0, 0.0]})
    found = ik.LabelledTexts(frame["text"], frame["label"], np.array(["dax", "wug"]))
    assert (found.texts, found.classes.tolist(), found.labels) == (
        ("fox", "pear", "fox"),
        [0, 1, 0],
        ("dax", "wug"),
    )
    assert {type(each) for each in (*found.texts, *found.labels)} == {str}
    with pytest.raises(TypeError, match="whole numbers"):
        ik.LabelledTexts(frame["text"], frame["label"] / 2, ("dax", "wug"))
    with pytest.raises(TypeError, match="got DataFrame"):
        ik.LabelledTexts(frame, frame["label"], ("dax", "wug"))


@pytest.fixture(scope="module")
def digits_alone(tmp_path_factory):
    """The embedded model with a tokenizer like SmolLM2's: bytes, a few pairs, and every digit on its own."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [*(("Ġ", letter) for letter in "bgps"), ("g", "s")]
    vocab = {sign: i for i, sign in enumerate(["<s>", *signs, *("".join(pair) for pair in pairs)])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    made.normalizer = normalizers.Replace("~", "")
    digits, whole = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence([digits, whole]), decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("digits")
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>").save_pretrained(folder)
    model = ik.load("tiny")
    model.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)  # Bridges ask where it is from
    return model


def digits_shot(model, template, labels):
    return ik.few_shot(model, [("so", 0), ("no", 1)], ["to"], template=template, labels=labels)


@pytest.mark.parametrize("template", ["a: {x} b: {y}", "a: {x} b:  {y}"])
def test_a_blank_that_is_a_token_of_its_own_is_said_to_be_one(digits_alone, template):
    with pytest.raises(
        ValueError, match=r"'0': \[' '.*'0'\], '1': \[' '.*'1'\].*without a blank, as in 'Output:{y}'"
    ):
        digits_shot(digits_alone, template, ["0", "1"])


@pytest.mark.parametrize(
    ("template", "labels", "first", "query"),
    [
        ("a: {x} b:{y}", ["0", "1"], ["0", "1"], "a: to b:"),
        ("a: {x} b: {y}", ["bad", "good"], [" b", " g"], "a: to b:"),
        ("a: {x}\nb:\n{y}", ["0", "1"], ["0", "1"], "a: to\nb:\n"),
        ("a: {x}\nb:\n{y}", ["bad", "good"], ["b", "g"], "a: to\nb:\n"),
        ("a: {x} b:{y}", [" bad", " good"], [" b", " g"], "a: to b:"),
    ],
)
def test_the_advised_templates_read_digits_and_words(digits_alone, template, labels, first, query):
    """The last token is what stands before the label; a line break before it belongs to the query."""
    model = digits_alone
    found = digits_shot(model, template, labels)
    assert [model.tokenizer.decode([token]) for token in found.demonstrations.label_ids.tolist()] == first
    text = "\n".join(template.format(x=x, y=labels[y]) for y, x in enumerate(["so", "no"])) + "\n" + query
    assert found.tokens[0, 1:].tolist() == model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("template", "labels", "message"),
    [
        ("a: {x} b:{y}s", ["g", "b"], "merges the label 'g' with what follows"),
        ("a: {x} b:{y}", ["good", "~"], "no token for the label '~'"),
    ],
)
def test_labels_without_a_first_token_of_their_own_are_named(digits_alone, template, labels, message):
    with pytest.raises(ValueError, match=message):
        digits_shot(digits_alone, template, labels)


@pytest.mark.real("smollm2")
def test_smollm2_reads_digits_where_no_blank_is_before_them(smollm2):
    model = ik.load(smollm2, n_ctx=256)
    with pytest.raises(ValueError, match=r"'0': \[' ', '0'\]"):
        digits_shot(model, "Input: {x} Output: {y}", ["0", "1"])
    found = digits_shot(model, "Input: {x} Output:{y}", ["0", "1"])
    assert model.tokenizer.convert_ids_to_tokens(found.demonstrations.label_ids.tolist()) == ["0", "1"]


SPAN_SHOTS = [("fox wolf", "dax"), ("apple", "wug"), ("bear horse sheep", "dax")]
SPAN_FORM = "plum {x} fig lime {y} ;"


@pytest.fixture(scope="module")
def pooled_over():
    """Prompts whose template has words, and by hand the keys of each demonstration and of its own words."""
    model = ik.load("tiny")
    prompts = ik.few_shot(
        model, SPAN_SHOTS, [("goat tiger", "dax")], template=SPAN_FORM, labels=["dax", "wug"], separator=" "
    )
    text, inside, whole = "", [], []
    for x, y in SPAN_SHOTS:
        begin = len(text)
        text += f"plum {x} fig lime {y}"
        inside.append([(begin + 5, begin + 5 + len(x)), (len(text) - len(y), len(text))])
        whole.append([(begin, len(text))])
        text += " ; "
    text += "plum goat tiger fig lime"
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert prompts.tokens[0, 1:].tolist() == encoded["input_ids"]

    def keys(places):
        return [
            1 + i
            for i, (low, high) in enumerate(encoded["offset_mapping"])
            if any(low < b and high > a for a, b in places)
        ]

    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    rows = torch.stack([cache["pattern", layer][0, :, -1] for layer in range(2)]).double()
    chosen = {"demonstration": [keys(each) for each in whole], "words": [keys(each) for each in inside]}
    return model, prompts, rows, chosen


@pytest.mark.parametrize("pooling", ["max", "sum", "mean", "label"])
@pytest.mark.parametrize("span", ["demonstration", "words"])
def test_weights_pool_over_the_span_that_is_asked_for(pooled_over, pooling, span):
    """With the template's words, or the words of x and y alone, by character offsets."""
    model, prompts, rows, chosen = pooled_over
    assert [len(each) for each in chosen["words"]] == [3, 2, 4]
    assert [len(each) for each in chosen["demonstration"]] == [6, 5, 7]
    last = [[each[-1]] for each in chosen["words"]]  # the label's only token
    picked = [rows[..., keys] for keys in (last if pooling == "label" else chosen[span])]
    reduce = {"max": lambda each: each.amax(-1), "mean": lambda each: each.mean(-1)}.get(
        pooling, lambda each: each.sum(-1)
    )
    wanted = torch.stack([reduce(each) for each in picked], -1).numpy()
    weights = ik.demonstration_weights(model, prompts, pooling=pooling, span=span)
    asked = ik.in_context(model, prompts, pooling=pooling, span=span)
    for found in (weights, asked):
        np.testing.assert_allclose(found["weight"][0], wanted, atol=1e-6)
        assert found.attrs["span"] == span
    scored = ik.label_attention(model, prompts, pooling=pooling, span=span)
    np.testing.assert_allclose(scored["score"][0], wanted.sum(-1), atol=1e-6)
    count = sum(1 if pooling in ("max", "mean") else each.shape[-1] for each in picked)
    assert float(scored["chance"][0]) == pytest.approx(count / rows.shape[-1])
    assert ik.reconstruct(weights, prompts, asked, permutations=40).attrs["span"] == span


@pytest.mark.parametrize("span", ["demonstration", "words"])
def test_keys_of_heads_come_from_the_same_span(pooled_over, span):
    model, prompts, rows, chosen = pooled_over
    found = ik.representations(model, prompts, "head", pooling="max", span=span)
    scores = (found["queries"] * found["demonstrations"]).sum("feature")[0]
    best = torch.stack([rows[..., keys].amax(-1) for keys in chosen[span]], -1)
    ratio = np.log(best.numpy()) - scores.values  # one number for all keys of a row
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[..., :1], ratio.shape), atol=1e-4)


def test_a_study_says_and_uses_its_span(pooled_over, tmp_path):
    model = pooled_over[0]
    words = [(word, y) for y, topic in enumerate(TOPICS[:2]) for word in topic]
    data = ik.LabelledTexts(
        [word for word, _ in words], [y for _, y in words], ["dax", "wug"], template="plum {x} fig {y} ;"
    )
    ways = {"queries": 10, "shots": 4, "splits": 2, "progress": False}
    found = {span: ik.few_shot_study(model, data, span=span, **ways) for span in ("demonstration", "words")}
    for span, study in found.items():
        alone = ik.in_context(model, study.prompts, pooling="max", span=span, progress=False)
        np.testing.assert_allclose(study.answers["weight"].sel(pooling="max"), alone["weight"], atol=1e-6)
        assert {
            each.attrs["span"] for each in (study.answers, study.heads, study.table, study.alignment)
        } == {span}
        page = ik.write_fewshot_page(study, tmp_path / f"{span}.html").read_text(encoding="utf-8")
        assert ("the template's words included" in page) == (span == "demonstration")
    difference = found["words"].answers["weight"] - found["demonstration"].answers["weight"]
    assert float(difference.sel(pooling="max").max()) <= 1e-6  # fewer tokens cannot have a larger maximum
    assert float(difference.sel(pooling="max").min()) < -0.01


def test_prompts_that_do_not_say_where_x_lies_have_no_words(pooled_over):
    model, prompts, *_ = pooled_over
    bare = replace(prompts, demonstrations=replace(prompts.demonstrations, inputs=None))
    for verb in (ik.demonstration_weights, ik.label_attention):
        with pytest.raises(ValueError, match="where x lies"):
            verb(model, bare, pooling="max", span="words")
    with pytest.raises(ValueError, match="where x lies"):
        ik.in_context(model, bare, pooling="max", span="words")


def test_prompts_keep_where_x_lies_when_they_are_chosen_and_put_together(pooled_over):
    model, prompts, *_ = pooled_over
    other = ik.few_shot(
        model, SPAN_SHOTS[:2], ["goat"], template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )
    both = concat([prompts, other])[torch.tensor([1, 0])]
    wanted = [
        ik.demonstration_weights(model, each, span="words")["weight"].values for each in (other, prompts)
    ]
    found = ik.demonstration_weights(model, both, span="words")["weight"].values
    np.testing.assert_allclose(found[:1, ..., :2], wanted[0], atol=1e-6)
    np.testing.assert_allclose(found[1:], wanted[1], atol=1e-6)
    assert np.isnan(found[0, ..., 2]).all()


def test_the_share_of_a_class_is_had_in_full_precision():
    """With the labels permuted, the right ones get `score` times their share: a third, not .33333334."""
    prompts = random_shots(n=4, shots=3)
    shown = prompts.demonstrations
    share = [
        np.mean([y == target for y, there in zip(classes, mask, strict=True) if there])
        for classes, mask, target in zip(
            *(each.tolist() for each in (shown.classes, shown.mask, shown.target)), strict=True
        )
    ]
    found = ik.label_attention(tiny("GPT-2"), prompts, progress=False)
    right = found["score"].values * np.array(share)[:, None, None]
    np.testing.assert_allclose(found["right_control"], right, rtol=1e-12)


# D. What zero means ------------------------------------------------------------------------------------------------

TOKENS = torch.tensor([[0, 7, 3, 9, 4], [0, 1, 2, 3, 8]])


def last_logit(logits, prompts):
    return logits[torch.arange(len(prompts)), prompts.lengths - 1, 7]


def written(model, site, layer, value, head=1):
    """The last logit where `value(old)` stands in the place of a head, at TransformerLens' own hook."""

    def hook(old, hook):
        new = old.clone()
        new[:, :, head] = value(old[:, :, head])
        return new

    with torch.no_grad():
        logits = model.run_with_hooks(TOKENS, fwd_hooks=[(f"blocks.{layer}.attn.hook_{site}", hook)])
    return logits[:, -1, 7].numpy()


def with_edit(model, site, layer, edit):
    options = {"site": site, "heads": f"L{layer}H1", "by": (), "metric": last_logit, "progress": False}
    return ik.sweep(model, TOKENS, edit=edit, **options)["value"].values


BIASED = [("GPT-2", "hooked"), ("GPT-2", "bridge"), ("attention-only", "native"), ("GPT-J", "bridge")]
BIASED = [(name, kind) for name, kind in BIASED if kind != "hooked" or has_hooked_transformer()]


@pytest.mark.parametrize(("name", "kind"), BIASED)
@pytest.mark.parametrize("site", ["z", "v"])
def test_zero_is_zero_and_scale_is_a_multiple_of_what_stands_there(name, kind, site):
    """b_V is not 0, and b_V + 2 (z - b_V) not 2 z."""
    model = model_of(name, kind)
    for layer in (0, 1):
        for edit, value in ((ik.Zero(), lambda old: 0 * old), (ik.Scale(-1.5), lambda old: -1.5 * old)):
            expected = written(model, site, layer, value)
            np.testing.assert_allclose(with_edit(model, site, layer, edit), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("verb", ["ablate", "edited", "attribution", "ablation_curve", "hold"])
def test_every_verb_means_zero_by_zero(verb):
    model = tiny("GPT-2")
    prompts = ik.as_prompts(model, TOKENS)
    with torch.no_grad():
        clean = model(TOKENS)[:, -1, 7].numpy()
    expected = written(model, "z", 1, lambda old: 0 * old)
    options = {"metric": last_logit, "progress": False}
    if verb == "ablate":
        found = ik.ablate(model, prompts, "L1H1", edit=ik.Zero(), **options)["value"].values
    elif verb == "hold":  # in the last layer nothing comes after it that patterns could change
        found = ik.ablate(model, prompts, "L1H1", edit=ik.Zero(), hold="patterns", **options)["value"].values
    elif verb == "ablation_curve":
        curve = ik.ablation_curve(model, prompts, ["L1H1"], ks=[1], controls=1, edit=ik.Zero(), **options)
        found = curve["value"].values[:, 0]
    elif verb == "attribution":
        verified = ik.attribution(model, prompts, edit=ik.Zero(), verify=8, **options)
        found, expected = verified["exact"].sel(cell="L1H1").values, (expected - clean).mean()
    else:
        with ik.edited(model, ik.Zero(), "L1H1"), torch.no_grad():
            found = model(TOKENS)[:, -1, 7].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_attribution_of_zero_is_the_gradient_times_minus_z():
    model = tiny("GPT-2")
    seen = {}

    def keep(z, hook):
        seen["z"] = z.detach().clone().requires_grad_(True)
        return seen["z"]

    logits = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.attn.hook_z", keep)])
    (slope,) = torch.autograd.grad(logits[:, -1, 7].sum(), seen["z"])
    expected = -(slope * seen["z"]).sum((1, 3)).detach().numpy()
    found = ik.attribution(model, TOKENS, edit=ik.Zero(), metric=last_logit, layers=[1], progress=False)
    np.testing.assert_allclose(found["estimate"].values[:, 0], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("site", ["z", "v"])
def test_zero_values_are_those_of_a_head_that_reads_zeros(site):
    """By hand: what the norm's bias and the value bias leave of v where the normed stream is 0, through any pattern."""
    model = tiny("GPT-2")
    block = model.blocks[1]
    norm_bias = getattr(block.ln1, "b", None)
    norm_bias = block.ln1.bias if norm_bias is None else norm_bias
    bias = (block.attn.b_V[1] + norm_bias @ block.attn.W_V[1]).detach()
    expected = written(model, "z", 1, lambda old: bias.expand(old.shape))
    np.testing.assert_allclose(with_edit(model, site, 1, ik.ZeroValues()), expected, rtol=1e-9)


@hooked_only
def test_zero_values_are_the_same_edit_of_folded_weights_and_zero_is_not():
    raw, processed = fresh("GPT-2"), folded(fresh("GPT-2"))

    def left(model, edit):
        found = ik.ablate(model, TOKENS, "L0H1", edit=edit, metric=ik.loss, progress=False)
        return found["value"].values

    np.testing.assert_allclose(left(raw, ik.ZeroValues()), left(processed, ik.ZeroValues()), rtol=1e-5)
    # the bias is in b_O there, and nothing is left of it in z
    np.testing.assert_allclose(left(processed, ik.ZeroValues()), left(processed, ik.Zero()), rtol=1e-5)
    assert np.abs(left(raw, ik.Zero()) - left(processed, ik.Zero())).max() > 1e-2


def test_a_result_says_which_of_the_two_it_is():
    model = tiny("GPT-2")
    said = []
    for edit in (ik.Zero(), ik.ZeroValues()):
        found = ik.ablate(model, TOKENS, "L1H1", edit=edit, metric=last_logit, progress=False)
        said.append(found.attrs["edit"])
        assert "value bias" in found.attrs["convention"]
        assert ik.sweep(model, TOKENS, edit=edit, metric=last_logit, progress=False).attrs["edit"] == said[-1]
    assert said == ["Zero", "ZeroValues"]


@pytest.mark.parametrize("mode", ["zero", "patterns"])
def test_argument_3_removes_heads_whole(mode):
    """As Olsson et al. do; with patterns held nothing but the value of a head in the last layer could move anyway."""
    from induction_kernel.evidence.losing import MODES

    model = tiny("GPT-2")
    edit, hold = MODES[mode]
    found = ik.ablate(model, TOKENS, "L1H1", edit=edit, hold=hold, metric=last_logit, progress=False)
    np.testing.assert_allclose(found["value"].values, written(model, "z", 1, lambda old: 0 * old), rtol=1e-9)


def test_edited_does_not_take_a_mean_by_position_for_one_over_all():
    model = tiny("GPT-2")
    with (
        pytest.raises(ValueError, match="knows no positions"),
        ik.edited(model, ik.Mean(TOKENS, by_position=True)),
    ):
        pass
    found = []
    for given in (None, False):
        with ik.edited(model, ik.Mean(TOKENS, by_position=given), "L1H1"), torch.no_grad():
            found.append(model(TOKENS)[:, -1, 7].numpy())
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS)
    mean = cache["blocks.1.attn.hook_z"][:, 1:, 1].mean((0, 1))
    expected = written(model, "z", 1, lambda old: mean.expand(old.shape))
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-9)


def test_a_mean_of_patterns_cannot_be_over_all_positions():
    with pytest.raises(ValueError, match="by position"):
        ik.sweep(tiny("GPT-2"), TOKENS, edit=ik.Mean(by_position=False), site="pattern", metric=last_logit)


# E. Threads, devices, files ----------------------------------------------------------------------------------------


def without_demonstrations(model):
    """Few-shot prompts of which the second has none."""
    from dataclasses import replace

    prompts = ik.word_episodes(model, shots=2, prompts=2)
    shots = prompts.demonstrations
    return replace(prompts, demonstrations=replace(shots, mask=shots.mask & torch.tensor([[True], [False]])))


@pytest.mark.parametrize(
    "verb",
    [
        ik.label_attention,
        ik.demonstration_weights,
        ik.in_context,
        ik.label_flow,
        ik.demonstration_attention,
        ik.label_writing,
        lambda model, prompts: ik.label_knock_out(model, prompts, "L1H7"),
        ik.probe,
        ik.function_vectors,
        ik.fit_label_weights,
    ],
)
def test_a_prompt_without_demonstrations_is_named(embedded, verb):
    with pytest.raises(ValueError, match=r"prompt 1 has no demonstration"):
        verb(embedded, without_demonstrations(embedded))


@pytest.mark.parametrize("head", ["L1H9", (2, 0), "L5H1", (0, -1)])
def test_a_head_that_is_not_there(embedded, head):
    with pytest.raises(ValueError, match=r"does not exist: this model has layers 0 to 1 and heads 0 to 7"):
        ik.ablate(embedded, None, head)


@pytest.mark.parametrize(
    ("metric", "got"),
    [("loss", "'loss'"), (None, "None"), (ik.kl_to, "kl_to itself"), (ik.icl_score, "icl_score itself")],
)
def test_what_is_no_metric(embedded, metric, got):
    names = r"loss, repeat_loss, label_accuracy, logit_difference, probability or kl_to\(logits\)"
    with pytest.raises(TypeError, match=rf"{names}.*got {got}"):
        ik.sweep(embedded, None, metric=metric)


HOOKED_AND_BRIDGE = [("GPT-2", "hooked"), ("GPT-2", "bridge"), ("Llama", "native")]
if not has_hooked_transformer():
    HOOKED_AND_BRIDGE = HOOKED_AND_BRIDGE[1:]


def from_other(prompts):
    return prompts.tokens.flip(0)


def answered(prompts):
    return replace(prompts, answers=torch.tensor([[3, 4], [5, 6]]))


def edited_loss(model, prompts):
    with ik.edited(model, ik.Zero(), "L1H1"):
        return ik.loss(model, prompts)


def edited_by_hand(model, prompts):
    """The user's own call inside the context."""
    with ik.edited(model, ik.Zero(), "L0H1"), torch.no_grad():
        return xr.DataArray(model(prompts.tokens).numpy())


def to_earlier(prompts):
    return torch.ones(prompts.tokens.shape[1], prompts.tokens.shape[1], dtype=torch.bool).tril(-1)


SHARED = {
    "observe": lambda m, p: ik.observe(m, p, [ik.induction, ik.previous_token]),
    "patterns": lambda m, p: ik.patterns(m, p, ["L0H1", "L1H2"]),
    "copying": ik.copying,
    "ov_eigenvalues": lambda m, p: ik.ov_eigenvalues(m, draws=1),
    "direct_effect": lambda m, p: ik.direct_effect(m, answered(p)),
    "loss": ik.loss,
    "ablate": lambda m, p: ik.ablate(m, p, ["L0H1", "L1H2"]),
    "ablate, held": lambda m, p: ik.ablate(m, p, "L0H1", edit=ik.Zero(), hold="patterns"),
    "sweep": lambda m, p: ik.sweep(m, p, by=("layer", "head", "position"), edit=ik.Zero()),
    "sweep of patterns": lambda m, p: ik.sweep(m, p, site="pattern"),
    "knock_out": lambda m, p: ik.knock_out(m, p, to_earlier(p)),
    "patch": lambda m, p: ik.patch(m, source=from_other(p), into=answered(p)),
    "path_patch": lambda m, p: ik.path_patch(m, source=from_other(p), into=answered(p)),
    "attribution": lambda m, p: ik.attribution(m, p, edit=ik.FromRun(from_other(p)), site="q"),
    "edited, then measured": edited_loss,
    "edited, then called": edited_by_hand,
}


def state_of(model):
    """What a call must give back: flags of training, hooks, gradient mode, weights."""
    modules = list(model.modules())
    hooks = [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(getattr(m, "fwd_hooks", ())) for m in modules
    ]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    return [m.training for m in modules], hooks, torch.is_grad_enabled(), weights


def same_state(one, other):
    assert one[:3] == other[:3]
    assert all(torch.equal(one[3][key], other[3][key]) for key in one[3])


def in_threads(tasks, n):
    """What each task gives, n of them at once, started together."""
    gate = threading.Barrier(n)

    def worker(mine):
        gate.wait()
        return [task() for task in mine]

    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(worker, tasks[i::n]) for i in range(n)]
        found = [future.result(timeout=300) for future in futures]
    return [found[i % n][i // n] for i in range(len(tasks))]


@pytest.mark.parametrize(("name", "kind"), HOOKED_AND_BRIDGE)
def test_threads_get_the_sequential_answers(name, kind):
    """Every verb in turn, four threads at once, on a model not used before, with a module in training mode."""
    alone, shared = fresh_of(name, kind), fresh_of(name, kind)
    prompts = ik.repeated_tokens(alone, bos=0, prompts=2, period=4)
    expected = {key: call(alone, prompts) for key, call in SHARED.items()}
    list(shared.modules())[-1].training = True
    before = [module.training for module in shared.modules()]
    order = [*SHARED, *reversed(SHARED), *SHARED]
    found = in_threads([functools.partial(SHARED[key], shared, prompts) for key in order], 4)
    for key, each in zip(order, found, strict=True):
        xr.testing.assert_identical(each, expected[key])
    assert [module.training for module in shared.modules()] == before
    assert torch.is_grad_enabled()
    SHARED["ablate"](alone, prompts)
    list(alone.modules())[-1].training = True
    same_state(state_of(shared), state_of(alone))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"])
def test_every_verb_gives_threads_the_sequential_answer(kind):
    alone, shared = (ik.load("tiny", bridge=kind == "bridge") for _ in range(2))
    expected = {verb: call(alone) for verb, call in VERBS.items()}
    before = state_of(shared)
    order = [*VERBS, *reversed(VERBS)]
    for verb, found in zip(
        order, in_threads([functools.partial(VERBS[each], shared) for each in order], 4), strict=True
    ):
        xr.testing.assert_identical(found, expected[verb])
    after = state_of(shared)
    assert after[0] == before[0]
    assert all(torch.equal(after[3][key], before[3][key]) for key in before[3])


def test_the_same_ablation_in_48_threads_that_start_together():
    model = tiny("GPT-2")
    heads = [f"L{i % 2}H{i % 4}" for i in range(48)]
    calls = [
        functools.partial(ik.ablate, model, TOKENS, head, edit=ik.Zero(), metric=last_logit) for head in heads
    ]
    expected = [written(model, "z", i % 2, lambda old: 0 * old, head=i % 4) for i in range(48)]
    for found, value in zip(in_threads(calls, 8), expected, strict=True):
        np.testing.assert_allclose(found["value"].values, value, rtol=1e-9)


def test_dask_delayed_gives_the_sequential_answers():
    dask = pytest.importorskip("dask")
    model = tiny("GPT-2")
    heads = [f"L{layer}H{head}" for layer in range(2) for head in range(4)] * 3
    expected = [ik.ablate(model, TOKENS, head, metric=ik.loss, progress=False) for head in heads]
    tasks = [dask.delayed(ik.ablate)(model, TOKENS, head, metric=ik.loss, progress=False) for head in heads]
    for found, value in zip(dask.compute(*tasks, scheduler="threads", num_workers=4), expected, strict=True):
        xr.testing.assert_identical(found, value)


def test_other_threads_do_not_see_an_edit():
    """They wait until the context is left, also where it is left by an exception; the thread itself goes on."""
    model = tiny("GPT-2")
    clean = ik.loss(model, TOKENS)["value"].values
    with ThreadPoolExecutor(1) as pool:
        for error in (None, KeyError, KeyboardInterrupt):
            with suppress(KeyError, KeyboardInterrupt), ik.edited(model, ik.Zero(), ["L0H1", "L1H1"]):
                future = pool.submit(ik.loss, model, TOKENS)
                inside = ik.loss(model, TOKENS)["value"].values
                assert not future.done()
                if error is not None:
                    raise error
            np.testing.assert_array_equal(future.result(timeout=60)["value"].values, clean)
            assert np.abs(inside - clean).max() > 1e-3


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_call_that_fails_in_a_thread_leaves_the_model_to_the_others(error):
    model = fresh_of("GPT-2", "hooked" if has_hooked_transformer() else "bridge")
    expected = ik.ablate(model, TOKENS, "L0H1", metric=ik.loss)["value"].values
    before = state_of(model)

    def fails(logits, prompts):
        raise error

    def tried(call):
        try:
            return call()
        except error:
            return None

    calls = [
        functools.partial(ik.ablate, model, TOKENS, "L0H1", metric=ik.loss),
        functools.partial(ik.ablate, model, TOKENS, "L0H1", metric=fails),
        functools.partial(ik.attribution, model, TOKENS, edit=ik.Zero(), metric=fails),
    ] * 6
    found = in_threads([functools.partial(tried, call) for call in calls], 6)
    for each in found[::3]:
        np.testing.assert_array_equal(each["value"].values, expected)
    assert found[1::3] == found[2::3] == [None] * 6
    same_state(before, state_of(model))


def test_models_loaded_in_threads_leave_the_process_as_it_was():
    torch.manual_seed(3)
    state, stdout = torch.get_rng_state(), sys.stdout
    filters = list(warnings.filters)
    expected = ik.load("tiny").state_dict()
    for model in in_threads([functools.partial(ik.load, "tiny")] * 8, 4):
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.stdout is stdout
    assert warnings.filters == filters


def test_a_lock_does_not_keep_a_model():
    model = fresh_of("GPT-2", "hooked" if has_hooked_transformer() else "bridge")
    ik.loss(model, TOKENS)
    left, keys = weakref.ref(model), set(vars(model))
    assert not any("lock" in key.lower() for key in keys)
    copy.deepcopy(model)
    del model
    gc.collect()
    assert left() is None


def on_apple(model):
    """The model on a pretend device that has no float64."""
    for module in all_modules(model):
        place_parameters(module, "mps")
    model.cfg.device = "mps"
    return model


@functools.cache
def embedded_on(kind, where="cpu"):
    model = ik.load("tiny", bridge=kind == "bridge")
    return model if where == "cpu" else on_apple(model)


EMBEDDED = (
    ["hooked", pytest.param("bridge", marks=pytest.mark.slow)] if has_hooked_transformer() else ["bridge"]
)


@pytest.mark.parametrize("kind", EMBEDDED)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_runs_on_a_device_without_float64(verb, kind):
    expected = VERBS[verb](embedded_on(kind))
    with cards():
        found = VERBS[verb](embedded_on(kind, "mps"))
    xr.testing.assert_identical(found, expected)


def test_the_table_of_verbs_has_them_all():
    """All public functions of a model but those that make prompts or draw heads, and pages, which call the others."""
    makers = {
        "as_prompts", "repeated_tokens", "few_shot", "word_episodes", "pairs", "with_answers", "random_heads",
    }  # fmt: skip
    public = {name: getattr(ik, name) for name in ik.__all__ if callable(getattr(ik, name))}
    first = {name: next(iter(inspect.signature(of).parameters), "") for name, of in public.items()}
    of_models = {name for name, given in first.items() if given in ("model", "models")} - makers
    assert of_models - {name.partition(",")[0] for name in VERBS} == {"write_report", "continuity"}


OTHER_BLOCKS = {
    "sweep of an MLP": lambda m, p: ik.sweep(m, p, site="mlp_out", by=("layer", "position")),
    "attribution of queries": lambda m, p: ik.attribution(m, p, edit=ik.Zero(), site="q"),
    "effective embedding": lambda m, p: ik.ov_eigenvalues(m, embedding="effective", draws=1),
    "fingerprint": lambda m, p: xr.DataArray([resuming.fingerprint(m, labelled_shots(), None)]),
    "representations": lambda m, p: ik.representations(m, labelled_shots(), "head"),
}


def labelled_shots():
    return random_shots(n=2, shots=3)


@pytest.mark.parametrize(("name", "kind"), [("GPT-2", "hooked"), ("Llama", "native"), ("GPT-J", "bridge")])
@pytest.mark.parametrize("call", OTHER_BLOCKS)
def test_mlps_and_rotary_positions_do_without_float64(name, kind, call):
    if kind == "hooked" and not has_hooked_transformer():
        pytest.skip("HookedTransformer is not in TransformerLens 4")
    if (name, call) == ("GPT-J", "effective embedding"):
        pytest.skip("its first MLP stands beside attention")
    here, there = (fresh_of(name, kind, dtype=torch.float32) for _ in range(2))
    prompts = ik.repeated_tokens(here, bos=0, prompts=2, period=4)
    on_apple(there)
    with cards():
        found = OTHER_BLOCKS[call](there, prompts)
    xr.testing.assert_identical(found, OTHER_BLOCKS[call](here, prompts))


def test_the_pretend_device_refuses_what_apples_does():
    with cards():
        there = torch.ones(2, device="mps")
        for asked in (
            there.double,
            lambda: there.to(torch.float64),
            lambda: there.to("cpu", torch.float64),
            lambda: torch.ones(2, dtype=torch.float64).to("mps"),
            lambda: torch.zeros(2, device="mps", dtype=torch.float64),
            lambda: torch.full_like(there, 0.5, dtype=torch.float64),
        ):
            with pytest.raises(TypeError, match="doesn't support float64"):
                asked()
        assert there.cpu().double().dtype == torch.float64
        assert torch.ones(2, dtype=torch.float64).to(there).dtype == torch.float32
