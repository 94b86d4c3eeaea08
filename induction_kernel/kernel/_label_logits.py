"""`label_logits`: how much a head that attends to a label raises that label's logit (direct logit attribution).

At a label's position a head's value is v_j. With attention 1 to it, the head writes (v_j - b_V) W_O into the last
token's residual stream. Through the final norm, with its scale as in the run, and the unembedding (Elhage et al. 2021),
this adds to the logit of the label y_j, relative to the mean over all labels,

    writes = mean over demonstrations j of (v_j - b_V) W_O (u_{y_j} - mean_y u_y) / scale.

The attention itself is not used (see `demonstration_weights`), and effects through later layers are not included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import Refused
from ..heads._names import names_of
from ..model._anatomy import Model, full_precision, per_query_head, sizes
from ..model._norms import final_norm_scale
from ..model._outputs import check_words
from ..model._runs import batches, progress_bar, stream
from ..model._weights import check_weights, check_writing, unembedding, value_weights
from ..prompts._prompts import FewShotPrompts, measured_on
from ..scorers._directions import along
from ..scorers._labels import label_attention

__all__ = ["LabelWriting", "label_logits"]


def label_logits(
    model: Model, prompts: Any = None, *, batch_size: int | None = None, progress: bool = True
) -> xr.Dataset:
    """How much each head, if it attended to a demonstration's label alone, would raise the logit of that label.

    `sum_heads(weights, writes)` uses it to weight the heads of a layer by what they write about labels. The model's
    predictions are not used.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream without a norm in between.
        prompts: few-shot prompts; None for `word_episodes(model)`.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `writes[layer, head]` in logits, the mean over each prompt's demonstrations and then over prompts:
        above 0 if the head copies labels, 0 if it writes nothing that distinguishes labels, below 0 if it suppresses
        them.

    Raises:
        TypeError: not a model.
        Refused: prompts without demonstrations, a model that is not finite.
        NotDefined: a model that norms what attention writes (Gemma 2 and 3, OLMo 2 and 3), has no final norm
            (OPT-350m), or whose outputs are not its tokens.

    Source: Elhage et al. 2021 (direct logit attribution); its use for label words is this package's.
    """
    ready = label_attention.ready(model, prompts)
    writes, size = LabelWriting(model, ready), sizes(model)
    parts = batches(len(ready), ready.tokens.shape[1], batch_size=batch_size, cost=8 * size.d_model)
    with progress_bar(len(parts), progress=progress, unit="batch") as bar:
        for rows in parts:
            batch = ready[rows]
            stream(model, batch.tokens, writes.reader(batch), writes.sites, lengths=batch.lengths)
            bar.update()
    return writes.dataset()


class LabelWriting:
    """What heads write about labels, summed over prompts, batch by batch.

    `label_logits` uses it, and `answered` in `fewshot`, which measures several things in one pass.
    """

    def __init__(self, model: Model, prompts: FewShotPrompts) -> None:
        """Prepare for these prompts; raises Refused and NotDefined as in `label_logits`."""
        layers = list(range(sizes(model).n_layers))
        check_words(model, "label_logits")
        check_writing(model, layers)
        check_weights(model, layers)
        self.model, self.prompts, self.n_prompts = model, prompts, len(prompts)
        self.sites = {"v": set(layers), "resid_post": {layers[-1]}}
        self._directions = _label_directions(model, prompts)
        self._writes = np.zeros((len(layers), sizes(model).n_heads))

    def reader(self, batch: FewShotPrompts) -> Callable[[str, int, Tensor], None]:
        """A function that takes every layer's values in a batch, then the residual stream before the final norm."""
        found = batch.demonstrations
        prompt, slot = found.mask.nonzero(as_tuple=True)
        position = found.label_positions[prompt, slot]
        direction = self._directions[found.classes[prompt, slot].to(self._directions.device)]
        share = 1.0 / found.mask.sum(1).double()
        parts: dict[int, Tensor] = {}

        def read(site: str, layer: int, activation: Tensor) -> None:
            if site == "v":
                _, b_v, w_o = value_weights(self.model, layer)
                values = per_query_head(activation.detach()[prompt, position], sizes(self.model).n_heads, 1)
                moved = full_precision(values)
                parts[layer] = along(moved - b_v.to(moved), full_precision(w_o), direction).cpu().double()
                return
            last = activation.detach()[torch.arange(len(batch)), batch.lengths - 1]
            weight = (share / final_norm_scale(self.model, full_precision(last)).cpu().double())[prompt, None]
            summed = torch.stack([(parts[each] * weight).sum(0) for each in range(len(parts))])
            self._writes += summed.numpy() / len(self.prompts)

        return read

    def dataset(self) -> xr.Dataset:
        """The Dataset that `label_logits` returns."""
        if not np.isfinite(self._writes).all():
            raise Refused("what heads write is not finite: look for NaN or infinite weights in the model")
        n_layers, n_heads = self._writes.shape
        names = names_of(range(n_layers), range(n_heads))
        return xr.Dataset(
            {"writes": (("layer", "head"), self._writes)},
            {"layer": np.arange(n_layers), "head": np.arange(n_heads), "name": (("layer", "head"), names)},
            {
                "method": "label_logits",
                "unit": "logits",
                "norm": "final norm with its scale as in the run",
                **measured_on(self.model, self.prompts),
            },
        )


def _label_directions(model: Model, prompts: FewShotPrompts) -> Tensor:
    """Directions `[label, d_model]` in which the residual stream raises a label's logit over the mean of all labels."""
    columns = unembedding(model).T
    found = columns[prompts.demonstrations.label_ids.to(columns.device)]
    return found - found.mean(0)
