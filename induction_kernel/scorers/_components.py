"""Direct effects by component: embeddings, every head, attention biases, every MLP and the last biases; their sum.

The last residual stream is the sum of what these wrote into it, so along a direction, over the scale of the final norm
in the run, they add up to the logit (Elhage et al. 2021). What the parts leave of the model's own logit is `missing`; a
model whose logits are no such sum is refused. `_direct_effect` describes the measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import NotDefined, Refused
from ..model._anatomy import Hook, Model, full_precision, sizes
from ..model._norms import final_norm_scale
from ..model._runs import progress_bar, stream
from ..model._self_check import foreign_hooks, loose
from ..model._weights import attention_bias, final_biases, token_embedding, value_weights
from ..prompts._prompts import Prompts
from ._directions import (
    Pass,
    Targets,
    along,
    attributes,
    gathered,
    not_finite,
    passes,
    prepared,
    texts,
    token_coordinates,
)
from ._pattern_entries import attends, check_sound

__all__ = ["by_component"]

Parts = dict[tuple[str, int], Tensor]
"""(kind, layer or -1) -> `[entry]`, or `[entry, head]` for heads; in the order of the result."""
EMBEDDING, POSITIONS, HEAD, BIASES, MLP = (
    "embedding",
    "positional embedding",
    "head",
    "attention biases",
    "mlp_out",
)
NORM_BIAS, UNEMBEDDING_BIAS = "final norm bias", "unembedding bias"
NO_POSITIONS = ("rotary", "alibi", "shortformer", "none")  # none is added to the stream


class _Entries(NamedTuple):
    """What is known of some entries of the prompts, or of their control.

    Attributes:
        prompt: `[entry]`, which prompt of all.
        position: `[entry]`, where it is read.
        parts: of each component, `[entry]`, or `[entry, head]`.
        total: `[entry]`, the model's own logit or difference.
    """

    prompt: Tensor
    position: Tensor
    parts: Parts
    total: Tensor


def by_component(
    model: Model, ready: Prompts, on: str | None, *, positions: bool, batch_size: int | None, progress: bool
) -> xr.Dataset:
    """`direct_effect` by component, averaged over the positions read, or with `positions` at each.

    Raises:
        As `direct_effect`.
    """
    on, layers = prepared(model, ready, on, None)
    size, length = sizes(model), ready.tokens.shape[1]
    runs, found, last = 1 + (ready.control is not None), dict[str, list[_Entries]](), final_biases(model)
    cost = max(length * size.n_heads, 8 * size.d_model, size.d_vocab)
    with progress_bar(len(ready) * runs, progress=progress, unit="run") as bar:
        for one in passes(model, ready, on, batch_size=batch_size, cost=cost):
            found.setdefault(one.name, []).append(_read(model, one, layers, last, bar.update))
    names, shape = _components(found["score"][0].parts), (len(ready), length)
    variables = _variables(model, found, shape, positions=positions)
    coords = (
        token_coordinates(model, ready, on, "position") if positions else {"prompt": np.arange(len(ready))}
    )
    return xr.Dataset(
        {**variables, "chance": ("prompt", np.zeros(len(ready)))},
        coords={**names, **coords, "text": ("prompt", texts(model, ready))},
        attrs=attributes(model, ready, on, "component, position" if positions else "component"),
    )


def _read(
    model: Model, one: Pass, layers: list[int], last: tuple[Tensor, Tensor], done: Callable[[float], Any]
) -> _Entries:
    """Every component's part at every entry, and the model's own logits there, from one pass."""
    targets, (at, slot) = one.targets, _slots(one.targets, len(one.tokens))
    seen, positional, logits = _seen(model, one, layers, at, done)
    parts = _embedded(model, one, seen["resid_pre", 0], positional)
    for layer in layers:
        parts |= {key: seen[key] for kind in (HEAD, BIASES, MLP) if (key := (kind, layer)) in seen}
    scale = final_norm_scale(model, seen["resid_post", layers[-1]]).cpu()
    parts = {key: each / (scale if each.ndim == 1 else scale[:, None]) for key, each in parts.items()}
    for kind, bias in zip((NORM_BIAS, UNEMBEDDING_BIAS), last, strict=True):
        parts[kind, -1] = _logit(bias.expand(len(slot), -1), targets)
    own = full_precision(logits[targets.prompt.to(logits.device), slot.to(logits.device)])
    return _Entries(targets.prompt + one.rows.start, targets.position, parts, _logit(own, targets))


def _seen(
    model: Model, one: Pass, layers: list[int], at: Tensor, done: Callable[[float], Any]
) -> tuple[Parts, Tensor | None, Tensor]:
    """One pass: parts along the directions and both ends of the stream; the positional embedding; logits `at`."""
    seen: Parts = {}
    broken, edited, targets = set[int](), bool(foreign_hooks(model)), one.targets

    def read(site: str, layer: int, activation: Tensor) -> None:
        if site == "pattern":
            if not attends(activation, one.lengths, edited=edited):
                broken.add(layer)
            return
        here = _at_entries(activation, targets)
        if site == "z":
            _, b_v, w_o = value_weights(model, layer)
            seen[HEAD, layer] = along(here - b_v.to(here), full_precision(w_o), targets.direction).cpu()
            seen[BIASES, layer] = _along(attention_bias(model, layer)[None], targets)
            done(len(one.tokens) / len(layers))
        else:
            seen[site, layer] = here if site != "mlp_out" else _along(here, targets)

    sites = {"z": set(layers), "pattern": set(layers), "resid_pre": {0}, "resid_post": {layers[-1]}}
    if not getattr(model.cfg, "attn_only", False):
        sites["mlp_out"] = set(layers)
    positional, hooks = _positional(model, one)
    logits = stream(model, one.tokens, read, sites, hooks, lengths=one.lengths, at=at)
    check_sound(broken)
    assert logits is not None  # at= asks for them
    return seen, positional[0] if positional else None, logits


def _at_entries(activation: Tensor, targets: Targets) -> Tensor:
    prompt, position = (index.to(activation.device) for index in targets[:2])
    return full_precision(activation.detach()[prompt, position])


def _along(vectors: Tensor, targets: Targets) -> Tensor:
    """`[entry, d_model]` or `[1, d_model]` along each entry's direction: `[entry]`."""
    return (vectors * targets.direction.to(vectors)).sum(-1).cpu()


def _logit(logits: Tensor, targets: Targets) -> Tensor:
    """`[entry, vocab]` -> `[entry]`: the right token's less the wrong one's, or less the mean over the vocabulary."""
    each = torch.arange(len(logits), device=logits.device)
    right = logits[each, targets.right.to(logits.device)]
    wrong = logits.mean(-1) if targets.wrong is None else logits[each, targets.wrong.to(logits.device)]
    return (right - wrong).cpu()


def _slots(targets: Targets, n: int) -> tuple[Tensor, Tensor]:
    """Positions `[prompt, read]` whose logits are wanted, and the place of each entry among those of its prompt."""
    counts = torch.bincount(targets.prompt, minlength=n)
    slot = torch.arange(len(targets.prompt)) - (counts.cumsum(0) - counts)[targets.prompt]
    at = torch.zeros(n, int(counts.max()), dtype=torch.long)
    at[targets.prompt, slot] = targets.position
    return at, slot


def _positional(model: Model, one: Pass) -> tuple[list[Tensor], list[Hook]]:
    """A list that gets the positional embedding `[entry, d_model]` of a pass, and the hook that puts it there."""
    found: list[Tensor] = []
    if _positions_of(model) in NO_POSITIONS or "hook_pos_embed" not in getattr(model, "hook_dict", {}):
        return found, []

    def keep(activation: Tensor, hook: Any) -> None:
        wide = activation if activation.ndim == 3 else activation[None]  # the same for all prompts
        found.append(_at_entries(wide.expand(len(one.tokens), -1, -1), one.targets))

    return found, [("hook_pos_embed", keep)]


def _positions_of(model: Model) -> str:
    return str(getattr(model.cfg, "positional_embedding_type", "none")).lower()


def _embedded(model: Model, one: Pass, start: Tensor, positional: Tensor | None) -> Parts:
    """What the stream begins with, along each entry's direction: the token's embedding, and its position's if added.

    Raises:
        Refused: it is not finite.
        NotDefined: the rest of it, without the position's, is not the token's embedding, up to a factor (Gemma, XGLM).
    """
    if not bool(start.isfinite().all()):
        raise Refused("the residual stream is not finite before layer 0: look for NaN in the embeddings")
    if _positions_of(model) in NO_POSITIONS:
        return {(EMBEDDING, -1): _along(start, one.targets)}
    rest = start if positional is None else start - positional.to(start)
    tokens = one.tokens[one.targets.prompt, one.targets.position]
    embedding = full_precision(token_embedding(model, tokens)).to(start)
    factor = (rest * embedding).sum() / embedding.square().sum().clamp_min(1e-30)
    apart = (rest - factor * embedding).abs().max()
    if not foreign_hooks(model) and bool(apart > loose(model) * (1 + start.abs().max())):
        raise NotDefined(
            "the residual stream before layer 0 is not the embedding of the tokens and that of their positions in this "
            'model, so its embeddings cannot be told apart: use by=None or by=("head", "position")'
        )
    parts: Parts = {(EMBEDDING, -1): _along(rest, one.targets)}
    return parts if positional is None else parts | {(POSITIONS, -1): _along(start - rest, one.targets)}


def _components(parts: Parts) -> dict[str, Any]:
    """Coordinates of the components: their names, kinds, layers and heads."""
    rows: list[tuple[str, str, int, int]] = []
    for (kind, layer), each in parts.items():
        if kind == HEAD:
            rows += [(f"L{layer}H{head}", kind, layer, head) for head in range(each.shape[1])]
        else:
            said = "MLP" if kind == MLP else kind
            rows.append((f"{said} {layer}" if layer >= 0 else said, said, layer, -1))
    keys = ("component", "kind", "layer", "head")
    return {
        key: ("component", np.array(each)) for key, each in zip(keys, zip(*rows, strict=True), strict=True)
    }


def _variables(
    model: Model, found: dict[str, list[_Entries]], shape: tuple[int, int], *, positions: bool
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """`score` and `control` of every component; `total` and `missing`; by prompt, or by prompt and position.

    Raises:
        Refused: parts or logits that are not finite.
        NotDefined: parts that do not add up to the logits.
    """
    out: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    dims = ("position",) if positions else ()
    for name, several in found.items():
        columns = [torch.column_stack(list(each.parts.values())).double() for each in several]
        parts, total = (
            torch.cat(columns).numpy(),
            torch.cat([each.total for each in several]).double().numpy(),
        )
        prompt = torch.cat([each.prompt for each in several]).numpy()
        at = torch.cat([each.position for each in several]).numpy()
        not_finite([parts, total])
        out[name] = ("prompt", "component", *dims), gathered(parts, prompt, at if positions else None, shape)
        if name == "score":
            missing = total - parts.sum(1)
            if not foreign_hooks(model):
                _check_sum(model, parts, missing)
            for key, each in (("total", total), ("missing", missing)):
                out[key] = ("prompt", *dims), gathered(each, prompt, at if positions else None, shape)
    return out


def _check_sum(model: Model, parts: np.ndarray, missing: np.ndarray) -> None:
    """Raise NotDefined if what is missing at an entry is no rounding."""
    if bool((np.abs(missing) > 10 * loose(model) * (1 + np.abs(parts).max(1))).any()):
        raise NotDefined(
            f"the components of this model do not add up to its logits (up to {np.abs(missing).max():.3g} logits are "
            "missing): it scales or caps its logits, or something else writes to its residual stream; use by=None"
        )
