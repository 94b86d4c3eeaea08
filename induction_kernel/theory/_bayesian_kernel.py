"""Bayesian inference over few-shot prompts as kernel regression, where both are known exactly.

P(x, y | theta) = <vec(T_x), w_y>, with w_y = vec(p P(y | .)^T), is linear in vec(T_x), where T_x is the product of the
steps of x. With phi(x) = vec(T_x) / P(x) and S the (uncentred) second moment of phi under pre-training, Han et al. 2025
(section 4, theorem 1) predict
  y_hat(x) = sum_i e(y_i) K(x, x_i) / sum_i K(x, x_i),   K(x, x') = phi(x)^T S^-1 phi(x').
Derivation: as the number of demonstrations of theta grows, their mean of phi(x_i) e(y_i) tends to
sum_x P(x, y | theta) phi(x) = sum_x P(x) phi(x) phi(x)^T w_y = S w_y, so the votes tend to phi(x)^T S^-1 S w_y =
P(x, y | theta) / P(x) (also with the pseudo-inverse, as phi lies in the range of S), and their shares to
P(y | x, theta). The exact posterior has the same limit. Both agree exactly on a prompt that holds every (x, y)
as often as the task does and identifies the task; a test has such a prompt. Task and pre-training need not be
similar, since phi is divided by P(x). No language model is run here: `kernel` measures those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from .._given import checked_seed
from ..errors import Refused
from ._hidden_markov import (
    HiddenMarkovTasks,
    check_whole,
    hidden_markov_tasks,
    posterior,
    without_demonstrations,
)

__all__ = ["Whitening", "kernel_theory", "votes"]

PREDICTORS = ("posterior", "kernel", "exponential kernel", "uniform weights", "no demonstrations")
NEGLIGIBLE = 1e-10  # eigenvalues of S below this share of the largest are rounding errors
ROWS = 512  # features computed at a time: 26 MB with 80 states
LONGEST = 64  # beyond, P(x) may leave the range of floating point


def kernel_theory(
    *,
    tasks: int = 8,
    states: int = 80,
    observations: int = 100,
    demonstrations: Iterable[int] = (1, 2, 4, 8, 16, 32, 64),
    length: int = 2,
    transition: float = 0.01,
    emission: float = 0.001,
    overlap: float = 1.0,
    leak: float = 0.0,
    truncation: int | None = None,
    bandwidth: float = 0.1,
    pretraining: int = 1000,
    prompts: int = 200,
    seeds: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """How close kernel regression comes to the exact Bayesian posterior, by the number of demonstrations.

    Results of "kernel" with five models and 1, 2, 4, ... 64 demonstrations, and 128 where given (in brackets the spread
    over models at 64), beside table 3 of the paper, which does not define its measure of agreement:

    | | | 1, 2, 4, ... 64 demonstrations | 128 |
    |---|---|---|---|
    | default | distance | 1.41 1.24 1.06 .81 .52 .31 .20 (.06) | |
    | | agreement | .31 .38 .47 .59 .74 .84 .89 (.04) | |
    | transition=.005, emission=.0005 | distance | 1.33 1.19 .92 .63 .34 .19 .09 (.01) | .06 |
    | | agreement | .34 .41 .54 .69 .84 .91 .96 (.01) | .98 |
    | table 3 | distance | 1.32 .94 .52 .22 .16 .085 .093 | .083 |
    | | accuracy | .34 .53 .75 .90 .93 .97 .96 | .96 |

    Uniform weights stay above 1.2 in both. The distance depends on how many kinds of x a task has and how well each
    determines its y: 64 demonstrations cover ten states several times, but not the many successors and symbols of less
    sparse models (distance at 64: .48 with transition=.05, .60 with emission=.01, 1.35 with transition=1, where uniform
    weights do better, .70 with leak=.3, .85 with tasks=2, which then have 40 states each). Truncation only hurts here
    (.93 with 10 eigenvectors, .62 with 30, .20 from 60 on). An x of three observations (or two, with overlap=0)
    identifies its task: without any demonstration the distance is .05 (.01), and the kernel, whose distance falls
    to .20 (.19), only recovers from demonstrations what the query already tells; with one observation the distances
    are 1.39 and .18.

    Args:
        tasks: as in `hidden_markov_tasks`.
        states: as in `hidden_markov_tasks`.
        observations: as in `hidden_markov_tasks`.
        demonstrations: numbers of demonstrations, each at least 1.
        length: observations in every x, 1 to 64.
        transition: as in `hidden_markov_tasks`.
        emission: as in `hidden_markov_tasks`.
        overlap: as in `hidden_markov_tasks`.
        leak: as in `hidden_markov_tasks`.
        truncation: how many leading eigenvectors of S are used; None for all above rounding (eigenvalues of at least
            1e-10 of the largest).
        bandwidth: of the exponential kernel.
        pretraining: number of inputs x from which S is estimated.
        prompts: test prompts per model, of random tasks.
        seeds: number of random models.
        seed: of the first model; the others follow.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over (seed, shots, predictor): `distance`, the mean L1 distance to the exact posterior
        (0 to 2); `agreement`, how often both have the same first choice; `accuracy`, how often the first choice is the
        true y (shares, 0 to 1). Predictors: "posterior" itself, whose accuracy is the best possible; "kernel", the
        paper's; "exponential kernel", attention as kernel regression: a softmax over demonstrations of cosine /
        bandwidth, the cosine that of S^-1/2 phi; "uniform weights", the demonstrations' label frequencies; "no
        demonstrations", P(y | x) under pre-training. Negative votes of the signed kernel count as 0; if no vote is
        positive, weights are uniform.

    Raises:
        TypeError: not a number. Refused: numbers out of their range.

    Source: Han et al. 2025, section 4 and table 3. The paper defines neither its distance nor how its models are drawn:
        compare trends, not digits.
    """
    shots, seed = _checked_shots(demonstrations), checked_seed(seed)
    check_whole(length=length, pretraining=pretraining, prompts=prompts, seeds=seeds)
    if truncation is not None:
        check_whole(truncation=truncation)
    if length > LONGEST or not 0 < bandwidth < np.inf:
        raise Refused(
            f"wanted length up to {LONGEST} and bandwidth > 0, got length={length}, bandwidth={bandwidth}"
        )
    drawn = {
        "tasks": tasks, "states": states, "observations": observations, "transition": transition,
        "emission": emission, "overlap": overlap, "leak": leak,
    }  # fmt: skip
    found = []
    models = range(seed, seed + seeds)
    for one in tqdm(models, delay=2, unit="model", leave=False) if progress else models:
        trial = _Trial.of(hidden_markov_tasks(**drawn, seed=one), max(shots), length, prompts, one)
        kernel, attended = trial.weights(pretraining, truncation, bandwidth)
        found.append([trial.measures(n, kernel, attended) for n in shots])
    return xr.Dataset(
        dict(zip(("distance", "agreement", "accuracy"), _measures(found), strict=True)),
        coords={
            "seed": np.arange(seed, seed + seeds),
            "shots": np.array(shots),
            "predictor": list(PREDICTORS),
        },
        attrs={
            "method": "kernel_theory", "distance": "L1", "paper": "Han et al. 2025, section 4 and table 3",
            "length": length, **drawn, "truncation": truncation or "none", "bandwidth": bandwidth,
            "pretraining": pretraining, "prompts": prompts, "induction_kernel": __version__, "format": 1,
        },
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Whitening:
    """The linear map z = S^-1/2 phi onto the leading eigenvectors of S, so that K(x, x') = <z(x), z(x')>.

    Eigenvalues below 1e-10 of the largest are left out: their inverses are noise.

    Attributes:
        matrix: `[feature, kept]`.
        eigenvalues: `[kept]` of S, in descending order.
    """

    matrix: np.ndarray
    eigenvalues: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray, truncation: int | None = None) -> Whitening:
        """From features `[input, feature]` and the frequency of each input, `[input]`, summing to 1."""
        rows = np.sqrt(weights)[:, None] * features
        values, vectors = scipy.linalg.eigh(rows @ rows.T)  # S = rows.T @ rows has the same nonzero ones
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = int((values > NEGLIGIBLE * values[0]).sum())
        kept = kept if truncation is None else min(kept, truncation)
        return cls(rows.T @ (vectors[:, :kept] / values[:kept]), values[:kept])

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """`[input, kept]` of features `[input, feature]`."""
        return features @ self.matrix


def votes(weights: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Each class's share `[prompt, class]` of weights `[prompt, demonstration]` under labels of the same shape.

    Negative votes count as 0; if no vote is positive, every demonstration has the same weight.
    """
    chosen = np.eye(classes)[labels]
    found = np.maximum(np.einsum("pd,pdc->pc", weights, chosen), 0.0)
    total = found.sum(-1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1.0), chosen.mean(1))


@dataclass(frozen=True, eq=False)
class _Trial:
    """One random model and its prompts: inputs `[prompt, demonstration and query, length]`, with their labels."""

    markov: HiddenMarkovTasks
    inputs: np.ndarray
    labels: np.ndarray
    rng: np.random.Generator

    @classmethod
    def of(cls, markov: HiddenMarkovTasks, shots: int, length: int, prompts: int, seed: int) -> _Trial:
        rng = np.random.default_rng([seed, 1])
        task = np.repeat(rng.integers(len(markov.start), size=(prompts, 1)), shots + 1, axis=1)
        return cls(markov, *markov.draw(task, length, rng), rng)

    def weights(
        self, pretraining: int, truncation: int | None, bandwidth: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights `[prompt, demonstration]` of the paper's kernel and of the exponential one."""
        task = self.rng.integers(len(self.markov.start), size=pretraining)
        seen, _ = self.markov.draw(task, self.inputs.shape[-1], self.rng)
        distinct, counts = np.unique(seen, axis=0, return_counts=True)
        whiten = Whitening.of(self.markov.features(distinct), counts / pretraining, truncation)
        z = self._whitened(whiten)
        unit = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-300)
        kernel, cosine = (np.einsum("pk,pdk->pd", each[:, -1], each[:, :-1]) for each in (z, unit))
        return kernel, np.exp((cosine - 1) / bandwidth)

    def measures(self, shots: int, *weights: np.ndarray) -> list[np.ndarray]:
        """Distance, agreement and accuracy, each `[predictor]`, after `shots` demonstrations."""
        labels, query = self.labels[:, :shots], self.inputs[:, -1]
        exact = posterior(self.markov, self.inputs[:, :shots], labels, query)
        classes = exact.shape[1]
        voted = [votes(each[:, :shots], labels, classes) for each in (*weights, np.ones(labels.shape))]
        predicted = np.stack([exact, *voted, without_demonstrations(self.markov, query)])
        first = predicted.argmax(-1)
        measured = np.abs(predicted - exact).sum(-1), first == exact.argmax(-1), first == self.labels[:, -1]
        return [each.mean(-1) for each in measured]

    def _whitened(self, whiten: Whitening) -> np.ndarray:
        """`[prompt, demonstration and query, kept]`; each distinct input is computed once, some at a time."""
        flat = self.inputs.reshape(-1, self.inputs.shape[-1])
        distinct, back = np.unique(flat, axis=0, return_inverse=True)
        parts = [distinct[row : row + ROWS] for row in range(0, len(distinct), ROWS)]
        z = np.concatenate([whiten(self.markov.features(part)) for part in parts])
        return z[back.ravel()].reshape(*self.labels.shape, -1)


def _measures(found: list[list[list[np.ndarray]]]) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """`[seed][shots][measure][predictor]` as one variable per measure."""
    return [(("seed", "shots", "predictor"), each) for each in np.moveaxis(np.array(found), 2, 0)]


def _checked_shots(demonstrations: Iterable[int]) -> list[int]:
    if not isinstance(demonstrations, Iterable) or isinstance(demonstrations, str):
        raise TypeError(f"wanted demonstrations as a list of whole numbers, got {demonstrations!r}")
    shots = list(demonstrations)
    for shot in shots:
        check_whole(demonstrations=shot)
    if not shots or len(set(shots)) < len(shots):
        raise Refused(f"wanted different numbers of demonstrations, got {shots}")
    return [int(shot) for shot in shots]
