"""`explore`: every head's attention, explored by hand, in a page that needs no network or live in a notebook."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..errors import Refused
from ..heads._names import Head, HeadLike, some_heads
from ..model._anatomy import Model, describe, sizes
from ..prompts._conversion import as_prompts
from ..stores import checked_target, write_whole
from ._arrays import read_arrays
from ._contents import Explored
from ._model_prompts import read_prompts
from ._packing import Precision
from ._page import fragment_of, notes_of, packed, page_of
from ._picture import picture_of
from ._score_menu import score_menu

__all__ = ["Explorer", "explore"]

STORED = ("plain", "fine")
FRAMED = 8_000_000  # bytes of a page that is put into a notebook's cell, at most


@dataclass(frozen=True, repr=False, eq=False)
class Explorer:
    """What `explore` returns: the last line of a cell shows it, `save` writes it as a page.

    Attributes:
        explored: prompts, thumbnails, scores and what else is shown.
    """

    explored: Explored

    def __repr__(self) -> str:
        shown, (layers, heads) = self.explored.shown, self.explored.grid
        n_heads = len(self.explored.present or range(layers * heads))
        longest = max(len(each.tokens) for each in shown)
        several = f"{len(shown)} prompts of up to" if len(shown) > 1 else "1 prompt of"
        return (
            f"Explorer({n_heads} heads, {several} {longest} tokens; the last line of a cell shows it, "
            ".save(path) writes a page)"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the explorer as a page that needs no network; an existing file is replaced in one step.

        The page grows with the square of the length: `n_bytes` says its size before it is written.

        Returns:
            The path written.

        Raises:
            Refused: the folder does not exist or cannot be written to; the model has changed since `explore`.
        """
        checked_target(path)
        return write_whole(path, self._page)

    @property
    def n_bytes(self) -> int:
        """The size in bytes of the page that `save` writes."""
        return len(self._page.encode())

    def notes(self) -> list[str]:
        """Sentences about what the page stores: rounding, and heads of which there is only a picture."""
        return notes_of(self.explored, self._packed[1])

    def fragment(self) -> str:
        """The explorer as part of a page, which needs the explorer's style sheet and module once."""
        return fragment_of(self.explored, *self._packed)

    def picture(self) -> bytes:
        """Thumbnails of all heads on the first prompt, as a PNG."""
        return picture_of(self.explored.shown[0], self.explored.grid)

    def widget(self) -> Any:
        """The explorer as a live widget (anywidget), whose patterns this process computes when they are looked at.

        Raises:
            ImportError: anywidget is not installed.
        """
        if find_spec("anywidget") is None:
            raise ImportError(
                "the live explorer needs anywidget: pip install 'induction-kernel[widget]', or .save(path) a page"
            )
        from ._widget import live

        return live(self.explored)

    @cached_property
    def _packed(self) -> tuple[dict[tuple[int, int], bytes], float]:
        return packed(self.explored)

    @property
    def _page(self) -> str:
        return page_of(self.explored, *self._packed)

    def _ipython_display_(self) -> None:
        """A picture of all heads, then the widget; without anywidget the page, in a frame."""
        from IPython.display import display

        said = f"{self.explored.title}, thumbnails"
        picture = {"image/png": self.picture(), "text/plain": said}
        display(picture, metadata={"image/png": {"alt": said}}, raw=True)
        if find_spec("anywidget"):
            display(self.widget())
        else:
            display({"text/html": self._framed(), "text/plain": repr(self)}, raw=True)

    def _framed(self) -> str:
        """The page in a frame of its own; a sentence where it would make the notebook too large."""
        if self.n_bytes > FRAMED:
            return (
                f"<p>This page takes {self.n_bytes / 1e6:.0f} MB, too much for a notebook: "
                "<code>.save(path)</code> writes it to a file, fewer <code>heads=</code> make it smaller, and "
                "with <code>pip install 'induction-kernel[widget]'</code> it is live here.</p>"
            )
        page = html.escape(self._page)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 860px; border: 0" title="Attention"></iframe>'


def explore(
    model: Model | None = None,
    prompts: Any = None,
    *,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    scores: Any = None,
    beside: Model | None = None,
    patterns: Any = None,
    tokens: Any = None,
    precision: Literal["plain", "fine"] = "plain",
    progress: bool = True,
) -> Explorer:
    """Explore the attention of all heads: a map of scores, pictures of all patterns, each pattern, the text.

    The model runs once on each prompt. A notebook shows the result live where anywidget is installed (`pip install
    'induction-kernel[widget]'`): patterns are computed when they are looked at. `.save(path)` writes a page that needs
    no network.

    Args:
        model: any TransformerLens model; None for plain arrays.
        prompts: anything `as_prompts` takes. Few-shot prompts are shown with their demonstrations and each head's vote.
        heads: the heads whose patterns a saved page stores whole; None for all. There are pictures of all heads.
        scores: what the map is coloured by: a result with a head summary (of `induction`, `observe`, `sweep`,
            `direct_effect`, `vote` ...), several in a list, or a dict from names to results or to arrays `[layer,
            head]`.
        beside: another model with as many layers and heads, such as a later checkpoint, to compare on the same prompts.
        patterns: instead of a model, arrays of attention `[head, query, key]`, `[layer, head, query, key]` or
            `[prompt, layer, head, query, key]`; Hugging Face's attentions, one array `[prompt, head, query, key]` for
            each layer; or what `patterns(...)` returned.
        tokens: the tokens of `patterns` as strings, a list for each prompt (or one list); None for positions.
        precision: how a saved page stores weights: "plain" in steps of 1/255; "fine" as square roots, for small
            weights, in five times the space.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        An `Explorer`. With "plain", weights below .002 are shown as 0, and each query's attention in such weights is
        said; live, weights are float16.

    Raises:
        TypeError: neither a model with prompts nor patterns, or both; scores, heads or tokens of another type.
        Refused: attention that is not finite or not in [0, 1], heads or scores of another model, a `beside` of another
            shape, tokens of another number than the patterns.

    Example:
        >>> import induction_kernel as ik
        >>> model = ik.load("tiny")
        >>> ik.explore(model, "fox dax ; apple wug ; fox", scores=ik.induction(model, progress=False))
        Explorer(16 heads, 1 prompt of 8 tokens; the last line of a cell shows it, .save(path) writes a page)
    """
    _check(model, prompts, beside, patterns, tokens, precision)
    if patterns is not None:
        shown, grid, present = read_arrays(patterns, tokens)
        n = len(present or range(grid[0] * grid[1]))
        title = f"Attention of {n} head{'s' * (n != 1)}"
        return _explorer(title, shown, grid, present, heads, scores, precision)
    assert model is not None  # checked above
    size = sizes(model)
    grid = (size.n_layers, size.n_heads)
    title = f"Attention in {describe(model)['model']}"
    chosen = _indices(heads, grid, None)  # refused before the model runs
    menu = score_menu(scores, *grid)
    shown = read_prompts(model, as_prompts(model, prompts), before="", progress=progress)
    if beside is not None:
        others = _beside(beside, prompts, grid, progress)
        shown = [*shown, *others]
    return Explorer(Explored(title, tuple(shown), grid, None, menu, chosen, precision))


def _explorer(
    title: str, shown: list[Any], grid: tuple[int, int], present: list[int] | None, heads: Any, scores: Any,
    precision: Precision,
) -> Explorer:  # fmt: skip
    chosen, menu = _indices(heads, grid, present), score_menu(scores, *grid)
    return Explorer(Explored(title, tuple(shown), grid, present, menu, chosen, precision))


def _beside(model: Model, prompts: Any, grid: tuple[int, int], progress: bool) -> list[Any]:
    """The prompts as another model of the same shape reads them."""
    size = sizes(model)
    if (size.n_layers, size.n_heads) != grid:
        raise Refused(
            f"wanted a model beside with {grid[0]} layers of {grid[1]} heads, got {size.n_layers} of {size.n_heads}: "
            "explore the two in turn"
        )
    return read_prompts(model, as_prompts(model, prompts), before="beside, ", progress=progress)


def _indices(heads: Any, grid: tuple[int, int], present: list[int] | None) -> tuple[int, ...]:
    """Indices of the heads that a page stores whole."""
    there = list(range(grid[0] * grid[1])) if present is None else present
    if heads is None:
        return tuple(there)
    chosen = [
        head.layer * grid[1] + head.head for head in some_heads(heads, n_layers=grid[0], n_heads=grid[1])
    ]
    if absent := [str(Head(*divmod(each, grid[1]))) for each in chosen if each not in there]:
        raise Refused(
            f"wanted heads of these patterns, got {', '.join(absent)}: pass them to patterns(...) too"
        )
    return tuple(sorted(chosen))


def _check(model: Any, prompts: Any, beside: Any, patterns: Any, tokens: Any, precision: Any) -> None:
    if (model is None) == (patterns is None):
        raise TypeError(
            "wanted a model and prompts, or patterns=array with tokens=[...], got "
            + ("neither" if model is None else "both")
        )
    if patterns is None and prompts is None:
        raise TypeError("wanted prompts for the model to read: a text, a list of texts, token ids or Prompts")
    if patterns is None and tokens is not None:
        raise TypeError("tokens= names the tokens of patterns=; a model's prompts bring their own")
    if patterns is not None and (prompts is not None or beside is not None):
        raise TypeError("patterns= come without prompts and without a model beside: pass tokens=[...]")
    if precision not in STORED:
        raise Refused(f"wanted precision in {list(STORED)}, got {precision!r}")
