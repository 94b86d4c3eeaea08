"""Path patching and attribution, written out: three runs a path, autograd and the exact pattern rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .edits import cells, heads_at, shape_of, wanted
from .prompts import Asked
from .runs import New, Touched, logits, name, seen
from .scores import Measure


def path_patch(
    model: Any, asked: Asked, source: Asked, *, site: str, receivers: Any, senders: list[tuple[int, int]],
    measure: Measure,
) -> np.ndarray:  # fmt: skip
    """`[prompt, layer, head]`, NaN at heads that are no senders."""
    value = np.full((len(asked.rows), model.cfg.n_layers, model.cfg.n_heads), np.nan)
    for p, (into, other) in enumerate(zip(asked.rows, source.rows, strict=True)):
        theirs = seen(model, other, ["z"])
        clean = seen(model, into, ["attn_out", "resid_pre", "resid_post", "z"])
        for layer, head in senders:
            more = written_more(model, into, clean, theirs, layer, head)
            value[p, layer, head] = float(
                measure(_received(model, into, clean, more, site, receivers, layer), asked, p)
            )
    return value


def written_more(model: Any, into: list[int], clean: Any, theirs: Any, layer: int, head: int) -> Tensor:
    """What this head's output of the other run changes in what its layer's attention writes."""

    def put(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[0, :, head] = theirs["z", layer][:, head]
        return z

    shown = seen(model, into, ["attn_out"], [(name("z", layer), put)])
    return shown["attn_out", layer] - clean["attn_out", layer]


def is_before(model: Any, site: str, sender: int, receiver: int) -> bool:
    serial = not getattr(model.cfg, "parallel_attn_mlp", False)
    same = site == "resid_post" or (site == "mlp_out" and serial)
    return sender < receiver or (sender == receiver and same)


def _received(
    model: Any, into: list[int], clean: Any, more: Tensor, site: str, receivers: Any, sender: int
) -> Tensor:
    if site == "resid_post":
        last = model.cfg.n_layers - 1
        final = [(name("resid_post", last), lambda old, hook: old + more)]
        return logits(model, into, final)
    hooks: list[Any] = []
    for layer, heads in receivers.items():
        if not is_before(model, site, sender, layer):
            continue
        serial = site == "mlp_out" and not getattr(model.cfg, "parallel_attn_mlp", False)
        at = name("attn_out" if serial else "resid_pre", layer)
        entering = clean["attn_out" if serial else "resid_pre", layer] + more
        shown = seen(model, into, [site], [(at, lambda old, hook, entering=entering: entering[None].to(old))])

        def put(old: Tensor, hook: Any, new: Tensor = shown[site, layer], heads: Any = heads) -> Tensor:
            if heads is None:
                return new[None].to(old)
            old = old.clone()
            old[0, :, heads] = new[:, heads].to(old)
            return old

        hooks.append((name(site, layer), put))
    return logits(model, into, hooks)


# Attribution --------------------------------------------------------------------------------------------------------


def attribution(
    model: Any, asked: Asked, width: int, *, edit: Any, site: str, by: Sequence[str], measure: Measure,
    heads: Any = None, layers: Any = None, qk_fix: bool = True, reference: Asked | None = None,
) -> np.ndarray:  # fmt: skip
    """`[prompt, *by]`: (new - old) . gradient, summed over what a cell edits."""
    value = np.full((len(asked.rows), *shape_of(model, site, by, heads, layers, None, width)), np.nan)
    of_prompt = wanted(model, asked, edit, site, reference)
    for p, row in enumerate(asked.rows):
        by_rows = site == "pattern" or (qk_fix and site in ("q", "k"))
        slopes = gradients(model, row, "z" if by_rows else site, lambda found, p=p: measure(found, asked, p))
        for index, touched, position in cells(model, site, by, heads, layers, None, width):
            if position is not None and position >= len(row):
                continue
            given = _rows_moved if by_rows else _moved
            value[(p, *index)] = given(model, row, site, touched, position, of_prompt(p), slopes)
    return value


def gradients(
    model: Any, row: list[int], site: str, measure: Callable[[Tensor], Tensor]
) -> dict[int, Tensor]:
    """Layer -> d metric / d activation, by autograd."""
    added: dict[int, Tensor] = {}
    at = "attn_out" if site == "resid_mid" else site

    def hook_of(layer: int) -> Any:
        def hook(activation: Tensor, hook: Any) -> Tensor:
            added[layer] = torch.zeros_like(activation, requires_grad=True)
            return activation + added[layer]

        return name(at, layer), hook

    found = logits(model, row, [hook_of(layer) for layer in range(model.cfg.n_layers)], grad=True)
    each = list(added)
    slopes = torch.autograd.grad(measure(found), [added[layer] for layer in each], allow_unused=True)
    return {
        layer: torch.zeros_like(added[layer][0]) if slope is None else slope[0].detach()
        for layer, slope in zip(each, slopes, strict=True)
    }


def _moved(
    model: Any, row: list[int], site: str, touched: Touched, position: int | None, new: New, slopes: Any
) -> float:
    shown, total = seen(model, row, [site]), 0.0
    for layer, heads in touched.items():
        old = shown[site, layer]
        share = (new(layer, old) - old) * slopes[layer]
        share = share if heads is None else share[:, heads]
        total += float((share if position is None else share[position]).sum())
    return total


def _rows_moved(
    model: Any, row: list[int], site: str, touched: Touched, position: int | None, new: New, slopes: Any
) -> float:
    """Through the exact pattern rows: of a layer's own edit, in a run that is untouched before it."""
    shown, total = seen(model, row, ["pattern", "v"]), 0.0
    for layer, heads in touched.items():
        old, v = shown["pattern", layer], shown["v", layer]
        v = v.repeat_interleave(old.shape[0] // v.shape[1], 1)
        moved = (
            new(layer, old) if site == "pattern" else _pattern_after(model, row, site, layer, position, new)
        )
        share = (moved - old) * torch.einsum("qhd,khd->hqk", slopes[layer], v)
        group = old.shape[0] // len(heads_at(model, site) or ())
        query_heads = [h * group + i for h in heads or () for i in range(group)]
        share = share[query_heads]
        if position is not None and site != "k":
            share = share[:, position]
        total += float(share.sum())
    return total


def _pattern_after(
    model: Any, row: list[int], site: str, layer: int, position: int | None, new: New
) -> Tensor:
    def put(old: Tensor, hook: Any) -> Tensor:
        made, out = new(layer, old[0]), old.clone()
        places = range(len(row)) if position is None else [position]
        for place in places:
            out[0, place] = made[place]
        return out

    return seen(model, row, ["pattern"], [(name(site, layer), put)])["pattern", layer]
