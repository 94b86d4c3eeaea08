"""Mutation testing: small changes of the package, one at a time, each run against the tests nearest to it.

    python .ci/mutants.py -n 150 --seed 0 --jobs 2

draws a sample over all rooms in proportion to their size, prints each change as it is killed or survives, and the
score by room. A change is killed when a test fails, or hangs. Tests run in order of distance, in a copy of the tree:
first the files that name what the changed file defines, then those that reach it through imports. Tests that fail
without any change kill nothing: those that killed are run again on the tree as it is.
"""

import argparse
import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from changes import PACKAGE, ROOT, Change, changes_of

TESTS = ROOT / "tests"
QUICK = "not slow and not in_turn and not real and not browser"
LAST = ("test_examples", "test_notebooks", "test_house")  # they reach everything
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
    """Module -> the test files that reach it, the nearest first, and of those the ones with most ways to it."""
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
    return {path: [test for *_, test in sorted(found)] + last for path, found in out.items()}


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


def run_all(chosen: list[Change], jobs: int, limit: int, marks: str) -> dict[Change, str]:
    """Change -> the test that killed it, or "" and what was tried."""
    nearest = nearest_tests()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            free.put(copy_of_the_tree(Path(folder) / str(job)))

        def one(change: Change) -> tuple[Change, str]:
            tree = free.get()
            tests = nearest.get(change.path) or everything
            killer = outcome(
                tree, change, [test for test in tests if test.stem != "test_house"], limit, marks
            )
            free.put(tree)
            print(f"{killer or 'SURVIVED'}  <-  {change}", flush=True)
            return change, killer

        found = dict(pool.map(one, chosen))
        broken = failing(free.get(), sorted({each for each in found.values() if "::" in each}))
    return {change: "" if killer in broken else killer for change, killer in found.items()}


def copy_of_the_tree(target: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).exists(), listed):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def outcome(tree: Path, change: Change, tests: list[Path], limit: int, marks: str) -> str:
    """The test that fails on the changed tree, "hangs", or "" where none does within the limit."""
    target = tree / change.path.relative_to(ROOT)
    source = change.path.read_bytes()
    try:
        write(target, source[: change.start] + change.new.encode() + source[change.stop :])
        done = pytest(tree, ["-x", "-m", marks, *[str(test.relative_to(ROOT)) for test in tests]], limit)
    finally:
        write(target, source)
    if done.returncode in (0, 5, *OVER):
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed.group(1) if failed else "hangs" if "Timeout (" in done.stderr else "cannot be imported"


def write(path: Path, source: bytes) -> None:
    """The file, and no compiled one beside it: Python tells them apart by size and second alone."""
    path.write_bytes(source)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()


def pytest(tree: Path, arguments: list[str], limit: int | str) -> subprocess.CompletedProcess[str]:
    hangs = ["-o", f"faulthandler_timeout={HANGS}", "-o", "faulthandler_exit_on_timeout=true"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-header",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        *hangs,
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    within = ["sh", "-c", 'ulimit -t "$0"; exec "$@"', str(limit)]
    return subprocess.run(
        [*within, *command, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def failing(tree: Path, killers: list[str]) -> set[str]:
    """Those of the tests that fail on the tree as it is."""
    if not killers:
        return set()
    done = pytest(tree, killers, "unlimited")
    return set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))


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
