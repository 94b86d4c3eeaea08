"""Figures and views show the data they are given. Tested by their data, not their pixels."""

import base64
import json
import re

import numpy as np
import pytest
import xarray as xr

from induction_kernel.heads import summarise
from induction_kernel.plots._attention_view import attention_view
from induction_kernel.plots._offline import circuitsvis_script, figure_fragment, page, plotly_script
from induction_kernel.plots._scores import head_map, loss_plot, score_plot

SHAPES = [(12, 12), (30, 9), (2, 8), (1, 1)]


def coords(layers, heads):
    names = np.array([[f"L{layer}H{head}" for head in range(heads)] for layer in range(layers)])
    return {"layer": range(layers), "head": range(heads), "name": (("layer", "head"), names)}


def attention_scores(layers=2, heads=8, strong=((1, 0),), method="induction", prompts=16, control=True):
    """Scores near 0.05 with a control, those of `strong` near 0.9."""
    rng = np.random.default_rng(layers * heads)
    score, null = rng.beta(1, 20, (2, prompts, layers, heads))
    for at in strong:
        score[:, *at] = 0.9 + 0.05 * rng.random(prompts)
    dims = ("prompt", "layer", "head")
    variables = {"score": (dims, score), "chance": ("prompt", np.full(prompts, 0.04))}
    variables |= {"control": (dims, null)} if control else {}
    return xr.Dataset(variables, coords(layers, heads), {"method": method, "model": "hand <made>"})


def weight_scores(layers=2, heads=8, chance=-0.85):
    rng = np.random.default_rng(0)
    score, null = rng.uniform(-1, 1, (layers, heads)), rng.uniform(-1, 1, (50, layers, heads))
    dims = ("layer", "head")
    variables = {
        "score": (dims, score),
        "chance": (dims, np.full(score.shape, chance)),
        "null": (("draw", *dims), null),
    }
    return xr.Dataset(variables, coords(layers, heads), {"method": "copying", "model": "hand-made"})


def said(figure):
    """The title in one line, without markup."""
    text = figure.layout.title.text.replace("<br><span", ", <span", 1)  # the notes follow the title
    return re.sub("<[^>]*>", "", text.replace("<br>", " "))


def traces(figure, kind):
    return [trace for trace in figure.data if trace.type == kind]


@pytest.mark.parametrize("shape", SHAPES)
def test_head_map_shows_the_means_of_every_head(shape):
    scores = attention_scores(*shape, strong=[(shape[0] - 1, 0)])
    (heat,) = traces(head_map(scores), "heatmap")
    np.testing.assert_allclose(heat.z, scores["score"].mean("prompt"))
    assert (heat.zmin, heat.zmax) == (0, 1)
    np.testing.assert_array_equal(heat.customdata[..., 0], scores["name"])


def test_head_map_marks_exactly_the_heads_that_pass():
    scores = attention_scores(12, 12, strong=[(5, 1), (6, 9)])
    (marks,) = traces(head_map(scores), "scatter")
    assert set(zip(marks.y, marks.x, strict=True)) == {(5, 1), (6, 9)}
    none = summarise(scores)
    none["passes"] = xr.zeros_like(none["passes"])
    assert len(traces(head_map(none), "scatter")[0].x) == 0


def test_white_dots_are_in_the_legend_once_and_only_where_there_are_any():
    two = xr.concat([attention_scores(method=name) for name in "ab"], "scorer").assign_coords(
        scorer=["a", "b"]
    )
    figure = head_map(two)
    assert [trace.name for trace in figure.data if trace.showlegend] == ["passes the threshold"]
    assert figure.layout.showlegend
    none = summarise(attention_scores())
    none["passes"] = xr.zeros_like(none["passes"])
    assert not head_map(none).layout.showlegend
    assert "no head passes the threshold" in said(head_map(none))
    assert "threshold" not in said(head_map(attention_scores(prompts=4)))  # not tested


def test_figures_are_as_wide_as_their_place():
    figures = (
        head_map(attention_scores()),
        loss_plot(losses([6], [11])),
        score_plot(attention_scores(), weight_scores()),
    )
    assert all(figure.layout.width is None and figure.layout.autosize for figure in figures)


def test_head_map_of_a_summary_is_that_of_its_scores():
    scores = attention_scores()
    a, b = head_map(scores), head_map(summarise(scores))
    np.testing.assert_array_equal(a.data[0].z, b.data[0].z)


def test_head_map_tells_interval_control_chance_and_rank_on_hovering():
    heat = head_map(attention_scores()).data[0]
    for word in ("score", "control", "chance", "excess", "threshold", "rank"):
        assert word in heat.hovertemplate
    without = head_map(attention_scores(control=False)).data[0]
    assert "control" not in without.hovertemplate
    weights = head_map(weight_scores()).data[0]  # no prompts: no interval
    assert " to " not in weights.hovertemplate
    assert not re.search("nan", json.dumps(weights.to_plotly_json(), default=str), re.IGNORECASE)


def test_head_map_has_one_panel_for_each_scorer_side_by_side():
    names = ["induction", "prefix_matching", "previous_token"]
    many = xr.concat(
        [attention_scores(method=name, control=name != "previous_token") for name in names[:2]], "scorer"
    )
    figure = head_map(many.assign_coords(scorer=names[:2]))
    heats = traces(figure, "heatmap")
    assert [heat.xaxis for heat in heats] == ["x", "x2"]
    assert figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]
    assert [note.text for note in figure.layout.annotations] == ["<b>induction</b>", "<b>prefix matching</b>"]


@pytest.mark.parametrize("chance", [-0.85, 0.0, 0.3])
def test_signed_scores_are_pale_at_chance(chance):
    heat = head_map(weight_scores(chance=chance)).data[0]
    assert (heat.zmin, heat.zmax) == (-1, 1)
    middle = [at for at, colour in heat.colorscale if colour == "rgb(247, 247, 247)"]
    np.testing.assert_allclose(middle[0] * 2 - 1, chance)


def test_titles_say_model_and_method_and_are_escaped():
    assert said(head_map(attention_scores())) == (
        "hand &lt;made&gt;: induction, mean over 16 prompts; hovering shows 95% intervals; threshold: 5% level for all "
        "heads together"
    )
    assert said(head_map(weight_scores())) == "hand-made: copying, no head passes the threshold"
    assert head_map(attention_scores(), title="mine").layout.title.text == "mine"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([1, 2], TypeError, r"wanted the xarray\.Dataset"),
        (xr.Dataset({"value": ("prompt", [1.0])}), ValueError, "holds 'score'"),
        (attention_scores() * np.nan, ValueError, "no finite value"),
    ],
)
def test_head_map_says_what_it_wanted(given, error, message):
    with pytest.raises(error, match=message):
        head_map(given)


def losses(starts, lengths, width=24):
    """Loss 5 on the first copy and at the first token of the second, 1 after it."""
    loss = np.full((len(starts), width), np.nan)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        loss[row, : length - 1] = np.where(np.arange(1, length) <= start, 5.0, 1.0)
    return xr.Dataset(
        {"loss": (("prompt", "position"), loss)}, {"start": ("prompt", starts)}, {"model": "hand-made"}
    )


def test_loss_plot_aligns_prompts_of_different_periods():
    figure = loss_plot(losses([6, 11, 8], [11, 21, 15]))
    mean = figure.data[1]
    at = dict(zip(mean.x, mean.y, strict=True))
    assert at[0] == 5
    assert at[1] == 1
    assert all(value == (5 if offset <= 0 else 1) for offset, value in at.items())
    assert max(at) == 6  # two of three prompts reach it
    assert min(at) == -7


def test_loss_plot_of_prompts_that_do_not_repeat_counts_positions():
    data = losses([-1, -1], [10, 10]).assign(loss=(("prompt", "position"), np.tile(np.arange(24.0), (2, 1))))
    mean = loss_plot(data).data[1]
    np.testing.assert_array_equal(mean.x, np.arange(1, 25))
    np.testing.assert_array_equal(mean.y, np.arange(24))


def test_loss_plot_band_holds_the_mean_and_has_no_width_without_spread():
    rng = np.random.default_rng(0)
    data = losses([6] * 20, [11] * 20)
    noisy = data.assign(loss=data["loss"] + rng.standard_normal(data["loss"].shape))
    band, mean = loss_plot(noisy).data
    high, low = np.split(band.y, 2)
    assert (low[::-1] < mean.y).all()
    assert (mean.y < high).all()
    flat = loss_plot(data).data[0]
    np.testing.assert_allclose(*np.split(flat.y, 2)[:1], np.split(flat.y, 2)[1][::-1])


def test_loss_plot_band_is_of_most_prompts_and_the_mean_of_all():
    """Fifteen prompts of sixteen with little loss on the second copy, one with much."""
    data = losses([6] * 16, [11] * 16)
    odd = data["loss"].copy()
    odd[:, 8:], odd[0, 8:] = 1e-3 * np.arange(16)[:, None], 3.0
    band, mean = loss_plot(data.assign(loss=odd)).data
    high, low = np.split(band.y, 2)
    assert mean.y[-1] == pytest.approx((3 + 0.12) / 16)
    assert (low[0], high[-1]) == (pytest.approx(4.75e-3), pytest.approx(12.25e-3))
    assert max(band.y) == 5


def test_score_plot_has_one_point_for_each_head():
    figure = score_plot(attention_scores(3, 4, strong=[(2, 1)]), weight_scores(3, 4))
    points = figure.data[0]
    assert len(points.x) == 12
    assert points.customdata[9] == "L2H1"
    assert [name for name in points.text if name] == ["L2H1"]
    assert points.marker.symbol[9] == "diamond"
    with pytest.raises(ValueError, match="same heads"):
        score_plot(attention_scores(3, 4, strong=[(2, 1)]), weight_scores(2, 4))
    many = xr.concat([attention_scores()] * 2, "scorer").assign_coords(scorer=["a", "b"])
    with pytest.raises(ValueError, match="one scorer in a, got 2"):
        score_plot(many, weight_scores())


EVIL = ["<bos>", "</script><script>alert(1)</script>", "\n", " the", "<!--", "${x}`", '"', " a", " b", ""]


def attention(lengths=(10, 7)):
    """Two prompts, three heads, rows that sum to 1; the first token's value is small."""
    rng = np.random.default_rng(0)
    pattern = np.tril(rng.random((2, 3, 10, 10)))
    pattern /= pattern.sum(-1, keepdims=True)
    norms = np.tile(np.r_[0.01, np.ones(9)], (2, 3, 1))
    dims = ("prompt", "choice", "query", "key")
    coords = {"name": ("choice", ["L0H1", "L1H0", "L1H3"]), "token": (("prompt", "query"), [EVIL] * 2)}
    variables = {"pattern": (dims, pattern), "value_norm": (("prompt", "choice", "key"), norms)}
    return xr.Dataset(variables, coords | {"length": ("prompt", list(lengths))}, {"model": "hand-made"})


def unpacked(html):
    """(weights of each head as lower triangle, tokens) out of a view's HTML."""
    data = json.loads(re.search(r"const data = (.*);\n", html)[1])
    return [np.frombuffer(base64.b64decode(each), np.uint8) / 250 for each in data["heads"]], data["tokens"]


def test_view_carries_the_weights_to_half_a_step():
    data = attention()
    view = attention_view(data, heads="L1H3")
    (weights,), tokens = unpacked(view.fragment())
    np.testing.assert_allclose(weights, data["pattern"].values[0, 2][np.tril_indices(10)], atol=0.0021)
    assert view.names == ("L1H3",)
    assert len(tokens) == 10


def test_view_leaves_padding_out():
    (weights, *_), tokens = unpacked(attention_view(attention(), prompt=1).fragment())
    assert len(tokens) == 7
    assert len(weights) == 7 * 8 / 2


def test_value_weighted_view_is_a_share_of_the_largest_product():
    data = attention()
    view = attention_view(data, value_weighted=True)
    product = data["pattern"].values[0] * data["value_norm"].values[0][:, None]
    np.testing.assert_allclose(view.weights, product / product.max((1, 2), keepdims=True))
    assert "v W_O" in view.caption


def test_tokens_cannot_leave_their_script():
    data = attention()
    html = attention_view(data).fragment()
    script = re.search(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)[1]
    assert html.count("</script") == 1
    assert "<!--" not in script
    assert unpacked(html)[1][:4] == ["<bos>", "</script><scrip…", "↵", "the"]


def test_view_shows_in_a_notebook_and_saves_itself(tmp_path):
    view = attention_view(attention())
    cell = view._repr_html_()
    assert circuitsvis_script() in cell
    assert cell.count("</script") == 1
    path = view.save(tmp_path / "view.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [each.name for each in tmp_path.iterdir()] == ["view.html"]
    with pytest.raises(ValueError, match="nowhere"):
        view.save(tmp_path / "nowhere" / "view.html")


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda data: "text", {}, TypeError, "wanted the xarray.Dataset"),
        (lambda data: data.drop_vars("token"), {}, ValueError, r"lacks \['token'\]"),
        (lambda data: data.drop_vars("value_norm"), {"value_weighted": True}, ValueError, "value_norm"),
        (lambda data: data, {"prompt": 2}, ValueError, "from 0 to 1, got 2"),
        (lambda data: data, {"heads": "L7H7"}, ValueError, "L7H7"),
        (lambda data: data, {"max_tokens": 9}, ValueError, "at most 9 tokens, got 10"),
        (lambda data: data.assign_coords(length=("prompt", [12, 7])), {}, ValueError, "12 tokens"),
        (lambda data: data.assign(pattern=data["pattern"] * 3), {}, ValueError, r"in \[0, 1\]"),
    ],
)
def test_view_says_what_it_wanted(change, options, error, message):
    with pytest.raises(error, match=message):
        attention_view(change(attention()), **options)


def test_scripts_are_safe_inside_a_page_that_may_fetch_nothing():
    for script in (plotly_script(), circuitsvis_script()):
        assert "</script" not in script
        assert "sourceMappingURL" not in script
    assert "default-src 'none'" in page("t", "")
    fragment = figure_fragment(head_map(attention_scores(), title="</script><b>x</b>"))
    assert "http" not in fragment
    assert fragment.count("</script>") == fragment.count("<script")
