"""predict: one pass gives what separate runs give, a stopped run goes on, and the scores are as defined."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binomtest
from zoo import SHAPES, fresh, tiny

import induction_kernel as ik
from induction_kernel.fewshot import _one_pass as one_pass
from induction_kernel.fewshot import _predictions as evaluating
from induction_kernel.fewshot._accuracy import calibration_error
from induction_kernel.model import foreign_hooks, stream
from induction_kernel.prompts import concat

POOLINGS = ("max", "sum", "mean", "label")
BRIDGES = [False, True]


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny", dtype=torch.float64)


@pytest.fixture(scope="module")
def prompts(model):
    """Of different lengths and numbers of demonstrations, not sorted by either."""
    parts = [
        ik.prompts.word_episodes(model, shots=shots, prompts=4, noise=0.4, seed=shots) for shots in (8, 3, 12)
    ]
    return concat(parts)


@pytest.fixture(scope="module")
def found(model, prompts):
    return ik.fewshot.predict(model, prompts, pooling=POOLINGS)


def slow_log_probabilities(model, prompts):
    """`[prompt, label]`, a plain run a prompt."""
    rows = []
    for tokens, length in zip(prompts.tokens, prompts.lengths, strict=True):
        with torch.no_grad():
            logits = model(tokens[None, :length])[0, -1]
        rows.append(logits.log_softmax(-1)[prompts.demonstrations.label_ids])
    return torch.stack(rows).numpy()


def test_one_pass_gives_the_logits_of_plain_runs(model, prompts, found):
    np.testing.assert_allclose(found["log_probability"], slow_log_probabilities(model, prompts), atol=1e-12)
    alone = ik.fewshot.predict(model, prompts)
    np.testing.assert_array_equal(alone["log_probability"], found["log_probability"])
    assert "weight" not in alone


@pytest.mark.parametrize("pooling", POOLINGS)
def test_and_the_weights_of_demonstration_weights(model, prompts, found, pooling):
    separate = ik.scorers.demonstration_weights(model, prompts, pooling=pooling)
    np.testing.assert_allclose(found["weight"].sel(pooling=pooling), separate["weight"], atol=1e-12)
    for key in ("label_class", "target"):
        np.testing.assert_array_equal(found[key], separate[key])
    alone = ik.fewshot.predict(model, prompts, pooling=pooling)
    assert alone["weight"].dims == ("prompt", "layer", "head", "demonstration")
    np.testing.assert_array_equal(alone["weight"], found["weight"].sel(pooling=pooling))


@pytest.mark.parametrize("bridge", BRIDGES, ids=["hooked", "bridge"])
@pytest.mark.parametrize("shape", SHAPES)
def test_only_last_tokens_are_unembedded_and_nothing_is_left_on_the_model(shape, bridge):
    model, seen = tiny(shape, bridge=bridge), []
    tokens = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(0))
    last = torch.tensor([11, 4, 7])
    stream(
        model, tokens, lambda *_: None, {}, lengths=None, at=last
    )  # what is checked and attached at first use
    before = hooks_on(model)
    logits = stream(
        model,
        tokens,
        lambda site, layer, value: seen.append((site, layer)),
        {"z": {1, 0}},
        lengths=None,
        at=last,
    )
    assert seen == [("z", 0), ("z", 1)]
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(tokens)[torch.arange(3), last], atol=1e-12)
    assert hooks_on(model) == before

    def fail(*_):
        raise KeyError("from a reader")

    with pytest.raises(KeyError):
        stream(model, tokens, fail, {"z": {0}}, lengths=None, at=last)
    assert hooks_on(model) == before


def hooks_on(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_hooks_of_the_users_own_see_every_position_of_the_unembedding():
    model, shapes = fresh("GPT-2"), []
    tokens = torch.arange(10)[None]
    hook = ("unembed.hook_in", lambda value, hook: shapes.append(tuple(value.shape)))
    with model.hooks(fwd_hooks=[hook]):
        assert foreign_hooks(model)
        logits = stream(model, tokens, lambda *_: None, {}, lengths=None, at=torch.tensor([6]))
    assert shapes == [(1, 10, 16)]
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(tokens)[:, 6], atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_batches_and_the_order_of_prompts_change_nothing(model, prompts, found, batch_size):
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(0))
    moved = ik.fewshot.predict(model, prompts[order], pooling=POOLINGS, batch_size=batch_size)
    for key in ("log_probability", "weight", "prediction", "label_class", "target"):
        np.testing.assert_allclose(moved[key], found[key].isel(prompt=order.numpy()), atol=1e-12)


def test_texts_episodes_and_prompts_are_evaluated_alike(model):
    animals, fruits = "fox wolf bear horse sheep goat".split(), "apple pear plum grape mango lemon".split()
    options = {"labels": ("dax", "wug"), "template": "{x} {y} ;"}
    pool = ik.data.LabelledTexts(animals[:4] + fruits[:4], np.repeat([0, 1], 4), **options)
    queries = ik.data.LabelledTexts(animals[4:] + fruits[4:], np.repeat([0, 1], 2), **options)
    episodes = ik.data.draw_episodes(pool, queries, shots=6, seed=3)
    results = [
        ik.fewshot.predict(model, queries, pool=pool, shots=6, seed=3),
        ik.fewshot.predict(model, episodes),
        ik.fewshot.predict(model, episodes.prompts(model)),
    ]
    for each in results:
        np.testing.assert_array_equal(each["log_probability"], results[0]["log_probability"])
    assert results[0]["text"].values.tolist() == list(queries.texts)
    assert [text.split()[-1] for text in results[2]["text"].values.tolist()] == list(queries.texts)


def test_a_result_is_labelled_and_survives_a_file(found, tmp_path):
    assert found["label"].values.tolist() == ["dax", "wug"]
    assert str(found["name"].sel(layer=1, head=3).item()) == "L1H3"
    assert (found["weight"].isnull() == (found["label_class"] < 0)).all()
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), found)


def test_the_scores_are_as_defined(found):
    target, shares = found["target"].values, np.exp(found["log_probability"].values)
    shares /= shares.sum(1, keepdims=True)
    right, brier, gaps, confusion = 0, 0.0, {}, np.zeros((2, 2), int)
    for y, share in zip(target, shares, strict=True):
        predicted = 0 if share[0] >= share[1] else 1
        right += int(predicted == y)
        confusion[y, predicted] += 1
        brier += sum((share[label] - (label == y)) ** 2 for label in (0, 1)) / len(target)
        cell = next(i for i in range(10) if i / 10 < share[predicted] <= (i + 1) / 10)
        gaps[cell] = gaps.get(cell, 0.0) + (int(predicted == y) - share[predicted]) / len(target)
    assert 0 < right < len(target)
    assert float(found["accuracy"]) == float(found["correct"].mean()) == right / len(target)
    low, high = binomtest(right, len(target)).proportion_ci(method="wilson")
    assert (float(found["accuracy_low"]), float(found["accuracy_high"])) == pytest.approx(
        (low, high), abs=1e-12
    )
    assert float(found["brier"]) == pytest.approx(brier, abs=1e-12)
    assert float(found["calibration_error"]) == pytest.approx(sum(map(abs, gaps.values())), abs=1e-12)
    np.testing.assert_array_equal(found["confusion"], confusion)


def test_calibration_error_by_hand():
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0
    assert calibration_error(np.array([0.95, 0.95]), np.array([1.0, 0.0])) == pytest.approx(0.45)
    assert calibration_error(np.array([0.55, 0.95]), np.array([1.0, 0.0])) == pytest.approx(0.7)  # two bins
    assert calibration_error(np.array([0.51, 0.59]), np.array([1.0, 0.0])) == pytest.approx(0.05)  # one bin


def test_queries_without_a_class_are_predicted_but_not_scored(model):
    shots = [("fox", "dax"), ("pear", "wug"), ("wolf", "dax"), ("plum", "wug")]
    options = {"template": "{x} {y} ;", "labels": ["dax", "wug"], "separator": " "}
    unknown = ik.fewshot.predict(model, ik.few_shot_prompts(model, shots, ["bear", "lime"], **options))
    assert np.isnan(unknown["correct"]).all()
    assert np.isnan(unknown["accuracy"])
    assert int(unknown["confusion"].sum()) == 0
    assert (unknown["target"] == -1).all()
    known = ik.fewshot.predict(
        model, ik.few_shot_prompts(model, shots, [("bear", 0), ("lime", 1)], **options)
    )
    np.testing.assert_array_equal(unknown["prediction"], known["prediction"])


@pytest.fixture
def counted(monkeypatch):
    """Every prompt that is computed, by its length and class; stops when `counted.limit` batches are done."""

    class Counted(list):
        limit = None

    done, plain = Counted(), evaluating.evaluated

    def evaluated(model, batch, *how, **options):
        if done.limit is not None and len(done) >= done.limit:
            raise KeyboardInterrupt
        done.append(len(batch))
        return plain(model, batch, *how, **options)

    monkeypatch.setattr(evaluating, "evaluated", evaluated)
    return done


def test_a_run_that_was_stopped_goes_on_and_computes_nothing_twice(model, prompts, found, tmp_path, counted):
    counted.limit = 2
    with pytest.raises(KeyboardInterrupt):
        ik.fewshot.predict(model, prompts, pooling=POOLINGS, path=tmp_path / "run", batch_size=3)
    assert counted == [3, 3]
    counted.limit = None
    again = ik.fewshot.predict(model, prompts, pooling=POOLINGS, path=tmp_path / "run", batch_size=4)
    assert counted == [3, 3, 4, 2]
    xr.testing.assert_allclose(again, found, rtol=0, atol=1e-12)
    last = ik.fewshot.predict(model, prompts, pooling=POOLINGS, path=tmp_path / "run")
    assert len(counted) == 4
    xr.testing.assert_identical(last, again)


def test_a_batch_that_was_not_finished_leaves_nothing(model, prompts, tmp_path, monkeypatch):
    def break_off(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("induction_kernel.stores.netcdf_of", break_off)
    with pytest.raises(OSError, match="no space"):
        ik.fewshot.predict(model, prompts, path=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["evaluation.json"]


def test_a_folder_of_another_evaluation_is_refused(model, prompts, tmp_path):
    path = tmp_path / "run"
    ik.fewshot.predict(model, prompts, path=path, pooling="max")
    other = ik.load("tiny", dtype=torch.float64)
    with torch.no_grad():
        other.blocks[1].attn.W_Q[0, 0, 0] += 1
    single = ik.load("tiny")
    moved = prompts.tokens.clone()
    moved[7, 2] += 1
    for changed in (
        lambda: ik.fewshot.predict(model, prompts, path=path, pooling="sum"),
        lambda: ik.fewshot.predict(model, prompts, path=path),
        lambda: ik.fewshot.predict(model, prompts[1:], path=path, pooling="max"),
        lambda: ik.fewshot.predict(other, prompts, path=path, pooling="max"),
        lambda: ik.fewshot.predict(single, prompts, path=path, pooling="max"),
        lambda: ik.fewshot.predict(model, replace(prompts, tokens=moved), path=path, pooling="max"),
    ):
        with pytest.raises(ValueError, match="holds another evaluation"):
            changed()
    ik.fewshot.predict(ik.load("tiny", dtype=torch.float64), prompts, path=path, pooling="max")


def test_only_one_layer_s_patterns_are_alive(model, prompts, monkeypatch):
    import weakref

    alive, most, plain = weakref.WeakSet(), [0], one_pass.taken

    class Held:
        pass

    def taken(pattern, entries):
        held = Held()
        alive.add(held)
        pattern._held = held  # dies with the tensor
        most[0] = max(most[0], len(alive))
        return plain(pattern, entries)

    monkeypatch.setattr(one_pass, "taken", taken)
    ik.fewshot.predict(model, prompts, pooling="max", batch_size=3)
    assert most == [1]


def test_the_model_is_given_back_as_it_was(model, prompts):
    model.train(True)
    state = torch.random.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ik.fewshot.predict(model, prompts, pooling="max")
    assert model.training
    model.train(False)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not foreign_hooks(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_broken_weights_are_refused(prompts):
    broken = ik.load("tiny")
    with torch.no_grad():
        broken.W_U[...] = torch.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        ik.fewshot.predict(broken, prompts)


@pytest.mark.real("smollm2", "shared")
def test_smollm2_reads_sentiment_from_demonstrations(smollm2, shared, tmp_path):
    model = ik.load(smollm2, n_ctx=1024)
    queries = ik.data.load_classification(shared / "data" / "sst2.validation.tsv").split(24, seed=1)[0]
    pool = ik.data.load_classification(shared / "data" / "sst2.train2000.tsv")
    episodes = ik.data.draw_episodes(pool, queries, shots=8)
    found = ik.fewshot.predict(model, episodes, pooling="max", path=tmp_path / "run")
    few = episodes[:3].prompts(model)
    np.testing.assert_allclose(found["log_probability"][:3], slow_log_probabilities(model, few), atol=2e-4)
    separate = ik.scorers.demonstration_weights(model, few)
    np.testing.assert_allclose(found["weight"][:3], separate["weight"], atol=1e-5)
    total = np.exp(found["log_probability"].values).sum(1)
    assert (total > 0.5).all()  # it answers with one of the two words
    assert set(found["prediction"].values) == {0, 1}
