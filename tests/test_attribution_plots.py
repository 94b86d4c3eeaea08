"""Figures of direct effects and of the logit lens show the numbers and the tokens that they are given."""

import html
import json

import numpy as np
import pytest
import torch
import xarray as xr
from hostile import HOSTILE

import induction_kernel as ik
from induction_kernel.plots._direct_effects import direct_effect_map, direct_effect_plot
from induction_kernel.plots._logit_lens import lens_map

LENGTH = 6
NAMES = ["embedding", "L0H0", "L0H1", "attention biases 0", "MLP 0", "final norm bias", "unembedding bias"]


def components(prompts=9, **attrs):
    """MLP 0 adds 3 logits, L0H1 takes 2 away, the others add little."""
    rng = np.random.default_rng(0)
    score = 0.1 * rng.standard_normal((prompts, len(NAMES)))
    score[:, 4] += 3
    score[:, 2] -= 2
    variables = {"score": (("prompt", "component"), score), "total": ("prompt", score.sum(1))}
    attrs = {
        "model": "hand <made>",
        "method": "direct_effect",
        "on": "answers",
        "title": "direct effect",
    } | attrs
    return xr.Dataset(variables, {"component": NAMES}, attrs)


def by_token(dim, tokens, prompts=2):
    """Two heads of two layers; L1H0 adds 1 logit at the fourth token of every prompt."""
    score = np.zeros((prompts, 2, 2, LENGTH))
    score[:, 1, 0, 3] = 1
    score[..., 5] = np.nan
    coords = {
        "layer": [0, 1],
        "head": [0, 1],
        dim: range(LENGTH),
        "token": (("prompt", dim), [tokens] * prompts),
        "text": ("prompt", [f"prompt {i}" for i in range(prompts)]),
    }
    return xr.Dataset(
        {"score": (("prompt", "layer", "head", dim), score)}, coords, {"title": "direct effect"}
    )


def lens(tokens):
    values = np.linspace(0.1, 0.9, 2 * 3 * LENGTH).reshape(2, 3, LENGTH)
    values[..., -1] = np.nan
    dims, names = ("prompt", "layer", "position"), sorted(set(tokens))
    coords = {
        "layer": [-1, 0, 1],
        "position": range(LENGTH),
        "token": (("prompt", "position"), [tokens] * 2),
        "top": (dims, np.array([[[names.index(token) for token in tokens]] * 3] * 2)),
        "top_id": range(len(names)),
        "top_token": ("top_id", names),
        "text": ("prompt", ["one", "two"]),
    }
    return xr.Dataset({"probability": (dims, values), "rank": (dims, np.ceil(1 / values) * 100)}, coords)


WORDS = ["<bos>", " the", "\n", " fox", " jumped", " over"]


def test_bars_are_the_components_the_largest_first_and_their_sum():
    data = components()
    figure = direct_effect_plot(data, top=3)
    bars, labels = figure.data[0], figure.layout.yaxis.ticktext
    assert list(labels[:2]) == ["MLP 0", "L0H1"]
    assert list(labels[3:]) == ["4 other components", "logit difference"]
    mean = data["score"].mean("prompt")
    np.testing.assert_allclose(bars.x[:2], mean.sel(component=["MLP 0", "L0H1"]))
    np.testing.assert_allclose(bars.x[:4].sum(), bars.x[4])
    np.testing.assert_allclose(bars.x[4], data["total"].mean())
    assert figure.layout.width is None
    assert "hand &lt;made&gt;" in figure.layout.title.text


def test_bars_hold_their_intervals_and_the_control():
    data = components()
    bars = direct_effect_plot(data).data[0]
    assert (bars.error_x.array > 0).all()
    assert "prompt" in bars.customdata[0][1]
    assert len(direct_effect_plot(data).data) == 1
    controlled = direct_effect_plot(data.assign(control=data["score"] / 2))
    np.testing.assert_allclose(controlled.data[1].x[0], bars.x[0] / 2)
    assert controlled.data[1].name == "matched control"
    one = direct_effect_plot(data.isel(prompt=[0]))
    assert "95%" not in one.layout.title.text


@pytest.mark.parametrize("dim", ["position", "key"])
def test_a_map_is_labelled_by_tokens_and_leaves_out_what_nobody_has(dim):
    figure = direct_effect_map(by_token(dim, WORDS))
    heat = figure.data[0]
    assert heat.z.shape == (4, 5)
    assert [each.replace("\u200b", "") for each in heat.x] == ["&lt;bos&gt;", "the", "↵", "fox", "jumped"]
    assert figure.layout.yaxis.ticktext[0] == "L1H0"
    np.testing.assert_allclose(heat.z[0], [0, 0, 0, 1, 0])
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert ("source token" in figure.layout.xaxis.title.text) == (dim == "key")
    one = direct_effect_map(by_token(dim, WORDS), prompt=1, top=2)
    assert "prompt 1" in one.layout.title.text
    assert "strongest 2 of 4 heads" in one.layout.title.text


def test_a_map_of_components():
    data = (
        by_token("position", WORDS)
        .stack(component=("layer", "head"))
        .drop_vars(["component", "layer", "head"])
    )
    data = data.assign_coords(component=["embedding", "L0H1", "MLP 0", "b"])
    figure = direct_effect_map(data)
    assert figure.layout.yaxis.ticktext[0] == "MLP 0"


def test_the_lens_has_a_row_for_every_layer():
    data = lens(WORDS)
    figure = lens_map(data, prompt=1)
    heat = figure.data[0]
    assert list(figure.layout.yaxis.ticktext) == ["embedding", "0", "1"]
    np.testing.assert_allclose(heat.z, data["probability"][1, :, :5])
    assert heat.text[0][3] == "fox"
    assert (
        "right token &#x27;\\n&#x27;" in heat.customdata[0][1] or "right token '\\n'" in heat.customdata[0][1]
    )
    assert "after layer 1" in heat.customdata[2][0]
    ranks = lens_map(data, show="rank").data[0]
    np.testing.assert_allclose(ranks.z, np.log10(data["rank"][0, :, :5]))
    long = xr.concat([data.isel(position=slice(0, 5))] * 4, "position").assign_coords(position=range(20))
    assert lens_map(long).data[0].text is None


def test_texts_cannot_act():
    tokens = [*HOSTILE[:5], "<b>x</b>"]
    figures = [
        direct_effect_map(by_token("key", tokens)),
        direct_effect_map(by_token("position", tokens), prompt=0),
        lens_map(lens(tokens)),
        direct_effect_plot(components().assign_coords(component=[*NAMES[:-1], HOSTILE[0]])),
    ]
    for figure in figures:
        said = json.dumps(figure.to_plotly_json(), default=lambda each: np.asarray(each).tolist())
        for own in (
            "<b>",
            "</b>",
            "<br>",
            "<extra></extra>",
            "<span style='font-size:12px;color:#555'>",
            "</span>",
        ):
            said = said.replace(own, "")
        assert "<" not in said
    assert html.unescape(figures[0].data[0].x[0]).startswith("</script>")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: direct_effect_plot("scores"), TypeError, "wanted the xarray.Dataset of direct_effect"),
        (lambda: direct_effect_plot(by_token("key", WORDS)), ValueError, "by component"),
        (lambda: direct_effect_plot(components(), top=0), ValueError, "top >= 1"),
        (lambda: direct_effect_map(components()), ValueError, "by position or key"),
        (lambda: direct_effect_map(by_token("key", WORDS), prompt=2), ValueError, "from 0 to 1, got 2"),
        (lambda: direct_effect_map(by_token("key", WORDS), prompt="a"), TypeError, "whole number"),
        (lambda: direct_effect_map(by_token("key", WORDS) * np.nan), ValueError, "no finite value"),
        (lambda: lens_map(lens(WORDS), show="loss"), ValueError, "wanted show as one of"),
        (lambda: lens_map(lens(WORDS), show="difference"), ValueError, "holds 'difference'"),
        (lambda: lens_map(lens(WORDS), prompt=5), ValueError, "from 0 to 1, got 5"),
        (lambda: lens_map(lens(WORDS).isel(prompt=0)), ValueError, "choose a prompt with prompt="),
    ],
)
def test_they_say_what_they_wanted(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_figures_of_a_model():
    model = ik.load("tiny")
    prompts = ik.prompts.with_answers(
        model, ["fox dax ; apple wug ; fox", "apple dax ; fox wug ; fox"], [("dax", "wug"), ("wug", "dax")]
    )
    for by in (("component", "position"), ("head", "position"), ("head", "key")):
        assert direct_effect_map(ik.direct_effect(model, prompts, by=by)).data
    assert direct_effect_plot(ik.direct_effect(model, prompts, by="component")).data
    found = ik.scorers.logit_lens(model, prompts)
    for show in ("probability", "logit", "difference", "rank"):
        assert lens_map(found, show=show).data
    assert "less" in lens_map(found, show="difference").layout.title.text
    assert torch.is_grad_enabled()
