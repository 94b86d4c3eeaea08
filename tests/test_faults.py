"""Every fault ever reported, with its right value out of a computation that is not the package's: text and prompts.

One case a fault. Of models that are not causal or no language models: `test_faults_models.py`; of labelled data:
`test_faults_data.py`; of what zero means: `test_faults_zero.py`; of threads and devices: `test_faults_threads.py`; of
files and hostile input: `test_faults_files.py`.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from folders import BRIDGES
from typer.testing import CliRunner
from worded import FAMILIES, alone, worded_model
from zoo import tiny

import induction_kernel as ik
from induction_kernel.cli import app

TEXTS = ["fox dax ; apple wug ; fox", "apple wug ; fox dax ; wolf dax ; plum"]


@pytest.fixture(scope="module")
def embedded():
    return ik.load("tiny")


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
    asked = ik.prompts.with_answers(embedded, tokens, answers)
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
    once = ik.few_shot_prompts(model, shots, ["plum"], template="{x} : {y} ;", **options)
    twice = ik.few_shot_prompts(model, shots, ["plum"], template=f"{bos} {{x}} : {{y}} ;", **options)
    assert once.tokens[0].tolist().count(start) == 1
    assert twice.tokens[0].tolist().count(start) == 3  # one a line, as the template says
    for prompts in (once, twice):
        words = prompts.strings(model)[0]
        assert [words[i] for i in prompts.demonstrations.label_positions[0]] == ["dax", "wug"]


@pytest.mark.parametrize("bos", [True, False])
def test_every_result_says_what_stood_in_front(embedded, bos):
    words = ik.repeated_tokens(embedded, period=5, prompts=2, bos=bos)
    shots = ik.prompts.word_episodes(embedded, shots=4, prompts=4)
    topics = [("fox", "dax"), ("apple", "wug")]
    options = {"template": "{x} {y} ;", "labels": ["dax", "wug"], "separator": " ", "bos": bos}
    few = ik.few_shot_prompts(embedded, topics, [("wolf", "dax"), ("plum", "wug")], **options)
    assert shots.bos
    results = [
        *(verb(embedded, words) for verb in (ik.induction, ik.loss, ik.loss_by_position, ik.copying)),
        ik.direct_effect(embedded, words),
        ik.patterns(embedded, words, "L1H7"),
        ik.sweep(embedded, words),
        ik.ablate(embedded, words, "L1H7"),
        ik.ablation_curve(embedded, words, ["L1H7"], ks=[1], controls=2),
        ik.attribution(embedded, words, edit=ik.Zero()),
        *(
            verb(embedded, few)
            for verb in (ik.fewshot.predict, ik.scorers.demonstration_weights, ik.fewshot.label_flow)
        ),
        ik.fewshot.label_knock_out(embedded, few, "L1H7"),
    ]
    assert {result.attrs["bos"] for result in results} == {"<bos>" if bos else "none"}
    assert {result.attrs["n_prompts"] for result in results} == {2}


def test_prompts_made_by_default_follow_the_model_too():
    model = worded_model("Llama", prepend_bos=False)
    for prompts in (ik.repeated_tokens(model, period=3), ik.prompts.word_episodes(ik.load("tiny"))):
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


def test_lengths_of_rows_padded_on_the_left_are_refused(embedded):
    """They would keep the padding and cut off the text."""
    right, left = (embedded.to_tokens(TEXTS, padding_side=side) for side in ("right", "left"))
    lengths = (right != embedded.tokenizer.pad_token_id).sum(1)
    assert ik.as_prompts(embedded, right, lengths=lengths).text() == ik.as_prompts(embedded, TEXTS).text()
    with pytest.raises(
        ValueError, match=r"prompt 0 looks padded on the left.*its last 3 tokens.*leave it out"
    ):
        ik.as_prompts(embedded, left, lengths=lengths)


LENGTHS = {  # rows, their lengths, whether they are padded on the left; 0 is BOS, end and padding token at once
    "padded on the left with two": ([[0, 0, 2, 3], [0, 3, 1, 2]], [2, 4], True),
    "padded on the left without BOS": ([[0, 2, 3], [2, 3, 1]], [2, 3], True),
    "padded on the right": ([[0, 2, 0, 0], [0, 3, 1, 2]], [2, 4], False),
    "filled with the last token": ([[0, 2, 2, 2], [0, 3, 1, 2]], [2, 4], False),
    "filled with another token": ([[0, 2, 1, 1], [0, 3, 1, 2]], [2, 4], False),
    "cut short": ([[1, 2, 3, 4], [2, 3, 1, 2]], [2, 3], False),
}


@pytest.mark.parametrize("case", list(LENGTHS))
def test_lengths_where_padding_begins_every_text(case):
    rows, lengths, on_the_left = LENGTHS[case]
    model = worded_model("GPT-2")
    if on_the_left:
        with pytest.raises(ValueError, match="prompt 0 looks padded on the left"):
            ik.as_prompts(model, torch.tensor(rows), lengths=lengths)
    else:
        read = ik.as_prompts(model, torch.tensor(rows), lengths=lengths)
        found = [row[:n].tolist() for row, n in zip(read.tokens, read.lengths, strict=True)]
        assert found == [row[:n] for row, n in zip(rows, lengths, strict=True)]


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
        lambda: ik.prompts.with_answers(embedded, "fox", [("appel", "wug")]),
        lambda: ik.edited(embedded, ik.Mean("appel fox"), heads="L1H7").__enter__(),
    ):
        with pytest.raises(ValueError, match=r"does not know '(hello|helo|appel)'"):
            verb()
    with pytest.raises(ValueError, match="near: 'apple'"):
        ik.loss(embedded, "appel")
    assert ik.as_prompts(embedded, "<unk> fox").tokens.tolist() == [[0, 1, 111]]  # written out, it is meant


def test_files_with_a_byte_order_mark(tmp_path):
    """What a Windows editor writes: the same prompts, the same answers, the effect where it was."""

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
