"""Examples for the probes: which demonstrations, at which positions, their classes and control classes, and the folds.

Classes are the written labels, or the model's next-token predictions after x_i alone (Han et al. 2025, section 5.4).
Control classes are the same classes, assigned at random to the distinct texts, so that a probe that merely recognises
texts predicts them as well (Hewitt & Liang 2019, section 2). If a text occurs with several classes, control classes are
assigned to the single demonstrations instead. Vectors are read in `_probes`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._given import checked_seed
from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import batches, progress_bar, run
from ..prompts._prompts import FewShotPrompts, pad
from ._ridge import chance, folds_of

__all__ = ["Examples", "Rows", "examples", "rows_of"]


class Rows(NamedTuple):
    """The demonstrations that have a token at every offset from the label.

    Attributes:
        prompt: `[row]`, index of the prompt.
        slot: `[row]`, index of the demonstration in it.
        positions: `[row, offset]`, positions of the tokens.
    """

    prompt: Tensor
    slot: Tensor
    positions: Tensor


class Examples(NamedTuple):
    """The examples of one target: the rows that are used, with the classes that a probe predicts.

    Attributes:
        rows: `[example]`, index into `Rows`.
        labels: `[example]`, the class, numbered from 0.
        control: `[example]`, the control class.
        folds: `[example]`, the fold that it is held out in.
        chance: bool `[example]`, whether the most frequent class of the other folds is its class.
        dealt_to: what control classes were assigned to, "text" or "demonstration".
    """

    rows: np.ndarray
    labels: np.ndarray
    control: np.ndarray
    folds: np.ndarray
    chance: np.ndarray
    dealt_to: str


def rows_of(prompts: FewShotPrompts, offsets: tuple[int, ...]) -> Rows:
    """The demonstrations with a token at every offset; Refused if there are none."""
    found = prompts.demonstrations
    positions = found.label_positions[..., None] + torch.tensor(offsets)
    inside = ((positions >= 0) & (positions < prompts.lengths[:, None, None])).all(-1) & found.mask
    prompt, slot = inside.nonzero(as_tuple=True)
    if not len(prompt):
        raise Refused(f"no demonstration has a token at each of the offsets {list(offsets)}: ask for fewer")
    return Rows(prompt, slot, positions[prompt, slot])


def examples(
    model: Model,
    prompts: FewShotPrompts,
    rows: Rows,
    target: str,
    *,
    folds: int,
    min_count: int,
    seed: int,
    batch_size: int | None,
    progress: bool,
) -> Examples:
    """The examples of a target.

    Args:
        model: predicts the next tokens.
        prompts: few-shot prompts.
        rows: of `rows_of`.
        target: "label" or "next token".
        folds: number of cross-validation folds; the demonstrations of a prompt stay together.
        min_count: of "next token": how many examples a token needs to be used as a class.
        seed: of folds and control classes.
        batch_size: texts per forward pass; None to fit the memory.
        progress: whether to show a progress bar.

    Raises:
        Refused: fewer than two classes, or examples from fewer prompts than folds.
    """
    texts = _texts(prompts, rows)
    if target == "label":
        named, least = prompts.demonstrations.classes[rows.prompt, rows.slot].numpy(), 1
    else:
        named, least = _predictions(model, texts, batch_size, progress), min_count
    _, kind, counts = np.unique(named, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[kind] >= least)
    names, labels = np.unique(kind[kept], return_inverse=True)
    prompt = rows.prompt.numpy()[kept]
    if len(names) < 2 or len(np.unique(prompt)) < folds:
        raise Refused(
            f"wanted examples of two classes for the target {target!r}, from {folds} prompts or more, got {len(names)} "
            f"from {len(np.unique(prompt))}: pass more prompts, fewer folds, a smaller min_count, or other targets"
        )
    rng = np.random.default_rng(checked_seed(seed))
    held_out = folds_of(prompt, folds, rng)
    _, first, text = np.unique(_numbered(texts)[kept], return_index=True, return_inverse=True)
    by_text = bool((labels[first][text] == labels).all())  # whether each text has one class
    control = rng.permutation(labels[first])[text] if by_text else rng.permutation(labels)
    dealt_to = "text" if by_text else "demonstration"
    return Examples(kept, labels, control, held_out, chance(labels, held_out), dealt_to)


def _texts(prompts: FewShotPrompts, rows: Rows) -> list[tuple[int, ...]]:
    """The tokens of each row's demonstration before its label, after the BOS token if the prompts have one."""
    found = prompts.demonstrations
    start = prompts.tokens[0, :1].tolist() if prompts.bos else []
    begins, labels = found.spans[..., 0], found.label_positions
    places = zip(rows.prompt.tolist(), rows.slot.tolist(), strict=True)
    return [(*start, *prompts.tokens[p, begins[p, i] : labels[p, i]].tolist()) for p, i in places]


def _numbered(texts: list[tuple[int, ...]]) -> np.ndarray:
    """Numbers `[row]` of the texts; equal texts have equal numbers."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return np.array([number[text] for text in texts])


def _predictions(
    model: Model, texts: list[tuple[int, ...]], batch_size: int | None, progress: bool
) -> np.ndarray:
    """The most probable token after each text alone, `[row]`; each distinct text is run once."""
    distinct = sorted(set(texts), key=len)
    if not distinct[0]:
        raise Refused('a demonstration has no token before its label to predict from: give targets=["label"]')
    tokens, lengths = pad(distinct)
    found: list[int] = []
    parts = batches(len(distinct), tokens.shape[1], batch_size=batch_size, cost=sizes(model).d_vocab)
    with progress_bar(len(distinct), progress=progress, unit="text") as bar:
        for part in parts:
            logits = run(model, tokens[part, : int(lengths[part].max())], lengths=lengths[part]).cpu()
            last = logits[torch.arange(len(logits)), lengths[part] - 1]
            found += full_precision(last).argmax(-1).tolist()
            bar.update(len(last))
    token_of = dict(zip(distinct, found, strict=True))
    return np.array([token_of[text] for text in texts])
