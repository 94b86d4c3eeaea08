"""What the scorers and metrics are by their definitions: loops over prompts, heads and positions, one prompt a run."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .prompts import Asked
from .runs import logits, seen, sees_all

Entries = list[list[tuple[int, int]]]
"""Of one prompt: query by query, the keys that count."""


# Entries of the pattern ------------------------------------------------------------------------------------------


def copies_before(row: Sequence[int], i: int) -> list[int]:
    return [j for j in range(i) if row[j] == row[i]]


def entries(
    kind: str, row: Sequence[int], queries: Sequence[int], bos: bool, later: bool = False
) -> dict[int, list[int]]:
    """Query -> keys that count; only queries that have one."""
    found: dict[int, list[int]] = {}
    if kind == "diagonal":
        lags = [i - copies_before(row, i)[-1] for i in range(len(row)) if copies_before(row, i)]
        return {i: [i - min(lags) + 1] for i in range(len(row)) if lags and i - min(lags) + 1 >= 0}
    for i in queries:
        keys = copies_before(row, i)
        if kind == "induction":
            keys = [keys[-1] + 1] if keys else []
        elif kind == "prefix_matching":
            keys = [j + 1 for j in keys]
        elif kind == "previous_token":
            keys = [i - 1] if i and not (bos and i == 1) else []
        elif kind == "own":
            keys = [j for j in range(len(row) if later else i + 1) if own_entry(row[i], row[j], i, j)]
        if keys:
            found[i] = keys
    return found


def own_entry(query: Any, key: Any, i: Any, j: Any) -> Any:
    """A mask made up here; on numbers and on tensors alike."""
    return (31 * query + 17 * key + 7 * i + 3 * j) % 5 < 2


def attention_score(
    model: Any, asked: Asked, kind: str, layers: Sequence[int], *, every_query: bool = False
) -> dict[str, np.ndarray]:
    """`score` and `control [prompt, layer, head]`, `chance [prompt]`."""

    later = sees_all(model)

    def read(rows: list[list[int]]) -> np.ndarray:
        out = []
        for row, row_read, scored in zip(asked.rows, rows, asked.scored, strict=True):
            wanted = entries(kind, row, range(len(row)) if every_query else scored, asked.bos, later)
            shown = seen(model, row_read, ["pattern"])
            out.append([
                [np.mean([sum(float(pattern[i, j]) for j in keys) for i, keys in wanted.items()])
                 for pattern in shown["pattern", layer]]
                for layer in layers
            ])  # fmt: skip
        return np.array(out)

    chance = []
    for row, scored in zip(asked.rows, asked.scored, strict=True):
        wanted = entries(kind, row, range(len(row)) if every_query else scored, asked.bos, later)
        seen_keys = [len(row) if later else i + 1 for i in wanted]
        of_queries = [len(keys) / n for keys, n in zip(wanted.values(), seen_keys, strict=True)]
        chance.append(np.mean(of_queries))
    found = {"score": read(asked.rows), "chance": np.array(chance)}
    if asked.control is not None and kind in ("induction", "prefix_matching", "duplicate_token", "own"):
        found["control"] = read(asked.control)
    return found


# Demonstrations --------------------------------------------------------------------------------------------------


def weights(
    model: Any, asked: Asked, pooling: str, layers: Sequence[int], span: str = "demonstration"
) -> np.ndarray:
    """`[prompt, layer, head, demonstration]`, NaN where there is none."""
    shots = asked.demonstrations or []
    width = asked.given.demonstrations.mask.shape[1]
    out = np.full((len(asked.rows), len(layers), model.cfg.n_heads, width), np.nan)
    for p, (row, of_prompt) in enumerate(zip(asked.rows, shots, strict=True)):
        shown = seen(model, row, ["pattern"])
        for at, layer in enumerate(layers):
            for h in range(model.cfg.n_heads):
                last = shown["pattern", layer][h, len(row) - 1].tolist()
                for d, ((begin, stop), label) in enumerate(
                    zip(of_prompt.spans, of_prompt.labels, strict=True)
                ):
                    pool = last[begin:stop]
                    if span == "words":
                        pool = [last[position] for position in (of_prompt.words or [])[d]]
                    out[p, at, h, d] = {
                        "label": last[label],
                        "max": max(pool),
                        "sum": sum(pool),
                        "mean": sum(pool) / len(pool),
                    }[pooling]
    return out


def label_attention(model: Any, asked: Asked, pooling: str, layers: Sequence[int]) -> dict[str, np.ndarray]:
    of_each = weights(model, asked, pooling, layers)
    right, permuted, chance = np.zeros(of_each.shape[:3]), np.zeros(of_each.shape[:3]), []
    for p, of_prompt in enumerate(asked.demonstrations or []):
        same = [d for d, y in enumerate(of_prompt.classes) if y == of_prompt.target]
        right[p] = sum(of_each[p, :, :, d] for d in same) if same else 0
        permuted[p] = np.nansum(of_each[p], -1) * len(same) / len(of_prompt.classes)
        tokens = len(of_prompt.spans)
        if pooling == "sum":
            tokens = sum(stop - begin for begin, stop in of_prompt.spans)
        chance.append(tokens / len(asked.rows[p]))
    score = np.nansum(of_each, -1)
    return {"score": score, "right": right, "right_control": permuted, "chance": np.array(chance)}


# Metrics: logits [position, vocab] of one prompt -> a number -------------------------------------------------------

Measure = Callable[[Tensor, Asked, int], Tensor]


def next_losses(found: Tensor, row: list[int], positions: Sequence[int]) -> Tensor:
    logs = found.log_softmax(-1)
    return torch.stack([-logs[i, row[i + 1]] for i in positions])


def loss(found: Tensor, asked: Asked, p: int) -> Tensor:
    row = asked.rows[p]
    return next_losses(found, row, range(len(row) - 1)).mean()


def repeat_loss(found: Tensor, asked: Asked, p: int) -> Tensor:
    row = asked.rows[p]
    return next_losses(found, row, [i for i in asked.scored[p] if i + 1 < len(row)]).mean()


def first_copy_loss(found: Tensor, asked: Asked, p: int) -> Tensor:
    return next_losses(found, asked.rows[p], range(asked.scored[p][0] - 1)).mean()


def logit_difference(found: Tensor, asked: Asked, p: int) -> Tensor:
    right, wrong = asked.answers[p]
    return found[-1, right] - found[-1, wrong]


def probability(found: Tensor, asked: Asked, p: int) -> Tensor:
    if asked.answers is not None:
        return found[-1].softmax(-1)[asked.answers[p][0]]
    of_prompt = asked.demonstrations[p]
    return found[-1].softmax(-1)[of_prompt.label_ids[of_prompt.target]]


def label_accuracy(found: Tensor, asked: Asked, p: int) -> Tensor:
    of_prompt = asked.demonstrations[p]
    scores = [float(found[-1, token]) for token in of_prompt.label_ids]
    return torch.tensor(float(scores.index(max(scores)) == of_prompt.target))


def own_metric(found: Tensor, asked: Asked, p: int) -> Tensor:
    return own_number(found)


def own_number(found: Tensor) -> Tensor:
    """A metric made up here, of the logits of one prompt."""
    return found[-1, 9].tanh() + 0.1 * (found[:, 10] - found[:, 11]).mean()


def kl_to(rows: Sequence[Tensor]) -> Measure:
    def measure(found: Tensor, asked: Asked, p: int) -> Tensor:
        clean = rows[p].log_softmax(-1)
        return (clean.exp() * (clean - found[-1].log_softmax(-1))).sum()

    return measure


def losses_by_position(model: Any, asked: Asked, width: int) -> np.ndarray:
    out = np.full((len(asked.rows), width), np.nan)
    for p, row in enumerate(asked.rows):
        if len(row) > 1:
            out[p, : len(row) - 1] = next_losses(logits(model, row), row, range(len(row) - 1))
    return out
