"""The page of a few-shot study: a model's in-context learning as kernel regression (Han et al. 2025, section 5).

Makes the figures and numbers of `templates/fewshot.html.j2` from the result of `few_shot_study`. It measures nothing.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from ..attention_explorer._contents import Explored
from ..attention_explorer._score_menu import score_menu
from ..fewshot._study import FewShotStudy, label_peak
from ..heads._choice import top_heads
from ..heads._names import Head, as_heads
from ..heads._summary import summarise
from ..kernel._held_out import CONTROLS, reconstruction_table
from ..kernel._vote_text import quoted_votes
from ..kernel._vote_view import view_of_votes
from ..plots._few_shot import demonstration_map, interval_plot
from ..plots._lines import line_plot
from ..plots._offline import plotly_script
from ..plots._scores import head_map
from ..prompts._prompts import Prompts
from ..stores import checked_target, write_whole
from ._attention import Section, section_of
from ._filters import interval
from ._frames import along_prompt, by_head, by_layer
from ._rendering import drawn, rendered

__all__ = ["fewshot_page", "outcome", "rows_of", "voted"]

BEST = "best head"
PROMPTS = 12  # prompts whose votes are listed
WHOLE = 8  # heads whose patterns are whole on a page that has no room for all


def fewshot_page(study: FewShotStudy, path: str | os.PathLike[str]) -> Path:
    """Write the page of a study; see `report`."""
    checked_target(path)
    title = f"In-context learning as kernel regression in {study.answers.attrs['model']}"
    data = {
        "found": outcome(study.answers, study.table),
        "table": _table(study.table),
        "heads": _heads(study),
        "looking": _looking(study),
        "alignment": None if study.alignment is None else _alignment(study.alignment),
        "attention": _attention(study),
        "votes": voted(study.answers.sel(pooling="max"), study.prompts, study.answers, study.table, PROMPTS),
        "made": _made(study),
    }
    explorer = data["attention"] is not None
    page = rendered("fewshot.html.j2", title, [plotly_script()], explorer=explorer, **data)
    return write_whole(path, page)


def outcome(answers: xr.Dataset, scores: xr.Dataset) -> dict[str, Any]:
    """How well the model does the task and how often one head's vote agrees with it, from `predict` and `held_out`."""
    best, (control, most) = scores.sel(row=BEST), _strongest_control(scores)
    shares = ("accuracy", "accuracy_low", "accuracy_high")
    agreements = ("agreement", "agreement_low", "agreement_high")
    return {
        "n": answers.sizes["prompt"],
        "n_labels": answers.sizes["label"],
        "head": _chosen(scores),
        "control": control,
        "most": most,
        "constant": _constant(answers),
        **{key: float(answers[key]) for key in shares},
        **{key: float(best[key]) for key in agreements},
    }


def rows_of(scores: xr.Dataset) -> list[list[str]]:
    """The rows of the held-out table: agreement, accuracy, and the lead of the best head."""
    rows = []
    for method in scores["row"].values:
        one = scores.sel(row=method)
        keys = ["agreement", "accuracy", *([] if method == BEST else ["agreement_difference"])]
        cells = [interval(one, key) if np.isfinite(one[key]) else "" for key in keys]
        rows.append([str(method), *cells, *[""] * (3 - len(cells))])
    return rows


def voted(
    weights: xr.Dataset, prompts: Prompts, answers: xr.Dataset, scores: xr.Dataset, count: int
) -> Markup:
    """The votes of the head that was chosen most often, on the first prompts."""
    head = _chosen(scores)
    votes = quoted_votes(weights[["weight"]].sel(layer=head.layer, head=head.head), prompts, answers)
    return Markup(view_of_votes(votes, prompts=range(min(count, len(prompts)))).fragment())


def counted(result: xr.Dataset) -> dict[str, Any]:
    """How many heads pass, how many are tested, and why the others are not."""
    summary = summarise(result)
    tested = int(summary["tested"].sum())
    untested = summary["tested"].size - tested
    passing = int((summary["passes"] == 1).sum())
    return {
        "passing": passing,
        "tested": tested,
        "untested": untested,
        "why": str(summary["untested"].item()),
    }


def _table(scores: xr.Dataset) -> dict[str, Any]:
    frame = reconstruction_table(scores).reset_index()
    known = {key: scores.isel(row=np.isfinite(scores[key].values)) for key in ("agreement", "accuracy")}
    plots = [drawn(interval_plot(each, key), frame, key) for key, each in known.items() if each.sizes["row"]]
    facts = {key: scores.attrs[key] for key in ("n_choose", "n_score", "splits")}
    return {"plots": plots, "rows": rows_of(scores), "names": scores["row"].values.tolist(), **facts}


def _heads(study: FewShotStudy) -> dict[str, Any]:
    lines = line_plot({"best head": study.heads, "layer sum": study.sums}, "agreement")
    of_heads, of_sums = by_head(study.heads), by_layer(study.sums)
    return {
        **counted(study.heads),
        "map": drawn(head_map(study.heads), of_heads, "agreement_of_heads"),
        "by_depth": drawn(lines, of_sums, "agreement_of_layers"),
    }


def _looking(study: FewShotStudy) -> dict[str, Any]:
    layer, of_layer, head, of_head = label_peak(study.answers)
    mass = study.along["mass"].sel(layer=layer).mean("head")
    start, query = float(mass.sel(part="start")), float(mass.sel(part="query"))
    return {
        "layer": layer,
        "of_layer": of_layer,
        "head": head,
        "of_head": of_head,
        "n": study.along.attrs["n_prompts"],
        "start": start,
        "query": query,
        "shown": float(mass.sum()) - start - query,
        "plot": drawn(demonstration_map(study.along), along_prompt(study.along), "attention_over_the_prompt"),
    }


def _alignment(alignment: xr.Dataset) -> dict[str, Any]:
    one = alignment.isel(alignment["mean"].fillna(-1).argmax(("layer", "head")))
    return {
        **counted(alignment),
        "head": one["name"].item(),
        "mean": interval(one, "mean", "low", "high"),
        "pooled": interval(one, "pooled"),
        "plot": drawn(line_plot(alignment, "alignment"), by_head(alignment), "alignment"),
    }


def _attention(study: FewShotStudy) -> Section | None:
    """The attention of all heads on the prompts that the study keeps; None if it keeps none.

    First comes the head that was chosen most often, then the others that the page names, then the next best.
    """
    if not study.shown:
        return None
    grid = (study.heads.sizes["layer"], study.heads.sizes["head"])
    results = {"agreement of the vote": study.heads.assign_attrs(unit="share of queries")}
    named = [_chosen(study.table), label_peak(study.answers)[2]]
    if study.alignment is not None:
        results["alignment with similarity"] = study.alignment
        named += top_heads(study.alignment, 1, by="mean")
    title = f"Attention in {study.answers.attrs['model']} on few-shot prompts"
    heads = [*named, *top_heads(study.heads, WHOLE)]
    return section_of(
        Explored(title, study.shown, grid, None, score_menu(results, *grid), (), "plain"), heads
    )


def _made(study: FewShotStudy) -> dict[str, Any]:
    """Settings and versions."""
    known, facts = study.answers.attrs, study.table.attrs
    return {
        "model": shlex.quote(str(known["model"])),
        "n_prompts": facts["n_prompts"],
        "shots": study.answers.sizes["demonstration"],
        "labels": [str(label) for label in study.answers["label"].values],
        "seed": facts["seed"],
        "span": known["span"],
        "first": study.prompts[0].text()[0],
        "induction_kernel": known["induction_kernel"],
        "transformer_lens": known["transformer_lens"],
    }


def _chosen(scores: xr.Dataset) -> Head:
    """The head chosen in the most splits."""
    names, counts = np.unique(scores["choice"].sel(row=BEST).values, return_counts=True)
    return as_heads(str(names[counts.argmax()]))[0]


def _strongest_control(scores: xr.Dataset) -> tuple[str, float]:
    """The control that agrees with the model most often, and how often."""
    controls = scores["agreement"].sel(row=[key for key in CONTROLS if key in scores["row"]])
    return str(controls["row"].values[controls.values.argmax()]), float(controls.max())


def _constant(answers: xr.Dataset) -> float:
    """The accuracy of the best constant answer."""
    target = answers["target"].values[answers["target"].values >= 0]
    return float(np.bincount(target).max() / len(target)) if len(target) else 0.0
