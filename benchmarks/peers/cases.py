"""The sweeps that are timed, and the matrix products that each cannot do without."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

GPT2 = {"kind": "gpt2", "d_model": 768, "n_heads": 12, "d_vocab": 50257}
GPTJ = {"kind": "gptj", "d_model": 1024, "n_heads": 16, "d_vocab": 50400, "rotary_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "GPT-2 small": {**GPT2, "n_layers": 12},
    "GPT-2, 4 layers": {**GPT2, "n_layers": 4},
    "GPT-J, 4 layers": {**GPTJ, "n_layers": 4},
    "GPT-J, 28 layers": {**GPTJ, "n_layers": 28},
    "GPT-J-6B": {**GPTJ, "n_layers": 28, "d_model": 4096},  # too large to be timed here
    "attention-only": {"kind": "attn-only", "d_model": 512, "n_heads": 8, "d_vocab": 48262, "n_layers": 2},
}  # fmt: skip
SAID = {
    "GPT-2 small": "GPT-2 small, 12 of 12 layers",
    "GPT-2, 4 layers": "GPT-2 small, 4 of 12 layers",
    "GPT-J, 4 layers": "GPT-J, 4 of 28 layers, width 1,024 of 4,096",
    "GPT-J, 28 layers": "GPT-J, 28 of 28 layers, width 1,024 of 4,096",
    "attention-only": "attention-only, 2 layers, width 512",
}
BY = {
    "residual": ("layer", "position"),
    "heads": ("layer", "head"),
    "heads by position": ("layer", "head", "position"),
    "loss by head": ("layer", "head"),
}


@dataclass(frozen=True)
class Case:
    """A sweep: a model's shape, prompts x length, what is edited, the metric."""

    shape: str
    prompts: int
    length: int
    what: str
    metric: str = "logit difference"

    @property
    def cells(self) -> list[tuple[int, ...]]:
        sizes = {
            **{key: SHAPES[self.shape][f"n_{key}s"] for key in ("layer", "head")},
            "position": self.length,
        }
        return list(product(*(range(sizes[name]) for name in BY[self.what])))

    @property
    def changed(self) -> int:
        """The first position at which the prompts of both runs differ."""
        return 0 if self.what == "loss by head" else self.length // 4


CASES = [
    Case("GPT-2 small", 4, 16, "residual"),
    Case("GPT-2 small", 4, 16, "residual", "last logits"),
    Case("GPT-2 small", 4, 16, "heads"),
    Case("GPT-2 small", 4, 64, "heads"),
    Case("GPT-2 small", 4, 16, "heads by position"),
    Case("GPT-J, 4 layers", 4, 16, "residual"),
    Case("GPT-J, 4 layers", 4, 16, "residual", "last logits"),
    Case("GPT-J, 4 layers", 4, 16, "heads"),
    Case("GPT-J, 4 layers", 4, 16, "heads by position"),
    Case("GPT-J, 28 layers", 2, 16, "residual"),
    Case("GPT-J, 28 layers", 2, 16, "heads"),
    Case("attention-only", 8, 32, "residual"),
    Case("attention-only", 8, 32, "residual", "last logits"),
    Case("attention-only", 8, 32, "heads"),
    Case("attention-only", 8, 32, "heads by position"),
    Case("attention-only", 8, 32, "heads by position", "last logits"),
    Case("attention-only", 8, 64, "loss by head", "loss"),
    Case("GPT-2, 4 layers", 4, 64, "loss by head", "loss"),
]
BRIDGED = [
    Case("GPT-2 small", 4, 16, "residual"),
    Case("GPT-2 small", 4, 16, "heads"),
    Case("GPT-2, 4 layers", 4, 16, "residual"),
    Case("GPT-2, 4 layers", 4, 16, "heads"),
    Case("GPT-J, 4 layers", 4, 16, "residual"),
    Case("GPT-J, 4 layers", 4, 16, "heads"),
]


def a_token(shape: dict[str, Any]) -> dict[str, int]:
    """Operations of the products of a layer at one position (attention's own are left out)."""
    model = shape["d_model"]
    mlp = 0 if shape["kind"] == "attn-only" else 16 * model * model
    return {"q": 2 * model**2, "kv": 4 * model**2, "out": 2 * model**2, "mlp": mlp}


def best_at_full_width() -> dict[str, float]:
    """How many times its bound a loop over whole runs of GPT-J-6B takes at least: 28 layers, 4 prompts x 64 tokens."""
    cases = [Case("GPT-J-6B", 4, 64, what) for what in ("heads", "residual")]
    return {case.what: loop(case) / bound(case) for case in cases}


def loop(case: Case) -> float:
    """Operations of one whole run a cell that unembeds only what the metric reads."""
    shape = SHAPES[case.shape]
    token = sum(a_token(shape).values()) * shape["n_layers"]
    read = 2 * shape["d_model"] * shape["d_vocab"] * (case.length if case.metric == "loss" else 1)
    return len(case.cells) * case.prompts * (case.length * token + read)


def bound(case: Case) -> float:
    """Operations of the products that a sweep cannot do without: each cell alone, the untouched runs once.

    A position runs again only from where it may differ; the last layer and the unembedding only where they are read.
    """
    shape, length, changed = SHAPES[case.shape], case.length, case.changed
    each, layers, heads = a_token(shape), shape["n_layers"], shape["n_heads"]
    q, kv, out, mlp = each["q"], each["kv"], each["out"], each["mlp"]
    token = q + kv + out + mlp
    after_attention = (
        mlp if shape["kind"] == "gpt2" else 0
    )  # a parallel MLP does not see this layer's attention
    read = (
        4 * shape["d_model"] if case.metric == "logit difference" else 2 * shape["d_model"] * shape["d_vocab"]
    )

    def whole(layer: int, width: int) -> float:  # the stream entering `layer` differs at `width` positions
        if layer >= layers:
            return read
        return read + (layers - 1 - layer) * width * token + width * kv + q + out + mlp

    def from_one(layer: int, position: int) -> float:  # ... at one position
        width = length - position
        if layer >= layers or width == 1:
            return read + (layers - layer) * token
        if layer == layers - 1:
            return read + kv + out + after_attention
        here = q + kv + width * out + (width * after_attention or mlp)
        return read + here + (layers - 2 - layer) * width * token + width * kv + q + out + mlp

    runs = (1 if case.metric == "loss" else 2) * length * layers * token
    positions, total = range(changed, length), 0.0
    for layer in range(layers):
        if case.what == "residual":
            total += sum(from_one(layer, p) for p in positions if layer or p == changed)
        elif case.what == "heads":
            width = length - changed
            here = after_attention * (width if layer < layers - 1 else 1)
            total += heads * (here + whole(layer + 1, width)) + width * out
        elif case.what == "heads by position":
            for p in positions:
                if layer < layers - 1 or p == length - 1:
                    total += heads * (after_attention + from_one(layer + 1, p)) + out
        else:
            total += heads * length * (after_attention + (layers - 1 - layer) * token + read) + length * out
    return case.prompts * (total + runs)
