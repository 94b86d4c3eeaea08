"""One way to compute sweeps, in its own process: questions come as lines of JSON, answers go back as such lines.

`python benchmarks/peer.py WAY SHAPE` is started by `benchmarks/sweeps.py`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

from peers.cases import Case

WAYS = (
    "package",
    "package, Bridge",
    "patching",
    "mended",
    "torch hooks",
    "nnsight",
    "Bridge hooks",
    "PatchingResult",
)


def main() -> None:
    way, shape = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")  # nothing that a library prints may get between
    os.dup2(2, 1)
    import torch
    from measuring import product_seconds, timed

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    product_seconds()
    model, make = built(way, shape)

    def say(**said: Any) -> None:
        print(json.dumps(said), file=answers, flush=True)

    say(ready=True)
    asked: dict[Case, Any] = {}
    for line in sys.stdin:
        question = json.loads(line)
        case, cells = Case(**question["case"]), [tuple(cell) for cell in question["cells"]]
        if case not in asked:
            asked = {case: make(model, case)}  # what an earlier case kept is let go
        product = product_seconds()
        seconds, found = timed(lambda cells=cells, ask=asked[case]: ask(cells))
        values, further = found if isinstance(found, tuple) else (found, {})
        say(seconds=seconds, product=product, values=values, **further)


def built(way: str, shape: str) -> tuple[Any, Any]:
    """The model, and a function of it and a case that gives a function of cells."""
    from peers import loops, models

    if way.startswith("package"):
        from peers.ours import package

        return (models.bridge if "Bridge" in way else models.hooked)(shape), package
    if way == "nnsight":
        from peers.traces import nnsight

        return models.hugging_face(shape), nnsight
    build, ask = {
        "patching": (models.hooked, loops.patching),
        "mended": (models.hooked, loops.mended),
        "torch hooks": (models.hugging_face, loops.torch_hooks),
        "Bridge hooks": (models.bridge, loops.bridge_hooks),
        "PatchingResult": (models.bridge, loops.patching),
    }[way]
    return build(shape), ask


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
