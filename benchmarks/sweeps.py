"""How much faster is a sweep than one run a cell? This package against `transformer_lens.patching`, side by side.

Random weights of several shapes, float32. TransformerLens' time is that of a few cells drawn at random (each costs it
the same, one whole run), times the number of cells; ours is that of the whole sweep, both runs included, after one
warm-up. Rounds alternate between the two, with a matrix product between them, and medians are taken. Beside each
ratio stands our time over that of the products the sweep cannot do without, at the speed measured for a large one.
Run with `python benchmarks/sweeps.py [threads] [case ...]`; nothing is fetched.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "GPT-2 small": {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_vocab": 50257, "act_fn": "gelu_new"},
    "GPT-2, 4 layers": {"n_layers": 4, "d_model": 768, "n_heads": 12, "d_vocab": 50257, "act_fn": "gelu_new"},
    "GPT-J slice": {
        "n_layers": 4, "d_model": 1024, "n_heads": 16, "d_vocab": 50400, "act_fn": "gelu_new",
        "parallel_attn_mlp": True, "positional_embedding_type": "rotary", "rotary_adjacent_pairs": True,
        "rotary_dim": 64,
    },
    "attention-only": {"n_layers": 2, "d_model": 512, "n_heads": 8, "d_vocab": 48262, "attn_only": True},
}  # fmt: skip
POSITIONS, HEADS, BOTH = ("layer", "position"), ("layer", "head"), ("layer", "head", "position")


@dataclass(frozen=True)
class Case:
    shape: str
    prompts: int
    length: int
    what: str  # "residual", "head output", "head output by position", "loss by head"
    metric: str = "logit difference"
    asked: float | None = None  # of the ratio
    drawn: int = 8  # cells of TransformerLens timed in a round
    bridge: bool = False


CASES = [
    Case("GPT-2 small", 4, 16, "residual", asked=12),
    Case("GPT-2 small", 4, 16, "residual", "last logits", asked=12),
    Case("GPT-2 small", 4, 16, "head output", asked=6),
    Case("GPT-2 small", 4, 64, "head output", asked=4.5, drawn=3),
    Case("GPT-2 small", 4, 16, "head output by position", asked=18),
    Case("GPT-J slice", 4, 16, "residual", asked=12),
    Case("GPT-J slice", 4, 16, "residual", "last logits", asked=12),
    Case("GPT-J slice", 4, 16, "head output", asked=12),
    Case("GPT-J slice", 4, 16, "head output by position", asked=40),
    Case("attention-only", 8, 32, "residual", asked=25),
    Case("attention-only", 8, 32, "residual", "last logits", asked=25),
    Case("attention-only", 8, 32, "head output", asked=25),
    Case("attention-only", 8, 32, "head output by position", asked=80),
    Case("attention-only", 8, 32, "head output by position", "last logits", asked=80),
    Case("attention-only", 8, 64, "loss by head", "loss", asked=2, drawn=4),
    Case("GPT-2, 4 layers", 4, 64, "loss by head", "loss", asked=1.6, drawn=4),
    Case("GPT-2, 4 layers", 4, 16, "residual", asked=10, bridge=True),
    Case("GPT-2, 4 layers", 4, 16, "head output", asked=6, bridge=True),
    Case("GPT-J slice", 4, 16, "residual", asked=10, bridge=True),
    Case("GPT-J slice", 4, 16, "head output", asked=6, bridge=True),
]
ROUNDS = 3


def main() -> None:
    import torch

    threads, chosen = 1, sys.argv[1:]
    if chosen and chosen[0].isdigit():
        threads, chosen = int(chosen[0]), chosen[1:]
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    has_hooked = version("transformer-lens") < "4"
    print(f"{threads} thread{'s' * (threads > 1)}; times TransformerLens / this package, and ours / bound")
    print(
        f"{'model':20}{'prompts':>9}  {'sweep':26}{'metric':18}{'cells':>6}{'ratio':>8}{'asked':>7}{'bound':>7}  apart"
    )
    for number, case in enumerate(CASES):
        if (chosen and str(number) not in chosen) or not (has_hooked or case.bridge):
            continue
        ratio, of_bound, cells, apart, lane = measured(case)
        shown = case.shape + (", Bridge" if case.bridge else "")
        size = f"{case.prompts} x {case.length}"
        bound = f"{of_bound:.2f}" if of_bound else "-"
        print(
            f"{shown:20}{size:>9}  {case.what:26}{case.metric:18}{cells:6}{ratio:8.1f}{case.asked or 0:7}{bound:>7}"
            f"  {apart:.0e} {lane}",
            flush=True,
        )  # fmt: skip
        gc.collect()


def measured(case: Case) -> tuple[float, float | None, int, float, str]:
    """The ratio of times, ours to the bound's, the number of cells, the largest difference, the lane."""
    import torch

    model, clean, corrupted = prepared(case)
    ours, theirs, cells = ways(case, model, clean, corrupted)
    found, lane = ours()
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {"theirs": [], "ours": [], "product": []}
    apart = 0.0
    for _ in range(ROUNDS):
        drawn = [cells[i] for i in torch.randperm(len(cells), generator=generator)[: case.drawn].tolist()]
        seconds, values = timed(lambda drawn=drawn: theirs(drawn))
        times["theirs"].append(seconds / len(drawn) * len(cells))
        apart = max(
            apart, *(abs(float(found[cell]) - value) for cell, value in zip(drawn, values, strict=True))
        )
        times["product"].append(product_seconds(clean))
        seconds, _ = timed(ours)
        times["ours"].append(seconds)
    median = {key: statistics.median(each) for key, each in times.items()}
    operations = None if case.bridge else bound(case, model.cfg)
    rate = PRODUCT / median["product"]
    of_bound = None if operations is None else median["ours"] / (operations / rate)
    return median["theirs"] / median["ours"], of_bound, len(cells), apart, lane


def timed(function: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    out = function()
    return time.perf_counter() - start, out


ROWS, INNER, OUTER = 512, 768, 3072
PRODUCT = 2 * ROWS * INNER * OUTER


def product_seconds(like: Any) -> float:
    import torch

    a, b = torch.randn(ROWS, INNER), torch.randn(INNER, OUTER)
    return statistics.median(timed(lambda: a @ b)[0] for _ in range(7))


def prepared(case: Case) -> tuple[Any, Any, Any]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bridge(case.shape) if case.bridge else hooked(case.shape)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        if "b_" not in name and parameter.ndim > 1:
            parameter.normal_(0, parameter.shape[-2] ** -0.5, generator=generator)
    vocabulary = model.cfg.d_vocab
    clean = torch.randint(vocabulary, (case.prompts, case.length), generator=generator)
    corrupted, changed = clean.clone(), case.length // 4
    corrupted[:, changed] = torch.randint(vocabulary, (case.prompts,), generator=generator)
    return model.eval(), clean, corrupted


def hooked(shape: str) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    settings = dict(SHAPES[shape])
    settings["d_head"] = settings["d_model"] // settings["n_heads"]
    if not settings.get("attn_only"):
        settings["d_mlp"] = 4 * settings["d_model"]
    cfg = HookedTransformerConfig(
        n_ctx=256, normalization_type="LNPre", device="cpu", init_weights=False, **settings
    )
    return HookedTransformer(cfg)


def bridge(shape: str) -> Any:
    import tempfile

    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    size = SHAPES[shape]
    options = {
        "n_layer": size["n_layers"], "n_embd": size["d_model"], "n_head": size["n_heads"],
        "vocab_size": size["d_vocab"], "n_positions": 256,
    }  # fmt: skip
    if size.get("parallel_attn_mlp"):
        their = transformers.GPTJForCausalLM(
            transformers.GPTJConfig(rotary_dim=size["rotary_dim"], **options)
        )
    else:
        their = transformers.GPT2LMHeadModel(transformers.GPT2Config(**options))
    with tempfile.TemporaryDirectory() as folder:
        their.config.save_pretrained(folder)
        return TransformerBridge.boot_transformers(
            folder, hf_model=their.eval(), tokenizer=None, device="cpu"
        )


def ways(case: Case, model: Any, clean: Any, corrupted: Any) -> tuple[Any, Any, list[tuple[int, ...]]]:
    """Our sweep, TransformerLens' function on chosen cells, and all cells."""
    import pandas as pd
    import torch
    from transformer_lens import patching

    import induction_kernel as ik
    from induction_kernel.metrics import Metric

    patching.tqdm = lambda iterable=None, *_, **__: iterable  # its progress bar costs it time
    size, rows = model.cfg, torch.arange(len(clean))
    answers = torch.randint(size.d_vocab, (len(clean), 2), generator=torch.Generator().manual_seed(2))
    by = {"residual": POSITIONS, "head output by position": BOTH}.get(case.what, HEADS)
    counts = {"layer": size.n_layers, "head": size.n_heads, "position": case.length}
    cells = [tuple(cell) for cell in pd.MultiIndex.from_product([range(counts[name]) for name in by])]
    into = ik.prompts.with_answers(model, corrupted, answers.tolist())
    last_logits = Metric(
        "last logits", "logits", lambda found, _: found[rows, 0, answers[:, 0]] - found[rows, 0, answers[:, 1]],
        reads=ik.logit_difference.reads,
    )  # fmt: skip
    metric = {"logit difference": ik.logit_difference, "loss": ik.loss, "last logits": last_logits}[
        case.metric
    ]
    site = "resid_pre" if case.what == "residual" else "z"
    edit = ik.Zero() if case.metric == "loss" else ik.FromRun(clean)

    def ours() -> tuple[Any, str]:
        found = ik.sweep(model, into, edit=edit, site=site, by=by, metric=metric, progress=False)
        return found["value"].mean("prompt").values, found.attrs["lane"]

    if case.metric == "loss":
        return ours, partial(one_run_a_head, model, corrupted), cells

    def measure(logits: Any) -> Any:
        last = logits[:, -1]
        return (last[rows, answers[:, 0]] - last[rows, answers[:, 1]]).mean()

    setter, axes = {
        "residual": (patching.layer_pos_patch_setter, ["layer", "pos"]),
        "head output": (patching.layer_head_vector_patch_setter, ["layer", "head"]),
        "head output by position": (patching.layer_pos_head_vector_patch_setter, ["layer", "pos", "head"]),
    }[case.what]
    _, cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith(f"hook_{site}"))
    order = [0, 2, 1] if by == BOTH else [0, 1]

    def theirs(drawn: list[tuple[int, ...]]) -> list[float]:
        frame = pd.DataFrame([[cell[i] for i in order] for cell in drawn], columns=axes)
        found = patching.generic_activation_patch(
            model, corrupted, cache, measure, setter, site, index_df=frame
        )
        return found.tolist()

    if case.bridge:
        theirs = partial(one_run_a_cell, model, corrupted, clean, site, by, measure)
    return ours, theirs, cells


def one_run_a_cell(
    model: Any,
    corrupted: Any,
    clean: Any,
    site: str,
    by: tuple[str, ...],
    measure: Any,
    drawn: list[tuple[int, ...]],
) -> list[float]:
    """What `transformer_lens.patching` does, by the Bridge's own `run_with_hooks`."""
    from induction_kernel.model import hook_name

    _, cache = model.run_with_cache(clean)
    out = []
    for cell in drawn:
        at = dict(zip(by, cell, strict=True))
        name = hook_name(site, at["layer"])

        def put(activation: Any, hook: Any, name: str = name, at: dict[str, int] = at) -> Any:
            activation = activation.clone()
            if "position" in at:
                activation[:, at["position"]] = cache[name][:, at["position"]]
            else:
                activation[:, :, at["head"]] = cache[name][:, :, at["head"]]
            return activation

        out.append(float(measure(model.run_with_hooks(corrupted, fwd_hooks=[(name, put)]))))
    return out


def one_run_a_head(model: Any, tokens: Any, drawn: list[tuple[int, ...]]) -> list[float]:
    """Zero ablation by `run_with_hooks`, mean loss."""
    out = []
    for layer, head in drawn:

        def zero(z: Any, hook: Any, head: int = head) -> Any:
            z[:, :, head] = 0
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", zero)]
        out.append(float(model.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks)))
    return out


def bound(case: Case, cfg: Any) -> float:
    """Operations of matrix products a sweep cannot do without: each cell alone, the untouched runs once.

    A position runs again only from where it may differ; the last layer and the unembedding only where read.
    """
    model, inner = cfg.d_model, cfg.n_heads * cfg.d_head
    q, kv, out, mlp = 2 * model * inner, 4 * model * inner, 2 * model * inner, 4 * model * (cfg.d_mlp or 0)
    if cfg.attn_only:
        mlp = 0
    read = {"logit difference": 4 * model}.get(case.metric, 2 * model * cfg.d_vocab)
    layers, length = cfg.n_layers, case.length
    token = q + kv + out + mlp
    serial = mlp and not cfg.parallel_attn_mlp
    after_attention = mlp if serial else 0

    def whole(layer: int, width: int) -> float:  # the stream entering `layer` differs at `width` positions
        if layer >= layers:
            return read
        return read + (layers - 1 - layer) * width * token + width * kv + q + out + mlp

    def from_one(layer: int, position: int) -> float:  # ... at one position
        width = length - position
        if layer >= layers or width == 1:
            return read + (layers - layer) * token
        if layer == layers - 1:
            return read + kv + out + (mlp if serial else 0)
        here = q + kv + width * out + (width * mlp if serial else mlp)
        return read + here + (layers - 2 - layer) * width * token + width * kv + q + out + mlp

    changed = 0 if case.metric == "loss" else length // 4
    runs = (1 if case.metric == "loss" else 2) * case.prompts * length * layers * token
    positions, total = range(changed, length), 0.0
    for layer in range(layers):
        if case.what == "residual":
            total += sum(from_one(layer, p) for p in positions if layer or p == changed)
        elif case.what == "head output":
            width = length - changed
            here = after_attention * (width if layer < layers - 1 else 1)
            total += cfg.n_heads * (here + whole(layer + 1, width)) + width * out
        elif case.what == "head output by position":
            for p in positions:
                if layer < layers - 1 or p == length - 1:
                    total += cfg.n_heads * (after_attention + from_one(layer + 1, p)) + out
        else:
            each = length * (after_attention + (layers - 1 - layer) * token + read)
            total += cfg.n_heads * each + length * out
    return case.prompts * total + runs


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore")
    main()
