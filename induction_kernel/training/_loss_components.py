"""Per-token losses over training: principal components, slope over positions, and their change.

After Olsson et al. 2022: `loss_components` is the principal component analysis of per-token losses (one random token
per example; the trajectory turns at the phase change); `loss_slope` is the derivative of the loss in the logarithm of
the token index (near 0 late in the context, where more context no longer helps); `before_and_after` is the direction in
which the losses move in the window, on which an ablation's change is projected. All is computed from `training_curves`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from sklearn.decomposition import PCA

from .. import __version__
from ..errors import Refused
from ._onsets import Numbers, at_tokens, check_curves, over_runs, trained

__all__ = ["before_and_after", "loss_components", "loss_slope"]

WIDTH = 0.3
"""Standard deviation of the Gaussian weights of `loss_slope`, in ln(token index)."""


def loss_components(curves: xr.Dataset) -> xr.Dataset:
    """The first two principal components of per-token losses over training.

    Args:
        curves: the result of `training_curves`. Runs along `model` and `seed` are analysed together, in one space: the
            rows are all their checkpoints, including step 0, the columns the examples that all of them have.

    Returns:
        Dataset with `component[checkpoint, pc]` in nats, with the leading dimensions of the curves, NaN if a run lacks
        the checkpoint; `explained[pc]`, the share of the variance, in [0, 1].

    Raises:
        TypeError: not a Dataset. Refused: no sampled losses, fewer than 3 checkpoints or 2 examples.

    Source: Olsson et al. 2022, per-token losses and their PCA.
    """
    check_curves(curves, "sampled_loss")
    losses = curves["sampled_loss"].transpose(..., "checkpoint", "prompt").astype(np.float64)
    rows = losses.values.reshape(-1, losses.sizes["prompt"])
    there = ~np.isnan(rows).all(1)
    whole = ~np.isnan(rows[there]).any(0)
    if there.sum() < 3 or whole.sum() < 2:
        raise Refused(
            f"wanted at least 3 checkpoints and 2 examples that all runs have, got {there.sum()} and {whole.sum()}"
        )
    analysis = PCA(2, svd_solver="full")
    found = np.full((len(rows), 2), np.nan)
    found[there] = analysis.fit_transform(rows[there][:, whole])
    dims = (*losses.dims[:-1], "pc")
    out = xr.Dataset(
        {
            "component": (dims, found.reshape(*losses.shape[:-1], 2)),
            "explained": ("pc", analysis.explained_variance_ratio_),
        },
        {"pc": [1, 2], **{key: losses[key] for key in losses.coords if "prompt" not in losses[key].dims}},
    )
    return out.assign_attrs(
        method="loss_components", unit="nats", examples=int(whole.sum()), induction_kernel=__version__,
        paper="Olsson et al. 2022, PCA of per-token losses",
    )  # fmt: skip


def loss_slope(curves: xr.Dataset) -> xr.Dataset:
    """How fast the loss falls along the context: its derivative in ln(token index), by checkpoint and position.

    The slope at a position is that of the line fitted to the losses around it with Gaussian weights of standard
    deviation .3 in ln(token index): differences between neighbours would be noise.

    Args:
        curves: the result of `training_curves`, with any leading dimensions.

    Returns:
        Dataset with `slope[checkpoint, position]` in nats per unit of ln(token index): negative where more context
        helps. Position i predicts the token of index i + 1.

    Raises:
        TypeError: not a Dataset. Refused: no losses by position, fewer than 2 positions.

    Source: Olsson et al. 2022, "derivative of loss with respect to log token index".
    """
    check_curves(curves, "position_loss")
    losses = curves["position_loss"].astype(np.float64)
    if losses.sizes["position"] < 2:
        raise Refused(f"wanted losses at 2 or more positions, got {losses.sizes['position']}")
    index = losses["position"].values + 1
    slope = xr.dot(losses, xr.DataArray(_line_fits(np.log(index)), dims=("at", "position")), dim="position")
    found = slope.transpose(..., "at").rename(at="position").assign_coords(position=losses["position"])
    return found.to_dataset(name="slope").assign_attrs(
        method="loss_slope", unit="nats per unit of ln(token index)", width=WIDTH, induction_kernel=__version__,
        paper="Olsson et al. 2022, derivative of loss in log token index",
    )  # fmt: skip


def _line_fits(x: Numbers) -> Numbers:
    """`[place, x]`: the matrix that takes values at x to the weighted slope at each place."""
    weights = np.exp(-0.5 * ((x[:, None] - x) / WIDTH) ** 2)
    weights /= weights.sum(1, keepdims=True)
    centred = x - (weights @ x)[:, None]
    return weights * centred / (weights * centred**2).sum(1, keepdims=True)


def before_and_after(curves: xr.Dataset, window: xr.Dataset) -> xr.Dataset:
    """The direction in which per-token losses move in the phase change: u = (L_end - L_start) / its norm.

    The attribution of a head is the projection <u, L_ablated - L>, with the losses of the same tokens
    (`sampled_loss` of `Curves(...).losses(model)`): negative where ablation moves them back.

    Args:
        curves: the result of `training_curves`.
        window: the result of `phase_window` for these curves.

    Returns:
        Dataset with `direction[prompt]` (unit norm) and `change[prompt]` in nats, for every run; NaN if there is no
        window, and for prompts beyond the examples. Losses between checkpoints are linear in ln(tokens).

    Raises:
        TypeError: not Datasets. Refused: no sampled losses, a window that is not of these curves.

    Source: Olsson et al. 2022, before-and-after vectors.
    """
    check_curves(curves, "sampled_loss", "icl_score")
    if not isinstance(window, xr.Dataset):
        raise TypeError(f"wanted the Dataset of phase_window, got {type(window).__name__}")
    dims = {dim for dim in ("model", "seed") if dim in curves.dims}
    if not {"start", "end"} <= set(window) or set(window["start"].dims) != dims:
        raise Refused(
            f"wanted the phase_window of these curves, with start and end over {sorted(dims)}, got "
            f"{list(window.data_vars)} over {list(window.dims)}"
        )
    kept = curves[["sampled_loss", "icl_score"]].assign(start=window["start"], end=window["end"])
    attrs = {"method": "before_and_after", "unit": "nats", "induction_kernel": __version__}
    return over_runs(kept, _change).assign_attrs(attrs, paper="Olsson et al. 2022, before-and-after vectors")


def _change(run: xr.Dataset) -> xr.Dataset:
    run = trained(run)
    losses = run["sampled_loss"].transpose("prompt", "checkpoint").values.astype(np.float64)
    before, after = (
        at_tokens(losses, run["tokens"].values, np.full(len(losses), np.log(float(run[edge]))))
        for edge in ("start", "end")
    )
    change = after - before
    norm = np.sqrt(np.nansum(change**2))
    found = xr.Dataset({"direction": ("prompt", change / norm), "change": ("prompt", change)})
    return found.assign_coords(prompt=run["prompt"])
