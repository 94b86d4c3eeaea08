"""What edits do, by their definitions: one whole run a prompt and cell; path patching and attribution written out."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .prompts import Asked
from .runs import INSIDE, New, Touched, edited, logits, name, seen
from .scores import Measure


class Own:
    """An edit made up here, of the shape a user would write: half of what was, and something by position or not."""

    def __init__(self, seed: int, site: str, scale: float, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scale, self.value = scale, torch.randn(shape, generator=generator, dtype=torch.float64)
        if site == "pattern":
            rows = self.value.exp().tril()
            self.value = (1 - scale) * rows / rows.sum(-1, keepdim=True)

    def new(self, model: Any, prompts: Any, site: str, layers: set[int]) -> dict[int, Any]:
        from induction_kernel.interventions.edits import New

        return dict.fromkeys(layers, New(self.scale, self.value))


def wanted(model: Any, asked: Asked, edit: Any, site: str, reference: Asked | None) -> Callable[[int], New]:
    """prompt -> what an edit makes of an activation in its run."""
    kind, n_layers = type(edit).__name__, model.cfg.n_layers
    if kind in ("Zero", "ZeroValues", "Scale"):
        factor = edit.factor if kind == "Scale" else 0.0
        kept = [bias_of(model, layer, site) if kind == "ZeroValues" else 0.0 for layer in range(n_layers)]
        return lambda p: lambda layer, old: factor * (old - kept[layer]) + kept[layer]
    if kind == "Add":
        return lambda p: lambda layer, old: old + of_prompt(edit.vector, p, len(asked.rows), old)
    if kind == "Own":
        return lambda p: lambda layer, old: edit.scale * old + of_prompt(edit.value, p, len(asked.rows), old)
    if kind == "KnockOut":
        return lambda p: lambda layer, old: knocked_out(old, of_prompt(edit.mask, p, len(asked.rows), old))
    if kind == "FromRun":
        runs = activations(model, reference.rows, site)
        return lambda p: lambda layer, old: runs[p][site, layer]
    rows = (asked.rows if asked.control is None else asked.control) if reference is None else reference.rows
    runs = activations(model, rows, site)
    if kind == "Resample":
        drawn = edit.drawn(len(asked.rows), None if reference is None else len(rows)).tolist()
        assert reference is not None or all(p != q for p, q in enumerate(drawn))
        return lambda p: lambda layer, old: beginning(runs[drawn[p]][site, layer], old, site)
    assert kind == "Mean"
    one_length = len({*map(len, rows), *map(len, asked.rows)}) == 1
    by_position = site == "pattern" or (one_length if edit.by_position is None else edit.by_position)
    if by_position:
        means = {layer: sum(run[site, layer] for run in runs) / len(runs) for layer in range(n_layers)}
        return lambda p: lambda layer, old: means[layer]
    counted = {layer: [each for run in runs for each in run[site, layer][1:]] for layer in range(n_layers)}
    return lambda p: lambda layer, old: (sum(counted[layer]) / len(counted[layer])).expand(old.shape)


def activations(model: Any, rows: list[list[int]], site: str) -> list[dict[tuple[str, int], Tensor]]:
    return [seen(model, row, [site]) for row in rows]


def beginning(run: Tensor, old: Tensor, site: str) -> Tensor:
    n = old.shape[1] if site == "pattern" else len(old)
    return run[:, :n, :n] if site == "pattern" else run[:n]


def of_prompt(value: Tensor, p: int, n: int, old: Tensor) -> Tensor:
    """A user's value for one prompt, unpadded: it broadcasts to `[prompt, *old]`."""
    if value.ndim == old.ndim + 1:
        value = value[p] if value.shape[0] == n and n > 1 else value[0]
    for dim, size in zip(range(-1, -value.ndim - 1, -1), reversed(old.shape), strict=False):
        value = value.narrow(dim, 0, size) if value.shape[dim] > 1 else value
    return value


def knocked_out(pattern: Tensor, mask: Tensor) -> Tensor:
    left = pattern.masked_fill(mask, 0)
    return left / left.sum(-1, keepdim=True)


def bias_of(model: Any, layer: int, site: str) -> Tensor | float:
    """What a head's values are where it reads a stream of zeros: of z and v what it adds whatever the prompt."""
    if site not in ("z", "v"):
        return 0.0
    zeros = [(name("resid_pre", layer), lambda old, hook: torch.zeros_like(old))]
    shown = seen(model, [0], ["v"], zeros)["v", layer][0]
    heads = model.cfg.n_heads // len(shown) if site == "z" else 1
    return shown.repeat_interleave(heads, 0)


# Sweeps -------------------------------------------------------------------------------------------------------------


def heads_at(model: Any, site: str) -> list[int] | None:
    if site not in INSIDE:
        return None
    grouped = not getattr(model.cfg, "ungroup_grouped_query_attention", False)
    shared = (getattr(model.cfg, "n_key_value_heads", None) if grouped else None) or model.cfg.n_heads
    return list(range(shared if site in ("k", "v") else model.cfg.n_heads))


def cells(
    model: Any, site: str, by: Sequence[str], heads: Any, layers: Any, positions: Any, width: int
) -> list[tuple[tuple[int, ...], Touched, int | None]]:
    """Place in the result, layers and heads edited, the one position edited or None."""
    all_layers = list(range(model.cfg.n_layers)) if layers is None else sorted(layers)
    if heads is not None:
        all_layers = [layer for layer in all_layers if layer in {each for each, _ in heads}]
    all_heads = heads_at(model, site)
    places = list(range(width)) if positions is None else sorted(positions)
    sizes = {"layer": all_layers, "head": all_heads, "position": places}
    found = []
    for index in product(*(range(len(sizes[dim] or ())) for dim in by)):
        at = {dim: (sizes[dim] or [])[i] for dim, i in zip(by, index, strict=True)}
        touched: Touched = {}
        for layer in [at["layer"]] if "layer" in at else all_layers:
            of_layer = all_heads
            if of_layer is not None:
                of_layer = [h for h in of_layer if heads is None or (layer, h) in heads]
                of_layer = [h for h in of_layer if at.get("head", h) == h]
                if not of_layer:
                    continue
            touched[layer] = of_layer
        if touched:
            found.append((index, touched, at.get("position")))
    return found


def shape_of(
    model: Any, site: str, by: Sequence[str], heads: Any, layers: Any, positions: Any, width: int
) -> list[int]:
    n_layers = len(set(range(model.cfg.n_layers) if layers is None else layers))
    if heads is not None:
        n_layers = len(
            {layer for layer, _ in heads} & set(range(model.cfg.n_layers) if layers is None else layers)
        )
    sizes = {"layer": n_layers, "head": len(heads_at(model, site) or ()), "position": width}
    if positions is not None:
        sizes["position"] = len(positions)
    return [sizes[dim] for dim in by]


def sweep(
    model: Any, asked: Asked, width: int, *, edit: Any, site: str, by: Sequence[str], measure: Measure,
    hold: Any = None, heads: Any = None, layers: Any = None, positions: Any = None, reference: Asked | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """`value [prompt, *by]` and `baseline [prompt]`."""
    value = np.full((len(asked.rows), *shape_of(model, site, by, heads, layers, positions, width)), np.nan)
    of_prompt, baseline = wanted(model, asked, edit, site, reference), []
    for p, row in enumerate(asked.rows):
        held = clean_patterns(model, row) if hold else None
        baseline.append(float(measure(logits(model, row), asked, p)))
        for index, touched, position in cells(model, site, by, heads, layers, positions, width):
            if position is not None and position >= len(row):
                continue
            places = None if position is None else [position]
            found = edited(model, row, site, touched, places, of_prompt(p), held)
            value[(p, *index)] = float(measure(found, asked, p))
    return {"value": value, "baseline": np.array(baseline)}


def clean_patterns(model: Any, row: list[int]) -> dict[int, Tensor]:
    shown = seen(model, row, ["pattern"])
    return {layer: shown["pattern", layer] for layer in range(model.cfg.n_layers)}


def joint(
    model: Any, asked: Asked, groups: Sequence[Sequence[tuple[int, int]]], *, edit: Any, measure: Measure,
    hold: Any = None, reference: Asked | None = None,
) -> np.ndarray:  # fmt: skip
    """`[prompt, group]`: z of each group's heads edited together."""
    out = np.zeros((len(asked.rows), len(groups)))
    of_prompt = wanted(model, asked, edit, "z", reference)
    for p, row in enumerate(asked.rows):
        held = clean_patterns(model, row) if hold else None
        for g, heads in enumerate(groups):
            touched: Touched = {}
            for layer, head in heads:
                touched.setdefault(layer, []).append(head)  # pyright: ignore[reportOptionalMemberAccess]
            out[p, g] = float(measure(edited(model, row, "z", touched, None, of_prompt(p), held), asked, p))
    return out


def runs_of(model: Any, asked: Asked, rows: list[list[int]], measure: Measure) -> np.ndarray:
    """`[prompt]`: the metric read off plain runs on other rows."""
    return np.array([float(measure(logits(model, row), asked, p)) for p, row in enumerate(rows)])


# Path patching --------------------------------------------------------------------------------------------------


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
        if site == "pattern":
            moved = new(layer, old)
        else:
            moved = _pattern_after(model, row, site, layer, position, new)
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
