"""The logit lens: what the residual stream after each layer says of the next token (nostalgebraist 2020).

The stream goes through the final norm, with its own scale there, and the unembedding, as if it were the last one. Early
layers need not write in the basis of the last, so a token that cannot be read yet may be there (Belrose et al. 2023
learn a translation for each layer; that is not done here). `_components` says which component wrote the logit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import NotDefined, Refused
from ..model._anatomy import Model, check_model, full_precision, sizes
from ..model._outputs import check_next_token, n_outputs, outputs_are_tokens
from ..model._runs import batches, progress_bar, stream
from ..model._self_check import foreign_hooks, loose
from ..model._unembedding import LinearUnembedding, unembedding_of
from ..model._weights import check_final_norm
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, decoded, measured_on, real_positions
from ..replay._maps import final_norm
from ._directions import ANSWERS, NEXT, check_entries, read_positions, texts, token_coordinates, what_to_read
from ._streaming import chosen_layers

__all__ = ["logit_lens"]

ROWS = 128  # positions unembedded at a time


def logit_lens(
    model: Model,
    prompts: Any,
    *,
    on: str | None = None,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How well the right token can be read off the residual stream after every layer.

    At each layer, logits are those that the model would give if the stream after that layer were the last: its own
    mean and scale in the final norm, then the unembedding (and the model's cap on logits). The last layer's are the
    model's own.

    "next token": at every position, the next token of the prompt. "answers": at every position, the prompt's right
    answer; the model is asked for it at the last token.

    Args:
        model: any TransformerLens model with a final norm, or without norms.
        prompts: anything `as_prompts` takes.
        on: "next token" or "answers"; None for "answers" if the prompts have them, else "next token".
        layers: only after these; the embedding is always read.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over (prompt, layer, position), where layer -1 is the embedding, before any layer; NaN where a position
        has no next token, and in padding:

        | variable | meaning |
        |---|---|
        | `logit` | of the right token, less the mean over the vocabulary |
        | `difference` | the right answer's logit less the wrong one's; for answers alone |
        | `probability` | of the right token |
        | `rank` | of the right token: 1 if no token has a higher logit |

        Coordinates `token[prompt, position]` (text), `length`, for answers `right` and `wrong` (text), and
        `top[prompt, layer, position]`, the id of the token with the highest logit (-1 where nothing is read), whose
        text is in `top_token[top_id]`: `found["top_token"].sel(top_id=found["top"])` are the texts of all.

    Raises:
        Refused: a prompt with nothing to read, no answers, an unknown `on`, layers that are not there, a model that is
            not finite.
        NotDefined: a model without a final norm (OPT-350m) or with an unembedding that is not linear; one whose logits
            are scaled afterwards; for next tokens also one with bidirectional attention, or whose outputs are not its
            tokens.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; the author's code (transformer-utils,
    `logit_lens/hooks.py`) decodes the output of each block by the final norm and the unembedding, as here.
    """
    check_model(model)
    ready = as_prompts(model, prompts)
    on, chosen = what_to_read(ready, on), chosen_layers(model, layers)
    check_final_norm(model)
    if on == NEXT:
        check_next_token(model, f'logit_lens(on="{NEXT}")')
    everywhere = replace(ready, scored=real_positions(ready.tokens, ready.lengths))
    check_entries(everywhere, on, n_outputs(model), "logit_lens")
    linear = unembedding_of(model)
    if linear is None:
        raise NotDefined(
            "the unembedding of this model is not a linear layer, so the stream cannot be read by it"
        )
    found, length, size = _Lens(model, ready, on, linear, [-1, *chosen]), ready.tokens.shape[1], sizes(model)
    parts = batches(
        len(ready), length, batch_size=batch_size, cost=max(length * size.n_heads, 8 * size.d_model)
    )
    with progress_bar(len(ready), progress=progress, unit="run") as bar:
        for rows in parts:
            found.read(everywhere[rows], rows)
            bar.update(len(everywhere[rows]))
    return found.dataset()


class _Places(NamedTuple):
    """Where a batch is read, and which token is the right one there, each `[entry]`."""

    prompt: Tensor
    position: Tensor
    right: Tensor
    wrong: Tensor | None

    def some(self, at: Tensor) -> _Places:
        """Some of the entries."""
        wrong = None if self.wrong is None else self.wrong[at]
        return _Places(self.prompt[at], self.position[at], self.right[at], wrong)


class _Lens:
    """The numbers of one lens, filled in batch by batch."""

    def __init__(
        self, model: Model, prompts: Prompts, on: str, linear: LinearUnembedding, layers: list[int]
    ) -> None:
        self.model, self.prompts, self.on, self.linear, self.layers = model, prompts, on, linear, layers
        names = ["logit", "probability", "rank"] + (["difference"] if on == ANSWERS else [])
        shape = (len(prompts), len(layers), prompts.tokens.shape[1])
        self.values: dict[str, np.ndarray] = {name: np.full(shape, np.nan) for name in names}
        self.top: np.ndarray = np.full(shape, -1, dtype=np.int32)

    def read(self, batch: Prompts, rows: slice) -> None:
        """One pass over some prompts."""
        places, last = self._places(batch), batch.lengths - 1
        ends: dict[int, Tensor] = {}
        n_layers = sizes(self.model).n_layers

        def read(site: str, layer: int, activation: Tensor) -> None:
            layer, stream_here = layer if site == "resid_post" else -1, activation.detach()
            if layer == n_layers - 1:
                ends[layer] = self._logits(stream_here, torch.arange(len(last)), last)
            if layer not in self.layers:
                return
            at = self.layers.index(layer)
            for some in torch.arange(len(places.prompt)).split(ROWS):
                part = places.some(some)
                self._put(self._logits(stream_here, part.prompt, part.position), part, rows.start, at)

        sites = {"resid_pre": {0}, "resid_post": {*self.layers, n_layers - 1} - {-1}}
        own = stream(self.model, batch.tokens, read, sites, lengths=batch.lengths, at=last)
        assert own is not None  # at= asks for them
        self._check(ends[n_layers - 1], full_precision(own).to(ends[n_layers - 1].device))

    def _places(self, batch: Prompts) -> _Places:
        if self.on == ANSWERS and batch.answers is not None:
            prompt, position = real_positions(batch.tokens, batch.lengths).nonzero(as_tuple=True)
            right, wrong = batch.answers[prompt].T
            return _Places(prompt, position, right, wrong)
        prompt, position = read_positions(batch).nonzero(as_tuple=True)
        return _Places(prompt, position, batch.tokens[prompt, position + 1], None)

    def _logits(self, stream_here: Tensor, prompt: Tensor, position: Tensor) -> Tensor:
        """`[entry, vocab]`, in float32 or better."""
        rows = stream_here[prompt.to(stream_here.device), position.to(stream_here.device)]
        return full_precision(self.linear.logits(final_norm(self.model, rows)))

    def _put(self, logits: Tensor, part: _Places, start: int, at: int) -> None:
        each = torch.arange(len(logits), device=logits.device)
        right = logits[each, part.right.to(logits.device)]
        found = {
            "logit": right - logits.mean(-1),
            "probability": (right - logits.logsumexp(-1)).exp(),
            "rank": 1 + (logits > right[:, None]).sum(-1),
        }
        if part.wrong is not None:
            found["difference"] = right - logits[each, part.wrong.to(logits.device)]
        where = (part.prompt + start).numpy(), at, part.position.numpy()
        for name, values in found.items():
            self.values[name][where] = values.cpu().double().numpy()
        self.top[where] = logits.argmax(-1).cpu().numpy()

    def _check(self, lens: Tensor, own: Tensor) -> None:
        """Raise unless the lens at the last layer gives the model's own logits at each prompt's last token."""
        if not bool(lens.isfinite().all()):
            raise Refused(
                "logits are not finite: look for NaN or infinite weights (or overflow in float16) in the model"
            )
        apart = (lens - own).abs().max()
        if not foreign_hooks(self.model) and bool(apart > 10 * loose(self.model) * (1 + own.abs().max())):
            raise NotDefined(
                "the final norm and the unembedding of this model do not give its logits (they differ by up to "
                f"{float(apart):.3g}): it scales them, so what they give of earlier layers would not be comparable"
            )

    def dataset(self) -> xr.Dataset:
        """All that was read, labelled."""
        dims, model = ("prompt", "layer", "position"), self.model
        tokenizer = getattr(model, "tokenizer", None) if outputs_are_tokens(model) else None  # else classes
        # Texts stand apart from the cells: in them, each cell would be as wide as the longest token.
        ids = np.unique(self.top)
        names = np.array(["" if token < 0 else decoded(tokenizer, [int(token)]) for token in ids])
        return xr.Dataset(
            {name: (dims, values) for name, values in self.values.items()},
            coords={
                **token_coordinates(model, self.prompts, self.on, "position"),
                "layer": self.layers,
                "top": (dims, self.top),
                "top_id": ids,
                "top_token": ("top_id", names),
                "text": ("prompt", texts(model, self.prompts)),
            },
            attrs={
                "method": "logit_lens",
                "title": "logit lens of the " + ("next token" if self.on == NEXT else "right answer"),
                "paper": "nostalgebraist 2020, interpreting GPT: the logit lens",
                "unit": "probability, logits",
                "on": self.on,
                "convention": "layer -1 is the embedding; the final norm has its own scale at each layer",
                **measured_on(model, self.prompts),
            },
        )
