"""Figures of interventions show the data they are given. Tested by their data, not their pixels."""

import html
import json
import re

import numpy as np
import pytest
import xarray as xr

from induction_kernel.heads import summarise
from induction_kernel.interventions._activations import SITES
from induction_kernel.plots._ablation_curves import attribution_check, curve_plot
from induction_kernel.plots._effect_grid import intervals
from induction_kernel.plots._effect_map import effect_map
from induction_kernel.plots._head_maps import head_map
from induction_kernel.plots._offline import figure_fragment
from induction_kernel.plots._style import SITES as SITES_IN_WORDS

LAYERS, HEADS, POSITIONS, PROMPTS = 3, 4, 6, 8
SIZES = {"layer": LAYERS, "head": HEADS, "position": POSITIONS}
ATTRS = {
    "method": "sweep", "site": "z", "edit": "Mean", "hold": "none", "metric": "repeat_loss", "unit": "nats",
    "model": "hand <made>",
}  # fmt: skip
WORDS = ["<bos>", " the", "\n", " incomprehensibilities", "<b>x</b>", " fox"]


def sweep(*by, prompts=PROMPTS, **attrs):
    """Small effects of both signs, and -2 in the last cell."""
    shape = (prompts, *(SIZES[dim] for dim in by))
    effect = np.random.default_rng(0).normal(0, 0.1, shape)
    effect[(slice(None), *(-1 for _ in by))] = -2.0
    coords = {"prompt": range(prompts)} | {dim: range(SIZES[dim]) for dim in by}
    if "head" in by:
        names = [[f"L{layer}H{head}" for head in range(HEADS)] for layer in range(LAYERS)]
        coords["name"] = (("layer", "head"), names)
    if "position" in by:
        coords["token"] = (("prompt", "position"), [WORDS] * prompts)
    variables = {"effect": (("prompt", *by), effect), "baseline": ("prompt", np.full(prompts, 3.0))}
    return xr.Dataset(variables, coords, ATTRS | attrs)


def ragged():
    """Every other prompt lacks the last two positions; nobody but the first has the last one."""
    results = sweep("layer", "position")
    effect, tokens = results["effect"].values.copy(), results["token"].values.astype(object)
    effect[1::2, :, -2:] = effect[1:, :, -1] = np.nan
    tokens[1::2, -2:] = tokens[1:, -1] = ""
    places = ("prompt", "position")
    return results.assign(effect=(("prompt", "layer", "position"), effect)).assign_coords(
        token=(places, tokens)
    )


def drawn(figure):
    (heat,) = (trace for trace in figure.data if trace.type == "heatmap")
    return heat


def labels(figure, axis="xaxis"):
    """The labels as they are seen: columns are named by the cells themselves."""
    if axis == "xaxis":
        return [str(each).rstrip("\u200b") for each in drawn(figure).x]
    return list(figure.layout[axis].ticktext)


def said(figure):
    """The title in one line, without markup."""
    text = figure.layout.title.text.replace("<br><span", ", <span", 1)  # the notes follow the title
    return re.sub("<[^>]*>", "", text.replace("<br>", " "))


@pytest.mark.parametrize(("by", "rows"), [("head", LAYERS), ("position", LAYERS)])
def test_a_map_shows_the_mean_of_every_cell(by, rows):
    results = sweep("layer", by)
    heat = drawn(effect_map(results))
    np.testing.assert_allclose(heat.z, results["effect"].mean("prompt"))
    assert len(heat.z) == rows
    assert (heat.zmin, heat.zmax) == (-2, 2)
    assert heat.colorscale[1] == (0.5, "rgb(247, 247, 247)")
    assert heat.colorbar.title.text == "effect (nats)"


def test_layers_go_downwards_whatever_the_order_of_the_dimensions():
    results = sweep("layer", "head")
    figure = effect_map(results.transpose("head", "layer", "prompt"))
    np.testing.assert_allclose(drawn(figure).z, results["effect"].mean("prompt"))
    assert figure.layout.yaxis.range == (LAYERS - 0.5, -0.5)
    assert labels(figure, "yaxis") == ["0", "1", "2"]


def test_chosen_layers_carry_their_own_numbers():
    figure = effect_map(sweep("layer", "head").isel(layer=[0, 2]))
    assert labels(figure, "yaxis") == ["0", "2"]
    assert drawn(figure).customdata[1, 3, 0] == "L2H3"


def test_hovering_tells_name_interval_and_prompts():
    results = sweep("layer", "head")
    heat = drawn(effect_map(results))
    name, said = heat.customdata[0, 1]
    mean = results["effect"].mean("prompt").values[0, 1]
    low, high = (float(each.replace("−", "-")) for each in re.search(r"\((.*) to (.*)\)", said).groups())
    assert name == "L0H1"
    assert low < mean < high
    assert said.endswith("<br>8 prompts")
    assert "nats" in heat.hovertemplate


def test_every_site_has_words():
    assert set(SITES_IN_WORDS) == set(SITES)


def test_one_prompt_has_no_interval():
    results = sweep("layer", "head", prompts=1)
    heat = drawn(effect_map(results))
    assert heat.customdata[0, 1, 1] == "<br>1 prompt"
    assert not re.search("nan", json.dumps(heat.to_plotly_json(), default=str), re.IGNORECASE)


def test_intervals_are_those_of_the_prompts_that_have_the_cell():
    values = np.random.default_rng(0).normal(1, 1, (40, 5))
    values[30:, 1] = values[:, 2] = values[1:, 3] = np.nan
    mean, low, high, n = intervals(values)
    np.testing.assert_array_equal(n, [40, 30, 0, 1, 40])
    np.testing.assert_allclose(
        mean[[0, 1, 4]], [values[:, 0].mean(), values[:30, 1].mean(), values[:, 4].mean()]
    )
    assert np.isnan([mean[2], low[2], low[3], high[3]]).all()
    error = values[:30, 1].std(ddof=1) / np.sqrt(30)
    np.testing.assert_allclose([high[1] - mean[1], mean[1] - low[1]], 1.96 * error, rtol=0.2)


def test_ragged_prompts_are_averaged_over_those_that_have_the_position():
    results = ragged()
    figure = effect_map(results)
    heat = drawn(figure)
    np.testing.assert_allclose(heat.z, results["effect"].mean("prompt"))
    assert [heat.customdata[0, at, 1].rpartition("<br>")[2] for at in (0, 4, 5)] == [
        "8 prompts",
        "4 prompts",
        "1 prompt",
    ]
    assert labels(figure)[5] == "fox"  # padding is no other token


def test_cells_that_nobody_has_are_blank():
    results = sweep("layer", "head")
    results["effect"][:, 1] = np.nan
    heat = drawn(effect_map(results))
    assert np.isnan(heat.z[1]).all()
    assert np.isfinite(heat.z[[0, 2]]).all()
    assert heat.hoverongaps is False
    assert "NaN" not in figure_fragment(effect_map(results)).partition("Plotly.newPlot")[2]


def test_no_effect_at_all_is_drawn_pale():
    heat = drawn(effect_map(sweep("layer", "head") * 0))
    assert (heat.zmin, heat.zmax) == (-1, 1)


def test_positions_carry_their_tokens_escaped_and_short():
    figure = effect_map(sweep("layer", "position"))
    seen = ["&lt;bos&gt;", "the", "↵", "incomprehen…", "&lt;b&gt;x&lt;/b&gt;", "fox"]
    assert labels(figure) == seen
    assert figure.layout.xaxis.title.text == "token"
    assert drawn(figure).customdata[1, 4, 0] == "layer 1, position 4: &lt;b&gt;x&lt;/b&gt;"


def test_quotation_marks_are_shown_as_they_are():
    """Plotly draws `&quot;` letter by letter: of named entities it reads amp, lt, gt, nbsp and some signs alone."""
    results = sweep("layer", "position").assign_attrs(model="\"a\" & 'b'")
    tokens = results["token"].values.astype(object)
    tokens[:, 2:4] = ['"', "'s"]
    figure = effect_map(results.assign_coords(token=(("prompt", "position"), tokens)))
    assert labels(figure)[2:4] == ['"', "'s"]
    assert drawn(figure).customdata[1, 2, 0] == 'layer 1, position 2: "'
    assert figure.layout.title.text.startswith("\"a\" &amp; 'b':")


def test_tokens_that_differ_are_marked_and_numbers_replace_them_where_most_do():
    results = sweep("layer", "position")
    tokens = results["token"].values.astype(object)
    tokens[3, 5] = " cat"
    figure = effect_map(results.assign_coords(token=(("prompt", "position"), tokens)))
    assert labels(figure)[4:] == ["&lt;b&gt;x&lt;/b&gt;", "fox/…"]
    assert drawn(figure).customdata[0, 5, 0].endswith("fox, cat")
    tokens[3] = list("abcdef")
    figure = effect_map(results.assign_coords(token=(("prompt", "position"), tokens)))
    assert labels(figure) == list("012345")
    assert figure.layout.xaxis.title.text == "position"
    assert labels(effect_map(results.drop_vars("token"))) == list("012345")


@pytest.mark.parametrize("count", [6, 40, 90, 700])
def test_labels_of_many_positions_do_not_overlap(count):
    """Plotly leaves out and turns labels of categories as they fit, unless it is told which and how; of numbers too."""
    results = sweep("layer", "position").isel(position=np.arange(count) % POSITIONS)
    figure = effect_map(results.assign_coords(position=range(count)))
    axis = figure.layout.xaxis
    assert axis.tickvals is None
    assert axis.dtick is None
    if count > 100:
        assert (axis.tickmode, axis.tickangle) == ("auto", 0)
        assert list(drawn(figure).x) == list(range(count))
    else:
        assert (axis.type, axis.autotickangles[-1], axis.automargin) == ("category", -90, True)
        assert axis.tickangle is None
        assert len(set(drawn(figure).x)) == count  # equal tokens are different categories


def test_positions_that_do_not_follow_one_another_keep_their_numbers():
    figure = effect_map(sweep("layer", "position").drop_vars("token").isel(position=[0, 2, 5]))
    assert labels(figure) == ["0", "2", "5"]
    assert figure.layout.xaxis.type == "category"


@pytest.mark.parametrize("by", [("layer",), ("layer", "head"), ("layer", "head", "position")])
def test_figures_are_as_wide_as_their_place(by):
    layout = effect_map(sweep(*by)).layout
    assert layout.width is None
    assert layout.autosize
    assert max(map(len, re.split("<br>", re.sub("</?span[^>]*>", "", layout.title.text)))) <= 100


def test_heads_by_position_are_the_strongest_ones():
    results = sweep("layer", "head", "position")
    results["effect"][:, 0, 2, 3] = 5.0
    results["effect"][:, 1] = np.nan
    figure = effect_map(results, top=2)
    heat = drawn(figure)
    assert labels(figure, "yaxis") == ["L0H2", "L2H3"]
    np.testing.assert_allclose(heat.z[0], results["effect"].mean("prompt")[0, 2])
    assert heat.customdata[0, 3, 0] == "L0H2, position 3: incomprehen…"
    assert said(figure).endswith("; the strongest 2 of 8 heads")
    everything = effect_map(results)
    assert len(drawn(everything).z) == 8  # those without a cell are left out
    assert "strongest" not in said(everything)


def test_heads_of_equal_effects_stay_in_their_order():
    results = sweep("layer", "head", "position").isel(head=np.arange(40) % HEADS).drop_vars("name")
    results = results.assign_coords(head=range(40)) * 0 + xr.DataArray(1 + np.arange(40) % 2, dims="head")
    odd = [f"L{layer}H{head}" for layer in range(LAYERS) for head in range(1, 40, 2)]
    assert labels(effect_map(results, top=50), "yaxis") == odd[:50]


def test_layers_alone_are_bars_with_intervals():
    results = sweep("layer")
    (bars,) = effect_map(results).data
    mean = results["effect"].mean("prompt").values
    np.testing.assert_allclose(bars.y, mean)
    assert (bars.error_y.array[:2] > 0).all()
    assert bars.marker.color[2] == "rgb(84, 39, 136)"


def test_normalised_effects_are_drawn_on_asking():
    results = sweep("layer", "position", unit="logits")
    shares = results["effect"].mean("prompt") / -2
    shares[0, 0] = np.nan
    figure = effect_map(results.assign(normalised=shares), show="normalised")
    heat = drawn(figure)
    np.testing.assert_allclose(heat.z, shares)
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert heat.customdata[2, 5, 1] == "<br>effect −2 logits (−2 to −2)<br>8 prompts"
    assert "0 as in the untouched run, 1 as in the source run; ratio of means over 8 prompts" in said(figure)
    bars = effect_map(sweep("layer").assign(normalised=("layer", [0.1, 0.2, 1.0])), show="normalised").data[0]
    np.testing.assert_allclose(bars.y, [0.1, 0.2, 1.0])


def test_estimates_are_drawn_where_there_is_no_effect():
    results = sweep("layer", "head").rename(effect="estimate")
    heat = drawn(effect_map(results))
    np.testing.assert_allclose(heat.z, results["estimate"].mean("prompt"))
    assert heat.colorbar.title.text == "estimated effect (nats)"


def test_titles_say_what_was_done_and_are_escaped():
    title = said(effect_map(sweep("layer", "head", hold="patterns", unit="<u>")))
    assert title == (
        "hand &lt;made&gt;: effect of mean ablation of head outputs on the loss on the repeat, attention patterns "
        "held, mean over 8 prompts; hovering shows 95% intervals"
    )
    long = effect_map(sweep("layer", "head", edit="A" * 400))
    assert max(map(len, html.unescape(long.layout.title.text).split("<br>")[:-1])) == 80
    assert (
        len(effect_map(sweep("layer", "head")).layout.title.text.split("<br>")) == 2
    )  # the title and its notes
    assert (
        "held<br><span" in effect_map(sweep("layer", "head", hold="patterns")).layout.title.text
    )  # no comma
    assert effect_map(sweep("layer", "head"), title="mine").layout.title.text == "mine"


@pytest.mark.parametrize(
    ("attrs", "wanted"),
    [
        ({"edit": "Zero", "site": "attn_out"}, "effect of zero ablation of attention outputs on"),
        (
            {"edit": "FromRun", "site": "resid_pre"},
            "activation patching of the residual stream before each layer on",
        ),
        ({"edit": "<Mine>", "metric": "my_metric"}, "effect of &lt;Mine&gt; of head outputs on my metric,"),
        (
            {"method": "path_patch", "site": "k", "receivers": "L1H0"},
            "path patching from each head (sender) to the keys of L1H0 (receiver) on",
        ),
        (
            {"method": "path_patch", "site": "q", "receivers": "a b c d e f"},
            "queries of a, b, c, d and 2 more (receivers)",
        ),
        ({"method": "path_patch", "site": "mlp_out", "receivers": "L1"}, "to the MLP of L1 (receiver) on"),
        ({"method": "path_patch", "site": "resid_post", "receivers": "L1"}, "to the logits (receiver) on"),
    ],
)
def test_titles_name_edit_site_sender_and_receiver_in_words(attrs, wanted):
    assert wanted in said(effect_map(sweep("layer", "head", **attrs)))
    assert wanted in said(head_map(sweep("layer", "head", **attrs)))


def test_keys_and_values_of_shared_heads_are_named_as_such():
    figure = effect_map(sweep("layer", "head", site="k").drop_vars("name"))
    assert figure.layout.xaxis.title.text == "key/value head"
    assert drawn(figure).customdata[1, 2, 0] == "L1H2"


def scores():
    values = np.random.default_rng(0).random((PROMPTS, LAYERS, HEADS))
    chance = ("prompt", np.zeros(PROMPTS))
    coords = {"layer": range(LAYERS), "head": range(HEADS), "name": (("layer", "head"), np.full((3, 4), "x"))}
    return xr.Dataset({"score": (("prompt", "layer", "head"), values), "chance": chance}, coords)


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ([1, 2], {}, TypeError, r"wanted the xarray\.Dataset of sweep, .* got list"),
        (sweep("layer", "head")["effect"], {}, TypeError, "got DataArray"),
        (xr.Dataset({"loss": ("prompt", [1.0])}), {}, ValueError, "holds 'effect'"),
        (scores(), {}, ValueError, "head_map draws them"),
        (summarise(scores()), {}, ValueError, "head_map draws them"),
        (sweep("layer", "head") * np.nan, {}, ValueError, "no finite value"),
        (sweep(), {}, ValueError, r"over \(prompt\): give by="),
        (sweep("layer", "head").isel(prompt=0), {}, ValueError, r"isel\(prompt=\[0\]\)"),
        (sweep("layer", "head").expand_dims("draw"), {}, ValueError, "draw"),
        (sweep("layer", "head"), {"show": "normalised"}, ValueError, "of patch, which holds 'normalised'"),
        (sweep("layer", "head"), {"show": "value"}, ValueError, "one of 'effect'"),
        (sweep("layer", "head", "position"), {"top": 0}, ValueError, "top >= 1"),
    ],
)
def test_effect_map_says_what_it_wanted(given, options, error, message):
    with pytest.raises(error, match=message):
        effect_map(given, **options)


KS, DRAWS = (1, 2, 4, 50), 40


def curve(shares=True):
    """Twice the share for twice the heads, controls around a hundredth of it, none for all heads."""
    k, rng = np.array(KS), np.random.default_rng(0)
    share = k / 4
    control = share[:, None] * rng.uniform(0, 0.02, (len(k), DRAWS))
    control[-1] = np.nan
    effect = 8 * share + rng.normal(0, 0.1, (PROMPTS, len(k)))
    heads = [" ".join(f"L0H{head}" for head in range(each)) for each in k]
    variables = {
        "effect": (("prompt", "k"), effect),
        "control_effect": (("prompt", "k", "draw"), np.tile(8 * control, (PROMPTS, 1, 1))),
    }
    if shares:
        variables |= {
            "share": ("k", share),
            "share_low": ("k", share - 0.1),
            "share_high": ("k", share + 0.1),
        }
        variables |= {"control_share": (("k", "draw"), control)}
    return xr.Dataset(variables, {"k": k, "heads": ("k", heads)}, ATTRS | {"method": "ablation_curve"})


def lines(figure):
    return {trace.name.partition(" ")[0]: trace for trace in figure.data if trace.name != "band"}


def test_curve_shows_shares_beside_random_heads():
    data = curve()
    figure = curve_plot(data)
    seen = lines(figure)
    assert list(seen["strongest"].x) == ["1", "2", "4", "50"]
    np.testing.assert_allclose(seen["strongest"].y, data["share"])
    assert seen["random"].name == "random heads of the same layers"
    np.testing.assert_allclose(seen["random"].y[:3], data["control_share"].median("draw")[:3])
    assert np.isnan(seen["random"].y[3])
    assert figure.layout.yaxis.tickformat == ".0%"
    assert figure.layout.showlegend


def test_curve_bands_are_draws_and_prompts():
    data = curve()
    control, prompts = (trace for trace in curve_plot(data).data if trace.name == "band")
    assert list(control.x) == ["1", "2", "4", "4", "2", "1"]  # without the k that has no control
    low, high = data["control_share"][:3].quantile([0.05, 0.95], "draw")
    np.testing.assert_allclose(control.y, np.r_[high, low[::-1]])
    np.testing.assert_allclose(prompts.y, np.r_[data["share_high"], data["share_low"][::-1]])


def test_curve_lists_the_heads_on_hovering():
    said = lines(curve_plot(curve()))["strongest"].customdata
    assert said[1] == " (40% to 60%)<br>L0H0 L0H1"
    assert said[3].count("L0H") == 40
    assert said[3].endswith("<br>and 10 more")


@pytest.mark.parametrize("absent", [True, False])
def test_curve_without_reliable_shares_shows_effects(absent):
    data = curve(shares=not absent)
    data = data if absent else data.assign(share=data["share"] * np.nan)
    figure = curve_plot(data)
    seen = lines(figure)
    np.testing.assert_allclose(seen["strongest"].y, data["effect"].mean("prompt"))
    np.testing.assert_allclose(seen["random"].y[0], data["control_effect"][0, 0].median())
    assert figure.layout.yaxis.title.text == "effect (nats)"


def test_curve_without_controls_or_with_one_k_has_fewer_lines():
    bare = curve().drop_vars(["control_share", "control_effect"])
    assert set(lines(curve_plot(bare))) == {"strongest"}
    assert len(curve_plot(curve().isel(draw=slice(0))).data) == 2
    assert [trace.name for trace in curve_plot(bare.isel(k=[2])).data] == ["strongest heads"]


def test_a_curve_says_what_its_bands_are_and_its_cautions():
    title = said(curve_plot(curve().assign_attrs(cautions="The benefit is small.")))
    assert (
        "over 8 prompts; bands: 95% interval over prompts, and 5% to 95% of random sets. The benefit" in title
    )
    assert title.endswith("The benefit is small.")
    assert "(mean ablation of head outputs, the loss on the repeat)" in title


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "of ablation_curve, got int"),
        (scores(), ValueError, "holds 'effect'"),
        (sweep("layer", "head"), ValueError, "effect_map draws a sweep"),
        (curve() * np.nan, ValueError, "no finite value"),
    ],
)
def test_curve_plot_says_what_it_wanted(given, error, message):
    with pytest.raises(error, match=message):
        curve_plot(given)


def attribution(**attrs):
    exact = np.array([3.0, 1.0, -2.0, 0.0, 0.1])
    estimated = np.array([1.5, 1.1, -2.0, 0.0, np.nan])
    groups = ["strongest", "strongest", "strongest", "random", "random"]
    cells = ["L0H1 <s>", "L1H0", "L1H1", "L0H0", "L0H2"]
    results = sweep("layer", "head").rename(effect="estimate")
    results = results.assign(exact=("cell", exact), estimated=("cell", estimated))
    results = results.assign_coords(cell=cells, group=("cell", groups))
    return results.assign_attrs({"correlation": 0.98765, "worst_miss": 1.5} | attrs)


def test_estimates_stand_against_exact_effects():
    figure = attribution_check(attribution())
    equal, random, strongest = figure.data
    np.testing.assert_array_equal(strongest.x, [3, 1, -2])
    np.testing.assert_array_equal(strongest.y, [1.5, 1.1, -2])
    assert list(strongest.text) == ["L0H1 &lt;s&gt;", "", ""]  # the worst miss
    assert list(random.customdata) == ["L0H0", "L0H2"]
    assert list(random.text) == ["", ""]
    np.testing.assert_array_equal(equal.x, equal.y)
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
    assert figure.layout.xaxis.range[0] < -2 < 3 < figure.layout.xaxis.range[1]
    assert said(figure).endswith("means over 8 prompts; correlation 0.988, largest error 1.5 nats")


def test_an_undefined_correlation_is_a_dash():
    assert "correlation –" in attribution_check(attribution(correlation=np.nan)).layout.title.text


def test_cells_without_groups_are_one_group():
    assert [trace.name for trace in attribution_check(attribution().drop_vars("group")).data] == [
        "equal",
        "verified cells",
    ]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("text", TypeError, "of attribution"),
        (attribution().drop_vars("exact"), ValueError, "verify=20"),
        (sweep("layer", "head"), ValueError, "holds 'exact'"),
        (attribution().drop_vars("estimated"), ValueError, "holds 'estimated'"),
    ],
)
def test_exact_plot_says_what_it_wanted(given, error, message):
    with pytest.raises(error, match=message):
        attribution_check(given)
