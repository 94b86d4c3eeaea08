"""Right values of head summaries: effects, votes, composition, several scorers and models; what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, hand_weights
from verbs import episodes
from zoo import tiny

import induction_kernel as ik
from induction_kernel.errors import Refused
from induction_kernel.loading import build


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


@pytest.fixture(scope="module")
def embedded():
    return ik.load("tiny")


def made(values, key="effect", unit="nats", **more):
    dims = ("prompt", "layer", "head")
    coords = {"layer": range(values.shape[1]), "head": range(values.shape[2])}
    return xr.Dataset({key: (dims, values), **more}, coords, {"unit": unit})


def heats(figure):
    return [part for part in figure.data if part.type == "heatmap"]


def test_effects_pass_in_both_directions():
    values = np.random.default_rng(0).normal(0, 0.1, (24, 3, 4))
    values[:, 0, 1] += 0.5
    values[:, 2, 3] -= 0.4
    found = ik.summarise(made(values))
    assert np.argwhere(found["passes"].values == 1).tolist() == [[0, 1], [2, 3]]
    assert ik.top_heads(made(values), 2) == [(0, 1), (2, 3)]  # of a metric of which neither side is better
    assert ik.top_heads(made(values), 1, by="excess") == [(0, 1)]
    assert ik.top_heads(made(values), 1, by="excess", largest=False) == [(2, 3)]
    assert ik.top_heads(made(values), 2, by="size") == [(0, 1), (2, 3)]
    assert set(ik.top_heads(made(values), None, passing=True)) == {(0, 1), (2, 3)}
    np.testing.assert_allclose(found["size"], np.abs(values).mean(0))
    np.testing.assert_allclose(found["mean"], values.mean(0))
    assert not (found["chance"] != 0).any()


def test_heads_are_ranked_by_a_variable_of_each_prompt_through_its_mean():
    values = np.random.default_rng(1).normal(0, 0.1, (6, 3, 4))
    values[0, 1, 1] += 5  # one prompt makes this head's mean the largest
    assert ik.top_heads(made(values), 1, by="effect") == [(1, 1)]
    assert ik.top_heads(made(values).drop_isel(prompt=0), 1, by="effect") != [(1, 1)]


@pytest.mark.parametrize("skewed", [False, True])
def test_effects_of_nothing_raise_few_alarms(skewed):
    """Of models where no head has an effect, at most about one in twenty shows a head, in either direction."""
    alarms = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = 1 - rng.exponential(1, (16, 4, 12)) if skewed else rng.normal(0, 1, (16, 4, 12))
        found = ik.summarise(made(noise), margin=0.0, draws=400)
        alarms.append(bool((found["passes"] == 1).any()))
    assert np.mean(alarms) < 0.13


def test_six_prompts_are_too_few_for_effects():
    found = ik.summarise(made(np.full((6, 1, 2), 0.9)))
    assert not found["tested"].any()
    assert "6 prompts are too few" in found["untested"].item()
    symmetric = np.linspace(0.7, 1.3, 7)[:, None, None] * np.ones((1, 1, 2))
    assert ik.summarise(made(symmetric))["tested"].all()


@pytest.mark.parametrize(
    ("unit", "margin"),
    [("nats", 0.02), ("probability", 0.02), ("logits", 0.02), ("", 0.0), ("product of weights", 0.0)],
)
def test_the_margin_is_in_a_unit_that_has_a_size(unit, margin):
    values = np.random.default_rng(0).normal(0, 1, (8, 1, 2))
    assert ik.summarise(made(values, unit=unit)).attrs["margin"] == margin
    assert ik.summarise(made(values, unit=unit), margin=0.5).attrs["margin"] == 0.5


def test_prompts_and_heads_without_a_value_are_left_out():
    values = np.ones((9, 1, 3)) + np.random.default_rng(0).normal(0, 0.1, (9, 1, 3))
    values[8] = np.nan  # no head has a value for this prompt: it is another result's, joined
    values[0, 0, 1] = np.nan
    values[:, 0, 2] = np.nan
    found = ik.summarise(made(values))
    np.testing.assert_allclose(found["mean"], [[values[:8, 0, 0].mean(), values[1:8, 0, 1].mean(), np.nan]])
    assert found["n"].values.tolist() == [[8, 7, 0]]
    assert found["tested"].values.tolist() == [[True, False, False]]
    assert len(ik.top_heads(made(values), None)) == len(ik.head_table(made(values), None)) == 2


def test_a_sweep_ranks_heads_as_ablating_each_does(by_hand):
    prompts = ik.repeated_tokens(by_hand, prompts=8, period=8)
    swept = ik.sweep(by_hand, prompts, edit=ik.Zero())
    assert set(ik.top_heads(swept, 2)) == {(0, 0), (1, 0)}  # the circuit: previous token, induction
    assert set(ik.top_heads(swept, None, passing=True)) <= {(0, 0), (1, 0)}
    means = ik.summarise(swept)["mean"]
    for layer, head in ((0, 0), (1, 0), (0, 1)):
        alone = ik.ablate(by_hand, prompts, (layer, head), edit=ik.Zero())["effect"].mean()
        assert float(means.sel(layer=layer, head=head)) == pytest.approx(float(alone), abs=1e-5)


def voted(weight):
    """Weights `[prompt, layer, head, demonstration]` over four demonstrations of two classes."""
    n = len(weight)
    coords = {
        "layer": range(weight.shape[1]), "head": range(weight.shape[2]), "target": ("prompt", np.arange(n) % 2),
        "label_class": (("prompt", "demonstration"), np.tile([0, 1, 0, 1], (n, 1))), "label": ["a", "b"],
    }  # fmt: skip
    return xr.Dataset({"weight": (("prompt", "layer", "head", "demonstration"), weight)}, coords)


def test_a_reconstruction_is_summarised_with_its_own_threshold():
    rng = np.random.default_rng(0)
    weight = rng.random((40, 2, 3, 4))
    weight[np.arange(40), 1, 2, np.arange(40) % 2] += 5  # this head looks at the right label
    votes = ik.kernel.vote(voted(weight))
    assert ik.top_heads(votes, 1) == [(1, 2)]
    assert ik.top_heads(votes, None, passing=True) == [(1, 2)]
    found = ik.summarise(votes)
    assert float(found["mean"].sel(layer=1, head=2)) == 1.0
    assert float(found["chance"].sel(layer=1, head=2)) == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(found["threshold"], votes["threshold"] - votes["chance"])
    np.testing.assert_array_equal(found["passes"], votes["passes"])
    assert (found["n"] == 40).all()
    assert "labels permuted" in found["null"].item()
    with pytest.raises(
        Refused, match="got a result with its own threshold: give the options where it is made"
    ):
        ik.summarise(votes, level=0.01)


def test_a_vote_that_permuting_cannot_change_is_not_tested():
    one_class = voted(np.random.default_rng(0).random((12, 1, 2, 4))).assign_coords(
        label_class=(("prompt", "demonstration"), np.zeros((12, 4), int))
    )
    found = ik.summarise(ik.kernel.vote(one_class))
    assert not found["tested"].any()
    assert found["passes"].isnull().all()
    assert "permuting changes nothing" in found["untested"].item()


def test_composition_is_of_senders_by_receivers(by_hand):
    """K-composition of the induction head with the previous-token head: 64 of 64 directions, 8 / (8 x 8)."""
    kinds = [ik.composition(by_hand, by=by) for by in "qkv"]
    found = kinds[1]
    assert ik.top_heads(found, 1) == [(0, 0)]
    summary = ik.summarise(found)
    np.testing.assert_allclose(summary["mean"].sel(layer=0, head=0), 1 / 8)
    np.testing.assert_allclose(summary["excess"].sel(layer=0, head=0), 1 / 8 - 1 / 16)
    assert summary["receiver"].sel(layer=0, head=0).item() == "L1H0"
    figure = ik.head_map(found)
    (heat,) = heats(figure)
    assert heat.x.tolist() == ["L1H0", "L1H1", "L1H2"]
    assert heat.y.tolist() == ["L0H0", "L0H1", "L0H2"]
    np.testing.assert_allclose(heat.z[0], [1 / 8, np.nan, 0], atol=1e-12)  # L1H1 reads nothing
    together = xr.concat(kinds, "scorer", coords="minimal", compat="override")
    drawn = ik.head_map(together)
    for part, kind in zip(heats(drawn), kinds, strict=True):
        np.testing.assert_array_equal(part.z, kind["score"].sel(layer=0).values)
    captions = [note.text for note in drawn.layout.annotations]
    assert captions == ["<b>Q-composition</b>", "<b>K-composition</b>", "<b>V-composition</b>"]
    chosen = ik.summarise(found.sel(receiver="L1H2"))
    np.testing.assert_allclose(chosen["mean"].sel(layer=0, head=0), 0, atol=1e-12)


def test_several_results_of_one_scorer_are_panels(embedded):
    each = [
        ik.induction(embedded, ik.repeated_tokens(embedded, prompts=8, period=6, seed=seed))
        for seed in (0, 1)
    ]
    joined = xr.concat(each, "scorer", coords="different", compat="equals")
    summary = ik.summarise(joined)
    figure = ik.head_map(joined)
    for at, scores in enumerate(each):
        alone = ik.summarise(scores)
        np.testing.assert_array_equal(heats(figure)[at].z, alone["mean"])
        np.testing.assert_array_equal(summary["threshold"].isel(scorer=at), alone["threshold"])
    assert [note.text for note in figure.layout.annotations] == [
        "<b>induction (1)</b>",
        "<b>induction (2)</b>",
    ]
    with pytest.raises(Refused, match=r"wanted one scorer, got .* choose with \.isel\(scorer=0\)"):
        ik.top_heads(joined)
    assert ik.top_heads(joined.isel(scorer=0)) == ik.top_heads(each[0])


@pytest.fixture(scope="module")
def two_models(embedded, by_hand):
    models = pd.Index(["tiny", "by hand"], name="model")
    prompts = {
        model: ik.repeated_tokens(model, prompts=n, period=6) for model, n in ((embedded, 8), (by_hand, 12))
    }
    each = [
        ik.observe(model, some, [ik.prefix_matching, ik.previous_token]) for model, some in prompts.items()
    ]
    options = {"join": "outer", "coords": "different", "compat": "equals"}
    return each, xr.concat(each, models, **options)


def test_models_of_different_shapes_are_panels(two_models):
    each, joined = two_models
    figure = ik.head_map(joined)
    drawn = heats(figure)
    assert [part.z.shape for part in drawn] == [(2, 8), (2, 8), (2, 3), (2, 3)]
    alone = [ik.summarise(scores) for scores in each]
    for at, part in enumerate(drawn):
        np.testing.assert_array_equal(part.z, alone[at // 2]["mean"].isel(scorer=at % 2))
    assert [note.text.replace("<br>", " ") for note in figure.layout.annotations] == [
        f"<b>{model}: {scorer}</b>"
        for model in ("tiny", "by hand")
        for scorer in ("prefix matching", "previous token")
    ]
    title = re.sub("<[^>]*>", " ", figure.layout.title.text)
    assert title.startswith("prefix matching, previous token  mean over")  # of no one model


def test_summaries_of_models_stand_side_by_side(two_models, tmp_path):
    each, joined = two_models
    found = ik.summarise(joined)
    assert found["tested"].dtype == bool
    small = found.sel(model="by hand")
    assert small["mean"].sel(head=slice(3, None)).isnull().all()
    assert not small["tested"].sel(head=slice(3, None)).any()
    alone = ik.summarise(each[1])
    for key in ("mean", "excess", "threshold", "passes", "n"):
        np.testing.assert_array_equal(
            small[key].sel(head=slice(0, 2)), alone[key].transpose(*small[key].dims)
        )
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(
        Refused, match=r"wanted one model, got \['tiny', 'by hand'\]: .* \.sel\(model='tiny'\)"
    ):
        ik.head_table(joined)
    one = joined.sel(model="by hand").sel(scorer="prefix_matching")
    assert ik.top_heads(one, 1) == [(1, 0)]
    assert len(ik.head_table(one, None)) == 6


def test_a_comparison_is_drawn(embedded):
    prompts = ik.repeated_tokens(embedded, prompts=8, period=6)
    first, second = ik.induction(embedded, prompts), ik.previous_token(embedded, prompts)
    found = ik.compare(first, second)
    drawn = heats(ik.head_map(found))
    for part, key in zip(drawn, ("first", "second", "difference"), strict=True):
        np.testing.assert_array_equal(part.z, found[key])
    assert drawn[2].zmin == -drawn[2].zmax == -float(abs(found["difference"]).max())
    values = found["difference"].values
    best = tuple(int(i) for i in np.unravel_index(values.argmax(), values.shape))
    assert ik.top_heads(found, 1, by="difference") == [best]
    with pytest.raises(Refused, match="a comparison is of two scores and has no summary"):
        ik.top_heads(found)
    same = heats(ik.head_map(ik.compare(first, first)))
    assert same[0].zmax == same[1].zmax


def test_a_sweep_by_position_says_what_to_do(embedded):
    prompts = ik.repeated_tokens(embedded, prompts=8, period=6)
    with pytest.raises(
        Refused, match=r'got it by \(layer, position\): make it with by=\("layer", "head"\), or draw'
    ):
        ik.top_heads(swept := ik.sweep(embedded, prompts, site="resid_pre", by=("layer", "position")))
    assert ik.effect_map(swept).data
    assert ik.top_heads(ik.sweep(embedded, prompts, by=("layer", "head")))
    of_heads = ik.sweep(embedded, prompts, by=("layer", "head", "position"))
    with pytest.raises(
        Refused, match=r"got several, over position: choose one, e\.g\. with \.sel\(position=0\)"
    ):
        ik.head_map(of_heads)
    assert heats(ik.head_map(of_heads.sel(position=0)))
    best = of_heads["effect"].sel(position=8).mean("prompt")
    assert ik.top_heads(of_heads.sel(position=8), 1)[0] == tuple(
        np.argwhere(best.values == best.values.max())[0]
    )


def test_key_value_heads_are_not_heads():
    llama = tiny("Llama")
    prompts = ik.repeated_tokens(llama, prompts=8, period=6)
    swept = ik.sweep(llama, prompts, site="v")
    with pytest.raises(Refused, match=r"at site 'v' these are key/value heads, .* sweep site=\"z\""):
        ik.summarise(swept)
    assert ik.effect_map(swept).data
    assert ik.summarise(ik.sweep(llama, prompts, site="z"))["tested"].any()


def test_weights_of_demonstrations_say_what_to_do(embedded):
    shots = ik.prompts.word_episodes(embedded, prompts=8, shots=4)
    weights = ik.scorers.demonstration_weights(embedded, shots)
    for verb in (ik.summarise, ik.top_heads, ik.head_table, ik.head_map):
        with pytest.raises(
            Refused, match=r"weights of demonstrations are not one number per head: label_attention"
        ):
            verb(weights)
    assert ik.top_heads(ik.label_attention(embedded, shots, pooling="max"))
    assert ik.top_heads(ik.kernel.vote(weights, shots))


def test_alignments_of_several_kernels_say_what_to_do(embedded):
    drawn = episodes(4)
    weights = ik.scorers.demonstration_weights(embedded, drawn.prompts(embedded))
    similarity = ik.kernel.next_token_similarity(embedded, drawn).drop_attrs()
    several = similarity.expand_dims(kernel=["one", "two"]).transpose(
        "prompt", ..., "kernel", "demonstration"
    )
    found = ik.kernel.kernel_alignment(weights, several)
    with pytest.raises(
        Refused, match=r"got several, over kernel: choose one, e\.g\. with \.sel\(kernel='one'\)"
    ):
        ik.top_heads(found)
    assert ik.top_heads(found.sel(kernel="one")) == ik.top_heads(
        ik.kernel.kernel_alignment(weights, similarity)
    )


def test_heads_by_a_variable_of_the_result(embedded):
    prompts = ik.repeated_tokens(embedded, prompts=8, period=6)
    guess = ik.attribution(embedded, prompts, edit=ik.FromRun(prompts.tokens.flip(0)))
    assert ik.top_heads(guess, 1, by="size") == [
        tuple(np.argwhere(guess["size"].values == guess["size"].values.max())[0])
    ]
    copies = ik.copying(embedded)
    assert len(ik.top_heads(copies, None, by="undefined", min_score=0)) == 16
    with pytest.raises(Refused, match=r"got 'exces'; by=\"excess\"\?"):
        ik.top_heads(copies, by="exces")
    found = ik.label_attention(embedded, ik.prompts.word_episodes(embedded, prompts=8))
    right = found["right"].mean("prompt").values
    assert ik.top_heads(found, 1, by="right") == [tuple(np.argwhere(right == right.max())[0])]
    assert ik.summarise(found, variable="right")["tested"].any()
    with pytest.raises(Refused, match=r"wanted variable in \['score', 'right'\], got 'left'"):
        ik.summarise(found, variable="left")


@pytest.mark.parametrize(
    ("better", "first", "order"),
    [("low", "largest", ["L0H0", "L0H2", "L0H1"]), ("high", "smallest", ["L0H1", "L0H2", "L0H0"]),
     ("neither", "size", ["L0H1", "L0H0", "L0H2"])],
)  # fmt: skip
def test_heads_rank_by_how_much_worse_the_metric_gets_without_them(better, first, order):
    """Of a loss the largest effect comes first, of a logit difference the smallest; of a function, the largest size."""
    values = np.tile([[[0.5, -0.9, 0.01]]], (8, 1, 1))
    result = made(values).assign_attrs(better=better)
    assert [str(head) for head in ik.top_heads(result, None)] == order
    assert ik.head_table(result).index.tolist() == order
    assert ik.summarise(result).attrs["ranked_first"] == first
    assert ik.top_heads(ik.summarise(result), None) == ik.top_heads(result, None)
    worst = {"low": 0.4, "high": 0.8, "neither": 0.8}[better]
    assert [str(head) for head in ik.top_heads(result, None, min_score=worst)] == order[:1]
    assert [str(head) for head in ik.top_heads(result, 1, largest=False)] == order[-1:]


def test_metrics_say_which_side_is_better(embedded):
    """Without the heads that answer, the answer's logit falls: they come first, and the first ablated costs most."""
    for metric in (ik.loss, ik.repeat_loss, ik.kl_to(torch.zeros(1, 8))):
        assert metric.better == "low"
    for metric in (ik.logit_difference, ik.probability, ik.label_accuracy):
        assert metric.better == "high"
    prompts = ik.label_accuracy.ready(embedded, None)
    swept = ik.sweep(embedded, prompts, edit=ik.Zero(), metric=ik.label_accuracy)
    assert swept.attrs["better"] == "high"
    means = swept["effect"].mean("prompt").values
    first = ik.top_heads(swept, 1)[0]
    assert means[first] == means.min() < 0
    curve = ik.ablation_curve(embedded, prompts, swept, ks=[1], metric=ik.label_accuracy, controls=1)
    assert curve["heads"].item() == str(first)
    by_function = ik.sweep(embedded, prompts, edit=ik.Zero(), metric=lambda logits, _: logits[:, -1, 0])
    assert by_function.attrs["better"] == "neither"


@pytest.mark.parametrize("up", [True, False])
def test_heads_of_a_patch_rank_by_what_brings_the_metric_towards_the_source(up):
    values = np.tile([[[0.5, -0.9, 0.01]]], (8, 1, 1))
    towards = made(values).assign(
        baseline=("prompt", np.zeros(8)), source_value=("prompt", np.full(8, 1.0 if up else -1.0)),
        normalised=(("layer", "head"), values[0]),
    ).assign_attrs(better="low")  # fmt: skip
    assert [str(head) for head in ik.top_heads(towards, 1)] == ["L0H0" if up else "L0H1"]
    alike = towards.assign(normalised=towards["normalised"] * np.nan)  # the two runs hardly differ
    assert ik.summarise(alike).attrs["ranked_first"] == "size"
