"""Random models x random prompts x every scorer, edit and site, against brute force in float64.

What is right is computed in `brute` from the definitions: one whole run of the model a prompt and a cell, each prompt
alone and without padding. A case is one call of a verb. Counted are wrong numbers, errors that are no sentence of the
package, and models, prompts or random states that are not as before. The exit status is 1 where there are any.

    python benchmarks/brute_force.py --cases 600 --seed 0
    python benchmarks/brute_force.py --verb sweep --only 417
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

MODEL_LASTS = 8  # cases


def main() -> int:
    import torch

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cases", type=int, default=600)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--verb", help="only this one")
    options.add_argument("--only", type=int, help="the number of one case, said in full")
    asked = options.parse_args()
    torch.set_num_threads(1)
    begin, table = time.perf_counter(), Table()
    with contextlib.suppress(KeyboardInterrupt):  # the table of what has been done
        for number in range(asked.cases) if asked.only is None else [asked.only]:
            table.add(*one(asked.seed, number, asked.verb, loud=asked.only is not None))
    print(table)
    print(f"seed {asked.seed}, {time.perf_counter() - begin:.0f} s")
    return table.failed


_LAST: dict[int, Any] = {}


def one(seed: int, number: int, verb: str | None, *, loud: bool) -> tuple[str, str, str, str]:
    """The verb, what came of it (right, refused, wrong, raw, changed), and that in words."""
    from brute.cases import VERBS
    from brute.models import drawn_model

    of_model = number // MODEL_LASTS
    if of_model not in _LAST:
        _LAST.clear()
        _LAST[of_model] = drawn_model(random.Random(f"{seed} {of_model}"))
    drawn, draw = _LAST[of_model], random.Random(f"{seed} {number} {verb}")
    names = list(VERBS)
    chosen = verb or draw.choices(names, [VERBS[name][0] for name in names])[0]
    try:
        case = VERBS[chosen][1](draw, drawn.model)
    except ValueError as error:  # prompts that cannot be told from padding
        if not is_sentence(error):
            raise
        return chosen, "refused", shortened(error), ""
    said = f"{number}: {case.said} | {drawn.said}"
    if loud:
        print(said)
    return chosen, *judged(case, drawn), said


def judged(case: Any, drawn: Any) -> tuple[str, str]:
    before = state(drawn.model, case.passed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = case.call()
    except Exception as error:
        if difference := changed(before, state(drawn.model, case.passed)):
            return "changed", difference
        if is_sentence(error):
            return "refused", shortened(error)
        return "raw", "".join(traceback.format_exception(error)[-3:]).strip()
    if difference := changed(before, state(drawn.model, case.passed)):
        return "changed", difference
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = case.right(result)
    return compared(numbers(case, result, right), right, drawn.loose * case.loose)


def shortened(error: Exception) -> str:
    """A message without its numbers."""
    return re.sub(r"\d+(\.\d+)?", "#", str(error))[:110]


def is_sentence(error: Exception) -> bool:
    """Whether this was raised by the package itself, as what it promises."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return type(error) in (ValueError, TypeError) and "induction_kernel" in Path(last.filename).parts


def numbers(case: Any, result: Any, right: dict[str, Any]) -> dict[str, Any]:
    return case.given(result) if case.given else {key: result[key].values for key in right if key in result}


def compared(given: dict[str, Any], right: dict[str, Any], loose: float) -> tuple[str, str]:
    import numpy as np

    for key, expected in right.items():
        if key not in given or given[key].shape != expected.shape:
            return "wrong", f"{key}: shape {getattr(given.get(key), 'shape', None)}, right {expected.shape}"
        undefined = np.isnan(expected)
        if (np.isnan(given[key]) != undefined).any():
            return "wrong", f"{key}: NaN at {np.argwhere(np.isnan(given[key]) != undefined)[:3].tolist()}"
        apart = np.abs(given[key] - expected)
        scale = np.abs(expected[~undefined]).max(initial=1e-3 if loose < 1e-6 else 1)  # float32 where not
        if (apart[~undefined] > loose * scale).any():
            at = np.unravel_index(int(np.nanargmax(apart)), apart.shape)
            where = tuple(map(int, at))
            return "wrong", f"{key}{list(where)}: {given[key][at]:.12g}, right {expected[at]:.12g}"
    return "right", ""


def state(model: Any, passed: tuple[Any, ...]) -> dict[str, Any]:
    """Everything that must be as it was."""
    import numpy as np
    import torch

    from induction_kernel.model import all_modules

    modules = list(all_modules(model))
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {key: value.detach().clone() for key, value in model.state_dict().items()},
        "hooks": [[len(getattr(module, kind)) for kind in kinds] for module in modules],
        "hook points": [len(getattr(module, "fwd_hooks", ())) for module in modules],
        "training flags": [module.training for module in modules],
        "gradients": [(each.requires_grad, each.grad is None) for each in model.parameters()],
        "configuration": str(model.cfg),
        "what was passed": [tensors(each) for each in passed],
        "torch's random state": torch.get_rng_state(),
        "numpy's random state": np.random.get_state()[1].tolist(),
        "Python's random state": random.getstate(),
        "gradient mode": torch.is_grad_enabled(),
    }


def tensors(passed: Any) -> Any:
    """A copy of every tensor in it."""
    import torch

    if isinstance(passed, torch.Tensor):
        return passed.clone()
    if hasattr(passed, "copy") and hasattr(passed, "dtype"):
        return torch.from_numpy(passed.copy())
    return {key: tensors(value) for key, value in getattr(passed, "__dict__", {}).items()}


def changed(before: Any, after: Any) -> str:
    """What is not as it was; nothing where all is."""
    return ", ".join(key for key in before if not same(before[key], after[key]))


def same(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


class Table:
    """Cases by verb, and what was not right."""

    COLUMNS = ("right", "refused", "wrong", "raw", "changed")

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.refusals: Counter[str] = Counter()
        self.failed = 0

    def add(self, verb: str, outcome: str, detail: str, said: str) -> None:
        self.counts[verb][outcome] += 1
        if outcome == "refused":
            self.refusals[detail] += 1
        elif outcome != "right":
            self.failed = 1
            print(f"{outcome}: {detail}\n    {said}", flush=True)

    def __str__(self) -> str:
        head = ("verb", "cases", *self.COLUMNS)
        rows = [
            (verb, sum(self.counts[verb].values()), *(self.counts[verb][each] for each in self.COLUMNS))
            for verb in sorted(self.counts)
        ]
        rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
        lines = [f"{row[0]:<18}" + "".join(f"{each:>9}" for each in row[1:]) for row in [head, *rows]]
        lines += ["", "refused:"] + [f"{n:>5}  {text}" for text, n in self.refusals.most_common()]
        return "\n".join(["", *lines])


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
