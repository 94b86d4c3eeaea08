"""The lane for any architecture: a layer is run again by the model's own block (HookedTransformer or Bridge).

A lane is a way of running layers again; this one keeps the arguments that each block received and passes them again,
repeated for a widened batch (the prompts once for each edited run, or cell). Without its mask, for example, a GPT-J
block of a Bridge runs and is silently wrong. All positions run again: this saves the layers before an edit and the
unembedding, but not, as `_decoder` does, the positions before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model._anatomy import Hook, Model, full_precision, hook_name, hooks_on, in_this_thread
from ..model._padding import hidden_padding
from ..model._runs import stream
from ..model._unembedding import capped, unembedding_of
from ._capture import Taps, pattern_hook, tapped_hooks
from ._rows import Rows, leaving, rows_at, tapped

__all__ = ["Blocks"]

_AT_ONCE = 2**24  # logits in memory at a time


class Blocks:
    """Layers of one batch of prompts, run again by the model's own blocks.

    Attributes:
        name: "blocks".
        saves_positions: False: all positions run again.
        taps_log_pattern: False: `step` takes no taps on the logarithm of a pattern.
        n_layers: of the model.
        final: `[prompt, position, d_model]`, the residual stream after the last layer.
    """

    name = "blocks"
    saves_positions = False
    taps_log_pattern = False

    def __init__(self, model: Model, tokens: Tensor, lengths: Tensor | None) -> None:
        self.model: Any = model
        # A mask that is passed as an argument is kept with the blocks' arguments.
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
        """The untouched residual stream before a layer, `[prompt, position, d_model]`."""
        return self.entering[layer]

    def additions(self, site: str) -> None:
        """None: the layer has to run again for every edit."""

    def pattern(self, layer: int) -> Tensor:
        """The untouched pattern of a layer, `[prompt, head, query, key]`."""
        return self._pattern(layer, self.resid_pre(layer)[None])[0]

    def _pattern(self, layer: int, rows: Tensor) -> Tensor:
        seen: list[Tensor] = []
        self._block(layer, rows, [pattern_hook(layer, len(rows), seen)])
        return seen[0]

    def step(
        self,
        layer: int,
        rows: Rows,
        *,
        reads: Tensor | None = None,
        taps: Sequence[Taps] | None = None,
        held: Tensor | None = None,
    ) -> Rows:
        """The rows after the layer, at all positions or at those in `reads` if they are fewer.

        Args:
            layer: the layer to run.
            rows: the stream that enters it, of a single part with all positions.
            reads: `[prompt, read]`, the positions wanted; None for all.
            taps: for the part, functions that replace activations in the layer, by site.
            held: the pattern to hold fixed.
        """
        (part,), (tap,) = rows.parts, taps or [{}]
        assert part.start == 0, "the model's blocks run on whole prompts"
        stream = tapped(tap, "resid_pre", rows.views[0])
        put = None if held is None else held[None]
        if "pattern" in tap:
            put = tap["pattern"](self._pattern(layer, stream))
        out = self._block(layer, stream, tapped_hooks(layer, tap, len(stream), put))
        after = Rows.of([part], rows.n_prompts, [tapped(tap, "resid_post", out)])
        return rows_at(after, [leaving(part, reads, out.shape[2])])

    def _block(self, layer: int, rows: Tensor, hooks: list[Hook]) -> Tensor:
        cells, (args, kwargs) = len(rows), self.arguments[layer]
        masks = [mask for mask in self.masks if mask[0] == hook_name("attn_scores", layer)]
        with hooks_on(self.model, [*masks, *hooks]):
            out = self.model.blocks[layer](
                rows.flatten(0, 1)
                .contiguous()
                .to(self.resid_pre(layer).device),  # devices may differ by layer
                *(self._widened(value, cells) for value in args),
                **{key: self._widened(value, cells) for key, value in kwargs.items()},
            )
        return (out[0] if isinstance(out, tuple) else out).unflatten(0, (cells, -1))

    def logits(self, resid: Tensor) -> Tensor:
        """Logits `[..., vocab]` of the final residual stream `[..., d_model]`."""
        flat = self._normed_at_the_end(resid).reshape(1, -1, resid.shape[-1])
        return capped(self.model, self.model.unembed(flat)).reshape(*resid.shape[:-1], -1)

    def target_logits(self, resid: Tensor, ids: Tensor) -> Tensor:
        """Logits of `ids [prompt, read, target]` for `resid [cell, prompt, read, d_model]`."""
        if (unembedding := unembedding_of(self.model)) is None:
            return self._of_all_logits(resid, ids, lambda logits: logits)
        return unembedding.target_logits(self._normed_at_the_end(resid), ids)

    def log_probabilities(self, resid: Tensor, ids: Tensor) -> Tensor:
        """The same of log-probabilities, in float32 or better; logits of the whole vocabulary are not kept."""
        if (unembedding := unembedding_of(self.model)) is None:
            return self._of_all_logits(resid, ids, lambda logits: full_precision(logits).log_softmax(-1))
        return unembedding.log_probabilities(self._normed_at_the_end(resid), ids)

    def _normed_at_the_end(self, resid: Tensor) -> Tensor:
        """The final stream after the final norm; a model without norms has none."""
        norm = getattr(self.model, "ln_final", None)
        return resid if norm is None else norm(resid.reshape(1, -1, resid.shape[-1])).view(resid.shape)

    def _of_all_logits(self, resid: Tensor, ids: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        """What `read` makes of the logits of the whole vocabulary, at `ids`; a few rows at a time."""
        ids = ids.expand(len(resid), -1, -1, -1)
        flat, wanted = resid.flatten(0, -2), ids.flatten(0, -2)
        at_once = max(1, _AT_ONCE // self.model.cfg.d_vocab)
        parts = zip(flat.split(at_once), wanted.split(at_once), strict=True)
        found = [read(logits := self.logits(rows)).gather(-1, of.to(logits.device)) for rows, of in parts]
        return torch.cat(found).view(ids.shape)

    def _widened(self, value: Any, cells: int) -> Any:
        """A block's argument, with tensors that have a prompt dimension repeated for each cell."""
        if isinstance(value, tuple | list):
            return type(value)(self._widened(each, cells) for each in value)
        if isinstance(value, Tensor) and value.ndim > 1:
            of_prompts = value.shape[0] == self.n_prompts > 1
            # BLOOM's ALiBi counts the heads of all prompts along its first dimension
            of_heads = value.ndim == 3 and value.shape[:2] == (self.n_prompts * self.model.cfg.n_heads, 1)
            return value.repeat(cells, *[1] * (value.ndim - 1)) if of_prompts or of_heads else value
        if type(value).__name__.endswith("Cache"):
            return None  # a key/value cache would grow with every call
        return value
