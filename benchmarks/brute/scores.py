"""What the scorers and metrics are by their definitions: loops over prompts, heads and positions, one prompt a run."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .prompts import Asked
from .runs import Maps, cap_of, logits, seen, uncapped

Entries = list[list[tuple[int, int]]]
"""Of one prompt: query by query, the keys that count."""


# Entries of the pattern ------------------------------------------------------------------------------------------


def copies_before(row: Sequence[int], i: int) -> list[int]:
    return [j for j in range(i) if row[j] == row[i]]


def entries(kind: str, row: Sequence[int], queries: Sequence[int], bos: bool) -> dict[int, list[int]]:
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
            keys = [j for j in range(i + 1) if own_entry(row[i], row[j], i, j)]
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

    def read(rows: list[list[int]]) -> np.ndarray:
        out = []
        for row, row_read, scored in zip(asked.rows, rows, asked.scored, strict=True):
            wanted = entries(kind, row, range(len(row)) if every_query else scored, asked.bos)
            shown = seen(model, row_read, ["pattern"])
            out.append([
                [np.mean([sum(float(pattern[i, j]) for j in keys) for i, keys in wanted.items()])
                 for pattern in shown["pattern", layer]]
                for layer in layers
            ])  # fmt: skip
        return np.array(out)

    chance = []
    for row, scored in zip(asked.rows, asked.scored, strict=True):
        wanted = entries(kind, row, range(len(row)) if every_query else scored, asked.bos)
        chance.append(np.mean([len(keys) / (i + 1) for i, keys in wanted.items()]))
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


# What heads write --------------------------------------------------------------------------------------------------


def per_head(v: Tensor, n_heads: int) -> Tensor:
    return v.repeat_interleave(n_heads // v.shape[1], 1) if v.shape[1] != n_heads else v


def pattern_of(model: Any, asked: Asked, chosen: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    maps, width = Maps(model), asked.given.tokens.shape[1]
    pattern = np.zeros((len(asked.rows), len(chosen), width, width))
    norms = np.zeros((len(asked.rows), len(chosen), width))
    for p, row in enumerate(asked.rows):
        shown, n = seen(model, row, ["pattern", "v"]), len(row)
        for c, (layer, head) in enumerate(chosen):
            pattern[p, c, :n, :n] = shown["pattern", layer][head]
            v = per_head(shown["v", layer], model.cfg.n_heads)[:, head]
            norms[p, c, :n] = ((v - maps.value(layer)[1][head]) @ maps.output(layer)[head]).norm(dim=-1)
    return {"pattern": pattern, "value_norm": norms}


def copying(
    model: Any, asked: Asked, method: str, centre: str, layers: Sequence[int]
) -> dict[str, np.ndarray]:
    """OLS: share of the source's token in what its value raises; BAN: likewise of the source attended most."""
    maps = Maps(model)
    w_u = maps.unembedding()
    w_u = w_u - w_u.mean(-1, keepdim=True)
    shape = (len(asked.rows), len(layers), model.cfg.n_heads)
    score, undefined = np.full(shape, np.nan), np.zeros(shape)
    for p, row in enumerate(asked.rows):
        shown = seen(model, row, ["pattern", "v"])
        for at, layer in enumerate(layers):
            v = per_head(shown["v", layer], model.cfg.n_heads)
            for h in range(model.cfg.n_heads):
                raised = (v[:, h] - maps.value(layer)[1][h]) @ maps.output(layer)[h] @ w_u
                if method == "OLS":
                    shares = [olsson(raised[j], j, row, centre) for j in range(len(row))]
                else:
                    sources = shown["pattern", layer][h].argmax(-1).tolist()
                    shares = [bansal(raised[j], j, i, row) for i, j in enumerate(sources)]
                undefined[p, at, h] = np.isnan(shares).sum()
                if not np.isnan(shares).all():
                    score[p, at, h] = np.nanmean(shares)
    lengths = [len(row) for row in asked.rows]
    chance = [
        4 / (n + 1) - 1 if method == "OLS" else np.mean([1 / i for i in range(1, n + 1)]) for n in lengths
    ]
    return {"score": score, "undefined": undefined, "chance": np.array(chance)}


def olsson(raised: Tensor, source: int, row: list[int], centre: str) -> float:
    mean = raised.mean() if centre == "vocabulary" else raised[row].mean()
    rectified = (raised - mean).clamp(min=0)
    own = float(rectified[row[source]])
    below = own + sum(float(rectified[token]) for token in row)
    return 4 * own / below - 1 if below else np.nan


def bansal(raised: Tensor, source: int, query: int, row: list[int]) -> float:
    chances = raised.softmax(-1)
    tokens = sorted(set(row[: query + 1]))
    of_tokens = chances[tokens]
    rectified = (of_tokens - of_tokens.mean()).clamp(min=0)
    if len(tokens) == 1 or not float(rectified.sum()):
        return np.nan
    return float(rectified[tokens.index(row[source])] / rectified.sum())


def ov_eigenvalues(model: Any, embedding: str, layers: Sequence[int]) -> np.ndarray:
    maps = Maps(model)
    w_e, w_u = maps.embedding(), maps.unembedding()
    w_u = w_u - w_u.mean(-1, keepdim=True)
    if embedding == "effective":
        w_e = maps.with_first_mlp(w_e)
    out = np.zeros((len(layers), model.cfg.n_heads))
    for at, layer in enumerate(layers):
        for h in range(model.cfg.n_heads):
            whole = w_e @ maps.value(layer)[0][h] @ maps.output(layer)[h] @ w_u
            found = torch.linalg.eigvals(whole)
            found = found[found.abs().argsort(descending=True)][: model.cfg.d_head]
            out[at, h] = float(found.real.sum() / found.abs().sum())
    return out


def composition(model: Any, by: str) -> np.ndarray:
    """`[layer, head, receiver]`, NaN where the receiver is not later."""
    maps, n_layers, n_heads = Maps(model), model.cfg.n_layers, model.cfg.n_heads
    out = np.full((n_layers, n_heads, (n_layers - 1) * n_heads), np.nan)
    for receiver in range(1, n_layers):
        for to in range(n_heads):
            if by == "v":
                reads = maps.value(receiver)[0][to] @ maps.output(receiver)[to]
            else:
                q, k = maps.reading("q", receiver)[to], maps.reading("k", receiver)[to]
                reads = k @ q.T if by == "k" else q @ k.T
            for layer in range(receiver):
                for h in range(n_heads):
                    writes = maps.value(layer)[0][h] @ maps.output(layer)[h]
                    value = (writes @ reads).norm() / writes.norm() / reads.norm()
                    out[layer, h, (receiver - 1) * n_heads + to] = float(value)
    return out


def qk_trace(model: Any, asked: Asked) -> np.ndarray:
    """`[layer - 1, head]`: the trace of the whole matrix of vocabulary by vocabulary."""
    maps, n_layers, n_heads = Maps(model), model.cfg.n_layers, model.cfg.n_heads
    previous = attention_score(model, asked, "previous_token", range(n_layers))["score"].mean(0)
    w_e, out = maps.embedding(), np.zeros((n_layers - 1, n_heads))
    for layer in range(1, n_layers):
        for h in range(n_heads):
            total = torch.zeros(len(w_e), len(w_e), dtype=torch.float64)
            for before in range(layer):
                for k in range(n_heads):
                    ov = maps.value(before)[0][k] @ maps.output(before)[k]
                    q, key = maps.reading("q", layer)[h], maps.reading("k", layer)[h]
                    total += float(previous[before, k]) * w_e @ q @ key.T @ ov.T @ w_e.T
            out[layer - 1, h] = float(total.trace())
    return out


def direct_effect(model: Any, asked: Asked, on: str, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """What each head adds to the logits read, with the final norm's scale as in the run."""
    maps = Maps(model)
    w_u, constant = maps.of("logits", -1)
    centred = w_u - w_u.mean(-1, keepdim=True)

    def read(rows: list[list[int]]) -> np.ndarray:
        out = np.zeros((len(rows), len(layers), model.cfg.n_heads))
        for p, row in enumerate(rows):
            shown = seen(model, row, ["z", "resid_post"])
            for position, direction in directions(p):
                final = shown["resid_post", model.cfg.n_layers - 1][position]
                scale = norm_scale(model, final @ w_u, shown["logits", -1][position], constant)
                for at, layer in enumerate(layers):
                    for h in range(model.cfg.n_heads):
                        moved = shown["z", layer][position, h] - maps.value(layer)[1][h]
                        out[p, at, h] += (
                            float(moved @ maps.output(layer)[h] @ direction) / scale / len(directions(p))
                        )
        return out

    def directions(p: int) -> list[tuple[int, Tensor]]:
        row = asked.rows[p]
        if on == "answers":
            right, wrong = asked.answers[p]
            return [(len(row) - 1, centred[:, right] - centred[:, wrong])]
        return [(i, centred[:, row[i + 1]]) for i in asked.scored[p] if i + 1 < len(row)]

    found = {"score": read(asked.rows)}
    if asked.control is not None:
        found["control"] = read(asked.control)
    return found


def norm_scale(model: Any, unscaled: Tensor, given: Tensor, constant: Tensor) -> float:
    """What the final norm divided by: the logits without it over those with it, where the largest can be told."""
    if model.cfg.normalization_type is None:
        return 1.0
    plain, cap = uncapped(model, given) - constant, cap_of(model)
    told = unscaled.abs() * (given.abs() < 0.9 * cap if cap else 1)
    return float(unscaled[told.argmax()] / plain[told.argmax()])


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
