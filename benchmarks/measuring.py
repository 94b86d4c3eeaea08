"""What benchmarks share: the reference product, medians with their spread, and results written as JSON.

`save` keeps results in `benchmarks/results`; `python benchmarks/tables.py` makes the tables of docs/performance.md
from them.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, INNER, OUTER = 512, 768, 3072
PRODUCT = 2 * ROWS * INNER * OUTER  # operations of the reference product


def product_seconds(repeats: int = 7) -> float:
    """Processor time of one float32 product of 512 x 768 with 768 x 3,072: the speed that bounds are computed with."""
    import torch

    a, b = torch.randn(ROWS, INNER), torch.randn(INNER, OUTER)
    return statistics.median(timed(lambda: a @ b)[0] for _ in range(repeats))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of this process (all threads), and what the function returned."""
    start = time.process_time()
    out = function()
    return time.process_time() - start, out


def middle(values: Sequence[float]) -> dict[str, float]:
    """The median and the spread: smallest and largest."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def machine() -> dict[str, Any]:
    """The class of the machine, which says how far numbers carry over; nothing that names it."""
    import psutil
    import torch

    return {
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def save(name: str, command: str, rows: list[dict[str, Any]], **further: Any) -> Path:
    """Write `results/NAME.json`: the command that makes it, the machine's class, the rows."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    found = {"command": command, "machine": machine(), **further, "rows": rows}
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path
