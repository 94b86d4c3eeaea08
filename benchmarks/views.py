"""How large, how fast and how heavy is a page with the attention of all heads? This package, circuitsvis and BertViz.

The same patterns for each: SmolLM2-135M on prose (a passage of Moby Dick), 12, 144 or 270 heads x 128, 512 or 1,024
tokens. Each page is built in a process of its own from arrays in memory, and opened and used in headless Chromium,
without a graphics card, in another. What has not finished in `SECONDS`, or holds more than `GIGABYTES`, is stopped and
recorded as such, and not tried again in later rounds. BertViz' page needs the network for three libraries: they are
served from the packages of npm (jQuery 2.1.0 in place of 2.0.0, which npm does not have), and are not counted.
Run with `make bench-views`, or `python benchmarks/views.py MODEL TEXT --bertviz FOLDER --libraries FOLDER`; with
`--heads` and `--tokens` for some of the sizes, which writes nothing. Results go to benchmarks/results/views.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from measuring import middle, save
from own_process import in_own_process

HERE = Path(__file__).resolve().parent / "viewing"
GRIDS = {12: (4, 3), 144: (16, 9), 270: (30, 9)}  # heads: layers, and heads of each
LENGTHS = (128, 512, 1024)
WAYS = ("ours", "circuitsvis", "bertviz")
SECONDS, GIGABYTES = 120, 6
START = 30_000  # characters of the text that are left out: its front matter


def main() -> None:
    given = arguments()
    found: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {n: in_own_process(patterns, given, n, Path(folder)) for n in given.tokens}
        for _ in range(given.rounds):
            for size in (
                (heads, n, way) for n in given.tokens for heads in given.heads for way in given.ways
            ):
                rounds = found.setdefault(size, [])
                if not (rounds and "stopped" in rounds[-1]):
                    rounds.append(measured(*size, Path(folder), given))
                    print(shown(*size, rounds[-1]), flush=True)
    rows = [row(*size, rounds) for size, rounds in found.items()]
    if (given.heads, given.tokens, given.ways) == (list(GRIDS), list(LENGTHS), list(WAYS)):
        save(
            "views", "make bench-views", rows, rounds=given.rounds, seconds=SECONDS, gigabytes=GIGABYTES,
            model_seconds=runs, versions={"circuitsvis": version("circuitsvis"), "bertviz": given.version},
        )  # fmt: skip


def patterns(given: argparse.Namespace, length: int, folder: Path) -> float:
    """Write the patterns of all heads and the tokens of a passage; seconds of the model's run."""
    import numpy as np
    import torch

    import induction_kernel as ik

    model = ik.load(given.model, n_ctx=length)
    text = Path(given.text).read_text(encoding="utf-8")[START : START + 20 * length]
    ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:length]
    start = time.perf_counter()
    with torch.no_grad():
        _, cache = model.run_with_cache(
            torch.tensor([ids]), names_filter=lambda name: name.endswith("hook_pattern")
        )
    seconds = time.perf_counter() - start
    np.save(
        folder / f"{length}.npy", torch.cat([cache["pattern", i] for i in range(model.cfg.n_layers)]).numpy()
    )
    (folder / f"{length}.json").write_text(json.dumps([model.tokenizer.decode([each]) for each in ids]))
    return seconds


def measured(heads: int, length: int, way: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Bytes, seconds, milliseconds and megabytes; "stopped" says what was not reached, and why."""
    page, (layers, each) = folder / "page.html", GRIDS[heads]
    page.unlink(missing_ok=True)
    arrays = [str(folder / f"{length}.npy"), str(folder / f"{length}.json"), str(layers), str(each)]
    lines, why = bounded(["build.py", way, *arrays, str(page)], given.bertviz)
    if why:
        return {"stopped": f"not built {why}"}
    found = {**lines[0], "bytes": page.stat().st_size}
    on_page = each if way == "bertviz" else heads
    lines, why = bounded(["use.py", way, str(on_page), str(page), given.libraries], given.bertviz)
    for key in ("drawn", "usable", "heap_mb", "process_mb"):
        found |= next(({key: line[key]} for line in lines if key in line), {})
    for key in ("click_ms", "hover_ms"):
        times = [line[key] for line in lines if key in line]
        found |= {key: middle(times)} if times else {}
    if "crashed" in str(lines):
        why = "before the page crashed"
    if why and "hover_ms" not in found:
        last = "drawn" if "drawn" not in found else "used"
        found["stopped"] = f"not {last} {why}"
    return found


def bounded(command: list[str], bertviz: str) -> tuple[list[dict[str, Any]], str]:
    """The lines a process wrote, and "" or why it ended early: what it starts counts too."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), bertviz])}
    with tempfile.TemporaryFile("w+") as out:
        process = psutil.Popen(
            [sys.executable, str(HERE / command[0]), *command[1:]], stdout=out, env=environment
        )
        end, why = time.monotonic() + SECONDS, ""
        while process.poll() is None and not why:
            time.sleep(0.05)
            if time.monotonic() > end:
                why = f"within {SECONDS} s"
            elif held([process, *process.children(recursive=True)]) > GIGABYTES * 1e9:
                why = f"in {GIGABYTES} GB"
        if why:
            stop(process)
        out.seek(0)
        lines = [json.loads(line) for line in out if line.startswith("{")]
    return lines, why or (f"(exit {process.returncode})" if process.returncode else "")


def held(processes: list[psutil.Process]) -> int:
    """Bytes of memory beyond files and what is shared."""
    total = 0
    for each in processes:
        try:
            memory = each.memory_info()
        except psutil.NoSuchProcess:
            continue
        total += memory.rss - memory.shared  # pyright: ignore[reportAttributeAccessIssue]
    return total


def stop(process: psutil.Process) -> None:
    """End a process and all that it started: Chromium does not end with its driver."""
    for each in [*process.children(recursive=True), process]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def row(heads: int, length: int, way: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians and spreads of the rounds; what was stopped once is said."""
    out: dict[str, Any] = {"heads": heads, "tokens": length, "way": way, "bytes": rounds[-1].get("bytes")}
    for key in ("built", "built_cpu", "drawn", "usable", "heap_mb", "process_mb"):
        values = [each[key] for each in rounds if key in each]
        out[key] = middle(values) if values else None
    for key in ("click_ms", "hover_ms"):
        values = [each[key]["median"] for each in rounds if key in each]
        out[key] = middle(values) if values else None
    return out | {"stopped": rounds[-1].get("stopped", "")}


def shown(heads: int, length: int, way: str, found: dict[str, Any]) -> str:
    numbers = [
        f"{key} {value['median'] if isinstance(value, dict) else value:.4g}"
        for key, value in found.items()
        if key != "stopped"
    ]
    return f"{heads:4} x {length:5}  {way:12}" + ", ".join([*numbers, found.get("stopped", "")])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the file of SmolLM2-135M")
    parser.add_argument("text", help="prose, as a text file")
    parser.add_argument("--bertviz", required=True, help="a folder with BertViz, installed by pip --target")
    parser.add_argument("--libraries", required=True, help="node_modules with requirejs, d3 and jquery")
    parser.add_argument("--heads", type=int, nargs="*", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--tokens", type=int, nargs="*", default=list(LENGTHS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if shutil.which("chromium") is None:
        parser.error("there is no chromium here")
    listed = subprocess.run(
        [sys.executable, "-c", "from importlib.metadata import version as v; print(v('bertviz'))"],
        env=os.environ | {"PYTHONPATH": given.bertviz}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    given.version = listed.stdout.strip()
    return given


if __name__ == "__main__":
    main()
