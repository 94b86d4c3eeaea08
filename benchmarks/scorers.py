"""How long, and with how much memory, are all heads scored? This package against `run_with_cache` and `detect_head`.

Every way runs in a process of its own, in turn, several rounds; printed are ratios to `run_with_cache` (medians of
processor time and of peak extra memory), because absolute numbers of one machine say little about another. Then long
contexts: entries read row by row against whole patterns.
Run with `python benchmarks/scorers.py`; random weights of GPT-2's shape, nothing is fetched.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time

CASES = {"8 prompts x 100 tokens": (12, 8, 100, 50257), "1 prompt x 2,048 tokens": (12, 1, 2048, 5000)}
LONG = {"2,048 tokens": 2048, "4,096 tokens": 4096, "8,192 tokens": 8192}  # of a 3-layer attention-only model
WAYS = ("run_with_cache", "run_with_cache, patterns only", "detect_head", "induction", "observe, 4 scorers")
ROUNDS = 2


def main() -> None:
    for case, sizes in CASES.items():
        found: dict[str, list[dict]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                found[way].append(measured(way, sizes))
        base = found["run_with_cache"]
        print(f"\n12 layers x 12 heads, {case} (ratios to run_with_cache; the difference is in the scores)")
        print(f"{'way':32}{'time':>8}{'extra memory':>15}{'difference':>13}")
        for way, runs in found.items():
            ratios = [
                statistics.median(run[key] for run in runs) / statistics.median(run[key] for run in base)
                for key in ("seconds", "megabytes")
            ]
            apart = max(abs(a - b) for a, b in zip(runs[0]["scores"], base[0]["scores"], strict=True))
            shown = "other measure" if way == "detect_head" else f"{apart:.0e}"
            print(f"{way:32}{ratios[0]:8.2f}{ratios[1]:15.3f}{shown:>13}", flush=True)
    long_contexts()


def long_contexts() -> None:
    """Whole patterns against rows, by turns; the longest by rows alone, since whole patterns need ten gigabytes."""
    print(
        "\n3 layers x 12 heads, attention only, d_model 768, 1 prompt (memory in MB beside the model's own)"
    )
    print(
        f"{'induction':20}{'patterns / rows':>17}{'patterns MB':>13}{'rows MB':>9}{'rows s':>8}{'difference':>12}"
    )
    for case, length in LONG.items():
        ways = ("induction", "induction by patterns") if length < 8192 else ("induction",)
        found: dict[str, list[dict]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                found[way].append(measured(way, (3, 1, length, 5000, 1)))
        middle = {
            (way, key): statistics.median(run[key] for run in runs)
            for way, runs in found.items()
            for key in ("seconds", "megabytes")
        }
        rows, whole = ways[0], ways[-1]
        shown = [f"{middle[rows, 'megabytes']:9.0f}{middle[rows, 'seconds']:8.2f}"]
        if rows != whole:
            ratio = middle[whole, "seconds"] / middle[rows, "seconds"]
            shown.insert(0, f"{ratio:17.1f}{middle[whole, 'megabytes']:13.0f}")
            pairs = zip(found[rows][0]["scores"], found[whole][0]["scores"], strict=True)
            shown.append(f"{max(abs(a - b) for a, b in pairs):12.0e}")
        else:
            shown.insert(0, f"{'':>30}")
        print(f"{case:20}{''.join(shown)}", flush=True)


def measured(way: str, sizes: tuple[int, ...]) -> dict:
    command = [sys.executable, __file__, way, *map(str, sizes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one_way(way: str, n_layers: int, n_prompts: int, length: int, d_vocab: int, attn_only: int = 0) -> None:
    """In its own process: score twice, and report the faster run, the peak memory beyond the model, and the scores."""
    import psutil
    import torch

    torch.set_num_threads(1)
    model = random_model(n_layers, length, d_vocab, attn_only=bool(attn_only))
    half = torch.stack([torch.randperm(d_vocab)[: length // 2] for _ in range(n_prompts)])
    tokens = torch.cat([half, half], 1)
    score = getattr(Ways, "_".join(way.replace(",", "").split()))
    score(model, half[:1, :16].repeat(1, 2))  # what is imported and allocated once
    process, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.002)

    before, watcher = process.memory_info().rss, threading.Thread(target=watch, daemon=True)
    watcher.start()
    seconds = []
    for _ in range(2):
        start = time.thread_time()
        scores = score(model, tokens)
        seconds.append(time.thread_time() - start)
    stop.set()
    watcher.join()
    megabytes = (peak[0] - before) / 2**20
    print(json.dumps({"seconds": min(seconds), "megabytes": megabytes, "scores": scores.flatten().tolist()}))


def random_model(n_layers: int, length: int, d_vocab: int, *, attn_only: bool = False):
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    torch.manual_seed(0)
    config = HookedTransformerConfig(
        n_layers=n_layers, d_model=768, n_heads=12, d_head=64, d_mlp=3072, n_ctx=max(1024, length + 1), d_vocab=d_vocab,
        act_fn="gelu_new", normalization_type="LNPre", device="cpu", seed=0, attn_only=attn_only,
    )  # fmt: skip
    return HookedTransformer(config).eval()


class Ways:
    """Each takes a model and tokens `[r, r]` and gives the induction score of every head, `[layer, head]`."""

    @staticmethod
    def run_with_cache(model, tokens, **options):
        import torch

        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, **options)
        period = tokens.shape[1] // 2
        layers = range(model.cfg.n_layers)
        return torch.stack(
            [cache["pattern", layer].diagonal(1 - period, -2, -1)[..., 1:].mean((0, 2)) for layer in layers]
        )

    @staticmethod
    def run_with_cache_patterns_only(model, tokens):
        return Ways.run_with_cache(model, tokens, names_filter=lambda name: name.endswith("pattern"))

    @staticmethod
    def detect_head(model, tokens):
        import torch
        from transformer_lens.head_detector import detect_head, get_induction_head_detection_pattern

        model.to_tokens = lambda given, **_: given  # it takes text only, which random tokens do not survive
        return torch.stack(
            [detect_head(model, row[None], get_induction_head_detection_pattern(row[None])) for row in tokens]
        ).mean(0)

    @staticmethod
    def induction(model, tokens):
        import induction_kernel as ik

        return ik.induction(model, Ways.prompts(tokens))["score"].mean("prompt").values

    @staticmethod
    def induction_by_patterns(model, tokens):
        from induction_kernel.scorers import _pattern_entries as reading

        reading.LONG = 10**9
        return Ways.induction(model, tokens)

    @staticmethod
    def observe_4_scorers(model, tokens):
        import induction_kernel as ik

        scorers = [ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token]
        return ik.observe(model, Ways.prompts(tokens), scorers)["score"].mean("prompt").values[0]

    @staticmethod
    def prompts(tokens):
        import torch

        from induction_kernel import Prompts

        scored = (torch.arange(tokens.shape[1]) >= tokens.shape[1] // 2).expand(tokens.shape)
        return Prompts(tokens, torch.full((len(tokens),), tokens.shape[1]), scored)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one_way(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        main()
