"""Token and concept copying: how much one head's output makes the model copy a token, or the word that begins there.

At the last random token before an entity is due, each head's z is taken from the run in which the entity stood earlier
and put into a run in which nothing can be copied. A head that copies tokens raises the entity's first token at once; a
head that copies concepts raises its second token, at the next position, where the first one has been read (Feucht et
al. 2025). It does not say what such heads are needed for: see `list_ablation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..heads._names import HeadLike, as_heads
from ..interventions._activations import New
from ..interventions._edits_from_runs import taken_from
from ..interventions._patching import sweeps_at
from ..interventions._plan import prompts_at_once, tokens_at_once
from ..metrics._metric import reading_of
from ..metrics._standard import probability
from ..model._anatomy import Model, check_model, sizes
from ..model._outputs import check_next_token, n_outputs
from ..model._runs import progress_bar
from ..prompts._prompts import Prompts, decoded
from ._concept_prompts import EntityPrompts, entity_prompts, several_tokens
from ._concept_words import LONG_WORDS

__all__ = ["concept_copying", "token_copying"]


def token_copying(
    model: Model,
    *,
    prompts: int = 64,
    length: int = 30,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    layers: Iterable[int] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much each head makes the model copy a token: the change in the probability of the next one.

    The entity is random tokens, so that only token by token it can be copied. Score: the probability of its first
    token, where it is due, with the head's z there taken from the run in which the entity stood earlier, less that
    without.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: how many, for entities of 2, 3, 4 and 5 tokens in equal parts.
        length: tokens of the first part, entity included.
        heads: only these; None for all.
        layers: only these; None for all.
        seed: of all draws.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset like that of a scorer, for `summarise`, `top_heads` and `head_map`: `score[prompt, layer, head]` in
        [-1, 1]; `control`, the same with z from a run in which another entity stood there; `chance`, 0;
        `baseline[prompt]` and `clean[prompt]`, the probability without a patch and in the run with the entity.
        Coordinates `entity[prompt]` and `n_tokens[prompt]`. NaN at heads left out.

    Raises:
        Refused: an option out of its range; heads or layers the model does not have.
        NotDefined: too few prompts for two entities of one length.

    Source: Feucht et al. 2025, section 2 (arXiv 2504.03022); its code patches z of one head at position -2 and takes
        P(e_1) there, for random tokens. The tokens around the entity are those of the package's prose in random
        order (in the paper, of documents of the Pile).
    """
    return _copying(
        model, None, "token", prompts=prompts, length=length, heads=heads, layers=layers, seed=seed,
        max_tokens=max_tokens, progress=progress,
    )  # fmt: skip


def concept_copying(
    model: Model,
    *,
    words: Sequence[str] | None = None,
    prompts: int = 64,
    length: int = 30,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    layers: Iterable[int] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much each head makes the model copy a whole word: the change in the probability of the token after next.

    The entity is a word of several tokens. Score: the probability of its second token after the first one, with the
    head's z at the position *before* taken from the run in which the word stood earlier, less that without. A head that
    copies the next token alone has no effect there.

    Args:
        model: any TransformerLens model with a tokenizer that writes some words as several tokens.
        words: to take entities from; None for two hundred English words and names of the package.
        prompts: how many at most, for words of 2, 3, 4 and 5 tokens in equal parts where there are as many.
        length: as in `token_copying`; likewise the others.
        heads: only these; None for all.
        layers: only these; None for all.
        seed: of all draws.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        As of `token_copying`, with probabilities of the word's second token.

    Raises:
        TypeError: words that are not a list of strings.
        Refused: as `token_copying`.
        NotDefined: no tokenizer, or one for which fewer than two words have 2, 3, 4 or 5 tokens.

    Source: Feucht et al. 2025, section 2; its code patches z of one head at position -2 and takes P(e_2) at -1, for the
        subjects of CounterFact.
    """
    check_model(model)
    given = LONG_WORDS if words is None else words
    if isinstance(given, str) or not all(isinstance(word, str) for word in given):
        raise TypeError(f"wanted words as a list of strings, got {type(words).__name__}")
    found = several_tokens(model, given)
    return _copying(
        model, list(found.values()), "concept", prompts=prompts, length=length, heads=heads, layers=layers,
        seed=seed, max_tokens=max_tokens, progress=progress,
    )  # fmt: skip


def _copying(
    model: Model, entities: list[list[int]] | None, of: Literal["token", "concept"], *, prompts: int, length: int,
    seed: int, progress: bool, **swept: Any,
) -> xr.Dataset:  # fmt: skip
    """Both measures; `swept` are `heads`, `layers` and `max_tokens` of `sweep`."""
    check_model(model)
    seed, size = checked_seed(seed), sizes(model)
    for name, value in (("prompts", prompts), ("length", length)):
        if not is_whole(value) or value < 1:
            raise Refused(f"wanted {name} >= 1, got {value!r}")
    if swept["heads"] is not None:
        swept["heads"] = as_heads(swept["heads"], n_layers=size.n_layers, n_heads=size.n_heads)
    if swept["layers"] is not None:
        swept["layers"] = list(swept["layers"])
    groups = entity_prompts(model, entities, prompts=prompts, length=length, seed=seed)
    if of == "token":
        check_next_token(model, "token_copying")
    n_prompts = sum(len(group.into) for group in groups)
    with progress_bar(n_prompts, progress=progress, unit="prompt", what=f"{of} copying") as bar:
        parts = [part for group in groups for part in _of_group(model, group, of, swept, bar.update)]
    return _labelled(model, of, parts, groups, length, seed)


def _of_group(
    model: Model, group: EntityPrompts, of: Literal["token", "concept"], swept: dict[str, Any], done: Any
) -> Iterator[dict[str, Any]]:
    """Score, control, baseline and clean values of the prompts of one length, batch by batch."""
    position = group.into.tokens.shape[1] - 2
    into, source, other = (
        _up_to_due(each) if of == "token" else each for each in (group.into, group.source, group.other)
    )
    length = into.tokens.shape[1]
    most = tokens_at_once(model, length, swept["max_tokens"])
    for rows in torch.arange(len(into)).split(prompts_at_once(model, length, most, length)):
        taken = [_taken(model, each[rows], position) for each in (source, other)]
        new = {key: value for key, (value, _) in zip(("score", "control"), taken, strict=True)}
        options = dict[str, Any](swept, max_tokens=most)
        found = sweeps_at(model, into[rows], new, position=position, metric=probability, **options)
        one = found["score"]
        effects = {key: each["effect"] for key, each in found.items()}
        yield effects | {"baseline": one["baseline"].values, "attrs": one.attrs, "clean": taken[0][1]}
        done(len(rows))


def _taken(model: Model, prompts: Prompts, position: int) -> tuple[dict[int, New], np.ndarray]:
    """Layer -> z of these prompts' run at one position; and the probability of the right answer in it."""
    wanted, layers = reading_of(probability, prompts, n_outputs(model)), set(range(sizes(model).n_layers))
    z, values = taken_from(model, prompts, prompts.tokens.shape[1], "z", layers, wanted)
    assert values is not None  # asked for
    new = {layer: New(0.0, each[:, position : position + 1].clone()) for layer, each in z.items()}
    return new, values.cpu().double().numpy()


def _up_to_due(prompts: Prompts) -> Prompts:
    """The prompts without their last token, an entity's first one, which becomes the right answer."""
    last = prompts.tokens[:, -1]
    return replace(
        prompts, tokens=prompts.tokens[:, :-1], lengths=prompts.lengths - 1, scored=prompts.scored[:, :-1],
        answers=torch.stack([last, last.roll(-1)], 1),
    )  # fmt: skip


def _labelled(
    model: Model, of: str, parts: list[dict[str, Any]], groups: list[EntityPrompts], length: int, seed: int
) -> xr.Dataset:
    first = parts[0]["score"]
    heads = {dim: first[dim].values for dim in ("layer", "head")}
    rows = [row.tolist() for group in groups for row in group.entities]
    values: dict[str, Any] = {
        key: (("prompt", "layer", "head"), np.concatenate([part[key].values for part in parts]))
        for key in ("score", "control")
    }
    values |= {
        key: ("prompt", np.concatenate([part[key] for part in parts])) for key in ("baseline", "clean")
    }
    tokenizer = getattr(model, "tokenizer", None)
    what = {"token": "the next token", "concept": "the second token of a word, two positions on"}[of]
    attrs = parts[0]["attrs"] | {
        "method": f"{of}_copying", "title": f"{of} copying: effect of one head on the probability of {what}",
        "paper": "Feucht et al. 2025, section 2", "unit": "probability", "seed": seed, "length": length,
        "edit": "z of the run with the entity, at the token before it is due", "by": "layer head",
        "entities": "random tokens" if of == "token" else "words of several tokens", "n_prompts": len(rows),
    }  # fmt: skip
    coords = heads | {
        "prompt": np.arange(len(rows)),
        "name": (("layer", "head"), first["name"].values),
        "entity": ("prompt", np.array([decoded(tokenizer, row) for row in rows])),
        "n_tokens": ("prompt", np.array([len(row) for row in rows])),
    }
    chance = {"chance": ("prompt", np.zeros(len(rows)))}
    return xr.Dataset(values | chance, coords, {key: each for key, each in attrs.items() if key != "metric"})
