"""Training curves: loss, in-context-learning score and head scores at every checkpoint, on the same prompts.

The measures of Olsson et al. 2022 on one set of prompts that all checkpoints, seeds and sizes share:
in-context-learning score (mean loss in a late band of positions minus mean loss in an early one, at least 20
positions each: two single ones are mostly noise), loss, loss of a second copy, prefix-matching score beside its
matched control, previous-token score, copying score. Values are kept for every prompt. `_phases` finds the onsets of
the curves.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from .. import __version__
from .._given import checked_seed, is_whole
from ..errors import Refused
from ..metrics._by_position import token_losses
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model, sizes
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._repeated import random_tokens, repeated_tokens
from ..scorers._attention import prefix_matching, previous_token
from ..scorers._attention_scorer import observe
from ..scorers._copying import copying
from ._checkpoints import over_checkpoints
from ._recipe import EARLY, LATE
from ._stories import stories
from ._vocabulary import VOCABULARY

__all__ = ["Curves", "reads_stories", "training_curves"]

Band = tuple[int, int]
LONG_EARLY, LONG_LATE = (40, 60), (460, 510)
"""Bands around the 50th and the 500th token, for prompts that are long enough; `loss[i]` predicts token i + 1."""
HELD_BACK = 2209  # with the seed, a random stream of stories that no training run uses
NARROWEST = 20


def training_curves(
    source: Any,
    *,
    prompts: Any = None,
    n: int = 128,
    early: Band | None = None,
    late: Band | None = None,
    checkpoints: Any = None,
    path: str | Path | None = None,
    executor: Executor | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """The standard measures at every checkpoint of a training run, or of several.

    Args:
        source: "tiny", a run's folder, a TransformerLens name with checkpoints; or a mapping label -> source.
        prompts: what the in-context-learning score and the loss are measured on (anything `as_prompts` takes, at
            least 2); None for stories of the synthetic language, if that is what the model reads.
        n: number of stories, at least 16; every other measure has a quarter as many prompts, as it varies less between
            prompts.
        early: positions `(first, beyond the last)` of the early band, at least 20 of them; `loss[i]` predicts token
            i + 1. None for (10, 30) in stories, and for (40, 60) in prompts of at least 511 tokens.
        late: likewise; None for (75, 95) in stories and (460, 510) in long prompts.
        checkpoints: training steps; None for all.
        path: as in `over_checkpoints`.
        executor: any `concurrent.futures.Executor`.
        seed: of all prompts; the same seed gives models of one tokenizer and context the same prompts.
        progress: show a progress bar.

    Returns:
        Dataset of float32, over `checkpoint` (the training step, with the coordinate `tokens`) and, for several
        sources, `model`: in nats `icl_score[prompt]` (negative is better), `loss[prompt]`, `sampled_loss[prompt]` (of
        one random token per prompt, the same at every checkpoint), `position_loss[position]`, `repeat_loss[prompt]`,
        `first_copy_loss[prompt]`; in [0, 1] `prefix_matching[prompt, layer, head]`, `prefix_matching_control` and
        `previous_token`; in [-1, 1] `copying`; the constants `previous_token_chance` and `copying_chance`. `prompt`
        counts each measure's own prompts; NaN beyond them, and at layers that a model lacks.

    Raises:
        TypeError: prompts of no known form.
        Refused: no prompts for a model that does not read the synthetic language; prompts too short for the bands;
            bands of fewer than 20 positions; a source or a checkpoint that does not exist.

    Source: Olsson et al. 2022, argument 1 and "per-token losses".
    """
    if isinstance(prompts, Prompts):
        prompts = replace(prompts, tokenizer=None)  # nothing is decoded, so none is needed
    measure = Curves(prompts=prompts, n=n, early=early, late=late, seed=seed)
    found = over_checkpoints(
        source, {"curve": measure}, checkpoints=checkpoints, path=path, executor=executor, progress=progress
    )
    named = {key: str(key).removeprefix("curve_") for key in found.data_vars}
    attrs = {
        "method": "training_curves", "paper": "Olsson et al. 2022, argument 1", "n": n, "seed": seed,
        "icl_convention": "mean loss of the late band minus the early band; loss[i] predicts token i + 1",
        "induction_kernel": __version__,
    }  # fmt: skip
    return found.rename(named).astype(np.float32).assign_attrs(attrs)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """All measures of one model, `curves(model)`; it holds only settings, so that any executor can send it.

    Attributes:
        prompts: as in `training_curves`, like the others.
        n: number of stories; the other measures have a quarter as many prompts.
        early: early band, or None.
        late: late band, or None.
        seed: of the prompts.
    """

    prompts: Any = None
    n: int = 128
    early: Band | None = None
    late: Band | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_whole(self.n) or self.n < 16:
            raise Refused(
                f"wanted n of at least 16 (a quarter of it for heads, half of that to choose them), got {self.n!r}"
            )
        for name, band in (("early", self.early), ("late", self.late)):
            if band is not None and not (len(band) == 2 and 0 <= band[0] <= band[1] - NARROWEST):
                raise Refused(
                    f"wanted {name} as (first, beyond the last) with at least {NARROWEST} positions between (single "
                    f"positions are mostly noise), got {band!r}"
                )

    @property
    def few(self) -> int:
        """Number of prompts of every measure except the losses."""
        return self.n // 4

    def __call__(self, model: Model) -> xr.Dataset:
        """Every variable of `training_curves` at this model."""
        parts = [self.losses(model), self._repeats(model), self._positional(model), self._copying(model)]
        return xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="drop")

    def losses(self, model: Model) -> xr.Dataset:
        """Only the losses on the in-context-learning prompts, with any edits that are on the model."""
        ready, early, late = self.icl_prompts(model)
        losses = token_losses(model, ready).double()
        last = ready.lengths - 1
        drawn = torch.rand(
            len(ready), generator=torch.Generator().manual_seed(checked_seed(self.seed)), dtype=torch.float32
        )
        one = losses.gather(1, (drawn * last).long()[:, None])[:, 0]
        score = losses[:, slice(*late)].mean(1) - losses[:, slice(*early)].mean(1)
        values = {"icl_score": score, "loss": losses.nanmean(1), "sampled_loss": one}
        shortest = int(last.min())
        found = _by_prompt({key: (("prompt",), value) for key, value in values.items()})
        found["position_loss"] = ("position", losses[:, :shortest].mean(0).numpy())
        return found.assign_coords(position=np.arange(shortest))

    def icl_prompts(self, model: Model) -> tuple[Prompts, Band, Band]:
        """The prompts of the in-context-learning score, and its bands."""
        if self.prompts is None:
            if not reads_stories(model):
                raise Refused(
                    "this model does not read the synthetic language: pass prompts=, texts or tokens for this model"
                )
            early, late = self.early or EARLY, self.late or LATE
            rng = np.random.default_rng([HELD_BACK, checked_seed(self.seed)])
            length = min(sizes(model).n_ctx, max(LATE[1], late[1]) + 1)
            ready = as_prompts(model, stories(rng, self.n, length))
        else:
            ready = as_prompts(model, self.prompts)
            long = int(ready.lengths.min()) > LONG_LATE[1]
            early = self.early or (LONG_EARLY if long else None)
            late = self.late or (LONG_LATE if long else None)
        shortest = int(ready.lengths.min())
        if early is None or late is None:
            raise Refused(
                f"the shortest prompt has {shortest} tokens, the default bands need {LONG_LATE[1] + 1}: pass longer "
                "prompts, or early= and late="
            )
        if early[1] > late[0] or late[1] > shortest - 1 or len(ready) < 2:
            raise Refused(
                f"wanted at least 2 prompts, and early before late within them: got {len(ready)} prompts of at least "
                f"{shortest} tokens, early={early}, late={late}"
            )
        return ready, early, late

    def _repeats(self, model: Model) -> xr.Dataset:
        ready = repeated_tokens(model, repeats=4, prompts=self.few, seed=self.seed)
        seen = observe(model, ready, [prefix_matching], progress=False).isel(scorer=0)
        losses = repeat_loss(model, ready)
        return _by_prompt(
            {
                "prefix_matching": (HEADS, seen["score"].transpose(*HEADS).values),
                "prefix_matching_control": (HEADS, seen["control"].transpose(*HEADS).values),
                "repeat_loss": (("prompt",), losses["value"].values),
                "first_copy_loss": (("prompt",), losses["without"].values),
            },
            seen,
        )

    def _positional(self, model: Model) -> xr.Dataset:
        ready = random_tokens(model, prompts=self.few, seed=self.seed)
        seen = previous_token(model, ready, progress=False)
        return _by_prompt({"previous_token": (HEADS, seen["score"].transpose(*HEADS).values)}, seen).assign(
            previous_token_chance=float(seen["chance"].mean())
        )

    def _copying(self, model: Model) -> xr.Dataset:
        length = min(25, sizes(model).n_ctx)
        ready = random_tokens(model, length=length, prompts=self.few, seed=self.seed, bos=False)
        seen = copying(model, ready, progress=False)
        return _by_prompt({"copying": (HEADS, seen["score"].transpose(*HEADS).values)}, seen).assign(
            copying_chance=float(seen["chance"].mean())
        )


HEADS = ("prompt", "layer", "head")


def _by_prompt(
    values: Mapping[str, tuple[tuple[str, ...], Any]], seen: xr.Dataset | None = None
) -> xr.Dataset:
    """Variables over the prompts of one measure, with the heads' coordinates if there are heads."""
    found = xr.Dataset({key: (dims, np.asarray(value)) for key, (dims, value) in values.items()})
    coords = {} if seen is None else {key: seen[key].variable for key in ("layer", "head", "name")}
    return found.assign_coords({"prompt": np.arange(found.sizes["prompt"]), **coords})


def reads_stories(model: Model) -> bool:
    """Whether the model's tokenizer is that of the synthetic language."""
    tokenizer = getattr(model, "tokenizer", None)
    return tokenizer is not None and tokenizer.get_vocab() == {word: i for i, word in enumerate(VOCABULARY)}
