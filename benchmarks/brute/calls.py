"""A random call and what is right of it; prompts with a metric of theirs, heads and layers."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import induction_kernel as ik

from . import scores
from .prompts import Asked, another, answered, drawn_prompts
from .runs import logits

Numbers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call: what it is, the call, what is right of its result, and what was passed that must not change."""

    said: str
    call: Callable[[], Any]
    right: Callable[[Any], Numbers]
    passed: tuple[Any, ...] = ()
    given: Callable[[Any], Numbers] | None = None  # numbers of a result that is no Dataset
    loose: float = 1.0  # times the model's own


def own_metric(found: torch.Tensor, prompts: Any) -> torch.Tensor:
    lengths = prompts.lengths.tolist()
    return torch.stack([scores.own_number(row[:n]) for row, n in zip(found, lengths, strict=True)])


@dataclass(frozen=True)
class Measured:
    """Prompts with a metric of theirs, ours and the definition's."""

    asked: Asked
    metric: Any
    measure: Any
    said: str
    passed: Any = None


def measured(draw: random.Random, model: Any, *, smooth: bool = False, kind: str | None = None) -> Measured:
    kinds = ["loss", "repeat_loss", "logit_difference", "probability", "kl_to", "own"]
    kind = draw.choice(kinds + ([] if smooth else ["label_accuracy"])) if kind is None else kind
    of_shots = kind == "label_accuracy" or (kind == "probability" and draw.random() < 0.3)
    which = (
        "repeated"
        if kind == "repeat_loss"
        else "shots"
        if of_shots
        else draw.choice(["any", "any", "repeated"])
    )
    asked = drawn_prompts(draw, model, which)
    while kind == "loss" and min(map(len, asked.rows)) < 2:
        asked = drawn_prompts(draw, model, which)
    if kind in ("logit_difference", "probability") and not of_shots:
        asked = answered(draw, model, asked)
    if kind == "own":
        return Measured(asked, own_metric, scores.own_metric, "own metric")
    if kind == "kl_to":
        other = another(draw, model, asked)
        rows = [logits(model, row)[-1] for row in other.rows]
        clean = torch.stack(rows)
        return Measured(asked, ik.kl_to(clean), scores.kl_to(rows), "kl_to", clean)
    return Measured(asked, getattr(ik, kind), getattr(scores, kind), kind)


def some_heads(draw: random.Random, model: Any, n: int) -> list[tuple[int, int]]:
    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(n)]
    return draw.sample(every, draw.randint(1, min(4, len(every))))


def some_layers(draw: random.Random, model: Any) -> list[int] | None:
    n = model.cfg.n_layers
    return None if draw.random() < 0.7 else sorted(draw.sample(range(n), draw.randint(1, n)))
