"""Figures of training and of verdicts show the data they are given. Tested by their data, not their pixels."""

import numpy as np
import pytest
import xarray as xr
from made_curves import HEADS, LAYERS, STEPS, TOKENS, curves, family, window

import induction_kernel as ik
from induction_kernel.evidence._co_occurrence import CO_OCCURRENCE
from induction_kernel.evidence._co_perturbation import CO_PERTURBATION
from induction_kernel.evidence._verdicts import Check, judge, not_defined
from induction_kernel.plots._training_axis import edges, layout, places, short

NONE = float("nan")
SEEN = STEPS * TOKENS


@pytest.fixture(scope="module")
def one():
    return curves(1400, model="hand <made>")


@pytest.fixture(scope="module")
def several():
    return family(one_layer=[None, None], two_layer=[1300, 1700])


def windows_of_several():
    parts = [window([NONE, NONE], [NONE, NONE]), window([1000, 1400], [1600, 2100])]
    return xr.concat(parts, "model").assign_coords(model=["one-layer", "two-layer"])


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def panel(figure, caption):
    """The traces of the panel with this caption."""
    (found,) = [each for each in figure.layout.annotations if caption in each.text]
    return [trace for trace in figure.data if trace.yaxis == found.yref.removesuffix(" domain")]


# the axis of training


@pytest.mark.parametrize("known", [SEEN, SEEN[1:], np.array([0, 5]), np.array([0]), np.array([7])])
def test_every_checkpoint_is_inside_the_axis_and_zero_is_left_of_all_others(known):
    at = places(known.astype(float), known)
    axis = layout(known)
    assert (at > 0).all()
    assert (np.diff(at) > 0).all()
    assert axis["range"][0] < np.log10(at[0]) <= np.log10(at[-1]) < axis["range"][1]
    assert ("0" in axis["ticktext"]) == (known[0] == 0)
    assert all(10 ** axis["range"][0] < tick < 10 ** axis["range"][1] for tick in axis["tickvals"])
    borders = edges(at)
    assert (borders[:-1] < at).all()
    assert (at < borders[1:]).all()


@pytest.mark.parametrize(("tokens", "said"), [(0, "0"), (200, "200"), (9_830_400, "9.83M"), (3e11, "300G")])
def test_numbers_of_tokens_are_short(tokens, said):
    assert short(tokens) == said


# phase_plot


def test_one_run_shows_the_mean_of_every_curve_with_its_interval(one):
    figure = ik.plots.phase_plot(one)
    for caption, name in (("in-context", "icl_score"), ("loss on", "repeat_loss"), (">loss (", "loss")):
        band, line = panel(figure, caption)
        np.testing.assert_allclose(line.y, one[name].astype(float).mean("prompt"))
        np.testing.assert_allclose(line.x[1:], SEEN[1:])
        low, high = np.array(band.y).reshape(2, -1)[1][::-1], np.array(band.y).reshape(2, -1)[0]
        assert (low < line.y).all()
        assert (line.y < high).all()


def test_prefix_matching_is_drawn_over_its_control_the_strongest_head_before_all_others(one):
    *_, pale, line = panel(ik.plots.phase_plot(one), "prefix matching")
    exact = one.astype(float)  # before the difference: half of the digits cancel in float32
    excess = (exact["prefix_matching"] - exact["prefix_matching_control"]).mean("prompt")
    np.testing.assert_allclose(line.y, excess.max(["layer", "head"]))
    assert np.isnan(pale.y).sum() == LAYERS * HEADS
    drawn = np.array(pale.y).reshape(LAYERS * HEADS, -1)[:, :-1]
    np.testing.assert_allclose(drawn, excess.stack(one=("layer", "head")).T)
    assert "L1H0" in line.customdata[-1]


def test_the_window_of_one_run_is_a_bar_with_its_intervals_and_a_shade(one):
    figure = ik.plots.phase_plot(one, window(1100, 1800, spread=1.1))
    drawn = [np.array(trace.x) / TOKENS for trace in named(figure, "window")]
    np.testing.assert_allclose(drawn, [[1000, 1210], [1800 / 1.1, 1980], [1100, 1800]])
    (shade,) = figure.layout.shapes
    np.testing.assert_allclose([shade.x0, shade.x1], np.array([1100, 1800]) * TOKENS)


def test_without_a_window_none_is_drawn_and_the_figure_says_so(one):
    figure = ik.plots.phase_plot(one, window(NONE, NONE))
    assert not named(figure, "window")
    assert not figure.layout.shapes
    assert "no window" in figure.layout.annotations[0].text


def test_several_runs_are_lines_of_one_colour_a_model(several):
    figure = ik.plots.phase_plot(several, windows_of_several())
    lines = panel(figure, "in-context")
    means = several["icl_score"].astype(float).mean("prompt")
    np.testing.assert_allclose([line.y for line in lines], means.stack(run=("model", "seed")).T)
    colours = [line.line.color for line in lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["one-layer", "two-layer"]
    assert len(named(figure, "window")) == 3 * 2
    assert "windows of change: 2 of 4 runs" in figure.layout.annotations[0].text
    assert not named(figure, "95% interval")


def test_runs_that_saw_other_tokens_at_a_step_stand_where_they_belong(several):
    tokens = xr.DataArray(np.stack([SEEN, SEEN * 2.0]), dims=("model", "checkpoint"))
    tokens[0, -1] = NONE  # a checkpoint that only the other model has
    *_, double = panel(ik.plots.phase_plot(several.assign_coords(tokens=tokens)), "in-context")
    np.testing.assert_array_equal(double.x[1:], SEEN[1:] * 2)
    one, *_ = panel(ik.plots.phase_plot(several.assign_coords(tokens=tokens)), "in-context")
    np.testing.assert_array_equal(one.x[1:-1], SEEN[1:-1])
    assert np.isnan(one.x[-1])


def test_curves_that_are_missing_are_left_out(one):
    figure = ik.plots.phase_plot(one[["icl_score", "loss"]].assign(loss=one["loss"] * np.nan))
    assert [each.text for each in figure.layout.annotations] == ["<b>in-context-learning score (nats)</b>"]


# component_plot and slope_plot


def components(**coords):
    path = np.stack([np.linspace(-3, 3, len(STEPS)), np.abs(STEPS - 1400) / 500], 1)
    coords = {"checkpoint": STEPS, "tokens": ("checkpoint", SEEN), **coords}
    found = xr.Dataset({"component": (("checkpoint", "pc"), path), "explained": ("pc", [0.7, 0.2])}, coords)
    return found, path


def test_a_path_of_components_has_the_points_of_the_window_in_a_rim():
    found, path = components()
    (drawn,) = ik.plots.component_plot(found, window(1100, 1800)).data
    np.testing.assert_array_equal([drawn.x, drawn.y], path.T)
    np.testing.assert_array_equal(np.array(drawn.marker.line.width) > 0, (STEPS >= 1100) & (STEPS <= 1800))
    opacity = [float(colour.rstrip(")").split(",")[-1]) for colour in drawn.marker.color]
    assert (np.diff(opacity) > 0).all()
    assert drawn.text[-1] == "9.83M tokens"


def test_paths_of_several_runs_share_one_figure():
    found, _ = components()
    both = (
        xr.concat([found, found + 1], "model")
        .assign_coords(model=["a", "<b>"])
        .assign(explained=found["explained"])
    )
    figure = ik.plots.component_plot(both)
    assert [trace.name for trace in figure.data] == ["a", "&lt;b&gt;"]
    assert "70%" in figure.layout.xaxis.title.text


def test_a_map_of_slopes_shows_every_checkpoint_and_position(one):
    by = np.gradient(one["position_loss"].values, np.log(one["position"].values + 1), axis=1)
    slope = one[["position_loss"]].rename(position_loss="slope").copy(data={"slope": by})
    figure = ik.plots.slope_plot(slope, window(1100, 1800))
    (heat,) = figure.data
    np.testing.assert_array_equal(heat.z, by.T)
    assert len(heat.x) == len(STEPS) + 1
    assert len(heat.y) == len(by.T) + 1
    assert heat.y[0] < 1 < heat.y[1]  # token indices count from 1
    assert heat.zmax == -heat.zmin > 0
    np.testing.assert_allclose([line.x0 / TOKENS for line in figure.layout.shapes], [1100, 1800])


# evidence_plot

CHECKS = [
    Check("a share", 0.8, 0.7, 0.9, 0.5),
    Check("a loss <nats>", 0.4, 0.2, 0.6, 0.3, above=False),
    Check("no interval", 0.4, NONE, NONE, 0.3),
]


def test_every_check_is_a_dot_with_its_interval_on_an_axis_that_holds_its_threshold():
    figure = ik.plots.evidence_plot(judge(CO_OCCURRENCE, CHECKS, attrs={"model": "a <b>"}))
    assert [trace.name for trace in figure.data] == [check.name for check in CHECKS]
    axes = [figure.layout[f"xaxis{index}"] for index in (1, 2, 3)]
    sides = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    for check, dot, axis, side in zip(CHECKS, figure.data, axes, sides, strict=True):
        assert dot.x == (check.value,)
        held = [each for each in (check.value, check.low, check.high, check.threshold) if np.isfinite(each)]
        assert axis.range[0] < min(held) <= max(held) < axis.range[1]
        assert (side.x0 if check.above else side.x1) == check.threshold
        if np.isfinite(check.low):
            np.testing.assert_allclose(dot.x[0] - dot.error_x.arrayminus[0], check.low)
            np.testing.assert_allclose(dot.x[0] + dot.error_x.array[0], check.high)
    assert len({dot.marker.color for dot in figure.data}) == 2
    assert figure.data[1].marker.color == figure.data[2].marker.color


def test_arguments_stand_under_one_another_with_verdict_claim_and_reason():
    results = [
        judge(CO_OCCURRENCE, CHECKS[:1]),
        not_defined(CO_PERTURBATION, "one model alone"),
    ]
    figure = ik.plots.evidence_plot(results)
    said = [each.text for each in figure.layout.annotations]
    for words in (
        "1 Co-occurrence",
        "holds",
        "change in one window",
        "0.8 (0.7 to 0.9)",
        "not defined",
        "one model",
    ):
        assert any(words in text for text in said), words
    heights = [each.y for each in figure.layout.annotations]
    assert 0 < min(heights) < max(heights) < 1
