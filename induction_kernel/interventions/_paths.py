"""Path patching: only the receivers see what a head (the sender) wrote in another run (which head talks to which).

The sender's output in the other run is put into the input of the receivers, with everything in between as in the
untouched run, so that only the direct path counts. The receivers' new queries, keys, values or MLP outputs are then
patched into a run in which nothing else is fixed. All paths of a sender together: `sweep` with `FromRun`. A lane, named
below, is a way of running layers again: from the model's parameters, or by its own blocks.

Source: Wang et al. 2022, section 3.1; Goldowsky-Dill et al. 2023.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import NotDefined, Refused
from ..heads._names import Head, HeadLike, names_of
from ..metrics._metric import MetricLike, as_metric, part_of
from ..metrics._standard import logit_difference
from ..model._anatomy import Model, check_model, kept_as_it_was, sizes
from ..model._runs import batches, stream
from ..model._weights import check_writing
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, measured_on
from ..replay._capture import hooks_at
from ..replay._lane import Lane
from ..replay._lane_record import of_slowest
from ._activations import New
from ._edits import Given
from ._edits_from_runs import taken_from
from ._engine import Found, concatenated, run_cells
from ._intervention import Intervention
from ._lanes import chosen_lane, on_batch
from ._patching import against_source, source_value
from ._path_ends import Touched, check_receiving, is_before, receivers_of, senders_of
from ._plan import Cell, tokens_at_once

__all__ = ["path_patch"]


def path_patch(
    model: Model,
    *,
    source: Any,
    into: Any,
    receivers: Any = None,
    site: str = "resid_post",
    senders: HeadLike | Iterable[HeadLike] | None = None,
    metric: MetricLike = logit_difference,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The metric on `into` if only the receivers see what each head wrote on `source`.

    | site | receivers | senders |
    |---|---|---|
    | `q`, `k`, `v` | heads (at k and v key/value heads) | heads of earlier layers |
    | `mlp_out` | layers | heads of earlier layers, and of the same layer if its MLP reads what attention wrote |
    | `resid_post` | None: the final stream, which is unembedded (the direct effect on the logits) | all heads |

    Several receivers change together, each through its own direct path; a receiver that does not come after the sender
    keeps its value.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are already on it act.
        source: the prompts on which the senders' outputs are taken, anything `as_prompts` takes.
        into: the prompts whose run is patched: as many, of the same lengths.
        receivers: the heads (as Head, (layer, head) or "L5H1") or layers that see these outputs; see the table.
        site: the receivers' activation that changes.
        senders: only these heads; None for all that come before a receiver.
        metric: a metric, or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`.
        max_tokens: tokens in one batch, with the prompts once for each sender; None to fit a quarter of the free
            memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset in the metric's unit, by sender, with `value[prompt, layer, head]`, `baseline[prompt]` on `into`,
        `effect` = value - baseline, `source_value[prompt]`, the metric on `source` (with the answers or next tokens of
        `into`), and `normalised[layer, head]` = mean effect / mean (source_value - baseline): 0 if the path carries
        nothing, 1 if it carries everything. NaN at heads that are not senders; `normalised` also, with a warning, if
        the metric hardly differs between the two runs.

    Raises:
        TypeError: receivers or senders of another type.
        Refused: no receivers; senders that come before no receiver; unequal numbers or lengths of prompts.
        NotDefined: a model whose heads do not add up to what attention writes (a norm after attention).

    Source: Wang et al. 2022, section 3.1; Goldowsky-Dill et al. 2023.
    """
    check_model(model)
    metric = replace(as_metric(metric), without=None)
    ready, other = metric.ready(model, into), as_prompts(model, source)
    _check_equal(ready, other)
    check_receiving(site)
    intervention = Intervention(Given(), site, metric)  # each cell has new values of its own
    touched = receivers_of(model, intervention, receivers, ready)
    check_writing(model, range(sizes(model).n_layers))
    chosen = senders_of(model, site, touched, senders)
    found = _measured(model, ready, other, chosen, touched, intervention, max_tokens, progress)
    shown = _dataset(model, ready, chosen, touched, intervention, found)
    return against_source(shown, source_value(model, ready, other, metric), metric)


def _check_equal(into: Prompts, source: Prompts) -> None:
    """Raise Refused unless both have as many prompts, of the same lengths."""
    if len(into) != len(source):
        raise Refused(f"wanted as many prompts in source as in into, got {len(source)} and {len(into)}")
    for row, (a, b) in enumerate(zip(source.lengths.tolist(), into.lengths.tolist(), strict=True)):
        if a != b:
            raise Refused(
                f"prompt {row} has {b} tokens, its source {a}: wanted equal lengths, see pairs(...)"
            )


def _measured(
    model: Model, into: Prompts, source: Prompts, senders: dict[int, list[int]], touched: Touched,
    intervention: Intervention, max_tokens: int | None, progress: bool,
) -> Found:  # fmt: skip
    """The metric in one cell (edited run) for each sender."""
    size, length, site = sizes(model), into.tokens.shape[1], intervention.site
    most = tokens_at_once(model, length, max_tokens)
    width = size.d_model if site in ("mlp_out", "resid_post") else size.n_heads * size.d_head
    kept = sum(len(heads) for heads in senders.values()) * width * len(touched)
    at_once = min(most // length, batches(len(into), length, batch_size=None, cost=kept)[0].stop)
    parts: list[Found] = []
    for rows in batches(len(into), length, batch_size=max(1, at_once), cost=1):
        with kept_as_it_was(model):
            cells = _cells(model, into[rows], source[rows], senders, touched, intervention, most)
        of_rows = replace(intervention, metric=part_of(intervention.metric, rows))
        found = run_cells(model, into[rows], cells, of_rows, max_tokens=most, progress=progress)
        parts.append(found)
    return concatenated(parts, of_slowest(part.way for part in parts))


def _cells(
    model: Model, into: Prompts, source: Prompts, senders: dict[int, list[int]], touched: Touched,
    intervention: Intervention, most: int,
) -> list[Cell]:  # fmt: skip
    """A cell for each sender, with the new values of its receivers."""
    site = intervention.site
    _, lane = on_batch(model, chosen_lane(model, intervention), into, intervention)
    written = _written(model, into, source, set(senders))
    at_once = max(1, most // into.tokens.numel())
    cells = []
    for layer, heads in senders.items():
        after = [receiver for receiver in touched if is_before(model, site, layer, receiver)]
        for more in written[layer][heads].split(at_once):
            new = {receiver: _received(lane, model, into, receiver, more, site) for receiver in after}
            for row in range(len(more)):
                of_sender = {receiver: New(scale, value[row]) for receiver, (scale, value) in new.items()}
                cells.append(Cell({receiver: touched[receiver] for receiver in after}, None, of_sender))
    return cells


def _written(model: Model, into: Prompts, source: Prompts, layers: set[int]) -> dict[int, Tensor]:
    """Layer -> `[head, prompt, position, d_model]`: what each head writes on `source` less that on `into`."""
    z, attn_out = (
        [taken_from(model, each, into.tokens.shape[1], site, layers)[0] for each in (source, into)]
        for site in ("z", "attn_out")
    )
    out = {}
    for layer in layers:
        moved = z[0][layer] - z[1][layer]
        w_o = model.blocks[layer].attn.W_O.detach().to(moved)
        out[layer] = torch.einsum("pshd,hdm->hpsm", moved, w_o)
        whole = attn_out[0][layer] - attn_out[1][layer]
        loose = 1e-3 if whole.dtype in (torch.float32, torch.float64) else 0.1
        if bool(((out[layer].sum(0) - whole).abs() > loose * (1 + whole.abs().max())).any()):
            raise NotDefined(
                f"in layer {layer} the heads do not add up to what attention writes (a norm after attention, or a "
                "hook on it), so there is no direct path to patch: use patch or sweep"
            )
    return out


def _received(
    lane: Lane | None, model: Model, into: Prompts, layer: int, more: Tensor, site: str
) -> tuple[float, Tensor]:
    """`scale, value [sender, prompt, position, ...]` of a layer's receivers if `more` is added to their input."""
    if site == "resid_post":
        return 1.0, more
    serial = site == "mlp_out" and not getattr(model.cfg, "parallel_attn_mlp", False)
    read_at = "resid_mid" if serial else "resid_pre"
    if lane is None:
        rows = [_received_in_a_run(model, into, layer, read_at, each, site) for each in more]
        return 0.0, torch.stack(rows)
    kept: list[Tensor] = []

    def keep(activation: Tensor) -> Tensor:
        kept.append(activation)
        return activation

    def add(activation: Tensor) -> Tensor:
        return activation + more.to(activation.device)

    entering = lane.resid_pre(layer)[None].expand(len(more), -1, -1, -1)
    taps = {site: keep, "resid_mid": add} if serial else {site: keep}
    lane.step(layer, entering if serial else add(entering), 0, taps=taps)
    return 0.0, kept[0]


def _received_in_a_run(
    model: Model, into: Prompts, layer: int, read_at: str, more: Tensor, site: str
) -> Tensor:
    """`[prompt, position, ...]`: a layer's receivers for one sender, from a whole run of the model."""
    kept: list[Tensor] = []
    hooks = hooks_at(layer, {read_at: lambda activation: activation + more.to(activation)}, 1)
    stream(
        model, into.tokens, lambda _, layer, activation: kept.append(activation.detach().clone()), {site: {layer}},
        hooks, lengths=into.lengths,
    )  # fmt: skip
    return kept[0]


def _dataset(
    model: Model, into: Prompts, senders: dict[int, list[int]], touched: Touched,
    intervention: Intervention, found: Found,
) -> xr.Dataset:  # fmt: skip
    """The values in their places by sender, with coordinates and attributes."""
    baseline, metric = found.baseline, intervention.metric
    size, n = sizes(model), len(into)
    value = np.full((n, size.n_layers, size.n_heads), np.nan)
    places = [(layer, head) for layer, heads in senders.items() for head in heads]
    for (layer, head), of_sender in zip(places, found.values, strict=True):
        value[:, layer, head] = of_sender
    names = names_of(range(size.n_layers), range(size.n_heads))
    dims = ("prompt", "layer", "head")
    variables = {
        "value": (dims, value),
        "baseline": ("prompt", baseline),
        "effect": (dims, value - baseline[:, None, None]),
    }
    coords = {
        "prompt": np.arange(n), "layer": np.arange(size.n_layers), "head": np.arange(size.n_heads),
        "name": (("layer", "head"), names),
    }  # fmt: skip
    to = [
        f"L{r}" if heads is None else str(Head(r, h)) for r, heads in touched.items() for h in heads or (0,)
    ]
    attrs = {
        "method": "path_patch", "site": intervention.site, "receivers": " ".join(to),
        **metric.attrs, **found.way.attrs, **measured_on(model, into),
    }  # fmt: skip
    return xr.Dataset(variables, coords, attrs)
