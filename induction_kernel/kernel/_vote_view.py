"""View of one head's vote on some prompts: the demonstrations, shaded by their weights, above the shares of the labels.

Plain HTML and CSS without scripts; prompts are folded, the first one open. The weights are those of a head, of a sum of
heads or of an explicit kernel. All text is escaped. The vote is computed in `_vote_text`.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..heads._names import HeadLike, as_head
from ..plots._lines import COLOURS
from ..plots._offline import page
from ..prompts._prompts import FewShotPrompts
from ..stores import write_whole
from ._vote_text import quoted_votes

__all__ = ["VoteView", "view_of_votes", "vote_view"]

NEEDED = ("weight", "vote", "prediction", "text", "query", "label", "label_class", "target")
STYLE = """<style>
.ik-vote-list { max-width: 860px; color: #222; font: 14px/1.45 system-ui, sans-serif; }
.ik-vote-list details { border: 1px solid #ddd; border-radius: 4px; margin: 6px 0; padding: 0 12px; }
.ik-vote-list summary { cursor: pointer; padding: 7px 0; } .ik-vote-list summary span { color: #555; }
.ik-vote-list .d { display: flex; gap: 12px; padding: 3px 8px; margin: 2px 0; border-radius: 3px; }
.ik-vote-list .x { flex: 1; min-width: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.ik-vote-list .n { width: 44px; text-align: right; font-variant-numeric: tabular-nums; }
.ik-vote-list .q { padding: 3px 8px; margin: 8px 0; border-left: 3px solid #222; white-space: pre-wrap; overflow-wrap:
anywhere; }
.ik-vote-list .v { display: grid; grid-template-columns: max-content 1fr 44px; gap: 3px 10px; margin: 8px; align-items:
center; } .ik-vote-list .v i { display: block; height: 12px; border-radius: 2px; }
</style>"""


def vote_view(
    weights: xr.Dataset,
    prompts: FewShotPrompts,
    predictions: Any = None,
    *,
    head: HeadLike | None = None,
    show: Iterable[int] | int | None = None,
) -> VoteView:
    """Show how the demonstrations vote on some prompts: their texts, shaded by weight, and the labels' shares.

    Each demonstration has the colour of its label, darker for a larger weight relative to the prompt's largest, and a
    number, its share of all weight. Below the query are the shares of the labels, the prediction of the vote, and the
    model's prediction and the right label if they are known.

    Args:
        weights: the Dataset of `demonstration_weights`, `fewshot.predict`, `sum_heads` or `kernel_regression`. If it
            has other dimensions than prompt and demonstration, choose one entry by `head=` or `.sel`.
        prompts: the few-shot prompts of the weights.
        predictions: the model's predicted classes, int `[prompt]`, or the Dataset of `fewshot.predict`; None to show
            none.
        head: whose weights to show, if they are over layer and head: "L5H1", `(5, 1)` or a `Head`.
        show: indices of the prompts to show; None for the first eight.

    Returns:
        A `VoteView`, which a notebook shows as the last value of a cell; `.save(path)` writes it as a page.

    Raises:
        TypeError: not a Dataset, not `Prompts`, predictions that are not whole numbers.
        Refused: weights of several sources or of other prompts, prompts without demonstrations, no such head or prompt.

    Source: Han et al. 2025, section 5.2.
    """
    if head is not None:
        weights = _of_head(weights, head)
    return view_of_votes(quoted_votes(weights, prompts, predictions), prompts=show)


@dataclass(frozen=True, repr=False)
class VoteView:
    """Votes to display in a notebook, or to `save` as a page.

    Attributes:
        caption: what is drawn, in a sentence or two.
        body: the HTML of the prompts.
    """

    caption: str
    body: str

    def __repr__(self) -> str:
        count = self.body.count("<details")
        return f"VoteView({count} prompt{'s' * (count != 1)}; .save(path) or the last line of a cell)"

    def _repr_html_(self) -> str:
        return self.fragment()

    def fragment(self) -> str:
        """The view as part of a page."""
        return f'{STYLE}<div class="ik-vote-list"><p>{html.escape(self.caption)}</p>{self.body}</div>'

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the view as a page that needs no network; an existing file is replaced in one step.

        Returns:
            The path written.

        Raises:
            Refused: the folder does not exist or cannot be written to.
        """
        write_whole(path, page(html.escape(self.caption), self.fragment()))
        return Path(path)


def view_of_votes(votes: xr.Dataset, *, prompts: Iterable[int] | int | None = None) -> VoteView:
    """Show how the demonstrations of some prompts vote.

    The darker a demonstration, the larger its weight relative to the largest of the prompt. Its colour is that of its
    label, and the number is its share of all weights. Below the query are the shares of the labels; the heading of a
    prompt gives the vote, the model's prediction where it is known, and the right label.

    Args:
        votes: what `quoted_votes` returns: `weight[prompt, demonstration]`, `vote[prompt, label]`,
            `prediction[prompt]`, optionally `model_prediction[prompt]`, with their texts.
        prompts: indices of the prompts to show; None for the first eight.

    Returns:
        A `VoteView`.

    Raises:
        TypeError: if `votes` is no Dataset.
        Refused: if it lacks one of these variables, or there is no such prompt.
    """
    if not isinstance(votes, xr.Dataset):
        raise TypeError(f"wanted the xarray.Dataset of quoted_votes, got {type(votes).__name__}")
    missing = [key for key in NEEDED if key not in votes.variables]
    if missing:
        raise Refused(f"wanted the Dataset of quoted_votes, it lacks {missing}; pass its result unchanged")
    count = votes.sizes["prompt"]
    wanted = (
        [prompts] if isinstance(prompts, int) else list(range(min(8, count)) if prompts is None else prompts)
    )
    if not wanted or not all(isinstance(at, int | np.integer) and 0 <= at < count for at in wanted):
        raise Refused(f"wanted prompts from 0 to {count - 1}, got {wanted}")
    whose = str(votes.attrs.get("source", "these weights"))
    of = f" of {votes.attrs['model']}" if votes.attrs.get("model") else ""
    caption = (
        f"The vote of {whose}{of}. The darker a demonstration, the larger its weight; the numbers beside them are "
        "shares of all weights, and the bars below are the shares of the labels."
    )
    return VoteView(caption, "".join(_prompt(votes.isel(prompt=at), at, at == wanted[0]) for at in wanted))


def _prompt(one: xr.Dataset, index: int, opened: bool) -> str:
    """One folded prompt."""
    labels = [str(label) for label in one["label"].values]
    said = {"vote": int(one["prediction"]), "right": int(one["target"])}
    if "model_prediction" in one:
        said = {"vote": said["vote"], "model": int(one["model_prediction"]), "right": said["right"]}
    known = {key: labels[at] for key, at in said.items() if at >= 0}
    verdict = " · ".join(f"{key} <b>{html.escape(label)}</b>" for key, label in known.items())
    query = str(one["query"].item()).strip()
    short = html.escape(query if len(query) <= 52 else query[:51] + "…")
    body = f'{_demonstrations(one, labels)}<div class="q">{html.escape(query)} <b>?</b></div>{_shares(one, labels)}'
    summary = f"<summary>{index}. {short} <span>— {verdict}</span></summary>"
    return f"<details{' open' * opened}>{summary}{body}</details>"


def _demonstrations(one: xr.Dataset, labels: list[str]) -> str:
    weight, classes = one["weight"].values.astype(float), one["label_class"].values
    there = np.isfinite(weight) & (classes >= 0)
    least = np.finfo(float).tiny
    total, most = max(weight[there].sum(), least), max(weight[there].max(initial=0), least)
    rows = []
    for text, value, y in zip(one["text"].values[there], weight[there], classes[there], strict=True):
        shade = f"rgba({_colour(y)}, {0.04 + 0.36 * value / most:.3f})"
        said = f'{html.escape(str(text))} <b style="color: rgb({_colour(y)})">{html.escape(labels[y])}</b>'
        rows.append(
            f'<div class="d" style="background: {shade}"><span class="x">{said}</span>'
            f'<span class="n">{value / total:.2f}</span></div>'
        )
    return "".join(rows)


def _shares(one: xr.Dataset, labels: list[str]) -> str:
    cells = []
    for y, (label, share) in enumerate(zip(labels, one["vote"].values.astype(float), strict=True)):
        width = 100 * share if np.isfinite(share) else 0
        bar = f'<i style="width: {width:.1f}%; background: rgb({_colour(y)})"></i>'
        cells.append(f"<span>{html.escape(label)}</span><span>{bar}</span><span>{share:.2f}</span>")
    return f'<div class="v">{"".join(cells)}</div>'


def _colour(y: int) -> str:
    return COLOURS[int(y) % len(COLOURS)]


def _of_head(weights: xr.Dataset, head: HeadLike) -> xr.Dataset:
    """The weights of one head; Refused if they are not over heads, or not of that one."""
    if not isinstance(weights, xr.Dataset) or not {"layer", "head"} <= set(weights.dims):
        raise Refused(
            "head= chooses from weights over layer and head: leave it out for weights of one source"
        )
    chosen = as_head(head)
    if chosen.layer not in weights["layer"] or chosen.head not in weights["head"]:
        raise Refused(
            f"wanted one of the heads of these weights, in layers {weights['layer'].values.tolist()}, heads "
            f"{weights['head'].values.tolist()}, got {chosen}"
        )
    return weights.sel(layer=chosen.layer, head=chosen.head)
