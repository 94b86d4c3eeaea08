"""Hidden Markov models with several tasks, in which Bayesian inference over prompts is exact.

A demonstration (x, y) of task theta starts in a state drawn from the task's own start distribution p; x is the next
`length` observations and y the one after. Demonstrations are independent given the task (each starts anew after a
delimiter: Han et al. 2025, section 4). With A_o = diag(P(o | state)) transition,
P(x, y | theta) = p A_x1 A_x2 ... P(y | .), and P(y | prompt) = sum_theta P(theta | prompt) P(y | x, theta).
`_bayesian_kernel` compares the posterior with kernel regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._given import checked_seed, is_whole
from ..errors import Refused

__all__ = ["HiddenMarkovTasks", "check_whole", "hidden_markov_tasks", "posterior", "without_demonstrations"]


def hidden_markov_tasks(
    *,
    tasks: int = 8,
    states: int = 80,
    observations: int = 100,
    transition: float = 0.01,
    emission: float = 0.001,
    overlap: float = 1.0,
    leak: float = 0.0,
    seed: int = 0,
) -> HiddenMarkovTasks:
    """A random hidden Markov model with several tasks.

    Every task has its own states and starts in any of them, by a distribution drawn from a flat Dirichlet. By default
    the n-th states of all tasks emit alike, and tasks differ in which state follows which: an x is equally likely in
    most tasks, and only the demonstrations tell which y follows it.

    Args:
        tasks: number of tasks.
        states: number of hidden states, at least one per task.
        observations: number of symbols, common to all tasks; y is one of them.
        transition: concentration of the Dirichlet draws of each state's successors among its task's states: near 0,
            each has one successor; at 1, all distributions are equally likely.
        emission: likewise, for each state's observations.
        overlap: share of a state's emissions in common with its counterparts in other tasks, in [0, 1]. At 0, a longer
            x identifies its task and demonstrations add nothing.
        leak: share of the transitions that lead into states of any task, in [0, 1]. At 1, tasks differ only in their
            start.
        seed: of the draw.

    Raises:
        TypeError: not a number. Refused: numbers out of their range.

    Source: Han et al. 2025, section 4 and table 3, which do not say how the models are drawn.
    """
    check_whole(tasks=tasks, states=states, observations=observations)
    if states < tasks:
        raise Refused(f"wanted at least one state per task, got {states} states for {tasks} tasks")
    if not (1e-6 <= transition < np.inf and 1e-6 <= emission < np.inf):
        raise Refused(f"wanted transition and emission from 1e-6, got {transition} and {emission}")
    if not (0 <= overlap <= 1 and 0 <= leak <= 1):
        raise Refused(f"wanted overlap and leak from 0 to 1, got {overlap} and {leak}")
    rng = np.random.default_rng([checked_seed(seed), 0])
    owned = np.array_split(np.arange(states), tasks)
    start, chain = np.zeros((tasks, states)), np.zeros((states, states))
    for task, own in enumerate(owned):
        start[task, own] = rng.dirichlet(np.ones(len(own)))
        chain[np.ix_(own, own)] = rng.dirichlet(np.full(len(own), transition), size=len(own))
    anywhere = rng.dirichlet(np.full(states, transition), size=states)
    alone = rng.dirichlet(np.full(observations, emission), size=states)
    counterpart = np.concatenate([np.arange(len(own)) for own in owned])
    common = rng.dirichlet(np.full(observations, emission), size=len(owned[0]))[counterpart]
    return HiddenMarkovTasks(
        start, (1 - leak) * chain + leak * anywhere, overlap * common + (1 - overlap) * alone
    )


@dataclass(frozen=True, eq=False)
class HiddenMarkovTasks:
    """One hidden Markov model whose tasks differ in where they start; pre-training mixes them evenly.

    Attributes:
        start: `[task, state]`, each task's distribution of the first state.
        transition: `[state, next state]`.
        emission: `[state, observation]`.
    """

    start: np.ndarray
    transition: np.ndarray
    emission: np.ndarray

    def draw(self, task: np.ndarray, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs `[..., length]` and labels `[...]` of these tasks `[...]`."""
        state, seen = _drawn(self.start[task], rng), []
        for _ in range(length + 1):
            seen.append(_drawn(self.emission[state], rng))
            state = _drawn(self.transition[state], rng)
        return np.stack(seen[:-1], -1), seen[-1]

    def reached(self, inputs: np.ndarray) -> np.ndarray:
        """`[input, task, state]`: P(x, state after x | task) of inputs `[input, length]`."""
        found = np.broadcast_to(self.start, (len(inputs), *self.start.shape))
        for seen in inputs.T:
            found = (found * self.emission[:, seen].T[:, None]) @ self.transition
        return found

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """`[input, state * state]`: vec(T_x) / P(x), with T_x = A_x1 A_x2 ... and P(x) that of pre-training."""
        states = len(self.transition)
        found = np.broadcast_to(np.eye(states), (len(inputs), states, states))
        for seen in inputs.T:  # one product of all inputs at once
            found = (found * self.emission[:, seen].T[:, None]).reshape(-1, states) @ self.transition
            found = found.reshape(-1, states, states)
        chance = self.reached(inputs).sum(-1).mean(-1)
        return found.reshape(len(inputs), -1) / chance[:, None]


def posterior(
    markov: HiddenMarkovTasks, inputs: np.ndarray, labels: np.ndarray, query: np.ndarray
) -> np.ndarray:
    """The exact P(y | demonstrations, query), with all tasks equally likely a priori.

    Args:
        markov: the model.
        inputs: `[prompt, demonstration, length]`.
        labels: `[prompt, demonstration]`.
        query: `[prompt, length]`.

    Returns:
        `[prompt, observation]`, rows summing to 1.
    """
    prompts, shots, length = inputs.shape
    reached = markov.reached(inputs.reshape(-1, length)).reshape(prompts, shots, *markov.start.shape)
    joint = np.einsum("pdts,pds->pdt", reached, markov.emission.T[labels])
    return _mixed(markov, markov.reached(query), _logs(joint).sum(1))


def without_demonstrations(markov: HiddenMarkovTasks, query: np.ndarray) -> np.ndarray:
    """P(y | query) under pre-training, `[prompt, observation]` of queries `[prompt, length]`."""
    return _mixed(markov, markov.reached(query), np.zeros((len(query), len(markov.start))))


def check_whole(**numbers: object) -> None:
    """TypeError unless these are whole numbers, Refused unless they are at least 1."""
    for name, number in numbers.items():
        if not is_whole(number):
            raise TypeError(f"wanted {name} as a whole number, got {number!r}")
        if int(number) < 1:  # pyright: ignore[reportArgumentType]  # a whole number
            raise Refused(f"wanted {name} >= 1, got {number}")


def _mixed(markov: HiddenMarkovTasks, reached: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """The tasks' predictions after `reached [prompt, task, state]`, by log-likelihoods `[prompt, task]`."""
    chance = reached.sum(-1)
    weight = evidence + _logs(chance)
    weight = np.exp(weight - weight.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True) * np.where(chance > 0, chance, 1.0)
    return np.einsum("pt,pts->ps", weight, reached) @ markov.emission


def _logs(chance: np.ndarray) -> np.ndarray:
    """Natural logarithms, with a finite value below all others for probability 0."""
    return np.log(np.maximum(chance, 1e-300))


def _drawn(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index `[...]` of each distribution `[..., index]`."""
    sums = chances.cumsum(-1)
    return (rng.random(sums.shape[:-1])[..., None] * sums[..., -1:] >= sums).sum(-1)
