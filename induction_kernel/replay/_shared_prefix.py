"""Prompts that begin alike: the tokens they share are run once, and each prompt's own tokens after them.

The keys and values of the shared tokens are in the model's own cache for writing text: TransformerLens' in a
HookedTransformer, transformers' in a Bridge. Hooks then see each prompt's own positions alone; what was read at the
shared ones is put before them. A cache may be wrong for an architecture, so it is first compared with whole runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..model._anatomy import Model, device_of, full_precision, is_bridge
from ..model._runs import stream
from ..model._self_check import foreign_hooks, is_causal, made_of
from ._lane_record import refused, tried
from ._layers import looseness

__all__ = ["shared_stream", "why_not_shared"]

Sites = dict[str, set[int]]
_PASSED: WeakKeyDictionary[Any, dict[tuple[int, tuple[str, ...]], int]] = WeakKeyDictionary()
"""Model -> its parts and the sites that were read -> the longest prompts for which the check passed."""


def shared_stream(
    model: Model,
    tokens: Tensor,
    read: Callable[[str, int, Tensor], None],
    sites: Sites,
    *,
    lengths: Tensor,
    at: Tensor,
) -> Tensor | None:
    """What `stream` does, for prompts that begin with the same tokens: these are run once.

    Args:
        model: a model for which `why_not_shared` returns "".
        tokens: `[prompt, position]`, padded on the right.
        read: called with each activation of whole prompts, in the order of the pass.
        sites: site ("pattern", "v", "resid_post", ...) -> layers.
        lengths: `[prompt]`, beyond which is padding.
        at: `[prompt]`, one position for each prompt, after the shared ones, whose logits are wanted.

    Returns:
        Logits `[prompt, vocab]` at these positions.
    """
    start, cache = _shared(tokens, at), _Cache(model)
    if not start:
        return stream(model, tokens, read, sites, lengths=lengths, at=at)
    before: dict[tuple[str, int], Tensor] = {}

    def keep(site: str, layer: int, activation: Tensor) -> None:
        before[site, layer] = activation

    def join(site: str, layer: int, own: Tensor) -> None:
        read(site, layer, _joined(site, before.pop((site, layer)), own))

    first, own = tokens[:1, :start], tokens[:, start:]
    end = torch.tensor([start - 1])
    stream(model, first, keep, sites, lengths=None, at=end, arguments=cache.arguments(first))
    cache.repeat(len(tokens))
    return stream(
        model, own, join, sites, lengths=lengths - start, at=at - start, arguments=cache.arguments(own)
    )


def why_not_shared(model: Model, tokens: Tensor, lengths: Tensor, sites: Collection[str]) -> str:
    """Why `shared_stream` is not used on this model; empty if it agrees with whole runs.

    The two are compared in logits and in what is read, at the last token of two prompts.

    Args:
        model: any model.
        tokens: `[prompt, position]`, prompts that begin alike; the first two are run.
        lengths: `[prompt]`.
        sites: the sites that will be read.
    """
    if hooks := foreign_hooks(model):
        why = f"there are hooks on {', '.join(hooks[:3])}, which act only in whole runs"
    elif not is_causal(model):
        why = "the model attends to later tokens, so what stands first depends on what follows"
    elif is_bridge(model) and not hasattr(cast("Any", model).original_model, "generate"):
        why = "TransformerLens' own layers in a Bridge keep no keys and values"
    else:
        why = _checked(model, tokens[:2], lengths[:2], tuple(sorted(sites)))
        return refused(model, "prefix", why) if why else ""
    return refused(model, "prefix", why, failed=False)


def _checked(model: Model, tokens: Tensor, lengths: Tensor, sites: tuple[str, ...]) -> str:
    """How the two ways differ on these prompts, or empty; known if prompts as long passed on this model."""
    passed, key, longest = _PASSED.setdefault(model, {}), (made_of(model), sites), int(lengths.max())
    if passed.get(key, 0) >= longest:
        return ""
    why = tried(lambda: _differ(model, tokens[:, :longest], lengths, sites))
    if not why:
        passed[key] = longest
    return why


def _differ(model: Model, tokens: Tensor, lengths: Tensor, sites: tuple[str, ...]) -> str:
    at, rows = lengths - 1, torch.arange(len(tokens))
    wanted = {site: set(range(model.cfg.n_layers)) for site in sites}
    found: list[dict[str, Tensor]] = []
    for way in (stream, shared_stream):
        kept: dict[str, Tensor] = {}

        def keep(site: str, layer: int, activation: Tensor, kept: dict[str, Tensor] = kept) -> None:
            last = activation[rows, :, at] if site == "pattern" else activation[rows, at]
            kept[f"{site} of layer {layer}"] = full_precision(last)

        logits = way(model, tokens, keep, wanted, lengths=lengths, at=at)
        assert logits is not None
        found.append(kept | {"logits": full_precision(logits)})
    for what, whole in found[0].items():
        largest, apart = float(whole.abs().max()), float((whole - found[1][what]).abs().max())
        if not apart <= looseness(model) * (1 + largest):
            return (
                f"{what} at the last token differ by {apart:.2g} from whole runs, in which the largest number is "
                f"{largest:.2g}"
            )
    return ""


def _shared(tokens: Tensor, at: Tensor) -> int:
    """How many tokens the prompts share, from the first on, before the positions `at`."""
    same = (tokens == tokens[:1]).all(0)
    return min(int(same.int().cumprod(0).sum()), int(at.min()))


def _joined(site: str, before: Tensor, own: Tensor) -> Tensor:
    """An activation of whole prompts, from that at the shared tokens `[1, ...]` and each prompt's own."""
    dim = 1
    if site == "pattern":  # shared tokens attend to no later key
        dim, before = 2, torch.nn.functional.pad(before, (0, own.shape[3] - before.shape[3]))
    return torch.cat([before.expand(len(own), *before.shape[1:]), own], dim)


class _Cache:
    """The keys and values of the shared tokens, in the model's own kind of cache."""

    def __init__(self, model: Model) -> None:
        self.model, self.of_bridge = model, is_bridge(model)
        self.kept: Any
        if self.of_bridge:
            from transformers import DynamicCache

            self.kept = DynamicCache()
        else:
            from transformer_lens import TransformerLensKeyValueCache

            cfg: Any = model.cfg
            self.kept = TransformerLensKeyValueCache.init_cache(cfg, device_of(model))

    def arguments(self, tokens: Tensor) -> dict[str, Any]:
        """The arguments of a pass over the tokens that follow those in the cache."""
        if self.of_bridge:
            return {"past_key_values": self.kept, "use_cache": True}
        return {
            "past_kv_cache": self.kept,
            "attention_mask": torch.ones_like(tokens, device=device_of(self.model)),
        }

    def repeat(self, n: int) -> None:
        """Let n prompts follow, instead of one."""
        if self.of_bridge:
            self.kept.batch_repeat_interleave(n)
            return
        self.kept.freeze()
        for entry in self.kept.entries:
            entry.past_keys = entry.past_keys.expand(n, -1, -1, -1)
            entry.past_values = entry.past_values.expand(n, -1, -1, -1)
        self.kept.previous_attention_mask = self.kept.previous_attention_mask.expand(n, -1)
