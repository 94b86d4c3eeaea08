"""A lane that failed its check is not used: every verb then gives the numbers of whole hooked runs, and says why."""

import logging
from weakref import WeakKeyDictionary

import naive
import numpy as np
import paths_by_hooks
import pytest
import torch
import xarray as xr
from fewshot_by_hooks import (
    check_function_vectors,
    check_gradient_of_reweighting,
    check_label_knock_out,
    check_reweighting,
)
from shots import random_shots
from slopes import BY_HEAD, check_slope
from whole_runs import CLOSE, NARROW, answer, compared, edit_for, tokens_for, weighed
from zoo import FASTEST, PAIRS, fresh_of, hooked_only, model_of

import induction_kernel as ik
from induction_kernel.interventions import _lanes as trust
from induction_kernel.interventions._edits import KnockOut, Zero
from induction_kernel.interventions._edits_from_runs import FromRun
from induction_kernel.replay import _attention_rows as rows
from induction_kernel.replay import _lane_record as way
from induction_kernel.replay._blocks import Blocks
from induction_kernel.replay._decoder import Decoder
from induction_kernel.scorers import _pattern_entries as reading

pytestmark = pytest.mark.slow

ATTENTION, GPT2, BRIDGE = (
    ("attention-only", FASTEST["attention-only"]),
    ("GPT-2", FASTEST["GPT-2"]),
    ("GPT-2", "bridge"),
)

SEVERAL = [pair for pair in PAIRS if pair[0] in ("attention-only", "GPT-2", "Llama", "GPT-J")]


def models(*quick):
    """Every kind of model; these alone in quick runs."""
    marked = [pytest.param(*pair, marks=[] if pair in quick else pytest.mark.slow) for pair in SEVERAL]
    return pytest.mark.parametrize(("name", "kind"), marked)


HEADS = ["L0H1", "L1H0", "L1H3"]
SITES = {"q": BRIDGE, "k": GPT2, "v": ATTENTION, "mlp_out": BRIDGE, "resid_post": GPT2}
ROWS = {"q": GPT2, "k": BRIDGE, "pattern": GPT2}


def sites(quick):
    """Every kind of model at every site; in quick runs one model each."""
    marked = [
        pytest.param(*pair, site, marks=[] if pair == quick[site] else pytest.mark.slow)
        for pair in SEVERAL
        for site in quick
        if (pair[0], site) != ("attention-only", "mlp_out")
    ]
    return pytest.mark.parametrize(("name", "kind", "site"), marked)


@pytest.fixture
def forgotten(monkeypatch):
    """Nothing is known of any model."""
    monkeypatch.setattr(trust, "_REASONS", WeakKeyDictionary())
    monkeypatch.setattr(trust, "_PASSED", set())
    monkeypatch.setattr(way, "_SAID", WeakKeyDictionary())


@pytest.fixture
def planted(forgotten, monkeypatch):
    """Every lane raises, in its check and wherever it is used in spite of it."""

    def fail(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr(trust, "_REASONS", WeakKeyDictionary())  # also of checks made since `forgotten`
    monkeypatch.setattr(trust, "_PASSED", set())
    monkeypatch.setattr(Blocks, "__init__", fail)
    monkeypatch.setattr(Decoder, "__init__", fail)
    monkeypatch.setattr(rows._Rows, "run", fail)


def close_of(kind):
    return 1e-10 if kind == "hooked" else 1e-6


# Verb -> a call of it that answers with the lane; `model` is a model, `prompts` of random tokens.
VERBS = {
    "sweep": lambda model, prompts: ik.sweep(model, prompts, edit=Zero(), metric=weighed),
    "ablate": lambda model, prompts: ik.ablate(model, prompts, HEADS, edit=Zero(), metric=weighed),
    "ablation_curve": lambda model, prompts: ik.ablation_curve(
        model, prompts, HEADS, ks=[1, 2], controls=1, control="any layer", edit=Zero(), metric=weighed
    ),
    "knock_out": lambda model, prompts: ik.knock_out(model, prompts, no_neighbours(prompts), metric=weighed),
    "patch": lambda model, prompts: ik.patch(
        model, source=other(model, prompts), into=prompts, site="z", by=("layer", "head"), metric=weighed
    ),
    "path_patch": lambda model, prompts: ik.path_patch(
        model, source=other(model, prompts), into=prompts, receivers=["L1H0"], site="q", metric=weighed
    ),
    "function_vector_effect": lambda model, _: ik.fewshot.function_vector_effect(
        model, random_shots(n=2), random_shots(n=2)
    ),
    "label_knock_out": lambda model, _: ik.fewshot.label_knock_out(model, random_shots(n=2), HEADS, draws=0),
    "reweighted": lambda model, _: ik.fewshot.reweighted(model, random_shots(n=2), np.ones((2, 4, 3))),
    "fit_label_weights": lambda model, _: ik.fewshot.fit_label_weights(model, random_shots(n=2), steps=1),
}  # fmt: skip


def other(model, prompts):
    return tokens_for(model, prompts.lengths.tolist(), seed=5)


def no_neighbours(prompts):
    return torch.eye(prompts.tokens.shape[1], dtype=torch.bool).roll(-1, 1).tril(-1)


@models(BRIDGE)
def test_every_verb_takes_whole_runs_and_says_why(planted, name, kind):
    model = model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    for verb, call in VERBS.items():
        attrs = call(model, prompts).attrs
        assert attrs["lane"] == "model", verb
        assert "own blocks) is not used: its check raised RuntimeError: planted." in attrs["lane_reason"], (
            verb
        )
        why = "its check raised" if trust.supports(model) else "it is made for HookedTransformers"
        assert f"parameters) is not used: {why}" in attrs["lane_reason"], verb


@models(GPT2)
@pytest.mark.parametrize("hold", [None, "patterns"])
def test_sweeps_are_the_naive_loop(planted, name, kind, hold):
    model = model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    asked = [("Zero", "z", ("layer", "head")), ("FromRun", "resid_pre", ("layer", "position"))]
    if hold is None:
        asked += [("KnockOut", "pattern", ("layer", "head")), ("Scale", "q", ())]
    for edit, site, by in asked:
        made, drawn = edit_for(edit, model, prompts, site)
        found = compared(
            model, prompts, edit=made, site=site, by=by, hold=hold, metric=NARROW, drawn=drawn,
            close=CLOSE,
        )  # fmt: skip
        assert found.attrs["lane"] == "model"


@models(ATTENTION)
def test_heads_removed_together_are_the_naive_loop(planted, name, kind):
    model = model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])

    def naively(heads):
        options = {"edit": Zero(), "site": "z", "by": (), "metric_function": weighed}
        return naive.sweep(model, prompts, heads=[(head.layer, head.head) for head in heads], **options)[0]

    heads = ik.heads.as_heads(HEADS)
    found = VERBS["ablate"](model, prompts)
    np.testing.assert_allclose(found["value"], naively(heads), atol=close_of(kind))
    curve = VERBS["ablation_curve"](model, prompts)
    for index, k in enumerate((1, 2)):
        np.testing.assert_allclose(curve["value"][:, index], naively(heads[:k]), atol=close_of(kind))


@models(GPT2)
def test_knock_out_and_patch_are_the_naive_loop(planted, name, kind):
    model = model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    for verb, site, edit in (
        ("knock_out", "pattern", KnockOut(no_neighbours(prompts))),
        ("patch", "z", FromRun(other(model, prompts))),
    ):
        found = VERBS[verb](model, prompts)
        value, _ = naive.sweep(
            model, prompts, edit=edit, site=site, by=("layer", "head"), metric_function=weighed
        )
        np.testing.assert_allclose(found["value"], value, atol=close_of(kind), err_msg=verb)


@sites(SITES)
def test_path_patching_is_what_plain_hooks_give(planted, name, kind, site):
    receivers = {1: None if site in ("mlp_out", "resid_post") else [0, 1] if site == "q" else [0]}
    found = paths_by_hooks.compared(name, kind, site, receivers, close=None if kind == "hooked" else 1e-5)
    assert found.attrs["lane"] == "model"


@sites(ROWS)
def test_attribution_by_rows_is_what_blocks_give_and_is_verified_by_whole_runs(
    forgotten, request, name, kind, site
):
    """Without the lane: the same estimates as with it, which `test_attribution` holds against slopes."""
    model = model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    edit = KnockOut(no_neighbours(prompts)) if site == "pattern" else FromRun(other(model, prompts))
    options = {"edit": edit, "site": site, "by": ("layer", "head", "position"), "metric": weighed}
    with_blocks = ik.attribution(model, prompts, **options)
    request.getfixturevalue("planted")
    found = ik.attribution(model, prompts, verify=3, **options)
    loose = close_of(kind)
    np.testing.assert_allclose(found["estimate"], with_blocks["estimate"], atol=loose)
    assert float(abs(found["estimate"]).max()) > 1e-3
    assert found.attrs["verified_by"] == "model"
    assert "own blocks) is not used: its check raised RuntimeError: planted." in found.attrs["lane_reason"]
    value, baseline = naive.sweep(
        model, prompts, edit=edit, site=site, by=options["by"], metric_function=weighed
    )
    effect = np.nanmean(value - baseline[:, None, None, None], 0)
    for cell, exact in zip(found["cell"].values, found["exact"].values, strict=True):
        head, _, position = str(cell).partition(" pos ")
        layer, of_layer = ik.heads.as_heads([head])[0]
        assert exact == pytest.approx(effect[layer, of_layer, int(position)], abs=loose)


@pytest.mark.parametrize("site", ["q", "k"])
def test_attribution_by_whole_runs_is_the_slope(planted, site):
    check_slope("GPT-2", FASTEST["GPT-2"], site, BY_HEAD)


@models(BRIDGE)
def test_label_knock_out_is_what_plain_hooks_give(planted, name, kind):
    check_label_knock_out(name, kind, "b c")


@models(GPT2)
def test_reweighting_is_what_plain_hooks_give(planted, name, kind):
    check_reweighting(name, kind)


@models(ATTENTION)
def test_the_gradient_of_reweighting_is_that_of_the_loss(planted, name, kind):
    check_gradient_of_reweighting(name, kind)


@models(ATTENTION)
def test_function_vectors_are_what_plain_hooks_give(planted, name, kind):
    check_function_vectors(name, kind)


@models(BRIDGE)
def test_what_takes_no_lane_is_as_it_was(forgotten, request, name, kind):
    """Label flow, direct effects, weights of demonstrations, and fits of few steps beside those with a lane."""
    model, shots = model_of(name, kind), random_shots(n=3)

    def numbers():
        yield "flow", ik.fewshot.label_flow(model, shots)
        yield "direct", ik.direct_effect(model, ik.repeated_tokens(model, bos=0, prompts=2, period=6))
        yield "weights", ik.scorers.demonstration_weights(model, shots)
        yield "fit", ik.fewshot.fit_label_weights(model, shots, steps=3, batch_size=2)

    before = dict(numbers())
    request.getfixturevalue("planted")
    for key, found in numbers():
        xr.testing.assert_allclose(found, before[key], rtol=0, atol=close_of(kind) * 100)


@hooked_only
def test_scores_of_long_prompts_are_read_off_patterns_and_say_why(forgotten, request, monkeypatch, caplog):
    monkeypatch.setattr(reading, "LONG", 4)
    model = model_of("GPT-2", "hooked")
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=6)
    by_rows = ik.induction(model, prompts)
    assert (by_rows.attrs["lane"], by_rows.attrs["lane_reason"]) == ("entries", "")
    request.getfixturevalue("planted")
    with caplog.at_level(logging.INFO, "induction_kernel"):
        found = ik.induction(model, prompts)
    assert found.attrs["lane"] == "patterns"
    why = 'The lane "entries" (only the rows of attention that are read) is not used: '
    assert found.attrs["lane_reason"] == f"{why}its check raised RuntimeError: planted."
    assert found.attrs["lane_reason"] in caplog.text
    np.testing.assert_allclose(found["score"], by_rows["score"], atol=1e-12)


@hooked_only
def test_a_lane_that_is_wrong_is_named_with_its_numbers_and_the_next_is_taken(forgotten, monkeypatch):
    right = Decoder.step

    def wrong(*given, **options):
        rows = right(*given, **options)
        return rows.with_flat(1.01 * rows.flat)

    monkeypatch.setattr(Decoder, "step", wrong)
    model = model_of("GPT-2", "hooked")
    prompts = tokens_for(model, [4, 6, 3])
    found = compared(
        model, prompts, edit=ik.Scale(0.5), site="q", by=("layer", "head"), hold=None, metric=NARROW,
        close=CLOSE,
    )  # fmt: skip
    assert found.attrs["lane"] == "blocks"
    assert found.attrs["lane_reason"].startswith('The lane "decoder" (layers computed')
    assert "is not used: the last residual stream with q edited in layer 0" in found.attrs["lane_reason"]
    assert "from whole runs" in found.attrs["lane_reason"]


@hooked_only
def test_a_lane_that_is_wrong_on_longer_prompts_alone_is_not_used(forgotten, monkeypatch):
    """Neither on them nor, because the blocks are checked too, is the next one unless it is right."""
    for lane in (Decoder, Blocks):

        def late(self, model, tokens, lengths, right=lane.__init__):
            right(self, model, tokens, lengths)
            self.final = self.final + 0.01 * (tokens.shape[1] > 7)

        monkeypatch.setattr(lane, "__init__", late)
    model = model_of("GPT-2", "hooked")
    short, long = tokens_for(model, [4, 6, 3]), tokens_for(model, [4, 9, 3])
    assert ik.sweep(model, short, edit=Zero(), metric=weighed).attrs["lane"] == "decoder"
    found = compared(
        model, long, edit=Zero(), site="z", by=("layer", "head"), hold=None, metric=NARROW,
        close=CLOSE,
    )  # fmt: skip
    assert found.attrs["lane"] == "model"
    for each in ("parameters", "own blocks"):
        assert (
            f"{each}) is not used: the last residual stream of the untouched run of 9 tokens"
            in found.attrs["lane_reason"]
        )
    curve = ik.path_patch(
        model, source=other(model, long), into=long, receivers=["L1H0"], site="q", metric=answer
    )
    assert curve.attrs["lane"] == "model"


def test_blocks_that_cannot_be_widened_give_whole_runs(forgotten, monkeypatch):
    """Found out for each number of prompts in a batch."""
    right = Blocks._block

    def narrow(self, layer, rows, hooks):
        if len(rows) > 1 and self.n_prompts == 3:
            raise RuntimeError("this block does not take 3 prompts twice")
        return right(self, layer, rows, hooks)

    monkeypatch.setattr(Blocks, "_block", narrow)
    model = model_of("Llama", "bridge")
    found = ik.sweep(model, tokens_for(model, [5, 5, 5]), edit=Zero(), metric=weighed)
    assert found.attrs["lane"] == "model"
    assert (
        "own blocks) is not used: its check raised RuntimeError: this block does not take 3 prompts twice"
        in found.attrs["lane_reason"]
    )
    assert ik.sweep(model, tokens_for(model, [5, 5]), edit=Zero(), metric=weighed).attrs["lane"] == "blocks"


def test_a_refusal_is_logged_once_a_model_and_reason(planted, caplog):
    model = fresh_of("Llama", "bridge")
    prompts = tokens_for(model, [4, 6, 3])
    with caplog.at_level(logging.INFO, "induction_kernel"):
        for _ in range(2):
            VERBS["sweep"](model, prompts)
            VERBS["path_patch"](model, prompts)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["INFO", "WARNING"]
    assert "parameters) is not used: it is made for HookedTransformers" in said[0][1]
    assert "own blocks) is not used: its check raised RuntimeError: planted." in said[1][1]


def test_hooks_of_the_user_are_the_reason_where_they_stand(forgotten):
    model = fresh_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [4, 6, 3])
    model.add_hook("blocks.0.attn.hook_z", lambda z, hook: 0.5 * z)
    for verb in ("sweep", "path_patch", "reweighted"):
        attrs = VERBS[verb](model, prompts).attrs
        assert attrs["lane"] == "model", verb
        assert attrs["lane_reason"].startswith("No faster lane is used: there are hooks on blocks.0."), verb


@hooked_only
def test_the_fastest_lane_has_no_reason():
    model = model_of("GPT-2", "hooked")
    attrs = VERBS["sweep"](model, tokens_for(model, [4, 6, 3])).attrs
    assert (attrs["lane"], attrs["lane_reason"]) == ("decoder", "")
