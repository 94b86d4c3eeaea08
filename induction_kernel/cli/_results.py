"""What the commands measure, with the functions of the package, and the texts and tables that report it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..data._labelled import LabelledTexts, load_classification
from ..evidence._six_arguments import six_arguments
from ..evidence._wording import in_words, window_rows
from ..fewshot._study import FewShotStudy, few_shot_study, label_peak
from ..formats import text_of
from ..heads._names import as_heads
from ..interventions._ablation import NO_BENEFIT, ablate, ablation_curve
from ..interventions._activations import Edit, check_site
from ..interventions._engine import sweep
from ..interventions._intervention import Hold
from ..interventions._patching import patch
from ..interventions._plan import checked_by
from ..kernel._held_out import reconstruction_table
from ..model._anatomy import Model, sizes
from ..pages._frames import by_heads_removed, effects
from ..pages._removed import comparable
from ..pages._writer import report
from ..plots._style import effect
from ..prompts._pairs import pairs
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ..training._families import train_families
from ..training._phases import phase_window
from ._output import Part

__all__ = ["Labelled", "ablated", "argued", "check_patched", "patched", "raised", "read_labelled", "studied"]

COLUMNS = {"agreement": "agreement", "accuracy": "accuracy", "best head ahead by": "agreement_difference"}


def ablated(
    model: Model, heads: str | None, *, prompts: int, seed: int, top: int, edit: Edit, hold: Hold
) -> tuple[xr.Dataset, list[Part]]:
    """Ablate every head in turn, or these heads together; return the result and its table."""
    repeats = repeated_tokens(model, prompts=prompts, seed=seed)
    if heads is None:
        found = sweep(model, repeats, edit=edit, hold=hold)
        said = _said(found, "each head alone")
        return found, [said, effects(found).head(top)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NO_BENEFIT)  # it is among the cautions
        found, notes = _together(model, repeats, heads, seed, {"edit": edit, "hold": hold})
    notes += [f"note: {found.attrs['cautions']}"] if found.attrs.get("cautions") else []
    said = _said(found, "heads together")
    return found, [said, by_heads_removed(found), *notes]


def _together(
    model: Model, repeats: Prompts, heads: str, seed: int, options: Mapping[str, Any]
) -> tuple[xr.Dataset, list[Part]]:
    """These heads ablated together, beside random ones where their layers have enough others; and notes."""
    order = as_heads(heads)
    if order and len(order) <= comparable(order, sizes(model).n_heads):
        ks = sorted({2**i for i in range(len(order).bit_length())} | {len(order)})
        return ablation_curve(model, repeats, order, ks=ks, seed=seed, **options), []
    joint = ablate(model, repeats, order, **options)
    found = joint.drop_vars("baseline").expand_dims(k=[len(order)]).assign(baseline=joint["baseline"])
    found = found.assign_coords(heads=("k", [" ".join(map(str, order))]))
    return found, ["no random controls: a layer of these heads has too few others"]


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
) -> tuple[xr.Dataset, list[Part]]:
    """Patch the clean run into the corrupted one (`noising`: the reverse); return the result and its table."""
    pair = pairs(model, clean=clean, corrupted=corrupted, answers=answers)
    source, into = (pair.corrupted, pair.clean) if noising else pair
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        found = patch(model, source=source, into=into, site=site, by=by)
    names = ("corrupted", "clean") if noising else ("clean", "corrupted")
    means = [float(found[key].mean()) for key in ("source_value", "baseline")]
    said = _said(found, f"{names[0]} ({means[0]:.3f}) into {names[1]} ({means[1]:.3f})")
    return found, [said, effects(found).head(top), *_notes(warned)]


def check_patched(site: str, by: Sequence[str]) -> None:
    """Raise Refused unless there is such a site and it has these parts; no model is needed for that."""
    check_site(site)
    checked_by(by, site)


class Labelled(NamedTuple):
    """Labelled data of the command line: queries and pool (None where not given), a name, and warnings to print."""

    queries: LabelledTexts | None
    pool: LabelledTexts | None
    name: str
    notes: list[str]


def read_labelled(
    data: str | None, demonstrations: str | None, reading: Mapping[str, str | None]
) -> Labelled:
    """Read the labelled data of `fewshot`, before any model is loaded."""
    read: dict[str, Any] = {key: value for key, value in reading.items() if value is not None}
    read |= {key: int(read[key]) for key in ("text", "label") if read.get(key, "").isdecimal()}
    if "labels" in read:
        read["labels"] = [word.strip() for word in read["labels"].split(",")]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        asked = None if data is None else load_classification(data, **read)
        if demonstrations is not None and Path(demonstrations).is_file():
            read.pop("split", None)  # it goes with DATA alone
        pool = None if demonstrations is None else load_classification(demonstrations, **read)
    name = "words with made-up labels" if asked is None else asked.name or Path(str(data)).name
    return Labelled(asked, pool, name, _notes(warned))


def studied(model: Model, data: Labelled, **options: Any) -> tuple[FewShotStudy, list[Part]]:
    """Study a model's few-shot predictions on labelled data as a vote; return the study and its table."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        study = few_shot_study(model, data.queries, pool=data.pool, **options)
    answers, shots = study.answers, study.answers.sizes["demonstration"]
    right, low, high = (float(answers[f"accuracy{end}"]) for end in ("", "_low", "_high"))
    layer, of_layer, head, of_head = label_peak(answers)
    asked_of = f"{len(study.prompts)} queries after {shots} demonstrations"
    said: list[Part] = [
        f"{answers.attrs['model']} on {data.name}: accuracy {right:.3f} ({low:.3f} to {high:.3f}), {asked_of}, "
        f"labels {', '.join(map(str, answers['label'].values))}",
        *_scores(study.table),
        f"label attention is largest in layer {layer} ({of_layer:.3f}, mean of its heads); of single heads, in {head} "
        f"({of_head:.3f})",
        *data.notes,
        *_notes(warned),
    ]
    return study, said


def _notes(warned: Sequence[warnings.WarningMessage]) -> list[str]:
    return [f"note: {each.message}" for each in warned if each.category is UserWarning]


def argued(source: str, text: Path | None, out: Path, *, seed: int) -> list[Part]:
    """Test the six arguments on a model or training run and write their page; return every verdict with its checks."""
    found = six_arguments(source, prompts=None if text is None else text_of(text), seed=seed)
    said: list[Part] = [line for each in found.results.values() for line in _verdict(each)]
    report(found, out)
    return said


def raised(folder: Path, *, seeds: int, workers: int) -> list[Part]:
    """Train the families of small models; return a table of the windows of their runs."""
    curves = train_families(folder, seeds=range(seeds), workers=workers)
    header = ["family", "seed", "window starts, tokens", "ends", "share of the ICL score formed in it"]
    return [pd.DataFrame(window_rows(phase_window(curves)), columns=header)]


def _scores(table: xr.Dataset) -> list[Part]:
    """The held-out table: scores with intervals, and the head or layer chosen most often."""
    found, facts = reconstruction_table(table), table.attrs
    columns: dict[str, Any] = {}
    for title, key in COLUMNS.items():
        parts = found.reindex(columns=[key, f"{key}_low", f"{key}_high"]).to_numpy(float)
        columns[title] = [f"{m:.3f} ({a:.3f} to {b:.3f})" if np.isfinite(m) else "" for m, a, b in parts]
    frame = pd.DataFrame(columns | {"chosen": found["chosen"].to_numpy()}, found.index)
    frame.loc["best head", "best head ahead by"] = ""
    heading = (
        f"heads chosen by agreement on {facts['n_choose']} of the queries, scored on the other {facts['n_score']}, in "
        f"{facts['splits']} random splits:"
    )
    return [heading, frame.rename_axis(None)]


def _said(found: xr.Dataset, how: str) -> str:
    """The line above a table: model, effect, how heads were edited, unit and number of prompts."""
    known, n = found.attrs, found.attrs["n_prompts"]
    return f"{known['model']}: {effect(known)}, {how} ({known['unit']}, {n} prompt{'s' if n > 1 else ''})"


def _verdict(result: xr.Dataset) -> list[str]:
    """An argument's verdict, with a line for each of its checks, or the reason why there are none."""
    verdict = f"{result.attrs['title']}: {result.attrs['verdict']}"
    if not result.sizes["check"]:
        return [f"{verdict} ({result.attrs['reason']})"]
    checks = [result.isel(check=at) for at in range(result.sizes["check"])]
    about = [f"  about {result.attrs['about']}"] if "about" in result.attrs else []
    return [verdict, *about, *(f"  {check['verdict'].item():<12}  {in_words(check)}" for check in checks)]
