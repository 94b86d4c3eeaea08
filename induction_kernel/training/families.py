"""Which runs stand behind the embedded families' curves? Four families of one recipe, five seeds each.

1 or 2 attention layers, each with smeared keys and without, on the synthetic language: the recipe of the embedded
model, and all equally long, so that a 1-layer model has had all the time in which 2-layer ones turn. After Olsson et
al. 2022, arguments 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .recipe import Recipe, log_spaced
from .trainer import fit

__all__ = ["FAMILIES", "SEEDS", "train_families"]

SEEDS = (0, 1, 2, 3, 4)
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
"""Name -> recipe. A checkpoint every 4% of the steps from 200 to 2,000, where all of them turn that do."""


def train_families(
    folder: str | Path,
    *,
    families: Sequence[str] = tuple(FAMILIES),
    seeds: Sequence[int] = SEEDS,
    workers: int = 2,
    progress: bool = True,
) -> dict[tuple[str, int], Path]:
    """Trains every family with every seed, each run in a folder of its own; what is there already is kept.

    Args:
        folder: for the runs, `<folder>/<family>/seed<seed>`; interrupted ones go on.
        families: some of `FAMILIES`.
        seeds: of weights and rows.
        workers: runs at once, one thread each.
        progress: show a progress bar.

    Returns:
        (family, seed) -> folder.

    Raises:
        ValueError: an unknown family, or a folder that holds something else.
    """
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown or not families or not seeds:
        raise ValueError(
            f"wanted families among {', '.join(FAMILIES)}, and seeds; got {families} and {seeds}"
        )
    runs = {
        (name, seed): Path(folder) / name.replace(" ", "-") / f"seed{seed}"
        for seed in seeds
        for name in families
    }
    open_ones = {run: path for run, path in runs.items() if not (path / "model.safetensors").exists()}
    # Started anew, not forked: a fork of a process that has used threads may hang.
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool,
        tqdm(total=len(runs), initial=len(runs) - len(open_ones), unit="run", disable=not progress) as bar,
    ):
        waiting = [pool.submit(_train, *run, path) for run, path in open_ones.items()]
        for done in as_completed(waiting):
            done.result()
            bar.update()
    return runs


def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(name: str, seed: int, path: Path) -> None:
    fit(FAMILIES[name], seed=seed, folder=path, progress=False)
