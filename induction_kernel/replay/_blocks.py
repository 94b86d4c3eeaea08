"""The lane of any architecture: one layer run again by the model's own block, HookedTransformer or Bridge.

The arguments each block received are kept and passed again, widened (without its mask a GPT-J block of a Bridge runs
and is silently wrong). Every position runs again: this saves the layers before an edit and the unembedding, but not the
positions before the edit, as `_decoder` does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model._anatomy import Hook, Model, full_precision, hook_name, hooks_on, in_this_thread
from ..model._padding import hidden_padding
from ..model._runs import stream
from ._capture import Taps, pattern_hook, tapped_hooks

__all__ = ["Blocks", "at_positions"]

_BLOCK = 512  # rows unembedded at once


class Blocks:
    """Layers of one batch of prompts, computed again by the model's blocks.

    Attributes:
        name: "blocks".
        saves_positions: False: all positions run again.
        taps_log_pattern: False.
        n_layers: of the model.
        final: `[prompt, position, d_model]`, the residual stream after the last layer.
    """

    name = "blocks"
    saves_positions = False
    taps_log_pattern = False

    def __init__(self, model: Model, tokens: Tensor, lengths: Tensor | None) -> None:
        self.model: Any = model
        # A mask passed as an argument is among the arguments that blocks receive.
        self.masks: list[Hook] = hidden_padding(model, tokens, lengths)[1]
        self.n_prompts: int = len(tokens)
        self.n_layers: int = model.cfg.n_layers
        n_layers = self.n_layers
        self.arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {})] * n_layers
        self.entering: dict[int, Tensor] = {}
        handles = []

        def keep(layer: int) -> Any:
            def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self.arguments[layer] = args[1:], kwargs
                self.entering[layer] = args[0] if args else kwargs["hidden_states"]

            return hook

        last: list[Tensor] = []
        try:
            handles += [
                model.blocks[layer].register_forward_pre_hook(in_this_thread(keep(layer)), with_kwargs=True)
                for layer in range(n_layers)
            ]
            stream(
                model, tokens, lambda site, layer, resid: last.append(resid), {"resid_post": {n_layers - 1}},
                lengths=lengths,
            )  # fmt: skip
        finally:
            for handle in handles:
                handle.remove()
        self.final: Tensor = last[0]

    def resid_pre(self, layer: int) -> Tensor:
        """`[prompt, position, d_model]`, the untouched stream before a layer."""
        return self.entering[layer]

    def additions(self, site: str) -> None:
        """None: the layer has to run again, whatever is edited in it."""

    def pattern(self, layer: int) -> Tensor:
        """`[prompt, head, query, key]`, the untouched pattern."""
        return self._pattern(layer, self.resid_pre(layer)[None])[0]

    def _pattern(self, layer: int, rows: Tensor) -> Tensor:
        seen: list[Tensor] = []
        self._block(layer, rows, [pattern_hook(layer, len(rows), seen)])
        return seen[0]

    def step(
        self,
        layer: int,
        rows: Tensor,
        start: int,
        *,
        reads: Tensor | None = None,
        taps: Taps | None = None,
        held: Tensor | None = None,
    ) -> Tensor:
        """`rows [cell, prompt, position, d_model]` after the layer, at all positions or those in `reads`."""
        assert start == 0, "the model's blocks run on whole prompts"
        taps = taps or {}
        put = None if held is None else held[None]
        if "pattern" in taps:
            put = taps["pattern"](self._pattern(layer, rows))
        out = self._block(layer, rows, tapped_hooks(layer, taps, len(rows), put))
        return out if reads is None else at_positions(out, reads)

    def _block(self, layer: int, rows: Tensor, hooks: list[Hook]) -> Tensor:
        cells, (args, kwargs) = len(rows), self.arguments[layer]
        masks = [mask for mask in self.masks if mask[0] == hook_name("attn_scores", layer)]
        with hooks_on(self.model, [*masks, *hooks]):
            out = self.model.blocks[layer](
                rows.flatten(0, 1).contiguous().to(self.resid_pre(layer).device),  # may be on several
                *(self._widened(value, cells) for value in args),
                **{key: self._widened(value, cells) for key, value in kwargs.items()},
            )
        return (out[0] if isinstance(out, tuple) else out).unflatten(0, (cells, -1))

    def logits(self, resid: Tensor) -> Tensor:
        """`[..., vocab]` of the final residual stream `[..., d_model]`."""
        flat = resid.reshape(1, -1, resid.shape[-1])
        norm = getattr(self.model, "ln_final", None)  # None in a model without norms
        logits = self.model.unembed(flat if norm is None else norm(flat))
        cap = getattr(self.model.cfg, "output_logits_soft_cap", -1.0) or -1.0
        if cap > 0:
            logits = cap * torch.tanh(logits / cap)
        return logits.reshape(*resid.shape[:-1], -1)

    def log_sum_exp(self, resid: Tensor) -> Tensor:
        """`[...]` over the vocabulary, of the final residual stream `[..., d_model]`."""
        parts = resid.reshape(-1, resid.shape[-1]).split(_BLOCK)
        found = [full_precision(self.logits(part)).logsumexp(-1) for part in parts]
        return torch.cat(found).view(resid.shape[:-1])

    def target_logits(self, resid: Tensor, ids: Tensor) -> Tensor:
        """Logits of `ids [prompt, read, target]` for `resid [cell, prompt, read, d_model]`."""
        logits = self.logits(resid)
        return logits.gather(-1, ids.to(logits.device).expand(len(resid), -1, -1, -1))

    def _widened(self, value: Any, cells: int) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._widened(each, cells) for each in value)
        if isinstance(value, Tensor) and value.ndim > 1:
            of_prompts = value.shape[0] == self.n_prompts > 1
            # BLOOM's ALiBi counts the heads of all prompts along its first dimension
            of_heads = value.ndim == 3 and value.shape[:2] == (self.n_prompts * self.model.cfg.n_heads, 1)
            return value.repeat(cells, *[1] * (value.ndim - 1)) if of_prompts or of_heads else value
        if type(value).__name__.endswith("Cache"):
            return None  # a cache grows with every call
        return value


def at_positions(rows: Tensor, positions: Tensor) -> Tensor:
    """`rows [cell, prompt, position, ...]` at `positions [prompt, read]`."""
    prompt = torch.arange(rows.shape[1], device=rows.device)[:, None]
    return rows[:, prompt, positions.to(rows.device)]
