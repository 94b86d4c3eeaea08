"""Comparisons of a lane with the model itself: random edits against whole runs with hooks, and an untouched run.

A lane is a way of running layers again: from the model's parameters, or by its own blocks. `_lanes` chooses one and
remembers which were right. The random edits are those of a few cells (edited runs), and all whole runs are made in one
pass of the model; the stream after the last layer is compared, and of the logits, which take as long as several layers,
only those at two positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..metrics._metric import as_metric, reading_of
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import progress_bar, stream
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..replay._capture import hooks_of_run
from ..replay._lane import Lane
from ..replay._layers import looseness
from ..replay._rows import at_positions
from ._activations import HEAD_SITES, New
from ._batch import Job, found_by_cell
from ._changes import taps_at
from ._intervention import Intervention
from ._plan import Cell

__all__ = ["apart", "differs", "lane_looseness", "untouched"]


def untouched(model: Model, tokens: Tensor) -> Tensor:
    """The stream after the last layer of the model's own run."""
    seen: list[Tensor] = []
    last = {sizes(model).n_layers - 1}
    stream(model, tokens, lambda site, layer, resid: seen.append(resid), {"resid_post": last}, lengths=None)
    return seen[0]


def lane_looseness(model: Model) -> float:
    """Tolerance relative to the largest number; in bfloat16, in which the layers' roundings add up, more than usual.

    Two orders of the same sums were 0.026 apart after 8 and 16 layers, as far as either was from float32.
    """
    return 0.05 if model.W_U.dtype == torch.bfloat16 else looseness(model)


def apart(what: str, whole: Tensor, mine: Tensor, loose: float) -> str:
    """What differs and by how much; empty if the two agree up to rounding, at each position for itself."""
    if whole.shape != mine.shape:
        return f"{what} has shape {list(mine.shape)}, wanted {list(whole.shape)}"
    whole = full_precision(whole)
    apart = (whole - mine.to(whole)).abs().amax(-1).flatten()
    largest = whole.abs().amax(-1).flatten()
    worst = int((apart / (1 + largest)).argmax())  # of NaN, if there are any
    if apart[worst] <= loose * (1 + largest[worst]):
        return ""
    return (
        f"{what} differs by {apart[worst]:.2g} from whole runs, in which the largest number there is "
        f"{largest[worst]:.2g}"
    )


def differs(model: Model, lane: type[Lane], intervention: Intervention, progress: bool) -> str:
    """How the lane differs from whole runs with hooks, for random edits of random tokens; empty if it does not.

    The stream after the last layer is compared, by position, and logits at two positions.
    """
    size, site, generator = sizes(model), intervention.site, torch.Generator().manual_seed(0)
    length, last = min(7, size.n_ctx), size.n_layers - 1
    middle = last // 2  # another layer follows, if there is more than one
    prompts = as_prompts(
        model, torch.randint(size.d_vocab, (2, length), generator=generator), lengths=[length] * 2
    )
    heads = (0,) if site in HEAD_SITES else None
    new = dict.fromkeys(range(size.n_layers), _random(site, length, size, generator))
    one = Cell({middle: heads})
    cells = {
        f"in layer {middle}": one,
        f"in layer {last}": Cell({last: heads}),
        f"in layer {middle} at position {length // 2}": Cell({middle: heads}, length // 2),
    }
    at = torch.tensor([[length // 2, length - 1]])
    whole, logits = _whole_runs(model, prompts, [*cells.values()], new, intervention, at, progress)
    built = lane(model, prompts.tokens, prompts.lengths)
    unembedded = built.logits(at_positions(whole, at.expand(2, -1)))
    again = _run_again(model, built, prompts, [*cells.values(), one], new, intervention)
    for number, where in enumerate([*cells, f"in layer {middle}, two runs in a batch"]):
        run, after = number % len(cells), f"with {site} edited {where}"
        why = apart(f"a logit {after}", logits[run], unembedded[run], lane_looseness(model)) or apart(
            f"the last residual stream {after}", whole[run], again[number], lane_looseness(model)
        )
        if why:
            return why
    return ""


def _whole_runs(
    model: Model,
    prompts: Prompts,
    cells: list[Cell],
    new: dict[int, New],
    intervention: Intervention,
    at: Tensor,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """The last residual stream `[cell, prompt, position, d_model]`, and logits `[cell, prompt, read, vocab]` at `at`.

    One run of the model on the prompts once for each cell, in which each edit is made in its own cell's rows.
    """
    site, layers = intervention.site, set(range(sizes(model).n_layers))
    patterns: dict[int, Tensor] = {}

    def keep(_: str, layer: int, pattern: Tensor) -> None:
        patterns[layer] = pattern

    if intervention.hold:
        stream(model, prompts.tokens, keep, {"pattern": layers}, lengths=None)
    taps = {layer: taps_at(cells, new, site, layer, 0) for cell in cells for layer in cell.touched}
    tokens = prompts.tokens.repeat(len(cells), 1)
    hooks = hooks_of_run(model, tokens, taps, patterns, cells=len(cells), lengths=None)
    after: dict[int, Tensor] = {}
    with progress_bar(len(layers), progress=progress, what="check of how to run layers again") as bar:

        def read(_: str, layer: int, resid: Tensor) -> None:
            after[0] = resid  # of the last layer in the end
            bar.update()

        logits = stream(
            model, tokens, read, {"resid_post": layers}, hooks, lengths=None, at=at.expand(len(tokens), -1)
        )
    assert logits is not None  # `at` asks for them
    return after[0].unflatten(0, (len(cells), -1)), logits.unflatten(0, (len(cells), -1))


def _run_again(
    model: Model,
    lane: Lane,
    prompts: Prompts,
    cells: list[Cell],
    new: dict[int, New],
    intervention: Intervention,
) -> list[Tensor]:
    """The last residual stream of each cell (edited run) in the lane, `[prompt, position, d_model]`."""
    everything = as_metric(lambda logits, _: logits[:, 0, 0])
    job = Job(model, prompts, intervention, new, reading_of(everything, prompts), None, 0)
    lane.logits = lambda resid: resid  # so that the streams are what is found
    with progress_bar(0, progress=False) as bar:
        clean, _, found = found_by_cell(job, cells, lane, len(cells) * prompts.tokens.numel(), bar)
        streams = dict(found)
    return [streams.get(number, clean) for number in range(len(cells))]


def _random(site: str, length: int, size: Any, generator: torch.Generator) -> New:
    """A new value at the site: half the activation plus noise; for patterns, uniform attention."""
    if site == "pattern":
        row = torch.ones(length, length).tril()
        return New(0.0, row / row.sum(-1, keepdim=True))
    shape = (length, 1, size.d_head) if site in HEAD_SITES else (length, size.d_model)
    return New(0.5, torch.randn(shape, generator=generator, dtype=torch.float32))
