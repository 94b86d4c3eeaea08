"""The six arguments of Olsson et al. 2022 on one model: each on what the model gives ground for.

    1 co-occurrence     its checkpoints
    2 co-perturbation   the curves of its family, trained with smeared keys and without
    3 direct ablation   the model, at every checkpoint there is
    4 generality        the model
    5 mechanism         the model
    6 continuity        co-occurrence in every model of the family but plain one-layer ones

An argument for which something is missing is inconclusive, and says what is needed; one that has no meaning on the
model is not defined. The family of a model of the synthetic language is the one that comes with the package: what 2 and
6 say is then said of those models, not of this one. It measures nothing of its own and draws nothing: `report`
does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from ..errors import NotDefined, Refused
from ..loading._histories import training_history
from ..loading._sources import load
from ..model._anatomy import Model, check_model, describe, sizes
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._text import encode, start_token
from ..training._curves import Band, Curves, reads_stories, training_curves
from ..training._families import family_curves
from ..training._phases import phase_window
from ..training._turns import FEWEST as FEWEST_CHECKPOINTS
from ._argument import Argument, Ground, SixArguments
from ._co_occurrence import CO_OCCURRENCE
from ._co_perturbation import CO_PERTURBATION
from ._continuity import CONTINUITY
from ._direct_ablation import DIRECT_ABLATION
from ._generality import GENERALITY
from ._mechanism import MECHANISM
from ._verdicts import not_defined

__all__ = ["ARGUMENTS", "SixArguments", "six_arguments"]

WINDOW, MOST, FEWEST = 512, 48, 4  # tokens of a window cut from a text; how many windows
LARGE = 64
"""Heads, beyond which heads are removed together only, on FEW windows."""
FEW = 16
BAND = 20  # positions of a band in windows too short for the standard ones
ARGUMENTS = (CO_OCCURRENCE, CO_PERTURBATION, DIRECT_ABLATION, GENERALITY, MECHANISM, CONTINUITY)
"""Every line of evidence, in the order in which it is printed: add one here."""


def six_arguments(
    source: Any = "tiny",
    *,
    prompts: Any = None,
    families: xr.Dataset | None = None,
    checkpoints: Iterable[int] | None = None,
    n: int | None = None,
    early: Band | None = None,
    late: Band | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SixArguments:
    """Put one model through the six arguments.

    Args:
        source: "tiny", a run's folder, a name with or without training checkpoints, a file; or a model at hand.
        prompts: what in-context learning is measured on: one text, out of which windows of up to 512 tokens are cut
            (48; 16 for models of more than 64 heads), and passages for literal copying; or what `training_curves`
            takes. None for stories of the synthetic language, where that is what the model reads; without it, other
            models are asked for arguments 4 and 5 alone.
        families: curves of models that this one belongs with, over `model`, maybe over `seed`, some of them called
            "... smeared": of `training_curves` or `train_families`. None for those that come with the package, where
            the model reads the synthetic language.
        checkpoints: training steps; None for all there are.
        n: stories, or windows cut from a text, and prompts of repeated tokens; None for the defaults of
            `training_curves` and of `direct_ablation`.
        early: positions of the early band, as in `training_curves`; windows of a text shorter than 511 tokens have
            their positions 10 to 30 by default.
        late: likewise; by default their last 20 positions.
        seed: of all prompts and draws.
        progress: show progress bars.

    Returns:
        `SixArguments`: `results` by argument, each with its verdict, and the curves they rest on. The thresholds are
        those of the arguments' own functions. An argument that has no meaning on the model is not defined, one for
        which texts, checkpoints or a family are missing is inconclusive.

    Raises:
        TypeError: neither a source nor a model, prompts or families of no known form.
        Refused: no such source, prompts too few or too short for the bands, a checkpoint that is not there.

    Source: Olsson et al. 2022, In-context Learning and Induction Heads.
    """
    model = load(source) if isinstance(source, str | Path) else source
    check_model(model)
    shipped = families is None and reads_stories(model)
    families = family_curves() if shipped else families
    texts = _texts(model, prompts, n, early, late)
    steps = _steps(source, checkpoints)
    curves, window = None, None
    if steps and texts:
        curves = training_curves(source, checkpoints=steps, **texts, seed=seed, progress=progress)
        window = phase_window(curves) if (curves["tokens"] > 0).sum() >= FEWEST_CHECKPOINTS else None
    ground = Ground(
        model=model, source=source, steps=steps, texts=texts, large=_is_large(model),
        passages=prompts if isinstance(prompts, str) else None, curves=curves, window=window, families=families,
        family_windows=None if families is None else phase_window(families), shipped=shipped, seed=seed,
        progress=progress,
    )  # fmt: skip
    arguments = tuple(ARGUMENTS)
    return SixArguments(
        str(describe(model)["model"]), arguments, {each.name: _put(each, ground) for each in arguments},
        curves, window, families, ground.family_windows, seed,
    )  # fmt: skip


def _put(argument: Argument, ground: Ground) -> xr.Dataset:
    """The argument's verdict; not defined where the model's form does not allow it (a norm behind attention)."""
    try:
        return argument.run(ground)
    except NotDefined as reason:
        return not_defined(argument, str(reason))


def _texts(
    model: Model, prompts: Any, n: int | None, early: Band | None, late: Band | None
) -> dict[str, Any]:
    """The prompts and bands of the in-context-learning score; nothing if there are no such prompts."""
    if prompts is None and not reads_stories(model):
        return {}
    if isinstance(prompts, str):
        prompts = _windows(model, prompts, n or (FEW if _is_large(model) else MOST))
        length = int(prompts.lengths.min())
        if length < WINDOW:
            early, late = early or (10, 10 + BAND), late or (length - 1 - BAND, length - 1)
    asked = {"prompts": prompts, "early": early, "late": late}
    Curves(**asked).icl_prompts(model)  # what is wrong with them is said before anything runs
    return asked if n is None else asked | {"n": n}


def _windows(model: Model, text: str, n: int) -> Prompts:
    """Windows of a text at even distances that do not overlap: n of them, or as many as there are."""
    start = start_token(model, None)
    ids = torch.tensor(encode(model, text))
    inside = min(WINDOW, sizes(model).n_ctx) - len(start)
    n = min(n, len(ids) // inside)
    if n < FEWEST:
        raise Refused(
            f"wanted a text of at least {FEWEST} windows of {inside} tokens, got {len(ids)} tokens: pass a longer one"
        )
    apart = len(ids) // n
    rows = torch.stack([ids[i * apart : i * apart + inside] for i in range(n)])
    tokens = torch.cat([start.expand(n, -1), rows], 1)
    return as_prompts(model, tokens, lengths=[tokens.shape[1]] * n)


def _is_large(model: Model) -> bool:
    size = sizes(model)
    return size.n_layers * size.n_heads > LARGE


def _steps(source: Any, checkpoints: Iterable[int] | None) -> list[int]:
    """The training steps asked for; none of a model at hand, or of a source without checkpoints."""
    if not isinstance(source, str | Path):
        return []
    try:
        history = training_history(source)
    except NotDefined:
        return []
    return history.steps(checkpoints)
