"""The head summary is one contract: every result about heads into every function that takes one; refusals that help."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from verbs import episodes

import induction_kernel as ik
from induction_kernel.errors import Refused
from induction_kernel.plots._offline import figure_fragment
from induction_kernel.plots._scores import score_plot

pytestmark = pytest.mark.slow

CONTRACT = (
    "mean", "low", "high", "chance", "excess", "excess_low", "excess_high", "threshold", "tested", "passes", "rank",
    "n",
)  # fmt: skip


SCORERS = ("induction", "prefix_matching", "previous_token", "duplicate_token")


def answered(prompts):
    pairs = torch.arange(2 * len(prompts)).reshape(-1, 2) % 20 + 3
    return replace(prompts, answers=pairs)


def largest_logit(logits, prompts):
    return logits[torch.arange(len(prompts)), prompts.lengths - 1].amax(-1)


def results_of(model):
    """Every producer's result, as it gives it."""
    repeats = ik.repeated_tokens(model, prompts=9, period=6)
    shots = ik.prompts.word_episodes(model, prompts=9, shots=4)
    drawn = episodes()
    by_heads = {"site": "z", "by": ("layer", "head")}
    weights = ik.scorers.demonstration_weights(model, shots)
    answers = ik.fewshot.predict(model, shots)
    return {
        **{name: getattr(ik, name)(model, repeats) for name in SCORERS},
        "scorer of one's own": ik.AttentionScorer("mine", ik.duplicate_token.mask)(model, repeats),
        "label_attention": ik.label_attention(model, shots),
        "observe, one of several": ik.observe(model, repeats, [ik.induction, ik.previous_token]).isel(scorer=1),
        "copying": ik.copying(model),
        "copying, BAN": ik.copying(model, method="BAN"),
        "copying, BAN-source": ik.copying(model, method="BAN-source"),
        "ov_eigenvalues": ik.ov_eigenvalues(model),
        "qk_trace": ik.qk_trace(model, repeats),
        **{f"composition, by {by}": ik.composition(model, by=by) for by in "kqv"},
        "composition with one receiver": ik.composition(model).sel(receiver="L1H7"),
        "direct_effect": ik.direct_effect(model, repeats),
        "direct_effect, on answers": ik.direct_effect(model, answered(repeats)),
        "sweep": ik.sweep(model, repeats),
        "sweep of values": ik.sweep(model, repeats, site="v", edit=ik.Zero()),
        "sweep, metric of one's own": ik.sweep(model, repeats, metric=largest_logit, edit=ik.Zero()),
        "sweep at one position": ik.sweep(model, repeats, by=("layer", "head", "position")).isel(position=9),
        "knock_out": ik.knock_out(model, repeats, ik.induction.mask),
        "patch": ik.patch(model, source=repeats.tokens.flip(0), into=answered(repeats), **by_heads),
        "attribution": ik.attribution(model, repeats, edit=ik.FromRun(repeats.tokens.flip(0)), verify=1),
        "vote": ik.kernel.vote(weights, shots, answers),
        "vote, the truth": ik.kernel.vote(weights, shots),
        "kernel_alignment": ik.kernel.kernel_alignment(
            ik.scorers.demonstration_weights(model, drawn.prompts(model)), ik.kernel.next_token_similarity(model, drawn)
        ),
        "label_logits": ik.kernel.label_logits(model, shots),
        "qk_senders": ik.scorers.qk_senders(ik.scorers.qk_attribution(model, repeats, "L1H7")),
        "token_copying": ik.head_census.token_copying(model, prompts=16, length=12),
        "function_vector_effect": ik.fewshot.function_vector_effect(model, shots),
        "function vectors of some heads": ik.fewshot.function_vector_effect(model, shots, heads=["L1H7", "L0H3"]),
        "writers_and_cancellers": ik.fewshot.writers_and_cancellers(model, shots),
    }  # fmt: skip


NAMES = (
    *SCORERS, "scorer of one's own", "label_attention", "observe, one of several", "copying", "copying, BAN",
    "copying, BAN-source",
    "ov_eigenvalues", "qk_trace", "composition, by k", "composition, by q", "composition, by v",
    "composition with one receiver", "direct_effect", "direct_effect, on answers", "sweep", "sweep of values",
    "sweep, metric of one's own", "sweep at one position", "knock_out", "patch", "attribution", "vote",
    "vote, the truth", "kernel_alignment", "label_logits", "function_vector_effect",
    "qk_senders", "token_copying", "function vectors of some heads", "writers_and_cancellers",
)  # fmt: skip
UNTESTED = {
    "label_attention", "composition, by k", "composition, by q", "composition, by v", "composition with one receiver",
    "label_logits",
}  # fmt: skip
EFFECTS = {
    name for name in NAMES if name.startswith(("sweep", "knock_out", "patch", "attribution", "writers"))
}


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def results(model):
    found = results_of(model)
    assert set(found) == set(NAMES)
    return found


@pytest.fixture(scope="module")
def summaries(results):
    return {name: ik.summarise(result) for name, result in results.items()}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def grid(summary, key):
    return summary[key].transpose("layer", "head").values


def test_summary(name, results, summaries):
    """What the contract promises, variable by variable."""
    found, result = summaries[name], results[name]
    for key in CONTRACT:
        assert set(found[key].dims) == {"layer", "head"}, key
    assert found["tested"].dtype == bool
    assert found["rank"].dtype == found["n"].dtype == int
    known = found["mean"].notnull()
    null = found["control"] if "control" in found else found["chance"]
    np.testing.assert_allclose((found["mean"] - null).where(known), found["excess"], atol=1e-12)
    assert (found["passes"].notnull() == found["tested"]).all()
    size = abs(found["excess"]) if name in EFFECTS else found["excess"]
    beyond = (size > found["threshold"]).where(found["tested"])
    np.testing.assert_array_equal(found["passes"], beyond)
    sign = {"largest": 1, "smallest": -1, "size": 1}[found.attrs.get("ranked_first", "largest")]
    by = found["size"] if found.attrs.get("ranked_first") == "size" else sign * found["excess"]
    order = by.values.ravel()[np.argsort(found["rank"].values.ravel())]
    np.testing.assert_array_equal(order, np.sort(order)[::-1] if known.all() else order)
    assert sorted(found["rank"].values.ravel()) == list(range(1, order.size + 1))
    assert (found["low"].isnull() | (found["low"] <= found["mean"] + 1e-12)).all()
    assert bool(found["tested"].any()) == (name not in UNTESTED)
    assert bool(found["null"].item()) == (name not in UNTESTED)
    assert found["tested"].all() or found["untested"].item()
    assert ("size" in found) == (name in EFFECTS)
    assert found["name"].values[-1, -1] == str(ik.Head(int(found["layer"][-1]), int(found["head"][-1])))
    assert found["scorer"].item()
    assert result.attrs.items() <= found.attrs.items()
    xr.testing.assert_identical(ik.summarise(found), found)


def test_attributes(name, results, summaries):
    for found in (results[name], summaries[name]):
        assert all(type(value) in (str, int, float) for value in found.attrs.values()), found.attrs
    if "prompt" in results[name].dims:
        assert results[name].attrs["n_prompts"] == results[name].sizes["prompt"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["result", "summary"])
def test_round_trip(name, what, results, summaries, tmp_path):
    found = results[name] if what == "result" else summaries[name]
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as read:
        back = read.load()
    if what == "summary":
        xr.testing.assert_equal(back, found)
    assert ik.top_heads(back, None) == ik.top_heads(found, None)


@pytest.mark.parametrize("largest", [True, False])
def test_top_heads(name, largest, results, summaries):
    """Of a result as of its summary, by any variable: the largest or smallest first, NaN left out."""
    for by in ("excess", "mean", "n", "threshold", "rank"):
        expected = ordered(summaries[name], by, largest=largest)
        assert ik.top_heads(summaries[name], None, by=by, largest=largest) == expected
        assert ik.top_heads(results[name], 2, by=by, largest=largest) == expected[:2]


def ordered(summary, by, *, largest):
    values, layers = grid(summary, by).astype(float), summary["layer"].values
    cells = [tuple(cell) for cell in np.argwhere(np.isfinite(values))]
    cells.sort(key=lambda cell: (-values[cell] if largest else values[cell], cell))
    return [(int(layers[layer]), head) for layer, head in cells]


def test_top_heads_by_size(name, results, summaries):
    if name in EFFECTS:
        assert ik.top_heads(results[name], None, by="size") == ordered(summaries[name], "size", largest=True)
        return
    with pytest.raises(Refused, match=r"wanted by as one of .*'excess'.*, got 'size'"):
        ik.top_heads(results[name], by="size")


def test_passing_heads(name, results, summaries):
    if name in UNTESTED:
        with pytest.raises(Refused, match="wanted heads that pass, got scores that cannot be tested: "):
            ik.top_heads(results[name], passing=True)
        return
    found = summaries[name]
    passing = {tuple(cell) for cell in np.argwhere(grid(found, "passes") == 1)}
    layers = found["layer"].values
    assert set(ik.top_heads(results[name], None, passing=True)) == {(int(layers[i]), j) for i, j in passing}


def test_head_table(name, results, summaries):
    found = summaries[name]
    table = ik.head_table(results[name], None)
    assert table.index.tolist() == [str(head) for head in ik.top_heads(found, None)]
    assert len(table) == int(found["mean"].notnull().sum())
    assert set(table["passes"]) <= ({"untested"} if name in UNTESTED else {"yes", "no", "untested"})
    assert (table["passes"] == "yes").sum() == int((found["passes"] == 1).sum())


def test_compare(name, results, summaries, model):
    """With itself, and with another score of the same heads."""
    result = results[name]
    same = ik.compare(result, result)
    np.testing.assert_allclose(same["difference"].where(same["first"].notnull(), 0), 0)
    assert np.isnan(same["pearson"]) or float(same["pearson"]) == pytest.approx(1)
    assert float(same["overlap"]) in (1.0, min(5, len(ik.top_heads(result, None))) / 5)
    other = results["induction"].sel(layer=summaries[name]["layer"].values)
    found = ik.compare(result, other)
    np.testing.assert_allclose(found["second"], other["score"].mean("prompt"))
    np.testing.assert_array_equal(found["first"], summaries[name]["mean"])
    assert [part.z.shape for part in ik.head_map(found).data if part.type == "heatmap"] == [
        found["first"].shape
    ] * 3


def test_ablation_curve(name, results, model):
    prompts = ik.repeated_tokens(model, prompts=1, period=6)
    curve = ik.ablation_curve(model, prompts, results[name], ks=1, controls=1, progress=False)
    assert curve["heads"].item() == str(ik.top_heads(results[name], 1)[0])


def test_head_map(name, results, summaries):
    figure = ik.head_map(summaries[name])
    heat, marks = figure.data
    np.testing.assert_array_equal(heat.z, grid(summaries[name], "mean"))
    assert len(marks.x) == int((summaries[name]["passes"] == 1).sum())
    assert "<div" in figure_fragment(figure)
    drawn = ik.head_map(results[name]).data[0]
    if "receiver" in results[name].dims:
        assert drawn.z.shape == (8, 8)
    else:
        np.testing.assert_array_equal(drawn.z, heat.z)


def test_score_plot(name, results, summaries):
    other = results["prefix_matching"].sel(layer=summaries[name]["layer"].values)
    points = score_plot(results[name], other).data[0]
    np.testing.assert_array_equal(points.x, grid(summaries[name], "mean").ravel())
