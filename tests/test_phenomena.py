"""Section 4.2's phenomena: the right demonstrations, words, texts and orders under each condition, fairly compared."""

import warnings

import numpy as np
import pytest
import xarray as xr

import induction_kernel as ik
from induction_kernel.fewshot import _conditions as conditions
from induction_kernel.fewshot import _phenomena as phenomena
from induction_kernel.fewshot._conditions import WORD, misspelt, perturbed, rare_words

ANIMALS = "fox wolf bear horse sheep goat tiger lion rabbit mouse camel deer".split()
FRUITS = "apple pear plum grape mango lemon peach cherry melon fig banana lime".split()


def texts_of(rows, classes):
    return ik.data.LabelledTexts(rows, np.asarray(classes), ("dax", "wug"), "words", "{x} {y} ;")


@pytest.fixture(scope="module")
def pool():
    rows = [f"{a} {b}" for kind in (ANIMALS[:6], FRUITS[:6]) for a in kind for b in kind if a < b]
    return texts_of(rows, [0] * 15 + [1] * 15)


@pytest.fixture(scope="module")
def queries():
    rows = [f"{a} {b}" for kind in (ANIMALS, FRUITS) for a, b in zip(kind[:8], kind[4:], strict=True)]
    return texts_of(rows, [0] * 8 + [1] * 8)


@pytest.fixture(scope="module")
def episodes(pool, queries):
    with pytest.warns(UserWarning, match="2 of 16"):
        return ik.data.draw_episodes(pool, queries, shots=5, separator=" ")


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


@pytest.fixture
def rule(monkeypatch):
    """A model replaced by a rule of the episodes: `rule(function)`; and the episodes it was asked about."""
    asked = []

    def put(answer):
        def predict(model, episodes, **_):
            asked.append(episodes)
            prediction, target = answer(episodes), episodes.queries.classes
            n = len(episodes)
            return xr.Dataset(
                {
                    "prediction": ("prompt", prediction), "correct": ("prompt", (prediction == target).astype(float)),
                    "log_probability": (("prompt", "label"), np.zeros((n, 2))),
                },
                {
                    "prompt": np.arange(n), "label": ["dax", "wug"], "target": ("prompt", target),
                    "text": ("prompt", list(episodes.queries.texts)),
                },
            )  # fmt: skip

        monkeypatch.setattr(conditions, "predict", predict)
        monkeypatch.setattr(phenomena, "_usable", lambda *_: None)
        return asked

    return put


def last_label(episodes):
    return episodes.classes[:, -1]


def majority(episodes):
    return (episodes.classes.mean(1) > 0.5).astype(int)


def checked(found, first):
    """What all four have in common."""
    correct, prediction = found["correct"].values, found["prediction"].values
    np.testing.assert_array_equal(correct, prediction == found["target"].values)
    np.testing.assert_allclose(found["accuracy"], correct.mean(1))
    np.testing.assert_allclose(found["difference"], correct.mean(1) - correct[0].mean(), atol=1e-12)
    np.testing.assert_allclose(found["agreement"], (prediction == prediction[0]).mean(1))
    for key in ("accuracy", "difference", "agreement"):
        assert (found[f"{key}_low"] <= found[key] + 1e-12).all()
        assert (found[key] <= found[f"{key}_high"] + 1e-12).all()
    assert found["condition"].values[0] == first
    assert float(found["difference_low"][0]) == float(found["difference_high"][0]) == 0
    return found


def test_a_vote_that_knows_no_order_never_changes(rule, episodes):
    asked = rule(majority)
    found = checked(ik.fewshot.order_effect(None, episodes, orders=4), "as drawn")
    assert float(found["change"]) == float(found["change_low"]) == float(found["accuracy_spread"]) == 0
    assert len(asked) == 4
    shown = [each.shown.tolist() for each in asked]
    assert len({str(each) for each in shown}) == 4
    assert all(sorted(a) == sorted(b) for each in shown for a, b in zip(each, shown[0], strict=True))


def test_what_changes_with_the_order_is_counted_over_all_pairs(rule, episodes):
    asked = rule(last_label)
    found = checked(ik.fewshot.order_effect(None, episodes, orders=5, seed=3), "as drawn")
    lasts = np.stack([each.classes[:, -1] for each in asked])
    pairs = [(a, b) for a in range(5) for b in range(a)]
    changed = [np.mean([lasts[a, i] != lasts[b, i] for a, b in pairs]) for i in range(len(episodes))]
    np.testing.assert_allclose(found["changed"], changed)
    assert (
        0
        < float(found["change_low"])
        < float(found["change"])
        == np.mean(changed)
        < float(found["change_high"])
    )
    accuracy = (lasts == episodes.queries.classes).mean(1)
    assert float(found["accuracy_mean"]) == pytest.approx(accuracy.mean())
    assert float(found["accuracy_spread"]) == pytest.approx(accuracy.std(ddof=1))


def test_retrieval_shows_the_most_and_the_least_similar_texts(rule, pool, queries):
    asked = rule(last_label)
    with pytest.warns(UserWarning, match="also in the pool") as caught:
        found = checked(ik.fewshot.retrieval_effect(None, pool, queries, shots=4), "random")
    assert len(caught) == 1
    similar = found["similarity"]
    assert (similar.sel(condition="nearest") >= similar.sel(condition="random")).all()
    assert (similar.sel(condition="random") >= similar.sel(condition="farthest")).all()
    assert float(similar.sel(condition="nearest").mean()) > 0.3
    for each in asked:
        assert not any(
            text in {pool.texts[i] for i in row} for text, row in zip(queries.texts, each.shown, strict=True)
        )
    own = np.mean([each.classes == queries.classes[:, None] for each in asked], axis=-1)
    np.testing.assert_allclose(found["own_class"], own)
    # classes are told apart by their words here, so similar demonstrations are of the query's class
    assert float(found["own_class"].sel(condition="nearest")[:4].mean()) == 1


def test_the_most_similar_stands_last_in_every_condition(rule, pool, queries):
    place = {text: i for i, text in enumerate(dict.fromkeys(pool.texts + queries.texts))}

    def circle(texts):
        angle = np.array([place[text] for text in texts]) / 10
        return np.stack([np.cos(angle), np.sin(angle)], 1)

    asked = rule(last_label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ik.fewshot.retrieval_effect(None, pool, queries, shots=4, embed=circle)
    for each in asked:
        for query, row in zip(circle(queries.texts), each.shown, strict=True):
            assert (np.diff(circle([pool.texts[i] for i in row]) @ query) > -1e-9).all()


def test_texts_alike_in_nothing_are_farthest_in_random_order(rule):
    """A tie must not always show the same texts."""
    pool = texts_of([f"{word} x{i}" for i, word in enumerate(ANIMALS * 5)], [0, 1] * 30)
    asked = rule(last_label)
    ik.fewshot.retrieval_effect(None, pool, texts_of(["kiwi"] * 40, [0, 1] * 20), shots=3)
    assert len(set(asked[2].shown.ravel().tolist())) > 40


def test_formats_change_words_and_nothing_else(rule, episodes):
    asked = rule(majority)
    found = checked(ik.fewshot.label_format_effect(None, episodes), "original")
    words = {
        key: each.pool.labels for key, each in zip(found["condition"].values.tolist(), asked, strict=True)
    }
    assert words == {
        "original": ("dax", "wug"), "upper case": ("DAX", "WUG"), "capital": ("Dax", "Wug"), "letters": ("A", "B"),
        "swapped": ("wug", "dax"),
    }  # fmt: skip
    assert [tuple(row) for row in found["words"].values.tolist()] == list(words.values())
    for each in asked:
        np.testing.assert_array_equal(each.shown, episodes.shown)
        np.testing.assert_array_equal(each.classes, episodes.classes)
    assert (found["agreement"] == 1).all()


def test_formats_on_a_model_are_separate_evaluations(model, episodes):
    found = checked(
        ik.fewshot.label_format_effect(model, episodes, formats={"other": ["kiki", "blick"]}), "original"
    )
    for key, each in (("original", episodes), ("other", episodes.relabelled(["kiki", "blick"]))):
        alone = ik.fewshot.predict(model, each)
        np.testing.assert_allclose(
            found["log_probability"].sel(condition=key), alone["log_probability"], atol=1e-6
        )
        assert float(found["accuracy"].sel(condition=key)) == float(alone["accuracy"])


def test_shifted_queries_keep_their_demonstrations(model, pool, episodes, tmp_path):
    found = checked(
        ik.fewshot.input_shift_effect(model, episodes, shift="rare words", shares=(0.5, 1)), "as they are"
    )
    assert found["share"].values.tolist() == [0, 0.5, 1]
    assert found["condition"].values.tolist() == ["as they are", "50%", "100%"]
    assert found["text"].values.tolist() == list(episodes.queries.texts)
    assert float(found["agreement"].sel(condition="100%")) < 1
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), found)


def test_a_shift_of_the_users_own_reaches_its_share_of_the_words(rule, episodes):
    asked = rule(majority)
    ik.fewshot.input_shift_effect(None, episodes, shift=lambda word, rng: word.upper(), shares=[0.5])
    for before, after in zip(episodes.queries.texts, asked[1].queries.texts, strict=True):
        assert after.lower() == before
        assert [word.isupper() for word in after.split()].count(True) == 1
    np.testing.assert_array_equal(asked[1].shown, episodes.shown)


TEXT = "The film's heroes, Anna & Bo, saw a 2nd comet above the old harbour."


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
@pytest.mark.parametrize("shift", [misspelt, rare_words(["zebu quagga zebu", "okapi"])])
def test_as_many_words_are_perturbed_as_were_asked_for(share, shift):
    words, new = (
        WORD.findall(TEXT),
        perturbed(TEXT, lambda word, rng: f"<{shift(word, rng)}>", share, np.random.default_rng(1)),
    )
    assert new.count("<") == round(share * len(words))
    outside = [WORD.sub("", TEXT), WORD.sub("", new.replace("<", "").replace(">", ""))]
    assert shift is misspelt or outside[0] == outside[1]


def test_a_larger_share_keeps_what_a_smaller_one_perturbs():
    before = TEXT.split()
    some, more = (perturbed(TEXT, misspelt, share, np.random.default_rng(2)).split() for share in (0.3, 0.8))
    changed = [i for i, word in enumerate(some) if word != before[i]]
    assert changed
    assert all(more[i] == some[i] for i in changed)


def test_misspelt_words_have_one_error():
    rng = np.random.default_rng(0)
    for word in ["at", "ee", "noon", "horse", "aaab", "Zoo"] * 20:
        new = misspelt(word, rng)
        assert new != word
        assert abs(len(new) - len(word)) <= 1
        if len(new) == len(word):
            assert sorted(new) == sorted(word)


def test_rare_words_are_those_that_occur_least():
    shift, rng = rare_words(["the cat the dog", "cat dog bee", "Ant"]), np.random.default_rng(0)
    assert {shift("house", rng) for _ in range(50)} == {"bee", "ant"}
    assert {shift("Bee", rng) for _ in range(20)} == {"ant"}
    with pytest.raises(ValueError, match="at least two rarest words"):
        rare_words(["the the"])


@pytest.mark.real("smollm2", "shared")
def test_smollm2_answers_in_other_words_and_orders(smollm2, shared):
    model = ik.load(smollm2, n_ctx=1024)
    queries = ik.data.load_classification(shared / "data" / "sst2.validation.tsv").split(12, seed=1)[0]
    pool = ik.data.load_classification(shared / "data" / "sst2.train2000.tsv")
    episodes = ik.data.draw_episodes(pool, queries, shots=4)
    found = checked(ik.fewshot.order_effect(model, episodes, orders=3), "as drawn")
    assert 0 < float(found["change"]) < 1
    formats = checked(ik.fewshot.label_format_effect(model, episodes), "original")
    assert formats.sizes["condition"] == 5
    shifted = checked(ik.fewshot.input_shift_effect(model, episodes, shares=(1.0,)), "as they are")
    moved = shifted["log_probability"].diff("condition")
    assert (np.abs(moved).max("label") > 1e-3).all()
