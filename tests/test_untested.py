"""Heads that cannot be tested, and shares that there are not: every table, figure and page says so, and why."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zoo

import induction_kernel as ik
from induction_kernel.cli._output import plain, score_parts
from induction_kernel.evidence import _generality as behaviours
from induction_kernel.pages._fewshot import counted
from induction_kernel.plots._scores import score_plot

FEW = "5 prompts are too few for level 0.05: wanted 6 or more"


@pytest.fixture(scope="module")
def tiny():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def scores(tiny):
    return ik.induction(tiny, ik.repeated_tokens(tiny, prompts=8, period=8))


@pytest.fixture(scope="module")
def untrained():
    """A model of random weights: repetition helps it in nothing."""
    return zoo.fresh("GPT-2", dtype=torch.float32)


def test_a_map_of_untested_heads_says_so_and_why(scores):
    (said,) = ik.head_map(scores[{"prompt": slice(5)}]).layout.annotations
    assert (said.text, said.hovertext) == ("<i>not tested</i>", FEW)
    (said,) = ik.head_map(scores).layout.annotations
    assert not said.text
    assert not said.hovertext


def test_of_several_panels_only_the_untested_ones_say_so(scores):
    few = scores[{"prompt": slice(5)}]
    both = ik.head_map(xr.concat([scores, few], "model", join="outer").assign_coords(model=["a", "b"]))
    assert [each.text for each in both.layout.annotations] == ["<b>a</b>", "<b>b</b> <i>not tested</i>"]


def test_untested_heads_are_hollow_beside_one_another(scores, tiny):
    other = ik.duplicate_token(tiny, ik.repeated_tokens(tiny, prompts=5, period=8))
    few = score_plot(scores[{"prompt": slice(5)}], other).data[0].marker.symbol
    assert set(few) == {"circle-open"}
    enough, summary = score_plot(scores, other).data[0].marker.symbol, ik.summarise(scores)
    assert (enough == "diamond").tolist() == (summary["passes"] == 1).values.ravel().tolist()
    assert (enough == "circle-open").tolist() == (~summary["tested"]).values.ravel().tolist()
    assert {"circle", "diamond"} <= set(enough)


def test_the_few_shot_page_counts_heads_among_those_tested():
    weights = xr.Dataset(
        {"weight": (("prompt", "layer", "head", "demonstration"), np.full((3, 1, 2, 2), 0.5))},
        {
            "layer": [0], "head": [0, 1], "label_class": (("prompt", "demonstration"), [[0, 0]] * 3),
            "target": ("prompt", [0] * 3),
        },
    )  # fmt: skip
    found = ik.kernel.vote(weights)  # every demonstration has one label: permuting changes nothing
    assert {"passing": 0, "tested": 0, "untested": 2}.items() <= counted(found).items()


def test_effects_say_at_which_level_each_way_is_tested(tiny):
    found = ik.summarise(ik.sweep(tiny, ik.repeated_tokens(tiny, prompts=6, period=6), progress=False))
    assert not found["tested"].any()
    assert found["untested"].item() == (
        "6 prompts are too few for level 0.025: wanted 7 or more (each way is tested at half the level)"
    )


def test_missing_values_are_said_of_heads(scores):
    some = scores.copy(deep=True)
    some["score"][0, 0, 0] = np.nan
    found = ik.summarise(some)
    assert found["tested"].values.ravel().tolist()[0] is False
    assert "some heads have no value for some prompts" in found["untested"].item()


def test_a_table_of_composition_names_who_reads_most(tiny):
    found = ik.composition(tiny)
    table = ik.head_table(found, 3)
    for name, row in table.iterrows():
        of = found["score"].sel(layer=int(name[1]), head=int(name[3]))
        assert row["receiver"] == of["receiver"].values[int(of.argmax("receiver"))]
        assert row["mean"] == pytest.approx(float(of.max()), abs=6e-4)
    assert "receiver" not in ik.head_table(ik.ov_eigenvalues(tiny))


def test_no_share_comes_with_its_reason(untrained, tiny):
    prompts = ik.repeated_tokens(untrained, prompts=8, period=8)
    why = "No share: the repetition brings this model no reliable benefit that could be lost."
    with pytest.warns(UserWarning, match=f"^{why} So share is NaN") as warned:
        one = ik.ablate(untrained, prompts, "L1H0", progress=False)
    with pytest.warns(UserWarning, match=f"^{why} So share is NaN") as warned_of_curve:
        curve = ik.ablation_curve(untrained, prompts, ["L1H0", "L1H1"], ks=1, controls=3, progress=False)
    for each in (*warned, *warned_of_curve):
        assert Path(each.filename).name == "test_untested.py"  # where it was called
    for found in (one, curve):
        assert np.isnan(found["share"]).all()
        assert found.attrs["cautions"] == why
    title = ik.plots.curve_plot(curve).layout.title.text
    assert why in re.sub("<[^>]*>", "", title.replace("<br>", " "))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        some = ik.ablate(tiny, ik.repeated_tokens(tiny, prompts=8), "L1H7", progress=False)
    assert np.isfinite(some["share"])
    assert "No share" not in some.attrs["cautions"]


def test_a_printed_table_says_why_heads_are_untested(scores):
    few = plain(score_parts({"induction": scores[{"prompt": slice(5)}]}, 3))
    assert few.splitlines()[-1] == f"untested: {FEW}"
    assert "untested" not in plain(score_parts({"induction": scores}, 3))


@pytest.mark.parametrize(("missing", "verdict"), [(0, "not defined on this model"), (1, "inconclusive")])
def test_without_a_passing_head_generality_is_open_where_one_was_not_tested(
    tiny, scores, monkeypatch, missing, verdict
):
    none = scores.assign(score=scores["control"]).copy(deep=True)
    none["score"][:missing, 1, 7] = np.nan
    monkeypatch.setattr(behaviours, "prefix_matching", lambda *_, **__: none)
    found = ik.evidence.generality(tiny, progress=False)
    assert found.attrs["verdict"] == verdict
    assert ("1 of 16 heads could not be tested" in found.attrs["reason"]) == bool(missing)
    assert ("there is no induction head" in found.attrs["reason"]) == (not missing)


def test_a_comparison_does_not_say_what_only_the_first_result_is(scores):
    """Neither the scorer, nor what was tested of it, nor who reads most of a head."""
    for first in (ik.summarise(scores), scores):
        assert set(ik.compare(first, scores).coords) == {"layer", "head", "name"}
