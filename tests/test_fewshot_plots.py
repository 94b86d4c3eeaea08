"""Figures of few-shot results show the data they are given. Tested by their data, not their pixels."""

import re
from dataclasses import replace

import numpy as np
import plotly.colors
import pytest
import torch
import xarray as xr
import zoo
from naive import all_patterns

import induction_kernel as ik
from induction_kernel.kernel._vote_text import quoted_votes
from induction_kernel.kernel._vote_view import view_of_votes
from induction_kernel.plots._offline import figure_fragment
from induction_kernel.prompts import FewShotPrompts

LAYERS, HEADS, PROMPTS = 3, 4, 40
rng = np.random.default_rng(0)


def reconstruction(*over, variable="agreement", **extra):
    """Votes that agree as often as chance has it, and nearly always in the last cell."""
    sizes = {"layer": LAYERS, "head": HEADS, "kernel": 2}
    agrees = np.random.default_rng(0).random((PROMPTS, *(sizes[dim] for dim in over))) < 0.5
    agrees[(slice(None), *(-1 for _ in over))] = True
    agrees[0, ...] = False
    coords = {dim: range(sizes[dim]) for dim in over}
    if "kernel" in over:
        coords["kernel"] = ["exponential", "<linear>"]
    return xr.Dataset(
        {variable: (("prompt", *over), agrees.astype(float))}, coords, {"model": "hand <made>"}
    ).assign(extra)


def said(figure):
    """The title in one line, without markup."""
    text = figure.layout.title.text.replace("<br><span", ", <span", 1)  # the notes follow the title
    return re.sub("<[^>]*>", "", text.replace("<br>", " "))


def named(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


# head_map of a reconstruction


def voted(predictions=True):
    """What every head of the embedded model votes on its own few-shot prompts."""
    model = ik.load("tiny")
    prompts = ik.prompts.word_episodes(model, prompts=PROMPTS, noise=0.3)
    weights = ik.scorers.demonstration_weights(model, prompts, progress=False)
    given = prompts.demonstrations.target.numpy() if predictions else None  # a model that is always right
    return ik.kernel.vote(weights, prompts, given)


@pytest.mark.parametrize(
    ("predictions", "variable", "what"),
    [(True, "agreement", "agreement with the model"), (False, "correct", "agreement with the right label")],
)
def test_a_head_map_shows_how_often_votes_agree_and_marks_those_beyond_the_threshold(
    predictions, variable, what
):
    votes = voted(predictions)
    figure = ik.head_map(votes)
    heat, marks = figure.data
    np.testing.assert_allclose(heat.z, votes[variable].mean("prompt"))
    assert 0 < len(marks.x) < votes["passes"].size
    assert {*zip(marks.y, marks.x, strict=True)} == {*zip(*np.nonzero(votes["passes"].values), strict=True)}
    assert said(figure).startswith(f"tiny: {what}, mean over 40 prompts; hovering shows 95% intervals")
    assert "threshold" in heat.hovertemplate
    assert "chance" in heat.hovertemplate
    assert heat.customdata[1, 7][0] == "L1H7"
    assert (heat.zmin, heat.zmax) == (0, 1)


# line_plot


def test_a_line_joins_the_best_head_of_each_layer_in_front_of_all_heads():
    votes = reconstruction("layer", "head")
    sums = reconstruction("layer")
    figure = ik.plots.line_plot({"one head": votes, "sum over heads": sums}, "agreement")
    mean = votes["agreement"].mean("prompt")
    line = named(figure, "one head")
    np.testing.assert_allclose(line.y, mean.max("head"))
    assert [said.split("<br>")[1] for said in line.customdata] == [
        f"best head: L{layer}H{int(mean[layer].values.argmax())}" for layer in range(LAYERS)
    ]
    dots = named(figure, "every head")
    np.testing.assert_allclose(np.reshape(dots.y, (LAYERS, HEADS)), mean)
    assert dots.x.tolist() == np.repeat(range(LAYERS), HEADS).tolist()
    np.testing.assert_allclose(named(figure, "sum over heads").y, sums["agreement"].mean("prompt"))
    assert figure.layout.showlegend
    assert figure.layout.legend.x == 0  # in line with the axis
    assert "agree" in figure.layout.yaxis.title.text


def test_heads_are_called_as_the_result_calls_them():
    votes = reconstruction("layer", "head")
    names = [[f"L{layer}KV{head}" for head in range(HEADS)] for layer in range(LAYERS)]
    line = ik.plots.line_plot(votes.assign_coords(name=(("layer", "head"), names)), "agreement").data[-1]
    assert line.customdata[LAYERS - 1].startswith(f"<br>best head: L{LAYERS - 1}KV{HEADS - 1}")


def test_bands_are_bootstraps_over_prompts():
    votes = reconstruction("layer")
    band, line = ik.plots.line_plot(votes, "agreement").data
    high, low = np.split(band.y, 2)
    assert (low[::-1] <= line.y).all()
    assert (line.y <= high).all()
    error = np.sqrt(line.y[0] * (1 - line.y[0]) / PROMPTS)
    np.testing.assert_allclose(high[0] - low[-1], 2 * 1.96 * error, rtol=0.15)
    assert re.fullmatch(r"<br>0\.\d+ to 0\.\d+", line.customdata[0])


def theory():
    n, seeds = 2 ** np.arange(6), np.arange(5)
    distance = (1 + seeds[:, None, None]) / np.sqrt(n) * np.array([1, 2])[:, None]
    over = ("seed", "kernel", "demonstrations")
    coords = {"seed": seeds, "kernel": ["paper", "<exp>"], "demonstrations": n}
    return xr.Dataset({"distance": (over, distance), "accuracy": (over, 1 / (1 + distance))}, coords)


def test_over_seeds_the_band_is_from_the_lowest_to_the_highest_and_every_kernel_has_its_line():
    results = theory()
    figure = ik.plots.line_plot(results, ["distance", "accuracy"], over="demonstrations")
    bands = [trace for trace in figure.data if trace.name == "band"]
    assert len(bands) == 4
    high, low = np.split(bands[1].y, 2)
    np.testing.assert_allclose(high, results["distance"].isel(kernel=1).max("seed"))
    np.testing.assert_allclose(low[::-1], results["distance"].isel(kernel=1).min("seed"))
    lines = [trace for trace in figure.data if trace.name == "&lt;exp&gt;"]
    assert [line.yaxis for line in lines] == ["y", "y2"]
    assert [line.showlegend for line in lines] == [True, False]
    np.testing.assert_allclose(lines[1].y, results["accuracy"].isel(kernel=1).mean("seed"))
    assert figure.layout.xaxis.type == "log"  # 1, 2, 4, ... stand evenly
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "4", "8", "16", "32"]


def test_the_intervals_of_the_result_come_first_and_chance_is_dotted():
    results = xr.Dataset(
        {
            "accuracy": (("layer", "offset"), [[0.5, 0.6], [0.7, 0.9]]),
            "accuracy_low": (("offset", "layer"), [[0.4, 0.6], [0.5, 0.8]]),
            "accuracy_high": (("layer", "offset"), [[0.6, 0.7], [0.8, 1.0]]),
            "chance": 0.25,
        },
        {"layer": [4, 5], "offset": [-1, 0]},
    )
    results["selectivity"] = results["accuracy"] - 0.25
    figure = ik.plots.line_plot(results, ["accuracy", "selectivity"])
    lines = [trace.name for trace in figure.data if trace.mode == "lines+markers"]
    assert lines == ["offset -1", "offset 0"] * 2
    np.testing.assert_allclose(figure.data[0].y, [0.6, 0.8, 0.6, 0.4])
    (shape,) = figure.layout.shapes  # of accuracies alone: of selectivity it is no chance
    assert (shape.y0, shape.y1) == (0.25, 0.25)
    assert list(figure.layout.xaxis.tickvals) == [4, 5]


def test_words_on_the_axis_are_categories():
    results = xr.Dataset({"accuracy": ("shift", [0.1, 0.2])}, {"shift": ["none", "typos"]})
    figure = ik.plots.line_plot(results, "accuracy", over="shift")
    assert figure.layout.xaxis.type == "category"
    assert len(figure.data) == 1
    assert "NaN" not in figure_fragment(figure).partition("Plotly.newPlot")[2]


@pytest.mark.parametrize(
    ("results", "options", "error", "message"),
    [
        (theory()["distance"], {"show": "distance"}, TypeError, "wanted the xarray.Dataset"),
        (theory(), {"show": "agreement"}, ValueError, "holds 'agreement'"),
        (theory(), {"show": "distance"}, ValueError, "over 'layer'"),
        (theory(), {"show": [], "over": "demonstrations"}, ValueError, "variables to show"),
        (reconstruction("layer", "kernel").expand_dims("seed"), {"show": "agreement"}, ValueError, "one more"),
        (theory().isel(kernel=[0] * 19), {"show": "distance", "over": "demonstrations"}, ValueError, "at most 18"),
    ],
)  # fmt: skip
def test_line_plot_says_what_it_wanted(results, options, error, message):
    with pytest.raises(error, match=message):
        ik.plots.line_plot(results, **options)


# interval_plot


def held_out():
    middle = np.array([0.9, 0.7, 0.4])
    parts = {"agreement": middle, "agreement_low": middle - 0.1, "agreement_high": middle + 0.05}
    parts |= {key.replace("agreement", "accuracy"): value / 2 for key, value in parts.items()}
    return xr.Dataset(
        {key: ("row", value) for key, value in parts.items()},
        {"row": ["best head", "layer <sum>", "majority_label"]},
        {"model": "hand <made>"},
    )


def test_a_table_has_a_row_a_method_and_a_panel_a_variable():
    figure = ik.plots.interval_plot(held_out(), ["agreement", "accuracy"])
    left, right = figure.data
    np.testing.assert_allclose(left.x, [0.9, 0.7, 0.4])
    np.testing.assert_allclose(left.error_x.array, 0.05)
    np.testing.assert_allclose(left.error_x.arrayminus, 0.1)
    np.testing.assert_allclose(right.x, [0.45, 0.35, 0.2])
    assert list(figure.layout.yaxis.ticktext) == ["best head", "layer &lt;sum&gt;", "majority label"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first on top
    assert said(figure) == "hand &lt;made&gt;: agreement, accuracy, bars: 95% intervals"
    assert left.customdata[0] == "best head<br>0.8 to 0.95"
    assert not figure.layout.showlegend


def test_a_second_dimension_gets_colours():
    results = xr.Dataset(
        {"effect": (("prompt", "condition", "what"), rng.normal(size=(PROMPTS, 2, 2)))},
        {"condition": ["baseline", "knock-out"], "what": ["labels", "others"]},
    )
    labels, others = ik.plots.interval_plot(results, "effect", over="condition").data
    assert (labels.name, others.name) == ("labels", "others")
    np.testing.assert_allclose(others.x, results["effect"].isel(what=1).mean("prompt"))
    assert labels.marker.color != others.marker.color
    assert (np.asarray(labels.y) < others.y).all()
    assert (others.error_x.array > 0).all()


@pytest.mark.parametrize(
    ("results", "options", "error", "message"),
    [
        ({"agreement": 1}, {"show": "agreement"}, TypeError, "got dict"),
        (held_out(), {"show": "correct"}, ValueError, "holds 'correct'"),
        (held_out(), {"show": []}, ValueError, "at least one variable"),
        (held_out(), {"show": "agreement", "over": "layer"}, ValueError, "over 'layer'"),
    ],
)
def test_interval_plot_says_what_it_wanted(results, options, error, message):
    with pytest.raises(error, match=message):
        ik.plots.interval_plot(results, **options)


# demonstration_attention, and its map


def naive_parts(prompts, p):
    """(part, first token, end): a loop over the prompt's tokens."""
    found, length = prompts.demonstrations, int(prompts.lengths[p])
    spans = [
        (i + 1, *found.spans[p, i].tolist()) for i in range(found.mask.shape[1]) if bool(found.mask[p, i])
    ]
    parts = [(0, 0, min(start for _, start, _ in spans)), *spans]
    parts.append((found.mask.shape[1] + 1, max(stop for *_, stop in spans), length))
    return [each for each in parts if each[2] > each[1]]


def naive_demonstration_attention(model, prompts, points):
    """`[layer, head, part, point]` and `[layer, head, part]`: numpy's interpolation, a prompt, head, part at a time."""
    kept, inside, count = {}, {}, prompts.demonstrations.mask.shape[1] + 2
    for layer, pattern in enumerate(all_patterns(model, prompts.tokens)):
        for p, h in np.ndindex(*pattern.shape[:2]):
            for part, start, stop in naive_parts(prompts, p):
                row = pattern[p, h, int(prompts.lengths[p]) - 1, start:stop].double().numpy()
                at = np.linspace(0, len(row) - 1, points)
                kept.setdefault((layer, h, part), []).append(np.interp(at, np.arange(len(row)), row))
                inside[layer, h, part] = inside.get((layer, h, part), 0) + row.sum() / len(pattern)
    out = np.full((model.cfg.n_layers, model.cfg.n_heads, count, points), np.nan)
    mass = np.zeros(out.shape[:3])
    for cell, values in kept.items():
        out[cell], mass[cell] = np.mean(values, axis=0), inside[cell]
    return out, mass


def ragged_prompts(model):
    """Demonstrations of one word or several, and prompts that have fewer of them."""
    shots = [
        [("fox", "dax"), ("apple pear plum", "wug"), ("bear", "dax")],
        [("grape mango", "wug"), ("the red wolf", "dax")],
    ]
    return ik.few_shot_prompts(
        model, shots, ["lion", "fig lime"], template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )


@pytest.mark.parametrize("points", [2, 7, 30])
@pytest.mark.parametrize("batch_size", [1, None])
def test_attention_along_demonstrations_is_that_of_the_slow_twin(points, batch_size):
    model = ik.load("tiny", dtype=torch.float64)
    prompts = ragged_prompts(model)
    found = ik.kernel.demonstration_attention(
        model, prompts, points=points, batch_size=batch_size, progress=False
    )
    expected, mass = naive_demonstration_attention(model, prompts, points)
    np.testing.assert_allclose(found["attention"], expected, atol=1e-12)
    np.testing.assert_allclose(found["mass"], mass, atol=1e-12)
    assert found["part"].values.tolist() == ["start", "1", "2", "3", "query"]
    assert found["n"].values.tolist() == [2, 2, 2, 1, 2]
    assert found["name"].values[1, 7] == "L1H7"


def test_its_ends_are_the_first_token_and_the_label():
    model = ik.load("tiny", dtype=torch.float64)
    prompts = ik.prompts.word_episodes(model, prompts=6)
    found = ik.kernel.demonstration_attention(model, prompts, layers=[1], progress=False)
    weights = ik.scorers.demonstration_weights(model, prompts, pooling="label", layers=[1], progress=False)
    shown = found.isel(part=slice(1, -1))["attention"]
    np.testing.assert_allclose(shown.isel(point=-1), weights["weight"].mean("prompt"), atol=1e-12)
    assert found["layer"].values.tolist() == [1]
    assert found.sizes["point"] == 30


def test_the_start_is_bos_and_the_query_ends_in_the_last_token():
    """All of the prompt but separators is in some part, so nothing of the attention is missing where there are none."""
    model = ik.load("tiny", dtype=torch.float64)
    prompts = ik.prompts.word_episodes(model, prompts=5)
    found = ik.kernel.demonstration_attention(model, prompts, progress=False)
    rows = [
        pattern[torch.arange(5), :, prompts.lengths - 1] for pattern in all_patterns(model, prompts.tokens)
    ]
    for layer, row in enumerate(rows):  # prompts of one length
        at = found.sel(layer=layer)
        np.testing.assert_allclose(
            at["attention"].sel(part="start", point=0), row[:, :, 0].mean(0), atol=1e-12
        )
        np.testing.assert_allclose(at["mass"].sel(part="start"), row[:, :, 0].mean(0), atol=1e-12)
        np.testing.assert_allclose(
            at["attention"].sel(part="query", point=1), row[:, :, -1].mean(0), atol=1e-12
        )
        end = int(prompts.demonstrations.spans.amax())
        np.testing.assert_allclose(at["mass"].sel(part="query"), row[:, :, end:].sum(-1).mean(0), atol=1e-12)
    assert (found["mass"].sum("part") < 1).all()
    bare = prompts.tokens[:, 1:], prompts.lengths - 1, prompts.scored[:, 1:]
    given = prompts.demonstrations
    moved = replace(given, spans=given.spans - 1, label_positions=given.label_positions - 1, inputs=None)
    without = ik.kernel.demonstration_attention(
        model, FewShotPrompts(*bare, demonstrations=moved), progress=False
    )
    assert int(without["n"].sel(part="start")) == 0
    assert without["attention"].sel(part="start").isnull().all()
    assert (without["mass"].sel(part="start") == 0).all()


def test_it_is_kept_in_a_file_and_leaves_the_model_as_it_was(tmp_path):
    model = ik.load("tiny")
    found = ik.kernel.demonstration_attention(model, progress=False)
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), found)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    broken = zoo.fresh("attention-only", dtype=torch.float32)
    with pytest.raises(ValueError, match="few_shot"):
        ik.kernel.demonstration_attention(
            broken, ik.repeated_tokens(broken, prompts=2, bos=False), progress=False
        )


@pytest.fixture(scope="module")
def along():
    return ik.kernel.demonstration_attention(ik.load("tiny"), points=5, progress=False)


def test_a_demonstration_map_has_a_row_a_layer_and_blanks_between(along):
    figure = ik.plots.demonstration_map(along)
    z = np.array(figure.data[0].z, float)
    assert z.shape == (2, 10 * 6 - 1)
    assert np.isnan(z[:, 5::6]).all()
    np.testing.assert_allclose(z[:, 12:17], along["attention"].mean("head").sel(part="2"))
    assert figure.data[0].customdata[1][0] == "layer 1, start<br>0% of the way"
    assert figure.data[0].customdata[1][12] == "layer 1, demonstration 2<br>0% of the way"
    assert figure.data[0].customdata[1][16] == "layer 1, demonstration 2<br>100% of the way"
    assert figure.data[0].customdata[0][-1] == "layer 0, query<br>100% of the way"
    assert list(figure.layout.xaxis.ticktext) == ["start", *map(str, range(1, 9)), "query"]
    colours = dict(figure.data[0].colorscale)
    assert colours[(1 / 9) ** 2] == plotly.colors.sequential.Cividis[1]  # by the square root


def test_a_demonstration_map_of_heads_has_a_row_a_head(along):
    figure = ik.plots.demonstration_map(along, heads=["L1H7", (0, 2)])
    z = np.array(figure.data[0].z, float)
    np.testing.assert_allclose(z[0, :5], along["attention"][1, 7, 0])
    np.testing.assert_allclose(z[1, :5], along["attention"][0, 2, 0])
    assert list(figure.layout.yaxis.ticktext) == ["L1H7", "L0H2"]
    assert list(figure.layout.yaxis.tickvals) == [0, 1]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda along: along.mean("head"), {}, r"without \['head'\]"),
        (lambda along: along, {"heads": "L7H7"}, "L7H7"),
        (lambda along: along, {"heads": []}, "got none"),
        (lambda along: along.drop_vars("attention"), {}, "holds 'attention'"),
    ],
)
def test_demonstration_map_says_what_it_wanted(along, change, options, message):
    with pytest.raises(ValueError, match=message):
        ik.plots.demonstration_map(change(along), **options)


# quoted_votes


@pytest.mark.parametrize("predictions", [True, False])
def test_votes_are_quoted_as_they_stand_in_the_prompt(predictions, tmp_path):
    model = ik.load("tiny")
    prompts = ragged_prompts(model)
    weights = ik.scorers.demonstration_weights(model, prompts, progress=False).sel(layer=1, head=7)
    found = quoted_votes(weights, prompts, [1, 0] if predictions else None)
    assert found["text"].values.tolist() == [
        ["fox", "apple pear plum", "bear"],
        ["grape mango", "the red wolf", ""],
    ]
    assert found["query"].values.tolist() == ["lion", "fig lime"]  # without the sign that ends the template
    assert found["label"].values.tolist() == ["dax", "wug"]
    assert found.attrs["source"] == "L1H7"
    shares = (
        found["weight"]
        .fillna(0)
        .dot(found["label_class"] == xr.DataArray([0, 1], dims="label"), "demonstration")
    )
    np.testing.assert_allclose(found["vote"], shares / found["weight"].sum("demonstration"))
    np.testing.assert_array_equal(found["prediction"], found["vote"].argmax("label"))
    assert ("model_prediction" in found) == predictions
    found.to_netcdf(tmp_path / "votes.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "votes.nc", engine="h5netcdf") as again:
        xr.testing.assert_equal(again.load(), found)
    html = view_of_votes(found).fragment()
    assert "apple pear plum" in html
    assert html.count('class="d"') == 5


@pytest.mark.parametrize(
    ("chosen", "source"),
    [
        (lambda weights: weights.sum("head").sel(layer=1), "the heads of layer 1 together"),
        (lambda weights: weights.mean(["layer", "head"]), "these weights"),
        (lambda weights: weights.sel(layer=0, head=0, drop=True).assign_coords(kernel="cosine"), "cosine"),
    ],
)
def test_a_quoted_vote_says_whose_it_is(chosen, source):
    model = ik.load("tiny")
    prompts = ik.prompts.word_episodes(model, prompts=2)
    weights = ik.scorers.demonstration_weights(model, prompts, progress=False)
    assert quoted_votes(chosen(weights), prompts).attrs["source"] == source


# vote_view


def test_one_call_shows_the_vote_of_a_head():
    model = ik.load("tiny")
    prompts = ik.prompts.word_episodes(model, prompts=3, shots=4)
    answers = ik.fewshot.predict(model, prompts, pooling="max", progress=False)
    shown = ik.kernel.vote_view(answers, prompts, answers, head="L1H7", show=1).fragment()
    by_hand = quoted_votes(answers[["weight"]].sel(layer=1, head=7), prompts, answers)
    assert shown == view_of_votes(by_hand, prompts=1).fragment()
    assert "L1H7" in shown
    with pytest.raises(ValueError, match="choose by"):
        ik.kernel.vote_view(answers, prompts, answers)


EVIL = "</span><script>alert(1)</script> &amp; fox "


def votes(model_prediction=True):
    """Two prompts: weights 3 to 1 for the first label, and a prompt that has one demonstration fewer."""
    return xr.Dataset(
        {
            "weight": (("prompt", "demonstration"), [[0.3, 0.1, 0.2], [0.1, 0.2, np.nan]]),
            "vote": (("prompt", "label"), [[5 / 6, 1 / 6], [1 / 3, 2 / 3]]),
            "prediction": ("prompt", [0, 1]),
        }
        | ({"model_prediction": ("prompt", [0, -1])} if model_prediction else {}),
        {
            "label": ["dax", "<wug>"],
            "label_class": (("prompt", "demonstration"), [[0, 1, 0], [0, 1, -1]]),
            "target": ("prompt", [1, -1]),
            "text": (("prompt", "demonstration"), [[EVIL, "pear ", "bear "], ["lion ", "plum ", ""]]),
            "query": ("prompt", ["wolf", "fig\n<b>"]),
        },
        {"model": "hand <made>", "source": "L1H0"},
    )


def shares_in(html):
    return [float(each) for each in re.findall(r'<span class="n">([\d.]+)</span>', html)]


def test_a_view_has_every_demonstration_with_its_share_and_shade():
    html = view_of_votes(votes(), prompts=0).fragment()
    assert shares_in(html) == [0.5, 0.17, 0.33]
    shades = [float(each) for each in re.findall(r"background: rgba\(.*?, ([\d.]+)\)", html)]
    assert shades[0] == max(shades)
    np.testing.assert_allclose(
        np.diff([shades[1], shades[2], shades[0]]), 0.12, atol=2e-3
    )  # shades grow evenly
    assert "vote <b>dax</b> · model <b>dax</b> · right <b>&lt;wug&gt;</b>" in html
    assert "<span>0.83</span>" in html
    assert "width: 83.3%" in html


def test_what_is_not_known_or_not_there_is_left_out():
    html = view_of_votes(votes(), prompts=1).fragment()
    assert shares_in(html) == [0.33, 0.67]
    assert "— vote <b>&lt;wug&gt;</b></span>" in html
    assert "model <b>" not in view_of_votes(votes(model_prediction=False)).fragment()


def test_text_cannot_become_markup():
    html = view_of_votes(votes()).fragment()
    assert "<script" not in html
    assert "&lt;/span&gt;&lt;script&gt;" in html
    assert "&amp;amp; fox" in html
    assert "fig\n&lt;b&gt;" in html
    assert "hand &lt;made&gt;" in html


def test_the_first_prompt_is_open_and_the_view_saves_itself(tmp_path):
    view = view_of_votes(votes())
    html = view._repr_html_()
    assert html.count("<details") == 2
    assert html.index("<details open>") < html.index("<details>")
    assert repr(view).startswith("VoteView(2 prompts;")
    page = view.save(tmp_path / "votes.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert html in page
    assert not re.search(r"\s(src|href)=", page)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda each: [1], {}, TypeError, "of quoted_votes, got list"),
        (lambda each: each.drop_vars("text"), {}, ValueError, r"lacks \['text'\]"),
        (lambda each: each, {"prompts": 2}, ValueError, "from 0 to 1"),
        (lambda each: each, {"prompts": []}, ValueError, "from 0 to 1"),
    ],
)
def test_view_of_votes_says_what_it_wanted(change, options, error, message):
    with pytest.raises(error, match=message):
        view_of_votes(change(votes()), **options)
