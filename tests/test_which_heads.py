"""Which heads carry in-context learning: the sets, what is said of them, and the embedded model."""

import numpy as np
import pytest
import xarray as xr
from english import english_model
from shots import noisy_words

import induction_kernel as ik
from induction_kernel.errors import Refused
from induction_kernel.fewshot._function_vectors import last_means
from induction_kernel.fewshot._other_tasks import (
    few_shot_of_task,
    means_over_tasks,
    names_of_tasks,
    other_tasks,
    scores_over_tasks,
)
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
        tiny, noisy_words(tiny, prompts=32, noise=0.1), windows, shares=(0.07, 0.2), exclude=0, n_controls=20,
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


def made_up(change, n=40):
    """Label log-probabilities and losses where without the sets the first `change` prompts get wrong."""
    right, wrong = np.log([0.9, 0.1]), np.log([0.2, 0.8])
    logs = np.stack([np.stack([right] * n)] * (1 + len(change)))
    for run, of_run in enumerate(change, 1):
        logs[run, :of_run] = wrong
    controls = len(change) - 2
    return logs, np.zeros((3 + controls, 12)), np.zeros(n, dtype=int), [2 + controls], controls


def test_what_is_said_of_clear_and_of_unclear_changes():
    logs, losses, target, counts, controls = made_up([1, 30, *[2, 1, 0] * 7])
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
    np.testing.assert_allclose(found["accuracy_control"], [-2 / 40, -1 / 40, 0] * 7)
    np.testing.assert_allclose(found["accuracy_change"].sel(set=RANDOM), -1 / 40)
    np.testing.assert_allclose(found["accuracy_excess"].sel(set=VECTOR), -29 / 40)


def test_p_counts_the_random_sets_with_at_least_as_much_harm_and_at_most_as_much():
    """Of 21 sets 14 take at least 1 of 40, and 14 at most 1; none at least 30."""
    found = changes_of(*made_up([1, 30, *[2, 1, 0] * 7]), 0).isel(share=0)
    np.testing.assert_allclose(found["accuracy_p"], [15 / 22, 1 / 22, np.nan])
    np.testing.assert_allclose(found["accuracy_p_less"], [15 / 22, 22 / 22, np.nan])
    np.testing.assert_allclose(found["icl_score_p"], [1, 1, np.nan])  # nothing changes in any set
    np.testing.assert_allclose(found["accuracy_difference_p"], 1 / 211)
    near = changes_of(*made_up([0, 2, *[2, 1, 0] * 7]), 0).isel(share=0)  # as 7 x 7 of 210 pairs do
    np.testing.assert_allclose(near["accuracy_difference_p"], 50 / 211)


def test_sets_that_differ_among_themselves_or_are_few_give_no_verdict():
    """The interval over prompts excludes zero in both cases."""
    wide = changes_of(*made_up([1, 30, *[0] * 18, 31, 32]), 0).isel(share=0)
    assert float(wide["accuracy_excess_high"].sel(set=VECTOR)) < 0
    assert wide["accuracy_verdict"].values.tolist() == ["inconclusive"] * 3
    few = changes_of(*made_up([0, 30, *[0] * 18]), 0).isel(share=0)
    assert float(few["accuracy_difference_high"]) < 0
    assert few["accuracy_verdict"].values.tolist() == ["inconclusive"] * 3
    assert str(few["accuracy_decides"].item()) == "inconclusive"
    enough = changes_of(*made_up([0, 30, *[0] * 19]), 0)
    assert str(enough["accuracy_decides"].item()) == VECTOR
    assert enough.attrs["n_verdicts"] == 9


def test_sets_like_the_random_ones_are_seldom_said_to_differ_from_them():
    """400 draws of 22 sets whose effects spread alike, more than prompts do: 5% in each direction."""
    rng = np.random.default_rng(0)
    draws, controls, n = 400, 20, 24
    effect = rng.normal(size=(1, draws * 22))
    runs = effect.T + 0.3 * rng.normal(size=(draws * 22, n))
    losses = np.concatenate([np.zeros((1, n)), runs])
    logs = np.log(np.stack([np.clip(0.5 - 0.05 * losses, 0.01, 0.99)] * 2, -1))
    found = changes_of(logs, losses, np.zeros(n, dtype=int), [22] * draws, controls, 0)
    for measure in ("icl_score", "label_probability"):
        said = found[f"{measure}_verdict"].values[:, :2]
        assert 0.02 < (said == "more than random heads").mean() < 0.08
        assert 0.02 < (said == "less than random heads").mean() < 0.08
        decides = found[f"{measure}_decides"].values
        assert 0.01 < (decides != "inconclusive").mean() < 0.1
        low, high = (found[f"{measure}_excess_{end}"].values[:, :2] for end in ("low", "high"))
        assert ((low > 0) | (high < 0)).mean() > 0.6  # as the intervals over prompts alone would have it


def test_less_harm_than_random_heads_is_said_too():
    found = changes_of(*made_up([0, 0, *[40] * 19]), 0).isel(share=0)
    assert found["accuracy_verdict"].values.tolist()[:2] == ["less than random heads"] * 2
    assert str(found["accuracy_decides"].item()) == "inconclusive"


def test_the_untouched_runs_are_what_predict_and_icl_score_say(tiny, windows, found):
    prompts = noisy_words(tiny, prompts=32, noise=0.1)
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


def test_the_embedded_models_induction_heads_carry_the_labels_and_not_alone_the_repeat(found):
    """Without its previous-token head, which is in three of the random sets, it learns no repeat either."""
    strongest = found.isel(share=1)
    assert str(strongest["accuracy_verdict"].sel(set=INDUCTION).item()) == "more than random heads"
    assert float(strongest["icl_score_excess_low"].sel(set=INDUCTION)) > 3
    assert float(strongest["icl_score_p"].sel(set=INDUCTION)) > 0.1
    assert str(strongest["icl_score_verdict"].sel(set=INDUCTION).item()) == "inconclusive"
    assert found.attrs["n_verdicts"] == 18
    assert not (found.isel(share=0)["accuracy_verdict"] != "inconclusive").any()  # 15 sets of one head
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
    assert found.attrs["tasks"] == "topics"
    assert float(found["correlation"]) == pytest.approx(-1)
    assert found["overlap"].values.tolist() == [0.0]


def of_one_answer(model, answer, *, prompts=16, seed=0):
    """Prompts of two classes, of which the queries are all of one."""
    drawn = noisy_words(model, prompts=4 * prompts, classes=2, noise=0, seed=seed)
    return drawn[drawn.demonstrations.target == answer][:prompts]


def test_a_function_vector_head_is_ablated_by_the_mean_of_other_tasks_not_of_its_own(tiny, windows):
    """L1H7 writes the answer, which is always "dax": the mean over such prompts writes it too."""
    at = np.eye(16)[15]
    scores = {"induction": grid(tiny, 1 - at), "function_vector": grid(tiny, at)}
    options = {"early": 10, "late": 30, "width": 8, "n_controls": 1, "shares": 0.05, "exclude": 0}
    prompts = of_one_answer(tiny, 0)
    accuracy = {}
    for name, tasks in (
        ("the same task", of_one_answer(tiny, 0, seed=1)),
        ("another", [of_one_answer(tiny, 1, seed=1)]),
    ):
        found = ik.fewshot.which_heads(
            tiny, prompts, windows, tasks=tasks, scores=scores, progress=False, **options
        )
        assert found["heads"].sel(run=VECTOR).values.tolist() == ["L1H7"]
        assert (found["correct"].sel(run="untouched") == 1).all()
        accuracy[name] = float(found["accuracy"].sel(set=VECTOR).item())
    assert accuracy == {"the same task": 1.0, "another": 0.0}


def test_tasks_have_equal_weight_whatever_their_number_of_prompts(tiny):
    tasks = [of_one_answer(tiny, 0, prompts=9), of_one_answer(tiny, 1, prompts=3)]
    means = means_over_tasks(tiny, tasks, None)
    first, second = (last_means(tiny, each, None) for each in tasks)
    for layer in range(2):
        np.testing.assert_allclose(means[layer], (first[layer] + second[layer]) / 2, atol=1e-6)
    scores = scores_over_tasks(tiny, tasks, 3, max_tokens=None, progress=False)
    each = [
        ik.summarise(ik.fewshot.function_vector_effect(tiny, task, seed=3, progress=False)) for task in tasks
    ]
    mean = ik.summarise(scores)
    for key in ("mean", "control", "excess"):
        np.testing.assert_allclose(mean[key], (each[0][key] + each[1][key]) / 2, atol=1e-6)
    assert abs(each[0]["excess"] - each[1]["excess"]).max() > 0.01


def test_the_tasks_that_ship_are_other_ones_in_the_models_language(tiny):
    """The embedded model reads `topics`; of episodes of these no other task is left."""
    prompts = noisy_words(tiny, prompts=4)
    (task,) = other_tasks(tiny, prompts, None, 0)
    assert (task.queries.name, len(task), task.shown.shape[1]) == ("topics", 8, 8)
    assert other_tasks(tiny, prompts, task, 0) == other_tasks(tiny, prompts, [task], 0) == [task]
    assert not np.array_equal(task.shown, other_tasks(tiny, prompts, None, 1)[0].shown)
    with pytest.raises(Refused, match="pass tasks="):
        other_tasks(tiny, task, None, 0)
    with pytest.raises(Refused, match="prompts that are among them"):
        other_tasks(tiny, prompts[:2], [task, prompts[1:]], 0)


def test_the_tasks_of_a_model_that_reads_english_leave_out_the_prompts_own():
    model = english_model()
    pairs = ik.data.word_pairs("plurals", model)
    task = ik.data.draw_episodes(pairs[4:], pairs[:4], shots=3)
    found = other_tasks(model, task, None, 0)
    assert names_of_tasks(found) == "antonyms, capitals, past_tense"
    assert {len(each) for each in found} == {8}
    assert names_of_tasks([*found[:1], few_shot_of_task(model, task)]) == "antonyms, given"


def test_it_is_drawn_and_kept(found, tmp_path):
    figure = ik.plots.which_heads_plot(found)
    assert len([trace for trace in figure.data if trace.name == "each set"]) == 3
    dots = next(trace for trace in figure.data if trace.name == VECTOR)
    np.testing.assert_allclose(dots.x, found["accuracy_change"].sel(set=VECTOR))
    found.to_netcdf(tmp_path / "found.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "found.nc").load(), found)
