"""How much longer does a first call take than later ones? Each model and verb in a process of its own.

Four prompts of 16 tokens on models that were never checked before: GPT-2 small's shape and a slice of GPT-J with random
weights, and SmolLM2-135M if its file is there (`make test-real` fetches it). A first call makes the imports that the
verb needs, the check of the model, and the check of its lane; loading the model is not a part of it. Python keeps
compiled modules between processes, as it does where it may write. Processor time of one thread; the steady call is the
median of three. The bound is 1.5 times the steady call, or 1.5 s more, whichever is larger.
Run with `python benchmarks/first_calls.py [--rounds N]`; nothing is fetched.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import middle, save, timed

SMOLLM2 = Path(__file__).resolve().parent.parent / "data" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODELS = ("GPT-2 small", "GPT-J, 4 layers", "SmolLM2-135M")
VERBS = ("ablate", "sweep", "patch", "induction")
STEADY = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    models = [name for name in MODELS if name != "SmolLM2-135M" or SMOLLM2.exists()]
    found: dict[tuple[str, str], list[dict[str, float]]] = {
        (name, verb): [] for name in models for verb in VERBS
    }
    with tempfile.TemporaryDirectory() as compiled:
        for verb in VERBS:
            in_own_process(MODELS[1], verb, compiled)  # uncounted: fills the folder of compiled modules
        for _ in range(rounds):
            for name, verb in found:
                found[name, verb].append(in_own_process(name, verb, compiled))
    rows = []
    for (name, verb), each in found.items():
        first, steady = (middle([round_[key] for round_ in each]) for key in ("first", "steady"))
        rows.append({"model": name, "verb": verb, "first": first, "steady": steady})
        a, b = first["median"], steady["median"]
        verdict = "" if a <= max(1.5 * b, b + 1.5) else "  beyond the bound"
        print(f"{name:14}{verb:11}first {a:6.2f} s  steady {b:6.2f} s  {a / b:5.2f}, +{a - b:.2f} s{verdict}")
    save("first", "python benchmarks/first_calls.py", rows, rounds=rounds)


def in_own_process(name: str, verb: str, compiled: str) -> dict[str, float]:
    """Processor seconds of the first call, and of a steady one, in a new process."""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
    told = subprocess.run(
        [sys.executable, __file__, name, verb],
        env={**os.environ, **kept, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return json.loads(told.stdout.splitlines()[-1])


def measured(name: str, verb: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    call = called(verb, loaded(name))
    gc.collect()  # what loading left behind is not a part of the first call
    first, _ = timed(call)
    return {"first": first, "steady": statistics.median(timed(call)[0] for _ in range(STEADY))}


def loaded(name: str) -> Any:
    if name == "SmolLM2-135M":
        import induction_kernel as ik

        return ik.load(str(SMOLLM2))
    from peers import models

    return models.hooked(name) if version("transformer-lens") < "4" else models.bridge(name)


def called(verb: str, model: Any) -> Callable[[], Any]:
    """The whole of what a user calls, with the making of the prompts."""
    import torch

    import induction_kernel as ik

    vocabulary, generator = model.cfg.d_vocab, torch.Generator().manual_seed(2)
    clean = torch.randint(vocabulary, (4, 16), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 4] = torch.randint(vocabulary, (4,), generator=generator)
    answers = torch.randint(vocabulary, (4, 2), generator=generator).tolist()

    def repeated() -> Any:
        return ik.repeated_tokens(model, period=8, prompts=4, bos=False)

    return {
        "ablate": lambda: ik.ablate(model, repeated(), "L2H1"),
        "sweep": lambda: ik.sweep(model, repeated()),
        "patch": lambda: ik.patch(
            model, source=clean, into=ik.prompts.with_answers(model, corrupted, answers)
        ),
        "induction": lambda: ik.induction(model, repeated()),
    }[verb]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if len(sys.argv) == 3 and sys.argv[1] in MODELS:
        print(json.dumps(measured(*sys.argv[1:])))
    else:
        main()
