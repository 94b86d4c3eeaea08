"""`Demonstrations`: token positions, classes and label words of the demonstrations in few-shot prompts, as tensors.

`_few_shot` computes them from the text; this file holds, checks, selects and joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import Refused

__all__ = ["Demonstrations", "below_one_another", "widened"]


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Where the demonstrations of few-shot prompts lie in the tokens, and which labels they have.

    Prompts may have different numbers of demonstrations: rows are filled up, and `mask` is False there.

    Attributes:
        spans: `[prompt, demonstration, 2]`, position of the first token and one past the last of each demonstration
            `[x, y]` as written: with the template's words before x and between x and y, without what follows y.
        label_positions: `[prompt, demonstration]`, position of each label's first token.
        classes: `[prompt, demonstration]`, the label's index in `labels`.
        mask: `[prompt, demonstration]` bool, False where a prompt has fewer demonstrations.
        label_ids: `[class]`, token id with which each label begins in the prompt.
        target: `[prompt]`, class of the query, -1 where it is not known.
        labels: the label words, by class.
        inputs: `[prompt, demonstration, 2]`, position of the first token and one past the last of x alone; None where
            it is not known.

    Raises:
        Refused: shapes that do not fit each other, or a prompt without a demonstration.
    """

    spans: Tensor
    label_positions: Tensor
    classes: Tensor
    mask: Tensor
    label_ids: Tensor
    target: Tensor
    labels: tuple[str, ...]
    inputs: Tensor | None = None

    def __post_init__(self) -> None:
        n, width = self.mask.shape
        wanted = {
            "spans": (n, width, 2),
            "label_positions": (n, width),
            "classes": (n, width),
            "target": (n,),
        }
        wanted |= {"label_ids": (len(self.labels),)} | (
            {} if self.inputs is None else {"inputs": (n, width, 2)}
        )
        for key, shape in wanted.items():
            if getattr(self, key).shape != shape:
                raise Refused(
                    f"wanted {key} {list(shape)} for {len(self.labels)} labels and mask {[n, width]}, got "
                    f"{list(getattr(self, key).shape)}"
                )
        if not bool((some := self.mask.any(1)).all()):
            raise Refused(
                f"prompt {int(some.int().argmin())} has no demonstration: wanted at least one in each prompt"
            )

    def __getitem__(self, index: slice | Tensor) -> Demonstrations:
        per_prompt = ("spans", "label_positions", "classes", "mask", "target")
        kept = {key: getattr(self, key)[index] for key in per_prompt}
        return replace(self, **kept, inputs=None if self.inputs is None else self.inputs[index])


def below_one_another(parts: Sequence[Demonstrations]) -> Demonstrations:
    """The demonstrations of several batches of prompts, concatenated along `prompt`; `inputs` only if all have them.

    Raises:
        Refused: demonstrations with different labels.
    """
    first = parts[0]
    if any(part.labels != first.labels or not torch.equal(part.label_ids, first.label_ids) for part in parts):
        raise Refused(
            f"wanted demonstrations with the same labels in all parts, got {[part.labels for part in parts]}: make all "
            "prompts with the same labels=[...]"
        )
    width = max(part.mask.shape[1] for part in parts)
    keys = ["spans", "label_positions", "classes", "mask"]
    keys += [] if any(part.inputs is None for part in parts) else ["inputs"]
    stacked: dict[str, Any] = {"inputs": None}
    stacked |= {key: torch.cat([widened(getattr(part, key), width) for part in parts]) for key in keys}
    return replace(first, target=torch.cat([part.target for part in parts]), **stacked)


def widened(value: Tensor, width: int) -> Tensor:
    """The tensor with zeros (False) appended along dimension 1 up to `width`."""
    out = value.new_zeros(value.shape[0], width, *value.shape[2:])
    out[:, : value.shape[1]] = value
    return out
