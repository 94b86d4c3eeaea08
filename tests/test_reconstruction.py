"""Is the vote of the demonstrations what it says, and does labels' chance look like chance?"""

import numpy as np
import pytest
import xarray as xr
from labelled_prompts import prompts_for
from logit_lens import cached, read_off
from model_state import same_snapshot, snapshot
from vote_cases import random_case, slow_hit, slow_vote, weights_of
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.model import value_weights


def test_the_vote_is_that_of_the_loops():
    weights, predicted = random_case()
    found = ik.kernel.vote(weights, predictions=predicted)
    for prompt in range(20):
        classes = weights["label_class"].values[prompt]
        for layer in range(2):
            for head in range(3):
                at = {"prompt": prompt, "layer": layer, "head": head}
                shares = slow_vote(weights["weight"].isel(at).values, classes, 3)
                assert np.allclose(found["vote"].isel(at), shares, rtol=0, atol=1e-15)
                assert float(found["agreement"].isel(at)) == slow_hit(shares, predicted[prompt])
                assert float(found["correct"].isel(at)) == slow_hit(shares, weights["target"].values[prompt])
                assert int(found["prediction"].isel(at)) == int(np.argmax(shares))


@pytest.mark.parametrize(("wanted", "share"), [(0, 0.5), (1, 0.5), (2, 0.0)])
def test_classes_that_are_tied_share_the_agreement_and_none_wins(wanted, share):
    weights = weights_of([[0.1, 0.2, 0.3, 0.3, 0.05]], [[0, 0, 0, 1, 2]])
    weights["weight"][0, 3] = 0.6
    found = ik.kernel.vote(weights, predictions=[wanted])
    assert found["agreement"].values == [share]
    assert found["prediction"].values == [-1]


def test_without_any_weight_all_classes_are_tied():
    found = ik.kernel.vote(weights_of([[0.0, 0.0]], [[0, 1]], [1], label=["a", "b", "c", "d"]))
    assert found["correct"].values == [0.25]
    assert found["prediction"].values == [-1]
    assert np.isnan(found["vote"]).all()


def test_the_threshold_is_that_of_the_loops():
    weights, predicted = random_case(1, prompts=12, shape=(2, 2))
    found = ik.kernel.vote(weights, predictions=predicted, permutations=19, seed=5)
    rng, null = np.random.default_rng(5), np.zeros((19, 2, 2))
    for prompt, wanted in enumerate(predicted):
        classes = weights["label_class"].values[prompt]
        there = np.flatnonzero(classes >= 0)
        for draw, order in enumerate(rng.random((19, len(there))).argsort(1)):
            moved = classes[there][order]
            for at in np.ndindex(2, 2):
                shares = slow_vote(weights["weight"].values[prompt][at][there], moved, 3)
                null[draw][at] += slow_hit(shares, wanted) / len(predicted)
    np.testing.assert_allclose(found["chance"], null.mean(0), atol=1e-12)
    everything = np.concatenate([null, found["mean"].values[None]])
    centre, spread = everything.mean(0), everything.std(0)
    largest = sorted(((null - centre) / spread).max((1, 2)))
    np.testing.assert_allclose(found["threshold"], centre + largest[18] * spread, atol=1e-12)
    assert (found["passes"] == (found["mean"] > found["threshold"])).all()
    assert (found["mean"] == found["agreement"].mean("prompt")).all()


def test_labels_of_a_set_are_permuted_together():
    weights, predicted = random_case(1, prompts=12, shape=(2, 2))
    classes = weights["label_class"].values
    there = (classes >= 0).sum(1)
    sets = np.unique(there, return_inverse=True)[1]  # prompts of a set have as many demonstrations
    options = {"predictions": predicted, "permutations": 19, "seed": 5}
    found = ik.kernel.vote(weights.assign_coords(set=("prompt", sets)), **options)
    rng, orders, null = np.random.default_rng(5), {}, np.zeros((19, 2, 2))
    for prompt, wanted in enumerate(predicted):
        shown = np.flatnonzero(classes[prompt] >= 0)
        if sets[prompt] not in orders:
            orders[sets[prompt]] = rng.random((19, len(shown))).argsort(1)
        for draw, order in enumerate(orders[sets[prompt]]):
            for at in np.ndindex(2, 2):
                moved = classes[prompt][shown][order]
                shares = slow_vote(weights["weight"].values[prompt][at][shown], moved, 3)
                null[draw][at] += slow_hit(shares, wanted) / len(predicted)
    np.testing.assert_allclose(found["chance"], null.mean(0), atol=1e-12)
    each = ik.kernel.vote(weights.assign_coords(set=("prompt", np.arange(12))), **options)
    xr.testing.assert_equal(each.drop_vars("set"), ik.kernel.vote(weights, **options))


@pytest.mark.parametrize("n_sets", [1, 4])
def test_heads_that_look_at_the_same_demonstrations_whatever_the_query_do_not_pass(n_sets):
    """Were labels permuted prompt by prompt, a head would pass in four of five draws."""
    rng, sets, passed = np.random.default_rng(n_sets), np.repeat(np.arange(n_sets), 64 // n_sets), 0
    for _ in range(60):
        classes = np.stack([rng.permutation([0, 1] * 4) for _ in range(n_sets)])[sets]
        weight = np.exp(3 * rng.normal(size=(n_sets, 16, 8))[sets] + rng.normal(size=(64, 16, 8)))
        leaning = 1 / (1 + np.exp(-2 * rng.normal(size=n_sets)))[sets]
        weights = xr.Dataset(
            {"weight": (("prompt", "head", "demonstration"), weight)},
            {"label_class": (("prompt", "demonstration"), classes), "target": ("prompt", classes[:, 0])},
        ).assign_coords(set=("prompt", sets))
        predicted = (rng.random(64) < leaning).astype(int)
        passed += bool(ik.kernel.vote(weights, predictions=predicted)["passes"].any())
    assert passed <= 8  # 3 expected


# the laws


@pytest.fixture(scope="module")
def case():
    return random_case(2)


def test_weights_times_a_number_vote_alike(case):
    weights, predicted = case
    scaled = ik.kernel.vote(weights.assign(weight=7.3 * weights["weight"]), predictions=predicted)
    whole = ik.kernel.vote(weights, predictions=predicted)
    for key in whole.data_vars:
        np.testing.assert_allclose(scaled[key], whole[key], atol=1e-14)


def test_the_order_of_demonstrations_is_nothing_to_the_vote(case):
    weights, predicted = case
    order = np.random.default_rng(0).permutation(6)
    moved = weights.isel(demonstration=order)
    a, b = (ik.kernel.vote(each, predictions=predicted) for each in (weights, moved))
    np.testing.assert_allclose(a["vote"], b["vote"], atol=1e-15)
    for key in ("agreement", "correct", "prediction", "mean", "low", "high"):
        assert (a[key] == b[key]).all()


def test_room_for_more_demonstrations_changes_nothing(case):
    weights, predicted = case
    padded = weights.pad(demonstration=(0, 3))
    assert np.isnan(padded["label_class"]).any()  # xarray's way, also of concat
    a, b = (ik.kernel.vote(each, predictions=predicted) for each in (weights, padded))
    for key in a.data_vars:
        np.testing.assert_allclose(a[key], b[key], atol=1e-15)


def test_one_demonstration_with_all_the_weight_is_the_nearest_neighbour():
    classes = np.random.default_rng(0).integers(0, 3, (30, 5))
    nearest = np.random.default_rng(1).integers(0, 5, 30)
    found = ik.kernel.vote(weights_of(np.eye(5)[nearest], classes))
    assert (found["prediction"].values == classes[np.arange(30), nearest]).all()


def test_equal_weights_are_the_majority():
    classes = np.random.default_rng(0).integers(0, 3, (40, 7))
    wanted = np.random.default_rng(1).integers(0, 3, 40)
    found = ik.kernel.vote(weights_of(np.full((40, 7), 1 / 7), classes), predictions=wanted)
    count = np.stack([(classes == y).sum(1) for y in range(3)], 1)
    best = count == count.max(1, keepdims=True)
    assert (found["agreement"].values == best[np.arange(40), wanted] / best.sum(1)).all()
    assert 0 < (best.sum(1) > 1).sum() < 40  # some are tied, not all
    assert np.isclose(found["chance"], found["mean"])  # wherever the labels lie
    assert not found["passes"]
    controls = ik.kernel.control_weights(weights_of(np.zeros((40, 7)), classes))
    majority = ik.kernel.vote(controls, predictions=wanted).sel(control="majority label")
    assert (majority["agreement"] == found["agreement"]).all()


def test_the_last_label_votes_alone():
    weights, predicted = random_case(3)
    found = ik.kernel.vote(ik.kernel.control_weights(weights), predictions=predicted)
    classes = weights["label_class"].values
    last = [row[row >= 0][-1] for row in classes]
    assert found["prediction"].sel(control="last label").values.tolist() == last
    assert set(np.isnan(ik.kernel.control_weights(weights)["weight"]).any("control").values[classes < 0]) == {
        True
    }


def test_predictions_that_are_the_vote_agree_with_it(case):
    weights, _ = case
    of_head = ik.kernel.vote(weights)["prediction"].sel(layer=1, head=2).values
    found = ik.kernel.vote(weights, predictions=of_head)
    assert (found["agreement"].sel(layer=1, head=2) == 1).all()
    assert found["passes"].sel(layer=1, head=2)


def random_weights(seed, prompts, heads, labels=2, demonstrations=6):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, labels, (prompts, demonstrations))
    weights = weights_of(rng.random((prompts, 1, heads, demonstrations)) ** 4, classes)
    return weights, rng.integers(0, labels, prompts)


def test_weights_that_know_nothing_agree_at_chance():
    inside = []
    for seed in range(200):
        weights, predicted = random_weights(seed, prompts=100, heads=1, labels=3)
        found = ik.kernel.vote(weights, predictions=predicted, permutations=20, seed=seed)
        inside.append(found["low"].item() <= 1 / 3 <= found["high"].item())
    assert 0.89 <= np.mean(inside) < 1


def test_no_head_at_all_is_marked_but_for_the_level():
    """Twelve thresholds at 5% each would mark a head in 46% of the draws."""
    marked = []
    for seed in range(220):
        weights, predicted = random_weights(seed, prompts=20, heads=12)
        found = ik.kernel.vote(weights, predictions=predicted, permutations=39, seed=seed)
        marked.append(bool(found["passes"].any()))
    assert 0.02 < np.mean(marked) < 0.1


def test_a_head_that_reads_where_the_label_is_right_is_marked():
    weights, predicted = random_weights(0, prompts=40, heads=12)
    reads = (weights["label_class"].values == predicted[:, None]) + 0.1
    weights["weight"][:, 0, 5] = reads
    found = ik.kernel.vote(weights, predictions=predicted)
    assert np.flatnonzero(found["passes"]).tolist() == [5]
    assert found["name"].values[0, 5] == "L0H5"


def test_weights_below_zero_vote_against():
    found = ik.kernel.vote(weights_of([[-0.5, 0.25, 0.25]], [[0, 1, 2]], [0]))
    assert found["vote"].values.tolist() == [[-0.5, 0.25, 0.25]]
    assert found["correct"].values == [0]


def test_unknown_classes_of_queries_are_nan():
    weights, predicted = random_case(4)
    weights = weights.assign_coords(target=("prompt", [-1] * 5 + [0] * 15))
    found = ik.kernel.vote(weights, predictions=predicted)
    assert np.isnan(found["correct"]).sum("prompt").values.tolist() == [[5] * 3] * 2
    nothing = ik.kernel.vote(weights[{"prompt": slice(5)}])
    assert np.isnan(nothing["mean"]).all()
    assert not nothing["passes"].any()


def test_files_bring_back_the_same(tmp_path):
    weights, predicted = random_case(5)
    found = ik.kernel.vote(weights, predictions=predicted)
    found.to_netcdf(tmp_path / "found.nc")
    with xr.open_dataset(tmp_path / "found.nc") as again:
        xr.testing.assert_equal(again.load(), found)


# sums of heads, and what heads write


def test_a_layers_sum_adds_its_heads_as_they_write():
    weights, _ = random_case(6)
    plain = ik.kernel.sum_heads(weights)
    assert plain["weight"].dims == ("prompt", "layer", "demonstration")
    np.testing.assert_allclose(plain["weight"], weights["weight"].values.sum(2), atol=1e-15)
    writes = xr.Dataset(
        {"writes": (("layer", "head"), [[1.0, 0.0, 0.0], [0.5, -0.5, 2.0]])},
        {"layer": [0, 1], "head": [0, 1, 2]},
    )
    found = ik.kernel.sum_heads(weights, writes)["weight"].values
    np.testing.assert_allclose(found[:, 0], weights["weight"].values[:, 0, 0], atol=1e-15)
    np.testing.assert_allclose(
        found[:, 1], np.tensordot(weights["weight"].values[:, 1], [0.5, -0.5, 2], (1, 0))
    )
    ik.kernel.vote(plain, permutations=19)


@pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
@pytest.mark.parametrize("name", ["attention-only", "GPT-2", "Llama"])
def test_what_heads_write_is_what_their_value_does_to_the_logits(name, bridge):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model, prompts=3)
    found = ik.kernel.label_logits(model, prompts)["writes"].values
    cache, demonstrations = cached(model, prompts.tokens), prompts.demonstrations
    expected = np.zeros((2, 4))
    for layer, head in np.ndindex(2, 4):
        _, b_v, w_o = value_weights(model, layer)
        group = 4 // cache["v", layer].shape[2]
        for p in range(3):
            for slot in range(2):
                at = int(demonstrations.label_positions[p, slot])
                written = (cache["v", layer][p, at, head // group] - b_v[head]) @ w_o[head]
                logits = read_off(model, cache, written, p, int(prompts.lengths[p]) - 1)
                of_labels = logits[demonstrations.label_ids]
                expected[layer, head] += (of_labels[slot] - of_labels.mean()).item() / 6
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
    one = ik.kernel.label_logits(model, prompts, batch_size=1)["writes"].values
    np.testing.assert_allclose(one, found, rtol=1e-12, atol=1e-12)


def test_what_heads_write_leaves_nothing_behind():
    model = fresh("GPT-2")
    prompts = prompts_for(model, prompts=2)
    before = snapshot(model)
    ik.kernel.label_logits(model, prompts)
    same_snapshot(before, snapshot(model))


# another run


def test_labels_that_change_places_take_the_vote_with_them():
    rng = np.random.default_rng(0)
    classes, weight = rng.integers(0, 2, (50, 5)), rng.random((50, 1, 2, 5))
    moved = rng.permuted(classes, axis=1)
    weights = weights_of(weight, classes)
    first = ik.kernel.vote(weights)["prediction"].values[:, 0, 0]
    again = ik.kernel.vote(weights_of(weight, moved))["prediction"].values[:, 0, 0]
    rerun = weights_of(weight, moved).assign(prediction=("prompt", again))
    found = ik.kernel.permuted_run(weights, first, rerun)
    assert (found["follows"].sel(layer=0, head=0) == 1).all()
    assert (found["moved"].values == (first != again)).all()
    stays = found["stays"].sel(layer=0, head=0)
    assert (stays.values == (first == again)).all()
    assert 0.1 < float(found["moved"].mean()) < 0.9
