"""Further inputs that users bring, beyond those reported: right, or refused in a sentence before anything is measured.

Right values come from the model's own passes, pandas, NumPy or paper. Kinds: tokens, tables and arrays as arguments,
heads, results that come back in, metrics and masks of one's own, numbers, settings of the session, data files, texts.
"""

import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner
from worded import alone, tokenizer_like
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel._given import rows_of
from induction_kernel.cli import app

TEXTS = ["fox dax ; apple wug ; fox", "apple wug ; fox dax ; wolf dax ; plum"]
SHOTS = [("fox", "dax"), ("apple", "wug")]
OPTIONS = {"template": "{x} {y} ;", "labels": ["dax", "wug"], "separator": " "}


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def prompts(model):
    return ik.repeated_tokens(model, prompts=6, period=(5, 10))


@pytest.fixture(scope="module")
def scores(model, prompts):
    return ik.induction(model, prompts)


# Tokens --------------------------------------------------------------------------------------------------------


def test_tokens_of_each_text_in_a_list(model):
    """What a loop over `model.to_tokens(text)` gathers: `[1, position]` each, of different lengths."""
    rows = [model.to_tokens(text) for text in TEXTS]
    np.testing.assert_allclose(
        ik.loss(model, rows)["value"], [alone(model, text) for text in TEXTS], atol=1e-5
    )


@pytest.mark.parametrize("dtype", [">i4", "<u2", "uint64"])
def test_ids_as_a_file_has_them(model, dtype, tmp_path):
    ids = model.to_tokens(TEXTS[1])[0].numpy()
    ids.astype(dtype).tofile(tmp_path / "ids.bin")
    read = np.memmap(tmp_path / "ids.bin", dtype=dtype, mode="r")
    assert ik.loss(model, read)["value"].item() == pytest.approx(alone(model, TEXTS[1]), abs=1e-5)


def test_tokens_made_in_inference_mode_can_be_attributed(model):
    with torch.inference_mode():
        tokens = model.to_tokens(TEXTS[1])
    found, right = (
        ik.attribution(
            model,
            ik.prompts.with_answers(model, given, [(" dax", " wug")]),
            edit=ik.Mean(TEXTS[0]),
            metric=ik.logit_difference,
        )
        for given in (tokens, TEXTS[1])
    )
    np.testing.assert_allclose(found["estimate"], right["estimate"], atol=1e-6)


def test_a_padding_token_added_beyond_the_embedding():
    """`tokenizer.add_special_tokens({"pad_token": ...})`: its id is one the model has no row for."""
    model = fresh("GPT-2", tokenizer=(made := tokenizer_like("GPT-2")), d_vocab=len(made))
    tokenizer = model.tokenizer
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    texts = ["<|endoftext|> fox bear", "<|endoftext|> pear plum dax wug"]
    given = tokenizer(texts, padding=True, return_tensors="pt")
    assert int(given["input_ids"].max()) == model.cfg.d_vocab
    rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
    with torch.no_grad():
        right = [float(model(row, return_type="loss")) for row in rows]
    for form in (given, given["input_ids"]):
        np.testing.assert_allclose(ik.loss(model, form)["value"], right, atol=1e-9)


def test_a_prompt_with_and_one_without_bos_do_not_change_one_another(model):
    """The query after BOS is left out of `previous_token`, of those prompts that begin with it."""
    words = model.to_tokens(TEXTS[1], prepend_bos=False)[0]
    rows = torch.stack([torch.cat([torch.tensor([model.tokenizer.bos_token_id]), words[:-1]]), words])
    found = ik.previous_token(model, rows)["score"].values
    with torch.no_grad():
        _, cache = model.run_with_cache(rows)
    for layer in range(2):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        before = pattern.diagonal(offset=-1, dim1=2, dim2=3)  # query 1 first
        np.testing.assert_allclose(found[0, layer], before[0, :, 1:].mean(-1), atol=1e-5)
        np.testing.assert_allclose(found[1, layer], before[1].mean(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("index", "right"),
    [
        (np.array([2, 0, 1, 5, 5, 0], dtype=np.uint8), [2, 0, 1, 5, 5, 0]),  # torch takes bytes for a mask
        (slice(None, None, -1), [5, 4, 3, 2, 1, 0]),
        (torch.tensor(3), [3]),
        (pd.Series([True, False, False, True, False, False], index=list("abcdef")), [0, 3]),
        (xr.DataArray([0, -1], dims="prompt"), [0, 5]),
    ],
)
def test_some_of_the_prompts(prompts, index, right):
    assert prompts[index].tokens.tolist() == prompts.tokens[right].tolist()


@pytest.mark.parametrize("index", [[], np.zeros(6, dtype=bool), [True, False], [0.0, 1.0], None])
def test_what_chooses_no_prompts(prompts, index):
    with pytest.raises((ValueError, TypeError), match=r"^wanted (at least one of|a mask of 6|prompts by)"):
        prompts[index]


# Tables and arrays as arguments ----------------------------------------------------------------------------------


def answers_as():
    right = pd.DataFrame({"right": ["dax", "wug"], "wrong": ["wug", "dax"]})
    return {
        "an array": right.to_numpy(),
        "a DataFrame": right,
        "two columns": zip(right["right"], right["wrong"], strict=True),
        "a list of arrays": list(right.to_numpy()),
    }


@pytest.mark.parametrize("form", [*answers_as(), "a tensor of ids"])
def test_answers(model, form):
    ids = [[model.to_single_token("dax"), model.to_single_token("wug")]]
    ids.append(ids[0][::-1])
    given = torch.tensor(ids) if form == "a tensor of ids" else answers_as()[form]
    found = ik.logit_difference(model, ik.prompts.with_answers(model, TEXTS, given))["value"]
    with torch.no_grad():
        last = [model(model.to_tokens(text))[0, -1] for text in TEXTS]
    right = [float(row[a] - row[b]) for row, (a, b) in zip(last, ids, strict=True)]
    np.testing.assert_allclose(found, right, atol=1e-4)


def demonstrations_as():
    table = pd.DataFrame({"text": ["fox", "apple"], "label": [0, 1]})
    Row = namedtuple("Row", ["text", "label"])
    return {
        "rows of a DataFrame": table.itertuples(index=False),
        "an array": table.to_numpy(),
        "two columns": zip(table["text"], table["label"].to_numpy(), strict=True),  # classes are np.int64
        "text and word of a dict": dict(SHOTS).items(),
        "named tuples": [Row(*shot) for shot in SHOTS],
    }


@pytest.mark.parametrize("form", demonstrations_as())
def test_demonstrations(model, form):
    found = ik.few_shot_prompts(model, demonstrations_as()[form], ["wolf"], **OPTIONS)
    assert found.tokens.tolist() == model.to_tokens("fox dax ; apple wug ; wolf").tolist()
    assert found.demonstrations.classes.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"dax", "wug"}}, "in the order of their classes, got {"),
        ({"labels": {0: "dax", 1: "wug"}}, "labels as a list of words"),
        ({"labels": None}, "labels as a list of words, in the order of their classes, got None"),
        ({"queries": ["wolf", None]}, r"a query as x or \(x, y\), got None"),
        ({"queries": pd.DataFrame({"text": ["wolf"]})}, "got DataFrame: give its rows"),
        ({"demonstrations": pd.DataFrame(SHOTS)}, "got DataFrame: give its rows"),
        ({"demonstrations": dict(SHOTS)}, "a list of demonstrations"),
        ({"separator": None}, "separator as text, got None"),
        ({"demonstrations": [("fox", 0.0), ("apple", 1.0)]}, "label word or its index, got 0.0"),
    ],
)
def test_few_shot_prompts_that_cannot_be(model, changes, message):
    given = {"demonstrations": SHOTS, "queries": ["wolf"]} | OPTIONS | changes
    with pytest.raises(TypeError, match=message):
        ik.few_shot_prompts(model, **given)


# Heads -----------------------------------------------------------------------------------------------------------


def heads_as(scores):
    mean = scores["score"].mean("prompt")
    return {
        "head_table": lambda: ik.head_table(scores, 2),
        "its index": lambda: ik.head_table(scores, 2).index,
        "np.argwhere": lambda: np.argwhere(mean.values > 0.4),
        "torch.nonzero": lambda: (torch.tensor(mean.values) > 0.4).nonzero(),
        "labelled names": lambda: scores["name"].values[mean.values > 0.4],
        "a DataArray of names": lambda: xr.DataArray(["L1H1", "L1H7"], dims="k"),
        "mixed": lambda: {"1.7", (1, np.int64(1)), ik.Head(1, 7)},
    }


@pytest.mark.parametrize("form", heads_as(xr.Dataset({"score": ("prompt", [0.0])})))
def test_heads(model, prompts, scores, form):
    """Two heads fed from the control: the loss of the model's own run with their z replaced."""
    control = ik.as_prompts(model, prompts.control, lengths=prompts.lengths)
    found = ik.ablate(model, prompts, heads_as(scores)[form](), edit=ik.FromRun(control), metric=ik.loss)
    assert set(found.attrs["heads"].split()) == {"L1H1", "L1H7"}
    n, name = int(prompts.lengths[0]), "blocks.1.attn.hook_z"
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.control[:1, :n])

        def taken(z, hook):
            z[:, :, [1, 7]] = cache[name][:, :, [1, 7]]
            return z

        right = model.run_with_hooks(prompts.tokens[:1, :n], return_type="loss", fwd_hooks=[(name, taken)])
    assert found["value"][0].item() == pytest.approx(float(right), abs=1e-4)


@pytest.mark.parametrize("heads", [{1: [7, 1]}, pd.DataFrame({"layer": [1], "head": [7]})])
def test_what_names_no_heads(model, heads):
    with pytest.raises(TypeError, match=r"wanted heads as a list .* pass its names of heads"):
        ik.ablate(model, None, heads)


# Results that come back in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [ik.head_table, ik.summarise, ik.head_map])
@pytest.mark.parametrize("reduced", [lambda s: s.mean("prompt"), lambda s: s.isel(prompt=0)])
def test_scores_without_their_prompts(scores, verb, reduced):
    with pytest.raises(ValueError, match=r"no dimension prompt.*isel\(prompt=\[0\]\)"):
        verb(reduced(scores))


def test_scores_of_some_heads_alone(scores):
    """`scores.where(...)` spreads chance over layers and heads; the others have no value."""
    table = ik.head_table(scores.where(scores["layer"] == 1), 3)
    right = scores["score"].sel(layer=1).mean("prompt").to_series().nlargest(3)
    assert list(table.index) == [f"L1H{head}" for head in right.index]
    np.testing.assert_allclose(table["mean"], right, atol=6e-4)


def test_scores_with_and_without_a_control_in_one(model, prompts, scores):
    text = ik.induction(
        model, [row[:n] for row, n in zip(prompts.tokens.tolist(), prompts.lengths, strict=True)][:3]
    )
    with pytest.raises(ValueError, match=r"3 of 9 prompts have no control \(the first is prompt 6\)"):
        ik.head_table(xr.concat([scores, text], "prompt"))


def test_scores_in_another_order_are_compared_head_by_head(scores):
    turned = scores.isel(head=slice(None, None, -1), layer=[1, 0])
    found = ik.compare(scores, turned)
    np.testing.assert_allclose(found["difference"], 0, atol=1e-12)
    assert found["pearson"] == pytest.approx(1)
    assert found["overlap"] == 1


@pytest.mark.parametrize(
    ("plot", "made"),
    [
        (ik.plots.loss_plot, lambda model, prompts: ik.loss_by_position(model, prompts)),
        (ik.attention_view, lambda model, prompts: ik.patterns(model, prompts, "L1H7")),
    ],
)
def test_figures_of_one_prompt_by_number(model, prompts, plot, made):
    found = made(model, prompts)
    assert plot(found.isel(prompt=[0])) is not None
    with pytest.raises(ValueError, match=r"isel\(prompt=\[0\]\)"):
        plot(found.isel(prompt=0))


# Metrics and masks of one's own ------------------------------------------------------------------------------------


def last_logit(logits, prompts):
    return logits[torch.arange(len(logits)), prompts.lengths - 1, 101]


class LastLogit:
    """A metric with a state of its own."""

    def __init__(self, word):
        self.word = word

    def __call__(self, logits, prompts):
        return logits[torch.arange(len(logits)), prompts.lengths - 1, self.word].double()


@pytest.mark.parametrize("metric", [last_logit, LastLogit(101)])
def test_a_metric_of_ones_own(model, metric):
    found = ik.sweep(model, TEXTS, metric=metric, edit=ik.Scale(1), by=())["baseline"]
    with torch.no_grad():
        right = [float(model(model.to_tokens(text))[0, -1, 101]) for text in TEXTS]
    np.testing.assert_allclose(found, right, atol=1e-4)


@pytest.mark.parametrize(
    "metric", [lambda logits: logits[:, -1, 5], lambda *, logits, prompts: logits[:, -1, 5]]
)
def test_a_metric_of_logits_alone(model, metric):
    """As TransformerLens' own patching takes them."""
    with pytest.raises(TypeError, match="a metric of two arguments, logits"):
        ik.sweep(model, TEXTS, metric=metric)


@pytest.mark.parametrize("mask", [lambda tokens: tokens[:, :, None] == 1, torch.ones(3, 3, dtype=torch.bool)])
def test_a_mask_that_is_no_function_of_tokens_and_lengths(mask):
    with pytest.raises(TypeError, match=r"mask (function of two arguments|as a function)"):
        ik.AttentionScorer("mine", mask)


# Numbers -----------------------------------------------------------------------------------------------------------


def test_numbers_of_numpy_count_like_those_of_python(model):
    given = {"prompts": 8, "period": 6, "repeats": 3, "seed": 5}
    of_numpy = {key: np.int64(value) for key, value in given.items()}
    assert torch.equal(
        ik.repeated_tokens(model, **given).tokens, ik.repeated_tokens(model, **of_numpy).tokens
    )
    one, other = (
        ik.prompts.word_episodes(model, prompts=kind(3), shots=kind(4), seed=kind(7))
        for kind in (int, np.int32)
    )
    assert torch.equal(one.tokens, other.tokens)
    assert ik.load("tiny", checkpoint=np.int64(800)).cfg.n_layers == 2
    assert ik.training.Recipe(steps=np.int64(10)) == ik.training.Recipe(steps=10)
    assert ik.Scale(np.float32(0.5)) == ik.Scale(0.5)
    one, other = (ik.loss(model, TEXTS, batch_size=kind(1))["value"] for kind in (int, np.int64))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", [-1, 2**70, None, 1.5, "1", True, np.random.default_rng(0)])
@pytest.mark.parametrize(
    "verb",
    [
        lambda model, scores, seed: ik.repeated_tokens(model, seed=seed),
        lambda model, scores, seed: ik.prompts.word_episodes(model, seed=seed),
        lambda model, scores, seed: ik.random_heads(model, like="L1H7", seed=seed),
        lambda model, scores, seed: ik.summarise(scores, seed=seed),
        lambda model, scores, seed: ik.theory.hidden_markov_tasks(seed=seed),
        lambda model, scores, seed: ik.ov_eigenvalues(model, seed=seed),
    ],
    ids=[
        "repeated_tokens",
        "word_episodes",
        "random_heads",
        "summarise",
        "hidden_markov_tasks",
        "ov_eigenvalues",
    ],
)
def test_seeds(model, scores, verb, seed):
    with pytest.raises((ValueError, TypeError), match=r"^wanted seed (as a whole number|from 0 to)"):
        verb(model, scores, seed)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (lambda model, scores: ik.summarise(scores, draws=1e4), "whole draws >= 100"),
        (lambda model, scores: ik.summarise(scores, confidence="95%"), "confidence between 0 and 1"),
        (
            lambda model, scores: ik.prompts.word_episodes(model, shots=8.0),
            "shots and prompts as whole numbers",
        ),
        (lambda model, scores: ik.prompts.word_episodes(model, noise="0.3"), "noise as a number"),
        (lambda model, scores: ik.Resample(seed=None).drawn(2, None), "seed as a whole number"),
        (
            lambda model, scores: ik.KnockOut(np.zeros((3, 3), dtype=bool)),
            "bool tensor to knock out, got ndarray",
        ),
        (lambda model, scores: ik.repeated_tokens(model, prompts=True), "wanted prompts >= 1, got True"),
        (lambda model, scores: ik.repeated_tokens(model, exclude=None), "wanted exclude from 0"),
        (lambda model, scores: ik.icl_score(model, TEXTS, early=2.0, late=5), "whole numbers 0 <= early"),
        (
            lambda model, scores: ik.as_prompts(model, [[5, 6]], lengths="2"),
            "lengths as whole numbers, one per prompt",
        ),
        (lambda model, scores: ik.repeated_tokens(fresh("GPT-2", n_ctx=1)), "this model is too small"),
        (lambda model, scores: ik.repeat_loss(fresh("GPT-2", n_ctx=2)), "a period of at least 2"),
    ],
)
def test_numbers_that_are_none(model, scores, verb, message):
    with pytest.raises((ValueError, TypeError), match=message):
        verb(model, scores)


# Settings of the session, models, paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_default_dtype_of_torch_changes_no_draw(model, dtype):
    right = ik.prompts.word_episodes(model, prompts=8, noise=0.5, seed=3).tokens
    torch.set_default_dtype(dtype)
    try:
        found = ik.prompts.word_episodes(model, prompts=8, noise=0.5, seed=3).tokens
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, right)


def test_a_model_without_weights():
    model = torch.nn.Module.to(fresh("GPT-2"), "meta")
    for verb in (ik.induction, ik.ov_eigenvalues, ik.repeat_loss):
        with pytest.raises(ValueError, match="got one on the device 'meta'"):
            verb(model)


def test_any_path_is_a_path():
    class Somewhere:
        def __fspath__(self):
            return str(Path(ik.__file__).parent / "assets" / "tiny")

    assert ik.load(Somewhere()).cfg.n_heads == 8


def test_a_link_stays_a_link_and_a_pipe_a_pipe(model, tmp_path):
    """What is written goes to where the name leads; nothing but a plain file is ever replaced."""
    view = ik.attention_view(ik.patterns(model, TEXTS[0], "L1H7"))
    there, link = tmp_path / "shared" / "view.html", tmp_path / "view.html"
    there.parent.mkdir()
    there.write_text("old")
    link.symlink_to(there)
    view.save(link)
    assert link.is_symlink()
    assert "CircuitsVis" in there.read_text()
    os.mkfifo(tmp_path / "pipe.html")
    with pytest.raises(ValueError, match=r"pipe\.html"):
        view.save(tmp_path / "pipe.html")
    assert (tmp_path / "pipe.html").is_fifo()


# Data files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "options", "texts", "classes"),
    [
        ("a.csv", "Review Text,label\ngood,1\nbad,0\n", {"text": "Review Text"}, ["good", "bad"], [1, 0]),
        ("b.csv", '"the\ntext",label\ngood,1\nbad,0\n', {"text": "the\ntext"}, ["good", "bad"], [1, 0]),
        ("C.CSV", "text,label\ngood,1\nbad,0\n", {}, ["good", "bad"], [1, 0]),
        (
            "d.csv",
            "Title,Body (en),label\nA,good,1\nB,bad,0\n",
            {"text": "{Title}: {Body (en)}"},
            ["A: good", "B: bad"],
            [1, 0],
        ),
    ],
)
def test_columns_and_endings(tmp_path, name, content, options, texts, classes):
    (tmp_path / name).write_text(content)
    found = ik.data.load_classification(tmp_path / name, **options)
    assert list(found.texts) == texts
    assert found.classes.tolist() == classes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label,label\ngood,1,0\nbad,0,1\n", "label"),
        ("b.jsonl", '{"text": {"en": "good"}, "label": 1}\n{"text": {"en": "bad"}, "label": 0}\n', "text"),
    ],
)
def test_tables_that_leave_open_what_is_meant(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, TypeError), match=message):
        ik.data.load_classification(tmp_path / name)


def test_no_texts_chosen():
    data = ik.data.LabelledTexts(("fox", "apple"), np.array([0, 1]), ("dax", "wug"))
    for none in ([], data.classes > 5):
        with pytest.raises(ValueError, match=r"at least one|not empty"):
            data[none]


# Texts -----------------------------------------------------------------------------------------------------------


def test_half_a_character(model):
    """What cut JSON and `errors="surrogateescape"` leave behind."""
    for verb in (
        lambda: ik.loss(model, "fox \ud83d dax"),
        lambda: ik.few_shot_prompts(model, [("fox \ud83d", "dax"), ("apple", "wug")], ["wolf"], **OPTIONS),
    ):
        with pytest.raises(ValueError, match="half a character"):
            verb()


@pytest.mark.parametrize("text", ["clean.txt", "data/clean", "", "  "])
def test_a_prompt_that_is_the_name_of_no_file(text):
    said = CliRunner().invoke(app, ["patch", text, TEXTS[0], "--answers", "dax,wug"])
    assert said.exit_code == 2
    assert "does not exist" in said.output or "empty text" in said.output


def byte_pairs():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet, end = pre_tokenizers.ByteLevel.alphabet(), "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["good bad film Input: Output: positive negative"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end)


@pytest.fixture(scope="module")
def byte_model():
    tokenizer = byte_pairs()
    return fresh("GPT-2", tokenizer=tokenizer, d_vocab=len(tokenizer), n_ctx=160)


@pytest.mark.parametrize(
    "text",
    [
        "good 👍🏽 film",
        "cafe\u0301 good",
        "good\r\nbad",
        "  good",
        "good\0bad",
        "طيب good",
        "{x} {y}",
        "good <|endoftext|> bad",
    ],
)
def test_texts_with_odd_characters(byte_model, text):
    """The loss is the model's own; every demonstration's span and label decode to what was written."""
    assert ik.loss(byte_model, text)["value"].item() == pytest.approx(alone(byte_model, text), abs=1e-9)
    shots = [(text, "positive"), ("bad film", "negative"), (text, "negative")]
    found = ik.few_shot_prompts(byte_model, shots, [text], labels=["positive", "negative"])
    ids, decode = found.tokens[0].tolist(), byte_model.tokenizer.decode
    for at, (x, label) in enumerate(shots):
        begin, end = found.demonstrations.spans[0, at].tolist()
        assert decode(ids[begin:end]) == f"Input: {x} Output: {label}"
        assert decode(ids[int(found.demonstrations.label_positions[0, at]) : end]) == f" {label}"


def test_a_model_of_one_head_and_few_words():
    """Of four words, a period of two is all that fits; the only head has no random one beside it."""
    model = fresh("GPT-2", n_layers=1, n_heads=1, d_vocab=4)
    prompts = ik.repeated_tokens(model)
    assert prompts.tokens.shape[1] == 4
    assert bool((prompts.tokens[:, :2] == prompts.tokens[:, 2:]).all())
    assert not bool((prompts.control[:, :2] == prompts.control[:, 2:]).any())
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    pattern = cache["blocks.0.attn.hook_pattern"][:, 0]
    right = (pattern[:, 2, 1] + pattern[:, 3, 2]) / 2
    np.testing.assert_allclose(ik.induction(model, prompts)["score"][:, 0, 0], right, atol=1e-9)
    with pytest.raises(ValueError, match="layer 0 has 0 other heads"):
        ik.random_heads(model, like="L0H0")


def test_a_trainable_model_stays_as_it_was():
    """Frozen, in training mode, with gradients off outside: attribution is the same, and so is the model after it."""
    model = tiny("attention-only")
    prompts = ik.repeated_tokens(model, prompts=4, period=6)
    right = ik.attribution(model, prompts, edit=ik.Mean(), metric=ik.repeat_loss)["estimate"]
    other = fresh("attention-only").train().requires_grad_(False)
    with torch.no_grad():
        found = ik.attribution(other, prompts, edit=ik.Mean(), metric=ik.repeat_loss)["estimate"]
    np.testing.assert_allclose(found, right, atol=1e-9)
    assert other.training
    assert not any(each.requires_grad or each.grad is not None for each in other.parameters())


def test_another_token_in_front_is_said_in_every_result(model):
    """`bos=<id>` means the same for text, few-shot prompts and random tokens."""
    comma = model.tokenizer.convert_tokens_to_ids(",")
    for prompts in (
        ik.as_prompts(model, TEXTS, bos=comma),
        ik.few_shot_prompts(model, SHOTS, ["wolf"], **OPTIONS, bos=comma),
        ik.repeated_tokens(model, period=5, prompts=2, bos=comma),
    ):
        assert prompts.tokens[:, 0].tolist() == [comma] * len(prompts)
        assert prompts.bos
        assert ik.previous_token(model, prompts).attrs["bos"] == ","


@pytest.mark.parametrize("verb", ["attribution", "qk_trace", "label_knock_out", "order_effect"])
def test_a_seed_is_looked_at_before_anything_is_run(model, prompts, monkeypatch, verb):
    labelled = ik.data.LabelledTexts(
        tuple("abcdefgh"), np.arange(8) % 2, ("dax", "wug"), template="{x} {y} ;"
    )
    calls = {
        "attribution": lambda: ik.attribution(
            model, prompts, edit=ik.Zero(), metric=ik.repeat_loss, seed="0"
        ),
        "qk_trace": lambda: ik.qk_trace(model, prompts, seed="0"),
        "label_knock_out": lambda: ik.fewshot.label_knock_out(
            model, ik.prompts.word_episodes(model, prompts=4), "L1H7", draws=0, seed="0"
        ),
        "order_effect": lambda: ik.fewshot.order_effect(
            model, ik.data.draw_episodes(labelled[:6], labelled[6:], shots=4), seed="0"
        ),
    }
    passes = []
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: passes.append(1))
    with pytest.raises(TypeError, match="wanted seed as a whole number"):
        calls[verb]()
    assert not passes


TABLE = [[1, 0], [0, 3]]


@pytest.mark.parametrize(
    "given",
    [
        TABLE,
        np.array(TABLE),
        torch.tensor(TABLE),
        xr.DataArray(TABLE),
        pd.DataFrame(TABLE),
        dict(TABLE),
        iter(TABLE),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_rows_of_any_table_hold_plain_numbers(given):
    rows = rows_of(given)
    assert [list(row) for row in rows] == TABLE
    assert type(rows) is list
    assert {type(value) for row in rows for value in row} == {int}


@pytest.mark.parametrize("factor", [2, np.int64(2), np.float32(2)], ids=lambda factor: type(factor).__name__)
def test_a_factor_of_any_number_is_a_float(factor):
    assert (type(ik.Scale(factor).factor), ik.Scale(factor)) == (float, ik.Scale(2.0))
