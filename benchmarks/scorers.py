"""How long, and with how much memory, are all heads scored? This package against `run_with_cache` and `detect_head`.

Every way runs in a process of its own, in turn, several rounds; printed are ratios to `run_with_cache` (medians of
processor time and of peak extra memory, with their spread), because absolute numbers of one machine say little about
another. `induction(model, prompts)` on prompts of `repeated_tokens` also scores their matched control, a second pass;
on plain tokens there is none. Then long contexts, without a control: entries read row by row against whole patterns.
Run with `python benchmarks/scorers.py`; random weights of GPT-2's shape, nothing is fetched.
"""

from __future__ import annotations

import argparse
import os
import warnings
from typing import Any

import measuring
from own_process import in_own_process, own_memory, restart_peak, seconds_and_megabytes

CASES = {"8 prompts x 100 tokens": (12, 8, 100, 50257), "1 prompt x 2,048 tokens": (12, 1, 2048, 5000)}
LONG = {"2,048 tokens": 2048, "4,096 tokens": 4096, "8,192 tokens": 8192}  # of a 3-layer attention-only model
SMALL = {"2 prompts x 32 tokens": (2, 2, 32, 1000)}
WAYS = (
    "run_with_cache", "run_with_cache, patterns only", "detect_head", "induction", "induction, plain tokens",
    "observe, 4 scorers", "observe, 4 scorers, plain tokens",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--small", action="store_true", help="a small model, to try this out; nothing is saved"
    )
    asked = parser.parse_args()
    ready()
    rows = []
    for case, sizes in (SMALL if asked.small else CASES).items():
        print(
            f"\n{sizes[0]} layers x 12 heads, {case} (ratios to run_with_cache; the difference is in the scores)"
        )
        print(f"{'way':34}{'time':>22}{'extra memory':>24}{'s':>8}{'MB':>7}{'difference':>15}")
        rows += by_way(case, sizes, asked.rounds)
    long = long_contexts({"512 tokens": 512} if asked.small else LONG, asked.rounds)
    if not asked.small:
        measuring.save("scorers", "python benchmarks/scorers.py", rows, long=long)


def ready() -> None:
    """What is imported, checked and allocated once, before processes are forked."""
    import torch

    torch.set_num_threads(1)
    model, tokens = prepared(2, 2, 32, 1000)
    for way in WAYS:
        scored(way, model, tokens)


def by_way(case: str, sizes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Each way's row, with ratios to `run_with_cache` in the same round."""
    found = in_rounds(WAYS, sizes, rounds)
    base, rows = found["run_with_cache"], []
    for way, runs in found.items():
        row: dict[str, Any] = {"way": way, "case": case}
        row |= {key: measuring.middle([run[key] for run in runs]) for key in ("seconds", "megabytes")}
        for name, key in (("ratio", "seconds"), ("memory_ratio", "megabytes")):
            row[name] = measuring.middle([a[key] / b[key] for a, b in zip(runs, base, strict=True)])
        row["difference"] = (
            None if way == "detect_head" else apart(runs[0], base[0])
        )  # it measures something else
        rows.append(row)
        shown = "other measure" if row["difference"] is None else f"{row['difference']:.0e}"
        print(
            f"{way:34}{spread(row['ratio'], 2):>22}{spread(row['memory_ratio'], 3):>24}"
            f"{row['seconds']['median']:8.2f}{row['megabytes']['median']:7.0f}{shown:>15}",
            flush=True,
        )
    return rows


def long_contexts(cases: dict[str, int], rounds: int) -> list[dict[str, Any]]:
    """Whole patterns against rows, by turns; the longest by rows alone, since whole patterns need ten gigabytes."""
    print(
        "\n3 layers x 12 heads, attention only, d_model 768, 1 prompt (memory in MB beside the model's own)"
    )
    print(
        f"{'induction':14}{'patterns / rows':>22}{'patterns MB':>13}{'rows MB':>9}{'rows s':>8}{'difference':>12}"
    )
    found = []
    for case, length in cases.items():
        ways = (
            ("induction, plain tokens", "induction by patterns")
            if length < 8192
            else ("induction, plain tokens",)
        )
        runs = [*in_rounds(ways, (3, 1, length, 10000, 1), rounds).values()]
        row: dict[str, Any] = {"case": case, "ratio": None, "whole": None, "difference": None}
        for name, of_way in zip(("rows", "whole"), runs, strict=False):
            row[name] = {
                key: measuring.middle([run[key] for run in of_way]) for key in ("seconds", "megabytes")
            }
        if len(runs) == 2:
            row["ratio"] = measuring.middle([b["seconds"] / a["seconds"] for a, b in zip(*runs, strict=True)])
            row["difference"] = apart(runs[0][0], runs[1][0])
        found.append(row)
        print(long_line(row), flush=True)
    return found


def long_line(row: dict[str, Any]) -> str:
    """A row of the second table."""
    rows = row["rows"]
    shown = f"{rows['megabytes']['median']:9.0f}{rows['seconds']['median']:8.2f}"
    if row["whole"] is None:
        return f"{row['case']:14}{'':35}{shown}"
    whole = f"{spread(row['ratio'], 1):>22}{row['whole']['megabytes']['median']:13.0f}"
    return f"{row['case']:14}{whole}{shown}{row['difference']:12.0e}"


def spread(of: dict[str, float], digits: int) -> str:
    """The median, with the smallest and the largest."""
    return f"{of['median']:.{digits}f} ({of['least']:.{digits}f} to {of['most']:.{digits}f})"


def apart(run: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between the scores of two runs."""
    return max(abs(a - b) for a, b in zip(run["scores"], other["scores"], strict=True))


def in_rounds(ways: tuple[str, ...], sizes: tuple[int, ...], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every way's runs: all ways in turn, so many times."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(in_own_process(one_way, way, *sizes))
    return found


def one_way(way: str, *sizes: int) -> dict[str, Any]:
    """Processor time of a call, peak memory beyond the model's, and the scores."""
    import induction_kernel as ik

    model, prompts = prepared(*sizes)
    scored(
        way, model, ik.repeated_tokens(model, prompts=1, period=8, bos=False, exclude=0)
    )  # checks, once a model
    restart_peak()
    seconds, megabytes, scores = seconds_and_megabytes(lambda: scored(way, model, prompts), own_memory())
    return {"seconds": seconds, "megabytes": megabytes, "scores": scores.flatten().tolist()}


def prepared(n_layers: int, n_prompts: int, length: int, d_vocab: int, attn_only: int = 0) -> tuple[Any, Any]:
    """A random model, and repeated tokens with their control."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    import induction_kernel as ik

    torch.manual_seed(0)
    config = HookedTransformerConfig(
        n_layers=n_layers, d_model=768, n_heads=12, d_head=64, d_mlp=3072, n_ctx=max(1024, length + 1), d_vocab=d_vocab,
        act_fn="gelu_new", normalization_type="LNPre", device="cpu", seed=0, attn_only=bool(attn_only),
    )  # fmt: skip
    model = HookedTransformer(config).eval()
    return model, ik.repeated_tokens(model, prompts=n_prompts, period=length // 2, bos=False, exclude=0)


def scored(way: str, model: Any, prompts: Any) -> Any:
    """The induction score of every head, `[layer, head]`, of tokens `[r, r]`."""
    import induction_kernel as ik
    from induction_kernel.scorers import _pattern_entries as reading

    if way == "run_with_cache":
        return by_cache(model, prompts.tokens)
    if way == "run_with_cache, patterns only":
        return by_cache(model, prompts.tokens, names_filter=lambda name: name.endswith("pattern"))
    if way == "detect_head":
        return by_detect_head(model, prompts.tokens)
    given = prompts.tokens if way.endswith("plain tokens") else prompts
    if way.startswith("observe"):
        scorers = [ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token]
        return ik.observe(model, given, scorers)["score"].mean("prompt").values[0]
    if way == "induction by patterns":
        reading.LONG, given = 10**9, prompts.tokens  # in this process alone
    return ik.induction(model, given)["score"].mean("prompt").values


def by_cache(model: Any, tokens: Any, **options: Any) -> Any:
    """What one would write by hand: the diagonal of every pattern in the cache."""
    import torch

    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, **options)
    period, layers = tokens.shape[1] // 2, range(model.cfg.n_layers)
    return torch.stack(
        [cache["pattern", layer].diagonal(1 - period, -2, -1)[..., 1:].mean((0, 2)) for layer in layers]
    )


def by_detect_head(model: Any, tokens: Any) -> Any:
    """TransformerLens' own detector, a prompt at a time."""
    import torch
    from transformer_lens.head_detector import detect_head, get_induction_head_detection_pattern

    model.to_tokens = lambda given, **_: given  # it takes text only, which random tokens do not survive
    return torch.stack(
        [detect_head(model, row[None], get_induction_head_detection_pattern(row[None])) for row in tokens]
    ).mean(0)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    warnings.filterwarnings("ignore")
    main()
