"""Does a model of GPT-J-6B's size fit, and what does asking it cost? Random weights of that shape, made in place.

Printed are the peak resident memory of each question, reset before it, and its processor time as a ratio to one plain
forward pass of the same 4 x 64 tokens in the same run. Run with `python benchmarks/large.py`; `--layers 2` tries it
out, `--dtype float16` is another precision, `--only score` stops after scoring. The full size needs 16 GB of memory.
"""

import argparse
import gc
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE = {
    "n_layers": 28, "n_heads": 16, "d_model": 4096, "d_head": 256, "d_mlp": 16384, "d_vocab": 50400, "n_ctx": 2048,
    "act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "rotary", "rotary_dim": 64,
    "rotary_adjacent_pairs": True, "parallel_attn_mlp": True,
}  # fmt: skip
PROMPTS, PERIOD = 4, 32  # two copies of 32 tokens


def main() -> None:
    asked = arguments()
    import torch

    import induction_kernel as ik

    torch.set_num_threads(asked.threads)
    start = time.perf_counter()
    model = random_model(asked.layers, getattr(torch, asked.dtype))
    parameters = sum(each.numel() * each.element_size() for each in model.parameters())
    print(f"{asked.layers} layers of GPT-J-6B's shape, {asked.dtype}, {asked.threads} threads")
    print(f"parameters {gigabytes(parameters)}, built in {time.perf_counter() - start:.0f} s", end="")
    print(f", peak {gigabytes(peak())}\n\n{'':44}{'time':>10}{'peak memory':>14}", flush=True)

    prompts = ik.repeated_tokens(model, prompts=PROMPTS, period=PERIOD, bos=False)
    with torch.no_grad():
        plain = measured(None, "one forward pass", lambda: model(prompts.tokens))
    middle = asked.layers // 2
    scorers = [ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token]
    measured(plain, "induction (prompts and their control)", lambda: ik.induction(model, prompts))
    measured(plain, "observe, 4 scorers", lambda: ik.observe(model, prompts, scorers))
    if asked.only == "score":
        return
    measured(plain, "direct_effect", lambda: ik.direct_effect(model, prompts))
    measured(plain, "copying, 16 prompts of 25 tokens", lambda: ik.copying(model))
    options = {"layers": [middle], "draws": 2}
    measured(plain, "ov_eigenvalues, one layer, 2 draws", lambda: ik.ov_eigenvalues(model, **options))
    heads = [(middle, 0), (middle, 1)]
    measured(plain, "ablate, two heads", lambda: ik.ablate(model, prompts, heads))
    measured(plain, "sweep, one layer's 16 heads", lambda: ik.sweep(model, prompts, layers=[middle]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=SHAPE["n_layers"])
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--only", choices=("score",))
    return parser.parse_args()


def random_model(n_layers: int, dtype: Any) -> Any:
    """Made in place: no second copy of anything. The same four million numbers return, shifted and out of step."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        options = SHAPE | {"n_layers": n_layers, "dtype": dtype, "device": "cpu", "init_weights": False}
        model = HookedTransformer(HookedTransformerConfig(**options, model_name="GPT-J-6B's shape, random"))
    drawn = (0.02 * torch.randn(2**22 + 1, generator=torch.Generator().manual_seed(0))).to(dtype)
    with torch.no_grad():
        parts = (
            part
            for name, parameter in model.named_parameters()
            if ".W_" in name
            for part in parameter.view(-1).split(len(drawn))
        )
        for turn, part in enumerate(parts):  # six billion draws would take minutes
            part.copy_(drawn.roll(turn * 1009)[: len(part)])
    return model.eval()


def measured(plain: float | None, what: str, ask: Callable[[], Any]) -> float:
    """Processor seconds; with the peak memory they are printed."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = time.process_time()
    result = ask()
    seconds = time.process_time() - start
    shown = f"{seconds:.1f} s" if plain is None else f"{seconds / plain:.2f} x"
    print(f"{what:44}{shown:>10}{gigabytes(peak()):>14}", flush=True)
    del result
    return seconds


def peak() -> int:
    """The most memory this process had resident, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
