"""How do time and memory grow with layers, heads, prompts, positions and vocabulary? Never faster than the work.

Random models of GPT-2's structure (d_model 256, d_head 64, d_mlp 1,024, float32, one thread). One size varies at a
time, every measurement is in a process of its own, and what is timed is a second call (the first one also checks the
model). Slopes are least squares in log-log: of processor time, of peak memory beyond the model's, and of the work,
which is the operations of the matrix products that no way of computing the same can leave out. A slope of time may lie
below that of the work, since small sizes cost more by the operation. What brings it up are elementwise passes over
patterns, which are not counted, and activations that no longer fit the processor's cache; both do so in
TransformerLens' own forward pass, the last rows. Then the same operations are counted for a sweep of GPT-J-6B on a GPU.
Run with `python benchmarks/growth.py` (minutes), `--only TEXT` for some rows, `--rounds 1`; `--arithmetic` computes
the last part alone; nothing is fetched.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import warnings
from dataclasses import replace
from typing import Any

import measuring
from operations import CHOSEN, WORK, Size, sweep_of_gpt_j
from own_process import in_own_process, own_memory, restart_peak, seconds_and_megabytes


def ask(what: str, model: Any, prompts: Any, *, first: bool = False) -> Any:
    """One call; the first one is of the last layer alone where that does for the checks."""
    import torch

    import induction_kernel as ik

    options = {"layers": [model.cfg.n_layers - 1]} if first else {}
    if what == "sweep of all heads":
        return ik.sweep(model, prompts, **options)
    if what == "sweep of two heads":
        return ik.sweep(model, prompts, heads=CHOSEN)
    if what == "sweep of the residual stream":
        return ik.sweep(model, prompts, site="resid_pre", by=("layer", "position"), **options)
    if what == "ablate two heads":
        return ik.ablate(model, prompts, [(model.cfg.n_layers // 2, head) for head in (0, 1)])
    if what == "induction":
        return ik.induction(model, prompts)
    with torch.no_grad():
        return model(prompts.tokens)


LAYERS, HEADS, PROMPTS = (2, 4, 8, 16), (2, 4, 8, 16), (2, 8, 16, 32)
POSITIONS, VOCABULARY = (64, 256, 1024, 2048), (1000, 5000, 25000, 200000)
CURVES: list[tuple[str, str, tuple[int, ...], Size]] = [
    ("sweep of all heads", "layers", LAYERS, Size()),
    ("sweep of all heads", "heads", HEADS, Size()),
    ("sweep of all heads", "prompts", PROMPTS, Size()),
    ("sweep of all heads", "positions", (64, 128, 256, 512), Size()),
    ("sweep of all heads", "vocabulary", VOCABULARY, Size()),
    ("sweep of two heads", "positions", POSITIONS, Size(prompts=1)),
    ("sweep of the residual stream", "layers", LAYERS, Size(positions=16)),
    ("sweep of the residual stream", "prompts", PROMPTS, Size(positions=16)),
    ("sweep of the residual stream", "positions", (16, 32, 64, 128), Size(prompts=1)),
    ("ablate two heads", "layers", LAYERS, Size(prompts=8)),
    ("ablate two heads", "positions", POSITIONS, Size(prompts=1)),
    ("ablate two heads", "vocabulary", VOCABULARY, Size(prompts=8)),
    ("induction", "layers", LAYERS, Size(prompts=8)),
    ("induction", "heads", HEADS, Size(prompts=8)),
    ("induction", "prompts", PROMPTS, Size(positions=128)),
    ("induction", "positions", POSITIONS, Size(prompts=1)),
    ("induction", "vocabulary", VOCABULARY, Size(prompts=8)),
    ("one forward pass", "heads", HEADS, Size(prompts=8)),
    ("one forward pass", "prompts", PROMPTS, Size(positions=128)),
    ("one forward pass", "positions", POSITIONS, Size(prompts=1)),
]


def random_model(size: Size) -> Any:
    """GPT-2's structure: LayerNorm before attention and before the MLP, in series, learned positions."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=size.layers, d_model=size.d_model, n_heads=size.heads, d_head=size.d_head, d_mlp=size.d_mlp,
        n_ctx=size.positions, d_vocab=size.vocabulary, act_fn="gelu_new", normalization_type="LNPre", device="cpu",
        init_weights=False,
    )  # fmt: skip
    model, generator = HookedTransformer(cfg), torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "b_" not in name:
            parameter.data.normal_(0, parameter.shape[-2] ** -0.5, generator=generator)
    return model.eval()


def measured(what: str, size: Size) -> tuple[float, float]:
    """Processor seconds of a second call, and its peak memory in MB beyond model and prompts."""
    import induction_kernel as ik

    model = random_model(size)
    prompts = ik.repeated_tokens(
        model, prompts=size.prompts, period=size.positions // 2, bos=False, exclude=0
    )
    restart_peak()
    before = own_memory()
    ask(what, model, prompts, first=True)
    seconds, megabytes, _ = seconds_and_megabytes(lambda: ask(what, model, prompts), before)
    return seconds, megabytes


def slopes(
    sizes: tuple[int, ...], seconds: list[list[float]], megabytes: list[list[float]], work: list[float]
) -> dict[str, Any]:
    """Slopes of time and memory in each round, of the work, and whether every round's time lies above the work's."""

    def slope(values: list[float]) -> float:
        logs = [[math.log(each) for each in part] for part in (sizes, values)]
        return statistics.linear_regression(*logs).slope

    time, memory = (measuring.middle([slope(values) for values in part]) for part in (seconds, megabytes))
    return {"time": time, "memory": memory, "work": slope(work), "above": time["least"] > slope(work)}


def curve(
    what: str, dimension: str, sizes: tuple[int, ...], base: Size, rounds: int, rate: float
) -> dict[str, Any]:
    """What was measured, with slopes over all sizes and over the last two."""
    each = [replace(base, **{dimension: n}) for n in sizes]
    found = [[in_own_process(measured, what, size) for size in each] for _ in range(rounds)]
    seconds, megabytes = ([[one[part] for one in of_round] for of_round in found] for part in (0, 1))
    work = [float(WORK[what](size)) for size in each]
    middle = [statistics.median(of_size) for of_size in zip(*seconds, strict=True)]
    return {
        "call": what, "dimension": dimension, "sizes": sizes, "fixed": vars(base),
        "seconds": [measuring.middle(of_size) for of_size in zip(*seconds, strict=True)],
        "megabytes": [measuring.middle(of_size) for of_size in zip(*megabytes, strict=True)],
        "operations": work, "share": work[-1] / (middle[-1] * rate),
        "all": slopes(sizes, seconds, megabytes, work),
        "last": slopes(sizes[-2:], *([values[-2:] for values in part] for part in (seconds, megabytes)), work[-2:]),
    }  # fmt: skip


def main() -> None:
    asked = arguments()
    rows = []
    if not asked.arithmetic:
        import torch

        import induction_kernel as ik  # loaded and called once here, so not in each process

        torch.set_num_threads(1)
        tiny = random_model(Size(layers=1, positions=16))
        for what in WORK:
            if what != "sweep of two heads":
                ask(what, tiny, ik.repeated_tokens(tiny, prompts=2, period=8, bos=False, exclude=0))
        rate = measuring.PRODUCT / measuring.product_seconds()
        print(HEADING)
        for what, dimension, sizes, base in CURVES:
            if asked.only in f"{what}, {dimension}":
                rows.append(curve(what, dimension, sizes, base, asked.rounds, rate))
                print(line(rows[-1]), flush=True)
    count = sweep_of_gpt_j()
    print_arithmetic(count)
    if rows and not asked.only:
        measuring.save("growth", "python benchmarks/growth.py", rows, arithmetic=count)


def print_arithmetic(count: dict[str, Any]) -> None:
    """Time and memory of the sweep on a GPU, by precision."""
    print(
        f"\nGPT-J-6B, {count['parameters'] / 1e9:.2f} billion parameters, {count['cells']} heads x {count['tokens']:,} "
        f"tokens: {count['operations']:.3g} operations\nseconds = operations / (peak x {count['share']})"
    )
    for one in count["of"]:
        memory = ", ".join(f"{key} {one[key] / 1e9:.1f}" for key in ("weights", "kept", "batch"))
        print(
            f"{one['dtype']}, peak {one['peak'] / 1e12:.0f} T/s: {one['seconds']:.0f} s; memory in GB: {memory}"
        )


HEADING = (
    f"{'':56}{'all sizes: time':>24}{'memory':>8}{'work':>7}{'last two: time':>25}{'memory':>8}{'work':>7}\n"
    f"{'call':30}{'dimension':12}{'sizes':>14}{'':78}{'s':>8}{'MB':>7}{'share':>7}"
)


def line(row: dict[str, Any]) -> str:
    """A row of the table; an asterisk where every round's slope of time lies above that of the work."""
    text = f"{row['call']:30}{row['dimension']:12}{row['sizes'][0]:>6,} to{row['sizes'][-1]:>8,}"
    for part in (row["all"], row["last"]):
        time = part["time"]
        spread = (
            f"{time['median']:.2f} ({time['least']:.2f} to {time['most']:.2f}){'*' if part['above'] else ' '}"
        )
        text += f"{spread:>24}{part['memory']['median']:8.2f}{part['work']:7.2f}"
    return (
        text + f"{row['seconds'][-1]['median']:8.2f}{row['megabytes'][-1]['median']:7.0f}{row['share']:7.2f}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help='part of "call, dimension"; nothing is saved then')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arithmetic", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    warnings.filterwarnings("ignore")
    main()
