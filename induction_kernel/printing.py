"""What do the commands print and write? Tables of scores and effects, figures and data in files.

It measures by the verbs that Python has and draws nothing itself: `cli` says what is drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .data._labelled import load_classification
from .errors import Refused
from .evidence._saying import said_of, title_of, window_rows
from .evidence._six import six_arguments
from .evidence_page import write_evidence
from .fewshot._study import FewShotStudy, few_shot_study, label_peak
from .fewshot_page import write_fewshot_page
from .formats import csv_of, lines_of, netcdf_of, text_of
from .heads._choice import head_table
from .heads._names import as_heads
from .heads._summary import summarise
from .interventions._ablation import ablate, ablation_curve
from .interventions._edits import Edit
from .interventions._engine import sweep
from .interventions._intervention import Hold
from .interventions._patching import patch
from .kernel._held_out import reconstruction_table
from .model._anatomy import Model, sizes
from .prompts._pairs import pairs
from .prompts._repeated import repeated_tokens
from .removing import comparable
from .stats._means import mean_interval
from .stores import checked_target, write_whole
from .training._families import train_families
from .training._phases import phase_window

__all__ = [
    "TEXTS",
    "ablated",
    "answer_pairs",
    "argued",
    "lines",
    "patched",
    "raised",
    "studied",
    "study_writer",
    "write_netcdf",
    "writer",
]

TEXT_FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md")
COLUMNS = {"agreement": "agreement", "accuracy": "accuracy", "best head ahead by": "agreement_difference"}


def writer(out: Path | None) -> Callable[[xr.Dataset, Callable[[xr.Dataset], Any]], None]:
    """What writes a result to `out`, drawn or not, by its ending; refused before anything is measured."""
    _check_out(out)

    def write(found: xr.Dataset, draw: Callable[[xr.Dataset], Any]) -> None:
        if out is None:
            return
        if out.suffix == ".html":
            write_whole(out, draw(found).to_html())
        elif out.suffix == ".nc":
            write_whole(out, netcdf_of(found))
        else:
            write_whole(out, csv_of(_steps(found) if "k" in found.dims else _effects(found)))

    return write


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix not in (".html", ".nc", ".csv"):
        raise Refused(f"wanted --out with one of the endings .html (figure), .nc, .csv, got {str(out)!r}")
    if out is not None:
        checked_target(out)


def study_writer(out: Path | None) -> Callable[[FewShotStudy], None]:
    """What writes a study to `out`: a page, every number or the table, by its ending; refused before it is made."""
    _check_out(out)

    def write(study: FewShotStudy) -> None:
        if out is None:
            return
        if out.suffix == ".html":
            write_fewshot_page(study, out)
        elif out.suffix == ".nc":
            write_whole(out, netcdf_of(study.datasets()))
        else:
            write_whole(out, csv_of(reconstruction_table(study.table), index=True))

    return write


def lines(text: str) -> list[str]:
    """The lines of a file that aren't empty, where `text` is one; else `text` itself."""
    try:
        is_file, is_folder = Path(text).is_file(), Path(text).is_dir()
    except OSError:  # too long to be a name
        is_file = is_folder = False
    if not text.strip():
        raise Refused("wanted a prompt, or a file with one a line, got an empty text")
    name = len(text.split()) == 1 and ("/" in text or Path(text).suffix.lower() in TEXT_FILES)
    if not is_file and (is_folder or name):
        there = "is a folder" if is_folder else "does not exist"
        raise Refused(f"{text!r} {there}: wanted a text file with a prompt a line, or a prompt itself")
    if not is_file:
        return [text]
    found = [line for line in lines_of(text_of(text)) if line.strip()]
    if not found:
        raise Refused(f"wanted a prompt a line in {text!r}, got an empty file")
    return found


def answer_pairs(answers: str, n: int) -> list[tuple[str, str]]:
    """`(right, wrong)` for each of n prompts, from "right,wrong" or a file of such lines."""
    found = [tuple(line.split(",")) for line in lines(answers)]
    wrong = next((pair for pair in found if len(pair) != 2 or not all(pair)), None)
    if wrong is not None:
        raise Refused(
            f'wanted --answers as "right,wrong", each with the blank before it if it has one, got {",".join(wrong)!r}'
        )
    if len(found) not in (1, n):
        raise Refused(f"wanted one pair of answers, or one for each of {n} prompts, got {len(found)}")
    return [(right, wrong) for right, wrong in (found * n if len(found) == 1 else found)]


def ablated(
    model: Model, heads: str | None, *, prompts: int, seed: int, top: int, edit: Edit, hold: Hold
) -> tuple[xr.Dataset, str]:
    """Every head in turn, or these heads together: what was found, and a table of it."""
    repeats = repeated_tokens(model, prompts=prompts, seed=seed)
    if heads is None:
        found = sweep(model, repeats, edit=edit, hold=hold)
        said = _said(found, f"{found.attrs['edit']} at z, each head alone")
        return found, f"{said}\n{_printed(_effects(found).head(top))}"
    size = sizes(model)
    order = as_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    options: dict[str, Any] = {"edit": edit, "hold": hold}
    if order and len(order) <= comparable(order, size.n_heads):
        ks = sorted({2**i for i in range(len(order).bit_length())} | {len(order)})
        found, note = ablation_curve(model, repeats, order, ks=ks, seed=seed, **options), ""
    else:
        joint = ablate(model, repeats, order, **options)
        found = joint.drop_vars("baseline").expand_dims(k=[len(order)]).assign(baseline=joint["baseline"])
        found = found.assign_coords(heads=("k", [" ".join(map(str, order))]))
        note = "\nno random controls: a layer of these heads has too few others"
    note += f"\nnote: {found.attrs['cautions']}" if found.attrs.get("cautions") else ""
    said = _said(found, f"{found.attrs['edit']} at z, heads together")
    return found, f"{said}\n{_printed(_steps(found))}{note}"


def patched(
    model: Model,
    clean: Sequence[str],
    corrupted: Sequence[str],
    answers: Sequence[tuple[str, str]],
    *,
    site: str,
    by: Sequence[str],
    noising: bool,
    top: int,
) -> tuple[xr.Dataset, str]:
    """The clean run patched into the corrupted one (`noising`: the other way): what was found, and a table."""
    pair = pairs(model, clean=clean, corrupted=corrupted, answers=answers)
    source, into = (pair.corrupted, pair.clean) if noising else pair
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        found = patch(model, source=source, into=into, site=site, by=by)
    names = ("corrupted", "clean") if noising else ("clean", "corrupted")
    means = [float(found[key].mean()) for key in ("source_value", "baseline")]
    said = _said(found, f"{site}, {names[0]} ({means[0]:.3f}) into {names[1]} ({means[1]:.3f})")
    notes = "".join(f"\nnote: {each.message}" for each in warned if each.category is UserWarning)
    return found, f"{said}\n{_printed(_effects(found).head(top))}{notes}"


def studied(
    model: Model,
    data: str | None,
    demonstrations: str | None,
    *,
    reading: Mapping[str, str | None],
    **options: Any,
) -> tuple[FewShotStudy, str]:
    """A model's few-shot predictions on labelled data as a vote: what was found, and a table of it."""
    read: dict[str, Any] = {key: value for key, value in reading.items() if value is not None}
    if data is None and (demonstrations or read):
        raise Refused(
            f"wanted DATA too: {', '.join(f'--{key}' for key in ('demonstrations', *reading))} say how it is read"
        )
    read |= {key: int(read[key]) for key in ("text", "label") if read.get(key, "").isdecimal()}
    if "labels" in read:
        read["labels"] = [word.strip() for word in read["labels"].split(",")]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        asked = None if data is None else load_classification(data, **read)
        if demonstrations is not None and Path(demonstrations).is_file():
            read.pop("split", None)  # of DATA alone
        pool = None if demonstrations is None else load_classification(demonstrations, **read)
        study = few_shot_study(model, asked, pool=pool, **options)
    answers, shots = study.answers, study.answers.sizes["demonstration"]
    right, low, high = (float(answers[f"accuracy{end}"]) for end in ("", "_low", "_high"))
    layer, of_layer, head, of_head = label_peak(answers)
    name = "words with made-up labels" if asked is None else asked.name or Path(str(data)).name
    asked_of = f"{len(study.prompts)} queries after {shots} demonstrations"
    said = [
        f"{answers.attrs['model']} on {name}: accuracy {right:.3f} ({low:.3f} to {high:.3f}), {asked_of}, "
        f"labels {', '.join(map(str, answers['label'].values))}",
        _scores(study.table),
        f"label attention is largest in layer {layer} ({of_layer:.3f}, mean of its heads); of single heads in {head} "
        f"({of_head:.3f})",
        *(f"note: {each.message}" for each in warned if each.category is UserWarning),
    ]
    return study, "\n".join(said)


def argued(source: str, text: Path | None, out: Path, *, seed: int) -> str:
    """A model or a run put through the six arguments, with a page of them: every verdict with its checks."""
    if out.suffix != ".html":
        raise Refused(f"wanted --out, the page, with the ending .html, got {str(out)!r}")
    _check_out(out)
    if text is not None and not text.is_file():
        raise Refused(f"wanted --text as a text file, got {str(text)!r}: there is none")
    found = six_arguments(source, prompts=None if text is None else text_of(text), seed=seed)
    said = [line for name, each in found.results.items() for line in _verdict(name, each)]
    if found.shipped:
        said.append(
            "2 and 6 are of the families of models that come with the package, which learned the same language"
        )
    write_evidence(found, out)
    return "\n".join(said)


def _verdict(name: str, result: xr.Dataset) -> list[str]:
    """An argument's verdict, with a line for each of its checks or the reason why there is none."""
    verdict = f"{title_of(name)}: {result.attrs['verdict']}"
    if not result.sizes["check"]:
        return [f"{verdict} ({result.attrs['reason']})"]
    checks = [result.isel(check=at) for at in range(result.sizes["check"])]
    return [verdict, *(f"  {check['verdict'].item():<12}  {said_of(check)}" for check in checks)]


def raised(folder: Path, *, seeds: int, workers: int) -> str:
    """Trains the embedded families, and says which runs have a window."""
    curves = train_families(folder, seeds=range(seeds), workers=workers)
    header = ["family", "seed", "start, tokens", "end", "of the ICL score formed in it"]
    return pd.DataFrame(window_rows(phase_window(curves)), columns=header).to_string(index=False)


def _scores(table: xr.Dataset) -> str:
    """The held-out table: scores with their intervals, and what was chosen most often."""
    found, facts = reconstruction_table(table), table.attrs
    columns: dict[str, Any] = {}
    for title, key in COLUMNS.items():
        parts = found.reindex(columns=[key, f"{key}_low", f"{key}_high"]).to_numpy(float)
        columns[title] = [f"{m:.3f} ({a:.3f} to {b:.3f})" if np.isfinite(m) else "" for m, a, b in parts]
    frame = pd.DataFrame(columns | {"chosen": found["chosen"].to_numpy()}, found.index)
    frame.loc["best head", "best head ahead by"] = ""
    return (
        f"heads chosen by agreement on {facts['n_choose']} of the queries, scored on the other {facts['n_score']}, in "
        f"{facts['splits']} random splits:\n{frame.rename_axis(None).to_string()}"
    )


def _said(found: xr.Dataset, done: str) -> str:
    """What the table is of."""
    known, n = found.attrs, found.attrs["n_prompts"]
    held = ", patterns held" if known.get("hold") == "patterns" else ""
    metric = f"{str(known['metric']).replace('_', ' ')} ({known['unit']}, {n} prompt{'s' if n > 1 else ''})"
    return f"{known['model']}: effect of {done}{held} on {metric}"


def _printed(frame: pd.DataFrame) -> str:
    shown = frame.dropna(axis="columns", how="all")
    return shown.to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="")


def _effects(found: xr.Dataset) -> pd.DataFrame:
    """A row a cell, the largest effect of either sign first, with 95% intervals over prompts."""
    by = [dim for dim in ("layer", "head", "position") if dim in found["effect"].dims]
    effect = found["effect"].transpose("prompt", *by)
    flat = effect.values.reshape(len(effect), -1)
    low, high = mean_interval(flat)
    cells = xr.Dataset({"effect": effect.mean("prompt")})
    cells = cells.assign(low=(by, low.reshape(effect.shape[1:])), high=(by, high.reshape(effect.shape[1:])))
    if "normalised" in found:
        cells = cells.assign(normalised=found["normalised"])
    if "token" in found.coords:
        cells = cells.assign_coords(
            token=("position", [_tokens(column) for column in found["token"].values.T])
        )
    frame = cells.to_dataframe().reset_index().dropna(subset="effect")
    first = [key for key in ("name", *by, "token", "normalised", "effect", "low", "high") if key in frame]
    return frame[first].iloc[np.argsort(-frame["effect"].abs().to_numpy(), kind="stable")]


def _tokens(column: np.ndarray) -> str:
    """The different tokens at a position, the first of many."""
    seen = list(dict.fromkeys(repr(str(token))[1:-1] for token in column if str(token)))
    return "/".join([*seen[:3], "…"] if len(seen) > 3 else seen)


def _steps(found: xr.Dataset) -> pd.DataFrame:
    """A row for each number of heads removed together, beside what random ones cost."""
    values: dict[str, Any] = {"k": found["k"].values, "effect": found["effect"].mean("prompt").values}
    if "control_effect" in found:
        values["random"] = found["control_effect"].mean(("prompt", "draw")).values
    values |= {key: found[key].values for key in ("share", "share_low", "share_high")}
    if "control_share" in found:
        values["random_sets"] = found["n_controls"].values
        values["random_share_low"] = found["control_share"].min("draw").values
        values["random_share_high"] = found["control_share"].max("draw").values
    return pd.DataFrame(values | {"heads": found["heads"].values})


def _summaries(results: dict[str, Any]) -> Any:
    """A data frame with a row a head and scorer, strongest first."""
    frames = []
    for name, scores in results.items():
        frame = summarise(scores).reset_coords("name").to_dataframe().reset_index()
        frame.insert(0, "method", name)
        frames.append(frame.drop(columns="scorer", errors="ignore").sort_values("rank"))
    return pd.concat(frames, ignore_index=True)


def _table(results: dict[str, Any], top: int) -> str:
    parts = []
    for method, scores in results.items():
        text = head_table(scores, top).to_string(float_format=lambda value: f"{value:.3f}", index_names=False)
        why = str(summarise(scores)["untested"].item())
        note = f"\nuntested: {why}" if why and "untested" in text else ""
        parts.append(f"{method}: {scores.attrs['title']}\n{text}{note}")
    return "\n\n".join(parts)


def _csv(results: dict[str, Any], _: int) -> str:
    return csv_of(_summaries(results)).rstrip("\n")


def _json(results: dict[str, Any], _: int) -> str:
    return _summaries(results).to_json(orient="records", indent=1)


TEXTS: dict[str, Callable[..., str]] = {"table": _table, "csv": _csv, "json": _json}


def write_netcdf(results: dict[str, Any], out: Path) -> None:
    """One scorer: a plain file; several: a group each."""
    write_whole(out, netcdf_of(next(iter(results.values())) if len(results) == 1 else results))
