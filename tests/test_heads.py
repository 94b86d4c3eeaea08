"""Naming heads, intervals and thresholds, choosing heads and controls."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import induction_kernel as ik
from induction_kernel import errors as ik_errors
from induction_kernel.heads import as_head, as_heads


def scores(values, control=None, chance=0.1):
    """A score Dataset of `values [prompt, layer, head]`."""
    n, layers, heads = values.shape
    names = [[f"L{layer}H{head}" for head in range(heads)] for layer in range(layers)]
    variables = {"score": (("prompt", "layer", "head"), values), "chance": ("prompt", np.full(n, chance))}
    if control is not None:
        variables["control"] = (("prompt", "layer", "head"), control)
    coords = {"layer": range(layers), "head": range(heads), "name": (("layer", "head"), names)}
    return xr.Dataset(variables, coords=coords, attrs={"method": "made up"})


@pytest.mark.parametrize(
    "given", ["L5H1", "l5h1", " L5H1 ", "5.1", (5, 1), [5, 1], ik.Head(5, 1), np.array([5, 1]).tolist()]
)
def test_heads_are_accepted_in_every_form(given):
    assert as_head(given) == ik.Head(5, 1) == (5, 1)
    assert str(as_head(given)) == "L5H1"


def test_several_heads():
    assert as_heads("L1H0, L0H2 L1H0") == [(1, 0), (0, 2)]
    assert as_heads((1, 0)) == [(1, 0)]
    assert as_heads([(1, 0), "L0H2"]) == [(1, 0), (0, 2)]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("H5", ValueError),
        (5, TypeError),
        ((1, 2, 3), TypeError),
        ((True, 1), TypeError),
        ((-1, 0), ValueError),
    ],
)
def test_what_is_no_head(given, error):
    with pytest.raises(error, match=r"wanted a head|does not exist"):
        as_head(given)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.2, (40, 25, 40))  # 1000 heads, each its own experiment
    found = ik.summarise(scores(values), draws=500)
    covered = ((found["low"] <= 0.5) & (found["high"] >= 0.5)).values.mean()
    assert 0.90 < covered < 0.97
    assert (found["n"] == 40).all()
    np.testing.assert_allclose(found["mean"], values.mean(0))


def test_no_head_passes_where_there_is_nothing():
    """The level is of all heads together: of many models without any effect, about one in twenty shows a head."""
    alarms = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0.1, 0.05, (24, 4, 12))
        alarms.append(bool((ik.summarise(scores(noise), margin=0.0, draws=400)["passes"] == 1).any()))
    assert 0 < np.mean(alarms) < 0.13
    quiet = [
        bool(
            (
                ik.summarise(scores(np.random.default_rng(s).normal(0.1, 0.05, (24, 4, 12))))["passes"] == 1
            ).any()
        )
        for s in range(50)
    ]
    assert not any(quiet)  # with the default margin


def test_a_real_head_passes_beside_others():
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 0.05, (24, 4, 12))
    values[:, 2, 3] += 0.8
    values[:, 3, 0] += 0.15
    found = ik.summarise(scores(values))
    assert float(found["passes"].sel(layer=2, head=3)) == 1
    assert float(found["passes"].sel(layer=3, head=0)) == 1  # the strong one does not hide the weaker
    assert int(found["passes"].sum()) == 2
    assert int(found["rank"].sel(layer=2, head=3)) == 1


def test_the_control_comes_before_chance():
    values, control = np.full((8, 1, 2), 0.9), np.zeros((8, 1, 2))
    control[:, 0, 1] = 0.9
    found = ik.summarise(scores(values, control))
    np.testing.assert_allclose(found["excess"], [[0.9, 0.0]])
    assert found["passes"].values.tolist() == [[1, 0]]


def test_few_prompts_pass_nobody():
    found = ik.summarise(scores(np.full((4, 1, 2), 0.9)))
    assert not found["tested"].any()
    assert found["passes"].isnull().all()
    assert "4 prompts are too few" in str(found["untested"].item())
    assert set(ik.head_table(scores(np.full((4, 1, 2), 0.9)))["passes"]) == {"untested"}
    with pytest.raises(
        ik_errors.Refused, match="wanted heads that pass, got scores that cannot be tested: 4 prompts"
    ):
        ik.top_heads(found, passing=True)
    one = ik.summarise(scores(np.full((1, 1, 2), 0.9)))
    assert np.isnan(one["low"]).all()
    with pytest.raises(ValueError, match="at least one prompt"):
        ik.summarise(scores(np.zeros((0, 1, 2))))


def test_summaries_are_reproducible_and_idempotent():
    values = scores(np.random.default_rng(0).random((8, 2, 3)))
    first = ik.summarise(values)
    xr.testing.assert_identical(first, ik.summarise(values))
    xr.testing.assert_identical(first, ik.summarise(first))


def test_top_heads():
    values = np.zeros((8, 2, 3))
    values[:, 1, 2], values[:, 0, 1], values[:, 1, 0] = 0.9, 0.5, 0.7
    given = scores(values)
    for each in (given, ik.summarise(given)):
        assert ik.top_heads(each, 2) == [(1, 2), (1, 0)]
        assert ik.top_heads(each, 9, min_score=0.4) == [(1, 2), (1, 0), (0, 1)]
        assert ik.top_heads(each, 2, layers=[0])[0] == (0, 1)
        assert ik.top_heads(each, 1, exclude=["L1H2"]) == [(1, 0)]
        assert set(ik.top_heads(each, 3, largest=False)) == {(0, 0), (0, 2), (1, 1)}


def test_random_heads_match_the_layers():
    model = SimpleNamespace(cfg=SimpleNamespace(n_layers=3, n_heads=8))
    like = ["L1H0", "L1H1", "L2H7"]
    for seed in range(20):
        drawn = ik.random_heads(model, like=like, exclude=["L1H2"], seed=seed)
        assert [head.layer for head in drawn] == [1, 1, 2]
        assert not set(drawn) & {(1, 0), (1, 1), (2, 7), (1, 2)}
    assert len({tuple(ik.random_heads(model, like=like, seed=seed)) for seed in range(20)}) > 10
    whole = [(1, head) for head in range(6)]
    assert len(ik.random_heads(model, like=whole, control="any layer")) == 6


def test_compare():
    rng = np.random.default_rng(0)
    a = rng.random((16, 2, 4))
    same = ik.compare(scores(a), scores(a + 0.1))
    assert float(same["pearson"]) == pytest.approx(1)
    assert float(same["spearman"]) == pytest.approx(1)
    assert float(same["overlap"]) == 1
    np.testing.assert_allclose(same["difference"], 0.1)
    np.testing.assert_allclose(same["low"], 0.1)  # paired: no spread is left
    other = ik.compare(scores(a), scores(rng.random((9, 2, 4))))
    assert (other["low"] < other["difference"]).all()
    assert (other["high"] > other["difference"]).all()
    constant = ik.compare(scores(a), scores(np.ones((16, 2, 4))))
    assert np.isnan(float(constant["pearson"]))


def test_a_table_for_reading():
    values = np.zeros((8, 2, 3))
    values[:, 1, 2] = 0.98765
    table = ik.head_table(scores(values), 2)
    assert table.index[0] == "L1H2"
    assert table.loc["L1H2", "mean"] == 0.988
    assert list(table.columns) == ["rank", "mean", "low", "high", "chance", "excess", "threshold", "passes"]
    assert len(ik.head_table(scores(values), None)) == 6
    assert "control" in ik.head_table(scores(values, np.zeros((8, 2, 3))))
