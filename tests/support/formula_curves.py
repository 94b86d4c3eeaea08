"""Training curves by formula: ramps in ln(tokens) whose window and onsets can be worked out on paper."""

import numpy as np
import xarray as xr

TOKENS = 1000 * np.exp(
    np.concatenate([[-np.inf], np.arange(0, 4.01, 0.1)])
)  # step 0, then every 10% of tokens
A, B = 1.5, 2.2  # the ramp of the score, in ln(tokens / 1000): on checkpoints
ONSETS = {
    "icl_score": A,
    "prefix_matching": 1.4,
    "repeat_loss": 1.6,
    "previous_token": 1.0,
    "copying": 1.5,
}


def ramp(start: float, end: float) -> np.ndarray:
    """0 before `start`, 1 after `end`, linear between in ln(tokens); step 0 is at 0."""
    with np.errstate(divide="ignore"):
        return np.clip((np.log(TOKENS / 1000) - start) / (end - start), 0, 1)


def curves_of(**changes) -> xr.Dataset:
    """One run of 2 layers x 3 heads; heads L1H0 and L1H1 learn induction, L0H2 to look back.

    Changes: `excess` (final, .8), `before` (excess before, 0), `fall` (of the repeat loss, 4), `slow` (the score only
    drifts), `n` (prompts), `spread` (over prompts, of the sizes of score and fall), `seed`.
    """
    given = {"excess": 0.8, "before": 0.0, "fall": 4.0, "slow": False, "n": 20, "spread": 0.0, "seed": 0}
    given |= changes
    rng, n = np.random.default_rng(given["seed"]), given["n"]
    size = 1 + given["spread"] * rng.standard_normal((1, n))
    height = rng.standard_normal((1, n))  # prompts differ in height, which moves no turn
    turn = {name: ramp(start, B if name == "icl_score" else start + 0.7) for name, start in ONSETS.items()}
    score = ramp(0, 4) * 0.2 if given["slow"] else turn["icl_score"] * 0.4
    heads = {
        name: np.zeros((len(TOKENS), n, 2, 3)) for name in ("prefix_matching", "previous_token", "copying")
    }
    grown = given["before"] + (given["excess"] - given["before"]) * turn["prefix_matching"]
    for head in (0, 1):
        heads["prefix_matching"][:, :, 1, head] = grown[:, None]
        heads["copying"][:, :, 1, head] = turn["copying"][:, None]
    heads["previous_token"][:, :, 0, 2] = turn["previous_token"][:, None]
    per_prompt = {
        "icl_score": -score[:, None] * size + height,
        "repeat_loss": 6 - given["fall"] * turn["repeat_loss"][:, None] * size + height,
        "sampled_loss": 5 - turn["icl_score"][:, None] * height,
        "loss": 5 - ramp(0, 1)[:, None] + 0 * height,
    }
    found = xr.Dataset(
        {
            **{name: (("checkpoint", "prompt"), values) for name, values in per_prompt.items()},
            **{name: (("checkpoint", "prompt", "layer", "head"), values) for name, values in heads.items()},
        },
        {
            "checkpoint": np.arange(len(TOKENS)),
            "tokens": ("checkpoint", TOKENS),
            "prompt": np.arange(n),
            "layer": [0, 1],
            "head": [0, 1, 2],
        },
    )
    return found.assign(prefix_matching_control=found["prefix_matching"] * 0)


def together(runs: list[xr.Dataset], dim: str, labels: list) -> xr.Dataset:
    """Runs along a leading dimension; what one lacks is NaN."""
    index = xr.DataArray(labels, dims=dim, name=dim)
    return xr.concat(runs, dim=index, join="outer", data_vars="all", coords="minimal", compat="override")
