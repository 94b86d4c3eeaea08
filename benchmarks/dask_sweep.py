"""How much faster are two Dask workers than one process? The same sweep: four runs with all their checkpoints.

Both are single-threaded, make the same call, and find their imports done; printed are the seconds of both and their
ratio (asked: at least 1.6 on two free cores). Run with `OMP_NUM_THREADS=1 python benchmarks/dask_sweep.py`, or with the
folders of runs as arguments; without, four copies of the embedded model's. `--checkpoints 4` takes the last four only.
"""

import argparse
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import dask
import torch
from dask.distributed import Client, LocalCluster
from xarray.testing import assert_identical

import induction_kernel as ik
from induction_kernel.loading import checkpoint_steps
from induction_kernel.training._curves import Curves

MEASURES = {"curve": Curves()}  # all of `training_curves`


def main(folders: list[str], checkpoints: int | None) -> None:
    with tempfile.TemporaryDirectory() as place:
        runs = {Path(folder).name: folder for folder in folders} or copies(Path(place))
        steps = checkpoint_steps(next(iter(runs.values())))[-checkpoints:] if checkpoints else None
        sweep = partial(ik.training.over_checkpoints, runs, MEASURES, checkpoints=steps, progress=False)
        with (
            # By default Dask has workers hand memory back at every chance, which costs torch much of its speed.
            dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}}),
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            client.run(warm)
            begin = time.perf_counter()
            shared = sweep(executor=client.get_executor())
            two = time.perf_counter() - begin
        warm()
        begin = time.perf_counter()
        alone = sweep()
        one = time.perf_counter() - begin
    assert_identical(shared, alone)
    print(
        f"{alone.sizes['model']} runs x {alone.sizes['checkpoint']} checkpoints, single-threaded, same Dataset"
    )
    print(f"one process {one:.1f} s, two workers {two:.1f} s, ratio {one / two:.2f}")


def copies(place: Path) -> dict[str, str]:
    tiny = Path(ik.__file__).parent / "assets" / "tiny"
    return {name: str(shutil.copytree(tiny, place / name)) for name in ("one", "two", "three", "four")}


def warm() -> None:
    """One thread, and whatever takes long at its first use."""
    torch.set_num_threads(1)
    ik.training.over_checkpoints("tiny", MEASURES, checkpoints=[0], progress=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--checkpoints", type=int)
    given = parser.parse_args(sys.argv[1:])
    main(given.folders, given.checkpoints)
