"""What heads write, in context and by their weights, by the definitions: one prompt a run, whole matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .maps import Maps
from .prompts import Asked
from .runs import cap_of, seen, sees_all, uncapped
from .scores import attention_score


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
    """OLS: share of the source's token in what its value raises; BAN: of the one attended most, in what the query's.

    BAN-source: in what that source's own value raises.
    """
    maps, later = Maps(model), sees_all(model)
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
                    own = method == "BAN"
                    shares = [
                        bansal(raised[i if own else j], j, len(row) - 1 if later else i, row)
                        for i, j in enumerate(sources)
                    ]
                undefined[p, at, h] = np.isnan(shares).sum()
                if method != "OLS":
                    score[p, at, h] = np.nan_to_num(shares).mean()
                elif not np.isnan(shares).all():
                    score[p, at, h] = np.nanmean(shares)
    if method == "OLS":
        chance = [4 / (len(row) + 1) - 1 for row in asked.rows]
    else:
        seen_by = [
            [len({*row[: len(row) if later else i + 1]}) for i in range(len(row))] for row in asked.rows
        ]
        chance = [np.mean([1 / n if n > 1 else 0 for n in counts]) for counts in seen_by]
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
