"""Path patching equals its slow twin by plain hooks, and shows on paper's model what talks to what."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_model import ARCHITECTURE, hand_weights
from model_state import state_of
from paths_by_hooks import compared, naive_values
from quick import one_in
from whole_runs import tokens_for, weighed
from zoo import FASTEST, PAIRS, fresh_of, model_of

import induction_kernel as ik
from induction_kernel.interventions._edits_from_runs import FromRun
from induction_kernel.interventions._paths import path_patch
from induction_kernel.loading import build

SITES = ("q", "k", "v", "mlp_out", "resid_post")


GRID = [
    (name, kind, site)
    for name, kind in PAIRS
    for site in SITES
    if not (site == "mlp_out" and name == "attention-only")
]


FAST = [row for turn, row in enumerate(GRID) if turn % 5 == 0 or row[:2] == PAIRS[0]]


@pytest.mark.parametrize(
    ("name", "kind", "site"),
    [pytest.param(*row, marks=[] if row in FAST else pytest.mark.slow) for row in GRID],
)
def test_equals_its_slow_twin(name, kind, site):
    heads = {"k": [0], "v": [0]}.get(site, [1, 2])
    compared(name, kind, site, {1: heads}, metric="narrow" if site in "kv" else weighed)


@pytest.mark.parametrize("most", [6, pytest.param(13, marks=pytest.mark.slow)])
@pytest.mark.parametrize("site", SITES)
def test_in_small_batches(site, most):
    compared("GPT-2", FASTEST["GPT-2"], site, {1: [1, 3]}, max_tokens=most)


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_receivers_of_several_layers(site):
    compared("GPT-2", FASTEST["GPT-2"], site, {0: [2], 1: [1, 3]})


def test_mlps_of_several_layers():
    for name in ("GPT-2", "GPT-J"):
        compared(name, FASTEST[name], "mlp_out", {0: None, 1: None})


def test_senders_restrict():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    source, into = tokens_for(model, [5, 5], seed=5), tokens_for(model, [5, 5])
    options = {"source": source, "into": into, "receivers": "L1H0 L1H2", "site": "k", "metric": weighed}
    whole = path_patch(model, **options)
    some = path_patch(model, senders=["L0H2", (0, 0)], **options)
    np.testing.assert_allclose(some["value"][:, 0, [0, 2]], whole["value"][:, 0, [0, 2]], rtol=0, atol=1e-12)
    assert np.isnan(some["value"].values[:, 0, [1, 3]]).all()
    assert np.isnan(whole["value"].values[:, 1]).all()
    assert some["name"].sel(layer=0, head=2).item() == "L0H2"
    wanted = {"method": "path_patch", "site": "k", "receivers": "L1H0 L1H2", "n_prompts": 2}
    assert wanted.items() <= some.attrs.items()
    assert all(isinstance(value, str | int | float) for value in some.attrs.values())


def test_the_paths_of_a_linear_model_add_up():
    """Without norms and with frozen patterns, by v and to the logits is all there is of a change by z."""
    model = model_of("attention-only", FASTEST["attention-only"])
    source, into = tokens_for(model, [5, 5], seed=5), tokens_for(model, [5, 5])
    everything = path_patch(model, source=source, into=into, metric=weighed)
    last = ik.sweep(model, into, edit=FromRun(source), metric=weighed, progress=False)
    # a head of the last layer has no other path than the direct one
    np.testing.assert_allclose(everything["value"][:, 1], last["value"][:, 1], rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def test_the_previous_token_head_talks_to_the_induction_head_by_its_keys(by_hand):
    """Issue, Must show 4: L0H0 writes the token before into a block that L1H0's keys alone read."""
    into = ik.repeated_tokens(by_hand, bos=0, prompts=8, period=6)
    source = replace(into, tokens=into.tokens.roll(1, 0))
    options = {"source": source, "into": into, "metric": ik.repeat_loss}
    whole = ik.sweep(by_hand, into, edit=FromRun(source), heads="L0H0", progress=False)["effect"]
    assert float(whole[:, 0, 0].mean()) > 1  # every path of it, in nats
    by = {site: path_patch(by_hand, receivers="L1H0", site=site, **options) for site in "qkv"}
    np.testing.assert_allclose(by["k"]["effect"][:, 0, 0], whole[:, 0, 0], rtol=0, atol=1e-5)
    for site in "qv":
        np.testing.assert_allclose(by[site]["effect"][:, 0], 0, atol=1e-5)
    np.testing.assert_allclose(by["k"]["effect"][:, 0, 1:], 0, atol=1e-5)  # the other heads say nothing to it
    direct = path_patch(by_hand, **options)
    np.testing.assert_allclose(direct["effect"][:, 0], 0, atol=1e-5)  # nor anything to the logits
    for head in ("L1H1", "L1H2"):
        deaf = path_patch(by_hand, receivers=head, site="k", **options)
        np.testing.assert_allclose(deaf["effect"][:, 0], 0, atol=1e-5)


def test_source_is_measured_as_what_it_goes_into(by_hand):
    """With all of the run taken from source, normalised is 1: its logits, the answers of the other."""
    into = ik.repeated_tokens(by_hand, bos=0, prompts=8, period=6)
    source = replace(into, tokens=into.tokens.roll(1, 0))
    found = path_patch(by_hand, source=source, into=into, receivers="L1H0", site="k", metric=ik.repeat_loss)
    everything = ik.sweep(
        by_hand, into, edit=FromRun(source), site="resid_pre", by=("layer",), layers=[0], progress=False
    )
    np.testing.assert_allclose(found["source_value"], everything["value"][:, 0], rtol=0, atol=1e-5)
    gap = float((found["source_value"] - found["baseline"]).mean())
    assert float(found["normalised"][0, 0]) == pytest.approx(float(found["effect"][:, 0, 0].mean()) / gap)


def test_runs_that_do_not_differ_have_no_share():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    into = tokens_for(model, [5, 5])
    with pytest.warns(UserWarning, match="hardly differ"):
        found = path_patch(model, source=into, into=into, metric=weighed)
    np.testing.assert_allclose(found["effect"], 0, atol=1e-12)
    assert np.isnan(found["normalised"]).all()


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[0] in ("GPT-2", "GPT-J")])
def test_a_hook_of_the_user_stays_in_force(name, kind):
    model = fresh_of(name, kind)
    source, into = tokens_for(model, [5, 5], seed=5), tokens_for(model, [5, 5])
    plain = path_patch(model, source=source, into=into, receivers="L1H1", site="q", metric=weighed)

    def halved(activation, hook):
        return activation * 0.5

    model.add_hook("blocks.0.attn.hook_v", halved)
    before = state_of(model)
    found = path_patch(model, source=source, into=into, receivers="L1H1", site="q", metric=weighed)
    assert found.attrs["lane"] == "model"
    assert float(abs(found["baseline"] - plain["baseline"]).max()) > 1e-3
    twins = naive_values(model, into, source, [(0, head) for head in range(4)], {1: [1]}, "q", weighed)
    for head, twin in enumerate(twins):
        np.testing.assert_allclose(found["value"][:, 0, head], twin, rtol=0, atol=1e-6)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("name", "kind", "raised"),
    one_in(
        2,
        [pair for pair in PAIRS if pair[0] in ("GPT-2", "Llama")],
        [None, ZeroDivisionError, KeyboardInterrupt],
    ),
)
def test_the_model_is_left_as_it_was(name, kind, raised):
    model = fresh_of(name, kind)
    model.train()
    next(model.parameters()).requires_grad_(False)
    source, into = tokens_for(model, [5, 5], seed=5), tokens_for(model, [5, 5])
    with torch.no_grad():
        model(into.tokens)  # at its first call a Bridge wires hooks of its own
    before, calls = state_of(model), []

    def metric(logits, given):
        calls.append(1)
        if raised is not None and len(calls) == 3:
            raise raised
        return weighed(logits, given)

    options = {"source": source, "into": into, "receivers": "L1H1", "site": "k", "metric": metric}
    if raised is None:
        path_patch(model, **options)
    else:
        with pytest.raises(raised):
            path_patch(model, **options)
    assert state_of(model) == before


def test_float32():
    for name, kind in PAIRS:
        if name in ("GPT-2", "MQA"):
            model = model_of(name, kind, torch.float32)
            source, into = tokens_for(model, [4, 6, 3], seed=5), tokens_for(model, [4, 6, 3])
            found = path_patch(
                model, source=source, into=into, receivers="L1H0", site="v", metric=weighed, progress=False
            )
            (twin,) = naive_values(model, into, source, [(0, 2)], {1: [0]}, "v", weighed)
            np.testing.assert_allclose(found["value"][:, 0, 2], twin, rtol=0, atol=1e-5)


UNFIT = {
    "no receivers": ({"receivers": []}, "got none"),
    "receivers left out": ({"receivers": None}, "got none"),
    "no site of a receiver": ({"site": "z"}, "wanted site out of"),
    "receivers of the stream": ({"site": "resid_post"}, "leave out receivers="),
    "an MLP as head": ({"site": "mlp_out"}, "wanted layers"),
    "a layer too high": ({"site": "mlp_out", "receivers": [2]}, "layers from 0 to 1"),
    "a receiver that is not there": ({"receivers": "L1H4"}, "heads 0 to 3"),
    "a sender that is not there": ({"senders": "L0H4"}, "heads 0 to 3"),
    "no senders": ({"senders": []}, "got none"),
    "a sender beside the receiver": ({"senders": ["L0H1", "L1H0"]}, "got L1H0"),
    "receivers in the first layer": ({"receivers": "L0H1"}, "come before a receiver"),
    "other numbers": ({"lengths": [5, 5, 5]}, "3 and 2"),
    "other lengths": ({"lengths": [5, 4]}, "prompt 1 has 5 tokens, its source 4"),
    "too few tokens at once": ({"max_tokens": 4}, "max_tokens"),
    "no answers": ({"metric": ik.logit_difference}, "answers"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_unfit_input_is_refused(what):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    asked, message = UNFIT[what]
    options = {"receivers": "L1H1", "site": "k", "metric": weighed} | asked
    source = tokens_for(model, options.pop("lengths", [5, 5]), seed=5)
    with pytest.raises(ValueError) as raised:
        path_patch(model, source=source, into=tokens_for(model, [5, 5]), **options)
    assert message in str(raised.value)


def test_more_that_is_refused():
    model = model_of("attention-only", FASTEST["attention-only"])
    prompts = tokens_for(model, [5])
    with pytest.raises(ValueError, match="attention-only"):
        path_patch(model, source=prompts, into=prompts, receivers=[1], site="mlp_out", metric=weighed)
    grouped = model_of("Llama", FASTEST["Llama"])
    with pytest.raises(ValueError, match="2 key/value heads"):
        path_patch(grouped, source=prompts, into=prompts, receivers="L1H3", site="k", metric=weighed)
    with pytest.raises(TypeError, match="got 7"):
        path_patch(model, source=prompts, into=prompts, receivers=7, site="k", metric=weighed)


def test_heads_that_do_not_add_up_are_refused():
    model = fresh_of("GPT-2", FASTEST["GPT-2"])
    model.add_hook("blocks.0.hook_attn_out", lambda activation, hook: activation * 2)
    source, into = tokens_for(model, [5], seed=5), tokens_for(model, [5])
    with pytest.raises(ValueError, match="do not add up"):
        path_patch(model, source=source, into=into, receivers="L1H1", site="k", metric=weighed)
