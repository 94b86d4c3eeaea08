"""The four families of runs whose curves come with the package.

1 or 2 attention layers, each with and without smeared keys, on the synthetic language, by the recipe of the embedded
model. All train equally long, so that 1-layer models have as much time as the 2-layer ones need for their phase change.
After Olsson et al. 2022, arguments 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from ..errors import Refused
from ..formats import netcdf_of, read_netcdf
from ..stores import checked_folder, write_whole
from ._curves import training_curves
from ._recipe import Recipe, log_spaced
from ._trainer import fit

__all__ = ["FAMILIES", "SEEDS", "family_curves", "train_families"]

SEEDS = (0, 1, 2, 3, 4)
SHIPPED = Path(__file__).parent.parent / "assets" / "families.nc"
_PROMPTS_OF_HEADS = 16
_STEPS = 3200
_CHECKPOINTS = (0, 25, 50, 100, 150, *log_spaced(2000, 60, first=200)[1:], 2200, 2500, 2800, _STEPS)
FAMILIES: dict[str, Recipe] = {
    f"{layers}-layer{' smeared' if smeared else ''}": Recipe(
        name=f"{layers}-layer{' smeared' if smeared else ''}",
        layers=layers,
        smeared=smeared,
        steps=_STEPS,
        checkpoints=_CHECKPOINTS,
    )
    for smeared in (False, True)
    for layers in (1, 2)
}
"""Name -> recipe. There is a checkpoint every 4% of the steps from 200 to 2,000, where the phase changes are."""


def family_curves(path: str | Path | None = None) -> xr.Dataset:
    """The embedded families' training curves, as they were trained for this package.

    Args:
        path: a file that `train_families` wrote; None for the package's own.

    Returns:
        As `training_curves`, over `model` (the four families), `seed` (five) and `checkpoint`. Scores of heads are on
        16 prompts, losses on 128 stories; all are rounded to the fourth decimal.

    Raises:
        Refused: no such file, or a damaged one.
    """
    try:
        found = read_netcdf(SHIPPED if path is None else Path(path))
    except Refused as error:
        raise Refused(f"cannot read curves: {error}") from error
    if not {"model", "seed", "checkpoint"} <= set(found.dims):
        raise Refused(f"wanted curves that train_families wrote, got {str(path)!r} over {list(found.dims)}")
    return found.astype(np.float32)


def train_families(
    folder: str | Path,
    *,
    families: Mapping[str, Recipe] = FAMILIES,
    seeds: Sequence[int] = SEEDS,
    workers: int = 2,
    progress: bool = True,
) -> xr.Dataset:
    """Trains every family with every seed, measures every checkpoint, and writes `curves.nc`.

    Finished runs in the folder are kept, and interrupted ones continue. The package's own curves were made by this
    function.

    Args:
        folder: for the runs, `<folder>/<family>/seed<seed>`, and `curves.nc`, which `family_curves` reads.
        families: name -> recipe, all of the synthetic language and with the same checkpoints.
        seeds: of initial weights and training rows.
        workers: number of runs at once, one thread each.
        progress: show a progress bar.

    Returns:
        As `family_curves`.

    Raises:
        Refused: no families or seeds, families with different checkpoints, or a folder that holds something else.
    """
    if not families or not seeds or len({recipe.kept for recipe in families.values()}) > 1:
        raise Refused(
            f"wanted families with the same checkpoints, and seeds; got {list(families)} and {list(seeds)}"
        )
    folder = checked_folder(folder, parents=True)
    runs = [(name, seed) for seed in seeds for name in families]
    # Spawned, not forked: a fork of a process that has used threads may hang.
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool,
        tqdm(total=len(runs), unit="run", disable=not progress) as bar,
    ):
        waiting = [pool.submit(_run, folder, name, families[name], seed) for name, seed in runs]
        for done in as_completed(waiting):
            done.result()
            bar.update()
    found = xr.concat(
        [_measured(folder, list(families), seed) for seed in seeds],
        dim=xr.DataArray(list(seeds), dims="seed", name="seed"),
        coords="minimal",
        compat="override",
    ).transpose("model", "seed", ...)
    write_whole(folder / "curves.nc", netcdf_of(_thinned(found)))
    return family_curves(folder / "curves.nc")


def _one_thread() -> None:
    torch.set_num_threads(1)


def _run(folder: Path, name: str, recipe: Recipe, seed: int) -> None:
    path = _folder(folder, name, seed)
    if not (path / "model.safetensors").exists():
        fit(recipe, seed=seed, folder=path, progress=False)
    _measured(folder, [name], seed)


def _folder(folder: Path, name: str, seed: int) -> Path:
    return folder / name.replace(" ", "-") / f"seed{seed}"


def _measured(folder: Path, families: Sequence[str], seed: int) -> xr.Dataset:
    sources = {f"{name} {seed}": _folder(folder, name, seed) for name in families}
    found = training_curves(sources, path=folder / "measured", progress=False)
    return found.assign_coords(model=list(families))


def _thinned(curves: xr.Dataset) -> xr.Dataset:
    """Small enough for the package: four decimals, and fewer prompts for every head."""
    for name, values in curves.data_vars.items():
        if "head" in values.dims:
            curves[name] = values.where(curves["prompt"] < _PROMPTS_OF_HEADS)
        if values.ndim > 2:
            curves[name].encoding = {
                "dtype": "int32" if float(abs(values).max()) > 3 else "int16",
                "scale_factor": 1e-4,
                "_FillValue": -(2**15),
                "zlib": True,
                "complevel": 9,
            }
    return curves
