"""First-order effects of edits on a metric: one forward and one backward pass for each batch of prompts.

Estimate = sum of (new - old) * d metric / d activation. For patterns, and with the QK fix for queries and keys, the
pattern row is the exact one of the edited run, and only what follows is linear: (a' - a) . g with
g_t = d metric / d z_i . v_t. Gradients are taken of zeros added to the activations, so that no parameter's `grad` and
no flag changes. `_attribution` sums the effects by cell and checks them.

Source: Nanda 2023 (attribution patching); Kramar et al. 2024, AtP*, section 3.1 (QK fix).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import Refused
from ..metrics._metric import Reading, one_a_prompt, read_off
from ..model._anatomy import (
    Hook,
    Model,
    full_precision,
    hook_name,
    hooks_on,
    kept_as_it_was,
    per_query_head,
    sizes,
)
from ..model._runs import run
from ..model._self_check import is_causal
from ..prompts._prompts import Prompts
from ..replay._capture import Taps, pattern_hook, tapped_hooks
from ..replay._lane import Lane
from ..replay._rows import whole_rows
from ._activations import HEAD_SITES, New
from ._changes import tap
from ._plan import Cell

__all__ = ["by_rows", "first_order", "gradients_at"]


def first_order(
    model: Model,
    prompts: Prompts,
    new: dict[int, New],
    *,
    site: str,
    wanted: Reading,
    qk_fix: bool = True,
    one_key: bool = False,
    blocks: Lane | None = None,
) -> tuple[Tensor, dict[int, Tensor]]:
    """The metric on one batch of prompts, and the first-order effect on it of editing each entry.

    Args:
        model: any TransformerLens model; hooks that are already on it act.
        prompts: the batch.
        new: layer -> new value at `site`.
        site: one of `SITES`.
        wanted: the metric, and what it reads.
        qk_fix: whether q and k act through the exact pattern row.
        one_key: whether keys change one at a time, not all of a head's together; only with the fix.
        blocks: the lane, on this batch, that gives pattern rows from the model's blocks run by themselves; None for
            whole runs.

    Returns:
        `values [prompt]`; layer -> `[prompt, position, head]`, with one head at sites that have none. For patterns, and
        for keys that change together, the position is the query's. 0 in padding.

    Raises:
        Refused: a metric that has no gradient, or a gradient that is not finite.
    """
    rows, layers = by_rows(site, qk_fix), sorted(new)
    values, old, slopes = gradients_at(model, prompts, wanted, "z" if rows else site, layers)
    real = torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]
    if not rows:
        return values, {
            layer: _linear(model, new, site, layer, old[layer], slopes[layer], real) for layer in layers
        }
    found = {}
    with kept_as_it_was(model):
        again = _Again(model, prompts, blocks)
        for layer in layers:
            found[layer] = _by_rows(again, new, site, layer, slopes[layer], real, one_key)
    return values, found


def by_rows(site: str, qk_fix: bool) -> bool:
    """Whether an edit at this site acts through exact pattern rows."""
    return site == "pattern" or (qk_fix and site in ("q", "k"))


def gradients_at(
    model: Model, prompts: Prompts, wanted: Reading, site: str, layers: list[int]
) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
    """`values [prompt]`, layer -> activation at the site, layer -> gradient of the sum of the values."""
    old: dict[int, Tensor] = {}
    added: dict[int, Tensor] = {}

    def probe(layer: int) -> Hook:
        def hook(activation: Tensor, hook: Any) -> Tensor:
            zeros = torch.zeros_like(activation, requires_grad=True)
            entering = old.get(layer)  # at resid_mid: the stream that attention's output is added to
            here = activation.detach()
            old[layer], added[layer] = here if entering is None else here + entering.to(here.device), zeros
            return activation + zeros

        return hook_name("attn_out" if site == "resid_mid" else site, layer), hook

    def enter(layer: int) -> Hook:
        def hook(resid: Tensor, hook: Any) -> None:
            old[layer] = resid.detach()

        return hook_name("resid_pre", layer), hook

    hooks = [enter(layer) for layer in layers] if site == "resid_mid" else []
    hooks += [probe(layer) for layer in layers]
    if torch.is_inference_mode_enabled():
        raise Refused("attribution needs gradients: use torch.no_grad() instead of torch.inference_mode()")
    with kept_as_it_was(model), torch.enable_grad():
        logits = run(model, prompts.tokens, hooks, lengths=prompts.lengths, gradients=True)
        values = _with_graph(wanted, logits.cpu())
        if missing := set(layers) - set(added):
            raise RuntimeError(f"hook {hook_name(site, min(missing))} of {type(model).__name__} never fired")
        slopes = _slopes(values, {layer: added[layer] for layer in layers}, wanted.metric.name)
    return values.detach(), old, slopes


def _slopes(values: Tensor, added: dict[int, Tensor], name: str) -> dict[int, Tensor]:
    """Layer -> gradient of the sum of the metric's values; 0 if they do not depend on the layer."""
    given, found = {}, torch.autograd.grad(values.sum(), list(added.values()), allow_unused=True)
    for (layer, zeros), slope in zip(added.items(), found, strict=True):
        given[layer] = torch.zeros_like(zeros) if slope is None else slope
        if not bool(given[layer].isfinite().all()):
            raise Refused(
                f"the gradient of {name} in layer {layer} is not finite: look for a square root, a logarithm or a "
                "division at 0 in the metric, or for NaN weights in the model"
            )
    return given


def _with_graph(wanted: Reading, logits: Tensor) -> Tensor:
    """The metric `[prompt]`, checked, with its autograd graph."""
    kept: list[Tensor] = []

    def measure(found: Tensor, prompts: Prompts) -> Tensor:
        kept.append(wanted.metric.measure(found, prompts))
        return kept[0]

    one_a_prompt(replace(wanted, metric=replace(wanted.metric, measure=measure)), read_off(logits, wanted))
    if not kept[0].requires_grad:
        raise Refused(
            f"wanted a metric that can be differentiated, {wanted.metric.name} cannot (it counts, rounds or detaches): "
            "use one such as logit_difference, probability or a loss, or use sweep"
        )
    return kept[0]


def _linear(
    model: Model, new: dict[int, New], site: str, layer: int, old: Tensor, slope: Tensor, real: Tensor
) -> Tensor:
    """`[prompt, position, head or 1]`: (new - old) . slope."""
    changed = tap([_whole(model, site, layer)], new, site, layer, 0)(old[None])[0]
    found = ((full_precision(changed) - full_precision(old)) * full_precision(slope)).sum(-1)
    found = found if site in HEAD_SITES else found[..., None]
    return torch.where(real[..., None].to(found.device), found, 0)


def _whole(model: Model, site: str, layer: int, position: int | None = None) -> Cell:
    """A cell (edited run) of all heads of a layer."""
    size = sizes(model)
    n_heads = size.n_key_value_heads if site in ("k", "v") else size.n_heads
    return Cell({layer: tuple(range(n_heads)) if site in HEAD_SITES else None}, position)


def _by_rows(
    again: _Again, new: dict[int, New], site: str, layer: int, slope: Tensor, real: Tensor, one_key: bool
) -> Tensor:
    """`[prompt, position, head]`: (new row - old row) . g."""
    model, (old, score, v) = again.model, again.attention(layer, {})
    change = tap([_whole(model, site, layer)], new, site, layer, 0)
    if site == "pattern":
        changed, new_score = change(old[None])[0], score
    else:
        changed, new_score, _ = again.attention(layer, {site: change})
    n_heads = slope.shape[2]
    g = torch.einsum("pqhd,pkhd->phqk", full_precision(slope), per_query_head(v, n_heads, 2))
    real = real.to(g.device)
    seen = torch.ones_like(g[0, 0], dtype=torch.bool).tril() if is_causal(model) else real[:, None, None]
    if site == "k" and one_key and _explain(score, old, seen):
        moved = _one_key_at_a_time(score, new_score, g, seen)
        found = torch.where(real[:, None, :, None], moved, 0).sum(2)
    elif site == "k" and one_key:
        found = torch.zeros_like(g[:, :, 0])
        for key in range(g.shape[-1]):  # the hook on this model's scores does not show them
            one = {site: tap([_whole(model, site, layer, key)], new, site, layer, 0)}
            moved = ((again.attention(layer, one)[0] - old) * g).sum(-1)
            found[..., key] = torch.where(real[:, None], moved, 0).sum(-1)
    else:
        found = torch.where(real[:, None], ((changed - old) * g).sum(-1), 0)
    found = found.transpose(1, 2)  # [prompt, position, query head]
    if site == "k":
        found = found.unflatten(2, (sizes(model).n_key_value_heads, -1)).sum(-1)
    return found


@dataclass(frozen=True, eq=False)
class _Again:
    """A batch whose attention is computed again with edits, one layer at a time.

    Attributes:
        model: the model.
        prompts: the batch.
        lane: the lane that runs the model's blocks by themselves; None for whole runs.
    """

    model: Model
    prompts: Prompts
    lane: Lane | None

    def attention(self, layer: int, taps: Taps) -> tuple[Tensor, Tensor, Tensor]:
        """Pattern and scores `[prompt, head, query, key]`, values `[prompt, key, head, d_head]`, with these taps.

        A tap gets an activation and returns its replacement. The scores are NaN if the hook on them never fires.
        """
        patterns: list[Tensor] = []
        scores: list[Tensor] = []
        values: list[Tensor] = []

        def keep(v: Tensor) -> Tensor:
            values.append(v)
            return v

        def read(score: Tensor, hook: Any) -> None:
            scores.append(score)

        hooks = [pattern_hook(layer, 1, patterns), (hook_name("attn_scores", layer), read)]
        taps = {**taps, "v": keep}
        if self.lane is None:
            hooks = [*tapped_hooks(layer, taps, 1), *hooks]
            run(self.model, self.prompts.tokens, hooks, lengths=self.prompts.lengths)
        else:
            with hooks_on(self.model, hooks):
                self.lane.step(layer, whole_rows(self.lane.resid_pre(layer)[None]), taps=[taps])
        row = full_precision(patterns[0][0])
        score = full_precision(scores[0]) if scores else torch.full_like(row, torch.nan)
        return row, score, full_precision(values[0][0])


def _explain(scores: Tensor, rows: Tensor, seen: Tensor) -> bool:
    """Whether the pattern is the softmax of these scores; on some Bridges the hook shows something else."""
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    loose = 0.05 if rows.dtype == torch.float32 else 1e-4
    return bool(((expected - rows).abs() <= loose).all())


def _one_key_at_a_time(scores: Tensor, new: Tensor, g: Tensor, seen: Tensor) -> Tensor:
    """The effect through each query `[prompt, head, query, key]` if only this key's score becomes `new`.

    (a' - a) . g = (a'_t - a_t) * (g_t - G_t), where G_t is the mean of g over the other keys, weighted by their
    attention, and a_t the sigmoid of the score minus the log-sum-exp of the other scores. For the key with the largest
    score the others are summed directly, not by subtraction, since 1 - a_t rounds to 0 where attention is saturated.
    """
    scores, moved = scores.masked_fill(~seen, -torch.inf), (new - scores).masked_fill(~seen, 0)
    moved = torch.where(moved.isnan(), 0, moved)  # -inf - -inf: a score that stays -inf
    log_rows = scores.log_softmax(-1)
    rows = log_rows.exp()
    left = (1 - rows).clamp(min=1e-300 if rows.dtype == torch.float64 else 1e-30)
    above = log_rows - left.log()
    mean = ((rows * g).sum(-1, keepdim=True) - rows * g) / left
    first = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.argmax(-1, keepdim=True), True)
    others = scores.masked_fill(first, -torch.inf)
    alone = others.amax(-1, keepdim=True).isinf()  # a single key has all attention, whatever its score
    of_others = torch.where(alone, 0, others.softmax(-1))
    above = torch.where(first, scores - others.logsumexp(-1, keepdim=True), above)
    mean = torch.where(first, (of_others * g).sum(-1, keepdim=True), mean)
    found = (torch.sigmoid(above + moved) - torch.sigmoid(above)) * (g - mean)
    return torch.where(seen & ~alone, found, 0)
