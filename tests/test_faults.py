"""Every fault ever reported, by its kind, with the right value: out of a computation that is not the package's.

One case a fault. Kinds: A text means the same however it comes in; B models that are not causal, or not language
models; C labelled data; D what zero means; E threads, devices, files.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from folders import BRIDGES
from worded import FAMILIES, alone, worded_model
from zoo import folded, fresh, model_of, tiny

import induction_kernel as ik
from induction_kernel.loading.building import has_hooked_transformer

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


# C. Labelled data --------------------------------------------------------------------------------------------------


# D. What zero means ------------------------------------------------------------------------------------------------

TOKENS = torch.tensor([[0, 7, 3, 9, 4], [0, 1, 2, 3, 8]])


def last_logit(logits, prompts):
    return logits[torch.arange(len(prompts)), prompts.lengths - 1, 7]


def written(model, site, layer, value):
    """The last logit where `value(old)` stands in the place of head 1, at TransformerLens' own hook."""

    def hook(old, hook):
        new = old.clone()
        new[:, :, 1] = value(old[:, :, 1])
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
