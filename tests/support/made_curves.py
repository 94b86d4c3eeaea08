"""Curves of training made up so that what is found in them is known: turns at given steps, or none at all."""

import numpy as np
import xarray as xr

STEPS = np.array(
    [0, 50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1200, 1400, 1600, 2000, 2400, 2800, 3200]
)
STEPS = np.unique(np.concatenate([STEPS, np.arange(700, 3200, 100)]))
TOKENS = 3072  # a step
LAYERS, HEADS, PROMPTS, POSITIONS = 2, 4, 24, 60


def curves(turns, *, width=0.12, late=None, seeds=None, layers=LAYERS, prompts=PROMPTS, **attrs):
    """Curves of one run that turns at step `turns` (None: never), or of one for each of a list, over `seed`.

    `late` moves the turn of some curves by a factor: {"repeat_loss": 1.5}.
    """
    if isinstance(turns, list):
        parts = [
            curves(turn, width=width, late=late, seeds=seed, layers=layers, prompts=prompts, **attrs)
            for seed, turn in enumerate(turns)
        ]
        return xr.concat(parts, "seed").assign_coords(seed=range(len(turns)))
    rng = np.random.default_rng(seeds or 0)

    def risen(name):
        """0 before the turn, 1 after it, for every checkpoint."""
        if turns is None:
            return np.zeros(len(STEPS))
        with np.errstate(divide="ignore"):
            at = np.log(STEPS) - np.log(turns * (late or {}).get(name, 1.0))
        return 1 / (1 + np.exp(-at / width))

    def noisy(means, spread):
        """[checkpoint, prompt, ...]: noise of a prompt that stays, and a little that does not."""
        stays = rng.normal(0, spread, (1, prompts, *means.shape[1:]))
        moves = rng.normal(0, spread / 5, (len(STEPS), prompts, *means.shape[1:]))
        return (means[:, None] + stays + moves).astype(np.float32)

    def heads(name, place, most, least):
        """One head that rises and three that do not."""
        means = np.full((len(STEPS), layers, HEADS), least)
        means[:, min(place, layers - 1), 0] = least + (most - least) * risen(name)
        return noisy(means, 0.01)

    early = np.exp(-STEPS / 150)  # what any model learns at once
    position = np.arange(POSITIONS)
    along = 2.5 - 0.15 * np.log(position + 1) * risen("icl_score")[:, None] + 3 * early[:, None]
    over, over_heads = ("checkpoint", "prompt"), ("checkpoint", "prompt", "layer", "head")
    names = [[f"L{layer}H{head}" for head in range(HEADS)] for layer in range(layers)]
    return xr.Dataset(
        {
            "icl_score": (over, noisy(-0.01 - 0.45 * risen("icl_score"), 0.1)),
            "loss": (over, noisy(2.2 + 3 * early - 0.4 * risen("icl_score"), 0.2)),
            "sampled_loss": (over, noisy(2.2 + 3 * early - 0.4 * risen("icl_score"), 0.5)),
            "position_loss": (("checkpoint", "position"), along.astype(np.float32)),
            "repeat_loss": (over, noisy(5.4 - 5.2 * risen("repeat_loss"), 0.2)),
            "first_copy_loss": (over, noisy(5.6 + 0 * early, 0.2)),
            "prefix_matching": (over_heads, heads("prefix_matching", 1, 0.9, 0.05)),
            "prefix_matching_control": (over_heads, heads("prefix_matching", 1, 0.05, 0.05)),
            "previous_token": (over_heads, heads("previous_token", 0, 0.95, 0.05)),
            "copying": (over_heads, heads("copying", 1, -0.2, -0.85)),
        },
        {
            "checkpoint": STEPS,
            "tokens": ("checkpoint", STEPS * TOKENS),
            "position": position,
            "layer": range(layers),
            "head": range(HEADS),
            "name": (("layer", "head"), names),
        },
        attrs,
    )


def family(**models):
    """Curves over `model` (and `seed`): family(one=[None, None], two=[1400, 1500]); models of one layer have NaN."""
    parts = [curves(turns, layers=1 if name.startswith("one") else 2) for name, turns in models.items()]
    joined = xr.concat(parts, "model", join="outer", coords="minimal", compat="override")
    return joined.assign_coords(model=[name.replace("_", "-") for name in models])


def window(start, end, *, spread=1.15):
    """What phase_window finds, made up: for one run, or for lists of them over `seed`; None: no window."""
    start, end = (np.array(each, dtype=float) * TOKENS for each in (start, end))
    over = ("seed",) * start.ndim
    return xr.Dataset(
        {
            "exists": (over, np.isfinite(start)),
            "start": (over, start),
            "start_low": (over, start / spread),
            "start_high": (over, start * spread),
            "end": (over, end),
            "end_low": (over, end / spread),
            "end_high": (over, end * spread),
        },
        {"seed": range(len(start))} if start.ndim else {},
    )
