"""Direct effects: what heads and all other components write into the logits, through the frozen final norm.

Elhage et al. 2021 (direct logit attribution): the last residual stream is a sum, and with the final norm's scale held
at what it was in the run, the logits are a sum over what was written into it. A head that lowers the right answer
suppresses copies (McDougall et al. 2023). Effects through later layers are not included: `interventions` measures them.
`_attention` scores where a head looks; `_logit_lens` reads logits off the stream after every layer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import Refused
from ..metrics._by_position import loss_dataset, losses_in
from ..model._anatomy import Model, check_model, sizes
from ..model._runs import progress_bar
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ._components import by_component
from ._directions import NEXT, TITLES, head_effects, not_finite, passes, prepared
from ._source_tokens import by_token
from ._streaming import averaged, labelled

__all__ = ["direct_effect", "direct_effect_and_loss"]

HEADS = ("layer", "head")
BY = (HEADS, ("component",), ("component", "position"), ("head", "position"), ("head", "key"))


def direct_effect(
    model: Model,
    prompts: Any = None,
    *,
    on: str | None = None,
    by: str | Sequence[str] | None = None,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much a head itself, or any component, adds to the logit of the right token; negative if it suppresses it.

    At a position, a head adds (z - b_V) W_O to the residual stream: its output without the value bias, which it adds on
    every prompt. The score is what this contributes to the logits, through the unembedding and the final norm with its
    scale as in the untouched run. The measure is linear: heads, embeddings, MLPs and biases add up to the logits
    (before a soft cap or scaling, if the model has one; by component such a model is refused).

    "next token": the logit of the next token of the prompt less the mean over the vocabulary, averaged over
    scored positions that have a next token. On repeated tokens, a `score` below `control` is copy suppression;
    `top_heads(scores, largest=False)` finds the strongest. "answers": the right answer's logit less the wrong one's, at
    the last token.

    | `by` | dimensions of `score` after `prompt` |
    |---|---|
    | None | layer, head |
    | ("component",) | component |
    | ("component", "position") | component, position |
    | ("head", "position") | layer, head, position |
    | ("head", "key") | layer, head, key |

    Components are the embedding, the positional embedding (where it is added to the stream), every head ("L5H1"), the
    attention biases of each layer (b_O, and b_V W_O of its heads), every MLP, and the biases of the final norm and of
    the unembedding. Their sum is `total`, the model's own logit (less the mean, or the wrong one's), but for `missing`:
    rounding, or what the user's own hooks write.

    By position, every position read stands for itself, NaN elsewhere. By key, a head is split by what it reads: it
    writes A[q, k] (v_k - b_V) W_O about key k, averaged over the positions q that are read. The sum over keys is the
    head's effect but for `missing`: rounding, an attention sink that is no key, or a z that the user's hooks edit.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream with no norm in between.
        prompts: anything `as_prompts` takes; None for repeated tokens.
        on: "next token" or "answers"; None for "answers" if the prompts have them, else "next token".
        by: one of the above.
        layers: only these; not by component, since the sum needs all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `score` in logits and `chance[prompt]`, 0. If the prompts have a matched control, `control`, of the
        same shape: a run on the control, read at the same positions for the same tokens. Without one there is no
        credible null (a random head prefers some tokens to others), and `summarise` marks no head. By component also
        `total` and `missing`, `[prompt]` or `[prompt, position]`, and the coordinates `kind`, `layer` and `head` of
        each component (-1 where it has none); by key `missing[prompt, layer, head]`; by position or key the
        coordinates `token` (text), `length`, and for answers `right` and `wrong` (text).

    Raises:
        Refused: a prompt with nothing to read, no answers, an unknown `on` or `by`, a model that is not finite.
        NotDefined: one that normalises what attention writes (Gemma 2 and 3, OLMo 2 and 3) or has no final norm
            (OPT-350m); for next tokens also one with bidirectional attention, or whose outputs are not its tokens
            (there, answers are classes); by component one whose components do not add up to its logits (scaled or
            capped logits).

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (direct logit attribution; a head's
    output as a sum over source tokens of A v W_O); McDougall et al. 2023 (copy suppression).
    """
    check_model(model)
    how = _checked_by(by, layers)
    ready = as_prompts(model, prompts) if prompts is not None else _repeats(model)
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    if how == HEADS:
        return _measured(model, ready, on, layers=layers, **options)[0]
    if how[0] == "component":
        return by_component(model, ready, on, positions="position" in how, **options)
    return by_token(model, ready, on, dim="key" if "key" in how else "position", layers=layers, **options)


def _checked_by(by: str | Sequence[str] | None, layers: Any) -> tuple[str, ...]:
    """`by` as one of `BY`, else Refused."""
    how = HEADS if by is None else (by,) if isinstance(by, str) else by
    if not isinstance(how, Sequence) or tuple(how) not in BY:
        raise Refused(f"wanted by=None or one of {', '.join(map(str, BY[1:]))}, got {by!r}")
    if how[0] == "component" and layers is not None:
        raise Refused(
            'wanted no layers= with by="component": the components of all layers add up to the logit'
        )
    return tuple(how)


def direct_effect_and_loss(
    model: Model, prompts: Prompts, *, progress: bool = True
) -> tuple[xr.Dataset, xr.Dataset]:
    """`direct_effect` on next tokens and `loss_by_position` of the same prompts, from the same passes.

    Raises:
        As both.
    """
    found, losses = _measured(model, prompts, NEXT, progress=progress, whole=True)
    return found, loss_dataset(model, prompts, torch.cat(losses))


def _measured(
    model: Model,
    ready: Prompts,
    on: str | None,
    *,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    whole: bool = False,
) -> tuple[xr.Dataset, list[Tensor]]:
    """The direct effects, and with `whole` the losses of next tokens, batch by batch."""
    on, wanted = prepared(model, ready, on, layers)
    size, length = sizes(model), ready.tokens.shape[1]
    names = ["score", *(["control"] if ready.control is not None else [])]
    values = {name: np.full((1, len(ready), len(wanted), size.n_heads), np.nan) for name in names}
    cost = max(length * size.n_heads, 8 * size.d_model, size.d_vocab if whole else 0)
    losses = list[Tensor]()
    with progress_bar(len(ready) * len(names), progress=progress, unit="run") as bar:
        for one in passes(model, ready, on, batch_size=batch_size, cost=cost):
            logits_too = whole and one.name == "score"
            scaled, _, logits = head_effects(model, one, wanted, bar.update, whole=logits_too)
            summed = averaged(scaled.flatten(1), one.targets.prompt, one.targets.weight, len(one.tokens))
            values[one.name][0, one.rows] = summed.unflatten(1, scaled.shape[1:]).numpy()
            losses += [] if logits is None else [losses_in(model, logits, ready[one.rows])]
    not_finite(values.values())
    scorer, chance = _Direct(on, tested=ready.control is not None), np.zeros((1, len(ready)))
    out = labelled(model, ready, wanted, values, chance, [scorer]).isel(scorer=0)
    convention = "z without its share of the value bias is what is read"
    norm = "final norm with its scale as in the run"
    return out.assign_attrs(unit="logits", on=on, norm=norm, convention=convention), losses


class _Direct:
    """The name, paper and title of direct effects, for `labelled`."""

    def __init__(self, on: str, *, tested: bool) -> None:
        self.name, self.tested = "direct_effect", tested
        self.paper = "Elhage et al. 2021, direct logit attribution; McDougall et al. 2023, copy suppression"
        self.title = TITLES[on]


def _repeats(model: Model) -> Prompts:
    return repeated_tokens(model)
