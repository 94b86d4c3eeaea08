"""Bridges in the fast lane: equal to whole runs at every site, whatever the family, the dtype and the processing."""

from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from quick import one_in
from whole_runs import BYS, CLOSE, NARROW, SITES, compared, edit_for, legal, tokens_for, weighed
from zoo import fresh_of, model_of

import induction_kernel as ik
from induction_kernel.interventions import _lanes
from induction_kernel.replay import _layers
from induction_kernel.replay._decoder import Decoder

EXACT = [
    ("GPT-2", "bridge"),
    ("GPT-NeoX", "bridge"),
    ("GPT-2", "native"),
    ("Llama", "native"),
    ("attention-only", "native"),
]
ROUNDED = [("GPT-J", "bridge"), ("Llama", "bridge"), ("MQA", "bridge"), ("Qwen2", "bridge")]
OTHERS = [("Phi", "bridge"), ("Mistral", "bridge"), ("GPT-Neo", "bridge")]


@pytest.fixture
def in_float64(monkeypatch):
    """Bridges whose attention is in float32 take the fast lane in float64 too, to compare more digits."""
    monkeypatch.setattr(_layers, "_BRIDGES", dict.fromkeys(_layers._BRIDGES, False))
    monkeypatch.setattr(_lanes, "_REASONS", WeakKeyDictionary())
    monkeypatch.setattr(_lanes, "_PASSED", set())


def lane_of(model):
    return ik.sweep(model, tokens_for(model, [9, 7]), edit=ik.Zero(), metric=weighed, progress=False).attrs[
        "lane"
    ]


@pytest.mark.parametrize(
    ("name", "kind", "dtype"), one_in(2, EXACT + ROUNDED, [torch.float64, torch.float32, torch.bfloat16])
)
def test_the_fast_lane_is_taken_where_it_rounds_as_the_model_does(name, kind, dtype):
    rounds = (name, kind) in ROUNDED and dtype == torch.float64
    assert lane_of(fresh_of(name, kind, dtype=dtype)) == ("blocks" if rounds else "decoder")


@pytest.mark.parametrize(("name", "kind"), OTHERS)
def test_other_families_run_in_their_own_blocks(name, kind):
    assert lane_of(fresh_of(name, kind, dtype=torch.float32)) == "blocks"


ROWS = [
    (*model, site, edit, hold)
    for model in EXACT + ROUNDED
    for site in SITES
    for edit in ("Zero", "FromRun", "KnockOut", "Mean")
    for hold in (None, "patterns")
    if legal(model[0].replace("Qwen2", "Llama"), edit, site, ("layer",), hold)
]


@pytest.mark.parametrize(("name", "kind", "site", "edit", "hold"), one_in(19, ROWS))
def test_equals_one_whole_run_a_cell(in_float64, name, kind, site, edit, hold):
    model = model_of(name, kind)
    lengths = (
        [9, 9, 9] if (site, edit) == ("pattern", "Mean") else [6, 9, 7]
    )  # a mean of patterns is by position
    prompts = tokens_for(model, lengths)
    made, drawn = edit_for(edit, model, prompts, site)
    close = CLOSE if (name, kind) in EXACT else 2e-5
    for turn, by in enumerate(each for each in BYS if legal(name, edit, site, each, hold)):
        found = compared(
            model, prompts, edit=made, site=site, by=by, hold=hold, metric=NARROW if turn % 2 else weighed,
            drawn=drawn, close=close,
        )  # fmt: skip
        assert found.attrs["lane"] == "decoder"


@pytest.mark.parametrize(("name", "kind"), ROUNDED)
def test_float32_is_as_near_to_float64_as_whole_runs_are(name, kind):
    """The same weights: the lane and the model itself, in float32, against the model in float64."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = fresh_of(name, kind, dtype=dtype)
        made = edit_for("FromRun", model, tokens_for(model, [6, 9]), "resid_pre")[0]
        found[dtype] = ik.sweep(
            model, tokens_for(model, [6, 9]), edit=made, site="resid_pre", by=("layer", "position"), metric=weighed,
            progress=False,
        )["value"]  # fmt: skip
    np.testing.assert_allclose(found[torch.float32], found[torch.float64], rtol=0, atol=2e-5)
    assert not found[torch.float32].equals(found[torch.float64])


@pytest.mark.parametrize(("name", "kind"), [("GPT-2", "bridge"), ("GPT-NeoX", "bridge")])
def test_processed_weights_take_the_fast_lane_too(name, kind):
    model = fresh_of(name, kind, dtype=torch.float32)
    model.enable_compatibility_mode(disable_warnings=True)
    prompts = tokens_for(model, [6, 9])
    for site in ("z", "q", "resid_pre", "mlp_out"):
        found = compared(
            model, prompts, edit=ik.Zero(), site=site, by=("layer",), hold=None, metric=NARROW, close=2e-5
        )
        assert found.attrs["lane"] == "decoder"


def test_only_weights_of_the_model_itself_are_kept():
    model = model_of("Llama", "bridge", torch.float32)
    lane = Decoder(model, tokens_for(model, [9]).tokens, None)
    assert lane.maps[0].w_o.untyped_storage().data_ptr() in {
        each.untyped_storage().data_ptr() for each in model.original_model.parameters()
    }
