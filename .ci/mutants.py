"""Mutation testing: small changes of the package, one at a time, each run against the tests nearest to it.

    python .ci/mutants.py -n 150 --seed 0 --jobs 2

draws a sample over all rooms in proportion to their size, prints each change as it is killed or survives, and the
score by room. A change is killed when a test fails, or hangs. The tests run once with coverage. For each change those
that run its lines come first, the most special of them before the others, in a copy of the tree; then all other tests.
Tests that fail without any change kill nothing: those that killed are run again on the tree as it is.
"""

import argparse
import importlib
import itertools
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from changes import PACKAGE, ROOT, Change, changes_of
from coverage import CoverageData

TESTS = ROOT / "tests"
QUICK = "not slow and not in_turn and not real and not browser"
UNSEEN = "test_bad_inputs"  # it runs each call in a process of its own, which is not covered
LAST = ("test_examples", "test_notebooks", "test_house")  # they reach everything
FEW, MANY = 20, 200  # single tests that are run first, and those after them
STAGES = (0, 4, 16, None)  # then files, so many together
LIBRARIES = (
    "torch", "transformer_lens", "transformers", "xarray", "h5netcdf", "pandas", "scipy.stats",
    "sklearn.linear_model", "plotly.graph_objects", "circuitsvis", "jaxtyping", "jinja2", "rich", "typer",
)  # fmt: skip
HANGS = 300  # seconds of one test
OVER = (-signal.SIGXCPU, -signal.SIGKILL)  # how the system ends a process whose processor time is used up


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("-n", type=int, default=150, help="changes in all")
    asked.add_argument("--least", type=int, default=4, help="changes of a room at least")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--jobs", type=int, default=2)
    asked.add_argument(
        "--limit", type=int, default=300, help="processor seconds a change; then it has survived"
    )
    asked.add_argument("--marks", default=QUICK, help="pytest's -m")
    asked.add_argument("--only", default="", help="of files whose path contains this")
    asked.add_argument("--covering", type=Path, help="file of which test runs what, made if it is not there")
    asked.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = asked.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before torch is imported
    chosen = sample(options.n, options.least, options.seed, options.only)
    if options.list:
        print(*chosen, sep="\n")
        return
    with tempfile.TemporaryDirectory(prefix="covering-") as folder:
        data = options.covering or Path(folder) / "coverage"
        if not data.exists():
            measured(data, options.jobs, options.marks)
        covering = covering_of(data)
    report(chosen, run_all(chosen, covering, options.jobs, options.limit, options.marks))


def sample(n: int, least: int, seed: int, only: str) -> list[Change]:
    """`n` changes, no two of one line; of every room in proportion, and `least` at least where it has them."""
    rooms: dict[str, dict[tuple[Path, int], list[Change]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(PACKAGE.rglob("*.py")):
        if only in str(path.relative_to(ROOT)):
            for change in changes_of(path):
                rooms[change.room][path, change.line].append(change)
    generator = random.Random(seed)
    everything = sum(map(len, rooms.values()))
    chosen = []
    for lines in rooms.values():
        wanted = min(len(lines), max(least, round(n * len(lines) / everything)))
        for line in generator.sample(sorted(lines), wanted):
            kinds = defaultdict(list)
            for change in lines[line]:
                kinds[change.kind].append(change)
            chosen.append(generator.choice(kinds[generator.choice(sorted(kinds))]))
    return chosen


# What tests it


def measured(data: Path, jobs: int, marks: str) -> None:
    """Run the tests once and write down which lines each of them runs."""
    covering = ["--cov=induction_kernel", "--cov-context=test", "--cov-report="]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        str(jobs),
        "-m",
        marks,
        *covering,
    ]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"COVERAGE_FILE": str(data)}, check=False)


@dataclass(frozen=True)
class Covering:
    """Which tests run which lines.

    Attributes:
        lines: file -> line -> the tests that run it.
        weight: test -> how many lines of the package it runs.
    """

    lines: dict[Path, dict[int, set[str]]]
    weight: Counter[str]

    def of(self, change: Change) -> list[str]:
        """The tests that run the change, those that run least besides first; of what runs at import, the file's."""
        lines = self.lines.get(change.path, {})
        there = range(change.line, change.line + change.old.count("\n") + 1)
        found = set().union(*(lines.get(line, set()) for line in there))
        found = found or set().union(*lines.values())
        return sorted(found, key=lambda test: (self.weight[test], test))


def covering_of(data: Path) -> Covering:
    """What `measured` wrote."""
    found = CoverageData(str(data))
    found.read()
    lines = {
        Path(name): {
            line: {context.rpartition("|")[0] for context in contexts} - {""}  # "" while it is imported
            for line, contexts in found.contexts_by_lineno(name).items()
        }
        for name in found.measured_files()
    }
    everything = (tests for of_file in lines.values() for tests in of_file.values())
    return Covering(lines, Counter(itertools.chain.from_iterable(everything)))


def stages_of(change: Change, covering: Covering) -> list[list[str]]:
    """What is collected and run together: single tests, then files, those of most such tests first.

    Files follow because what a fixture runs counts only for the first test that asks for it.
    """
    tests = covering.of(change)
    near = Counter(test.partition("::")[0] for test in tests)
    files = [
        str(test.relative_to(ROOT)) for test in sorted(TESTS.glob("test_*.py")) if test.stem != "test_house"
    ]
    files.sort(key=lambda file: (Path(file).stem in LAST, -near[file]))
    refusals = [f"tests/{UNSEEN}.py"] if change.kind == "dropped statement" else []
    return [
        tests[:FEW],
        refusals,
        tests[FEW:MANY],
        *(files[start:stop] for start, stop in itertools.pairwise(STAGES)),
    ]


# Runs


@dataclass
class Run:
    """A change planted in a copy of the tree, and the tests that have not run on it yet."""

    change: Change
    tree: Path
    stages: list[list[str]]
    left: float  # processor seconds

    @property
    def target(self) -> Path:
        return self.tree / self.change.path.relative_to(ROOT)


def run_all(chosen: list[Change], covering: Covering, jobs: int, limit: int, marks: str) -> dict[Change, str]:
    """Change -> the test that killed it, or "" where none did."""
    for name in LIBRARIES:
        importlib.import_module(name)
    waiting, running, found = list(chosen), {}, {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        free = [copy_of_the_tree(Path(folder) / str(job)) for job in range(jobs)]
        while waiting or running:
            while waiting and free:
                run = planted(waiting.pop(0), free.pop(), covering, limit)
                running[started(run, marks)] = run
            pid, status, used = os.wait4(-1, 0)
            run = running.pop(pid)
            run.left -= used.ru_utime + used.ru_stime
            code = os.waitstatus_to_exitcode(status)
            if code in (0, 5) and run.stages and run.left > 1:
                running[started(run, marks)] = run
                continue
            write(run.target, run.change.path.read_bytes())
            found[run.change] = killer = killed_by(code, log_of(run.tree).read_text(errors="replace"))
            print(f"{killer or 'SURVIVED'}  <-  {run.change}", flush=True)
            free.append(run.tree)
        broken = failing(free[0], sorted({each for each in found.values() if "::" in each}))
    return {change: "" if found[change] in broken else found[change] for change in chosen}


def copy_of_the_tree(target: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).exists(), listed):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def log_of(tree: Path) -> Path:
    return tree.with_suffix(".log")


def planted(change: Change, tree: Path, covering: Covering, limit: int) -> Run:
    """The change in the tree, and what is run on it."""
    run = Run(change, tree, [stage for stage in stages_of(change, covering) if stage], limit)
    source = change.path.read_bytes()
    write(run.target, source[: change.start] + change.new.encode() + source[change.stop :])
    return run


def started(run: Run, marks: str) -> int:
    """The process that runs the next stage."""
    return forked(run.tree, ["-x", "-m", marks, *run.stages.pop(0)], math.ceil(run.left))


def killed_by(code: int, log: str) -> str:
    """The test that failed, "hangs", or "" where none did, or where the processor time was used up."""
    if code in (0, 5, *OVER):
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log, re.MULTILINE)
    return failed.group(1) if failed else "hangs" if "Timeout (" in log else "cannot be imported"


def write(path: Path, source: bytes) -> None:
    """The file, and no compiled one beside it: Python tells them apart by size and second alone."""
    path.write_bytes(source)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()


def forked(tree: Path, arguments: list[str], limit: int | None) -> int:
    """A process that runs pytest in the tree, with the libraries imported already: that takes twenty seconds.

    The package itself is imported in the child, from the tree.
    """
    if pid := os.fork():
        return pid
    code = 1
    try:
        log = os.open(log_of(tree), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree)
        os.environ |= {"PYTHONPATH": str(tree)}
        sys.path[0] = str(tree)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        hangs = ["-o", f"faulthandler_timeout={HANGS}", "-o", "faulthandler_exit_on_timeout=true"]
        shown = ["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
        shown += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of the libraries imported already
        code = int(pytest.main([*shown, *hangs, *arguments]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def failing(tree: Path, killers: list[str]) -> set[str]:
    """Those of the tests that fail on the tree as it is."""
    if not killers:
        return set()
    os.waitpid(forked(tree, killers, None), 0)
    return set(re.findall(r"^(?:FAILED|ERROR) (\S+)", log_of(tree).read_text(errors="replace"), re.MULTILINE))


def report(chosen: list[Change], killer: dict[Change, str]) -> None:
    """The score by room, and every change that survived."""
    of, killed = Counter(each.room for each in chosen), Counter(each.room for each in chosen if killer[each])
    print("\nroom              killed    of  share")
    for room, n in [*sorted(of.items()), ("all", len(chosen))]:
        k = sum(killed.values()) if room == "all" else killed[room]
        print(f"{room:17s} {k:6d} {n:5d} {k / n:6.0%}")
    print("\nSurvived:", *[each for each in chosen if not killer[each]], sep="\n")


if __name__ == "__main__":
    main()
