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
        from induction_kernel.interventions._activations import New

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
                touched.setdefault(layer, []).append(head)
            out[p, g] = float(measure(edited(model, row, "z", touched, None, of_prompt(p), held), asked, p))
    return out


def runs_of(model: Any, asked: Asked, rows: list[list[int]], measure: Measure) -> np.ndarray:
    """`[prompt]`: the metric read off plain runs on other rows."""
    return np.array([float(measure(logits(model, row), asked, p)) for p, row in enumerate(rows)])
