"""How long, and with how much memory, are few-shot predictions and all heads' weights read? Against `run_with_cache`.

SmolLM2-135M on SST-2 with 8 demonstrations: `predict(..., pooling="max")`, which unembeds last tokens alone and
keeps one layer's patterns at a time, against a loop of plain `run_with_cache` over the same prompts, each in a process
of its own. Printed are times a prompt with their ratio, and peak memory beyond the model's own; then the largest
difference in weights and in log-probabilities.
Run with `python benchmarks/fewshot.py FOLDER`, a folder with `sst2.validation.tsv` and `sst2.train2000.tsv`; with
`--queries 400` also the time, processor time and peak memory of that many with the model's own (two threads).
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "data" / "SmolLM2-135M-Instruct.Q4_1.gguf"
WAYS = {"predict": 12, "run_with_cache": 6}  # prompts each


def main(folder: str, queries: int) -> None:
    found = {way: measured(folder, way, n, threads=1) for way, n in WAYS.items()}
    print(
        f"SmolLM2-135M, SST-2, 8 demonstrations, one thread, {found['predict']['tokens']} tokens on average"
    )
    print(f"{'way':18}{'prompts':>8}{'s a prompt':>12}{'extra memory, MB':>18}")
    for way, one in found.items():
        print(f"{way:18}{WAYS[way]:8}{one['seconds'] / WAYS[way]:12.2f}{one['extra']:18.0f}")
    ours, plain = found["predict"], found["run_with_cache"]
    each = {way: found[way]["processor"] / n for way, n in WAYS.items()}
    print(
        f"run_with_cache / predict: {each['run_with_cache'] / each['predict']:.2f} of processor time a prompt, "
    )
    print(f"{plain['extra'] / ours['extra']:.1f} of extra memory; largest difference in ", end="")
    gaps = (
        max(abs(a - b) for a, b in zip(ours[key], plain[key], strict=False)) for key in ("weights", "logs")
    )
    print("weights {:.0e}, in log-probabilities {:.0e}".format(*gaps))
    if queries:
        one = measured(folder, "predict", queries, threads=2)
        print(
            f"{queries} queries, two threads: {one['seconds'] / 60:.1f} minutes "
            f"({one['processor'] / 60:.1f} of processor time), peak memory {one['peak'] / 1024:.2f} GB with the model, "
            f"accuracy {one['accuracy']:.3f}"
        )


def measured(folder: str, way: str, queries: int, *, threads: int) -> dict:
    command = [sys.executable, __file__, folder, "--way", way, "--queries", str(queries)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one_way(folder: str, way: str, queries: int) -> None:
    """In its own process: load, look once at the model, then measure."""
    import psutil
    import torch

    import induction_kernel as ik

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = ik.load(MODEL, n_ctx=1024)
    asked, _ = ik.data.load_classification(Path(folder) / "sst2.validation.tsv").split(
        max(queries, max(WAYS.values()))
    )
    episodes = ik.data.draw_episodes(ik.data.load_classification(Path(folder) / "sst2.train2000.tsv"), asked)[
        :queries
    ]
    prompts = episodes.prompts(model)
    read = {"predict": by_in_context, "run_with_cache": by_run_with_cache}[way]
    read(model, prompts[prompts.lengths.argmin()[None]])  # what is imported, checked and allocated once
    process, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.005)

    before, watcher = process.memory_info().rss, threading.Thread(target=watch, daemon=True)
    watcher.start()
    start, processor = time.perf_counter(), time.process_time()
    weights, logs = read(model, prompts)
    spent = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    stop.set()
    watcher.join()
    right = logs.argmax(1) == prompts.demonstrations.target.numpy()
    some = {"weights": weights[:6].ravel().tolist(), "logs": logs[:6].ravel().tolist()}
    memory = {"extra": (peak[0] - before) / 2**20, "peak": peak[0] / 2**20}
    said = {"accuracy": float(right.mean()), "tokens": int(prompts.lengths.double().mean())}
    print(json.dumps(spent | memory | some | said))


def by_in_context(model, prompts):
    import induction_kernel as ik

    found = ik.fewshot.predict(model, prompts, pooling="max")
    return found["weight"].values, found["log_probability"].values


def by_run_with_cache(model, prompts):
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        one_way(given.folder, given.way, given.queries)
    else:
        main(given.folder, given.queries)
