"""Is a head chosen on some prompts and scored on the others, are intervals as wide as said, are controls controls?"""

import numpy as np
import pytest
import torch
import xarray as xr
from vote_cases import random_case, slow_hit, slow_vote, weights_of

import induction_kernel as ik
from induction_kernel.stats import split_interval

CONTROLS = ["majority label", "last label", "position only", "random head", "labels permuted", "constant"]


def all_hits(weight, classes, wanted, labels):
    """`[prompt, source]` by loops, of weights `[prompt, source, demonstration]`."""
    return np.array(
        [
            [slow_hit(slow_vote(source, ys, labels), y) for source in sources]
            for sources, ys, y in zip(weight, classes, wanted, strict=True)
        ]
    )


def most_agreeing(hits, first):
    """Which source agrees with the model best on the first part."""
    return int(np.argmax([np.mean(hits[first, source]) for source in range(hits.shape[1])]))


def slow_profile(weight, classes, first):
    """Mean weight at each place, counted back from the query, as weights `[prompt, demonstration]`."""
    places: dict[int, list[float]] = {}
    for prompt in first:
        row = [a for a, y in zip(weight[prompt], classes[prompt], strict=True) if y >= 0]
        for place, a in enumerate(reversed(row)):
            places.setdefault(place, []).append(a)
    out = np.full(weight.shape, np.nan)
    for prompt, row in enumerate(classes):
        there = np.flatnonzero(row >= 0)
        for place, slot in enumerate(reversed(there)):
            out[prompt, slot] = np.mean(places.get(place, [0.0]))
    return out


@pytest.mark.parametrize("criterion", ["agreement", "accuracy"])
def test_scores_are_those_of_the_loops(criterion):
    weights, predicted = random_case(3, prompts=24)
    writes = xr.Dataset(
        {"writes": (("layer", "head"), [[1.0, -0.2, 0.1], [0.3, 2.0, 0.5]])},
        {"layer": [0, 1], "head": [0, 1, 2]},
    )
    found = ik.kernel.held_out(weights, predicted, writes=writes, splits=3, share=0.4, seed=7)
    truth, classes = weights["target"].values, weights["label_class"].values
    wanted = predicted if criterion == "agreement" else truth
    weight = weights["weight"].values
    by_writing = weight * writes["writes"].values[..., None]
    groups = {
        "best head": weight.reshape(24, 6, -1),
        "layer sum": weight.sum(2),
        "layer sum by writing": by_writing.sum(2),
        "majority label": np.ones((24, 1, 6)),
    }
    hits = {name: all_hits(each, classes, wanted, 3) for name, each in groups.items()}
    agreeing = {name: all_hits(each, classes, predicted, 3) for name, each in groups.items()}
    scores, choices = found[f"{criterion}_split"], found["choice"]
    rng = np.random.default_rng(7)
    for split, order in enumerate(rng.random((3, 24)).argsort(1).argsort(1)):
        first, second = np.flatnonzero(order < 10), np.flatnonzero(order >= 10)
        at = scores.sel(split=split)
        for name, each in hits.items():
            best = most_agreeing(agreeing[name], first)
            assert float(at.sel(row=name)) == pytest.approx(np.mean(each[second, best]), abs=1e-12)
            names = (
                [f"L{i // 3}H{i % 3}" for i in range(6)] if name == "best head" else ["layer 0", "layer 1"]
            )
            if name != "majority label":
                assert str(choices.sel({"split": split, "row": name}).values) == names[best]
        best = most_agreeing(agreeing["best head"], first)
        profile = slow_profile(groups["best head"][:, best], classes, first)
        there = all_hits(profile[:, None], classes, wanted, 3)
        assert float(at.sel({"row": "position only"})) == pytest.approx(there[second].mean(), abs=1e-12)
        common = int(np.bincount(predicted[first], minlength=3).argmax())
        assert float(at.sel({"row": "constant"})) == pytest.approx(
            np.mean(wanted[second] == common), abs=1e-12
        )
        assert str(choices.sel({"split": split, "row": "constant"}).values) == str(common)
        last = np.mean(
            [row[row >= 0][-1] == y for row, y in zip(classes[second], wanted[second], strict=True)]
        )
        assert float(at.sel({"row": "last label"})) == pytest.approx(last, abs=1e-12)
        heads = hits["best head"][second].mean()
        assert float(at.sel({"row": "random head"})) == pytest.approx(heads, abs=1e-12)
    own = found["accuracy_split"].sel({"row": "model"}).mean()
    assert float(own) == pytest.approx(np.mean(predicted == truth), abs=0.2)
    assert np.isnan(found["agreement"].sel({"row": "model"}))


def test_accuracy_is_that_of_the_head_that_agrees_and_not_of_the_one_that_is_right():
    """One head votes as the model predicts, another as the truth is; 700 of 1,000 prompts choose, as in the paper."""
    rng = np.random.default_rng(0)
    classes = np.tile([0, 1], (1000, 3))
    truth, predicted = rng.integers(0, 2, (2, 1000))
    votes = [np.where(classes == y[:, None], 0.5, 0.1) for y in (truth, predicted)]
    found = ik.kernel.held_out(weights_of(np.stack(votes, 1)[:, None], classes, truth), predicted, splits=10)
    best = found.sel({"row": "best head"})
    assert set(best["choice"].values) == {"L0H1"}
    assert (found.attrs["n_choose"], found.attrs["n_score"]) == (700, 300)
    assert float(best["agreement"]) == 1
    np.testing.assert_allclose(
        best["accuracy_split"], found["accuracy_split"].sel({"row": "model"}), atol=1e-12
    )
    assert float(best["accuracy_high"]) < 0.6


def test_labels_permuted_in_the_vote_are_the_chance_of_reconstruct():
    weights, predicted = random_case(4, prompts=60, shape=(1, 1))
    found = ik.kernel.held_out(weights, predicted, splits=40)["agreement"].sel({"row": "labels permuted"})
    chance = ik.kernel.vote(weights, predictions=predicted, permutations=2000)["chance"]
    assert float(found) == pytest.approx(float(chance.squeeze()), abs=0.03)


def simulated(rng, p, prompts, heads, splits):
    """Scores `[split]` of the best of heads that are right with probability p each, and of the best on all prompts."""
    hits = rng.random((prompts, heads)) < p
    first = rng.random((splits, prompts)).argsort(1) < prompts // 2
    best = (first @ hits).argmax(1)
    scores = [hits[~part, head].mean() for part, head in zip(first, best, strict=True)]
    return np.array(scores), hits.mean(0).max()


@pytest.mark.parametrize("p", [0.6, 0.9, 0.97])
def test_intervals_hold_the_true_agreement_as_often_as_they_say(p):
    rng, inside, optimistic = np.random.default_rng(0), [], []
    for _ in range(300):
        scores, best = simulated(rng, p, prompts=80, heads=10, splits=20)
        low, high = split_interval(scores, 40, 40, confidence=0.9)
        inside.append(low <= p <= high)
        optimistic.append(best)
    assert 0.85 < np.mean(inside) <= 0.99
    assert np.mean(optimistic) > p + 0.015  # the best head where it was chosen


def test_the_plain_variance_over_splits_would_be_far_too_small():
    """Test parts overlap: the uncorrected interval misses mostly."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(200):
        scores, _ = simulated(rng, 0.7, prompts=80, heads=10, splits=20)
        inside.append(abs(scores.mean() - 0.7) < 1.73 * scores.std(ddof=1) / 20**0.5)
    assert np.mean(inside) < 0.5


def test_for_a_method_that_chooses_nothing_the_interval_is_that_of_the_mean():
    weights, predicted = random_case(5, prompts=400)
    found = ik.kernel.held_out(weights, predicted, splits=400, share=0.3)
    hits = ik.kernel.vote(ik.kernel.control_weights(weights), predictions=predicted)["agreement"]
    hits = hits.sel(control="last label").values
    p, n = hits.mean(), len(hits)
    low, high = (found[f"agreement_{end}"].sel({"row": "last label"}) for end in ("low", "high"))
    assert float(found["agreement"].sel({"row": "last label"})) == pytest.approx(p, abs=0.005)
    assert float(high - low) == pytest.approx(2 * 1.96 * (p * (1 - p) / n) ** 0.5, rel=0.12)


def test_a_perfect_head_is_not_beyond_doubt_and_ties_are():
    classes = np.tile([0, 1], (40, 2))
    predicted = np.tile([0, 1], 20)
    weight = np.where(classes == predicted[:, None], 0.4, 0.1)[:, None, None]
    found = ik.kernel.held_out(weights_of(weight, classes), predicted).sel(
        {"row": ["best head", "majority label"]}
    )
    assert found["agreement"].values.tolist() == [1, 0.5]
    assert 0.85 < float(found["agreement_low"][0]) < 0.95
    assert found["agreement_low"].values[1] == found["agreement_high"].values[1] == 0.5
    assert found["agreement_difference"].values.tolist() == [0, 0.5]
    assert np.isnan(found["accuracy"]).all()


def test_heads_that_know_nothing_are_no_better_than_their_controls():
    rng = np.random.default_rng(0)
    classes = np.stack([rng.permutation([0, 0, 0, 1, 1, 1]) for _ in range(200)])
    weights = weights_of(rng.random((200, 6, 5, 6)), classes)
    predicted = rng.integers(0, 2, 200)
    found = ik.kernel.held_out(weights, predicted)
    best = ik.kernel.vote(weights, predictions=predicted)["mean"].max()
    held = found.sel({"row": "best head"})
    assert float(best) > 0.55
    assert float(held["agreement_low"]) < 0.5 < float(held["agreement_high"])
    for control in CONTROLS:
        at = found.sel(row=control)
        assert float(at["agreement_difference_low"]) < 0 < float(at["agreement_difference_high"])


def test_other_weights_have_rows_of_their_own():
    weights, predicted = random_case(6, prompts=30)
    classes, target = weights["label_class"].values, weights["target"].values
    votes = np.where(classes == predicted[:, None], 0.9, 0.1)
    noise = np.random.default_rng(0).random(votes.shape)
    kernels = xr.Dataset(
        {"weight": (("prompt", "kernel", "demonstration"), np.stack([noise, votes], 1))},
        {"label_class": weights["label_class"], "target": weights["target"], "kernel": ["noise", "oracle"]},
    )
    wide = weights_of(
        np.tile(votes, 2), np.tile(classes, 2), target
    )  # over more demonstrations than the prompt's
    found = ik.kernel.held_out(weights, predicted, others={"kernel": kernels, "nearest": wide}, splits=5)
    assert found["row"].values.tolist()[3:5] == ["kernel", "nearest"]
    assert set(found["choice"].sel({"row": "kernel"}).values) == {"oracle"}
    same = ik.kernel.vote(kernels, predictions=predicted)["mean"].sel(kernel="oracle")
    assert float(found["agreement"].sel({"row": "nearest"})) == pytest.approx(float(same), abs=0.1)
    assert (
        found["agreement_split"].sel({"row": "kernel"}) == found["agreement_split"].sel({"row": "nearest"})
    ).all()


def test_table_and_file(tmp_path):
    weights, predicted = random_case(7, prompts=30)
    found = ik.kernel.held_out(weights, predicted, splits=5)
    table = ik.kernel.reconstruction_table(found)
    assert table.index.tolist() == ["model", "best head", "layer sum", *CONTROLS]
    assert table.loc["best head", "agreement"] == round(
        float(found["agreement"].sel({"row": "best head"})), 3
    )
    name, _, count = table.loc["best head", "chosen"].partition(" (")
    chosen = found["choice"].sel({"row": "best head"}).values.tolist()
    assert count == f"{chosen.count(name)} of 5)"
    found.to_netcdf(tmp_path / "found.nc")
    with xr.open_dataset(tmp_path / "found.nc") as again:
        xr.testing.assert_equal(again.load(), found)
    xr.testing.assert_identical(found, ik.kernel.held_out(weights, predicted, splits=5))
    assert not found["agreement"].equals(
        ik.kernel.held_out(weights, predicted, splits=5, seed=1)["agreement"]
    )


# the embedded model


def test_the_embedded_model_votes_with_its_demonstrations():
    """Four classes, 30% of the demonstrations' words from anywhere.

    The plain sum of layer 1 is below .90: two of its heads rest on label words and write nothing, `label_logits` says.
    """
    model = ik.load("tiny")
    prompts = ik.prompts.word_episodes(model, prompts=400, noise=0.3, classes=4)
    labels = prompts.demonstrations.label_ids
    with torch.no_grad():
        logits = model(prompts.tokens, return_type="logits")[torch.arange(400), prompts.lengths - 1]
    predicted = logits[:, labels].argmax(-1).numpy()
    weights, writes = ik.scorers.demonstration_weights(model, prompts), ik.kernel.label_logits(model, prompts)
    found = ik.kernel.held_out(weights, predicted, writes=writes)
    low, high = (found[f"agreement_{end}"].to_series() for end in ("low", "high"))
    assert low["best head"] > 0.85
    assert low["layer sum by writing"] > 0.9
    assert high["layer sum"] < 0.9
    assert high[CONTROLS].max() < 0.45
    assert found["agreement_difference_low"].to_series()[CONTROLS].min() > 0.5
    assert float(found["accuracy_low"].sel({"row": "model"})) > 0.7
    strength = writes["writes"].sel(layer=1).values
    assert strength[7] > 3
    assert np.abs(np.delete(strength, 7)).max() < 0.2
    resting = weights["weight"].sel(layer=1).sum("demonstration").mean("prompt").values
    assert (resting[[5, 6]] > 0.9).all()
