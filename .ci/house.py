"""Measure the package's structure: public names, files and lines, import circles, and what each name loads.

Run from the root of a checkout: `python .ci/house.py` (add `--loaded` for what each flat name loads, some minutes).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = "induction_kernel"
ROOT = Path(__file__).resolve().parent.parent
# What runs edited layers, and how a lane is trusted; whoever edits goes through `run_cells`.
LANES = {
    "interventions": {"_batch", "_lanes", "_lane_checks", "_cells_together", "_widened_batch", "_changes"},
    "replay": {"_lane", "_blocks", "_decoder", "_capture"},
}


def files(root: Path) -> list[Path]:
    """Python files of the package."""
    return sorted((root / NAME).rglob("*.py"))


def module_of(root: Path, path: Path) -> str:
    """Dotted name of a file; of a folder for its `__init__`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Folder or top-level file of the package that a module lies in; "" for the package itself."""
    return [*module.split("."), ""][1]


def imports(root: Path, path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything of the package that a file imports, wherever in the file."""
    package = module_of(root, path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] == NAME:
                yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == NAME)


def imported_modules(root: Path) -> dict[str, set[str]]:
    """Module -> the package's modules that it imports."""
    there = {module_of(root, path) for path in files(root)}
    graph: dict[str, set[str]] = {}
    for path in files(root):
        whole = {
            f"{each}.{name}" if f"{each}.{name}" in there else each for each, name in imports(root, path)
        }
        graph[module_of(root, path)] = whole - {module_of(root, path), NAME}
    return graph


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Sets of nodes that reach one another."""

    def reached(start: str) -> set[str]:
        seen, waiting = set[str](), [start]
        while waiting:
            for following in graph.get(waiting.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return seen

    reach = {node: reached(node) for node in graph}
    mutual = {
        node: frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph
    }
    return sorted({tuple(sorted(group)) for group in mutual.values() if group})


def room_graph(root: Path) -> dict[str, set[str]]:
    """Room -> rooms that its files import."""
    graph: dict[str, set[str]] = {}
    for module, targets in imported_modules(root).items():
        graph.setdefault(room_of(module), set()).update(
            {room_of(each) for each in targets} - {room_of(module), ""}
        )
    return graph


def lanes_from_outside(root: Path) -> list[str]:
    """Files outside `interventions` and `replay` that import what runs layers again."""
    found = []
    for path in files(root):
        if room_of(module_of(root, path)) in ("interventions", "replay"):
            continue
        for module, name in imports(root, path):
            parts = module.split(".")
            if len(parts) > 1 and {*parts[2:], name} & LANES.get(parts[1], set()):
                found.append(f"{path.relative_to(root)}: {module}")
    return found


def function_lengths(root: Path) -> list[tuple[int, str]]:
    """Lines of every function, without its docstring."""
    found = []
    for path in files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                skipped = (first.end_lineno or first.lineno) - first.lineno + 1 if doc else 0
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - skipped
                found.append((length, f"{path.relative_to(root)}:{node.lineno} {node.name}"))
    return sorted(found, reverse=True)


def public_names(root: Path) -> dict[str, list[str]]:
    """Namespace -> its public names; "" for the package itself. Read off what the package says, in its own process."""
    code = (
        f"import {NAME} as ik, types, json, importlib, pathlib\n"
        "flat = [n for n in ik.__all__ if n != '__version__']\n"
        f"here = pathlib.Path({NAME!r})\n"
        "rooms = [n for n in flat if (here / n).is_dir() or (here / (n + '.py')).is_file()]\n"
        "out = {'': [n for n in flat if n not in rooms]}\n"
        f"for n in rooms: out[n] = [x for x in getattr(importlib.import_module('{NAME}.' + n), '__all__', []) if x]\n"
        "print(json.dumps(out))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def loaded_by(root: Path, name: str) -> tuple[int, list[str]]:
    """How many modules of the package a flat name loads, and which heavy libraries."""
    heavy = "torch transformer_lens plotly circuitsvis pandas scipy sklearn xarray"
    code = (
        f"import sys, {NAME} as ik\nik.{name}\nprint(sum(m.startswith('{NAME}') for m in sys.modules), "
        f"*(m for m in '{heavy}'.split() if m in sys.modules))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, env=environment
    )
    number, *libraries = done.stdout.split()
    return int(number), libraries


def main() -> None:
    """Print every measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path.cwd())
    parser.add_argument("--loaded", action="store_true", help="what each flat name loads")
    given = parser.parse_args()
    root = given.root.resolve()
    names = public_names(root)
    print(f"public names, flat: {len(names[''])}; namespaces: {len(names) - 1}")
    for room, inside in names.items():
        if room:
            print(f"  {room:14} {len(inside):3}  {' '.join(inside)}")
    sizes = {path: len(path.read_text().splitlines()) for path in files(root)}
    rooms: dict[str, int] = {}
    for path in sizes:
        room = room_of(module_of(root, path))
        rooms[room] = rooms.get(room, 0) + (path.name != "__init__.py")
    by_number = sorted(rooms.items(), key=lambda room: -room[1])
    print("files a room:", ", ".join(f"{room or 'package'} {n}" for room, n in by_number))
    print(
        f"files: {len(sizes)}, lines: {sum(sizes.values())}, median {statistics.median(sizes.values()):.0f}"
    )
    large = [f"{path.relative_to(root)} {n}" for path, n in sizes.items() if n > 280]
    print("files over 280 lines:", ", ".join(large) or "none")
    lengths = function_lengths(root)
    ordered = sorted(n for n, _ in lengths)
    print(
        f"functions: {len(ordered)}, median {statistics.median(ordered):.0f} lines, nine in ten up to "
        f"{ordered[int(0.9 * len(ordered))]}, over 40: {sum(n > 40 for n in ordered)}"
    )
    for length, where in lengths[:5]:
        print(f"  {length:4} {where}")
    print("import circles between files:", circles(imported_modules(root)) or "none")
    print("import circles between rooms:", circles(room_graph(root)) or "none")
    print("files that import lanes from outside:", ", ".join(lanes_from_outside(root)) or "none")
    for name in names[""] if given.loaded else ():
        number, libraries = loaded_by(root, name)
        print(f"  {name:20} {number:4} {' '.join(libraries)}")


if __name__ == "__main__":
    main()
