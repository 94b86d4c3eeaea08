"""`Prompts`: a batch of right-padded tokens with lengths and scored positions; `FewShotPrompts`, with demonstrations.

`as_prompts` (in `_conversion`) makes prompts of what users have, and `few_shot_prompts` (in `_few_shot`) makes few-shot
prompts. Of the model they keep the tokenizer alone, to show tokens as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, bos_of, describe
from ._checks import check_ids, indices
from ._demonstrations import Demonstrations, below_one_another, widened
from ._spans import checked_spans, chosen_spans, joined_spans

__all__ = [
    "FewShotPrompts",
    "Prompts",
    "concat",
    "decoded",
    "measured_on",
    "pad",
    "real_positions",
    "sets_coordinate",
]


@dataclass(frozen=True, eq=False, repr=False)
class Prompts:
    """A batch of right-padded prompts, which every measurement takes; `as_prompts` makes them.

    `len(prompts)` is their number, `prompts[index]` some of them, and iteration gives batches of one.

    Attributes:
        tokens: int64 `[prompt, position]`, token ids; padding after `lengths`, which causal attention never sees.
        lengths: int64 `[prompt]`, number of tokens.
        scored: bool `[prompt, position]`, the query positions that measurements count (such as the second and later
            copies of repeated tokens).
        control: `[prompt, position]`, tokens of the matched control (later copies replaced by fresh tokens), or None.
        answers: `[prompt, 2]`, ids of the right and the wrong answer, or None.
        bos: whether position 0 of every prompt holds a beginning-of-sequence token.
        tokenizer: decodes the tokens for display, or None.
        spans: name -> int64 `[prompt, 2]`, first token of a marked part (a needle, a question) and one past its last;
            (-1, -1) where a prompt has none. None if nothing is marked. `prompts.mark` and `prompts.needles` make them.

    Raises:
        TypeError: tokens that are not integers, lengths or spans that are not int64, scored that is not bool.
        Refused: shapes that do not fit each other, a span beyond its prompt, or no prompts.
    """

    tokens: Tensor
    lengths: Tensor
    scored: Tensor
    control: Tensor | None = None
    answers: Tensor | None = None
    bos: bool = False
    tokenizer: Any = None
    spans: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        check_ids(self.tokens)
        n, length = self.tokens.shape
        for key, dtype in {"lengths": torch.int64, "scored": torch.bool}.items():
            value = getattr(self, key)
            if not isinstance(value, Tensor) or value.dtype != dtype:
                got = getattr(value, "dtype", type(value).__name__)
                raise TypeError(f"wanted {key} as a tensor of {dtype}, got {got}")
        if self.lengths.shape != (n,) or self.scored.shape != (n, length):
            raise Refused(
                f"wanted lengths [{n}] and scored [{n}, {length}] for tokens [{n}, {length}], "
                f"got {list(self.lengths.shape)} and {list(self.scored.shape)}"
            )
        if self.control is not None and self.control.shape != (n, length):
            raise Refused(f"wanted control tokens [{n}, {length}], got {list(self.control.shape)}")
        if bool((self.lengths < 1).any()) or bool((self.lengths > length).any()):
            raise Refused(f"wanted lengths between 1 and {length}, got {self.lengths.tolist()}")
        object.__setattr__(self, "spans", checked_spans(self.spans, self.lengths))

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Self:
        """Some of the prompts: a slice, indices, a bool mask, or an int for a batch of one."""
        chosen, kept = indices(index, len(self)), dict[str, Any]()
        for each in fields(self):
            value = getattr(self, each.name)
            kept[each.name] = value[chosen] if isinstance(value, Tensor | Demonstrations) else value
        kept["spans"] = chosen_spans(self.spans, chosen)
        return type(self)(**kept)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def strings(self, model: Model | None = None) -> list[list[str]]:
        """Every prompt's tokens as strings, without padding; ids in digits if there is no tokenizer.

        Args:
            model: whose tokenizer to use; None for the prompts' own.
        """
        tokenizer = self._tokenizer(model)
        return [[decoded(tokenizer, [token]) for token in row] for row in self._rows()]

    def text(self, model: Model | None = None) -> list[str]:
        """Every prompt as text, without padding; ids in digits if there is no tokenizer.

        Args:
            model: whose tokenizer to use; None for the prompts' own.
        """
        tokenizer = self._tokenizer(model)
        return [decoded(tokenizer, row) for row in self._rows()]

    def _rows(self) -> list[list[int]]:
        pairs = zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)
        return [row[:length] for row, length in pairs]

    def _tokenizer(self, model: Model | None) -> Any:
        return self.tokenizer if model is None else getattr(model, "tokenizer", None)

    def narrowed(self) -> Self:
        """The same prompts without the positions that are padding in all of them."""
        width = int(self.lengths.max())
        control = None if self.control is None else self.control[:, :width]
        return replace(self, tokens=self.tokens[:, :width], scored=self.scored[:, :width], control=control)

    def with_bos(self) -> Tensor:
        """Which prompts begin with a beginning-of-sequence token, bool `[prompt]`; all if `bos` is True."""
        token = bos_of(self.tokenizer)
        if self.bos or token is None:
            return torch.full((len(self),), self.bos)
        return self.tokens[:, 0] == token

    def starts(self) -> Tensor:
        """The first scored position, `[prompt]` (for repeated tokens, the start of copy two); -1 if there is none."""
        return torch.where(self.scored.any(1), self.scored.int().argmax(1), -1)

    def __repr__(self) -> str:
        extras = [key for key in ("control", "answers", "spans") if getattr(self, key) is not None]
        first = self[0].text()[0]
        shown = f"{first[:60]} ..." if len(first) > 60 else first
        with_ = f", with {', '.join(extras)}" if extras else ""
        size = f"{len(self)} of {self.lengths.min()} to {self.lengths.max()} tokens"
        return f"{type(self).__name__}({size}{with_}; first: {shown})"


@dataclass(frozen=True, eq=False, repr=False)
class FewShotPrompts(Prompts):
    """Right-padded prompts that say where their demonstrations and labels lie; `few_shot_prompts` makes them.

    Attributes:
        demonstrations: positions, classes and label words of the demonstrations, at least one per prompt; given by
            keyword. The other attributes are those of `Prompts`.

    Raises:
        TypeError: as in `Prompts`; demonstrations of another type.
        Refused: as in `Prompts`; demonstrations of another number of prompts.
    """

    demonstrations: Demonstrations = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.demonstrations, Demonstrations):
            got = type(self.demonstrations).__name__
            raise TypeError(
                f"wanted demonstrations as Demonstrations, got {got}: make Prompts of prompts without any"
            )
        if len(self.demonstrations.mask) != len(self.tokens):
            raise Refused(
                f"wanted demonstrations of {len(self.tokens)} prompts, got those of {len(self.demonstrations.mask)}"
            )

    def sets(self) -> Tensor:
        """The set of demonstrations of each prompt, int64 `[prompt]`, numbered from 0 in the order of the prompts.

        Prompts have the same set if their demonstrations have the same x, in any order and with any labels. They are
        not independent: with m prompts to a set whose results correlate by r, a mean has 1 + (m - 1) r times the
        variance. With several sets, fewer than prompts, intervals of `predict` and `vote` are over sets, and `held_out`
        splits by sets if it can; all others are too narrow. With one set, all hold for it alone. `vote` permutes labels
        of a set together, by place, so its prompts should have them in the same order.
        """
        found, sets, numbers = self.demonstrations, [], dict[Any, int]()
        places = (found.spans if found.inputs is None else found.inputs).tolist()
        for row, spans, there in zip(self.tokens.tolist(), places, found.mask.tolist(), strict=True):
            texts = sorted(row[a:b] for (a, b), real in zip(spans, there, strict=True) if real)
            sets.append(numbers.setdefault(str(texts), len(numbers)))
        return torch.tensor(sets)


def sets_coordinate(prompts: FewShotPrompts) -> dict[str, Any]:
    """The coordinate `set[prompt]` of a result if some of the prompts have the same set of demonstrations."""
    sets = prompts.sets().numpy()
    return {"set": ("prompt", sets)} if sets.max() < len(sets) - 1 else {}


def measured_on(model: Model, prompts: Prompts) -> dict[str, str | int]:
    """Attributes of a result: number of prompts, `bos` (that token's text, or "none"), model and versions."""
    bos = prompts[0].strings(model)[0][0] if prompts.bos else "none"
    return {"n_prompts": len(prompts), "bos": bos, **describe(model)}


def concat(parts: Sequence[Prompts]) -> Prompts:
    """Several `Prompts` as one batch, in order, padded to the longest.

    Args:
        parts: at least one.

    Returns:
        `FewShotPrompts` if all parts are, else `Prompts`. `control` and `answers` are None, and `bos` is False, unless
        all parts have them; spans are those of any part; the tokenizer is that of the first.

    Raises:
        Refused: no parts, or demonstrations with different labels.
    """
    if not parts:
        raise Refused("wanted at least one Prompts to join, got an empty list")
    length = max(part.tokens.shape[1] for part in parts)

    def stacked(key: str) -> Any:
        values = [getattr(part, key) for part in parts]
        if any(value is None for value in values):
            return None
        return torch.cat([value if key == "answers" else widened(value, length) for value in values])

    kept = {key: stacked(key) for key in ("tokens", "scored", "control", "answers")}
    kept |= {"lengths": torch.cat([part.lengths for part in parts]), "tokenizer": parts[0].tokenizer}
    kept["bos"] = all(part.bos for part in parts)
    kept["spans"] = joined_spans([part.spans for part in parts], list(map(len, parts)))
    shown = [part.demonstrations for part in parts if isinstance(part, FewShotPrompts)]
    if len(shown) < len(parts):
        return Prompts(**kept)
    return FewShotPrompts(**kept, demonstrations=below_one_another(shown))


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids as tokens `[prompt, position]`, padded with each row's last id, and lengths `[prompt]`."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    return torch.tensor([[*row, *([row[-1]] * (width - len(row)))] for row in rows]), lengths


def real_positions(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Positions that are not padding, bool `[prompt, position]`."""
    return torch.arange(tokens.shape[1]) < lengths[:, None]


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """Ids as text; in digits if there is no tokenizer."""
    if tokenizer is None:
        return " ".join(map(str, ids))
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
