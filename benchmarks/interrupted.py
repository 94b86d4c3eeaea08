"""Is anything lost when what writes is killed, run twice at once, or out of disk? A table, a row a verb.

Every verb runs in a process of its own and is killed (SIGKILL) again and again, half of the times at a random moment,
half at a random step of its writing, and called again in what it left; then it runs to its end. Two processes do the
same in one folder at once. On a disk of 1 MB (a tmpfs; without the right to mount one, RLIMIT_FSIZE) it is called with
a random amount of room, and then again with enough. What comes out each time is compared with an undisturbed run: files
byte for byte (but for the random names of figures), netCDF by its contents. Linux; needs some minutes:
`OMP_NUM_THREADS=1 python benchmarks/interrupted.py --kills 20`.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

import induction_kernel as ik
from induction_kernel.cli import app
from induction_kernel.kernel._vote_view import VoteView
from induction_kernel.model import Model
from induction_kernel.prompts import word_episodes
from induction_kernel.training import _trainer as trainer
from induction_kernel.training._recipe import Recipe

RECIPE = Recipe(name="short", layers=1, heads=2, d_head=4, d_model=16, steps=120, batch_size=4)
RECIPE = replace(RECIPE, checkpoints=tuple(range(0, 120, 20)))
RANDOM_NAMES = re.compile(
    rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=ik-)[0-9a-f]{12}|(?<=vis-)[0-9a-f-]+"
)
MODEL = ik.load("tiny")
SHOTS = word_episodes(MODEL, prompts=24, shots=4, classes=2, seed=0)
STUDY = ik.fewshot.few_shot_study(MODEL, queries=16, splits=4, progress=False)


def command(*arguments: str) -> Callable[[Path], object]:
    def called(place: Path) -> None:
        given = [each.replace("PLACE", str(place)) for each in arguments]
        if app(given, standalone_mode=False) == 2:
            raise ValueError("refused, with exit status 2")

    return called


def norm(model: Model) -> float:
    return float(model.W_E.detach().norm())


VERBS: dict[str, Callable[[Path], object]] = {
    "report of a study": lambda place: ik.report(STUDY, place / "a.html"),
    "VoteView.save": lambda place: VoteView("much", "x" * 10**6).save(place / "a.html"),
    "score, .nc": command("score", "--format", "netcdf", "--out", "PLACE/a.nc"),
    "score, csv": command("score", "--format", "csv", "--out", "PLACE/a.csv"),
    "ablate, .html": command("ablate", "--prompts", "2", "--out", "PLACE/a.html"),
    "ablate, .nc": command("ablate", "--prompts", "2", "--out", "PLACE/a.nc"),
    "fewshot, .nc": command("fewshot", "--queries", "8", "--out", "PLACE/a.nc"),
    "predict": lambda place: ik.fewshot.predict(
        MODEL, SHOTS, pooling="max", path=place / "a", batch_size=2, progress=False
    ),
    "over_checkpoints": lambda place: ik.training.over_checkpoints(
        "tiny", {"n": norm}, path=place / "a", progress=False
    ),
    "training_curves": lambda place: ik.training.training_curves(
        "tiny", checkpoints=[0, 1600, 3200], n=16, path=place / "a", progress=False
    ),
    "train": lambda place: trainer.fit(RECIPE, folder=place / "a", progress=False),
    "report of a model": lambda place: ik.report(MODEL, place / "a.html", n_prompts=12, progress=False),
    "train_families": lambda place: ik.training.train_families(
        place / "a", families={"a": RECIPE}, seeds=[0], workers=1, progress=False
    ),
}
SLOW = ("report of a model", "train_families")


@dataclass
class Child:
    """A verb in a process of its own: its pid, and the end of a pipe on which it says how it ended."""

    pid: int
    pipe: int

    def outcome(self) -> str:
        with os.fdopen(self.pipe) as said:
            text = said.read()
        os.waitpid(self.pid, 0)
        return text or "killed"

    def kill(self) -> str:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.outcome()


def start(
    verb: Callable[[Path], object], place: Path, *, at: int | None = None, most: int | None = None
) -> Child:
    """Start it; `at` kills it at so many steps of writing, `most` is the largest file."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        while os.getpgid(pid) != pid:
            time.sleep(1e-4)
        return Child(pid, reading)
    os.setsid()
    os.close(reading)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    steps = killed_at(at)
    if most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        verb(place)
        said = f"done {steps[0]}"
    except ValueError as error:
        said = f"refused: {error}"
    except BaseException as error:
        said = f"RAW {type(error).__name__}: {error}"
    os.write(writing, said.encode()[:60_000])
    os._exit(0)


def killed_at(at: int | None) -> list[int]:
    """The steps of writing so far (a file written, but not yet in its place; a file in its place)."""
    steps = [0]

    def counted(do: Callable[..., object]) -> Callable[..., object]:
        def counting(*args: object, **kwargs: object) -> object:
            steps[0] += 1
            if steps[0] == at:
                os.killpg(0, signal.SIGKILL)
            return do(*args, **kwargs)

        return counting

    for owner, name in ((os, "fsync"), (Path, "chmod"), (Path, "replace")):
        setattr(owner, name, counted(getattr(owner, name)))
    return steps


def contents(place: Path) -> dict[str, object]:
    """Path -> what is compared, of all files there are."""
    found: dict[str, object] = {}
    for path in sorted(each for each in place.rglob("*") if each.is_file()):
        data: object = path.read_bytes()
        if path.suffix == ".nc":
            tree = xr.open_datatree(path, engine="h5netcdf").load()
            data = {node.path: node.to_dataset().to_dict(data="list").__repr__() for node in tree.subtree}
            tree.close()
        elif path.suffix == ".html":
            data = RANDOM_NAMES.sub(b"", path.read_bytes())
        found[str(path.relative_to(place))] = data
    return found


def killed(verb: Callable[[Path], object], place: Path, wanted: dict[str, object], times: int) -> str:
    """Kill it so many times in one place, then let it end."""
    begin = time.monotonic()
    calm = start(verb, place / "steps").outcome() if make(place / "steps") else ""
    took, n_steps = time.monotonic() - begin, int(calm.split()[1])
    left, hit = set[str](), 0
    home = place / "killed"
    make(home)
    for time_ in range(times):
        if time_ % 2:
            said = start(verb, home, at=random.randint(1, max(1, n_steps))).outcome()
        else:
            child = start(verb, home)
            time.sleep(random.uniform(0, took))
            said = child.kill()
        hit += said == "killed"
        if "RAW" in said:
            return said
        left |= {"unfinished" for path in home.rglob(".*.part")}
        if said.startswith("done") or "already holds a trained model" in said:
            shutil.rmtree(home)
            make(home)
    said = start(verb, home).outcome()
    same = contents(home) == wanted
    return (
        f"{hit} kills; left {', '.join(left) or 'nothing'}; {'same' if same else 'OTHER'} ({said.split()[0]})"
    )


def make(folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    return True


def together(verb: Callable[[Path], object], place: Path, wanted: dict[str, object], times: int) -> str:
    """Two at once in one place, so many times."""
    ends = set[str]()
    for time_ in range(times):
        home = place / f"two{time_}"
        make(home)
        first = start(verb, home)
        time.sleep(random.uniform(0, 0.2))
        said = [each.outcome() for each in (start(verb, home), first)]
        if any("RAW" in each for each in said):
            return str(said)
        ends |= {each.split()[0].rstrip(":") for each in said}
        if contents(home) != wanted:
            return f"OTHER: {said}"
    return f"{times} times; same ({', '.join(sorted(ends))})"


def without_room(verb: Callable[[Path], object], place: Path, wanted: dict[str, object], times: int) -> str:
    """On a disk with a random amount of room, then with enough."""
    refused = 0
    for time_ in range(times):
        home = place / f"full{time_}"
        make(home)
        mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)], capture_output=True
        ).returncode
        room = random.choice([0, 4096, random.randint(0, 2**18)])
        (home / "old").write_bytes(b"old")
        if mounted:
            fill(home / "filling", room)
        said = start(verb, home, most=None if mounted else max(room, 4096)).outcome()
        refused += said.startswith("refused: ")
        whole = (home / "old").read_bytes() == b"old" and not list(home.rglob(".*.part"))
        if mounted:
            (home / "filling").unlink()
            subprocess.run(["mount", "-o", "remount,size=64m", str(home)], check=True)
        again = start(verb, home).outcome()
        (home / "old").unlink()
        same = contents(home) == wanted
        if mounted:
            subprocess.run(["umount", str(home)], check=True)
        if "RAW" in said or said == "killed" or not whole or not same:
            return f"WRONG: {said[:200]} | {again[:200]} {whole} {same}"
    return f"{refused} of {times} refused in a sentence, old file kept; same when there is room"


def fill(path: Path, room: int) -> None:
    """Take all of the disk but `room` bytes."""
    free = shutil.disk_usage(path.parent).free
    path.write_bytes(b"\0" * max(0, free - room))


def main(verbs: list[str], kills: int, times: int) -> None:
    torch.set_num_threads(1)
    trainer.SAVE_EVERY = 10
    rows = []
    for name in verbs:
        with tempfile.TemporaryDirectory() as folder:
            place, verb, n = Path(folder), VERBS[name], 4 if name in SLOW else 1
            make(place / "calm")
            said = start(verb, place / "calm").outcome()
            assert said.startswith("done"), said
            wanted = contents(place / "calm")
            row = {
                "verb": name,
                "kill -9": killed(verb, place, wanted, max(1, kills // n)),
                "two at once": together(verb, place, wanted, max(1, times // n)),
                "full disk": without_room(verb, place, wanted, max(1, times // n)),
            }
        rows.append(row)
        print(" | ".join(row.values()), flush=True)
    frame = pd.DataFrame(rows)
    bad = frame.map(lambda cell: bool(re.search("OTHER|WRONG|RAW", str(cell)))).to_numpy()
    print(f"{np.count_nonzero(bad)} of {len(rows)} rows with something lost or said raw")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verbs", nargs="*", help=f"of {', '.join(VERBS)}; all by default")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--times", type=int, default=4)
    given = parser.parse_args()
    main(given.verbs or list(VERBS), given.kills, given.times)
