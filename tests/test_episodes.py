"""Demonstrations before queries: balanced, random or the most similar, never the query itself."""

import warnings

import numpy as np
import pytest

import induction_kernel as ik

ANIMALS = "fox wolf bear horse sheep goat tiger lion rabbit mouse camel deer".split()
FRUITS = "apple pear plum grape mango lemon peach cherry melon fig banana lime".split()


def words(texts, classes, **options):
    return ik.data.LabelledTexts(
        texts, np.asarray(classes), **({"labels": ("dax", "wug"), "template": "{x} {y} ;"} | options)
    )


@pytest.fixture(scope="module")
def pool():
    return words(ANIMALS[:9] + FRUITS[:9], [0] * 9 + [1] * 9)


@pytest.fixture(scope="module")
def queries():
    return words(ANIMALS[9:] + FRUITS[9:], [0] * 3 + [1] * 3)


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


def repeated(data, n):
    return data[np.arange(n) % len(data)]


@pytest.mark.parametrize("shots", [1, 5, 8, 18])
def test_balanced_draws_show_every_class_as_often_as_any_other(pool, queries, shots):
    found = ik.data.draw_episodes(pool, repeated(queries, 300), shots=shots)
    counts = np.stack([(found.classes == y).sum(1) for y in (0, 1)], 1)
    assert (counts.max(1) - counts.min(1) <= shots % 2).all()
    assert all(len(set(row)) == shots for row in found.shown.tolist())
    np.testing.assert_array_equal(found.classes, pool.classes[found.shown])
    first = (found.classes[:, 0] == 0).mean()  # the order is random, and so is which class has one more
    assert abs(first - 0.5) < 0.13
    assert abs((counts[:, 0] > shots / 2).mean() - (0.5 if shots % 2 else 0)) < 0.13


def test_a_class_with_few_texts_gives_all_it_has(queries):
    uneven = words(ANIMALS[:2] + FRUITS[:9], [0] * 2 + [1] * 9)
    found = ik.data.draw_episodes(uneven, queries, shots=8)
    assert ((found.classes == 0).sum(1) == 2).all()


def test_random_draws_take_any_text_alike(pool, queries):
    found = ik.data.draw_episodes(pool, repeated(queries, 900), shots=6, sampling="random")
    share = np.bincount(found.shown.ravel(), minlength=18) / 900
    np.testing.assert_allclose(share, 6 / 18, atol=0.07)
    assert len(np.unique((found.classes == 0).sum(1))) >= 5


def test_seeds_decide_and_the_global_state_is_left_alone(pool, queries):
    before = np.random.get_state()[1].copy()
    one, again, other = (ik.data.draw_episodes(pool, queries, seed=seed).shown for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_the_nearest_by_an_embedding_are_shown_last(pool, queries):
    place = {text: i for i, text in enumerate(ANIMALS + FRUITS)}

    def angle(texts):
        turned = np.array([place[text] for text in texts]) / 12
        return np.stack([np.cos(turned), np.sin(turned)], 1)

    found = ik.data.draw_episodes(pool, queries, shots=3, sampling="nearest", embed=angle)
    for query, shown in zip(queries.texts, found.shown, strict=True):
        away = [abs(place[pool.texts[i]] - place[query]) for i in range(len(pool))]
        np.testing.assert_array_equal([away[i] for i in shown[::-1]], sorted(away)[:3])


def test_by_default_similar_means_the_same_rare_words():
    pool = words(["the cat sat", "the dog ran", "the cow sat here", "the pig"], [0, 1, 0, 1])
    found = ik.data.draw_episodes(pool, words(["a cow", "the pig ran"], [0, 1]), shots=2, sampling="nearest")
    assert found.shown[0, 1] == 2
    assert set(found.shown[1]) == {1, 3}


@pytest.mark.parametrize("sampling", ["balanced", "random", "nearest"])
def test_a_text_is_never_shown_before_itself(pool, sampling):
    both = words([*pool.texts, "fox ", "kiwi"], [*pool.classes, 0, 1])
    with pytest.warns(UserWarning, match="19 of 20 queries are also in the pool of demonstrations"):
        found = ik.data.draw_episodes(pool, both, shots=17, sampling=sampling)
    for query, shown in zip(both.texts, found.shown, strict=True):
        assert query.strip() not in {pool.texts[i] for i in shown}
    with pytest.warns(UserWarning, match="19 of 20"), pytest.raises(ValueError, match="shots up to 17"):
        ik.data.draw_episodes(pool, both, shots=18, sampling=sampling)


def test_different_texts_bring_no_warning(pool, queries):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ik.data.draw_episodes(pool, queries)


def pairs_of(found):
    return [
        sorted(zip(*row, strict=True))
        for row in zip(found.shown.tolist(), found.classes.tolist(), strict=True)
    ]


def test_shuffling_moves_demonstrations_with_their_labels(pool, queries):
    found = ik.data.draw_episodes(pool, queries)
    moved = found.shuffled(seed=1)
    assert pairs_of(moved) == pairs_of(found)
    assert (moved.shown != found.shown).any(1).all()
    assert not (found.shuffled(seed=1).shown != moved.shown).any()


def test_permuting_moves_labels_alone(pool, queries):
    found = ik.data.draw_episodes(pool, queries)
    moved = found.permuted(seed=1)
    np.testing.assert_array_equal(moved.shown, found.shown)
    np.testing.assert_array_equal(np.sort(moved.classes), np.sort(found.classes))
    assert (moved.classes != found.classes).any()


def test_some_of_the_prompts_are_a_slice_a_list_or_a_mask(pool, queries):
    found = ik.data.draw_episodes(pool, queries)
    for index in (slice(1, 3), [1, 2], np.array([False, True, True, False, False, False])):
        part = found[index]
        assert part.queries.texts == queries.texts[1:3]
        np.testing.assert_array_equal(part.shown, found.shown[1:3])
        np.testing.assert_array_equal(part.classes, found.classes[1:3])
    assert repr(found) == "Episodes(unnamed: 6 queries, 8 demonstrations each out of 18)"


def test_prompts_read_as_the_template_says(model, pool, queries):
    found = ik.data.draw_episodes(pool, queries, shots=4, separator=" ")
    prompts = found.prompts(model)
    for row, text in enumerate(prompts.text()):
        shown = [
            f"{pool.texts[i]} {pool.labels[y]} ;"
            for i, y in zip(found.shown[row], found.classes[row], strict=True)
        ]
        assert text.split() == ["<bos>", *" ".join([*shown, queries.texts[row]]).split()]
    demonstrations = prompts.demonstrations
    np.testing.assert_array_equal(demonstrations.classes, found.classes)
    np.testing.assert_array_equal(demonstrations.target, queries.classes)
    other = found.relabelled(["kiki", "blick"]).prompts(model)
    assert other.demonstrations.labels == ("kiki", "blick")
    assert {token for row in other.strings() for token in row} & {"dax", "wug"} == set()
    written = found.permuted(seed=2)
    np.testing.assert_array_equal(written.prompts(model).demonstrations.classes, written.classes)


def test_prompts_beyond_the_context_say_how_many_would_fit(model, pool, queries):
    """The embedded model reads 128 tokens: one for BOS, 13 a demonstration, 12 for the query."""
    long = "{x} " + "red " * 10 + "{y} ;"
    found = ik.data.draw_episodes(pool, queries, shots=12, template=long, separator=" ")
    size = model.cfg.n_ctx
    fit = (size - 1 - 11) // 13
    with pytest.raises(ValueError, match=rf"the context is {size}.*the last {fit} of every prompt would fit"):
        found.prompts(model)
    fitting = ik.data.draw_episodes(pool, queries, shots=fit, template=long, separator=" ").prompts(model)
    assert size - 13 < int(fitting.lengths.max()) <= size


@pytest.mark.parametrize(
    ("shared", "n", "sizes"), [(True, 40, [13, 13, 14]), (3, 6, [3, 3]), (3, 7, [2, 2, 3])]
)
def test_sets_of_queries_share_their_demonstrations(pool, queries, shared, n, sizes):
    found = ik.data.draw_episodes(pool, repeated(queries, n), shots=5, shared=shared, seed=1)
    rows = [tuple(row) for row in found.shown.tolist()]
    assert sorted(rows.count(row) for row in set(rows)) == sizes
    assert list(rows) != sorted(rows)  # which queries are a set is random
    assert all(len(set(row)) == 5 for row in rows)
    counts = np.stack([(found.classes == y).sum(1) for y in (0, 1)], 1)
    assert (counts.max(1) - counts.min(1) == 1).all()


@pytest.mark.filterwarnings("ignore:.*also in the pool")
@pytest.mark.parametrize("sampling", ["balanced", "random"])
def test_no_text_of_a_set_is_shown_to_it(pool, sampling):
    found = ik.data.draw_episodes(pool, pool, shots=12, sampling=sampling, shared=6)
    for row in {tuple(row) for row in found.shown.tolist()}:
        members = {i for i, shown in enumerate(found.shown.tolist()) if tuple(shown) == row}
        assert len(members) == 6
        assert not members & set(row)
    with pytest.raises(ValueError, match=r"up to 12, .* without those of a set's queries, got 13"):
        ik.data.draw_episodes(pool, pool, shots=13, sampling=sampling, shared=6)


def test_what_cannot_be_shared_is_refused(pool, queries):
    with pytest.raises(
        ValueError, match='shared= is for demonstrations drawn at random, got sampling="nearest"'
    ):
        ik.data.draw_episodes(pool, queries, sampling="nearest", shared=True)
    for shared in (1, 0, 2.5, "yes"):
        with pytest.raises(
            ValueError, match="wanted shared as True, False or at least 2 queries for each set"
        ):
            ik.data.draw_episodes(pool, queries, shared=shared)


def test_prompts_know_their_sets_whatever_the_order_and_the_labels(model, pool, queries):
    episodes = ik.data.draw_episodes(pool, queries, shots=4, shared=2)
    wanted = np.unique(episodes.shown, axis=0, return_inverse=True)[1]
    for each in (episodes, episodes.shuffled(), episodes.permuted()):
        sets = each.prompts(model).sets().numpy()
        assert sets[0] == 0
        np.testing.assert_array_equal(sets[:, None] == sets, wanted[:, None] == wanted)
