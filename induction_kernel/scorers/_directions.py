"""What direct effects are read along: positions, their right tokens, and directions in the final residual stream.

Also what each head writes along them, from one pass. `_direct_effect` averages that over positions; `_components` adds
what embeddings, MLPs and biases write; `_source_tokens` splits heads by position and by the token they read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._norms import final_norm_scale
from ..model._outputs import check_next_token, n_outputs, outputs_are_tokens
from ..model._runs import batches, stream
from ..model._self_check import foreign_hooks
from ..model._weights import check_weights, check_writing, unembedding, value_weights
from ..prompts._prompts import Prompts, decoded, measured_on
from ._pattern_entries import attends, check_sound
from ._streaming import chosen_layers

__all__ = [
    "ANSWERS",
    "NEXT",
    "TITLES",
    "Pass",
    "Targets",
    "along",
    "attributes",
    "check_entries",
    "gathered",
    "head_effects",
    "not_finite",
    "passes",
    "prepared",
    "read_positions",
    "texts",
    "token_coordinates",
    "what_to_read",
]

NEXT, ANSWERS = "next token", "answers"
TITLES = {
    NEXT: "direct effect on the logit of the right next token, less the mean over the vocabulary",
    ANSWERS: "direct effect on the right answer's logit less the wrong one's",
}


class Targets(NamedTuple):
    """What is read: for each entry its prompt, its position, its tokens and its direction in the residual stream."""

    prompt: Tensor
    position: Tensor
    right: Tensor  # [entry]: the token whose logit is read
    wrong: (
        Tensor | None
    )  # [entry]: the token whose logit is taken from it; None for the mean over the vocabulary
    direction: Tensor  # [entry, d_model]
    weight: Tensor  # [prompt]: 1 / entries


class Pass(NamedTuple):
    """One forward pass: of some prompts ("score") or of their matched control ("control"), and what is read of it."""

    name: str
    rows: slice
    tokens: Tensor
    lengths: Tensor
    targets: Targets


def prepared(
    model: Model, prompts: Prompts, on: str | None, layers: Iterable[int] | None
) -> tuple[str, list[int]]:
    """What is read ("next token" or "answers") and the layers, after checking prompts and weights.

    Raises:
        As `direct_effect`.
    """
    on, wanted = what_to_read(prompts, on), chosen_layers(model, layers)
    check_writing(model, wanted)
    if on == NEXT:
        check_next_token(model, f'direct_effect(on="{NEXT}")')
    check_entries(prompts, on, n_outputs(model))
    check_weights(model, wanted)
    return on, wanted


def what_to_read(prompts: Prompts, on: str | None) -> str:
    """ "answers" or "next token"; None for answers if the prompts have them."""
    if on is None:
        return NEXT if prompts.answers is None else ANSWERS
    if on not in (NEXT, ANSWERS):
        raise Refused(f'wanted on="{NEXT}" or on="{ANSWERS}", got {on!r}')
    return on


def check_entries(prompts: Prompts, on: str, outputs: int, verb: str = "direct_effect") -> None:
    """Refused unless every prompt has something for `verb` to read."""
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
    without = (~read_positions(prompts).any(1)).nonzero()[:, 0].tolist()
    if without:
        raise Refused(
            f"{verb} has nothing to read in prompt {without[0]} ({len(without)} of {len(prompts)} prompts): "
            "no scored position has a next token; pass prompts that have, e.g. repeated_tokens(model), "
            "or prompts with answers"
        )


def read_positions(prompts: Prompts) -> Tensor:
    """bool `[prompt, position]`: scored, with a next token."""
    return prompts.scored & (torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None] - 1)


def passes(model: Model, prompts: Prompts, on: str, *, batch_size: int | None, cost: int) -> Iterator[Pass]:
    """The passes over the prompts and, if they have one, their matched control, batch by batch."""
    w_u = unembedding(model)
    runs = [("score", prompts.tokens)]
    runs += [("control", prompts.control)] if prompts.control is not None else []
    for rows in batches(len(prompts), prompts.tokens.shape[1], batch_size=batch_size, cost=cost):
        targets = _targets(prompts[rows], on, w_u)
        for name, tokens in runs:
            yield Pass(name, rows, tokens[rows], prompts.lengths[rows], targets)


def _targets(prompts: Prompts, on: str, w_u: Tensor) -> Targets:
    if on == ANSWERS and prompts.answers is not None:
        prompt, position = torch.arange(len(prompts)), prompts.lengths - 1
        right, wrong = prompts.answers.T
        direction = w_u.T[right.to(w_u.device)] - w_u.T[wrong.to(w_u.device)]
        return Targets(prompt, position, right, wrong, direction, torch.ones(len(prompts)))
    read = read_positions(prompts)
    prompt, position = read.nonzero(as_tuple=True)
    right = prompts.tokens[prompt, position + 1]
    return Targets(prompt, position, right, None, w_u.T[right.to(w_u.device)], 1.0 / read.sum(1).double())


def head_effects(
    model: Model, one: Pass, layers: list[int], done: Callable[[float], Any], *, whole: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Heads' parts `[entry, layer, head]` over the final norm's scale, that scale, and with `whole` the logits."""
    parts: dict[int, Tensor] = {}
    scale: list[Tensor] = []
    broken, edited = set[int](), bool(foreign_hooks(model))

    def read(site: str, layer: int, activation: Tensor) -> None:
        if site == "pattern":
            if not attends(activation, one.lengths, edited=edited):
                broken.add(layer)
            return
        prompt, position = (index.to(activation.device) for index in one.targets[:2])
        here = full_precision(activation.detach()[prompt, position])
        if site == "z":
            _, b_v, w_o = value_weights(model, layer)
            parts[layer] = along(here - b_v.to(here), full_precision(w_o), one.targets.direction).cpu()
            done(len(one.tokens) / len(layers))
        else:
            scale.append(final_norm_scale(model, here).cpu())

    sites = {"z": set(layers), "pattern": set(layers), "resid_post": {sizes(model).n_layers - 1}}
    logits = stream(model, one.tokens, read, sites, lengths=one.lengths, whole=whole)
    check_sound(broken)
    return torch.stack([parts[layer] for layer in layers], 1) / scale[0][:, None, None], scale[0], logits


def along(
    written: Float[Tensor, "entry head d_head"],
    w_o: Float[Tensor, "head d_head d_model"],
    direction: Float[Tensor, "entry d_model"],
) -> Float[Tensor, "entry head"]:
    """Each head's vector in the residual stream, along each entry's direction; never `[entry, head, d_model]`."""
    wanted = torch.einsum("em,hdm->ehd", direction.to(w_o), w_o)
    return (written * wanted.to(written)).sum(-1)


def not_finite(values: Iterable[np.ndarray]) -> None:
    """Raise Refused unless every number is finite."""
    if not all(np.isfinite(each).all() for each in values):
        raise Refused(
            "direct effects are not finite: look for NaN or infinite weights (or overflow in float16) in the model"
        )


def gathered(
    values: np.ndarray, prompt: np.ndarray, position: np.ndarray | None, shape: Sequence[int]
) -> np.ndarray:
    """Values `[entry, ...]` averaged by prompt; with positions placed there: `[prompt, ..., position]`, else NaN.

    Args:
        values: of each entry.
        prompt: `[entry]`.
        position: `[entry]`, or None for the average.
        shape: how many prompts and positions there are.
    """
    if position is None:
        return np.stack([values[prompt == row].mean(0) for row in range(shape[0])])
    out = np.full((*shape, *values.shape[1:]), np.nan)
    out[prompt, position] = values
    return np.moveaxis(out, 1, -1)


def token_coordinates(model: Model, prompts: Prompts, on: str, dim: str) -> dict[str, Any]:
    """Coordinates of a result along the tokens of the prompts: numbers, texts, and the tokens whose logits are read.

    `token[prompt, dim]` (text; "" in padding), `length[prompt]`, and for answers `right[prompt]`, `wrong[prompt]`
    (text). Next tokens are the token at the next position.
    """
    width = prompts.tokens.shape[1]
    strings = [row + [""] * (width - len(row)) for row in prompts.strings(model)]
    found: dict[str, Any] = {
        dim: np.arange(width),
        "prompt": np.arange(len(prompts)),
        "token": (("prompt", dim), np.array(strings)),
        "length": ("prompt", prompts.lengths.numpy()),
    }
    if on == ANSWERS and prompts.answers is not None:
        tokenizer = getattr(model, "tokenizer", None) if outputs_are_tokens(model) else None  # else classes
        for name, ids in zip(("right", "wrong"), prompts.answers.T.tolist(), strict=True):
            found[name] = ("prompt", np.array([decoded(tokenizer, [each]) for each in ids]))
    return found


def texts(model: Model, prompts: Prompts) -> np.ndarray:
    """The beginning of each prompt, `[prompt]`."""
    return np.array([" ".join(text.split())[:80] for text in prompts.text(model)])


def attributes(model: Model, prompts: Prompts, on: str, by: str) -> dict[str, Any]:
    """Attributes of direct effects by other dimensions than (layer, head)."""
    said = {"head, key": ", by source token", "component": ", by component"}.get(by, ", by position")
    bias = "" if by.startswith("head") else ", which is in the attention biases"
    return {
        "method": "direct_effect",
        "by": by,
        "title": TITLES[on] + said,
        "paper": "Elhage et al. 2021, direct logit attribution",
        "unit": "logits",
        "on": on,
        "norm": "final norm with its scale as in the run",
        "convention": f"heads are read without their share of the value bias{bias}",
        **measured_on(model, prompts),
    }
