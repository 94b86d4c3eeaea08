"""How long, and with how much memory, are few-shot predictions and all heads' weights read? Against `run_with_cache`.

SmolLM2-135M on SST-2 with 8 demonstrations: `predict(..., pooling="max")`, which unembeds last tokens alone and
keeps one layer's patterns at a time, against a loop of plain `run_with_cache`, both on the same prompts. Then on
prompts of which sets of 16 share their demonstrations, which `predict` runs once: against the same prompts run whole.
Every way runs in a process of its own, forked from one that has loaded the model, by turns in several rounds. Printed
are processor times a prompt with their ratio to `predict`, peak memory beyond the model's own, and the largest
difference in weights and in log-probabilities.
Run with `python benchmarks/fewshot.py FOLDER`, a folder with `sst2.validation.tsv` and `sst2.train2000.tsv`; with
`--queries 400` also the time, processor time and peak memory of that many with the model's own (two threads).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

import measuring
from own_process import in_own_process, own_memory, resident, restart_peak, seconds_and_megabytes

MODEL = Path(__file__).resolve().parent.parent / "data" / "SmolLM2-135M-Instruct.Q4_1.gguf"
CASES = {
    "own demonstrations": (False, ("predict", "run_with_cache")),
    "shared demonstrations": (True, ("predict", "predict, prompts whole", "run_with_cache")),
}


def main() -> None:
    asked = arguments()
    import torch

    import induction_kernel as ik

    torch.set_num_threads(1)
    model = ik.load(MODEL, n_ctx=1024)
    rows = []
    print(
        f"{'case':24}{'way':24}{'prompts':>8}{'tokens':>8}{'s a prompt':>12}{'ratio':>20}{'MB':>7}{'ratio':>7}",
        end="",
    )
    print(f"{'differences':>20}")
    for case, (shared, ways) in CASES.items():
        prompts = drawn(model, asked.folder, asked.prompts if shared else asked.prompts // 2, shared=shared)
        rows += by_way(case, ways, model, prompts, asked.rounds)
    further = {}
    if asked.queries:
        further["queries"] = in_own_process(many, model, drawn(model, asked.folder, asked.queries))
        print(
            "{queries} queries, two threads: {minutes:.1f} minutes ({processor:.1f} of processor time), peak memory "
            "{gigabytes:.2f} GB with the model, accuracy {accuracy:.3f}".format(**further["queries"])
        )
    if not asked.small:
        measuring.save("fewshot", "python benchmarks/fewshot.py FOLDER", rows, **further)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument(
        "--prompts", type=int, default=32, help="that share demonstrations; half as many have their own"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="to try this out: nothing is saved")
    return parser.parse_args()


def drawn(model: Any, folder: Path, n: int, *, shared: bool = False) -> Any:
    """Few-shot prompts of n queries, each with demonstrations of its own or with those of its set of 16."""
    import induction_kernel as ik

    queries, _ = ik.data.load_classification(folder / "sst2.validation.tsv").split(n)
    pool = ik.data.load_classification(folder / "sst2.train2000.tsv")
    return ik.data.draw_episodes(pool, queries, shared=shared).prompts(model)


def by_way(case: str, ways: tuple[str, ...], model: Any, prompts: Any, rounds: int) -> list[dict[str, Any]]:
    """Each way's row, with ratios to `predict` in the same round."""
    for way in ways:  # what is imported and checked once, before processes are forked
        read(way, model, prompts if "predict, prompts whole" in ways and way == "predict" else prompts[:1])
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(in_own_process(one_way, way, model, prompts))
    base, rows = found["predict"], []
    for way, runs in found.items():
        row: dict[str, Any] = {"case": case, "way": way, "prompts": len(prompts)}
        row["tokens"] = float(prompts.lengths.double().mean())
        row |= {key: measuring.middle([run[key] for run in runs]) for key in ("seconds", "megabytes")}
        for name, key in (("ratio", "seconds"), ("memory_ratio", "megabytes")):
            row[name] = measuring.middle([a[key] / b[key] for a, b in zip(runs, base, strict=True)])
        row["differences"] = [
            float(abs(a - b).max()) for a, b in zip(runs[0]["found"], base[0]["found"], strict=True)
        ]
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    ratio = "{median:.2f} ({least:.2f} to {most:.2f})".format(**row["ratio"])
    gaps = "{:.0e}, {:.0e}".format(*row["differences"])
    return (
        f"{row['case']:24}{row['way']:24}{row['prompts']:8}{row['tokens']:8.0f}{row['seconds']['median']:12.3f}{ratio:>20}"
        f"{row['megabytes']['median']:7.0f}{row['memory_ratio']['median']:7.1f}{gaps:>20}"
    )


def one_way(way: str, model: Any, prompts: Any) -> dict[str, Any]:
    """Processor seconds a prompt, peak memory beyond the model's, weights and log-probabilities."""
    restart_peak()
    seconds, megabytes, found = seconds_and_megabytes(lambda: read(way, model, prompts), own_memory())
    return {"seconds": seconds / len(prompts), "megabytes": megabytes, "found": found}


def many(model: Any, prompts: Any) -> dict[str, float]:
    """Minutes, and peak memory with the model's own, of many prompts with two threads."""
    import torch

    torch.set_num_threads(2)
    restart_peak()
    start = time.perf_counter()
    seconds, (_, logs) = measuring.timed(lambda: read("predict", model, prompts))
    return {
        "queries": len(prompts), "minutes": (time.perf_counter() - start) / 60, "processor": seconds / 60,
        "gigabytes": resident("VmHWM") / 2**30,
        "accuracy": float((logs.argmax(1) == prompts.demonstrations.target.numpy()).mean()),
    }  # fmt: skip


def read(way: str, model: Any, prompts: Any) -> tuple[Any, Any]:
    """All heads' weights of the demonstrations, and log-probabilities of the labels."""
    import induction_kernel as ik
    from induction_kernel.fewshot import _batches as batches

    if way == "run_with_cache":
        return by_run_with_cache(model, prompts)
    sharers = batches.SHARERS
    try:
        batches.SHARERS = 10**9 if way == "predict, prompts whole" else sharers
        found = ik.fewshot.predict(model, prompts, pooling="max")
    finally:
        batches.SHARERS = sharers
    return found["weight"].values, found["log_probability"].values


def by_run_with_cache(model: Any, prompts: Any) -> tuple[Any, Any]:
    """What one would write by hand: a prompt at a time, all activations kept until the next."""
    import numpy as np
    import torch

    found, weights, logs = prompts.demonstrations, [], []
    for tokens, length, spans in zip(prompts.tokens, prompts.lengths, found.spans, strict=True):
        with torch.no_grad():
            logits, cache = model.run_with_cache(tokens[None, :length])
        last = torch.stack([cache["pattern", layer][0, :, -1] for layer in range(model.cfg.n_layers)])
        weights.append(torch.stack([last[..., begin:end].amax(-1) for begin, end in spans], -1).numpy())
        logs.append(logits[0, -1].log_softmax(-1)[found.label_ids].numpy())
    return np.stack(weights), np.stack(logs)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    warnings.filterwarnings("ignore")
    main()
