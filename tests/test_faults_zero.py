"""Faults of what zero means: z := 0, a multiple, and the edit that leaves the value bias."""

import numpy as np
import pytest
import torch
from written import TOKENS, last_logit, written
from zoo import folded, fresh, hooked_only, model_of, tiny

import induction_kernel as ik
from induction_kernel.loading._build import has_hooked_transformer


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
    from induction_kernel.evidence._ablation_runs import MODES

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
