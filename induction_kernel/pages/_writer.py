"""`report`: writes the page about a model's heads, a census of them, a few-shot study or the six arguments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import xarray as xr

from ..errors import Refused
from ..fewshot._study import FewShotStudy
from ..heads._names import HeadLike
from ..model._anatomy import Model

if TYPE_CHECKING:
    from ..evidence._argument import SixArguments

__all__ = ["Page", "report"]

MINUTES = 5.0


_Path: type[Path] = type(Path())


class Page(_Path):
    """The path of a page.

    Attributes:
        left_out: what was cut or left out of it to stay within its time, in words; empty if nothing was.
    """

    left_out: tuple[str, ...] = ()


def report(
    source: Model | FewShotStudy | SixArguments | xr.Dataset,
    path: str | os.PathLike[str] | None = None,
    *,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    model: Model | None = None,
    n_prompts: int | None = None,
    seed: int | None = None,
    minutes: float | None = MINUTES,
    progress: bool = True,
) -> Page:
    """Write one self-contained HTML page that needs no network.

    | source | page | default path |
    |---|---|---|
    | a model | its induction heads: scores, direct effects, ablations, attention | report.html |
    | what `few_shot_study` returned | its in-context learning as kernel regression | fewshot.html |
    | what `six_arguments` returned | the six arguments of Olsson et al. 2022 | evidence.html |
    | what `census` returned | what every head does: names, the most particular heads, what they look at | census.html |

    For a model, every head is scored; heads are chosen on every other prompt, and scored and ablated on the others.
    What this costs is estimated first, from a few passes; if it does not fit the minutes, parts of the page are
    measured on fewer prompts or left out, and the page says which. Studies, arguments and censuses are only drawn.

    Args:
        source: one of these.
        path: the file to write; an existing one is replaced in one step. The page contains its libraries (about 5 MB)
            and fetches nothing.
        heads: for a model, the heads to show instead of the strongest ones.
        model: for a census, its model: all heads' attention on ordinary text is then in the page too.
        n_prompts: for a model, the number of repeated prompts, at least 12: half to choose heads on, half to report
            on; None for 32, or fewer to stay within the minutes.
        seed: for a model, the seed of the prompts, the resampling and the random heads; None for 0.
        minutes: for a model, the time that the page may take; None for no bound.
        progress: show progress bars.

    Returns:
        The path written; its attribute `left_out` says what was cut or left out to stay within the minutes.

    Raises:
        TypeError: another source, heads in an unknown form, minutes that are no number.
        Refused: too few prompts, no minutes, heads that the model does not have, a path whose folder does not exist, a
            model that does not predict next tokens; heads, prompts, a seed or minutes for what is measured already;
            a model beside anything but a census, or another one than the census is of.
    """
    if _is_census(source):
        _check_measured(source, heads, n_prompts, seed, minutes)
        from ._census import census_page

        where = census_page(source, "census.html" if path is None else path, model=model, progress=progress)
        return Page(where)
    if model is not None:
        raise Refused(
            f"model= goes with what census(...) returned, got {type(source).__name__}: leave it out"
        )
    page = _page_of(source)
    if page is None:
        _check_hooks(source)
        from ._heads import heads_page

        asked: Any = source
        target, seed = "report.html" if path is None else path, 0 if seed is None else seed
        options: dict[str, Any] = {"heads": heads, "n_prompts": n_prompts, "seed": seed, "minutes": minutes}
        where, left_out = heads_page(asked, target, **options, progress=progress)
        written = Page(where)
        written.left_out = tuple(left_out)
        return written
    _check_measured(source, heads, n_prompts, seed, minutes)
    write, default = page
    return Page(write(source, default if path is None else path))


def _is_census(source: Any) -> TypeGuard[xr.Dataset]:
    """Whether the source is what `census` returned."""
    return isinstance(source, xr.Dataset) and source.attrs.get("method") == "census"


def _check_measured(source: Any, heads: Any, n_prompts: Any, seed: Any, minutes: Any) -> None:
    """Raise Refused for options of a model's page beside what is measured already."""
    given = {"heads": heads, "n_prompts": n_prompts, "seed": seed}
    given["minutes"] = None if minutes == MINUTES else minutes
    if asked := [f"{key}=" for key, value in given.items() if value is not None]:
        raise Refused(
            f"{', '.join(asked)} go with a model, got {type(source).__name__}, which is measured already"
        )


def _check_hooks(source: Any) -> None:
    """Raise TypeError for what is neither a model nor a result that has a page."""
    if not callable(getattr(source, "hooks", None)):
        hint = ": head_table, head_map and effect_map show a Dataset" if hasattr(source, "data_vars") else ""
        raise TypeError(
            "wanted a TransformerLens model, what fewshot.few_shot_study(...) returned or what "
            f"evidence.six_arguments(...) returned, got {type(source).__name__}{hint}"
        )


def _page_of(source: Any) -> tuple[Any, str] | None:
    """The function that writes the page of a result, and the page's default name; None for a model."""
    if isinstance(source, FewShotStudy):
        from ._fewshot import fewshot_page

        return fewshot_page, "fewshot.html"
    from ..evidence._argument import SixArguments

    if isinstance(source, SixArguments):
        from ._evidence import evidence_page

        return evidence_page, "evidence.html"
    return None
