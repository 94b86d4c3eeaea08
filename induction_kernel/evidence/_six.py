"""The six arguments of Olsson et al. 2022 on one model: each on what the model gives ground for.

    1 co-occurrence     its checkpoints
    2 co-perturbation   the curves of its family, trained with smeared keys and without
    3 direct ablation   the model, at every checkpoint there is
    4 generality        the model
    5 mechanism         the model
    6 continuity        co-occurrence in every model of the family but plain one-layer ones

An argument for which something is missing is inconclusive, and says what is needed; one that has no meaning on the
model is not defined. The family of a model of the synthetic language is the one that comes with the package: what 2 and
6 say is then said of those models, not of this one. It measures nothing of its own and draws nothing: `write_evidence`
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from . import _co_occurrence as cooccurring
from . import _co_perturbation as smearing
from . import _continuity as across
from . import _direct_ablation as ablating
from . import _generality as behaviours
from . import _mechanism as circuits
from ._co_occurrence import co_occurrence
from ._co_perturbation import SMEARED, co_perturbation, layers_of
from ._continuity import continuity
from ._direct_ablation import direct_ablation
from ._generality import generality
from ._mechanism import mechanism
from ._verdicts import inconclusive, not_defined

__all__ = ["ARGUMENTS", "SixArguments", "six_arguments"]

ARGUMENTS = ("co_occurrence", "co_perturbation", "direct_ablation", "generality", "mechanism", "continuity")
WINDOW, MOST, FEWEST = 512, 48, 4  # tokens of a window cut from a text; how many windows
LARGE = 64
"""Heads, beyond which heads are removed together only, on FEW windows."""
FEW = 16
BAND = 20  # positions of a band in windows too short for the standard ones
NO_TEXTS = "wanted texts to measure the in-context-learning score on: give prompts=, or --text"
NO_FAMILY = "wanted curves of a family of models, with smeared keys and without: train_families makes them"
AT_HAND = "wanted training checkpoints, got a model at hand: give its name or its folder"


@dataclass(frozen=True, eq=False, repr=False)
class SixArguments:
    """What `six_arguments` found.

    Attributes:
        model: its name.
        results: argument -> its Dataset, all six in the paper's order.
        curves: of `training_curves`; None without checkpoints or without texts to measure on.
        window: of `phase_window` in these curves.
        families: the curves that arguments 2 and 6 are about; None where there are none.
        family_windows: of `phase_window` in those.
        shipped: whether the families are those that come with the package.
        seed: of all prompts and draws.
    """

    model: str
    results: dict[str, xr.Dataset]
    curves: xr.Dataset | None
    window: xr.Dataset | None
    families: xr.Dataset | None
    family_windows: xr.Dataset | None
    shipped: bool
    seed: int

    def datasets(self) -> dict[str, xr.Dataset]:
        """All there are by their names: for files, `xarray.DataTree.from_dict(found.datasets())`."""
        more = {name: getattr(self, name) for name in ("curves", "window", "families", "family_windows")}
        return self.results | {name: each for name, each in more.items() if each is not None}

    def __repr__(self) -> str:
        said = ", ".join(f"{name}: {each.attrs['verdict']}" for name, each in self.results.items())
        return f"SixArguments({self.model}, {said})"


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
    asked = _asked(model, prompts, n, early, late)
    steps, first = _steps(source, checkpoints)
    if asked and n is not None:
        asked["n"] = n
    curves, window = None, None
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    if steps and asked:
        curves = training_curves(source, checkpoints=steps, **asked, **options)
        window = phase_window(curves) if (curves["tokens"] > 0).sum() >= FEWEST_CHECKPOINTS else None
        first = co_occurrence(curves, window=window)
    family_windows = None if families is None else phase_window(families)
    passages = prompts if isinstance(prompts, str) else None
    second, last = _of_families(families, family_windows)
    results = (
        first,
        second,
        _ablated(source, model, steps, window, asked, options),
        _where_it_can(behaviours, generality, model, passages=passages, **options),
        _where_it_can(circuits, mechanism, model, **options),
        last,
    )
    return SixArguments(
        str(describe(model)["model"]), dict(zip(ARGUMENTS, results, strict=True)), curves, window, families,
        family_windows, shipped, seed,
    )  # fmt: skip


def _asked(
    model: Model, prompts: Any, n: int | None, early: Band | None, late: Band | None
) -> dict[str, Any]:
    """The prompts and bands of the in-context-learning score; nothing where there are no prompts to be had."""
    if prompts is None and not reads_stories(model):
        return {}
    if isinstance(prompts, str):
        prompts = _windows(model, prompts, n or (FEW if _is_large(model) else MOST))
        length = int(prompts.lengths.min())
        if length < WINDOW:
            early, late = early or (10, 10 + BAND), late or (length - 1 - BAND, length - 1)
    asked = {"prompts": prompts, "early": early, "late": late}
    Curves(**asked).icl_prompts(model)  # what is wrong with them is said before anything runs
    return asked


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


def _steps(source: Any, checkpoints: Iterable[int] | None) -> tuple[list[int], xr.Dataset]:
    """The training steps asked for, and what is to be said of co-occurrence without curves along them."""
    if not isinstance(source, str | Path):
        return [], inconclusive("co_occurrence", cooccurring.CLAIM, AT_HAND)
    try:
        history = training_history(source)
    except NotDefined as none:
        return [], not_defined("co_occurrence", cooccurring.CLAIM, str(none))
    return history.steps(checkpoints), inconclusive("co_occurrence", cooccurring.CLAIM, NO_TEXTS)


def _of_families(families: xr.Dataset | None, windows: xr.Dataset | None) -> tuple[xr.Dataset, xr.Dataset]:
    """Co-perturbation and continuity; the latter of models with two layers or smeared keys, which can have heads."""
    if families is None or windows is None:
        names = {"co_perturbation": smearing.CLAIM, "continuity": across.CLAIM}
        without, whole = (inconclusive(name, claim, NO_FAMILY) for name, claim in names.items())
        return without, whole
    labels = [str(label) for label in families["model"].values] if "model" in families.dims else []
    able = [name for name in labels if SMEARED.search(name) or layers_of(families.sel(model=name)) > 1]
    each = {
        name: co_occurrence(families.sel(model=name, drop=True), window=windows.sel(model=name, drop=True))
        for name in able
    }
    return co_perturbation(families, window=windows), continuity(each)


def _ablated(
    source: Any,
    model: Model,
    steps: list[int],
    window: xr.Dataset | None,
    asked: dict[str, Any],
    options: dict[str, Any],
) -> xr.Dataset:
    """Argument 3, along training where there are checkpoints, in the window that is known already."""
    if not asked:
        return inconclusive("direct_ablation", ablating.CLAIM, NO_TEXTS)
    more: dict[str, Any] = {"by_head": not _is_large(model), **options}
    more |= {"n": FEW} | asked if _is_large(model) else asked
    if not steps:
        return _where_it_can(ablating, direct_ablation, model, **more)
    return _where_it_can(ablating, direct_ablation, source, checkpoints=steps, window=window, **more)


def _where_it_can(home: Any, argument: Callable[..., xr.Dataset], *of: Any, **options: Any) -> xr.Dataset:
    """The argument; not defined where the model's form does not allow it (a norm behind attention, no tokenizer)."""
    try:
        return argument(*of, **options)
    except NotDefined as reason:
        return not_defined(argument.__name__, home.CLAIM, str(reason))
