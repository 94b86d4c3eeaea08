"""What starting costs: the shares of `import`, the first `load` and the first score, and of commands that are refused.

Processor time of one thread, each in a process of its own, with compiled modules kept between processes as Python keeps
them. TransformerLens' own import is told apart from the rest of the first `load`.
Run with `python benchmarks/startup.py [--rounds N]`; nothing is fetched, and `--save` writes the results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile

from measuring import middle, save

PARTS = """
import json, time
def spent():
    return time.process_time()
marks = [spent()]
import induction_kernel as ik
marks.append(spent())
import torch
marks.append(spent())
import transformer_lens
marks.append(spent())
model = ik.load("tiny")
marks.append(spent())
ik.head_table(ik.induction(model, progress=False))
marks.append(spent())
print(json.dumps([marks[0]] + [b - a for a, b in zip(marks, marks[1:])]))
"""
NAMES = (
    "Python", "import induction_kernel", "import torch", "import transformer_lens", 'load("tiny")', "first score",
)  # fmt: skip
COMMANDS = {
    "--help": ["--help"],
    "a mistyped model": ["score", "gpt3-smal"],
    "a path that is not there": ["score", "./no/such"],
    "a mistyped head": ["report", "--heads", "X9"],
    "a mistyped site": ["patch", "a b", "b a", "--answers", " x, y", "--site", "resid_pots"],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as compiled:
        of_parts = [parts(compiled) for _ in range(asked.rounds + 1)][1:]  # the first one compiles
        for name, values in zip(NAMES, zip(*of_parts, strict=True), strict=True):
            rows.append({"part": name, "seconds": middle(values)})
        for name, arguments in COMMANDS.items():
            command = ["-m", "induction_kernel", *arguments]
            rows.append(
                {"command": name, "seconds": middle([spent(command, compiled) for _ in range(asked.rounds)])}
            )
    whole = sum(row["seconds"]["median"] for row in rows if "part" in row)
    for row in rows:
        seconds = row["seconds"]["median"]
        share = f"{seconds / whole:6.1%}" if "part" in row else ""
        print(f"{row.get('part', row.get('command')):28}{seconds:7.2f} s {share}")
    if asked.save:
        save("startup", "python benchmarks/startup.py --save", rows, rounds=asked.rounds)


def environment(compiled: str) -> dict[str, str]:
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
    return {**os.environ, **kept, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}


def parts(compiled: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", PARTS], env=environment(compiled), check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def spent(command: list[str], compiled: str) -> float:
    """Processor seconds of a whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *command], env=environment(compiled), check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
