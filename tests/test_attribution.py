"""Attribution is the slope of the sweep, exact where the model is linear; and leaves the model as it was."""

import re
from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from hand_model import ARCHITECTURE, hand_weights
from labelled_prompts import prompts_for
from model_state import state_of
from quick import one_in
from slopes import BY_BOTH, BY_HEAD, BY_POSITION, FLOAT32_INSIDE, check_slope, estimated, exact
from whole_runs import HEAD_SITES, SITES, answer, edit_for, halved, legal, tokens_for, weighed
from zoo import BASE, FASTEST, PAIRS, SHAPES, fresh_of, model_of, random_weights

import induction_kernel as ik
from induction_kernel.interventions import _gradients as gradients
from induction_kernel.interventions._attribution import attribution
from induction_kernel.interventions._edits import KnockOut, Scale, Zero
from induction_kernel.interventions._edits_from_runs import FromRun, Mean, Resample
from induction_kernel.loading import build
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.metrics import _metric as metrics
from induction_kernel.metrics import _standard as standard


def bys_of(site):
    if site == "k":
        return [BY_HEAD, BY_BOTH]
    return [BY_HEAD] if site in HEAD_SITES else [BY_POSITION]


SLOPES = [
    (name, kind, site, by)
    for name, kind in PAIRS
    for site in SITES
    for by in bys_of(site)
    if legal(name, "KnockOut" if site == "pattern" else "Add", site, by, None)
]
FAST = {
    ("GPT-2", FASTEST["GPT-2"]): SITES,
    ("Llama", FASTEST["Llama"]): HEAD_SITES,
    ("GPT-J", "bridge"): ("k", "q"),
}


@pytest.mark.parametrize(
    ("name", "kind", "site", "by"),
    [pytest.param(*row, marks=[] if row[2] in FAST.get(row[:2], ()) else pytest.mark.slow) for row in SLOPES],
)
def test_is_the_slope_of_the_sweep(name, kind, site, by):
    check_slope(name, kind, site, by)


@pytest.mark.parametrize("site", ["q", "k"])
def test_the_plain_gradient_is_the_slope_too(site):
    check_slope("Llama", FASTEST["Llama"], site, BY_BOTH, qk_fix=False)


@pytest.mark.parametrize("site", ["z", "k", "mlp_out"])
def test_a_hook_of_the_user_stays_in_force(site):
    model = fresh_of("GPT-2", FASTEST["GPT-2"])
    with torch.no_grad():
        model(torch.zeros(1, 3).long())  # at its first call a Bridge wires hooks of its own
    model.add_hook("blocks.1.attn.hook_v", halved)
    before = state_of(model)
    check_slope("GPT-2", FASTEST["GPT-2"], site, bys_of(site)[-1], model=model)
    assert state_of(model) == before


def last_logit(logits, prompts):
    """`[prompt]`: linear in the logits at the last token."""
    rows = torch.arange(len(prompts))
    found = logits[rows, prompts.lengths - 1]
    return found[:, 3] - 0.5 * found[:, 7]


@pytest.fixture(scope="module")
def without_norms():
    architecture = BASE | SHAPES["attention-only"] | {"normalization_type": None}
    weights = random_weights(architecture)
    for layer in range(2):
        weights[f"blocks.{layer}.attn.W_Q"] *= 0.1  # without norms attention would rest on one key everywhere
    return build(architecture, weights, dtype=torch.float64, name="without norms")


LINEAR = [
    (edit, site, by)
    for edit, site in [("FromRun", site) for site in SITES] + [("KnockOut", "pattern"), ("Scale", "q"), ("Add", "k")]
    for by in (BY_HEAD, BY_POSITION, BY_BOTH)
    if legal("attention-only", edit, site, by, None) and site != "resid_pre"
]  # fmt: skip


@pytest.mark.parametrize(("edit", "site", "by"), LINEAR)
def test_exact_in_the_last_layer_of_a_model_without_norms(without_norms, edit, site, by):
    """From there on the logits are linear in z, and the pattern row is the exact one."""
    prompts = tokens_for(without_norms, [4, 6, 3])
    made, _ = edit_for(edit, without_norms, prompts, site)
    if by == BY_POSITION and site == "k":
        by = BY_BOTH  # all heads' keys at a position: rows of several heads, each exact
    twin = exact(without_norms, prompts, made, site, by, last_logit)[:, 1]
    found = estimated(without_norms, prompts, made, site, by, last_logit)[:, 1]
    np.testing.assert_allclose(found, twin, rtol=0, atol=1e-10)
    assert np.nanmax(abs(found)) > 1e-2
    if site in ("q", "k"):
        plain = estimated(without_norms, prompts, made, site, by, last_logit, qk_fix=False)[:, 1]
        assert np.nanmax(abs(plain - twin)) > 0.05


@pytest.mark.parametrize("sharp", [0.01, 1, 30, 3000])
def test_qk_fix_is_brute_force_on_the_row(sharp):
    """From flat rows to rows of which one key has all, in float64 to the last digit."""
    generator = torch.Generator().manual_seed(0)
    scores, moved, g = (
        torch.randn(2, 3, 7, 7, generator=generator, dtype=torch.float64) * by for by in (sharp, 2 * sharp, 1)
    )
    seen = torch.ones(7, 7).tril().bool()
    rows = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    found = gradients._one_key_at_a_time(scores, scores + moved, g, seen)
    for key in range(7):
        changed = scores.clone()
        changed[..., key] += moved[..., key]
        new = changed.masked_fill(~seen, -torch.inf).softmax(-1)
        np.testing.assert_allclose(found[..., key], ((new - rows) * g).sum(-1), rtol=0, atol=1e-12)
    if sharp == 3000:
        assert float((rows.amax(-1) == 1).double().mean()) > 0.9


def test_qk_fix_of_masked_scores():
    """Keys that are masked in another way than by causality stay out, and are no NaN."""
    scores = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = scores.masked_fill(torch.ones(5, 5).tril(-2).bool(), -torch.inf)
    g = torch.ones(5, dtype=torch.float64).cumsum(0).expand_as(scores)
    found = gradients._one_key_at_a_time(scores, scores + 1, g, torch.ones(5, 5).tril().bool())
    assert found.isfinite().all()
    assert bool((found[0, 0, 3, :2] == 0).all())
    assert float(found[0, 0, 3, 3]) > 0.01


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_a_model_that_does_not_show_its_scores(name, monkeypatch):
    model = model_of(name, FASTEST[name])
    prompts = tokens_for(model, [4, 6, 3])
    edit, _ = edit_for("FromRun", model, prompts, "k")
    closed = estimated(model, prompts, edit, "k", BY_BOTH, weighed)
    monkeypatch.setattr(gradients, "_explain", lambda scores, rows, seen: False)
    close = 1e-5 if (name, FASTEST[name]) in FLOAT32_INSIDE else 1e-10
    looped = estimated(model, prompts, edit, "k", BY_BOTH, weighed)
    np.testing.assert_allclose(looped, closed, rtol=0, atol=close)


def test_saturated_attention_needs_the_fix():
    """The hand-made induction head rests on one key: the gradient at its keys is 0, their exchange is not."""
    model = build(ARCHITECTURE, hand_weights(), name="by hand")
    prompts = ik.repeated_tokens(model, bos=0, prompts=4, period=6)
    edit = FromRun(replace(prompts, tokens=prompts.tokens.roll(1, 0)))
    options = {"edit": edit, "site": "k", "metric": last_right, "progress": False, "heads": "L1H0"}
    fixed = attribution(model, prompts, **options)["size"]
    plain = attribution(model, prompts, qk_fix=False, **options)["size"]
    assert float(fixed.sel(head=0)[0]) > 1 > 1e-3 > float(plain.sel(head=0)[0])


def last_right(logits, prompts):
    """`[prompt]`: the logit of the last token, where it is predicted."""
    rows = torch.arange(len(prompts))
    return logits[rows, prompts.lengths - 2, prompts.tokens[rows, prompts.lengths - 1]]


@pytest.mark.parametrize("edit", ["Zero", "ZeroValues", "Scale", "Add", "Mean", "Resample", "FromRun"])
def test_edits_of_z_by_the_definition(edit):
    """Sum of (new - old) * gradient, with the gradient from a plain leaf."""
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [5, 5, 5])
    made, drawn = edit_for(edit, model, prompts, "z")
    given = naive.values_given(model, prompts, made, "z", drawn)
    found = attribution(model, prompts, edit=made, by=BY_BOTH, metric=weighed, progress=False)
    twin = np.zeros((3, 2, 4, 5))
    for layer in range(2):
        old = naive.activations(model, prompts.tokens, "z")[layer].requires_grad_()
        with torch.enable_grad():
            logits = model.run_with_hooks(
                prompts.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", lambda z, hook, old=old: old)]
            )
            (slope,) = torch.autograd.grad(weighed(logits, prompts).sum(), old)
        old = old.detach()
        new = naive.edited_activation(model, made, "z", given, layer, old)
        twin[:, layer] = ((new - old) * slope).sum(-1).transpose(1, 2).numpy()
    np.testing.assert_allclose(found["estimate"].values, twin, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["size"].values, abs(twin).mean(0), rtol=0, atol=1e-12)
    assert (found["size"].values >= abs(twin.mean(0)) - 1e-12).all()


def tool():
    return pytest.importorskip("transformer_lens.tools.analysis.attribution_patching")


@pytest.mark.parametrize(
    ("name", "kind"), [pair for pair in PAIRS if pair[1] != "hooked" and pair[0] in ("GPT-2", "GPT-J", "Llama")]
)  # fmt: skip
def test_equals_the_attribution_patching_of_transformer_lens(name, kind):
    """Theirs is of Bridges, of z and mlp_out."""
    model = fresh_of(name, kind)
    model.eval()
    clean, corrupted = (tokens_for(model, [5, 5], seed=seed) for seed in (0, 1))
    one = corrupted[0]
    theirs = tool().attribution_patch(
        model, clean.tokens, corrupted.tokens, lambda logits: weighed(logits, one)[0]
    )
    edit = FromRun(clean)
    for site, by, kind_of in (("z", BY_BOTH, "attn_head_out"), ("mlp_out", BY_POSITION, "mlp_out")):
        found = attribution(model, corrupted, edit=edit, site=site, by=by, metric=weighed, progress=False)
        mean, count = found["estimate"].mean("prompt"), 0
        for node, score in theirs.node_scores.items():
            if node.kind == kind_of:
                at = {"layer": node.layer, "position": node.position}
                at |= {"head": node.head} if "head" in by else {}
                assert float(mean.sel(at)) == pytest.approx(score, rel=1e-4, abs=1e-6)
                count += 1
        assert count == mean.size


@pytest.mark.parametrize(
    ("site", "by"), [("z", BY_BOTH), ("k", BY_BOTH), ("pattern", BY_HEAD), ("resid_mid", BY_POSITION)]
)  # fmt: skip
@pytest.mark.parametrize("edit", ["FromRun", "Mean", "Resample"])
def test_max_tokens_changes_nothing(site, by, edit):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [5, 5, 5])
    made, _ = edit_for(edit, model, prompts, site)
    whole, *others = (
        estimated(model, prompts, made, site, by, weighed, max_tokens=most) for most in (None, 5, 11)
    )
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", ["repeat_loss", "loss", "logit_difference", "probability", "kl_to"])
@pytest.mark.parametrize("most", [None, 12])
def test_metrics(metric, most):
    """Each has the gradient that it has on whole logits."""

    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = prompts_for(model, prompts=3, period=(3, 5))
    prompts = replace(prompts, answers=torch.tensor([[3, 4], [5, 6], [7, 8]]))
    with torch.no_grad():
        clean = model(prompts.tokens.flip(1))
    made = standard.kl_to(clean) if metric == "kl_to" else getattr(ik, metric)
    edit = FromRun(replace(prompts, tokens=prompts.tokens.flip(1)))
    found = attribution(model, prompts, edit=edit, by=BY_HEAD, metric=made, max_tokens=most, progress=False)
    reading = metrics.reading_of(made, prompts)
    twin = estimated(
        model, prompts, edit, "z", BY_HEAD,
        lambda logits, given: made.measure(metrics.read_off(logits, reading), prompts),
    )  # fmt: skip
    np.testing.assert_allclose(found["estimate"], twin, rtol=0, atol=1e-12)
    assert found.attrs["unit"] == made.unit
    np.testing.assert_allclose(found["baseline"], made(model, prompts)["value"], rtol=0, atol=1e-12)


def test_verify():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [4, 6, 3])
    edit, _ = edit_for("FromRun", model, prompts, "z")
    options = {"edit": edit, "site": "z", "by": BY_BOTH, "metric": weighed, "progress": False}
    found = attribution(model, prompts, verify=4, **options)
    plain = attribution(model, prompts, **options)
    np.testing.assert_array_equal(found["estimate"], plain["estimate"])
    assert found["group"].values.tolist() == ["strongest"] * 4 + ["random"] * 4
    assert len(set(found["cell"].values.tolist())) == 8
    effect = ik.sweep(model, prompts, **options)["effect"].mean("prompt")
    mean = plain["estimate"].mean("prompt")
    size = plain["size"].values
    for row, name in enumerate(found["cell"].values.tolist()):
        at = {"layer": int(name[1]), "head": int(name[3]), "position": int(name.split()[-1])}
        assert name == f"L{at['layer']}H{at['head']} pos {at['position']}"
        assert float(found["exact"][row]) == pytest.approx(float(effect.sel(at)), abs=1e-10)
        assert float(found["estimated"][row]) == pytest.approx(float(mean.sel(at)), abs=1e-12)
        if row < 4:
            assert float(plain["size"].sel(at)) == np.sort(size.ravel())[-1 - row]
    random = [tuple(map(int, re.findall(r"\d+", name))) for name in found["cell"].values[4:].tolist()]
    assert random == sorted(random)
    both = np.corrcoef(found["exact"], found["estimated"])[0, 1]
    assert found.attrs["correlation"] == pytest.approx(both)
    worst = abs(found["exact"] - found["estimated"])
    assert found.attrs["worst_miss"] == float(worst.max())
    assert found.attrs["worst_cell"] == str(found["cell"].values[int(worst.values.argmax())])
    assert all(isinstance(value, str | int | float) for value in found.attrs.values())
    again, other = (attribution(model, prompts, verify=4, seed=seed, **options) for seed in (0, 1))
    assert again["cell"].values.tolist() == found["cell"].values.tolist()
    assert other["cell"].values.tolist()[:4] == found["cell"].values.tolist()[:4]
    assert other["cell"].values.tolist() != found["cell"].values.tolist()


def test_verify_more_cells_than_there_are():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [4, 6])
    found = attribution(model, prompts, edit=Zero(), by=BY_HEAD, metric=weighed, verify=6)
    assert found["group"].values.tolist() == ["strongest"] * 6 + ["random"] * 2
    same = attribution(
        model, prompts, edit=Scale(1.0), site="mlp_out", by=("layer",), metric=weighed, verify=9
    )
    assert same["cell"].values.tolist() == ["L0", "L1"]
    assert same.attrs["correlation"] == same.attrs["worst_miss"] == 0.0


def test_what_a_result_says():
    model = model_of("Llama", FASTEST["Llama"])
    prompts = tokens_for(model, [4, 6, 3])
    found = attribution(
        model, prompts, edit=Zero(), site="k", by=BY_BOTH, metric=weighed, heads=["L0H1", "L1H0"]
    )
    assert found["estimate"].dims == ("prompt", *BY_BOTH)
    assert found["size"].dims == BY_BOTH
    assert found["estimate"].shape == (3, 2, 2, 6)
    assert np.isnan(found["estimate"].values[0, :, :, 4:]).all()
    assert np.isnan(found["estimate"].sel(layer=0, head=0)).all()
    assert np.isfinite(found["estimate"].sel(layer=0, head=1, prompt=1)).all()
    assert found["token"].dims == ("prompt", "position")
    wanted = {"method": "attribution", "site": "k", "edit": "Zero", "qk_fix": "yes", "n_prompts": 3}
    assert wanted.items() <= found.attrs.items()
    for by in (("layer",), ()):
        found = attribution(model, prompts, edit=Zero(), by=by, metric=weighed)
        each = attribution(model, prompts, edit=Zero(), metric=weighed)["estimate"]
        summed = each.sum([dim for dim in BY_HEAD if dim not in by])
        np.testing.assert_allclose(found["estimate"], summed, rtol=0, atol=1e-12)


def test_resample_draws_what_a_sweep_draws():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [5, 5, 5])
    edit = Resample(seed=3)
    as_run = estimated(model, prompts, FromRun(edit.source(model, prompts)), "z", BY_HEAD, weighed)
    np.testing.assert_array_equal(estimated(model, prompts, edit, "z", BY_HEAD, weighed), as_run)


def test_gradients_need_no_parameter_that_has_one():
    for name, kind in PAIRS:
        if name != "GPT-2":
            continue
        model = fresh_of(name, kind)
        prompts = tokens_for(model, [4, 6])
        with_them = estimated(model, prompts, Zero(), "z", BY_HEAD, weighed)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        with torch.no_grad():
            without = estimated(model, prompts, Zero(), "z", BY_HEAD, weighed)
        np.testing.assert_array_equal(without, with_them)


def test_bfloat16():
    for name, kind in (("GPT-2", FASTEST["GPT-2"]), ("Llama", FASTEST["Llama"])):
        for site, by in (("z", BY_HEAD), ("k", BY_BOTH), ("pattern", BY_HEAD)):
            fine, coarse = (model_of(name, kind, dtype) for dtype in (torch.float64, torch.bfloat16))
            prompts = tokens_for(fine, [5, 5])
            a, b = (
                attribution(model, prompts, edit=Mean(), site=site, by=by, metric=answer, progress=False)
                for model in (fine, coarse)
            )
            assert np.corrcoef(a["size"].values.ravel(), b["size"].values.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("name", "kind", "raised"),
    one_in(
        2,
        [pair for pair in PAIRS if pair[0] in ("GPT-2", "Llama")],
        [None, ZeroDivisionError, KeyboardInterrupt],
    ),
)
@pytest.mark.parametrize(
    "site", ["k", *(pytest.param(site, marks=pytest.mark.slow) for site in ("z", "resid_mid"))]
)
def test_the_model_is_left_as_it_was(name, kind, raised, site):
    model = fresh_of(name, kind)
    model.train()
    first, second, *_ = model.parameters()
    first.requires_grad_(False)
    second.grad = torch.ones_like(second)
    prompts = tokens_for(model, [4, 6, 3])
    with torch.no_grad():
        model(prompts.tokens)  # at its first call a Bridge wires hooks of its own
    before, calls = state_of(model), []

    def metric(logits, given):
        assert not model.training
        calls.append(1)
        if raised is not None and len(calls) == 2:
            raise raised
        return weighed(logits, given)

    options = {"edit": Zero(), "site": site, "by": ("layer",), "metric": metric, "max_tokens": 6}
    if raised is None:
        attribution(model, prompts, verify=1, **options)
    else:
        with pytest.raises(raised):
            attribution(model, prompts, **options)
    assert state_of(model) == before
    assert bool((second.grad == 1).all())


def root(logits, prompts):
    return (logits[:, 0, 0] * 0).sqrt()


UNFIT = {
    "a metric that counts": ({"metric": ik.label_accuracy}, "few-shot"),
    "a metric that cannot be differentiated": (
        {"metric": lambda logits, given: (logits[:, 0, 0] > 0).double()}, "can be differentiated",
    ),
    "a metric that detaches": ({"metric": lambda logits, given: weighed(logits.detach(), given)}, "differentiated"),
    "a metric of infinite slope": ({"metric": root}, "not finite"),
    "a metric of one number": ({"metric": lambda logits, given: logits.sum()}, "one number a prompt"),
    "a site without heads by head": ({"site": "mlp_out"}, "wanted by"),
    "an edit of another site": ({"edit": KnockOut(torch.zeros(5, 5, dtype=torch.bool))}, "of patterns"),
    "other lengths": ({"edit": FromRun(torch.zeros(2, 4).long())}, "equal lengths"),
    "other numbers": ({"edit": FromRun(torch.zeros(3, 5).long())}, "as many prompts"),
    "a head that is not there": ({"heads": "L0H4"}, "heads 0 to 3"),
    "too few tokens at once": ({"max_tokens": 4}, "max_tokens"),
    "fewer than none to verify": ({"verify": -1}, "0 for none"),
    "half a cell to verify": ({"verify": 0.5}, "0 for none"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNFIT)
def test_unfit_input_is_refused(what):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    asked, message = UNFIT[what]
    options = {"edit": Zero(), "metric": weighed, "progress": False} | asked
    with pytest.raises(ValueError) as raised:
        attribution(model, tokens_for(model, [5, 5]), **options)
    assert message in str(raised.value)


def test_more_that_is_refused():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [5, 5])
    with pytest.raises(TypeError, match="wanted an edit"):
        attribution(model, prompts, edit=Zero, metric=weighed)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        attribution(model, prompts, edit=Zero(), metric=weighed)
    worded = ik.load("tiny")
    episodes = ik.prompts.word_episodes(worded, prompts=2)
    with pytest.raises(ValueError, match="label_accuracy cannot"):
        attribution(worded, episodes, edit=Zero(), metric=ik.label_accuracy)


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
def test_both_classes_agree():
    """A HookedTransformer and a Bridge of the same weights."""
    one, other = (model_of("GPT-2", kind) for kind in ("hooked", "native"))
    prompts = tokens_for(one, [4, 6, 3])
    for site, by in (("z", BY_BOTH), ("k", BY_BOTH), ("q", BY_HEAD), ("resid_mid", BY_POSITION)):
        edit, _ = edit_for("FromRun", one, prompts, site)
        a, b = (estimated(model, prompts, edit, site, by, weighed) for model in (one, other))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
