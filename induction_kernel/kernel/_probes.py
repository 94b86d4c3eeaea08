"""`probe`: ridge probes that predict labels and next tokens from every head's key and value vectors around the labels.

If attention is kernel regression, a head's keys should represent x_i, so that argmax P(next | x_i) can be predicted
from them, and its values should hold y_i (Han et al. 2025, section 5.4). There is a ridge classifier (penalty .01) for
every head and every offset from the label's token, cross-validated by prompts. It is compared with the most frequent
class, and with control classes that are assigned to the texts at random (Hewitt & Liang 2019, section 2): a probe that
predicts those too recognises its texts, as it may if few texts occur in many prompts. That a vector holds something
does not mean that the model uses it: see `knock_out`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import batches, progress_bar, stream
from ..prompts._conversion import as_few_shot
from ..prompts._prompts import FewShotPrompts, measured_on
from ..scorers._streaming import chosen_layers
from ..stats._shares import mean_share_interval
from ._probe_examples import Examples, Rows, examples, rows_of
from ._ridge import cross_validated

__all__ = ["probe"]

SITES = {"key": "k", "value": "v"}
TARGETS = ("label", "next token")
DIMS = ("target", "vector", "layer", "head", "offset")
CONFIDENCE = 0.95  # of the intervals


def probe(
    model: Model,
    prompts: Any,
    *,
    vectors: Iterable[str] = ("key", "value"),
    targets: Iterable[str] = TARGETS,
    offsets: Iterable[int] = (-1, 0, 1, 2, 3),
    layers: Iterable[int] | None = None,
    penalty: float = 0.01,
    folds: int = 5,
    min_count: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Accuracy of linear probes for labels and next-token predictions, on every head's keys and values.

    Examples are the demonstrations of all prompts; vectors are taken at the label's first token plus an offset. All
    offsets have the same examples: a demonstration is left out if any of its positions lies outside its prompt. Keys
    are those before rotary positions. Vectors are kept in float32, 4 bytes for each of examples x offsets x layers x
    key/value heads x d_head x 2 (230 KB per example in SmolLM2-135M): give `layers` if that is too much.

    Args:
        model: any TransformerLens model.
        prompts: few-shot prompts.
        vectors: "key", "value" or both.
        targets: "label", the written class y_i; "next token", the most probable next token after x_i alone: after the
            BOS token (if the prompts have one) and the demonstration's tokens before its label, with the template's
            words. Each distinct text is run once.
        offsets: from the label's first token.
        layers: only these; None for all.
        penalty: of the squared weights in the ridge regression (the paper's lambda), above 0.
        folds: of the cross-validation, at least 2; the demonstrations of a prompt stay together.
        min_count: of "next token": examples of tokens that fewer examples have are left out (see `coverage`).
        seed: of folds, control classes and intervals.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a progress bar if it takes longer than two seconds.

    Returns:
        Dataset; its heads are key/value heads. Under grouped-query attention `name` is "L5KV1", and the coordinate
        `query_heads[head]` says which query heads use each. Shares are in [0, 1].

        | variable | over | meaning |
        |---|---|---|
        | `score`, `control` | prompt, target, vector, layer, head, offset | share with right class, control class |
        | `accuracy`, `control_accuracy` | the same without prompt | means over prompts, with 95% `_low` and `_high` |
        | `selectivity` | likewise | accuracy less control_accuracy, likewise |
        | `chance` | target | accuracy of the most frequent class of the other folds |
        | `classes`, `examples`, `coverage` | target | their numbers, and the share of demonstrations used |
        | `dealt_to` (coordinate) | target | what control classes are assigned to: "text" or "demonstration" |

    Raises:
        TypeError: options of another type.
        Refused: options out of their range; prompts without demonstrations; offsets that no demonstration has; a target
            with one class; vectors that are not finite.

    Source: Han et al. 2025, section 5.4; Hewitt & Liang 2019, section 2 (control tasks).
    """
    ready = as_few_shot(model, prompts)
    asked = _Asked(
        _names("vectors", vectors, tuple(SITES)), _names("targets", targets, TARGETS), _offsets(offsets),
        chosen_layers(model, layers), penalty, folds, seed,
    )  # fmt: skip
    _check(asked, min_count, len(ready))
    rows = rows_of(ready, asked.offsets)
    options: dict[str, Any] = {"folds": folds, "min_count": min_count, "seed": seed, "batch_size": batch_size}
    options["progress"] = progress
    known = [examples(model, ready, rows, target, **options) for target in asked.targets]
    parts = batches(len(ready), ready.tokens.shape[1], batch_size=batch_size, cost=8 * sizes(model).d_model)
    with progress_bar(len(asked.layers), progress=progress) as bar:
        kept = _captured(model, ready, rows, asked, parts, bar)
        right = []
        for layer in asked.layers:
            right.append(_told(kept, layer, known, asked))
            bar.update(1 / (len(parts) + 1))
    told = [
        [np.stack(layers, axis=2) for layers in zip(*target, strict=True)]
        for target in zip(*right, strict=True)
    ]
    return _result(model, ready, rows, known, told, asked).assign_attrs(min_count=min_count)


class _Asked(NamedTuple):
    """The options of `probe`, checked."""

    vectors: tuple[str, ...]
    targets: tuple[str, ...]
    offsets: tuple[int, ...]
    layers: list[int]
    penalty: float
    folds: int
    seed: int


def _captured(
    model: Model, prompts: FewShotPrompts, rows: Rows, asked: _Asked, parts: list[slice], bar: Any
) -> dict[tuple[str, int], np.ndarray]:
    """Vectors `[row, offset, head, d_head]` in float32 by (site, layer), read in one pass over the prompts."""
    size, kept = sizes(model), dict[tuple[str, int], np.ndarray]()
    shape = (*rows.positions.shape, size.n_key_value_heads, size.d_head)
    sites = {SITES[vector]: set(asked.layers) for vector in asked.vectors}
    for part in parts:
        here = (rows.prompt >= part.start) & (rows.prompt < part.stop)
        if not bool(here.any()):
            continue

        def read(site: str, layer: int, seen: Tensor, part: slice = part, here: Tensor = here) -> None:
            at = rows.prompt[here, None].to(seen.device) - part.start, rows.positions[here].to(seen.device)
            into = kept.setdefault((site, layer), np.empty(shape, dtype=np.float32))
            into[here.numpy()] = full_precision(seen.detach()[at]).float().cpu().numpy()
            bar.update(1 / len(sites) / (len(parts) + 1))

        lengths = prompts.lengths[part]
        stream(model, prompts.tokens[part, : int(lengths.max())], read, sites, lengths=lengths)
    broken = {layer for (_, layer), seen in kept.items() if not np.isfinite(seen).all()}
    if broken:
        raise Refused(
            f"keys or values of layer {min(broken)} are not finite: look for NaN or infinite weights in the model"
        )
    return kept


def _told(
    kept: dict[tuple[str, int], np.ndarray], layer: int, known: list[Examples], asked: _Asked
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Whether probes predict classes and control classes, bool `[example, vector, head, offset]` each, by target."""
    out = []
    for target in known:
        labels, by_vector = [target.labels, target.control], []
        for vector in asked.vectors:
            seen = kept[SITES[vector], layer][target.rows]
            cells = seen.transpose(2, 1, 0, 3).reshape(-1, len(seen), seen.shape[3]).astype(np.float64)
            guessed = cross_validated(cells, labels, target.folds, asked.penalty)
            shape = (len(seen), seen.shape[2], seen.shape[1])
            by_vector.append(
                [(guess == each).T.reshape(shape) for guess, each in zip(guessed, labels, strict=True)]
            )
        out.append(tuple(np.stack(each, axis=1) for each in zip(*by_vector, strict=True)))
    return out


def _result(
    model: Model,
    prompts: FewShotPrompts,
    rows: Rows,
    known: list[Examples],
    told: list[list[np.ndarray]],
    asked: _Asked,
) -> xr.Dataset:
    """The Dataset of `probe`; `told` has right predictions `[example, vector, layer, head, offset]` by target."""
    of_prompt = [rows.prompt.numpy()[target.rows] for target in known]

    def shares(values: list[np.ndarray]) -> np.ndarray:
        return np.stack(
            [_shares(each, at, len(prompts)) for each, at in zip(values, of_prompt, strict=True)], axis=1
        )

    score, control = (shares([target[kind] for target in told]) for kind in (0, 1))
    variables: dict[str, Any] = {"score": (("prompt", *DIMS), score), "control": (("prompt", *DIMS), control)}
    for name, values in {
        "accuracy": score,
        "control_accuracy": control,
        "selectivity": score - control,
    }.items():
        low, high = np.stack([_interval(values[:, i], asked.seed) for i in range(len(known))], axis=1)
        mean = np.nanmean(values, axis=0)
        variables |= {name: (DIMS, mean), f"{name}_low": (DIMS, low), f"{name}_high": (DIMS, high)}
    demonstrations = int(prompts.demonstrations.mask.sum())
    by_target = {
        "chance": np.nanmean(shares([target.chance for target in known]), axis=0),
        "classes": [len(np.unique(target.labels)) for target in known],
        "examples": [len(target.rows) for target in known],
        "coverage": [len(target.rows) / demonstrations for target in known],
    }
    variables |= {name: ("target", np.asarray(values)) for name, values in by_target.items()}
    attrs = {
        "method": "probe", "unit": "share", "penalty": asked.penalty, "folds": asked.folds, "seed": asked.seed,
        "confidence": CONFIDENCE, "paper": "Han et al. 2025, section 5.4", **measured_on(model, prompts),
    }  # fmt: skip
    dealt_to = ("target", [target.dealt_to for target in known])
    return xr.Dataset(variables, {**_coordinates(model, asked), "dealt_to": dealt_to}, attrs)


def _shares(values: np.ndarray, of_prompt: np.ndarray, n_prompts: int) -> np.ndarray:
    """Means `[prompt, ...]` of each prompt's values `[example, ...]`; NaN if it has none."""
    total = np.zeros((n_prompts, *values.shape[1:]))
    np.add.at(total, of_prompt, values)
    count = np.bincount(of_prompt, minlength=n_prompts).reshape(-1, *[1] * (values.ndim - 1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _interval(values: np.ndarray, seed: int) -> np.ndarray:
    """Interval `[low and high, ...]` of the mean over the prompts `[prompt, ...]` that have examples."""
    return np.stack(mean_share_interval(values, confidence=CONFIDENCE, seed=checked_seed(seed)))


def _coordinates(model: Model, asked: _Asked) -> dict[str, Any]:
    """The coordinates of the result."""
    size = sizes(model)
    shared = size.n_heads // size.n_key_value_heads
    heads, letter = np.arange(size.n_key_value_heads), "H" if shared == 1 else "KV"
    readers = [" ".join(map(str, range(head * shared, (head + 1) * shared))) for head in heads.tolist()]
    names = [[f"L{layer}{letter}{head}" for head in heads] for layer in asked.layers]
    return {
        "target": list(asked.targets), "vector": list(asked.vectors), "layer": asked.layers, "head": heads,
        "offset": list(asked.offsets), "name": (("layer", "head"), names), "query_heads": ("head", readers),
    }  # fmt: skip


def _names(what: str, given: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """The given names, if they are different ones out of the known."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"wanted {what} as a list out of {list(known)}, got {given!r}")
    chosen = tuple(given)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise Refused(f"wanted {what} out of {list(known)}, once each, got {list(chosen)}")
    return chosen


def _offsets(given: Any) -> tuple[int, ...]:
    """The given offsets, if they are different whole numbers."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"wanted offsets as a list of whole numbers, got {given!r}")
    chosen = tuple(given)
    if not all(map(is_whole, chosen)):
        raise TypeError(f"wanted offsets as a list of whole numbers, got {list(chosen)}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise Refused(f"wanted different offsets from the label's token, like (-1, 0, 1), got {list(chosen)}")
    return tuple(int(offset) for offset in chosen)


def _check(asked: _Asked, min_count: int, n_prompts: int) -> None:
    """Raise TypeError or Refused unless the numbers are in their ranges."""
    if not (is_whole(asked.folds) and is_whole(min_count)):
        raise TypeError(f"wanted folds and min_count as whole numbers, got {asked.folds!r} and {min_count!r}")
    if not 2 <= asked.folds <= n_prompts or min_count < 1:
        raise Refused(
            f"wanted 2 to {n_prompts} folds (each prompt is in one) and min_count >= 1, got {asked.folds} and "
            f"{min_count}"
        )
    if not 0 < asked.penalty < np.inf:
        raise Refused(f"wanted penalty > 0, got {asked.penalty}")
