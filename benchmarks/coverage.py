"""How often intervals hold the truth, and thresholds raise a false alarm: simulations of `induction_kernel.stats`.

    python benchmarks/coverage.py                      # means, shares, ratios, thresholds: a few minutes
    python benchmarks/coverage.py data/model.gguf      # and the heads of a model: who passes, what is untested

Beside each, in brackets, what percentile bootstraps and sign flips alone give.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import induction_kernel as ik
from induction_kernel.stats import mean_interval, ratio, resampled, share_interval, threshold
from induction_kernel.stats._thresholds import _largest_flipped, _squared_errors

NS = (4, 8, 16, 32)
RUNS, HEADS, FEWER = 2000, 144, 400
Array = np.ndarray[Any, Any]
VALUES: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], Array], float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "t3": (lambda rng, size: rng.standard_t(3, size), 0.0),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), float(np.exp(0.5))),
    "beta(.3, 3)": (lambda rng, size: rng.beta(0.3, 3, size), 0.3 / 3.3),
}


def covered(low: Array, high: Array, truth: float) -> float:
    known = np.isfinite(low)
    return float(((low <= truth) & (truth <= high))[known].mean())


def percentile(values: Array, of: Array | None = None) -> tuple[Array, Array]:
    """Percentile bootstrap of the mean over the first axis, or of its ratio to that of other values."""
    counts = resampled(len(values), 1000, 0)
    drawn = counts @ values / (len(values) if of is None else counts @ of)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def row(name: str, cells: list[str]) -> None:
    print(f"  {name:28}", *(f"{cell:>12}" for cell in cells))


def means(rng: np.random.Generator) -> None:
    print("coverage of nominal .95 (percentile bootstrap)")
    row("n", [str(n) for n in NS])
    for name, (draw, truth) in VALUES.items():
        cells = []
        for n in NS:
            values = draw(rng, (n, RUNS))
            new, old = covered(*mean_interval(values), truth), covered(*percentile(values), truth)
            cells.append(f"{new:.3f} ({old:.3f})")
        row(name, cells)
    cells = []
    for n in NS:
        right = (rng.random((n, RUNS)) < 0.9).astype(float)
        new, old = covered(*share_interval(right.sum(0), n), 0.9), covered(*percentile(right), 0.9)
        cells.append(f"{new:.3f} ({old:.3f})")
    row("0/1, .9 (Wilson)", cells)


def ratios(rng: np.random.Generator) -> None:
    print("coverage of nominal .95 of ratios of means (percentile bootstrap)")
    row("n", [str(n) for n in NS])

    def noisy(spread: float) -> Callable[[int], tuple[Array, Array]]:
        def draw(n: int) -> tuple[Array, Array]:
            benefit = rng.lognormal(0, 0.5, (n, RUNS))
            return 0.7 * benefit * rng.lognormal(-(spread**2) / 2, spread, benefit.shape), benefit

        return draw

    def normal(n: int) -> tuple[Array, Array]:
        benefit = 2 + 0.6 * rng.normal(size=(n, RUNS))
        return 0.7 * benefit + 0.3 * rng.normal(size=benefit.shape), benefit

    cases = {"normal": normal, "lognormal, .6": noisy(0.6), "lognormal, 1": noisy(1.0)}
    for name, draw in cases.items():
        _ratio_row(name, draw, 0.7)
    model = ik.load("tiny")
    prompts = ik.repeated_tokens(model, prompts=1000, seed=1)
    for heads in ("L1H7", "L1H1", "L1H2", "L0H3", "L0H0"):
        lost = ik.ablate(model, prompts, heads, progress=False)
        without = ik.repeat_loss(model, prompts)["without"].values
        effect, benefit = lost["effect"].values, without - lost["baseline"].values
        _ratio_row(
            f"ablate tiny {heads}", _sampled(rng, effect, benefit), float(effect.mean() / benefit.mean())
        )


def _sampled(rng: np.random.Generator, effect: Array, benefit: Array) -> Callable[[int], tuple[Array, Array]]:
    def draw(n: int) -> tuple[Array, Array]:
        rows = rng.integers(len(effect), size=(n, RUNS))
        return effect[rows], benefit[rows]

    return draw


def _ratio_row(name: str, draw: Callable[[int], tuple[Array, Array]], truth: float) -> None:
    cells = []
    for n in NS:
        above, below = draw(n)
        _, low, high = ratio(above, below)
        cells.append(f"{covered(low, high, truth):.3f} ({covered(*percentile(above, below), truth):.3f})")
    row(name, cells)


def noise(rng: np.random.Generator, skew: float, size: tuple[int, int]) -> Array:
    if skew == 0:
        return rng.normal(size=size)
    shape = 4 / skew**2
    return np.sign(skew) * (rng.gamma(shape, 1, size) - shape) / np.sqrt(shape)


def flipped(values: Array, rng: np.random.Generator) -> Array:
    """Which cells pass the threshold of sign flips alone, with a margin of 0."""
    largest = _largest_flipped(values, 400, rng)
    return values.mean(0) > np.quantile(largest, 0.95) * np.sqrt(_squared_errors(values, values.mean(0)))


def thresholds(rng: np.random.Generator) -> None:
    print(
        f"{HEADS} heads: false alarms where tested, share tested, power on a planted head (sign flips alone)"
    )
    print(f"  {'spreads, prompts, skewness':44} {'n':>3} {'false alarms':>14} {'tested':>7} {'power':>14}")
    for spreads, common, some in ((0, 0, 1), (1, 0, 1), (0, 0.5, 1), (0, 0, 0.1)):
        for skew in (0, -1, -2, -4, 2):
            for n in (8, 16, 32):
                _threshold_row(rng, spreads, common, some, skew, n)


def _threshold_row(
    rng: np.random.Generator, spreads: float, common: float, some: float, skew: float, n: int
) -> None:
    alarms, tested, power = np.zeros(2), [], np.zeros(2)
    for run in range(FEWER):
        values = noise(rng, skew, (n, HEADS))
        if some < 1:  # only some heads are skewed
            values[:, int(some * HEADS) :] = rng.normal(size=(n, HEADS - int(some * HEADS)))
        if common:
            values = np.sqrt(1 - common) * values + np.sqrt(common) * noise(rng, skew, (n, 1))
        scale = 0.1 * np.exp(spreads * rng.normal(size=HEADS))
        values = values * scale
        found = threshold(values, draws=400, seed=run)
        alarms += [(found.tested & (values.mean(0) > found.at)).any(), flipped(values, rng).any()]
        tested.append(found.tested.mean())
        planted = values.copy()
        planted[:, 0] += 1.5 * scale[0]
        found = threshold(planted, draws=400, seed=run)
        power += [found.tested[0] and planted[:, 0].mean() > found.at[0], flipped(planted, rng)[0]]
    name = f"{'of one size' if not spreads else 'lognormal'}, {common:g} in common, {skew:g} in {some:.0%} of heads"
    (new, old), (can, could) = alarms / FEWER, power / FEWER
    print(
        f"  {name:44} {n:3} {new:6.3f} ({old:.3f}) {np.mean(tested):7.2f} {can:6.2f} ({could:.2f})",
        flush=True,
    )


def heads(source: str) -> None:
    print(f"{source}: heads that pass, heads that are tested, and the null, with 16 and with 32 prompts")
    model = ik.load(source)
    for n in (16, 32):
        prompts = ik.repeated_tokens(model, prompts=n)
        scorers = (ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token)
        found = ik.summarise(ik.observe(model, prompts, scorers, progress=False))
        for name in found["scorer"].values:
            one = found.sel(scorer=name)
            passing = one["passes"].values == 1
            best = ik.top_heads(one, 6, passing=True) if passing.any() else []
            print(f"  {n} prompts, {name:16} {passing.sum():4} pass, {float(one['tested'].mean()):5.0%} of "
                  f"{passing.size} tested; {str(one['null'].item())[:40]}...; {' '.join(map(str, best))}")  # fmt: skip


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    for source in sys.argv[1:] or []:
        heads(source)
    if not sys.argv[1:]:
        means(generator)
        ratios(generator)
        thresholds(generator)
