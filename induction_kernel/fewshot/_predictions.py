"""Few-shot predictions: label log-probabilities, accuracy and calibration, with label attention in the same pass.

The log-probabilities of the labels at the last token (Han et al. 2025, section 5), in batches by length; with `pooling`
also the weight that every head gives each demonstration, read in the same pass. Labels of several tokens count by their
first token. `kernel.vote` tests what the weights explain.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..data._episodes import Episodes, draw_episodes
from ..data._labelled import LabelledTexts
from ..errors import Refused
from ..heads._names import names_of
from ..model._anatomy import Model, sizes
from ..model._outputs import check_words
from ..model._runs import progress_bar
from ..prompts._conversion import as_few_shot
from ..prompts._fingerprints import fingerprint, weights_of
from ..prompts._prompts import FewShotPrompts, Prompts, measured_on, sets_coordinate
from ..scorers._labels import POOLINGS, check_span
from ..stores import read_result, result_folder, write_result
from ._accuracy import BINS, scores_of
from ._batches import groups_of, in_batches
from ._one_pass import Observer, evaluated, narrowed, readers

__all__ = ["Observer", "answered", "asked", "predict"]

DIFFERS = "prompts, model, weights, options or version"
DIMS = {
    "log_probability": ("prompt", "label"),
    "weight": ("prompt", "pooling", "layer", "head", "demonstration"),
}


def predict(
    model: Model,
    data: LabelledTexts | Episodes | FewShotPrompts,
    *,
    pool: LabelledTexts | None = None,
    shots: int = 8,
    template: str | None = None,
    sampling: str = "balanced",
    seed: int = 0,
    pooling: str | Sequence[str] | None = None,
    span: str = "demonstration",
    path: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The model's prediction for every query after its demonstrations.

    Args:
        model: any TransformerLens model with a tokenizer.
        data: queries (with `pool`), `Episodes`, or prompts with demonstrations from `few_shot_prompts`.
        pool: the texts that demonstrations are drawn from.
        shots: demonstrations per prompt. This and the next three are for queries with a pool: see `draw_episodes`.
        template: how an example is written; None for the pool's.
        sampling: how demonstrations are drawn.
        seed: of the draw.
        pooling: "max", "sum", "mean" or "label", or several of them, to read heads' weights too: see
            `demonstration_weights`.
        span: which tokens are pooled over, "demonstration" or "words": see `demonstration_weights`.
        path: a folder where finished batches are kept, from which a stopped run continues.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `log_probability[prompt, label]` (nats, of each label's first token over the whole vocabulary),
        `prediction[prompt]` (the class of the largest), `correct[prompt]` (0 or 1, NaN where the query's class is not
        known); `accuracy` with `accuracy_low` and `accuracy_high` (Wilson, 95%; over sets where demonstrations are
        shared, see `FewShotPrompts.sets`); from the probabilities of the labels among themselves, `calibration_error`
        (expected calibration error, 10 bins of equal width of the predicted label's probability; 0 to 1) and `brier` (0
        to 2); `confusion[label, predicted]`, counts. With `pooling` also `weight[prompt, layer, head, demonstration]`
        (with a first dimension `pooling` where several are given). Coordinates `label_class[prompt, demonstration]` (-1
        where absent), `target[prompt]` (-1 where unknown), `text[prompt]`, the label words, and `set[prompt]` where
        demonstrations are shared. `attrs["lane"]` is "prefix" if these were run once, else "model".

    Raises:
        TypeError: data of another type.
        Refused: queries without a pool, what `draw_episodes` and `few_shot_prompts` refuse, an unknown pooling or span,
            a folder that holds another evaluation, logits or attention that are not finite.
        NotDefined: a model whose outputs are not its tokens, or that has no tokenizer.

    Source: Han et al. 2025, section 5; Guo et al. 2017, section 2 (calibration error); Brier 1950.
    """
    check_words(model, "predict")
    prompts, texts = asked(
        model, data, pool=pool, shots=shots, template=template, sampling=sampling, seed=seed
    )
    options: dict[str, Any] = {"path": path, "batch_size": batch_size, "progress": progress}
    return answered(model, prompts, texts, pooling=pooling, span=span, **options)


def answered(
    model: Model,
    prompts: FewShotPrompts,
    texts: list[str],
    *,
    pooling: str | Sequence[str] | None,
    span: str,
    also: Sequence[Observer] = (),
    path: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """What `predict` returns, for prompts that are made already; `also` reads further activations in the passes."""
    poolings = _poolings(pooling)
    check_span(span, prompts)
    labels = prompts.demonstrations
    size, n = sizes(model), len(prompts)
    kept = {
        "log_probability": np.full((n, len(labels.labels)), np.nan),
        "weight": np.full((n, len(poolings), size.n_layers, size.n_heads, labels.mask.shape[1]), np.nan),
    }
    mark = "" if path is None else fingerprint(weights_of(model), prompts, poolings, span)
    folder = None if path is None else result_folder(path, mark, kind="evaluation", differs=DIFFERS)
    done = _read_into(kept, folder, mark)
    sites = {"pattern"} if poolings else set[str]()
    sites.update(*(observer.sites for observer in also))
    groups, way = groups_of(model, prompts, np.flatnonzero(~done), sites)
    with progress_bar(int((~done).sum()), progress=progress, unit="prompt") as bar:
        for at, shared in in_batches(model, prompts, groups, batch_size):
            batch = narrowed(prompts[torch.as_tensor(at)])
            new = evaluated(model, batch, poolings, span, readers(also, batch, at), shared=shared)
            for key, values in new.items():
                kept[key][at] = values
            if folder is not None:
                write_result(folder / f"prompt-{at.min():06d}.nc", _batch(at, new), mark)
            bar.update(len(at))
    found = _dataset(model, prompts, texts, kept, poolings, several=not isinstance(pooling, str))
    found = found.assign_attrs(way.attrs)
    return found.assign_attrs(span=span) if poolings else found


def asked(
    model: Model,
    data: Any,
    *,
    pool: Any = None,
    shots: int = 8,
    template: str | None = None,
    sampling: str = "balanced",
    seed: int = 0,
) -> tuple[FewShotPrompts, list[str]]:
    """The prompts of any kind of data, and the text of each query."""
    if isinstance(data, LabelledTexts):
        if pool is None:
            raise Refused(
                "wanted demonstrations for the queries, got no pool: give pool=, as load_classification returns it, or "
                "Episodes"
            )
        data = draw_episodes(pool, data, shots=shots, sampling=sampling, template=template, seed=seed)
    elif pool is not None or template is not None:
        raise Refused(
            f"pool= and template= go with LabelledTexts, got {type(data).__name__}: leave them out (episodes and "
            "prompts have their own)"
        )
    if isinstance(data, Episodes):
        return data.prompts(model), list(data.queries.texts)
    if not isinstance(data, Prompts):
        raise TypeError(
            f"wanted LabelledTexts of load_classification(...), Episodes or FewShotPrompts, got {type(data).__name__}"
        )
    ready = as_few_shot(model, data)
    ends = ready.demonstrations.spans[..., 1].max(1).values.tolist()
    ids = [
        row[end:length]
        for row, end, length in zip(ready.tokens.tolist(), ends, ready.lengths.tolist(), strict=True)
    ]
    decode = getattr(getattr(model, "tokenizer", None), "decode", None)
    return ready, [" ".join(map(str, row)) if decode is None else decode(row).strip() for row in ids]


def _batch(at: np.ndarray, values: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The values of the prompts `at` as a Dataset for one file, without empty ones."""
    return xr.Dataset(
        {key: (DIMS[key], value) for key, value in values.items() if value.size}, {"prompt": at}
    )


def _read_into(kept: Mapping[str, np.ndarray], folder: Path | None, mark: str) -> np.ndarray:
    """Fill `kept` with the finished batches of a folder; returns which prompts these are, bool `[prompt]`."""
    done = np.zeros(len(kept["log_probability"]), dtype=bool)
    for file in [] if folder is None else sorted(folder.glob("prompt-*.nc")):
        found = read_result(file, mark)
        if found is None:  # deleted in the meantime
            continue
        at = found["prompt"].values if "prompt" in found.coords else np.array(-1)
        sound = at.ndim == 1 and at.dtype.kind == "i" and set(at.tolist()) <= set(range(len(done)))
        for key, values in (
            _batch(at, {key: value[at] for key, value in kept.items()}).items() if sound else ()
        ):
            sound &= key in found and found[key].shape == values.shape and found[key].dtype.kind == "f"
        if not sound:
            raise Refused(
                f"{str(file)!r} does not hold what was written to it: delete it, and it is computed again"
            )
        for key in found.data_vars:
            kept[str(key)][at] = found[key].values
        done[at] = True
    return done


def _poolings(pooling: Any) -> tuple[str, ...]:
    poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling or ())
    if not set(poolings) <= set(POOLINGS) or len(set(poolings)) < len(poolings):
        raise Refused(f"wanted pooling in {list(POOLINGS)}, each once, got {pooling!r}")
    return poolings


def _dataset(
    model: Model,
    prompts: FewShotPrompts,
    texts: list[str],
    kept: dict[str, np.ndarray],
    poolings: tuple[str, ...],
    *,
    several: bool,
) -> xr.Dataset:
    found, logs = prompts.demonstrations, kept["log_probability"]
    target, labels = found.target.numpy(), list(found.labels)
    sets, shared = prompts.sets().numpy(), sets_coordinate(prompts)
    over = " over sets" if shared and sets.any() else ""
    scores = scores_of(logs, target, sets)
    values: dict[str, Any] = {"log_probability": (("prompt", "label"), logs)} | scores
    coords: dict[str, Any] = {
        "prompt": np.arange(len(prompts)),
        "label": labels,
        "predicted": labels,
        "target": ("prompt", target),
        "label_class": (("prompt", "demonstration"), torch.where(found.mask, found.classes, -1).numpy()),
        "text": ("prompt", np.array(texts)),
        **shared,
    }
    attrs = {
        "method": "predict", "unit": "nats", "paper": "Han et al. 2025, section 5",
        "interval": f"Wilson{over}, 95%", "calibration": f"{BINS} bins of equal width",
        **measured_on(model, prompts),
    }  # fmt: skip
    if poolings:
        weight, dims = kept["weight"].swapaxes(0, 1), ("pooling", "prompt", "layer", "head", "demonstration")
        values["weight"] = (dims, weight) if several else (dims[1:], weight[0])
        n_layers, n_heads = weight.shape[2:4]
        names = names_of(range(n_layers), range(n_heads))
        coords |= {
            "layer": np.arange(n_layers),
            "head": np.arange(n_heads),
            "name": (("layer", "head"), names),
        }
        coords |= {"pooling": list(poolings)} if several else {}
        attrs["pooling"] = ", ".join(poolings)
    return xr.Dataset(values, coords, attrs)
