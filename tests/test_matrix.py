"""Is every measurement right on every family of models? Each equals its slow twin (float64), or says why it is refused.

`PYTHONPATH=tests/support python tests/test_matrix.py` prints the matrix for the installed TransformerLens,
with `--write` it makes the table of docs/supported_models.md.
All models are tiny and random; the windows of GPT-Neo, Mistral and Gemma 2 are shorter than the prompts.
"""

import copy
import functools
import importlib.metadata
import re
import sys
from dataclasses import replace
from pathlib import Path

import cells_attribution
import cells_census
import cells_concepts
import cells_qk
import cells_retrieval
import cells_text
import cells_vectors
import naive
import numpy as np
import paths_by_hooks
import pytest
import torch
from families import COLUMNS, FAMILIES, ROWS, every, kind_of
from labelled_prompts import labelled
from quick import one_in
from slopes import check_slope
from whole_runs import answer, compared, tokens_for, weighed
from zoo import (
    HOOKED,
    RMS,
    WINDOW,
    WINDOWED,
    fresh_of,
    has_hooked_transformer,
    hugging_face_model,
    model_of,
    quietly,
)

import induction_kernel as ik
from induction_kernel.interventions._attribution import attribution
from induction_kernel.interventions._edits import KnockOut, Scale, Zero
from induction_kernel.interventions._edits_from_runs import FromRun, Mean
from induction_kernel.model import foreign_hooks, token_embedding, unembedding, value_weights
from induction_kernel.prompts import random_tokens
from induction_kernel.scorers._direct_effect import direct_effect


@functools.cache
def seen(name, kind):
    """The model's own weights, measured."""
    return naive.measured(model_of(name, kind), centred=name not in RMS)


@functools.cache
def ready(name, kind):
    """Repeated tokens with demonstrations and answers, three prompts longer than every window."""
    model = model_of(name, kind)
    prompts = labelled(ik.repeated_tokens(model, bos=0, prompts=3, period=(5, 8)))
    assert int(prompts.lengths.min()) > WINDOW
    return replace(prompts, answers=torch.tensor([[3, 7], [11, 2], [30, 31]]))


@functools.cache
def patterns_of(name, kind, control=False):
    prompts = ready(name, kind)
    return naive.all_patterns(model_of(name, kind), prompts.control if control else prompts.tokens)


def close(found, twin, within=1e-9):
    np.testing.assert_allclose(np.asarray(found), np.asarray(twin), rtol=within, atol=within)


def weights(name, kind):
    model = model_of(name, kind)
    w_e, layers, w_u = seen(name, kind)
    close(token_embedding(model), w_e)
    for layer, of_layer in enumerate(layers):
        pairs = list(zip(value_weights(model, layer), of_layer, strict=True))
        for mine, measured in pairs[: 2 if name == "Gemma 2" else 3]:  # what attention writes there is normed
            close(mine, measured)
    if name != "Gemma 2":  # its logits are bent (a soft cap)
        close(unembedding(model), w_u)


def attention(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    given = prompts.tokens, prompts.lengths, prompts.scored
    scorers = [ik.induction, ik.prefix_matching, ik.duplicate_token, ik.previous_token]
    found = ik.observe(model, prompts, scorers, progress=False)
    for variable, control in (("score", False), ("control", True)):
        for layer, pattern in enumerate(patterns_of(name, kind, control)):
            twins = {
                "induction": naive.induction(pattern, *given),
                "prefix_matching": naive.induction(pattern, *given, latest=False),
                "duplicate_token": naive.duplicate(pattern, *given),
                "previous_token": naive.previous(pattern, *given[1:], prompts.bos),
            }
            for scorer, twin in twins.items():
                if not (control and scorer == "previous_token"):
                    close(found[variable].sel(scorer=scorer, layer=layer), twin)
    if name in WINDOWED:
        local = patterns_of(name, kind)[1 if name == "GPT-Neo" else 0]
        assert float(local.tril(-WINDOW).abs().max()) == 0 < float(local.tril(1 - WINDOW).abs().max())


def labels(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    for pooling in ("label", "max"):
        found = ik.scorers.demonstration_weights(model, prompts, pooling=pooling)["weight"].values
        for layer, pattern in enumerate(patterns_of(name, kind)):
            for p, h, i in np.ndindex(3, 4, 2):
                close(found[p, layer, h, i], naive.weight_of(pattern, prompts, p, h, i, pooling))
        close(ik.label_attention(model, prompts, pooling=pooling)["score"], found.sum(-1))


def raw_patterns(name, kind):
    """Also: these are the patterns the model uses, z = pattern v."""
    model, prompts = model_of(name, kind), ready(name, kind)
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    found = ik.patterns(model, prompts, heads)
    real = torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]
    both = real[:, :, None] & real[:, None, :]
    w_o = [each[2] for each in seen(name, kind)[1]]
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    for i, (layer, head) in enumerate(heads):
        pattern = patterns_of(name, kind)[layer][:, head]
        v = cache["v", layer]
        v = v[:, :, head // (4 // v.shape[2])]
        close(pattern @ v, cache["z", layer][:, :, head])
        close(found["pattern"][:, i], pattern * both, 1e-6)  # kept in float32
        if name != "Gemma 2":  # where no norm stands between
            values = (v - seen(name, kind)[1][layer][1][head]) @ w_o[layer][head]
            close(found["value_norm"][:, i], values.norm(dim=-1) * real, 1e-5)


def copying(method):
    def check(name, kind):
        model = model_of(name, kind)
        prompts = random_tokens(model, length=10, bos=False, prompts=2)
        found = ik.copying(model, prompts, method=method)["score"].values
        _, layers, w_u = seen(name, kind)
        with torch.no_grad():
            _, cache = model.run_with_cache(prompts.tokens)
        for p, layer, head in np.ndindex(2, 2, 4):
            _, b_v, w_o = layers[layer]
            v = cache["v", layer]
            values = v[p, :, head // (4 // v.shape[2])] - b_v[head]
            tokens = prompts.tokens[p].tolist()
            if method == "OLS":
                twin = naive.ols_copying(values, w_o[head], w_u, tokens)
            else:
                at, pattern = {"BAN": "query", "BAN-source": "source"}[method], cache["pattern", layer]
                twin = naive.ban_copying(values, pattern[p, head], w_o[head], w_u, tokens, at=at)
            close(found[p, layer, head], twin)

    return check


def eigenvalues(name, kind):
    """On W_E as it enters the stream, and on what block 0's MLP makes of it by a run."""
    model = model_of(name, kind)
    w_e, layers, w_u = seen(name, kind)
    bases = {"tokens": w_e}
    if name != "attention-only":
        bases["effective"] = w_e + naive.first_mlp(model, w_e)
    for embedding, base in bases.items():
        found = ik.ov_eigenvalues(model, embedding=embedding, draws=1)["score"].values
        for layer, head in np.ndindex(2, 4):
            w_v, _, w_o = layers[layer]
            close(
                found[layer, head], naive.ov_ratio(base, w_v[head], w_o[head], w_u), 1e-5
            )  # twin: 50 x 50, defective


def direct(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    _, layers, w_u = seen(name, kind)
    epsilon = 1e-6 if name in RMS else 1e-5
    for on in ("next token", "answers"):
        found = direct_effect(model, prompts, on=on)
        for variable, tokens in (("score", prompts.tokens), ("control", prompts.control)):
            with torch.no_grad():
                _, cache = model.run_with_cache(tokens)
            twin = np.zeros((3, 2, 4))
            for p, layer, head in np.ndindex(twin.shape):
                _, b_v, w_o = layers[layer]
                values = []
                for i, direction in naive.read_directions(prompts, p, on, w_u):
                    stream = cache["blocks.1.hook_resid_post"][p, i]
                    stream = stream if name in RMS else stream - stream.mean()
                    scale = (stream.square().mean() + epsilon).sqrt()
                    written = (cache["z", layer][p, i, head] - b_v[head]) @ w_o[head]
                    values.append(float(written @ direction / scale))
                twin[p, layer, head] = np.mean(values)
            close(found[variable], twin)


def ablation(name, kind):
    model, prompts = model_of(name, kind), tokens_for(model_of(name, kind), [6, 6, 6])
    heads = [(0, 1), (1, 2)]
    for edit in (Zero(), Mean()):
        for hold in (None, "patterns"):
            found = ik.ablate(model, prompts, heads, edit=edit, metric=weighed, hold=hold, progress=False)
            twin, baseline = naive.sweep(
                model, prompts, edit=edit, site="z", by=(), metric_function=weighed, hold=hold, heads=heads
            )
            close(found["value"], twin)
            close(found["effect"], twin - baseline)
            assert float(abs(found["effect"]).max()) > 1e-3


def sweeps(name, kind):
    model = model_of(name, kind)
    prompts, other = (tokens_for(model, [4, 6, 3], seed=seed) for seed in (0, 5))
    asked = [
        ("z", Mean(other), ("layer", "head"), None),
        ("resid_pre", FromRun(other), ("layer", "position"), None),
        ("q", Scale(-0.7), ("layer", "head"), None),
        ("v", Zero(), ("layer", "head"), "patterns"),
        ("mlp_out", Zero(), ("layer",), None),
    ]
    for site, edit, by, hold in asked[: 4 if name == "attention-only" else 5]:
        found = compared(model, prompts, edit=edit, site=site, by=by, hold=hold, metric=weighed, close=1e-10)
        assert found.attrs["lane"] in ("decoder", "blocks")
        assert float(abs(found["effect"]).max()) > 1e-3


def patching(name, kind):
    model = model_of(name, kind)
    source, into = (tokens_for(model, [4, 6, 3], seed=seed) for seed in (5, 0))
    for site, by in (("z", ("layer", "head")), ("resid_pre", ("layer", "position"))):
        found = ik.patch(model, source=source, into=into, site=site, by=by, metric=answer, progress=False)
        value, baseline = naive.sweep(
            model, into, edit=FromRun(source), site=site, by=by, metric_function=answer
        )
        close(found["value"], value)
        gap = float((answer(model(source.tokens).detach(), into) - torch.tensor(baseline)).mean())
        effect = np.nanmean(value - baseline.reshape(-1, *[1] * len(by)), 0)
        if site == "z":
            close(found["normalised"], effect / gap, 1e-7)


def path_patching(name, kind):
    for site, heads in (("q", [1, 2]), ("v", [0])) + ((("mlp_out", []),) if name != "attention-only" else ()):
        paths_by_hooks.compared(name, kind, site, {1: heads})


def knocked_out(name, kind):
    model, prompts = model_of(name, kind), tokens_for(model_of(name, kind), [6, 6, 6])
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    mask = mask & ~torch.eye(6, dtype=torch.bool)
    options = {"by": ("layer", "head"), "metric": weighed}
    found = ik.knock_out(model, prompts, mask, progress=False, **options)
    twin, _ = naive.sweep(
        model, prompts, edit=KnockOut(mask), site="pattern", by=("layer", "head"), metric_function=weighed
    )
    close(found["value"], twin)
    assert float(abs(found["effect"]).max()) > 1e-3


def gradients(name, kind):
    """The slope of the sweep."""
    for site in ("z", "q"):
        check_slope(name, kind, site, ("layer", "head"))


def losses(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    found = ik.loss_by_position(model, prompts)["loss"].values
    with torch.no_grad():
        logs = model(prompts.tokens, return_type="logits").log_softmax(-1)
    for p in range(3):
        length = int(prompts.lengths[p])
        twin = -logs[p, torch.arange(length - 1), prompts.tokens[p, 1:length]]
        close(found[p, : length - 1], twin, 1e-6)  # kept in float32
        assert np.isnan(found[p, length - 1 :]).all()
        later = [float(twin[i]) for i in range(length - 1) if prompts.scored[p, i]]
        close(ik.repeat_loss(model, prompts)["value"][p], np.mean(later))


CELLS = {
    "weights": weights,
    "attention scores": attention,
    "label_attention": labels,
    "patterns": raw_patterns,
    "copying (OLS)": copying("OLS"),
    "copying (BAN)": copying("BAN"),
    "copying (BAN-source)": copying("BAN-source"),
    "ov_eigenvalues": eigenvalues,
    "direct_effect": direct,
    "ablate": ablation,
    "sweep": sweeps,
    "patch": patching,
    "path_patch": path_patching,
    "knock_out": knocked_out,
    "attribution": gradients,
    "metrics": losses,
    **cells_attribution.CELLS,
    **cells_census.CELLS,
    **cells_concepts.CELLS,
    **cells_qk.CELLS,
    **cells_retrieval.CELLS,
    **cells_text.CELLS,
    **cells_vectors.CELLS,
}

_NORMED = "attention's output is normalised before it is added to the residual stream"
REFUSED = {
    ("Gemma 2", "copying (OLS)"): _NORMED,
    ("Gemma 2", "copying (BAN)"): _NORMED,
    ("Gemma 2", "copying (BAN-source)"): _NORMED,
    ("Gemma 2", "ov_eigenvalues"): _NORMED,
    ("Gemma 2", "direct_effect"): _NORMED,
    ("Gemma 2", "path_patch"): _NORMED,
    **cells_attribution.REFUSED,
    **cells_retrieval.REFUSED,
    **cells_text.REFUSED,
    **cells_vectors.REFUSED,
}


def outcome(name, kind, cell):
    """ "exact" or the error's words; a wrong number is an AssertionError."""
    try:
        CELLS[cell](name, kind)
    except ValueError as error:
        return str(error)
    return "exact"


CASES = one_in(7, tuple(CELLS), ROWS, bridges=True)


@pytest.mark.skipif(not has_hooked_transformer(), reason="`make test-tl4` runs every case")
@pytest.mark.parametrize("cell", CELLS)
def test_quick_runs_have_each_measure_with_grouped_queries_and_on_a_bridge(cell):
    """On three families or more; all prompts are padded."""
    quick = [case.values[1:] for case in CASES if case.values[0] == cell and not case.marks]
    exact = [(name, kind) for name, kind in quick if (name, cell) not in REFUSED]
    assert len({name for name, _ in exact}) >= 3
    assert {name for name, _ in exact} & {name for name in RMS if name != "Gemma 2"}
    assert {kind for _, kind in exact} & {"bridge", "native"}


@pytest.mark.parametrize(("cell", "name", "kind"), CASES)
def test_is_exact_or_refused(name, kind, cell):
    said = outcome(name, kind, cell)
    assert said == "exact" if (name, cell) not in REFUSED else said.startswith(REFUSED[name, cell])


@every
def test_a_window_may_leave_a_query_nothing(name, kind):
    """All but the first key knocked out: without a window that is the naive run, with one an error, never NaN."""
    model = model_of(name, kind)
    prompts = tokens_for(model, [6, 6, 6])
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[:, 0] = False
    options = {"metric": weighed, "progress": False}
    asked = [
        lambda: ik.knock_out(model, prompts, mask, **options),
        lambda: attribution(
            model, prompts, edit=KnockOut(mask), site="pattern", by=("layer", "head"), **options
        ),
    ]
    if name in WINDOWED:
        for each in asked:
            with pytest.raises(ValueError, match="query 4 would be left with nothing to attend to in layer"):
                each()
        by = ("layer", "head", "position")
        with pytest.raises(ValueError, match=r"query [45] would be left with nothing to attend to in layer"):
            ik.knock_out(model, prompts, mask, by=by, **options)
        spared = {"layers": [0 if name == "GPT-Neo" else 1]}
        asked = asked[:1] * (name != "Mistral")  # its windows are everywhere
        asked = [lambda: ik.knock_out(model, prompts, mask, **spared, **options)] * len(asked)
    for each in asked:
        values = each()
        assert np.isfinite(values[next(iter(values.data_vars))].values).all()
    if name not in WINDOWED:
        found = ik.knock_out(model, prompts, mask, **options)
        twin, _ = naive.sweep(
            model, prompts, edit=KnockOut(mask), site="pattern", by=("layer", "head"), metric_function=weighed
        )
        close(found["value"], twin)


def test_hooks_that_transformer_lens_wires_itself_are_nobodys():
    """TransformerLens 4 has some on OPT's MLP; one of the user's beside them is still seen."""
    model = fresh_of("OPT", "bridge")
    assert foreign_hooks(model) == []
    with model.hooks(fwd_hooks=[("blocks.0.mlp.in.hook_in", lambda activation, hook: None)]):
        assert len(foreign_hooks(model)) == 1
    assert foreign_hooks(model) == []


def test_norms_behind_attention_do_not_count_before_it():
    """OPT-350m, a Bridge alone: what its heads write is normed, and what they read is not."""
    model = model_of("OPT-350m", "bridge")
    prompts, repeated = tokens_for(model, [6, 6, 6]), ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    for layer in range(2):
        seen = []
        hooks = [
            (f"blocks.{layer}.hook_resid_pre", lambda old, hook: 0 * old),
            (f"blocks.{layer}.attn.hook_v", lambda old, hook, seen=seen: seen.append(old.detach().clone())),
        ]
        with torch.no_grad():
            model.run_with_hooks(prompts.tokens, fwd_hooks=hooks)
        close(value_weights(model, layer)[1].expand_as(seen[0]), seen[0])
    for site in ("z", "resid_pre"):
        by = ("layer", "head" if site == "z" else "position")
        compared(model, prompts, edit=Zero(), site=site, by=by, hold=None, metric=weighed, close=1e-10)
    for each in (ik.copying, direct_effect, lambda model, _: ik.ov_eigenvalues(model)):
        with pytest.raises(ValueError, match="no norm before its unembedding"):
            each(model, repeated)


# What raw and processed weights, and both classes of model, must agree in.
MEASURES = {
    "induction": lambda model, prompts: ik.induction(model, prompts)["score"],
    "label_attention": lambda model, prompts: ik.label_attention(model, prompts)["score"],
    "patterns": lambda model, prompts: ik.patterns(model, prompts, ["L0H1", "L1H2"])["value_norm"],
    "copying (OLS)": lambda model, prompts: ik.copying(model, prompts)["score"],
    "copying (BAN)": lambda model, prompts: ik.copying(model, prompts, method="BAN")["score"],
    "ov_eigenvalues": lambda model, prompts: ik.ov_eigenvalues(model, draws=1)["score"],
    "effective": lambda model, prompts: ik.ov_eigenvalues(model, draws=1, embedding="effective")["score"],
    "direct_effect": lambda model, prompts: direct_effect(model, prompts, on="next token")["score"],
    "zero values": lambda model, prompts: removed(model, prompts, edit=ik.ZeroValues())["effect"],
    "mean": lambda model, prompts: removed(model, prompts, edit=Mean())["effect"],
    "zero values, patterns held": lambda model, prompts: removed(
        model, prompts, edit=ik.ZeroValues(), hold="patterns"
    )["effect"],
    "values": lambda model, prompts: ik.sweep(
        model, prompts, edit=ik.ZeroValues(), site="v", by=("layer", "head"), metric=weighed, progress=False
    )["effect"],
    "repeat_loss": lambda model, prompts: ik.repeat_loss(model, prompts)["value"],
}


def removed(model, prompts, **options):
    return ik.ablate(model, prompts, ["L0H1", "L1H3"], metric=weighed, progress=False, **options)


def agree(one, other, name, prompts, within):
    for key, measure in MEASURES.items():
        if (name, key) not in REFUSED and (name, key) not in (
            ("attention-only", "effective"),
            ("Gemma 2", "effective"),
        ):
            a, b = (measure(model, prompts).values for model in (one, other))
            np.testing.assert_allclose(a, b, rtol=within, atol=within, err_msg=key)


def processed(name, kind, dtype):
    model = fresh_of(name, kind, dtype=dtype)
    with quietly():
        if kind in ("bridge", "native"):
            model.enable_compatibility_mode()
        else:
            model.load_and_process_state_dict(
                {key: value.clone() for key, value in model.state_dict().items()},
                fold_ln=True,
                fold_value_biases=True,
                center_writing_weights=name not in RMS,
                center_unembed=name != "Gemma 2",  # a soft cap sees the mean
            )
    return model


@pytest.mark.filterwarnings("ignore:.*")  # TransformerLens' own, about its processing
@pytest.mark.parametrize(("name", "kind"), one_in(5, ROWS))
def test_raw_and_processed_weights_agree(name, kind):
    """In float32 for Bridges, whose processing of float64 weights is not always run in one dtype (GPT-Neo's raises)."""
    dtype = torch.float32 if kind in ("bridge", "native") else torch.float64
    within = 1e-4 if dtype == torch.float32 else 1e-5  # TransformerLens processes in float32
    raw = fresh_of(name, kind, dtype=dtype)
    agree(raw, processed(name, kind, dtype), name, ready(name, kind), within)


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
@pytest.mark.parametrize("name", one_in(3, FAMILIES))
def test_both_classes_agree(name):
    """Of the same weights; transformers takes softmax, RMS norms and rotary angles in float32 whatever the dtype."""
    hooked, bridge = (kind_of(name, column) for column in COLUMNS)
    within = 1e-9 if name in ("attention-only", "GPT-2") else 1e-4
    agree(model_of(name, hooked), model_of(name, bridge), name, ready(name, hooked), within)


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
@pytest.mark.parametrize("name", HOOKED)
def test_the_zoo_is_the_hugging_face_model(name, monkeypatch):
    """To 2e-5 as it is, and to rounding without what transformers does in float32: that alone is the difference."""
    tokens = ready(name, "converted").tokens
    exact = copy.deepcopy(hugging_face_model(name))
    with torch.no_grad():
        wanted, hooked = exact(tokens).logits, model_of(name, "converted")(tokens)
        torch.testing.assert_close(hooked, wanted, rtol=0, atol=2e-5)
        without_float32(exact, monkeypatch)
        # BLOOM: each library writes the constant of its gelu with other digits.
        torch.testing.assert_close(
            exact(tokens).logits, hooked, rtol=0, atol=1e-8 if name == "BLOOM" else 1e-12
        )


def without_float32(hf_model, monkeypatch):
    """Nothing is cast to float32: softmax, `.to` and `.float()` leave float64, and rotary frequencies are in it."""
    for module in hf_model.modules():
        if hasattr(module, "inv_freq"):
            n = len(module.inv_freq)
            module.inv_freq = 10000.0 ** -(torch.arange(n, dtype=torch.float64) / n)
    softmax, to = torch.nn.functional.softmax, torch.Tensor.to

    def keeps(tensor, *given):
        return tensor.dtype == torch.float64 and torch.float32 in given

    def as_it_is(self, *given, **options):
        return self if keeps(self, *given, options.get("dtype")) else to(self, *given, **options)

    def softmax_as_it_is(scores, dim=None, dtype=None, **options):
        return softmax(scores, dim=dim, dtype=None if keeps(scores, dtype) else dtype, **options)

    monkeypatch.setattr(torch.nn.functional, "softmax", softmax_as_it_is)
    monkeypatch.setattr(torch.Tensor, "to", as_it_is)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def row_of(name, kind):
    """One entry of the table, from what the cells do now: "exact", and what is refused, in the error's words."""
    found, refused = {cell: outcome(name, kind, cell) for cell in CELLS}, {}
    for cell, said in found.items():
        if said != "exact":
            refused.setdefault(said.partition(":")[0], []).append(cell)
    exact = "exact" if len(refused) < len(found) else ""
    return "; ".join([exact, *(f"{', '.join(cells)} refused: {said}" for said, cells in refused.items())])


def table():
    """The matrix as Markdown, a line at a time."""
    version = importlib.metadata.version("transformer-lens")
    yield " | ".join(["family", *(f"{column} {version}" for column in COLUMNS)])
    yield " | ".join(["---"] * (1 + len(COLUMNS)))
    for name in FAMILIES:
        yield " | ".join([name, *(row_of(name, kind_of(name, column)) for column in COLUMNS)])


def test_the_documentation_names_what_is_refused():
    text = (Path(__file__).parents[1] / "docs" / "supported_models.md").read_text("utf-8")
    (said,) = re.findall(r"to the residual stream, so (.*?) raise a ValueError", text)
    assert set(re.findall(r"`(\w+)`", said)) == {cell.partition(" ")[0] for _, cell in REFUSED}


SUPPORTED = Path(__file__).resolve().parent.parent / "docs" / "supported_models.md"
SAID_OF = {
    "GPT-Neo": " (local attention)",
    "GPT-NeoX": " (Pythia)",
    "BLOOM": " (ALiBi)",
    "Mistral": " (sliding window)",
    "Gemma 2": " (a norm after attention)",
}


def documented():
    """The table of docs/supported_models.md: what `test_is_exact_or_refused` holds in both classes and majors."""
    lines = [["family", "HookedTransformer 3.9, TransformerBridge 3.9 and 4.3"], ["---", "---"]]
    for name in FAMILIES:
        refused = sorted(cell for family, cell in REFUSED if family == name)
        but = f", but refused: {', '.join(refused)}" if refused else ""
        lines.append([name + SAID_OF.get(name, ""), f"exact{but}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(text):
    return re.sub(
        r"(<!-- table: families -->\n).*?(<!-- end -->)", rf"\g<1>{documented()}\g<2>", text, flags=re.DOTALL
    )


def test_the_documentation_lists_what_is_exact_and_what_is_refused():
    """`python tests/test_matrix.py --write` makes the table of docs/supported_models.md anew."""
    text = SUPPORTED.read_text()
    assert documented() in text
    assert with_table(text) == text
    assert with_table(text.replace(documented(), "")) == text


def test_the_table_says_what_the_cells_do(monkeypatch):
    """Here of cells that take no time: one that is right, one that is refused, one that is wrong."""

    def refuses(name, kind):
        raise ValueError("it cannot be: use ablate instead")

    def wrong(name, kind):
        raise AssertionError("numbers differ")

    monkeypatch.setitem(globals(), "CELLS", {"right": lambda name, kind: None, "not here": refuses})
    lines = list(table())
    assert len(lines) == 2 + len(FAMILIES)
    assert lines[-1] == " | ".join(["Phi", *["exact; not here refused: it cannot be"] * len(COLUMNS)])
    monkeypatch.setitem(globals(), "CELLS", {"wrong": wrong})
    with pytest.raises(AssertionError, match="numbers differ"):
        list(table())


if __name__ == "__main__":
    if "--write" in sys.argv:
        SUPPORTED.write_text(with_table(SUPPORTED.read_text()))
    else:
        for line in table():
            sys.stdout.write(f"{line}\n")
