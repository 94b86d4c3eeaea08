"""`next_token_similarity`: the inner product of the model's next-token distributions after two texts.

    sim(x, x') = sum_w P(w | x) P(w | x')        (Han et al. 2025, section 5.3)

It is the probability that the model continues both texts with the same token. The comparison with heads is made in
`_alignment`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from ..data._episodes import Episodes
from ..errors import Refused
from ..model._anatomy import Model, check_model, describe, full_precision, sizes
from ..model._runs import progress_bar, stream
from ._representations import alone, distinct, labels_of

__all__ = ["next_token_similarity"]

AT_ONCE = 2**27  # probabilities kept at a time, half a gigabyte in float32


def next_token_similarity(
    model: Model, episodes: Episodes, *, batch_size: int | None = None, progress: bool = True
) -> xr.Dataset:
    """Similarity of every query to its demonstrations, by the model's next-token distributions after each text alone.

    Every distinct text is run once. The distributions of queries or of demonstrations, whichever are fewer, are kept in
    memory while the others are run. If they are more than 2**27 probabilities, this is done in rounds, and the others
    are run again in each.

    Args:
        model: any TransformerLens model.
        episodes: of `draw_episodes`. Each text is run by itself: without template and label, after the BOS token if the
            model has one.
        batch_size: texts per forward pass; None to fit the memory.
        progress: a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `similarity[prompt, demonstration]`, in [0, 1], and the coordinates `label_class`, `target` and
        `label`.

    Raises:
        TypeError: not a model, or not Episodes.
        Refused: a text without tokens or longer than the context, logits that are not finite.

    Source: Han et al. 2025, section 5.3.
    """
    check_model(model)
    if not isinstance(episodes, Episodes):
        raise TypeError(f"wanted Episodes, of draw_episodes(...), got {type(episodes).__name__}")
    texts, of_query, of_shown = distinct(episodes)
    pairs = np.stack([np.repeat(of_query, of_shown.shape[1]), of_shown.ravel()])
    if len(np.unique(pairs[0])) > len(np.unique(pairs[1])):
        pairs = pairs[::-1]
    kept, passing = np.unique(pairs[0]), np.unique(pairs[1])
    similarity = np.full(pairs.shape[1], np.nan)
    size = max(1, AT_ONCE // sizes(model).d_vocab)
    rounds = [kept[i : i + size] for i in range(0, len(kept), size)]
    total = len(kept) + sum(int((~np.isin(passing, held)).sum()) for held in rounds)
    with progress_bar(total, progress=progress, unit="text") as bar:
        for held in rounds:
            own = dict(_distributions(model, texts, held, batch_size, bar))

            def meet(other: int, row: Tensor, own: dict[int, Tensor] = own, held: np.ndarray = held) -> None:
                at = np.flatnonzero((pairs[1] == other) & np.isin(pairs[0], held))
                similarity[at] = [float(own[i] @ row) for i in pairs[0][at]]

            for i in np.intersect1d(passing, held):
                meet(i, own[i])
            for i, row in _distributions(model, texts, np.setdiff1d(passing, held), batch_size, bar):
                meet(i, row)
    return xr.Dataset(
        {"similarity": (("prompt", "demonstration"), similarity.reshape(of_shown.shape))},
        coords=labels_of(episodes),
        attrs={"method": "next_token_similarity", "unit": "probability", **describe(model)},
    )


def _distributions(
    model: Model, texts: list[str], chosen: np.ndarray, batch_size: int | None, bar: tqdm[Any]
) -> Iterator[tuple[int, Tensor]]:
    """The index and next-token distribution `[vocab]` of each chosen text, batch by batch."""
    if not len(chosen):
        return
    for index, tokens, lengths in alone(
        model, [texts[i] for i in chosen], batch_size=batch_size, cost=8 * sizes(model).d_model
    ):
        logits = stream(model, tokens, lambda *_: None, {}, lengths=lengths, at=lengths - 1)
        assert logits is not None
        rows = full_precision(logits.cpu()).softmax(-1)
        if not bool(rows.isfinite().all()):
            raise Refused("the model's logits are not finite: look for NaN or infinite weights in the model")
        yield from zip(chosen[index].tolist(), rows, strict=True)
        bar.update(len(index))
