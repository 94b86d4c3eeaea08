"""Kernel regression and the exact posterior on hidden Markov models: equal where they must be, else near."""

from itertools import product

import numpy as np
import pytest
import xarray as xr

import induction_kernel as ik
from induction_kernel.theory._bayesian_kernel import Whitening, votes
from induction_kernel.theory._hidden_markov import HiddenMarkovTasks, posterior, without_demonstrations

SMALL = {"tasks": 2, "states": 6, "observations": 4, "transition": 1.0, "emission": 1.0}


def every(observations, length):
    """All inputs `[input, length]`."""
    return np.array(list(product(range(observations), repeat=length)))


def step(markov, seen):
    return np.diag(markov.emission[:, seen]) @ markov.transition


def joint(markov, task, x, y):
    """P(x, y | task), over all paths of states."""
    total, states = 0.0, range(len(markov.transition))
    for path in product(states, repeat=len(x) + 1):
        chance = markov.start[task, path[0]] * markov.emission[path[-1], y]
        for at, seen in enumerate(x):
            chance *= markov.emission[path[at], seen] * markov.transition[path[at], path[at + 1]]
        total += chance
    return total


def naive_posterior(markov, inputs, labels, query):
    """P(y | prompt) of one prompt."""
    n_tasks, classes = len(markov.start), markov.emission.shape[1]
    shown = [
        np.prod([joint(markov, task, x, y) for x, y in zip(inputs, labels, strict=True)])
        for task in range(n_tasks)
    ]
    both = np.array(
        [sum(shown[task] * joint(markov, task, query, y) for task in range(n_tasks)) for y in range(classes)]
    )
    return both / both.sum()


def exact_whitening(markov, inputs):
    """S over all inputs, by their exact probabilities; and the features of those that can come."""
    chance = markov.reached(inputs).sum(-1).mean(-1)
    features = markov.features(inputs[chance > 0])
    return Whitening.of(features, chance[chance > 0]), features, inputs[chance > 0], chance[chance > 0]


def test_the_posterior_is_that_of_all_paths():
    markov, rng = ik.theory.hidden_markov_tasks(**SMALL, leak=0.3, overlap=0.5), np.random.default_rng(0)
    inputs, labels = markov.draw(np.array([[0, 0, 0], [1, 1, 1]]), 2, rng)
    found = posterior(markov, inputs[:, :2], labels[:, :2], inputs[:, 2])
    for p in range(2):
        expected = naive_posterior(markov, inputs[p, :2], labels[p, :2], inputs[p, 2])
        np.testing.assert_allclose(found[p], expected, rtol=1e-10)
    np.testing.assert_allclose(
        without_demonstrations(markov, inputs[:, 2])[0],
        naive_posterior(markov, [], [], inputs[0, 2]),
        rtol=1e-10,
    )


def test_features_are_products_of_steps_over_the_chance_of_the_input():
    markov = ik.theory.hidden_markov_tasks(**SMALL)
    for x, found in zip(every(4, 2), markov.features(every(4, 2)), strict=True):
        chance = np.mean([sum(joint(markov, task, x, y) for y in range(4)) for task in range(2)])
        np.testing.assert_allclose(
            found, (step(markov, x[0]) @ step(markov, x[1])).ravel() / chance, rtol=1e-10
        )


def test_draws_come_as_often_as_they_should():
    markov, rng = ik.theory.hidden_markov_tasks(**SMALL), np.random.default_rng(0)
    inputs, labels = markov.draw(np.ones(40_000, dtype=int), 1, rng)
    counts = np.zeros((4, 4))
    np.add.at(counts, (inputs[:, 0], labels), 1 / 40_000)
    expected = np.array([[joint(markov, 1, (x,), y) for y in range(4)] for x in range(4)])
    np.testing.assert_allclose(
        counts, expected, atol=4 * 0.5 / 200
    )  # four standard errors, at most .5 / sqrt(n)


@pytest.mark.parametrize("leak", [0.0, 0.4])
@pytest.mark.parametrize("length", [1, 2])  # of longer inputs, S has eigenvalues that count as rounding
def test_the_kernel_votes_of_the_whole_population_are_the_tasks_own_probabilities(leak, length):
    """`sum_i e(y_i) K(x, x_i)` tends to `P(x, y | theta) / P(x)`: the derivation in `theory`, on random models."""
    markov = ik.theory.hidden_markov_tasks(**SMALL, leak=leak)
    whiten, features, inputs, chance = exact_whitening(markov, every(4, length))
    kernel = whiten(features) @ whiten(features).T
    for task in range(2):
        population = markov.reached(inputs)[:, task] @ markov.emission  # P(x, y | task)
        np.testing.assert_allclose(kernel @ population, population / chance[:, None], atol=1e-6)


def even_model():
    """Two tasks whose start, transitions and emissions are all halves: 64 paths to (x, y), equally likely.

    States 0 to 3 are task 0's, 4 to 7 task 1's. Both tasks emit alike; in task 0, states are followed by
    themselves and the next, in task 1 by themselves and the one after that.
    """
    start, chain, emission = np.zeros((2, 8)), np.zeros((8, 8)), np.zeros((8, 4))
    for task, state in product(range(2), range(4)):
        row = 4 * task + state
        start[task, row] = 0.5 * (state < 2)
        chain[row, 4 * task + np.array([state, (state + 1 + task) % 4])] = 0.5
        emission[row, [state, (state + 1) % 4]] = 0.5
    return HiddenMarkovTasks(start, chain, emission)


@pytest.mark.parametrize("task", [0, 1])
def test_on_a_prompt_as_even_as_its_task_kernel_and_posterior_agree(task):
    """64 demonstrations, one for every path: each (x, y) as often as the task has it, so the votes are exact."""
    markov = even_model()
    shown = []
    for first, *choices in product(range(2), repeat=6):
        state, seen = 4 * task + first, []
        for at in range(3):
            seen.append(np.flatnonzero(markov.emission[state])[choices[at]])
            if at < 2:
                state = np.flatnonzero(markov.transition[state])[choices[3 + at]]
        shown.append(seen)
    inputs, labels = np.array(shown)[:, :2], np.array(shown)[:, 2]
    whiten, _, _, _ = exact_whitening(markov, every(4, 2))
    queries = np.unique(inputs, axis=0)
    repeated = (len(queries), 64)
    kernel = whiten(markov.features(queries)) @ whiten(markov.features(inputs)).T
    predicted = votes(kernel, np.broadcast_to(labels, repeated), 4)
    exact = posterior(
        markov, np.broadcast_to(inputs, (*repeated, 2)), np.broadcast_to(labels, repeated), queries
    )
    np.testing.assert_allclose(predicted, exact, atol=1e-6)
    assert kernel.min() < -1e-3  # signed: no plain average of labels
    assert 0.1 < np.sort(exact, axis=1)[:, -1].min() < 0.9  # and no foregone conclusion
    prior = without_demonstrations(markov, queries)
    assert np.abs(prior - exact).sum(1).max() > 0.2  # which the demonstrations were needed for


def test_where_every_input_has_one_label_kernel_and_posterior_agree_once_it_was_shown():
    """Symbols name states and states have one successor: phi of different x are orthogonal, K = identity / P(x)."""
    rng = np.random.default_rng(0)
    chain = np.zeros((20, 20))
    for own in (range(10), range(10, 20)):
        chain[list(own), rng.permutation(list(own))] = 1.0
    start = np.kron(np.eye(2), np.full((1, 10), 0.1))
    markov = HiddenMarkovTasks(start, chain, np.tile(np.eye(10), (2, 1)))
    whiten, features, _, chance = exact_whitening(markov, every(10, 1))
    kernel = whiten(features) @ whiten(features).T
    np.testing.assert_allclose(kernel, np.diag(1 / chance), atol=1e-6)
    shown, labels = markov.draw(np.zeros((50, 17), dtype=int), 1, rng)
    known = (shown[:, :16] == shown[:, 16:]).all(-1).any(1)
    assert 20 < known.sum() < 50
    predicted = votes(kernel[shown[:, 16, 0][:, None], shown[:, :16, 0]], labels[:, :16], 10)
    exact = posterior(markov, shown[:, :16], labels[:, :16], shown[:, 16])
    np.testing.assert_allclose(predicted[known], exact[known], atol=1e-6)


def test_whitened_features_have_the_identity_as_second_moment():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(30, 8)), rng.dirichlet(np.ones(30))
    whiten = Whitening.of(features, weights)
    z = whiten(features)
    np.testing.assert_allclose(np.einsum("i,ia,ib->ab", weights, z, z), np.eye(8), atol=1e-8)
    inverse = np.linalg.inv(np.einsum("i,ia,ib->ab", weights, features, features))
    np.testing.assert_allclose(z @ z.T, features @ inverse @ features.T, rtol=1e-6, atol=1e-8)
    assert Whitening.of(features, weights, 3).matrix.shape == (8, 3)
    np.testing.assert_allclose(Whitening.of(features, weights, 3).matrix, whiten.matrix[:, :3])


def test_votes_are_shares_of_the_weights():
    weights = np.array([[1.0, 2.0, 1.0], [3.0, -1.0, -2.0], [-1.0, -1.0, 0.0]])
    labels = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 2]])
    expected = [[0.5, 0.5, 0], [0, 1, 0], [2 / 3, 0, 1 / 3]]
    np.testing.assert_allclose(votes(weights, labels, 3), expected)


def test_random_models_are_what_their_parameters_say():
    markov = ik.theory.hidden_markov_tasks(leak=0.25, overlap=1.0)
    for table in (markov.start, markov.transition, markov.emission):
        np.testing.assert_allclose(table.sum(1), 1)
        assert table.min() >= 0
    own = np.kron(np.eye(8), np.ones((10, 10))).astype(bool)
    assert (markov.start > 0).sum() == 80
    assert 0.05 < 1 - markov.transition[own].sum() / 80 < 0.25  # 7 of 8 leaks lead to other tasks
    np.testing.assert_array_equal(markov.emission[:10], markov.emission[70:])
    closed = ik.theory.hidden_markov_tasks(overlap=0.0)
    assert closed.transition[~own].sum() == 0
    assert not np.allclose(closed.emission[:10], closed.emission[70:])


def checked(found):
    """Distance at least halves, accuracy and agreement rise; for every model, and beyond their spread."""
    kernel = found.sel(predictor="kernel")
    for name, sign in (("distance", -1), ("accuracy", 1), ("agreement", 1)):
        first, last = kernel[name].isel(shots=0), kernel[name].isel(shots=-1)
        assert bool((sign * (last - first) > 0).all()), name
        assert abs(float((last - first).mean())) > 4 * float((last - first).std()), name
    assert float(kernel["distance"][:, 0].mean()) > 2 * float(kernel["distance"][:, -1].mean())
    return kernel


def test_distance_falls_and_accuracy_rises_with_demonstrations(tmp_path):
    found = ik.theory.kernel_theory(
        tasks=4, states=20, observations=30, demonstrations=(1, 8, 64), prompts=100, seeds=3
    )
    checked(found)
    assert found["distance"].dims == ("seed", "shots", "predictor")
    assert bool((found["distance"].sel(predictor="posterior") == 0).all())
    assert bool((found["agreement"].sel(predictor="posterior") == 1).all())
    assert float(found["distance"].min()) >= 0
    assert float(found["distance"].max()) <= 2
    found.to_netcdf(tmp_path / "theory.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "theory.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), found)
    again = ik.theory.kernel_theory(
        tasks=4, states=20, observations=30, demonstrations=(8, 64), prompts=100, seeds=1, seed=1
    )
    np.testing.assert_array_equal(again["distance"], found["distance"].sel(seed=[1], shots=[8, 64]))


def test_one_eigenvector_does_not_tell_demonstrations_apart():
    """The leading one has the same sign everywhere, so that all cosines are 1."""
    of_one = {"tasks": 3, "states": 12, "observations": 15, "demonstrations": [8], "prompts": 50, "seeds": 1}
    found = ik.theory.kernel_theory(**of_one, truncation=1)
    same = found.sel(predictor="uniform weights", drop=True)
    xr.testing.assert_allclose(found.sel(predictor="exponential kernel", drop=True), same)
    told = ik.theory.kernel_theory(**of_one)["distance"].sel(predictor="exponential kernel", drop=True)
    assert bool((told != same["distance"]).all())


@pytest.mark.slow
def test_models_of_table_3():
    """8 tasks, 80 states, 100 observations, five seeds. The paper: distance 1.32 to .09, accuracy .34 to .96."""
    found = ik.theory.kernel_theory(progress=False)
    kernel, mean = checked(found), found.mean("seed")
    assert float(kernel["distance"][:, 0].mean()) > 5 * float(kernel["distance"][:, -1].mean())
    last = mean["distance"].isel(shots=-1)
    assert float(last.sel(predictor="kernel")) < 0.3
    assert float(last.sel(predictor="exponential kernel")) < 0.3
    assert float(last.sel(predictor="no demonstrations")) > 0.3
    assert float(last.sel(predictor="uniform weights")) > 1
