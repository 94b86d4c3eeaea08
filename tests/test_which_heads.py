"""Which heads carry in-context learning: the sets, what is said of them, and the embedded model."""

import numpy as np
import pytest
import xarray as xr
from shots import noisy_words

import induction_kernel as ik
from induction_kernel.fewshot._set_changes import INDUCTION, RANDOM, VECTOR, changes_of
from induction_kernel.fewshot._which_heads import _sets_of


@pytest.fixture(scope="module")
def tiny():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def windows(tiny):
    return ik.repeated_tokens(tiny, prompts=8, period=20, repeats=2)


@pytest.fixture(scope="module")
def found(tiny, windows):
    return ik.fewshot.which_heads(
        tiny, noisy_words(tiny, prompts=32, noise=0.1), windows, shares=(0.07, 0.2), exclude=0, n_controls=4,
        early=10, late=30, width=8, progress=False,
    )  # fmt: skip


def grid(model, values):
    """Scores `[prompt, layer, head]`, the same for 8 prompts."""
    size = (model.cfg.n_layers, model.cfg.n_heads)
    each = np.asarray(values, dtype=float).reshape(size)
    return xr.Dataset(
        {"score": (("prompt", "layer", "head"), np.stack([each] * 8)), "chance": ("prompt", np.zeros(8))},
        {"layer": range(size[0]), "head": range(size[1])},
    )


def test_sets_leave_out_the_top_of_the_other_kind(tiny):
    """Of 16 heads: a quarter, without the other kind's first eighth; random heads are in none of these."""
    order = [ik.Head(at // 8, at % 8) for at in range(16)]
    ranked = {INDUCTION: order, VECTOR: [*order[1:3], order[0], *order[3:]]}
    first, second, *random = _sets_of(tiny, ranked, 0.25, 0.125, 6, 0)
    assert first == [order[0], *order[3:6]]
    assert second == order[2:6]  # without the two strongest induction heads, 0 and 1
    assert len(random) == 6
    for heads in random:
        assert len(heads) == 4
        assert not set(heads) & {*first, *second, *order[:3]}
    whole = _sets_of(tiny, ranked, 0.25, 0, 1, 0)
    assert whole[:2] == [order[:4], ranked[VECTOR][:4]]


def test_at_least_one_head_and_never_more_than_the_share(tiny):
    order = [ik.Head(at // 8, at % 8) for at in range(16)]
    ranked = {INDUCTION: order, VECTOR: order[::-1]}
    assert [len(_sets_of(tiny, ranked, share, 0, 1, 0)[0]) for share in (0.01, 0.1, 0.19, 0.25)] == [
        1,
        1,
        3,
        4,
    ]


def made_up(change, n=40, controls=3):
    """Label log-probabilities and losses where without the sets the first `change` prompts get wrong."""
    right, wrong = np.log([0.9, 0.1]), np.log([0.2, 0.8])
    logs = np.stack([np.stack([right] * n)] * (3 + controls))
    for run, of_run in enumerate(change, 1):
        logs[run, :of_run] = wrong
    return logs, np.zeros((3 + controls, 12)), np.zeros(n, dtype=int), [2 + controls], controls


def test_what_is_said_of_clear_and_of_unclear_changes():
    logs, losses, target, counts, controls = made_up([1, 30, 2, 1, 0])
    losses += 0.01 * np.arange(12)
    losses[1] += 0.5 + 0.01 * np.arange(12) ** 2  # the text is learned worse without induction heads
    found = changes_of(logs, losses, target, counts, controls, 0).isel(share=0)
    assert float(found["accuracy"].sel(set=VECTOR)) == 10 / 40
    assert float(found["accuracy_change"].sel(set=INDUCTION)) == -1 / 40
    assert found["accuracy_verdict"].values.tolist() == [
        "inconclusive",
        "more than random heads",
        "inconclusive",
    ]
    assert str(found["accuracy_decides"].item()) == VECTOR
    assert str(found["label_probability_decides"].item()) == VECTOR
    assert found["icl_score_verdict"].values.tolist() == [
        "more than random heads",
        "inconclusive",
        "inconclusive",
    ]
    assert str(found["icl_score_decides"].item()) == INDUCTION
    np.testing.assert_allclose(found["accuracy_control"], [-2 / 40, -1 / 40, 0])
    np.testing.assert_allclose(found["accuracy_change"].sel(set=RANDOM), -1 / 40)
    np.testing.assert_allclose(found["accuracy_excess"].sel(set=VECTOR), -29 / 40)


def test_less_harm_than_random_heads_is_said_too():
    found = changes_of(*made_up([0, 0, 40, 40, 40]), 0).isel(share=0)
    assert found["accuracy_verdict"].values.tolist()[:2] == ["less than random heads"] * 2
    assert str(found["accuracy_decides"].item()) == "inconclusive"


def test_the_untouched_runs_are_what_predict_and_icl_score_say(tiny, windows, found):
    prompts = noisy_words(tiny, prompts=32, noise=0.1)[1::2]
    answers = ik.fewshot.predict(tiny, prompts, progress=False)
    for share in found["share"].values:
        untouched = found.sel(share=share, run="untouched")
        np.testing.assert_array_equal(untouched["correct"], answers["correct"])
        score = ik.icl_score(tiny, windows, early=10, late=30, width=8)["value"]
        np.testing.assert_allclose(untouched["late_less_early"], score, atol=1e-5)


def test_runs_without_heads_are_what_ablate_says(tiny, windows, found):
    """Of the text, with the mean over these windows."""
    heads = str(found["heads"].sel(run=INDUCTION).isel(share=1).item()).split()
    assert len(heads) == 3

    def late_less_early(logits, prompts):
        losses = -logits.log_softmax(-1)[:, :-1].gather(-1, prompts.tokens[:, 1:, None])[..., 0]
        return losses[:, 26:34].mean(1) - losses[:, 6:14].mean(1)

    lost = ik.ablate(
        tiny, windows, heads, edit=ik.Mean(windows.tokens), metric=late_less_early, progress=False
    )
    got = found["late_less_early"].isel(share=1)
    np.testing.assert_allclose(got.sel(run=INDUCTION), lost["value"], atol=1e-5)
    np.testing.assert_allclose(got.sel(run="untouched"), lost["baseline"], atol=1e-5)


def test_the_embedded_models_induction_heads_carry_the_repeat_and_its_labels(found):
    strongest = found.isel(share=1)
    assert str(strongest["icl_score_verdict"].sel(set=INDUCTION).item()) == "more than random heads"
    assert float(strongest["accuracy_change"].sel(set=INDUCTION)) < 0
    assert (
        -1
        <= float(found["correlation_low"])
        <= float(found["correlation"])
        <= float(found["correlation_high"])
        <= 1
    )
    np.testing.assert_allclose(found["overlap_chance"], [1 / 16, 3 / 16])


def test_scores_that_are_given_rank_the_heads(tiny, windows):
    at = np.arange(16)
    given = {"induction": grid(tiny, -at), "function_vector": grid(tiny, at)}
    prompts = noisy_words(tiny, prompts=6)
    options = {"early": 10, "late": 30, "width": 8, "n_controls": 1, "progress": False}
    found = ik.fewshot.which_heads(tiny, prompts, windows, scores=given, shares=0.13, exclude=0, **options)
    assert found["heads"].values.tolist()[0][1:3] == ["L0H0 L0H1", "L1H7 L1H6"]
    assert found.sizes["prompt"] == 6
    assert float(found["correlation"]) == pytest.approx(-1)
    assert found["overlap"].values.tolist() == [0.0]


def test_it_is_drawn_and_kept(found, tmp_path):
    figure = ik.plots.which_heads_plot(found)
    assert len([trace for trace in figure.data if trace.name == "each set"]) == 3
    dots = next(trace for trace in figure.data if trace.name == VECTOR)
    np.testing.assert_allclose(dots.x, found["accuracy_change"].sel(set=VECTOR))
    found.to_netcdf(tmp_path / "found.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "found.nc").load(), found)
