"""Mutation testing: small changes of the package, one at a time, each run against the tests nearest to it.

    python .ci/mutants.py -n 150 --seed 0 --jobs 2

draws a sample over all rooms in proportion to their size, prints each change as it is killed or survives, and the
score by room. A change is killed when a test fails, or hangs. Tests run in order of distance, in a copy of the tree:
first the files that name what the changed file defines, then those that reach it through imports. Tests that fail
without any change kill nothing: those that killed are run again on the tree as it is.
"""

import argparse
import ast
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
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path

import pytest
from changes import PACKAGE, ROOT, Change, changes_of

TESTS = ROOT / "tests"
QUICK = "not slow and not in_turn and not real and not browser"
LAST = ("test_examples", "test_notebooks", "test_house")  # they reach everything
STAGES = (0, 4, 16, None)  # test files of a change that are collected and run together
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
    asked.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = asked.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before torch is imported
    chosen = sample(options.n, options.least, options.seed, options.only)
    if options.list:
        print(*chosen, sep="\n")
        return
    report(chosen, run_all(chosen, options.jobs, options.limit, options.marks))


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


def defined_in(path: Path) -> set[str]:
    """A module's name, and the names it has without those it imports."""
    names = {path.stem}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
            }
    return names - {"__all__"}


def named_in(path: Path) -> set[str]:
    """What a file imports; and a test's attributes, `ik.kernel.vote`, for the package loads its names lazily."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and TESTS in path.parents:
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names} | set((node.module or "").split("."))
        elif isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
    return names


def nearest_tests() -> dict[Path, list[Path]]:
    """Module -> all test files, the nearest first, and of those the ones with most ways to it."""
    modules = sorted(PACKAGE.rglob("*.py"))
    helpers = sorted((TESTS / "support").glob("*.py"))
    tests = [test for test in sorted(TESTS.glob("test_*.py")) if test.stem not in LAST]
    defined = {path: defined_in(path) for path in [*modules, *helpers] if path.stem != "__init__"}
    edges = {}
    for path in [*tests, *helpers, *modules]:
        named = named_in(path)
        edges[path] = [other for other in defined if other != path and named & defined[other]]
    out: dict[Path, list] = {path: [] for path in modules}
    away = {path: distances(path, edges) for path in edges}
    for test in tests:
        for path, steps in away[test].items():
            if path in out:
                ways = sum(away[other].get(path) == steps - 1 for other in edges[test])
                out[path].append((steps, -ways / len(edges[test]), test))
    last = [TESTS / f"{name}.py" for name in LAST]
    ordered = {path: [test for *_, test in sorted(found)] for path, found in out.items()}
    return {
        path: near + [test for test in tests if test not in near] + last for path, near in ordered.items()
    }


def distances(start: Path, edges: dict[Path, list[Path]]) -> dict[Path, int]:
    found, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for other in edges.get(here, ()):
            if other not in found:
                found[other] = found[here] + 1
                queue.append(other)
    return found


# Runs


@dataclass
class Run:
    """A change planted in a copy of the tree, and the files of tests that have not run on it yet."""

    change: Change
    tree: Path
    stages: list[list[Path]]
    left: float  # processor seconds

    @property
    def target(self) -> Path:
        return self.tree / self.change.path.relative_to(ROOT)


def run_all(chosen: list[Change], jobs: int, limit: int, marks: str) -> dict[Change, str]:
    """Change -> the test that killed it, or "" where none did."""
    nearest = nearest_tests()
    for name in LIBRARIES:
        importlib.import_module(name)
    waiting, running, found = list(chosen), {}, {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        free = [copy_of_the_tree(Path(folder) / str(job)) for job in range(jobs)]
        while waiting or running:
            while waiting and free:
                run = planted(waiting.pop(0), free.pop(), nearest, limit)
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


def planted(change: Change, tree: Path, nearest: dict[Path, list[Path]], limit: int) -> Run:
    """The change in the tree. The nearest tests run first, alone: to collect all of them takes half a minute."""
    tests = [test for test in nearest[change.path] if test.stem != "test_house"]
    stages = [tests[start:stop] for start, stop in itertools.pairwise(STAGES) if tests[start:stop]]
    run = Run(change, tree, stages, limit)
    source = change.path.read_bytes()
    write(run.target, source[: change.start] + change.new.encode() + source[change.stop :])
    return run


def started(run: Run, marks: str) -> int:
    """The process that runs the next stage."""
    files = [str(test.relative_to(ROOT)) for test in run.stages.pop(0)]
    return forked(run.tree, ["-x", "-m", marks, *files], math.ceil(run.left))


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
