"""How much faster is a sweep than one run a cell? This package against what else there is, on the same weights.

Random weights of several shapes, float32, one thread. Each way runs in a process of its own; rounds alternate between
the ways. A loop's time is that of some cells drawn at random (each costs it one whole run), times the number of cells,
without its clean run and with what it takes from it already read; ours is that of the whole call of `ik.patch`, both
runs included. `first` is ours at the first call of a process. Beside the ratios stands our time over that of the
matrix products which the sweep cannot do without, at the speed of a large product, timed before each answer, and
`best`: how many times the products of whole runs those are, which is what a loop that wastes nothing can lose at most.
Run with `make bench`, or `python benchmarks/sweeps.py [--cases 0 3] [--rounds 1]`; other ways need their Python:
`--tl4 PYTHON`, `--nnsight PYTHON`. Nothing is fetched. Results are written to benchmarks/results/sweeps.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measuring import PRODUCT, middle, save
from peers.cases import BRIDGED, CASES, SAID, Case, best_at_full_width, bound, loop

HERE = Path(__file__).resolve().parent
DRAWN = {"nnsight": 12}  # cells timed in a round: nnsight has twelve in one trace
HOOKED, BRIDGES = "tl3", ("tl3", "tl4")


class Peer:
    """One way in its process: `ask` gives seconds, the speed of a product, values."""

    def __init__(self, python: str, way: str, shape: str) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(HERE.parent),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [python, str(HERE / "peer.py"), way, shape],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.name = f"{way} ({shape})"
        self.ready = False

    def wait(self) -> None:
        """Until the model is built."""
        self.ready = self.ready or self.answer()["ready"]

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # pyright: ignore[reportOptionalMemberAccess]
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}: its error stands above")
        return json.loads(line)

    def ask(self, case: Case, cells: list[tuple[int, ...]]) -> dict[str, Any]:
        question = json.dumps({"case": asdict(case), "cells": cells})
        print(question, file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
        self.process.wait()


class Peers:
    """A process for each way with models of one shape; ours is new for each case, so that its first call is timed."""

    def __init__(self) -> None:
        self.shape, self.running = "", dict[tuple[str, str], Peer]()

    def of(self, case: Case, ways: dict[str, tuple[str, str]]) -> dict[str, Peer]:
        if self.shape != case.shape:
            self.close(list(self.running))
            self.shape = case.shape
        ours = next(iter(ways.values()))
        self.close([key for key in self.running if key[1] == ours[1]])
        for key in ways.values():
            if key not in self.running:
                self.running[key] = Peer(*key, case.shape)
        for key in ways.values():
            self.running[key].wait()
        return {name: self.running[key] for name, key in ways.items()}

    def close(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self.running.pop(key).close()


def main() -> None:
    given, peers = arguments(), Peers()
    pythons = {"tl3": sys.executable, "tl4": given.tl4, "nnsight": given.nnsight}
    rows = []
    print(
        f"{'':24}{'prompts':>9}  {'sweep':19}{'metric':18}{'bound':>6}{'first':>7}{'best':>7}  ratios",
        flush=True,
    )
    for bridged, cases in ((False, CASES), (True, BRIDGED)):
        for number, case in enumerate(cases, start=len(CASES) * bridged):
            if given.cases and number not in given.cases:
                continue
            for ways in sides(case, bridged, pythons):
                row = measured(case, ways, given.rounds, peers.of(case, ways))
                rows.append(row)
                print(shown(row), flush=True)
    peers.close(list(peers.running))
    if not given.cases:
        versions = {"transformer_lens": version("transformer-lens"), "transformers": version("transformers")}
        torch.set_num_threads(1)  # as in the processes that were timed, for what is said of the machine
        best = best_at_full_width()
        save("sweeps", "make bench", rows, rounds=given.rounds, versions=versions, best_of_gpt_j_6b=best)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of cases; nothing is written then")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tl4", help="the Python of an environment with TransformerLens 4")
    parser.add_argument("--nnsight", help="the Python of an environment with nnsight")
    return parser.parse_args()


def sides(case: Case, bridged: bool, pythons: dict[str, str | None]) -> list[dict[str, tuple[str, str]]]:
    """What is compared: for each class and version of the model, ways with their Python; ours is the first."""

    def with_python(ways: dict[str, str]) -> dict[str, tuple[str, str]]:
        return {way: (python, way) for way, name in ways.items() if (python := pythons[name])}

    if bridged:
        both = [with_python({"package, Bridge": name, "Bridge hooks": name}) for name in BRIDGES]
        if pythons["tl4"]:
            both[1]["PatchingResult"] = (pythons["tl4"], "PatchingResult")
        return [ways for ways in both if ways]
    ways = {"package": HOOKED, "patching": HOOKED}
    ways["mended"] = HOOKED
    if case.shape != "attention-only":  # Hugging Face has no such model
        ways["torch hooks"] = HOOKED
        if case.metric != "loss":
            ways["nnsight"] = "nnsight"
    return [with_python(ways)]


def measured(
    case: Case, ways: dict[str, tuple[str, str]], rounds: int, peers: dict[str, Peer]
) -> dict[str, Any]:
    draw, cells = random.Random(0), case.cells
    ours, *others = ways
    first = peers[ours].ask(case, cells)
    found = dict(zip(cells, first["values"], strict=True))
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    ratios: dict[str, list[float]] = {name: [] for name in others}
    apart = 0.0
    for name in others:
        peers[name].ask(case, cells[:1])  # what is made at a first call
    for _ in range(rounds):
        answers[ours].append(peers[ours].ask(case, cells))
        for name in others:
            some = draw.sample(cells, min(len(cells), DRAWN.get(name, 6)))
            said = peers[name].ask(case, some)
            answers[name].append(said)
            ratios[name].append(said["seconds"] / len(some) * len(cells) / answers[ours][-1]["seconds"])
            apart = max(apart, *(abs(found[cell] - v) for cell, v in zip(some, said["values"], strict=True)))
    steady = middle([said["seconds"] for said in answers[ours]])
    rates = [said["product"] / PRODUCT for said in answers[ours]]
    of_bound = [
        said["seconds"] / (bound(case) * rate) for said, rate in zip(answers[ours], rates, strict=True)
    ]
    return {
        **asdict(case), "said": SAID[case.shape], "ours": ours, "cells": len(cells), "lane": first["lane"],
        "python": version_of(ways[ours][0]), "seconds": steady,
        "first_over_steady": first["seconds"] / steady["median"],
        "first_seconds_more": first["seconds"] - steady["median"], "of_bound": middle(of_bound),
        "best": loop(case) / bound(case), "apart": apart,
        "ratios": {name: middle(values) for name, values in ratios.items()},
    }  # fmt: skip


def version_of(python: str) -> str:
    """TransformerLens' version in that environment."""
    ask = "from importlib.metadata import version; print(version('transformer-lens'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def shown(row: dict[str, Any]) -> str:
    ratios = ", ".join(f"{name} {found['median']:.1f}" for name, found in row["ratios"].items())
    size = f"{row['prompts']} x {row['length']}"
    of_bound, first = row["of_bound"]["median"], row["first_over_steady"]
    return (
        f"{row['shape']:24}{size:>9}  {row['what']:19}{row['metric']:18}{of_bound:6.2f}{first:7.1f}{row['best']:7.1f}  "
        f"{ratios}; {row['apart']:.0e}, {row['lane']}"
    )


if __name__ == "__main__":
    main()
