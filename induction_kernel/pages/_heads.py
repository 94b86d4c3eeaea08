"""The page about a model's induction heads: scores, direct effects, ablations, attention patterns.

Scores every head on repeated random tokens, chooses the strongest on one half of the prompts, and reports scores and
ablations on the other half (Olsson et al. 2022), so that the choice does not bias them. It measures nothing of its own:
`scorers`, `metrics`, `interventions`, `fewshot` and `kernel` make the numbers, `plots` the figures. The text is in
`templates/heads.html.j2`.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from math import inf
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from .._given import is_whole
from ..attention_explorer._explorer import explore
from ..errors import NotDefined, Refused
from ..fewshot._predictions import predict
from ..heads._names import Head, as_heads
from ..heads._summary import summarise
from ..interventions._ablation import caution
from ..kernel._held_out import held_out
from ..kernel._reconstruction import vote
from ..metrics._by_position import loss_by_position
from ..model._anatomy import Model, check_model, describe, sizes
from ..model._outputs import check_next_token
from ..model._runs import bar
from ..plots._ablation_curves import curve_plot
from ..plots._effect_map import effect_map
from ..plots._offline import plotly_script
from ..plots._scores import head_map, loss_plot, score_plot
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ..prompts._word_task import word_episodes
from ..scorers._attention import duplicate_token, induction, prefix_matching, previous_token
from ..scorers._attention_scorer import observe
from ..scorers._copying import copying
from ..scorers._direct_effect import direct_effect_and_loss
from ..scorers._ov import ov_eigenvalues
from ..stores import checked_target, write_whole
from ._attention import Section, heads_menu, section_of
from ._choice import SHOWN, Choice, chosen, found_of, rows_of_heads
from ._fewshot import outcome, rows_of, voted
from ._filters import share
from ._frames import by_head, by_heads_removed, by_position, effects, summaries
from ._removed import Removed, removed_from, with_map
from ._rendering import Drawn, drawn, rendered
from ._schedule import BAR, Schedule, planned

__all__ = ["heads_page"]

SCORERS = (induction, prefix_matching, previous_token, duplicate_token)
INSTEAD = "for such a model use head_table(induction(model)), head_map and attention_view"
NO_TIME = "they do not fit the time that this page may take"


def heads_page(
    model: Model, path: str | os.PathLike[str], *, heads: Any, n_prompts: int | None, seed: int,
    minutes: float | None, progress: bool,
) -> tuple[Path, list[str]]:  # fmt: skip
    """Write the page of a model, see `report`; returns its path and what was cut or left out."""
    check_model(model)
    _check_amounts(n_prompts, minutes)
    minutes = None if minutes == inf else minutes
    size = sizes(model)
    wanted = [] if heads is None else as_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    checked_target(path)
    check_next_token(model, "report", INSTEAD)
    with bar(total=1.0, desc="report", disable=not progress, bar_format=BAR) as shown:
        asked: dict[str, Any] = {"n_prompts": n_prompts, "shown": len(wanted) or SHOWN, "seed": seed}
        schedule = planned(model, **asked, minutes=minutes, advance=shown.update)
        data = _measured(model, wanted, schedule, seed, progress)
    data |= {"less": schedule.left_out, "minutes": "" if minutes is None else f"{minutes:g}"}
    title = f"Induction heads in {describe(model)['model']}"
    page = rendered("heads.html.j2", title, [plotly_script()], explorer=True, **data)
    return write_whole(path, page), schedule.left_out


def _check_amounts(n_prompts: Any, minutes: Any) -> None:
    if n_prompts is not None and not is_whole(n_prompts):
        raise TypeError(
            f"wanted the number of prompts, got {type(n_prompts).__name__}: report makes its own prompts"
        )
    if n_prompts is not None and n_prompts < 12:
        raise Refused(f"wanted at least 12 prompts (6 to choose heads on, 6 to report on), got {n_prompts}")
    if minutes is not None and (not isinstance(minutes, Real) or isinstance(minutes, bool)):
        raise TypeError(f"wanted minutes as a number, or None for no bound, got {type(minutes).__name__}")
    if minutes is not None and not float(minutes) > 0:
        raise Refused(f"wanted minutes above 0, or None for no bound, got {minutes}")


def _measured(
    model: Model, wanted: list[Head], schedule: Schedule, seed: int, progress: bool
) -> dict[str, Any]:
    """The variables of the template."""
    amounts, run = schedule.amounts, schedule.run
    repeats = repeated_tokens(model, prompts=amounts.prompts, seed=seed)
    held = repeats[1::2]
    held = held[held.lengths.argsort(stable=True)]
    scores = observe(model, repeats, SCORERS, progress=progress)
    schedule.passed("scores")
    matching = scores.sel(scorer="prefix_matching")
    choice = chosen(matching, wanted, seed)
    asked = (choice.order, len(choice.shown), amounts, seed, progress)
    removed = run("ablations", lambda: removed_from(model, held, *asked))
    direct, losses = run("direct", lambda: _direct(model, held, progress)) or (NO_TIME, None)
    weights = run("weights", lambda: _weights(model, progress)) or NO_TIME
    few_shot = run("few-shot", lambda: _few_shot(model, amounts.episodes, seed, progress))
    removed = run("map", lambda: with_map(model, held, removed, amounts.every, progress)) or removed
    maps = [] if isinstance(weights, str) else weights
    return {
        "found": found_of(choice, removed),
        "weights": bool(maps),
        "direct_defined": not isinstance(direct, str),
        "left_out": _left_out(weights, direct),
        "about": _about(model),
        "maps": _maps(scores, maps),
        "n_held": len(held),
        "rows": rows_of_heads(removed, choice, maps, direct),
        **_ablation(removed),
        "loss": None if losses is None else _loss(model, held, losses),
        "looking": _looking(matching, maps[0]) if maps else None,
        "made": _made(model, choice, schedule, seed),
        "attention": _attention(
            model, held, choice.shown, heads_menu(scores, maps, direct, removed), progress
        ),
        "fewshot": few_shot or {"left_out": NO_TIME},
    }


def _weights(model: Model, progress: bool) -> list[xr.Dataset] | str:
    """Copying and OV eigenvalues, or the reason why they are not defined."""
    try:
        return [copying(model, progress=progress), ov_eigenvalues(model, progress=progress)]
    except NotDefined as reason:
        return str(reason)


def _direct(model: Model, held: Prompts, progress: bool) -> tuple[xr.Dataset | str, xr.Dataset]:
    """Direct effects on the right token, or the reason why they are not defined; and the loss of every token."""
    try:
        direct, losses = direct_effect_and_loss(model, held, progress=progress)
        return summarise(direct), losses
    except NotDefined as reason:
        return str(reason), loss_by_position(model, held)


def _left_out(weights: Any, direct: Any) -> list[dict[str, str]]:
    """What is left out of the table, by its reason."""
    names: dict[str, list[str]] = {}
    for found, what in ((weights, ["copying", "OV eigenvalues"]), (direct, ["direct effects"])):
        if isinstance(found, str):
            names.setdefault(found, []).extend(what)
    return [
        {"what": " and ".join(filter(None, [", ".join(each[:-1]), each[-1]])), "why": why}
        for why, each in names.items()
    ]


def _about(model: Model) -> dict[str, Any]:
    """What kind of model it is."""
    size, said, cfg = sizes(model), describe(model), model.cfg
    return {
        "model": said["model"],
        "layers": size.n_layers,
        "heads": size.n_heads,
        "shared": 0 if size.n_key_value_heads == size.n_heads else size.n_key_value_heads,
        "d_model": size.d_model,
        "d_head": size.d_head,
        "d_vocab": size.d_vocab,
        "n_ctx": size.n_ctx,
        "positions": getattr(cfg, "positional_embedding_type", None),
        "attn_only": getattr(cfg, "attn_only", False),
        "bos": getattr(getattr(model, "tokenizer", None), "bos_token", None),
        "class": said["model_class"],
        "transformer_lens": said["transformer_lens"],
    }


def _maps(scores: xr.Dataset, weights: Sequence[xr.Dataset]) -> list[Drawn]:
    """A map for each score; the page places as many side by side as fit."""
    shown = {str(name): scores.sel(scorer=name).assign_attrs(method=name) for name in scores["scorer"].values}
    shown |= dict(zip(("copying", "ov_eigenvalues"), weights, strict=False))
    return [drawn(head_map(one), by_head(one), name) for name, one in shown.items()]


def _looking(matching: xr.Dataset, copies: xr.Dataset) -> Drawn:
    both = summaries({"prefix_matching": matching, "copying": copies})
    return drawn(score_plot(matching, copies), both, "looking_and_copying")


def _ablation(removed: Removed | None) -> dict[str, Any]:
    if removed is None:
        return {"benefit": True, "few": 0, "some": 0, "removed_map": None, "curve": None}
    curve, every = removed.curve, removed.every
    drawn_curve = (
        None if curve is None else drawn(curve_plot(curve), by_heads_removed(curve), "ablation_curve")
    )
    drawn_map = None if every is None else drawn(effect_map(every), effects(every), "ablation_of_each_head")
    return {
        "benefit": bool(np.isfinite(removed.joint["share"])),
        "together": share(removed.joint),
        "n_cells": 0 if every is None else int(np.isfinite(every["effect"].values).all(0).sum()),
        "few": 0 if every is None else every.sizes["prompt"],
        "some": removed.some,
        "removed_map": drawn_map,
        "curve": drawn_curve,
        "most": 0 if curve is None else int(curve["k"].values[-1]),
    }


def _loss(model: Model, held: Prompts, losses: xr.Dataset) -> dict[str, Any]:
    of_later = losses["loss"].where(xr.DataArray(held.scored.numpy(), dims=("prompt", "position")))
    of_first = losses["loss"].where(losses["position"] < losses["start"] - 1)
    first, later = (float(each.mean("position").mean()) for each in (of_first, of_later))
    plot = drawn(loss_plot(losses), by_position(losses), "loss_by_position")
    return {"first": first, "later": later, "caution": caution(model, first, "nats"), "plot": plot}


def _attention(
    model: Model, held: Prompts, shown: list[Head], menu: dict[str, xr.Dataset], progress: bool
) -> Section:
    """All heads on the two shortest of these prompts."""
    found = explore(model, held[: min(2, len(held))], scores=menu, progress=progress)
    return section_of(found.explored, shown)


def _few_shot(model: Model, n_prompts: int, seed: int, progress: bool) -> dict[str, Any]:
    """The vote of demonstrations: on the embedded model's own task for that model, on an easier one for others."""
    harder = {"classes": 4, "noise": 0.3} if describe(model)["model"] == "tiny" else {}
    try:
        prompts = word_episodes(model, prompts=n_prompts, seed=seed, **harder)
        answers = predict(model, prompts, pooling="max", progress=progress)
        scores = held_out(answers, answers, seed=seed)
    except NotDefined as reason:
        return {"left_out": str(reason)}
    votes = vote(answers, prompts, answers, seed=seed)
    return {
        "left_out": "",
        "noise": harder.get("noise", 0),
        "outcome": outcome(answers, scores),
        "rows": rows_of(scores),
        **{key: scores.attrs[key] for key in ("n_choose", "n_score", "splits")},
        "heads": drawn(head_map(votes), by_head(votes), "agreement_of_heads"),
        "votes": voted(answers, prompts, answers, scores, 3),
    }


def _made(model: Model, choice: Choice, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Settings and versions."""
    said = describe(model)
    return {
        "n_prompts": schedule.amounts.prompts,
        "draws": schedule.amounts.draws,
        "seed": seed,
        "tiny": said["model"] == "tiny",
        "source": shlex.quote(str(said["model"])),
        "asked": ",".join(map(str, choice.shown)) if choice.given else "",
        "most": SHOWN,
        "induction_kernel": said["induction_kernel"],
        "transformer_lens": said["transformer_lens"],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
