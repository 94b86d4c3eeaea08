"""The six arguments of Olsson et al. 2022 on one model, each tested on what the model has.

    1 co-occurrence     the model's training checkpoints
    2 co-perturbation   curves of a family of models, trained with smeared keys and without
    3 direct ablation   the model, at every checkpoint there is
    4 generality        the model
    5 mechanism         the model
    6 continuity        co-occurrence in every model of the family except plain one-layer ones

An argument for which something is missing is inconclusive and says what is needed; one that has no meaning on the model
is not defined. For a model of the synthetic language the family is the one that comes with the package: the verdicts of
2 and 6 are then about those models, not about this one. `report` draws the page.
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
from ..training._onsets import FEWEST as FEWEST_CHECKPOINTS
from ..training._phases import phase_window
from ._argument import Argument, Inputs, SixArguments
from ._co_occurrence import CO_OCCURRENCE
from ._co_perturbation import CO_PERTURBATION
from ._continuity import CONTINUITY
from ._direct_ablation import DIRECT_ABLATION
from ._generality import GENERALITY
from ._mechanism import MECHANISM
from ._verdicts import not_defined

__all__ = ["ARGUMENTS", "SixArguments", "six_arguments"]

WINDOW, MOST, FEWEST = 512, 48, 4  # tokens of a window cut from a text; most and fewest windows
LARGE = 64
"""With more heads than this, heads are removed together only, and a text gives FEW windows."""
FEW = 16
BAND = 20  # positions of a band in windows too short for the standard bands
ARGUMENTS: tuple[Argument, ...] = (
    CO_OCCURRENCE, CO_PERTURBATION, DIRECT_ABLATION, GENERALITY, MECHANISM, CONTINUITY,
)  # fmt: skip
"""The six arguments of Olsson et al. 2022, in the order in which they are printed."""


def six_arguments(
    source: Any = "tiny",
    *,
    arguments: Iterable[Argument] | None = None,
    prompts: Any = None,
    families: xr.Dataset | None = None,
    checkpoints: Iterable[int] | None = None,
    n: int | None = None,
    early: Band | None = None,
    late: Band | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SixArguments:
    """The verdicts of the six arguments on one model, or of arguments of your own.

    Args:
        source: "tiny", the folder of a training run, a name with or without training checkpoints, a file, or a loaded
            model (which has no checkpoints).
        arguments: which arguments to test, in this order: `[*ik.evidence.ARGUMENTS, mine]` for the six and one of your
            own. None for the six.
        prompts: what in-context learning is measured on: one text, from which windows of up to 512 tokens are cut
            (48; 16 for models of more than 64 heads), and passages for literal copying; or what `training_curves`
            takes. None for stories of the synthetic language, where the model reads it; on other models arguments
            1 and 3 are then inconclusive.
        families: curves of a family of models that this one belongs to, over `model`, and over `seed` where there are
            several, with smeared-key models called "... smeared": from `training_curves` or `train_families`. None for
            those that come with the package, where the model reads the synthetic language.
        checkpoints: training steps; None for all there are.
        n: how many stories, or windows cut from a text, and prompts of repeated tokens; None for the defaults of
            `training_curves` and `direct_ablation`.
        early: positions of the early band, as in `training_curves`; in windows shorter than 512 tokens, which a
            short context gives, positions 10 to 30 by default.
        late: positions of the late band, likewise; in such windows the last 20 by default.
        seed: for all prompts and draws.
        progress: show progress bars.

    Returns:
        `SixArguments`: `results`, name of an argument -> its Dataset with the verdict (see `judge`), and the curves
        they rest on. The thresholds are those of the arguments' own functions.

    Raises:
        TypeError: a source that is neither a name nor a model, prompts or families of no known form, or arguments that
            are not a list of `Argument`.
        Refused: no such source, prompts too few or too short for the bands, a checkpoint that is not there, no
            arguments, or two of one name.

    Source: Olsson et al. 2022, In-context Learning and Induction Heads.
    """
    tested = _checked_arguments(arguments)
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
    inputs = Inputs(
        model=model, source=source, steps=steps, texts=texts, large=_is_large(model),
        passages=prompts if isinstance(prompts, str) else None, curves=curves, window=window, families=families,
        family_windows=None if families is None else phase_window(families), shipped=shipped, seed=seed,
        progress=progress,
    )  # fmt: skip
    return SixArguments(
        str(describe(model)["model"]), tested, {each.name: _verdict(each, inputs) for each in tested},
        curves, window, families, inputs.family_windows, seed,
    )  # fmt: skip


def _checked_arguments(arguments: Any) -> tuple[Argument, ...]:
    if arguments is None:
        return tuple(ARGUMENTS)
    tested = tuple(arguments) if isinstance(arguments, Iterable) else (arguments,)
    if not all(isinstance(each, Argument) for each in tested):
        raise TypeError(f"wanted arguments as a list of ik.evidence.Argument, got {arguments!r}")
    names = [each.name for each in tested]
    if not names or len({*names}) < len(names):
        raise Refused(f"wanted one or more arguments of different names, got {names}: rename one")
    return tested


def _verdict(argument: Argument, inputs: Inputs) -> xr.Dataset:
    """Not defined where a measure has no meaning on the model (with a norm after attention, for example)."""
    try:
        return argument.run(inputs)
    except NotDefined as reason:
        return not_defined(argument, str(reason))


def _texts(
    model: Model, prompts: Any, n: int | None, early: Band | None, late: Band | None
) -> dict[str, Any]:
    """The prompts and bands of the in-context-learning score; empty where there are no prompts to measure it on."""
    if prompts is None and not reads_stories(model):
        return {}
    if isinstance(prompts, str):
        prompts = _windows(model, prompts, n or (FEW if _is_large(model) else MOST))
        length = int(prompts.lengths.min())
        if length < WINDOW:
            early, late = early or (10, 10 + BAND), late or (length - 1 - BAND, length - 1)
    asked = {"prompts": prompts, "early": early, "late": late}
    Curves(**asked).icl_prompts(model)  # wrong prompts and bands are refused before anything runs
    return asked if n is None else asked | {"n": n}


def _windows(model: Model, text: str, n: int) -> Prompts:
    """Evenly spaced windows of a text that do not overlap: n of them, or as many as fit."""
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
    """The training steps asked for; none for a loaded model, or for a source without checkpoints."""
    if not isinstance(source, str | Path):
        return []
    try:
        history = training_history(source)
    except NotDefined:
        return []
    return history.steps(checkpoints)
