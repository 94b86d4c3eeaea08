"""`writers_and_cancellers`: heads that write a task's right answer at the last token, and heads that write against it.

The signed direct effect of Wang 2026 (arXiv 2606.07560, "refined direct logit attribution"):
u (c - mean c) / s, where c is what a head writes at the last token of a few-shot prompt, mean c its mean over the
prompts, u the right answer's direction in the unembedding less the wrong one's, and s the final norm's scale. The score
of `_function_vectors` is an effect through the whole model; this is the head's own part, with its sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..data._episodes import Episodes
from ..errors import Refused
from ..heads._names import names_of
from ..metrics._targets import right_answer
from ..model._anatomy import Model, full_precision, sizes
from ..model._norms import final_norm_scale
from ..model._outputs import check_words
from ..model._runs import progress_bar, stream
from ..model._weights import check_weights, check_writing, unembedding, value_weights
from ..prompts._conversion import as_prompts
from ..prompts._prompts import FewShotPrompts, Prompts, measured_on
from ..scorers._directions import along
from ..scorers._streaming import chosen_layers
from ._changed_predictions import batches_of_one_length

__all__ = ["writers_and_cancellers"]


def writers_and_cancellers(
    model: Model,
    prompts: Any,
    *,
    layers: Iterable[int] | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much each head itself writes for the right answer of each few-shot prompt, beyond what it always writes.

    A head's mean over the prompts is taken away, so what counts is that it writes the answer of this prompt: a head
    that writes the same on all prompts has effect 0. Writers have positive effects, cancellers negative ones; ranking
    by size alone mixes the two. Effects through later layers are not included.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream with no norm in between.
        prompts: few-shot prompts whose right labels are known, or episodes; or prompts with answers. At least two, and
            with more than one right answer.
        layers: only these; None for all.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `effect[prompt, layer, head]` in logits: of the right answer less the wrong one (of few-shot
        prompts the mean over all other labels). `summarise` tests both signs over prompts and ranks by size;
        `top_heads(found, by="excess")` are the writers, `top_heads(found, by="excess", largest=False)` the cancellers.

    Raises:
        TypeError: not prompts.
        Refused: no right answers, or the same one in all prompts; a model that is not finite.
        NotDefined: a model that normalises what attention writes (Gemma 2 and 3, OLMo 2 and 3) or has no final norm;
            one whose outputs are not its tokens.

    Source: Wang 2026 (arXiv 2606.07560), refined direct logit attribution, as `per_head_refined_dla` of the released
        code has it. This package's own are the final norm's scale and centring as in the run (there the scale is the
        stream's standard deviation) and the mean over several wrong labels.
    """
    check_words(model, "writers_and_cancellers")
    ready = prompts.prompts(model) if isinstance(prompts, Episodes) else as_prompts(model, prompts)
    wanted, size = chosen_layers(model, layers), sizes(model)
    right, wrong = _answers(ready)
    check_writing(model, wanted)
    check_weights(model, wanted)
    read, scale = _last_tokens(model, ready, wanted, max_tokens, progress)
    w_u = unembedding(model).T
    direction = w_u[right.to(w_u.device)] - w_u[wrong.to(w_u.device)].mean(1)
    effect = np.empty((len(ready), len(wanted), size.n_heads))
    for at, layer in enumerate(wanted):
        w_o = full_precision(value_weights(model, layer)[2])
        centred = read[layer] - read[layer].mean(0)
        effect[:, at] = (along(centred.to(w_o.device), w_o, direction).cpu() / scale[:, None]).numpy()
    if not np.isfinite(effect).all():
        raise Refused("direct effects are not finite: look for NaN or infinite weights in the model")
    heads = range(size.n_heads)
    coords = {
        "prompt": np.arange(len(ready)), "layer": wanted, "head": np.arange(size.n_heads),
        "name": (("layer", "head"), names_of(wanted, heads)),
    }  # fmt: skip
    attrs = {
        "method": "writers_and_cancellers", "paper": "Wang 2026", "unit": "logits", "better": "neither",
        "title": "direct effect on the right answer, beyond the head's mean over prompts",
        "norm": "final norm with its scale as in the run", **measured_on(model, ready),
    }  # fmt: skip
    return xr.Dataset({"effect": (("prompt", "layer", "head"), effect)}, coords, attrs)


def _answers(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Ids of each prompt's right answer `[prompt]` and of the wrong ones `[prompt, wrong]`."""
    right = right_answer(prompts)[:, 0]
    if len(prompts) < 2 or len(right.unique()) < 2:
        raise Refused(
            "wanted prompts with at least two different right answers, since each head's mean over prompts is taken "
            f"away, got {len(prompts)} prompts with {len(right.unique())}"
        )
    if prompts.answers is not None:
        return right, prompts.answers[:, 1:]
    assert isinstance(prompts, FewShotPrompts)  # checked in `right_answer`
    ids = prompts.demonstrations.label_ids
    return right, torch.stack([ids[ids != each] for each in right])


def _last_tokens(
    model: Model, prompts: Prompts, layers: list[int], max_tokens: int | None, progress: bool
) -> tuple[dict[int, Tensor], Tensor]:
    """Layer -> z `[prompt, head, d_head]` at the last tokens; and the final norm's scale there, `[prompt]`."""
    read: dict[int, Tensor] = {}
    scale = torch.zeros(0)
    last_layer = sizes(model).n_layers - 1
    with progress_bar(len(prompts), progress=progress, unit="prompt") as bar:
        for rows, batch, _ in batches_of_one_length(model, prompts, max_tokens):

            def keep(site: str, layer: int, activation: Tensor, rows: Tensor = rows) -> None:
                nonlocal scale
                last = full_precision(activation.detach()[:, -1])
                value = (last if site == "z" else final_norm_scale(model, last)).cpu()
                if site == "resid_post":
                    scale = value.new_zeros(len(prompts)) if not len(scale) else scale
                    scale[rows] = value
                else:
                    read.setdefault(layer, value.new_zeros(len(prompts), *value.shape[1:]))[rows] = value

            sites = {"z": set(layers), "resid_post": {last_layer}}
            stream(model, batch.tokens, keep, sites, lengths=None)
            bar.update(len(rows))
    return read, scale
