"""Label knock-out: predictions when the last token cannot attend to the labels of demonstrations.

If attention is the kernel of a regression over demonstrations (Han et al. 2025, section 5), a head that cannot attend
to the labels of some demonstrations votes with the others. Only the last token's row of the pattern changes: the
entries of the labels are set to zero and the rest is renormalised (Geva et al. 2023), so their mass moves to other
keys. Controls: the same mass of other keys knocked out, as many labels drawn without regard to class, and the same
labels in other heads. The paper has no such test. `_reweighting` removes labels without moving their mass elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..heads._choice import random_sets
from ..heads._names import Head, HeadLike, some_heads
from ..interventions._activations import New
from ..interventions._plan import Cell, within_memory
from ..model._anatomy import Model, full_precision, kept_as_it_was, sizes
from ..model._outputs import check_words
from ..model._runs import progress_bar, stream
from ..prompts._conversion import as_few_shot
from ..prompts._demonstrations import Demonstrations
from ..prompts._prompts import FewShotPrompts
from ..replay._lane_record import Way, of_slowest
from ..scorers._pattern_entries import check_sound
from ._changed_predictions import UNTOUCHED, batches_of_one_length, compared, label_keys, label_runs
from ._matched_keys import Removed, other_keys

__all__ = ["label_knock_out"]

LABELS, PERMUTED, OTHER_KEYS, OF_LAYER, OTHER_HEADS = (
    "labels", "permuted labels", "other keys", "other keys of the layer", "random heads",
)  # fmt: skip


def label_knock_out(
    model: Model,
    prompts: Any,
    heads: HeadLike | Iterable[HeadLike],
    *,
    which: str | int = "all",
    draws: int = 20,
    control: str = "same layer",
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Predictions with the last token's attention from these heads to labels of demonstrations knocked out.

    Groups of runs, compared with the untouched run:

    | group | what the last token cannot attend to |
    |---|---|
    | `labels` | the labels (all their tokens), in these heads together |
    | `permuted labels` | as many labels drawn at random, of any class; not with `which="all"`; `draws` runs |
    | `other keys` | other keys with the same total attention, in each of these heads |
    | `other keys of the layer` | the same, and where a head has too little on them, keys of other heads of its layer |
    | `random heads` | the same labels, in as many other heads; `draws` runs |

    Other keys are taken from the nearest to the labels on, without exceeding their mass, and one more where that comes
    closer; never a label, the first token or the last. `mass` says how close they come: a head with nearly all its
    attention on labels has no other mass to lose. In every run the rest of the row is renormalised. Choose the heads on
    other prompts than these.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are on it stay active.
        prompts: few-shot prompts.
        heads: one or several heads, as Head, (layer, head) or "L5H1".
        which: "all" labels, or the labels of one class, by its word or index.
        draws: runs of each random control; 0 for none.
        control: where random heads are drawn from: "same layer", or "any layer" where layers have too few others.
        seed: of the draws and of the bootstrap.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with, by `[prompt, run]`: `log_probability[prompt, run, label]` (nats, of each label's first token over
        the whole vocabulary), `prediction` (class), `correct` (NaN where the right label is not known), `agreement`
        with the untouched prediction, `mass` (attention in the untouched run that is knocked out, summed over heads),
        `expected`, the class whose remaining labels have most of these heads' attention (-1 where no label remains or
        classes tie), and `as_expected`, whether it is predicted. By `[group]`, each with `_low` and `_high` (95%, over
        prompts): `accuracy`, `agreed` (mean `agreement`), `expected_share`, `expected_moves` (the share of changed
        predictions that changed to the expected class; with two classes there is only one to change to),
        `accuracy_difference` and `agreed_difference` (to the group `labels`, paired by prompt). Coordinates: `of[run]`,
        the group, and `heads[run]`, names.

    Raises:
        TypeError: not prompts, heads or a class.
        Refused: prompts without demonstrations, a class they do not have, no heads or some the model does not have, a
            head that attends to nothing but what is knocked out.
        NotDefined: too few other heads to draw from; a model whose outputs are not its tokens.

    Source: after Han et al. 2025, section 5, and Geva et al. 2023; the controls are this package's own.
    """
    ready = as_few_shot(model, prompts)
    found = ready.demonstrations
    check_words(model, "label_knock_out")
    chosen = _checked_heads(model, heads)
    taken = _taken(found, which)
    knockouts = _label_knockouts(model, chosen, taken, found, draws, control, seed := checked_seed(seed))
    groups = [UNTOUCHED, *(each.group for each in knockouts), OTHER_KEYS]
    if _has_others(model, chosen):
        groups.append(OF_LAYER)
    logs, mass, votes, way = _predicted(model, ready, knockouts, chosen, groups, max_tokens, progress)
    out = compared(
        model, ready, logs, runs=_numbered(groups), groups=groups, to=LABELS,
        expected=_expected(votes, found, knockouts, len(groups)), seed=seed,
        attrs={
            "method": "label_knock_out", "which": str(which), "control": control, "draws": draws, "seed": seed,
            **way.attrs, "convention": "what is left of the last token's row is renormalised",
        },
    )  # fmt: skip
    of_runs = [()] + [each.heads for each in knockouts] + [chosen] * (len(groups) - 1 - len(knockouts))
    named = [" ".join(map(str, each)) for each in of_runs]
    return out.assign(mass=(("prompt", "run"), mass)).assign_coords(heads=("run", named))


@dataclass(frozen=True, eq=False)
class _Knockout:
    """One run: heads, and the demonstrations whose labels they cannot attend to, bool `[prompt, demonstration]`."""

    group: str
    heads: tuple[Head, ...]
    taken: Tensor


def _predicted(
    model: Model, ready: FewShotPrompts, knockouts: Sequence[_Knockout], chosen: Sequence[Head],
    groups: Sequence[str], max_tokens: int | None, progress: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Way]:  # fmt: skip
    """All runs: log-probabilities `[prompt, run, label]`, mass `[prompt, run]`, votes `[prompt, demonstration]`."""
    found, shape = ready.demonstrations, (len(ready), len(groups))
    logs, mass = np.full((*shape, len(found.labels)), np.nan), np.zeros(shape)
    votes, ways = np.zeros((len(ready), found.mask.shape[1])), list[Way]()
    layers = {head.layer for each in knockouts for head in each.heads}
    bar = progress_bar(len(ready), progress=progress, unit="prompt")
    with within_memory(max_tokens), kept_as_it_was(model), bar:
        for rows, batch, most in batches_of_one_length(model, ready, max_tokens):
            attention = _last_rows(model, batch, layers)
            removed = _removals(model, batch, rows, knockouts, attention, chosen, groups)
            cells = [_cell(each, batch.tokens.shape[1] - 1) for each in removed]
            of_labels, way = label_runs(model, batch, cells, max_tokens=most)
            logs[rows], ways = of_labels.double().numpy(), [*ways, way]
            mass[rows, 1:] = torch.stack([_mass(attention, each) for each in removed], 1).numpy()
            votes[rows] = _votes(attention, batch, chosen).numpy()
            bar.update(len(rows))
    return logs, mass, votes, of_slowest(ways)


def _checked_heads(model: Model, heads: Any) -> tuple[Head, ...]:
    size = sizes(model)
    return tuple(some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads))


def _taken(found: Demonstrations, which: Any) -> Tensor:
    """The demonstrations whose labels are knocked out, bool `[prompt, demonstration]`."""
    if isinstance(which, str) and which == "all" and "all" not in found.labels:
        return found.mask
    if isinstance(which, str) and which in found.labels:
        which = found.labels.index(which)
    if isinstance(which, bool) or not (is_whole(which) or isinstance(which, str)):
        raise TypeError(f'wanted which="all", a label or its index, got {which!r}')
    if isinstance(which, str) or not 0 <= which < len(found.labels):
        raise Refused(
            f'wanted which="all", one of the labels {list(found.labels)} or its index, got {which!r}'
        )
    return found.mask & (found.classes == which)


def _label_knockouts(
    model: Model, heads: tuple[Head, ...], taken: Tensor, found: Demonstrations, draws: int, control: str, seed: int
) -> list[_Knockout]:  # fmt: skip
    if not is_whole(draws) or draws < 0:
        raise Refused(f"wanted draws of the random controls, 0 for none, got {draws!r}")
    runs = [_Knockout(LABELS, heads, taken)]
    if not torch.equal(taken, found.mask):
        generator = torch.Generator().manual_seed(seed)
        runs += [_Knockout(PERMUTED, heads, _permuted(taken, found.mask, generator)) for _ in range(draws)]
    others = random_sets(model, like=heads, n=draws, seed=seed, control=control) if draws else []
    return runs + [_Knockout(OTHER_HEADS, tuple(each), taken) for each in others]


def _permuted(taken: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """As many demonstrations as `taken` in each prompt, drawn at random among those it has."""
    drawn = torch.rand(mask.shape, generator=generator, dtype=torch.float32).masked_fill(~mask, 2.0)
    rank = drawn.argsort(1).argsort(1)
    return rank < taken.sum(1, keepdim=True)


def _has_others(model: Model, heads: Sequence[Head]) -> bool:
    """Whether any layer of these heads has other heads."""
    return len(heads) < sizes(model).n_heads * len({head.layer for head in heads})


def _numbered(groups: Sequence[str]) -> list[str]:
    """A name for every run: that of its group, with a number where the group has several."""
    return [
        f"{name} {groups[:i].count(name)}" if groups.count(name) > 1 else name
        for i, name in enumerate(groups)
    ]


def _last_rows(model: Model, prompts: FewShotPrompts, layers: set[int]) -> dict[int, Tensor]:
    """The last token's attention in the untouched run, layer -> `[prompt, head, key]`; prompts of one length."""
    rows: dict[int, Tensor] = {}

    def keep(_: str, layer: int, pattern: Tensor) -> None:
        rows[layer] = full_precision(pattern[:, :, -1]).cpu().double()

    stream(model, prompts.tokens, keep, {"pattern": layers}, lengths=None)
    check_sound(
        {layer for layer, row in rows.items() if not bool(row.isfinite().all() and row.sum(-1).gt(0).all())}
    )
    return rows


def _removals(
    model: Model, prompts: FewShotPrompts, rows: Tensor, knockouts: Sequence[_Knockout], attention: dict[int, Tensor],
    chosen: Sequence[Head], groups: Sequence[str],
) -> list[Removed]:  # fmt: skip
    """The keys that each run after the untouched one removes."""
    keys = label_keys(prompts)
    out = []
    for each in knockouts:
        of_labels = (keys & each.taken[rows][..., None]).any(1)
        out.append(_at_heads(each.heads, of_labels, sizes(model).n_heads))
    every_label = keys.any(1)
    out.append(other_keys(out[0], attention, every_label, chosen, of_layer=False))
    if OF_LAYER in groups:
        out.append(other_keys(out[0], attention, every_label, chosen, of_layer=True))
    return out


def _at_heads(heads: Sequence[Head], keys: Tensor, n_heads: int) -> Removed:
    """The same keys `[prompt, key]` of each of these heads."""
    removed = {head.layer: torch.zeros(len(keys), n_heads, keys.shape[1], dtype=torch.bool) for head in heads}
    for layer, head in heads:
        removed[layer][:, head] = keys
    return removed


def _mass(attention: dict[int, Tensor], removed: Removed) -> Tensor:
    """The attention removed, summed over heads, `[prompt]`."""
    return torch.stack([(attention[layer] * taken).sum((1, 2)) for layer, taken in removed.items()]).sum(0)


def _cell(removed: Removed, last: int) -> Cell:
    """The edit of the pattern at the last token, for the heads of which a key is removed."""
    heads = {layer: tuple(taken.any(2).any(0).nonzero()[:, 0].tolist()) for layer, taken in removed.items()}
    new = {layer: New(1.0, torch.zeros(()), taken[:, :, None]) for layer, taken in removed.items()}
    return Cell({layer: of_layer for layer, of_layer in heads.items() if of_layer}, last, new)


def _votes(attention: dict[int, Tensor], prompts: FewShotPrompts, heads: Sequence[Head]) -> Tensor:
    """These heads' attention to each demonstration's label, summed, `[prompt, demonstration]`."""
    row = torch.stack([attention[layer][:, head] for layer, head in heads]).sum(0)
    return (label_keys(prompts) * row[:, None]).sum(2)


def _expected(votes: np.ndarray, found: Demonstrations, knockouts: Sequence[_Knockout], n: int) -> np.ndarray:
    """The class with most votes of the remaining labels, `[prompt, run]`; -1 where none remains or classes tie."""
    classes, heads = found.classes.numpy(), knockouts[0].heads
    nothing = np.zeros_like(votes, bool)
    removed = [each.taken.numpy() if each.heads == heads else nothing for each in knockouts]
    out = np.full((len(votes), n), -1)
    for run, taken in enumerate([nothing, *removed, *[nothing] * (n - 1 - len(knockouts))]):
        left = np.where(taken | ~found.mask.numpy(), 0.0, votes)
        totals = np.stack([(left * (classes == y)).sum(1) for y in range(len(found.labels))], 1)
        best = totals == totals.max(1, keepdims=True)
        out[:, run] = np.where((best.sum(1) == 1) & (totals.max(1) > 0), totals.argmax(1), -1)
    return out
