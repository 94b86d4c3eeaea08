"""What the explorer shows besides patterns, as one JSON object: tokens, scores, strongest pairs, the first head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._packing import Precision
from ._shown import FewShot, Shown

__all__ = ["Explored", "contents_of", "escaped"]

FORMAT = 1
DIGITS = 4


@dataclass(frozen=True, eq=False)
class Explored:
    """Everything that is explored.

    Attributes:
        title: of the page.
        shown: the prompts, at least one.
        grid: number of layers, and of heads in each.
        present: indices of the heads that there are; None for all of the grid.
        scores: what `score_menu` returned.
        whole: indices of the heads whose patterns a page stores.
        precision: how a page stores them.
        first: index of the head that is shown first; None for the first by the first score.
    """

    title: str
    shown: tuple[Shown, ...]
    grid: tuple[int, int]
    present: list[int] | None
    scores: list[dict[str, Any]]
    whole: tuple[int, ...]
    precision: Precision
    first: int | None = None

    @property
    def ahead(self) -> bool:
        """Whether any query of any prompt attends to a later token."""
        return any(each.ahead for each in self.shown)

    @property
    def norms(self) -> bool:
        """Whether all patterns come with norms of values."""
        return all(each.norms for each in self.shown)


def contents_of(explored: Explored, notes: Sequence[str], *, live: bool) -> dict[str, Any]:
    """The object that `explorer.js` reads first.

    Args:
        explored: what is explored.
        notes: sentences below the title.
        live: whether patterns are asked for from a kernel, which sends float16.
    """
    layers, heads = explored.grid
    return {
        "format": FORMAT,
        "title": explored.title,
        "notes": list(notes),
        "layers": layers,
        "heads": heads,
        "present": explored.present,
        "precision": "half" if live else explored.precision,
        "ahead": explored.ahead,
        "norms": explored.norms,
        "live": live,
        "prompts": [_prompt(each) for each in explored.shown],
        "scores": explored.scores,
        "strongest": _strongest(explored),
        "ranked": "weight times value norm" if explored.norms else "weight",
        "start": {"prompt": 0, "head": _first(explored)},
    }


def escaped(contents: dict[str, Any]) -> str:
    """The object as JSON that cannot end the script element it stands in."""
    text = json.dumps(contents, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _prompt(shown: Shown) -> dict[str, Any]:
    few_shot = shown.few_shot or FewShot(np.zeros((0, 4), int), (), -1, np.zeros((0, 0)))
    weights = [[round(float(each), DIGITS) for each in row] for row in few_shot.weights]
    return {
        "name": shown.name,
        "tokens": list(shown.tokens),
        "special": list(shown.special),
        "side": shown.thumbnails.shape[-1],
        "demonstrations": few_shot.demonstrations.tolist(),
        "labels": list(few_shot.labels),
        "target": few_shot.target,
        "answer": few_shot.answer,
        "weights": weights or None,
    }


def _strongest(explored: Explored) -> list[list[tuple[int, int, int, float]]]:
    """For each head its strongest pairs over all prompts, `(prompt, query, key, weight)`, one for each two strings."""
    layers, heads = explored.grid
    found = []
    for index in range(layers * heads):
        pairs = [(*pair, i) for i, each in enumerate(explored.shown) for pair in each.strongest[index]]
        best: dict[tuple[str, str], tuple[int, int, int, float]] = {}
        for _, query, key, weight, i in sorted(pairs, key=lambda pair: -pair[0]):
            tokens = explored.shown[i].tokens
            best.setdefault((tokens[query], tokens[key]), (i, query, key, round(weight, DIGITS)))
        found.append(list(best.values())[:8])
    return found


def _first(explored: Explored) -> int:
    """The head asked for; else the first by the first score; without scores, the first that is stored whole."""
    if explored.first is not None:
        return explored.first
    known = explored.whole or explored.present or [0]
    if not explored.scores:
        return known[0]
    of_first = explored.scores[0]
    values = of_first["excess"] or of_first["mean"]
    place = {"largest": float, "smallest": lambda value: -value, "size": abs}[of_first["first"]]
    return max(known, key=lambda index: -np.inf if values[index] is None else place(values[index]))
