"""Models that differ in their weights alone have one structure; odd code, settings, hooks or shapes have another."""

import types
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from passes import counted
from zoo import fresh, has_hooked_transformer

import induction_kernel as ik
from induction_kernel.interventions import _lanes as trust
from induction_kernel.model import _self_check as selfcheck
from induction_kernel.model import structure_of

KINDS = [False, True] if has_hooked_transformer() else [True]
kinds = pytest.mark.parametrize("bridge", KINDS, ids=lambda bridge: "bridge" if bridge else "hooked")


def attention_of(model):
    attention = model.blocks[0].attn
    return getattr(attention, "_original_component", attention)


def doubled(self, *args, **kwargs):
    found = type(self).forward(self, *args, **kwargs)
    return (2 * found[0], *found[1:]) if isinstance(found, tuple) else 2 * found


def twice(model):
    attention = attention_of(model)
    attention.forward = types.MethodType(doubled, attention)


def on_the_spot(model):
    attention = attention_of(model)
    right = attention.forward
    attention.forward = lambda *args, **kwargs: right(*args, **kwargs)


def of_another_class(model):
    attention = attention_of(model)
    attention.__class__ = type("Mine", (type(attention),), {"forward": doubled})


def scaled(model):
    model.cfg.attn_scale = 1.5


def with_a_hook(model):
    attention_of(model).register_forward_hook(lambda module, args, found: found)


def with_settings(model):
    attention_of(model).softcap = 30.0


def with_a_mask(model):
    attention_of(model).register_buffer("mask", torch.ones(3))


@kinds
def test_checkpoints_have_one_structure(bridge):
    models = [ik.load("tiny", checkpoint=step, bridge=bridge) for step in (800, 3200)]
    assert structure_of(models[0]) == structure_of(models[1]) is not None
    assert structure_of(ik.load("tiny", bridge=bridge)) == structure_of(models[0])


@kinds
def test_a_run_leaves_the_structure_of_a_model_that_has_run(bridge):
    model = fresh("GPT-2", bridge=bridge)
    ik.loss(model, torch.arange(8)[None])
    before = structure_of(model)
    ik.loss(model, torch.arange(9)[None])
    assert structure_of(model) == before is not None


@kinds
@pytest.mark.parametrize(
    "change",
    [twice, on_the_spot, of_another_class, scaled, with_a_hook, with_settings, with_a_mask],
    ids=lambda change: change.__name__,
)
def test_a_model_that_computes_otherwise_has_another_structure(change, bridge):
    model = fresh("GPT-2", bridge=bridge)
    before = structure_of(model)
    change(model)
    assert structure_of(model) != before is not None


@kinds
def test_code_that_was_made_on_the_spot_has_no_structure(bridge):
    for change in (on_the_spot, of_another_class):
        model = fresh("GPT-2", bridge=bridge)
        change(model)
        assert structure_of(model) is None


def test_what_a_library_puts_on_all_modules_is_of_none(monkeypatch):
    model = fresh("GPT-2", bridge=KINDS[0])
    before = structure_of(model)
    monkeypatch.setattr(torch.nn.Module, "apply_all", lambda module: before, raising=False)
    assert structure_of(model) == before is not None


@kinds
def test_dtype_and_sizes_are_of_the_structure(bridge):
    same = structure_of(fresh("GPT-2", bridge=bridge))
    assert structure_of(fresh("GPT-2", bridge=bridge, seed=1)) == same
    assert structure_of(fresh("GPT-2", bridge=bridge, dtype=torch.float32)) != same
    assert structure_of(fresh("GPT-2", bridge=bridge, n_heads=2, d_head=8)) != same


@pytest.fixture
def checked(monkeypatch):
    """Nothing is known of any model; which lanes are checked on which models is kept."""
    monkeypatch.setattr(trust, "_REASONS", WeakKeyDictionary())
    monkeypatch.setattr(trust, "_PASSED", set())
    asked, right = [], trust.differs

    def differs(model, *args):
        asked.append(model)
        return right(model, *args)

    monkeypatch.setattr(trust, "differs", differs)
    return asked


def swept(model):
    return ik.sweep(model, torch.arange(12).reshape(2, 6), edit=ik.Zero(), metric=ik.metrics.loss)


@kinds
def test_a_lane_is_checked_once_for_models_of_one_structure(bridge, checked):
    first, second = (fresh("GPT-2", bridge=bridge, seed=seed) for seed in range(2))
    for model in (first, second):
        ik.loss(model, torch.arange(8)[None])  # a Bridge puts hooks of its own at its first run
    found = [swept(model) for model in (first, second, second)]
    assert checked == [first]
    assert len({each.attrs["lane"] for each in found}) == 1
    assert found[0].attrs["lane"] != "model"
    again = fresh("GPT-2", bridge=bridge, seed=1)
    np.testing.assert_array_equal(swept(again)["value"], found[1]["value"])


@kinds
def test_the_structure_is_told_once_in_a_call(bridge, checked, monkeypatch):
    told, right = [], trust.structure_of
    monkeypatch.setattr(trust, "structure_of", lambda model: told.append(model) or right(model))
    model = fresh("GPT-2", bridge=bridge)
    ik.loss(model, torch.arange(8)[None])
    swept(model)
    assert told == checked == [model]


@kinds
def test_a_model_of_other_code_is_checked_itself(bridge, checked):
    """And its numbers are those of its own whole runs."""
    plain, odd = fresh("GPT-2", bridge=bridge), fresh("GPT-2", bridge=bridge)
    twice(odd)
    swept(plain)
    found = swept(odd)
    assert odd in checked
    with ik.edited(odd, ik.Zero(), heads=["L1H2"]):
        twin = ik.metrics.loss(odd, torch.arange(12).reshape(2, 6))["value"]
    np.testing.assert_allclose(found["value"].sel(layer=1, head=2), twin, atol=1e-9)


@kinds
def test_a_check_that_failed_is_made_again_on_other_weights(bridge, checked):
    broken, sound = fresh("GPT-2", bridge=bridge), fresh("GPT-2", bridge=bridge)
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(torch.nan)
    for model in (broken, sound):
        chosen, prompts = (
            trust.Chosen("blocks", "", trust.Blocks),
            ik.as_prompts(model, torch.arange(6)[None]),
        )
        why = trust.tried(partial(trust._differs_here, model, chosen, prompts, []))
        assert bool(why) == (model is broken)


PASSES, FORWARD = [], {}


def noted(self, tokens, *args, **kwargs):
    """A forward pass that is counted; a closure would leave the model without a structure."""
    PASSES.append(len(tokens))
    return FORWARD[type(self)](self, tokens, *args, **kwargs)


@kinds
def test_the_passes_of_a_first_call(bridge, checked, monkeypatch):
    """Two of the self check, two or three of the lane's, two of the call; a model of the same structure has few."""
    first, again = (fresh("GPT-2", bridge=bridge, seed=seed) for seed in range(2))
    monkeypatch.setattr(selfcheck, "_ACTS", set())
    monkeypatch.setitem(FORWARD, type(first), type(first).forward)
    monkeypatch.setattr(type(first), "forward", noted)
    counts = []
    for model in (first, first, again):
        PASSES.clear()
        swept(model)
        counts.append(len(PASSES))
    assert counts == [6, 1, 2]


@kinds
@pytest.mark.parametrize("metric", [ik.logit_difference, ik.loss, lambda logits, _: logits[:, -1, 0]])
def test_a_patch_measures_the_source_in_the_run_it_takes_from(bridge, metric):
    model = fresh("GPT-2", bridge=bridge)
    clean, corrupted = torch.arange(12).reshape(2, 6), torch.arange(1, 13).reshape(2, 6)
    into = ik.prompts.with_answers(model, corrupted, [[1, 2], [3, 4]])
    options = {"source": clean, "into": into, "metric": metric, "by": ("layer",)}
    found = ik.patch(model, **options)
    with counted(model) as seen:
        ik.patch(model, **options)
    assert len([batch for batch in seen if batch == tuple(map(tuple, clean.tolist()))]) == 1
    all_of_it = ik.sweep(
        model, into, edit=ik.FromRun(clean), site="resid_pre", by=("layer",), layers=[0], metric=metric
    )
    np.testing.assert_allclose(found["source_value"], all_of_it["value"][:, 0], atol=1e-9)
