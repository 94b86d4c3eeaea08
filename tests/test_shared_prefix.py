"""Few-shot prompts with the same demonstrations: these are run once, and every number stays the same."""

import logging

import numpy as np
import pytest
import torch
import xarray as xr
from zoo import FASTEST, fresh_of, model_of

import induction_kernel as ik
from induction_kernel.fewshot import _batches as batching
from induction_kernel.fewshot import _predictions as predicting
from induction_kernel.fewshot import _study as study
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.model import stream
from induction_kernel.prompts import FewShotPrompts, concat
from induction_kernel.prompts._demonstrations import Demonstrations
from induction_kernel.replay import _shared_prefix as prefix
from induction_kernel.stats._shares import mean_share_interval, split_interval

KINDS = ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"]
SITES = ("resid_pre", "v", "pattern", "z", "resid_post")
LENGTHS = torch.tensor([29, 27, 25, 28, 22])


def alike(n=5, shared=20, own=9, seed=0):
    """Tokens of n prompts that begin with the same `shared` tokens."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 50, (1, shared), generator=generator).expand(n, -1)
    return torch.cat([first, torch.randint(0, 50, (n, own), generator=generator)], 1)


def read_by(way, model, tokens, lengths=LENGTHS):
    """What a way reads: (site, layer) -> activation, and the logits."""
    seen = {}
    sites = {site: set(range(model.cfg.n_layers)) for site in SITES}
    logits = way(
        model,
        tokens,
        lambda *place, **_: seen.update({place[:2]: place[2]}),
        sites,
        lengths=lengths,
        at=lengths - 1,
    )
    return seen | {"logits": logits}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["GPT-2", "GPT-J", "GPT-NeoX", "Llama", "MQA"])
def test_shared_tokens_are_run_once_and_every_activation_is_that_of_whole_runs(name, kind):
    model, tokens = model_of(name, kind), alike()
    assert prefix.why_not_shared(model, tokens, LENGTHS, SITES) == ""
    run, positions = model.blocks[0].register_forward_hook, []
    whole = read_by(stream, model, tokens)
    handle = run(
        lambda module, given, out: positions.append((out[0] if isinstance(out, tuple) else out).shape[:2])
    )
    try:
        shared = read_by(prefix.shared_stream, model, tokens)
    finally:
        handle.remove()
    assert positions == [(1, 20), (5, 9)]
    assert whole.keys() == shared.keys()
    for place, activation in whole.items():
        torch.testing.assert_close(shared[place], activation, atol=1e-12, rtol=1e-12)


def test_prompts_that_share_nothing_or_only_one_token_of_their_own():
    model = model_of("GPT-2", KINDS[-1])
    for tokens in (alike(shared=0, own=29), alike(n=1), alike(shared=28, own=1)):
        lengths = torch.full((len(tokens),), 29)
        whole, shared = (read_by(way, model, tokens, lengths) for way in (stream, prefix.shared_stream))
        torch.testing.assert_close(shared["logits"], whole["logits"], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(shared["pattern", 1], whole["pattern", 1], atol=1e-12, rtol=1e-12)


def test_a_cache_that_is_wrong_is_not_used(monkeypatch, caplog):
    """Were the positions counted from the start again, the check would say so."""
    model = fresh_of("GPT-2", KINDS[-1])
    monkeypatch.setattr(prefix._Cache, "arguments", lambda self, tokens: {})
    with caplog.at_level(logging.WARNING):
        why = prefix.why_not_shared(model, alike(), LENGTHS, ["pattern"])
    assert 'The lane "prefix"' in why
    assert why in caplog.text


def test_why_the_demonstrations_are_not_shared(monkeypatch):
    tokens = alike()
    assert "keep no keys and values" in prefix.why_not_shared(
        model_of("GPT-2", "native"), tokens, LENGTHS, []
    )
    model = fresh_of("GPT-2", KINDS[-1])
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z * 2)]):
        assert "there are hooks on blocks.0" in prefix.why_not_shared(model, tokens, LENGTHS, [])
    monkeypatch.setattr(prefix, "is_causal", lambda model: False)
    assert "attends to later tokens" in prefix.why_not_shared(model, tokens, LENGTHS, [])


def test_the_check_is_made_once_for_prompts_up_to_a_length(monkeypatch):
    model, made, differ = fresh_of("GPT-2", KINDS[-1]), [], prefix._differ
    monkeypatch.setattr(prefix, "_differ", lambda *given: (made.append(given[1].shape), differ(*given))[1])
    for tokens, lengths in ((alike(), LENGTHS), (alike(seed=1), LENGTHS), (alike(own=10), LENGTHS + 1)):
        assert prefix.why_not_shared(model, tokens, lengths, ["z"]) == ""
    assert made == [(2, 29), (2, 30)]
    assert prefix.why_not_shared(model, alike(), LENGTHS, ["v"]) == ""
    assert made[2:] == [(2, 29)]


def few_shot(tokens, lengths, spans, classes=(0, 1, 0, 1)):
    """Prompts of random tokens with demonstrations at these positions."""
    n, width = len(tokens), len(spans)
    spans = torch.tensor(spans).expand(n, -1, -1)
    found = Demonstrations(
        spans=spans, label_positions=spans[..., 1] - 1, classes=torch.tensor(classes[:width]).expand(n, -1),
        mask=torch.ones(n, width, dtype=torch.bool), label_ids=torch.tensor([7, 9]),
        target=torch.arange(n) % 2, labels=("no", "yes"), inputs=spans - torch.tensor([0, 1]),
    )  # fmt: skip
    scored = torch.arange(tokens.shape[1]) == lengths[:, None] - 1
    return FewShotPrompts(tokens, lengths, scored, demonstrations=found)


@pytest.fixture(scope="module")
def prompts():
    """Two sets of five prompts with the same demonstrations each, and two prompts of their own, mixed."""
    spans = [(1, 5), (6, 10), (10, 14), (15, 19)]
    parts = [few_shot(alike(seed=seed), LENGTHS, spans) for seed in (0, 1)]
    parts += [few_shot(alike(n=1, seed=seed), LENGTHS[:1], spans) for seed in (2, 3)]
    return concat(parts)[torch.randperm(12, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["GPT-2", "GPT-J", "Llama"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_predictions_are_those_of_whole_runs(name, kind, batch_size, prompts, monkeypatch):
    model = model_of(name, kind)
    options = {"pooling": ("max", "label"), "batch_size": batch_size, "progress": False}
    found = ik.fewshot.predict(model, prompts, **options)
    assert (found.attrs["lane"], found.attrs["lane_reason"]) == ("prefix", "")
    monkeypatch.setattr(batching, "SHARERS", 100)
    whole = ik.fewshot.predict(model, prompts, **options)
    assert whole.attrs["lane"] == "model"
    assert "no 100 prompts to run have the same demonstrations" in whole.attrs["lane_reason"]
    atol = (
        1e-6 if (name, kind) == ("GPT-J", "bridge") else 1e-12
    )  # its attention is in float32, whatever the weights
    for key in ("log_probability", "weight"):
        np.testing.assert_allclose(found[key], whole[key], atol=atol, rtol=0)


def test_observers_see_whole_prompts(prompts, monkeypatch):
    model = model_of("Llama", FASTEST["Llama"])
    ways = {"batch_size": None, "progress": False}
    found = study._in_one_pass(model, prompts, [""] * 12, "demonstration", ways)
    assert found[0].attrs["lane"] == "prefix"
    monkeypatch.setattr(batching, "SHARERS", 100)
    whole = study._in_one_pass(model, prompts, [""] * 12, "demonstration", ways)
    np.testing.assert_allclose(found[1]["attention"], whole[1]["attention"], atol=1e-12)
    np.testing.assert_allclose(found[2]["writes"], whole[2]["writes"], atol=1e-12)


def test_each_set_of_demonstrations_is_run_once(prompts, monkeypatch):
    model, plain, seen = model_of("GPT-2", KINDS[0]), predicting.evaluated, []

    def evaluated(model, batch, *how, shared):
        seen.append((len(batch), shared))
        return plain(model, batch, *how, shared=shared)

    monkeypatch.setattr(predicting, "evaluated", evaluated)
    ik.fewshot.predict(model, prompts)
    assert sorted(seen) == [(2, False), (5, True), (5, True)]


def test_a_set_is_cut_by_the_memory_of_its_own_tokens():
    """What is shared is in memory once, so that more prompts fit one batch than of whole prompts."""
    model = model_of("GPT-2", KINDS[0])
    fitting = 2**24 // (20 * 8 * model.cfg.d_model)
    n = fitting + 1
    several = few_shot(alike(n, 15, 5), torch.full((n,), 20), [(1, 5), (6, 15)])
    whole, shared = (
        [len(at) for at, _ in batching.in_batches(model, several, [(np.arange(n), are_alike)], None)]
        for are_alike in (False, True)
    )
    assert whole == [fitting, 1]
    assert shared == [n]


def test_results_are_over_sets_of_demonstrations(prompts):
    model = model_of("GPT-2", KINDS[0])
    found = ik.fewshot.predict(model, prompts, pooling="max")
    np.testing.assert_array_equal(found["set"], prompts.sets())
    assert found.attrs["interval"] == "Wilson over sets, 95%"
    correct, sets = found["correct"].values, found["set"].values
    wanted = mean_share_interval(correct, sets=sets)
    np.testing.assert_allclose([found["accuracy_low"], found["accuracy_high"]], wanted)
    voted = ik.kernel.vote(found, prompts, found)
    wanted = mean_share_interval(voted["agreement"].values, sets=sets)
    np.testing.assert_allclose([voted["low"], voted["high"]], wanted)
    separate = ik.scorers.demonstration_weights(model, prompts)
    np.testing.assert_array_equal(separate["set"], found["set"])
    alone = prompts[[int((sets == one).argmax()) for one in range(4)]]
    assert "set" not in ik.fewshot.predict(model, alone).coords
    one = prompts[torch.as_tensor(sets == np.bincount(sets).argmax())]
    given_it = ik.fewshot.predict(model, one, pooling="max")
    assert (given_it["set"] == 0).all()
    assert given_it.attrs["interval"] == "Wilson, 95%"
    np.testing.assert_allclose(
        [given_it["accuracy_low"], given_it["accuracy_high"]], mean_share_interval(given_it["correct"])
    )
    voted = ik.kernel.vote(given_it, one, given_it)
    np.testing.assert_allclose([voted["low"], voted["high"]], mean_share_interval(voted["agreement"]))


def test_heads_are_chosen_on_some_sets_and_scored_on_others(prompts):
    """The sets have 5, 5, 1 and 1 prompts; half of the sets are two of them."""
    model = model_of("GPT-2", KINDS[0])
    found = ik.fewshot.predict(model, prompts, pooling="max")
    scores = ik.kernel.held_out(found, found, share=0.5, splits=20)
    assert (scores.attrs["n_choose"] + scores.attrs["n_score"]) == 12
    assert scores.attrs["n_choose"] in (2, 6, 10)
    assert (
        ik.kernel.held_out(found, found).attrs["n_choose"] == 8
    )  # .7 of four sets leave one: prompts are split


def test_intervals_of_held_out_scores_count_sets_where_sets_are_split():
    sets, predicted = np.repeat(np.arange(5), 8), np.tile([0, 1], 20)
    weight = np.where(np.array([0, 0, 1, 1]) == predicted[:, None], 0.4, 0.1)[:, None, None]
    weights = xr.Dataset(
        {"weight": (("prompt", "layer", "head", "demonstration"), weight)},
        {
            "label_class": (("prompt", "demonstration"), np.tile([0, 0, 1, 1], (40, 1))),
            "target": ("prompt", predicted),
            "layer": [0],
            "head": [0],
        },
    )
    for coords, n in (({"set": ("prompt", sets)}, 5), ({}, 40)):
        best = ik.kernel.held_out(weights.assign_coords(coords), predicted, share=0.6).sel(row="best head")
        for key in ("agreement", "accuracy"):
            np.testing.assert_allclose(
                [best[f"{key}_low"], best[f"{key}_high"]], split_interval(np.ones(50), 0.6 * n, 0.4 * n)
            )
