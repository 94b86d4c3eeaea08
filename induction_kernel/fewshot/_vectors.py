"""`function_vector`: the sum of what chosen heads write at the last token, on average over a task's few-shot prompts.

v = sum over heads of (mean z - b_V) W_O, the mean over intact few-shot prompts (Todd et al. 2024, section 2.3, equation
5, and `compute_function_vector` of their code). Beside it the same heads' vector on prompts with shuffled labels, which
hold the words but not the task, and vectors of random heads. `_vector_applied` adds them to other prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed, is_whole
from ..data._episodes import Episodes
from ..errors import Refused
from ..heads._choice import random_sets
from ..heads._names import Head, HeadLike, some_heads
from ..model._anatomy import Model, full_precision, sizes
from ..model._weights import check_writing, value_weights
from ..prompts._prompts import measured_on
from ._function_vectors import last_means, task_prompts

__all__ = ["function_vector"]


def function_vector(
    model: Model,
    prompts: Any,
    heads: HeadLike | Iterable[HeadLike],
    *,
    shuffled: Any = None,
    n_controls: int = 20,
    control: str = "same layer",
    seed: int = 0,
    max_tokens: int | None = None,
) -> xr.Dataset:
    """The vector that heads write for a task, and its controls; `apply_function_vector` adds it to other prompts.

    A head's output is (z - b_V) W_O: without the value bias, which it adds on every prompt, so that raw and processed
    weights give the same vector (the authors' code keeps the bias; of their models only GPT-2 XL has one). Choose the
    heads by `function_vector_effect` on other prompts than those the vector is tried on.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are on it stay active.
        prompts: few-shot prompts of the task, or episodes.
        heads: one or several, as Head, (layer, head) or "L5H1".
        shuffled: the same with shuffled labels; None as in `function_vector_effect`.
        n_controls: sets of as many random heads, from which control vectors are made; 0 for none.
        control: where random heads are drawn from: "same layer", or "any layer" where layers have too few others.
        seed: of the shuffle and of the draw.
        max_tokens: tokens in one batch; None to fit the memory.

    Returns:
        Dataset in the units of the residual stream, each with its length, `..._norm`:

        | variable | |
        |---|---|
        | `vector[feature]` | of these heads, over the prompts; d_model numbers |
        | `shuffled[feature]` | of the same heads, over the prompts with shuffled labels |
        | `control[draw, feature]` | of random heads, over the prompts |

        Coordinate `control_heads[draw]`, names; attributes `heads`, `task`, `n_prompts` and `seed`.

    Raises:
        TypeError: not prompts or heads.
        Refused: prompts without demonstrations; labels of several tokens to shuffle; no heads, or some the model does
            not have.
        NotDefined: a model that normalises what attention writes (Gemma 2 and 3, OLMo 2 and 3) or has no final norm;
            too few other heads to draw from.

    Source: Todd et al. 2024 (arXiv 2310.15213), section 2.3; random heads and shuffled labels as controls are this
    package's own.
    """
    size = sizes(model)
    chosen = some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    if not is_whole(n_controls) or n_controls < 0:
        raise Refused(f"wanted n_controls sets of random heads, 0 for none, got {n_controls!r}")
    check_writing(model, range(size.n_layers))
    drawn = random_sets(model, like=chosen, n=n_controls, seed=seed, control=control) if n_controls else []
    ready, without_task = task_prompts(model, prompts, shuffled, checked_seed(seed))
    written = _written(model, last_means(model, ready, max_tokens))
    of_shuffled = _written(model, last_means(model, without_task, max_tokens))
    vectors = {
        "vector": _sum(written, chosen),
        "shuffled": _sum(of_shuffled, chosen),
        "control": np.array([_sum(written, each) for each in drawn]).reshape(len(drawn), size.d_model),
    }
    if not all(np.isfinite(value).all() for value in vectors.values()):
        raise Refused("what heads write is not finite: look for NaN or infinite weights in the model")
    variables: dict[str, Any] = {}
    for key, value in vectors.items():
        dims = ("draw", "feature") if key == "control" else ("feature",)
        norm = "norm" if key == "vector" else f"{key}_norm"
        variables |= {key: (dims, value), norm: (dims[:-1], np.linalg.norm(value, axis=-1))}
    names = np.array([" ".join(map(str, each)) for each in drawn], dtype=str)
    coords = {
        "feature": np.arange(size.d_model),
        "draw": np.arange(len(drawn)),
        "control_heads": ("draw", names),
    }
    attrs = {
        "method": "function_vector", "paper": "Todd et al. 2024, section 2.3", "unit": "residual stream",
        "heads": " ".join(map(str, chosen)), "task": prompts.queries.name if isinstance(prompts, Episodes) else "",
        "control": control, "seed": seed, "convention": "z without its value bias, through W_O",
        **measured_on(model, ready),
    }  # fmt: skip
    return xr.Dataset(variables, coords, attrs)


def _written(model: Model, means: dict[int, Tensor]) -> np.ndarray:
    """What each head writes into the residual stream, `[layer, head, d_model]` in float64, of its mean z."""
    out = []
    for layer in range(sizes(model).n_layers):
        _, b_v, w_o = value_weights(model, layer)
        read = means[layer].to(w_o.device) - full_precision(b_v)
        out.append(torch.einsum("hd,hdm->hm", read.to(w_o), w_o).cpu().double().numpy())
    return np.stack(out)


def _sum(written: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """The sum of what these heads write, `[d_model]`."""
    return np.sum([written[layer, head] for layer, head in heads], axis=0)
