"""`Recipe`: a training run's model sizes, data and optimisation.

The default is the embedded model's recipe: a 2-layer attention-only transformer with learned positions, of the kind
Elhage et al. 2021 and Olsson et al. 2022 study. `smeared` is the paper's change of architecture (argument 2): each
head's key is mixed with the one before it, k_j := s(a_h) k_j + (1 - s(a_h)) k_(j-1), with a_h trained and the first
key left as it is, so that one layer suffices for induction. `_trainer` trains by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .._given import is_whole
from ..errors import Refused
from ._language import Mix
from ._vocabulary import VOCABULARY

__all__ = ["BYTES", "EARLY", "LATE", "Recipe", "log_spaced"]

EARLY, LATE = (10, 30), (75, 95)
"""Bands of positions whose losses the in-context-learning score compares; `loss[i]` predicts token i + 1."""
BYTES = 256


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on, apart from its seed and its texts.

    Attributes:
        name: of the trained model.
        layers: 1 to 4.
        heads: heads in a layer.
        d_head: width of a head.
        d_model: width of the residual stream.
        mlp: width of an MLP (GELU) after every attention layer; 0 for attention only.
        smeared: whether keys are smeared (Olsson et al. 2022, argument 2).
        pieces: None for the synthetic language; for texts, the size of the byte-pair vocabulary that is learned from
            them, 256 for plain bytes. `<bos>` and `<pad>` come on top.
        context: longest input in tokens, and the length of every training row.
        steps: optimiser steps.
        batch_size: rows in a batch.
        learning_rate: of AdamW, after the warm-up.
        betas: of AdamW.
        weight_decay: of AdamW, on every parameter.
        sparsity: weight of a penalty on every head that writes: without it nearly every head of the last
            layer becomes an induction head, and none is left as a control.
        clip: largest norm of the gradient.
        warmup: steps in which the learning rate rises linearly.
        decay_from: share of the steps after which the learning rate falls linearly, to `last_rate`.
        last_rate: last learning rate, as a share of `learning_rate`.
        mix: composition of a batch of the synthetic language.
        checkpoints: steps at which weights are stored (see `log_spaced`), without those beyond `steps`; the last step
            is always stored.
    """

    name: str = "tiny"
    layers: int = 2
    heads: int = 8
    d_head: int = 16
    d_model: int = 64
    mlp: int = 0
    smeared: bool = False
    pieces: int | None = None
    context: int = 96
    steps: int = 3200
    batch_size: int = 32
    learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    sparsity: float = 0.006
    clip: float = 1.0
    warmup: int = 200
    decay_from: float = 0.6
    last_rate: float = 0.05
    mix: Mix = field(default_factory=Mix)
    checkpoints: tuple[int, ...] = (
        *(0, 100, 200, 400, 600, 800, 1000, 1100, 1200),
        *range(1250, 1751, 50),  # the embedded model learns few-shot and induction here
        *(1900, 2200, 2700, 3200),
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            if is_whole(value := getattr(self, each.name)):
                object.__setattr__(self, each.name, int(value))  # JSON takes no NumPy integer
        for name in ("heads", "d_head", "d_model", "steps", "batch_size"):
            _check_whole(name, getattr(self, name), 1)
        _check_whole("layers", self.layers, 1, 4)
        _check_whole("mlp", self.mlp, 0)
        if self.pieces is not None:
            _check_whole("pieces", self.pieces, BYTES)
        _check_whole("context", self.context, LATE[1] + 1)

    @property
    def architecture(self) -> dict[str, Any]:
        """The model's configuration by TransformerLens' names (and `smeared_keys`, which TransformerLens lacks)."""
        return {
            "n_layers": self.layers,
            "n_heads": self.heads,
            "d_head": self.d_head,
            "d_model": self.d_model,
            "n_ctx": self.context,
            "d_vocab": self.vocabulary,
            "attn_only": not self.mlp,
            "normalization_type": "LNPre",
            "positional_embedding_type": "standard",
            **({"d_mlp": self.mlp, "act_fn": "gelu"} if self.mlp else {}),
            **({"smeared_keys": True} if self.smeared else {}),
        }

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return len(VOCABULARY) if self.pieces is None else self.pieces + 2

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps at which this run stores its weights, in order."""
        return tuple(sorted({step for step in self.checkpoints if 0 <= step < self.steps} | {self.steps}))

    @property
    def bands(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Early and late positions of the in-context-learning score, 20 each: of 512, those around 51 and 501."""
        if self.pieces is None:
            return EARLY, LATE
        early = max(self.context // 10, 10)
        return (early - 10, early + 10), (self.context - 21, self.context - 1)

    @classmethod
    def read(cls, saved: dict[str, Any]) -> Recipe:
        """The recipe from `dataclasses.asdict` and JSON; missing fields, as in older recipes, get their defaults."""
        known = {each.name for each in fields(cls)}
        if not set(saved) <= known:
            raise Refused(f"a recipe has no {', '.join(sorted(set(saved) - known))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
        values["mix"] = Mix(**saved["mix"])
        return cls(**values)


def log_spaced(steps: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """Checkpoints evenly spaced in the logarithm of the step: 0, then from `first` to `steps`.

    Args:
        steps: the last.
        count: how many after 0; fewer come back if several round to the same step.
        first: the first after 0.

    Raises:
        Refused: not 1 <= first <= steps, or a count below 1.
    """
    _check_whole("first", first, 1, steps)
    _check_whole("count", count, 1)
    spaced = np.geomspace(first, steps, count).round().astype(int)
    return (0, *dict.fromkeys(spaced.tolist()))


def _check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    if not is_whole(value) or value < least or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"from {least} to {most}"
        raise Refused(f"{name} must be a whole number, {wanted}, got {value!r}")
