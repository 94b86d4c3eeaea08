"""The plan of a sweep: its cells (edited runs) as plain data, and which of them share a batch.

A cell says which layers, heads and position one run is edited in. `_engine` runs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch

from .._given import is_whole
from ..errors import OUT_OF_MEMORY, NotDefined, Refused
from ..heads._names import as_heads, some_heads
from ..model._anatomy import Model, sizes
from ..model._runs import is_out_of_memory
from ._activations import HEAD_SITES, New
from ._intervention import Intervention

__all__ = [
    "Cell",
    "Plan",
    "checked_by",
    "passes",
    "planned",
    "prompts_at_once",
    "tokens_at_once",
    "within_memory",
]


@dataclass(frozen=True, eq=False)
class Cell:
    """One edited run: what is edited in it together.

    Attributes:
        touched: layer -> heads edited there, or None at a site that has no heads.
        position: the only position edited; None for all.
        new: layer -> the cell's own new value; None for those of the sweep.
    """

    touched: Mapping[int, tuple[int, ...] | None]
    position: int | None = None
    new: Mapping[int, New] | None = None

    @property
    def first(self) -> int:
        """The first layer that is edited."""
        return min(self.touched)


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep and their places in its result.

    Attributes:
        by: the result's dimensions after `prompt`.
        coords: dimension -> its integer coordinates.
        cells: the edited runs.
        places: for each cell, its indices in the result, one for each dimension.
    """

    by: tuple[str, ...]
    coords: dict[str, list[int]]
    cells: list[Cell] = field(repr=False)
    places: list[tuple[int, ...]] = field(repr=False)


def planned(
    model: Model,
    intervention: Intervention,
    *,
    by: Sequence[str],
    length: int,
    heads: Any = None,
    layers: Iterable[int] | None = None,
    positions: Iterable[int] | None = None,
) -> Plan:
    """The cells of a sweep, for prompts of this length.

    Raises:
        TypeError: heads, layers or positions of another type.
        Refused: a `by` that the site does not have; heads, layers or positions that are not there.
        NotDefined: a site that the model does not have.
    """
    site = intervention.site
    by = checked_by(by, site)
    _check_site(model, site)
    size = sizes(model)
    all_layers = _integers("layers", layers, size.n_layers)
    all_positions = _integers("positions", positions, length)
    of_layer = _heads_of_layers(model, site, heads)
    all_layers = [layer for layer in all_layers if layer in of_layer]
    if not all_layers:
        raise Refused("wanted heads in the layers given, got none there: leave out layers= or heads=")
    n_heads = size.n_key_value_heads if site in ("k", "v") else size.n_heads
    coords = {"layer": all_layers, "head": list(range(n_heads)), "position": all_positions}
    if positions is not None and "position" not in by:
        raise Refused(f"positions= chooses among the positions swept, got by={by}: put 'position' into by")
    coords = {name: coords[name] for name in by}
    if not by:
        return Plan(by, coords, [Cell({layer: of_layer[layer] for layer in all_layers})], [()])
    cells, places = [], []
    for place in np.ndindex(*(len(coords[name]) for name in by)):
        at = {name: coords[name][index] for name, index in zip(by, place, strict=True)}
        touched = of_layer[at["layer"]]
        if "head" in at:
            if at["head"] not in (touched or ()):
                continue
            touched = (at["head"],)
        cells.append(Cell({at["layer"]: touched}, at.get("position")))
        places.append(place)
    return Plan(by, coords, cells, places)


def checked_by(by: Sequence[str], site: str) -> tuple[str, ...]:
    """`by` as a tuple, if the site has these dimensions; else raise Refused."""
    legal = [(), ("layer",), ("layer", "position")]
    if site in HEAD_SITES:
        legal += [("layer", "head"), ("layer", "head", "position")]
    if not isinstance(by, Sequence) or isinstance(by, str) or tuple(by) not in legal:
        by_head = "" if ("layer", "head") in legal else '; for heads pass site="z"'
        raise Refused(f"wanted by for site {site!r} out of {', '.join(map(str, legal))}, got {by!r}{by_head}")
    return tuple(by)


def _check_site(model: Model, site: str) -> None:
    """Raise NotDefined if the model does not have the site."""
    cfg: Any = model.cfg
    if site == "mlp_out" and getattr(cfg, "attn_only", False):
        raise NotDefined("this model is attention-only, so it has no mlp_out: use attn_out or resid_post")
    if site == "resid_mid" and (getattr(cfg, "attn_only", False) or getattr(cfg, "parallel_attn_mlp", False)):
        raise NotDefined(
            "attention and MLP of this model both read resid_pre (or there is no MLP), so it has no resid_mid: use "
            "attn_out or resid_post"
        )


def _heads_of_layers(model: Model, site: str, heads: Any) -> dict[int, tuple[int, ...] | None]:
    """Layer -> the heads given that are in it, or None at a site that has no heads."""
    size = sizes(model)
    if site not in HEAD_SITES:
        if heads is not None:
            raise Refused(
                f"{site} has no heads, got heads={heads!r}: leave out heads=, or use site {', '.join(HEAD_SITES)}"
            )
        return dict.fromkeys(range(size.n_layers))
    n_heads = size.n_key_value_heads if site in ("k", "v") else size.n_heads
    if heads is None:
        return dict.fromkeys(range(size.n_layers), tuple(range(n_heads)))
    try:
        chosen = as_heads(heads, n_layers=size.n_layers, n_heads=n_heads)
    except Refused as error:
        if n_heads == size.n_heads:
            raise
        group = size.n_heads // n_heads
        raise Refused(
            f"{error}; at {site} heads are the {n_heads} key/value heads, each shared by {group} query heads: query "
            f"head h has key/value head h // {group}"
        ) from None
    layers = sorted({head.layer for head in some_heads(chosen)})
    return {layer: tuple(sorted({h.head for h in chosen if h.layer == layer})) for layer in layers}


def _integers(name: str, given: Iterable[int] | None, n: int) -> list[int]:
    """The numbers given, in order, or 0 to n - 1 if None; raise Refused for others than these."""
    if given is None:
        return list(range(n))
    found = list(given) if isinstance(given, Iterable) else [given]
    if not all(is_whole(each) for each in found) or not found or not all(0 <= each < n for each in found):
        negative = any(is_whole(each) and each < 0 for each in found)
        last = f": they count from 0, and the last is {name}=[{n - 1}]" if negative else ""
        raise Refused(f"wanted {name} from 0 to {n - 1}, got {found}{last}")
    return sorted({int(each) for each in found})


def passes(
    cells: Sequence[int], plan: Sequence[Cell], *, starts: Sequence[int], cost: Sequence[int], most: int
) -> list[list[int]]:
    """Groups of cells that share a widened batch: in the order of layers, at most `most` tokens.

    Args:
        cells: indices of the cells to run.
        plan: all cells.
        starts: for each cell, the first position run again.
        cost: for each cell, its tokens in the batch.
        most: tokens in one widened batch (the prompts once for each cell).
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(cells, key=lambda i: (plan[i].first, starts[i])):
        tokens += cost[index]
        if not groups or tokens > most:
            groups.append([])
            tokens = cost[index]
        groups[-1].append(index)
    return groups


def tokens_at_once(model: Model, length: int, max_tokens: int | None) -> int:
    """The number of tokens that a widened batch may hold: `max_tokens`, or what fits a quarter of the free memory.

    Raises:
        Refused: `max_tokens` below the length of a prompt.
    """
    if max_tokens is not None:
        if not is_whole(max_tokens) or max_tokens < length:
            raise Refused(
                f"wanted max_tokens of at least one prompt, {length} tokens, got {max_tokens!r}: raise it or shorten "
                "the prompts"
            )
        return max_tokens
    size, cfg = sizes(model), model.cfg
    hidden = (getattr(cfg, "d_mlp", None) or 0) * (3 if getattr(cfg, "gated_mlp", False) else 2)
    width = 10 * size.d_model + hidden + 3 * size.n_heads * length
    on_gpu = all(device.type == "cuda" for device in _devices(model))
    most = 2**17 if on_gpu else 2**12  # beyond it a batch is no faster
    return max(length, min(most, _numbers_that_fit(model) // width))


def prompts_at_once(model: Model, length: int, tokens: int, unembedded: int) -> int:
    """How many prompts share a batch of so many tokens.

    Args:
        model: the model.
        length: of a prompt.
        tokens: in a batch.
        unembedded: the number of positions of a prompt whose logits over the whole vocabulary are in memory together
            (with two copies, a metric's); beside them there are only pieces of a fixed size.
    """
    logits = 3 * unembedded * sizes(model).d_vocab
    fitting = tokens // length
    return max(1, min(fitting, _numbers_that_fit(model) // logits) if logits else fitting)


@contextmanager
def within_memory(tokens: int | None) -> Iterator[None]:
    """A context for running batches of so many tokens (None if unknown): if memory runs out, the error says what to do.

    Raises:
        MemoryError: instead of Python's own or torch's RuntimeError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = "the batches" if tokens is None else f"batches of {tokens} tokens"
        raise MemoryError(
            f"{OUT_OF_MEMORY} {size}: give a smaller max_tokens (at least one prompt's), or fewer or shorter "
            "prompts"
        ) from error


def _devices(model: Model) -> set[torch.device]:
    """The model's devices; a batch passes through each of them."""
    return {parameter.device for parameter in model.parameters()}


def _numbers_that_fit(model: Model) -> int:
    """How many numbers in the model's dtype fit a quarter of the free memory."""
    return min(_free(device) for device in _devices(model)) // 4 // model.W_U.element_size()


def _free(device: torch.device) -> int:
    """Free memory of the device, in bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
