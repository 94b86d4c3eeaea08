"""Labels knocked out and re-weighted: the numbers of plain hooks, and predictions move as kernel regression says."""

import csv
import random

import numpy as np
import pytest
import torch
import xarray as xr
from fewshot_by_hooks import (
    HEADS,
    check_gradient_of_reweighting,
    check_label_knock_out,
    check_reweighting,
    labels_of,
    rows_of,
)
from model_state import as_seen
from quick import one_in
from shots import noisy_words, random_shots
from zoo import PAIRS, fresh_of, model_of

import induction_kernel as ik
from induction_kernel.fewshot._label_knockout import _permuted
from induction_kernel.fewshot._matched_keys import _closest, _nearest_first
from induction_kernel.heads import as_heads

KINDS = [each for each in PAIRS if each[0] in ("attention-only", "Llama", "GPT-J")]


@pytest.mark.parametrize(("name", "kind", "which"), one_in(3, KINDS, ["all", "b c", 2]))
def test_the_same_as_plain_hooks(name, kind, which):
    check_label_knock_out(name, kind, which)


def test_the_vote_of_the_labels_still_seen_is_what_is_expected():
    model, prompts = model_of(*KINDS[0]), random_shots(n=6)
    found, demonstrations = (
        ik.fewshot.label_knock_out(model, prompts, HEADS, which=1, draws=0),
        prompts.demonstrations,
    )
    for p in range(len(prompts)):
        rows = rows_of(model, prompts, p)
        for run, left in (("untouched", (0, 1, 2)), ("labels", (0, 2)), ("other keys", (0, 1, 2))):
            votes = {
                y: sum(
                    float(rows[h.layer][h.head, labels_of(prompts, p, (y,))].sum()) for h in as_heads(HEADS)
                )
                for y in left
            }
            best = max(votes, key=votes.__getitem__) if max(votes.values()) > 0 else -1
            got = found.sel(prompt=p, run=run)
            assert int(got["expected"]) == best
            assert float(got["as_expected"]) == (int(got["prediction"]) == best)
    assert demonstrations is not None
    nothing_left = ik.fewshot.label_knock_out(model, prompts, HEADS, draws=0).sel(run="labels")
    assert (nothing_left["expected"] == -1).all()
    assert nothing_left["as_expected"].isnull().all()


def test_permuted_labels_are_as_many_among_those_there_are():
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    taken = torch.tensor([[True, True, False, False, False], [False, True, False, False, False]])
    drawn = [_permuted(taken, mask, generator) for _ in range(200)]
    assert all(torch.equal(each.sum(1), taken.sum(1)) and not bool((each & ~mask).any()) for each in drawn)
    share = torch.stack(drawn).double().mean(0)
    np.testing.assert_allclose(share[0], 0.4, atol=0.12)
    np.testing.assert_allclose(share[1, :3], 1 / 3, atol=0.12)


def test_other_keys_come_as_close_to_the_mass_as_they_say():
    order = _nearest_first(np.array([0, 0, 1, 0, 0, 0, 1, 0, 0], bool))
    assert order.tolist() == [1, 3, 5, 7, 4]  # neither the first token, the last, nor a label
    assert _closest(np.array([0.2, 0.5, 0.2]), 0.45).tolist() == [0, 2]
    assert _closest(np.array([0.5]), 0.3).tolist() == [0]  # .2 above is closer than .3 below
    assert _closest(np.array([0.7]), 0.3).tolist() == []
    assert _closest(np.array([]), 0.3).tolist() == []


def test_other_keys_of_the_layer_make_up_for_what_the_heads_do_not_have():
    model, prompts = model_of(*KINDS[0]), random_shots(n=8)
    mass = ik.fewshot.label_knock_out(model, prompts, "L1H0", draws=0)["mass"]
    own, layer = (
        abs(mass.sel(run=run) - mass.sel(run="labels")) for run in ("other keys", "other keys of the layer")
    )
    assert (layer <= own + 1e-12).all()
    every = ik.fewshot.label_knock_out(model, prompts, [f"L1H{i}" for i in range(4)], draws=0)
    assert "other keys of the layer" not in every["run"].values


def test_intervals_differences_and_the_round_trip(tmp_path):
    model, prompts = model_of(*KINDS[0]), random_shots(n=12)
    found = ik.fewshot.label_knock_out(model, prompts, HEADS[1:], which=0, draws=3)
    assert found["run"].values.tolist()[:2] == ["untouched", "labels"]
    assert (found["of"] == "permuted labels").sum() == 3
    assert (found["of"] == "random heads").sum() == 1  # two heads of four have two others: one set
    for group in found["group"].values:
        runs = found.sel(run=found["of"] == group)
        assert float(found["accuracy"].sel(group=group)) == pytest.approx(float(runs["correct"].mean()))
        assert float(found["agreed"].sel(group=group)) == pytest.approx(float(runs["agreement"].mean()))
        expected = runs["correct"].mean("run") - found["correct"].sel(run="labels")
        assert float(found["accuracy_difference"].sel(group=group)) == pytest.approx(float(expected.mean()))
        moved = runs["as_expected"].values[
            (runs["agreement"].values == 0) & runs["as_expected"].notnull().values
        ]
        share = float(found["expected_moves"].sel(group=group))
        assert share == pytest.approx(moved.mean()) if len(moved) else np.isnan(share)
    for key in ("accuracy", "agreed", "accuracy_difference"):
        assert ((found[f"{key}_low"] <= found[key]) & (found[key] <= found[f"{key}_high"])).all()
    unknown = ik.fewshot.label_knock_out(model, random_shots(known=False), HEADS, draws=0)
    assert unknown["correct"].isnull().all()
    assert unknown["accuracy"].isnull().all()
    found.to_netcdf(tmp_path / "found.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "found.nc").load(), found)


@pytest.mark.parametrize(("name", "kind"), one_in(2, KINDS))
def test_reweighting_is_what_plain_hooks_give(name, kind):
    check_reweighting(name, kind)


@pytest.mark.parametrize(("name", "kind"), one_in(2, [*KINDS[1:], KINDS[0]]))
def test_beta_0_changes_nothing(name, kind):
    model, prompts = model_of(name, kind), random_shots()
    found = ik.fewshot.reweighted(model, prompts, np.zeros((2, 4, 3)))
    moved = found["log_probability"].sel(run="reweighted") - found["log_probability"].sel(run="untouched")
    assert float(abs(moved).max()) < 1e-12
    metric = ik.fewshot.label_knock_out(model, prompts, HEADS, draws=0)["log_probability"].sel(
        run="untouched"
    )
    np.testing.assert_allclose(found["log_probability"].sel(run="untouched"), metric, atol=1e-6)


def test_a_beta_that_falls_without_end_is_a_knock_out_that_moves_no_mass():
    model, prompts = model_of(*KINDS[0]), random_shots()
    far, out = (
        ik.fewshot.reweighted(model, prompts, np.full((2, 4, 3), value))["log_probability"].sel(
            run="reweighted"
        )
        for value in (-40.0, -np.inf)
    )
    np.testing.assert_allclose(far, out, atol=1e-12)


@pytest.mark.parametrize(("name", "kind"), one_in(3, KINDS))
def test_the_gradient_is_that_of_the_loss(name, kind):
    check_gradient_of_reweighting(name, kind)


def test_fitting_lowers_the_loss_where_it_was_fitted_and_is_the_seed_s():
    model, prompts = model_of(*KINDS[0]), random_shots(n=8)
    options = {"steps": 10, "batch_size": 4, "lr": 0.4}
    found, again = (ik.fewshot.fit_label_weights(model, prompts, seed=3, **options) for _ in range(2))
    xr.testing.assert_identical(found, again)

    def loss(beta):
        logs = torch.from_numpy(
            ik.fewshot.reweighted(model, prompts, beta)["log_probability"].sel(run="reweighted").values
        )
        return -float(logs.log_softmax(-1)[torch.arange(8), prompts.demonstrations.target].mean())

    assert float(found["loss"][:2].mean()) == pytest.approx(loss(np.zeros((2, 4, 3))), abs=0.5)
    assert loss(found) < 0.8 * loss(np.zeros((2, 4, 3)))
    some = ik.fewshot.fit_label_weights(model, prompts, heads=["L0H1", "L1H2"], **options)["beta"]
    assert {str(some["name"].values[i]) for i in zip(*np.nonzero(some.values.any(2)), strict=True)} == {
        "L0H1",
        "L1H2",
    }


def calls(model, prompts):
    yield lambda: ik.fewshot.label_knock_out(model, prompts, HEADS, draws=0, progress=False)
    yield lambda: ik.fewshot.fit_label_weights(model, prompts, steps=2, progress=False)
    yield lambda: ik.fewshot.reweighted(model, prompts, np.ones((2, 4, 3)), progress=False)
    yield lambda: ik.fewshot.label_flow(model, prompts, progress=False)
    yield lambda: ik.fewshot.function_vector_effect(model, prompts, prompts, progress=False)


@pytest.mark.parametrize(("name", "kind", "call"), one_in(2, KINDS[:3], range(5)))
def test_the_model_is_as_it_was_also_after_an_exception(name, kind, call):
    model, prompts = fresh_of(name, kind), random_shots(n=2)
    model.train()
    model.run_with_cache(prompts.tokens)  # a Bridge's first one leaves hooks of its own
    before = as_seen(model)
    list(calls(model, prompts))[call]()
    assert as_seen(model) == before

    def fail(*_):
        raise RuntimeError("the user's own")

    handle = model.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="the user's own"):
        list(calls(model, prompts))[call]()
    handle.remove()
    assert as_seen(model) == before


@pytest.fixture(scope="module")
def words():
    model = ik.load("tiny")
    return model, noisy_words(model)


@pytest.mark.parametrize(
    "heads", [["L1H1", "L1H7"], ["L1H1", "L1H5", "L1H6", "L1H7"], [f"L1H{i}" for i in range(8)]]
)
def test_without_labels_the_embedded_model_is_at_chance_and_without_as_much_of_other_keys_it_is_not(
    words, heads
):
    """Four classes, 30% noise. L1H1 and L1H7 have other heads in the layer with as much attention on other keys."""
    model, prompts = words
    found = ik.fewshot.label_knock_out(model, prompts, heads, draws=5 * (len(heads) <= 4))
    accuracy = found["accuracy"].to_series()
    assert accuracy["untouched"] > 0.88
    low, high = (float(found[f"accuracy_{end}"].sel(group="labels")) for end in ("low", "high"))
    assert low < 0.25 < high
    others = [group for group in found["group"].values if group not in ("untouched", "labels")]
    assert min(accuracy[others]) > 0.88
    assert float(found["accuracy_difference_low"].sel(group=others).min()) > 0.5
    mass = found["mass"].groupby(found["of"]).mean().mean("prompt")
    if len(heads) == 2:
        assert float(mass.sel(of="other keys of the layer") / mass.sel(of="labels")) == pytest.approx(
            1, abs=0.02
        )


def test_labels_of_one_class_gone_the_vote_of_the_others_foretells_the_embedded_model(words):
    model, prompts = words
    found = ik.fewshot.label_knock_out(model, prompts, "L1H7", which=0, draws=5)
    moves, low = (float(found[key].sel(group="labels")) for key in ("expected_moves", "expected_moves_low"))
    assert moves > 0.6
    assert low > 1 / 3  # of the three classes left, one by chance
    lost = {
        group: float(found["agreed"].sel(group=group))
        for group in ("labels", "permuted labels", "other keys")
    }
    assert lost["labels"] < lost["permuted labels"] - 0.1  # those of one class carry its vote
    assert lost["other keys"] > 0.98


def test_nor_does_it_need_the_mass_on_other_keys_to_fail(words):
    model, prompts = words
    beta = np.zeros((2, 8, 4))
    beta[1, [1, 5, 6, 7]] = -np.inf
    found = ik.fewshot.reweighted(model, prompts, beta)
    assert float(found["accuracy"].sel(group="reweighted")) < 0.4


def sst2(model, shared, n):
    """Eight demonstrations and a query each."""

    def read(file):
        with (shared / "data" / file).open(encoding="utf-8") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [(row["sentence"].strip(), int(row["label"])) for row in rows]

    train, asked, draw = read("sst2.train2000.tsv"), read("sst2.validation.tsv")[:n], random.Random(0)
    by_label = [[row for row in train if row[1] == label] for label in (0, 1)]
    shots = [draw.sample(draw.sample(by_label[0], 4) + draw.sample(by_label[1], 4), 8) for _ in asked]
    template, labels = "Review: {x}\nSentiment: {y}", ["negative", "positive"]
    return ik.few_shot_prompts(model, shots, asked, template=template, labels=labels)


@pytest.mark.real("smollm2", "shared")
def test_labels_of_smollm2(smollm2, shared):
    """A few prompts of SST-2: the function runs and its controls take what they say (docs: large numbers)."""
    model = ik.load(smollm2, n_ctx=1024)
    prompts = sst2(model, shared, 24)
    chosen = ik.top_heads(ik.label_attention(model, prompts[:8]), 8)
    found = ik.fewshot.label_knock_out(model, prompts[8:], chosen, draws=2, control="any layer")
    mass = found["mass"].groupby(found["of"]).mean().mean("prompt").to_series()
    assert mass["labels"] > 3 * mass["random heads"]
    assert mass["other keys"] < mass["labels"]
    assert found["agreed"].sel(group="labels") <= found["agreed"].sel(group="random heads")
    assert found.attrs["lane"] == "decoder"


def test_a_share_of_all_is_not_without_doubt_and_a_difference_to_itself_is():
    model = ik.load("tiny")
    found = ik.fewshot.label_knock_out(
        model, ik.prompts.word_episodes(model, prompts=12), "L0H0", draws=1, progress=False
    )
    assert found["agreed_low"].sel(group="untouched") == 1
    every = found["accuracy"] == 1
    assert bool(every.any())
    assert float(found["accuracy_low"].where(every).max()) == pytest.approx(
        0.757, abs=1e-3
    )  # Wilson, 12 of 12
    own = found.sel(group="labels")
    assert [float(own[f"accuracy_difference{end}"]) for end in ("", "_low", "_high")] == [0, 0, 0]
