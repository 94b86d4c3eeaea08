"""`apply_function_vector`: a function vector added to the last token of prompts that do not show the task, by layer.

The vector is added to the residual stream after one layer, h_l + v at the last token (Todd et al. 2024, section 2.3 and
`add_function_vector` of their code), in each layer in turn. Only the last position is run again. Beside it the vector
of shuffled labels and those of random heads, scaled to the length of the function vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed
from ..errors import Refused
from ..interventions._activations import New
from ..interventions._edits import Given
from ..interventions._engine import run_cells
from ..interventions._intervention import Intervention
from ..interventions._plan import Cell, within_memory
from ..metrics._metric import Metric
from ..metrics._targets import last_token, right_answer
from ..model._anatomy import Model, kept_as_it_was, sizes
from ..model._outputs import check_words
from ..model._runs import progress_bar
from ..prompts._conversion import as_prompts
from ..prompts._prompts import FewShotPrompts, Prompts, measured_on
from ..replay._lane_record import Way, of_slowest
from ..scorers._streaming import chosen_layers
from ..stats._means import mean_interval
from ..stats._shares import mean_share_difference_interval, mean_share_interval
from ._changed_predictions import batches_of_one_length

__all__ = ["apply_function_vector"]

NONE, VECTOR, SHUFFLED, RANDOM = "none", "function vector", "shuffled labels", "random heads"
SITES = ("resid_post", "resid_pre")
MEASURES = ("correct", "correct_among_answers", "probability")


def apply_function_vector(
    model: Model,
    prompts: Any,
    vector: xr.Dataset | Tensor,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Accuracy and probability of the right answer with a function vector added at the last token, by layer.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: prompts with answers, such as those of `data.zero_shot`, or few-shot prompts whose labels are shuffled
            but whose right labels are known. Not those the heads were chosen on.
        vector: the result of `function_vector`, with its controls; or a vector `[d_model]` without any.
        layers: only these; None for all.
        site: "resid_post" to add it after each layer, as in the paper, or "resid_pre" before it.
        seed: of the bootstrap.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over `vector` ("none": the untouched model, the same in all layers; "function vector"; and, of
        `function_vector`, "shuffled labels" and "random heads") and `layer`. Each variable has 95% intervals over
        prompts, `..._low` and `..._high`, each for its layer alone: the best of all layers looks too good on the
        prompts it was chosen on, so choose the layer on some prompts and report it on others. The variables:

        | variable | |
        |---|---|
        | `accuracy` | share of prompts whose most probable token is the first of the right answer (Wilson) |
        | `label_accuracy` | the same among all answers of these prompts; `label_chance` is 1 / their number |
        | `probability` | of the right answer's first token |
        | `accuracy_gain`, `probability_gain` | over "none", paired by prompt |
        | `accuracy_excess`, `probability_excess` | over "random heads", paired by prompt |

        By prompt: `correct`, `correct_among_answers` and `probability_by_prompt [prompt, vector, layer]`; for "random
        heads" means over the draws, whose accuracies are `control_accuracy[draw, layer]`. Vectors of random heads are
        scaled to the length of the function vector; `norm[vector]` is the length before.

    Raises:
        TypeError: a vector of another type; layers that are no whole numbers.
        Refused: prompts without right answers; a vector of another length or with numbers that are not finite; a layer
            the model does not have; another site.
        NotDefined: a model whose outputs are not its tokens.

    Source: Todd et al. 2024 (arXiv 2310.15213), sections 2.3 and 3.
    """
    check_words(model, "apply_function_vector")
    if site not in SITES:
        raise Refused(f'wanted site="resid_post" or "resid_pre", got {site!r}')
    ready, wanted = as_prompts(model, prompts), chosen_layers(model, layers)
    vectors, groups, norms = _vectors(vector, sizes(model).d_model)
    answers, choices = _answers(ready)
    found, way = _measured(model, ready, answers, choices, vectors, wanted, site, max_tokens, progress)
    by_vector = _by_vector(found, groups)
    attrs = {
        "method": "apply_function_vector", "paper": "Todd et al. 2024, section 3", "site": site, "unit": "share",
        "seed": checked_seed(seed), "interval": "95% over prompts", **way.attrs, **measured_on(model, ready),
        **_said_of(vector),
    }  # fmt: skip
    names = list(dict.fromkeys([NONE, *groups]))
    coords = {"vector": names, "layer": wanted, "prompt": np.arange(len(ready))}
    out = xr.Dataset(_summarised(by_vector, names, checked_seed(seed)), coords, attrs)
    random = [at for at, name in enumerate(groups) if name == RANDOM]
    return out.assign(
        norm=("vector", [0.0, *[norms[name] for name in names[1:]]]),
        label_chance=1 / len(choices),
        control_accuracy=(("draw", "layer"), found["correct"][:, 1:][:, random].mean(0)),
    )


def _said_of(vector: Any) -> dict[str, Any]:
    """The heads and the task of a function vector, for the attributes."""
    attrs = vector.attrs if isinstance(vector, xr.Dataset) else {}
    return {key: attrs[key] for key in ("heads", "task") if key in attrs}


def _vectors(given: Any, d_model: int) -> tuple[Tensor, list[str], dict[str, float]]:
    """The vectors to add `[vector, d_model]`, the group of each, and the mean length of each group's own."""
    if isinstance(given, xr.Dataset):
        if "vector" not in given:
            raise Refused(f"wanted the result of function_vector, got variables {list(given.data_vars)}")
        rows = [given["vector"].values, *(given[key].values for key in ("shuffled",) if key in given)]
        groups = [VECTOR, SHUFFLED][: len(rows)]
        random = given["control"].values if "control" in given else np.zeros((0, d_model))
        lengths = np.linalg.norm(random, axis=-1, keepdims=True)
        scaled = random * np.divide(np.linalg.norm(rows[0]), lengths, where=lengths > 0, out=0 * lengths)
        norms = {name: float(np.linalg.norm(row)) for name, row in zip(groups, rows, strict=True)}
        norms |= {RANDOM: float(lengths.mean())} if len(random) else {}
        vectors, groups = torch.from_numpy(np.array([*rows, *scaled])), groups + [RANDOM] * len(random)
    elif isinstance(given, Tensor) and given.is_floating_point():
        vectors, groups = given.detach().cpu().double()[None], [VECTOR]
        norms = {VECTOR: float(vectors.norm())}
    else:
        got = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(
            f"wanted the result of function_vector, or a vector as a floating-point tensor, got {got}"
        )
    if vectors.ndim != 2 or vectors.shape[1] != d_model:
        raise Refused(f"wanted a vector of d_model = {d_model} numbers, got shape {list(vectors.shape[1:])}")
    if not bool(vectors.isfinite().all()):
        raise Refused("wanted a vector of finite numbers, got NaN or infinity in it")
    return vectors, groups, norms


def _answers(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """The right answer of each prompt, `[prompt, 2]` (twice), and the tokens it is compared with, `[choice]`."""
    right = right_answer(prompts)
    if prompts.answers is None and isinstance(prompts, FewShotPrompts):
        choices = prompts.demonstrations.label_ids
    else:
        choices = torch.unique(right if prompts.answers is None else prompts.answers)
    return right.expand(-1, 2), choices


def _is_right(found: Tensor, prompts: Prompts) -> Tensor:
    assert prompts.answers is not None  # set by `_measured`
    return (found[:, 0].argmax(-1).cpu() == prompts.answers[:, 0]).float()


def _log_probability(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0].amax(-1)


def _same_for_all(choices: Tensor, prompts: Prompts) -> Tensor:
    return choices.expand(len(prompts), -1)


def _measured(
    model: Model, ready: Prompts, answers: Tensor, choices: Tensor, vectors: Tensor, layers: list[int], site: str,
    max_tokens: int | None, progress: bool,
) -> tuple[dict[str, np.ndarray], Way]:  # fmt: skip
    """Each measure `[prompt, run, layer]`: the untouched run first, then one run for each vector."""
    found = {key: np.full((len(ready), 1 + len(vectors), len(layers)), np.nan) for key in MEASURES}
    like = model.W_U
    news = [New(1.0, vector.to(like.device, like.dtype)[None, None]) for vector in vectors]
    ways = list[Way]()
    bar = progress_bar(len(ready), progress=progress, unit="prompt")
    with within_memory(max_tokens), kept_as_it_was(model), bar:
        for rows, batch, most in batches_of_one_length(model, ready, max_tokens):
            last = batch.tokens.shape[1] - 1
            cells = [Cell({layer: None}, last, {layer: new}) for new in news for layer in layers]
            part = replace(batch, answers=answers[rows])
            measures, of_batch = _of_batch(model, part, cells, choices, site, most)
            for key, values in measures.items():
                of_runs = values[1:].reshape(len(vectors), len(layers), len(rows))
                found[key][rows, 1:] = of_runs.transpose(2, 0, 1)
                found[key][rows, 0] = values[0][:, None]
            ways += of_batch
            bar.update(len(rows))
    return found, of_slowest(ways)


def _of_batch(
    model: Model, part: Prompts, cells: list[Cell], choices: Tensor, site: str, most: int
) -> tuple[dict[str, np.ndarray], list[Way]]:
    """Each measure `[run, prompt]` on prompts of one length that fit one batch, the untouched run first."""
    assert part.answers is not None  # set by `_measured`
    first = Metric("first_token", "share", _is_right, last_token, normalised=False)
    among = Metric("answers", "nats", _log_probability, last_token, partial(_same_for_all, choices))
    options: dict[str, Any] = {"max_tokens": most, "progress": False}
    whole = run_cells(model, part, cells, Intervention(Given(), site, first), **options)
    read = run_cells(model, part, cells, Intervention(Given(), site, among), readings=True, **options)
    assert read.readings is not None  # because readings=True
    logs = read.readings[:, :, 0].cpu().double().numpy()  # [run, prompt, choice]
    right = (part.answers[:, :1] == choices).int().argmax(1).numpy()
    measures = {
        "correct": np.concatenate([whole.baseline[None], whole.values]),
        "correct_among_answers": (logs.argmax(-1) == right).astype(np.float64),
        "probability": np.exp(np.take_along_axis(logs, right[None, :, None], 2)[..., 0]),
    }
    return measures, [whole.way, read.way]


def _by_vector(found: dict[str, np.ndarray], groups: list[str]) -> dict[str, np.ndarray]:
    """Each measure `[prompt, group, layer]`, the mean over the vectors of a group; the untouched model first."""
    of_group = [np.array([False, *(each == name for each in groups)]) for name in dict.fromkeys(groups)]
    return {
        key: np.stack([values[:, 0], *(values[:, at].mean(1) for at in of_group)], 1)
        for key, values in found.items()
    }


def _summarised(by_vector: dict[str, np.ndarray], names: list[str], seed: int) -> dict[str, Any]:
    """The variables over `vector` and `layer`, with their intervals over prompts."""
    dims, out = ("vector", "layer"), dict[str, Any]()

    def put(name: str, values: np.ndarray, interval: Any, least: float = 0.0) -> None:
        low, high = interval(values, seed=seed)
        ends = {"": values.mean(0), "_low": np.maximum(low, least), "_high": np.minimum(high, 1.0)}
        out.update({name + end: (dims, value) for end, value in ends.items()})

    put("accuracy", by_vector["correct"], mean_share_interval)
    put("label_accuracy", by_vector["correct_among_answers"], mean_share_interval)
    put("probability", by_vector["probability"], mean_interval)
    references = {"gain": 0} | ({"excess": names.index(RANDOM)} if RANDOM in names else {})
    for name, key, interval in (
        ("accuracy", "correct", mean_share_difference_interval),
        ("probability", "probability", mean_interval),
    ):
        values = by_vector[key]
        for what, at in references.items():
            put(f"{name}_{what}", values - values[:, at : at + 1], interval, -1.0)
            for end in ("_low", "_high"):  # a vector compared with itself, without error
                out[f"{name}_{what}{end}"][1][at] = 0.0
    for key in MEASURES:
        name = "probability_by_prompt" if key == "probability" else key
        out[name] = (("prompt", *dims), by_vector[key])
    return out
