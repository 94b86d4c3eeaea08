"""Direct effects: what each head writes into the logits, through the frozen final norm.

Elhage et al. 2021 (direct logit attribution): the last residual stream is a sum, and with the final norm's scale held
at what it was in the run, the logits are a sum over heads too. A head that lowers the right answer suppresses copies
(McDougall et al. 2023). Effects through later layers are not included: `interventions` measures them. `_attention`
scores where a head looks.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..errors import Refused
from ..metrics._by_position import loss_dataset, losses_in
from ..model._anatomy import Model, check_model, full_precision, sizes
from ..model._outputs import check_next_token, n_outputs
from ..model._runs import batches, progress_bar, stream
from ..model._self_check import foreign_hooks
from ..model._weights import check_weights, check_writing, unembedding, value_weights
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ._pattern_entries import attends, check_sound
from ._streaming import averaged, chosen_layers, labelled

__all__ = ["along", "direct_effect", "direct_effect_and_loss", "norm_scale"]

NEXT, ANSWERS = "next token", "answers"


def direct_effect(
    model: Model,
    prompts: Any = None,
    *,
    on: str | None = None,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much a head itself adds to the logit of the right token; negative if it suppresses the token.

    At a position, a head adds (z - b_V) W_O to the residual stream: its output without the value bias, which it adds on
    every prompt. The score is what this contributes to the logits, through the unembedding and the final norm with its
    scale as in the untouched run. The measure is linear: heads, embeddings, MLPs and biases add up to the logits
    (before a soft cap or scaling, if the model has one).

    "next token": the logit of the next token of the prompt less the mean over the vocabulary, averaged over
    scored positions that have a next token. On repeated tokens, a `score` below `control` is copy suppression;
    `top_heads(scores, largest=False)` finds the strongest. "answers": the right answer's logit less the wrong one's, at
    the last token.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream with no norm in between.
        prompts: anything `as_prompts` takes; None for repeated tokens.
        on: "next token" or "answers"; None for "answers" if the prompts have them, else "next token".
        layers: only these.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `score[prompt, layer, head]` in logits and `chance[prompt]`, 0. If the prompts have a matched
        control, `control[prompt, layer, head]`: a run on the control, read at the same positions for the same tokens.
        Without one there is no credible null (a random head prefers some tokens to others), and `summarise` marks no
        head.

    Raises:
        Refused: a prompt with nothing to read, no answers, an unknown `on`, a model that is not finite.
        NotDefined: one that normalises what attention writes (Gemma 2 and 3, OLMo 2 and 3) or has no final norm
            (OPT-350m); for next tokens also one with bidirectional attention, or whose outputs are not its tokens
            (there, answers are classes).

    Source: Elhage et al. 2021 (direct logit attribution); McDougall et al. 2023 (copy suppression).
    """
    check_model(model)
    ready = as_prompts(model, prompts) if prompts is not None else _repeats(model)
    options: dict[str, Any] = {"layers": layers, "batch_size": batch_size, "progress": progress}
    return _measured(model, ready, on, **options)[0]


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
    on, wanted, size = _what(ready, on), chosen_layers(model, layers), sizes(model)
    check_writing(model, wanted)
    if on == NEXT:
        check_next_token(model, f'direct_effect(on="{NEXT}")')
    _check_entries(ready, on, n_outputs(model))
    check_weights(model, wanted)
    w_u = unembedding(model)
    runs = [("score", ready.tokens)] + ([("control", ready.control)] if ready.control is not None else [])
    values = {name: np.full((1, len(ready), len(wanted), size.n_heads), np.nan) for name, _ in runs}
    length = ready.tokens.shape[1]
    cost = max(length * size.n_heads, 8 * size.d_model, size.d_vocab if whole else 0)
    parts, losses = batches(len(ready), length, batch_size=batch_size, cost=cost), list[Tensor]()
    with progress_bar(len(ready) * len(runs), progress=progress, unit="run") as bar:
        for rows in parts:
            targets = _targets(ready[rows], on, w_u)
            for name, tokens in runs:
                logits_too = whole and name == "score"
                values[name][0, rows], logits = _effects(
                    model, tokens[rows], ready.lengths[rows], targets, wanted, bar.update, whole=logits_too
                )
                losses += [] if logits is None else [losses_in(model, logits, ready[rows])]
    if not all(np.isfinite(value).all() for value in values.values()):
        raise Refused(
            "direct effects are not finite: look for NaN or infinite weights (or overflow in float16) in the model"
        )
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
        self.title = {
            NEXT: "direct effect on the logit of the right next token, less the mean over the vocabulary",
            ANSWERS: "direct effect on the right answer's logit less the wrong one's",
        }[on]


class _Targets(NamedTuple):
    """What is read: for each entry its prompt, its position and its direction in the residual stream."""

    prompt: Tensor
    position: Tensor
    direction: Tensor  # [entry, d_model]
    weight: Tensor  # [prompt]: 1 / entries


def _repeats(model: Model) -> Prompts:
    return repeated_tokens(model)


def _what(prompts: Prompts, on: str | None) -> str:
    if on is None:
        return NEXT if prompts.answers is None else ANSWERS
    if on not in (NEXT, ANSWERS):
        raise Refused(f'wanted on="{NEXT}" or on="{ANSWERS}", got {on!r}')
    return on


def _check_entries(prompts: Prompts, on: str, outputs: int) -> None:
    """Refused unless every prompt has something to read."""
    if on == ANSWERS:
        answers = prompts.answers
        if answers is None:
            raise Refused(
                f'on="{ANSWERS}" needs prompts with answers: use pairs(model, clean=..., corrupted=..., answers=...)'
            )
        if answers.shape != (len(prompts), 2) or int(answers.min()) < 0 or int(answers.max()) >= outputs:
            raise Refused(
                f"wanted answers [{len(prompts)}, 2] of ids from 0 to {outputs - 1}, "
                f"got {list(answers.shape)} from {int(answers.min())} to {int(answers.max())}"
            )
        return
    without = (~_read(prompts).any(1)).nonzero()[:, 0].tolist()
    if without:
        raise Refused(
            f"direct_effect has nothing to read in prompt {without[0]} ({len(without)} of {len(prompts)} prompts): "
            "no scored position has a next token; pass prompts that have, e.g. repeated_tokens(model), "
            "or prompts with answers"
        )


def _read(prompts: Prompts) -> Tensor:
    """bool `[prompt, position]`: scored, with a next token."""
    return prompts.scored & (torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None] - 1)


def _targets(prompts: Prompts, on: str, w_u: Tensor) -> _Targets:
    if on == ANSWERS and prompts.answers is not None:
        prompt, position = torch.arange(len(prompts)), prompts.lengths - 1
        right, wrong = (w_u.T[ids] for ids in prompts.answers.T.to(w_u.device))
        return _Targets(prompt, position, right - wrong, torch.ones(len(prompts)))
    read = _read(prompts)
    prompt, position = read.nonzero(as_tuple=True)
    direction = w_u.T[prompts.tokens[prompt, position + 1].to(w_u.device)]
    return _Targets(prompt, position, direction, 1.0 / read.sum(1).double())


def _effects(
    model: Model,
    tokens: Tensor,
    lengths: Tensor,
    targets: _Targets,
    layers: list[int],
    done: Callable[[float], Any],
    *,
    whole: bool,
) -> tuple[np.ndarray, Tensor | None]:
    """`[prompt, layer, head]` from one pass, heads' parts over the final norm's scale; and its logits, if `whole`."""
    parts: dict[int, Tensor] = {}
    scale: list[Tensor] = []
    broken, edited = set[int](), bool(foreign_hooks(model))

    def read(site: str, layer: int, activation: Tensor) -> None:
        if site == "pattern":
            if not attends(activation, lengths, edited=edited):
                broken.add(layer)
            return
        prompt, position = (index.to(activation.device) for index in targets[:2])
        here = full_precision(activation.detach()[prompt, position])
        if site == "z":
            _, b_v, w_o = value_weights(model, layer)
            parts[layer] = along(here - b_v.to(here), full_precision(w_o), targets.direction).cpu()
            done(len(tokens) / len(layers))
        else:
            scale.append(norm_scale(model, here).cpu())

    sites = {"z": set(layers), "pattern": set(layers), "resid_post": {sizes(model).n_layers - 1}}
    logits = stream(model, tokens, read, sites, lengths=lengths, whole=whole)
    check_sound(broken)
    scaled = torch.stack([parts[layer] for layer in layers], 1) / scale[0][:, None, None]
    summed = averaged(scaled.flatten(1), targets.prompt, targets.weight, len(tokens))
    return summed.unflatten(1, scaled.shape[1:]).numpy(), logits


def along(
    written: Float[Tensor, "entry head d_head"],
    w_o: Float[Tensor, "head d_head d_model"],
    direction: Float[Tensor, "entry d_model"],
) -> Float[Tensor, "entry head"]:
    """Each head's vector in the residual stream, along each entry's direction; never `[entry, head, d_model]`."""
    wanted = torch.einsum("em,hdm->ehd", direction.to(w_o), w_o)
    return (written * wanted.to(written)).sum(-1)


def norm_scale(model: Model, residual: Tensor) -> Tensor:
    """What the final norm divides a residual stream by: `[entry, d_model]` -> `[entry]`."""
    if model.cfg.normalization_type is None:
        return torch.ones_like(residual[:, 0])
    norm: Any = getattr(model, "ln_final", None)
    names = f"{model.cfg.normalization_type} {type(norm).__name__}"  # `final_rms` has another norm at the end
    if "RMS" not in names and not getattr(norm, "uses_rms_norm", False):
        residual = residual - residual.mean(-1, keepdim=True)
    return (residual.square().mean(-1) + getattr(model.cfg, "eps", 1e-5)).sqrt()
