"""Figures of direct ablation: score lost along training, shares lost in its phases, score lost without single heads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from ..plots._effect_map import effect_map
from ..plots._lines import line_plot
from ._argument import Part, Table
from ._wording import percent

__all__ = ["figures_of"]

STRONGEST = 6
"""How many single heads are drawn along training."""


def figures_of(result: xr.Dataset) -> Iterator[Part]:
    """What the page shows of a result of `direct_ablation`, below its checks; nothing where it has no checks."""
    if not result.sizes["check"]:
        return
    yield (
        f"Induction heads, chosen at the end of training on other prompts: {result.attrs['induction_heads']}. To "
        "remove them, their output is replaced by zero, by its mean over control prompts, or by zero with all "
        'attention patterns held fixed ("patterns"), so that only values move.'
    )
    mode = result.sel(mode="mean")
    if "checkpoint" in result.dims:
        yield from _along(mode.swap_dims(checkpoint="tokens"))
        mode = mode.isel(checkpoint=-1)
    if "phase" in result.dims:
        yield (
            "Share of the score lost without them, in the three phases of training. Before the window there is almost "
            "no score to lose, so that share may have almost any size:"
        )
        yield _phases(result)
    if "icl_effect" in mode:
        effect = mode[["icl_effect"]].rename(icl_effect="effect").drop_vars("mode").drop_attrs()
        yield effect_map(
            effect.assign_attrs(unit="nats"), title="score lost without each head, at the end of training"
        )


def _along(mode: xr.Dataset) -> Iterator[Part]:
    """Score lost at each checkpoint without all induction heads, without random heads, and without single heads."""
    groups = {
        "induction heads": _lost(mode["icl_joint"]),
        "random heads": _lost(mode["icl_control"].mean("prompt")),
    }
    title = "in-context-learning score lost without heads (mean replacement)"
    yield line_plot(groups, "lost", over="tokens", title=title)
    if "icl_effect" in mode:
        every = mode["icl_effect"].stack(cell=("layer", "head")).assign_coords(tokens=mode["tokens"])
        last = np.abs(every.mean("prompt").isel(tokens=-1).values)
        best = every.isel(cell=np.argsort(-last)[:STRONGEST])
        alone = {
            str(name): _lost(best.isel(cell=at, drop=True).reset_coords(drop=True))
            for at, name in enumerate(best["name"].values)
        }
        title = "the same for the six single heads that matter most at the end of training"
        yield line_plot(alone, "lost", over="tokens", title=title)


def _lost(effect: xr.DataArray) -> xr.Dataset:
    return xr.Dataset({"lost": effect.assign_attrs(unit="nats")})


def _phases(result: xr.Dataset) -> Table:
    rows = []
    for phase in result["phase"].values:
        for mode in result["mode"].values:
            one = result.sel(phase=phase, mode=mode)
            value, low, high = (percent(one[f"phase_icl_share{end}"]) for end in ("", "_low", "_high"))
            random = one["phase_icl_control_share"].values
            rows.append([
                str(phase), str(mode), value if value == "–" else f"{value} ({low} to {high})",
                percent(random.mean()), f"{percent(random.min())} to {percent(random.max())}",
            ])  # fmt: skip
    return Table(
        ["phase", "replaced by", "share lost", "lost without random heads", "smallest and largest"], rows
    )
